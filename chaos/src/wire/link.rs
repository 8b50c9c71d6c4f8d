//! The effects of a link on packets: latency, loss, duplication, reordering, damage, bandwidth, MTU.
//!
//! A link is one direction between two ends of one network, and may be changed at any time. Each packet draws
//! exactly three numbers from the stream of the end that sends it, whatever the link's configuration, so that a
//! change of one rate doesn't shift the other fates of later packets. Only an [ideal](LinkConfig::ideal) link draws
//! none: where the first fault on it begins, or the last one ends, later packets of that end get other fates. TCP
//! segments keep their order on a link, as on a path that hashes flows, unless the link reorders.

use super::middlebox::Refusal;
use crate::seed::{Rng, below, mix};
use rand_core::Rng as _;
use std::time::Duration;

/// A probability, as a threshold for a 32-bit draw: exact at 0 and at 1, and without floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rate(u64);

impl Rate {
    /// Never.
    pub const NEVER: Rate = Rate(0);
    /// Always.
    pub const ALWAYS: Rate = Rate(1 << 32);

    /// `percent` of 100; more than 100 is always.
    pub const fn percent(percent: u32) -> Rate {
        Rate::per_million(percent.saturating_mul(10_000))
    }

    /// `parts` of a million; more than a million is always.
    pub const fn per_million(parts: u32) -> Rate {
        let parts = if parts > 1_000_000 { 1_000_000 } else { parts };
        Rate(((parts as u64) << 32) / 1_000_000)
    }

    /// The probability that at least one of two independent rates hits.
    pub(crate) fn or(self, other: Rate) -> Rate {
        let both = (u128::from(self.0) * u128::from(other.0)) >> 32;
        Rate(self.0 + other.0 - both as u64)
    }

    pub(crate) fn hits(self, draw: u32) -> bool {
        u64::from(draw) < self.0
    }
}

/// The least MTU: a TCP segment needs room for its headers and some bytes.
pub const MIN_MTU: usize = 576;

/// The MTU of Ethernet.
pub const DEFAULT_MTU: usize = 1500;

/// The distribution of the [`jitter`](LinkConfig::jitter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// Uniform from zero to the jitter.
    #[default]
    Uniform,
    /// Exponential, with the jitter as its half-life: half of all packets have less, one in 1,024 has over ten times
    /// it.
    Exponential,
    /// Heavy tail: one packet in `n` has more than `n` times the jitter, up to 64 times.
    HeavyTail,
}

impl Spread {
    fn draw(self, scale_ns: u64, draw: u64) -> u64 {
        match self {
            Spread::Uniform => below(draw, scale_ns.saturating_add(1)),
            Spread::Exponential => {
                // -log2 of a uniform number: whole doublings, with linear interpolation between them. The error is 6
                // % of one doubling at most, and no float is needed.
                let doublings = u64::from(draw.leading_zeros());
                let rest = draw.checked_shl(draw.leading_zeros() + 1).unwrap_or(0);
                let beyond = scale_ns - below(rest, scale_ns.saturating_add(1));
                scale_ns.saturating_mul(doublings).saturating_add(beyond)
            }
            Spread::HeavyTail => {
                let one_of = u64::MAX / draw.max(1);
                let beyond = below(mix(draw), if one_of > 64 { 1 } else { scale_ns.saturating_add(1) });
                scale_ns.saturating_mul(one_of.saturating_sub(1).min(64)).saturating_add(beyond)
            }
        }
    }
}

/// Loss in bursts (Gilbert–Elliott): a link is in a good or a bad state, changes its state between two packets with
/// these probabilities, and loses packets of either protocol in the bad state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// The probability of a change from good to bad.
    pub begin: Rate,
    /// The probability of a change from bad to good. A burst lasts one over this many packets on average.
    pub end: Rate,
    /// The loss in the bad state.
    pub loss: Rate,
}

/// The rate of a link, and the size of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes of IP packets per second; at least 1.
    pub bytes_per_second: u64,
    /// The size of the queue in bytes, including the packet that is being sent. A packet that doesn't fit is dropped
    /// (tail drop), unless the queue is empty.
    pub queue_bytes: u64,
}

/// One direction of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// The least time from one end to the other.
    pub latency: Duration,
    /// A constant extra latency, drawn once for each pair of ends: uniform from zero to this.
    pub pair_latency: Duration,
    /// Extra latency, drawn for each packet: see [`Spread`]. It lets UDP datagrams overtake each other.
    pub jitter: Duration,
    /// The distribution of the jitter.
    pub spread: Spread,
    /// Independent loss of UDP datagrams.
    pub udp_loss: Rate,
    /// Independent loss of TCP segments.
    pub tcp_loss: Rate,
    /// Loss in bursts, in addition.
    pub burst: Option<Burst>,
    /// The rate of packets with a second copy, which has its own jitter.
    pub duplicate: Rate,
    /// The rate of packets that are held back by [`reorder_by`](LinkConfig::reorder_by), TCP segments included.
    pub reorder: Rate,
    /// How long a packet is held back.
    pub reorder_by: Duration,
    /// The rate of packets with one flipped bit, after the IP header. A checksum catches it, except in half of the
    /// UDP datagrams: there the bit is in the body and the checksum is corrected, so that the damage reaches the
    /// reader.
    pub corrupt: Rate,
    /// The rate of UDP datagrams truncated to a drawn length. Lengths and checksum are corrected, so that the
    /// datagram reaches the reader.
    pub truncate: Rate,
    /// The bandwidth; `None` is unlimited.
    pub bandwidth: Option<Bandwidth>,
    /// The largest IP packet in bytes; a larger one is dropped and counted. At least [`MIN_MTU`].
    pub mtu: usize,
    /// Whether a sender isn't told what the MTU is, as by a router whose ICMP is filtered (RFC 2923, 2.1). Then TCP sizes its
    /// segments as if the link had the MTU of Ethernet: handshakes pass, and full segments vanish until the connection
    /// ends with `TimedOut`, since Linux doesn't probe the MTU by default (ip-sysctl, `tcp_mtu_probing`).
    pub black_hole: bool,
}

impl Default for LinkConfig {
    /// A good link of 10 ms: nothing is lost, duplicated or reordered, MTU 1,500.
    fn default() -> Self {
        LinkConfig {
            latency: Duration::from_millis(10),
            pair_latency: Duration::ZERO,
            jitter: Duration::ZERO,
            spread: Spread::Uniform,
            udp_loss: Rate::NEVER,
            tcp_loss: Rate::NEVER,
            burst: None,
            duplicate: Rate::NEVER,
            reorder: Rate::NEVER,
            reorder_by: Duration::from_millis(20),
            corrupt: Rate::NEVER,
            truncate: Rate::NEVER,
            bandwidth: None,
            mtu: DEFAULT_MTU,
            black_hole: false,
        }
    }
}

/// Why a packet was dropped before its receiver had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropCause {
    /// The link lost it.
    Loss = 0,
    /// It was larger than the link's MTU.
    Mtu = 1,
    /// A partition lay between sender and receiver.
    Partition = 2,
    /// No host or box has the destination in the network that the packet had reached.
    NoHost = 3,
    /// No socket at that port.
    NoSocket = 4,
    /// The socket's receive buffer was full.
    BufferFull = 5,
    /// The host had no power, or was suspended.
    HostDown = 6,
    /// Damaged on the way.
    Checksum = 7,
    /// The listener's backlog was full, or its host had no room for a connection.
    Backlog = 8,
    /// The queue of a link with a bandwidth was full.
    QueueFull = 9,
    /// A box had no mapping for it.
    NoMapping = 10,
    /// A box had a mapping, but not for this sender.
    Filtered = 11,
    /// A box had no room for a new mapping.
    TableFull = 12,
    /// A box doesn't hairpin.
    Hairpin = 13,
    /// A box blocks this kind of traffic.
    Blocked = 14,
    /// A box had no power.
    BoxOff = 15,
}

/// The number of [`DropCause`]s.
pub(crate) const DROP_CAUSES: usize = 16;

/// A name of each, by its number.
pub(crate) const DROP_NAMES: [&str; DROP_CAUSES] = [
    "lost",
    "too large for a link",
    "lost by a partition",
    "without a host",
    "without a socket",
    "buffer full",
    "host down",
    "damaged",
    "backlog full",
    "link's queue full",
    "without a mapping",
    "filtered",
    "mapping table full",
    "hairpins refused",
    "blocked",
    "box off",
];

impl From<Refusal> for DropCause {
    fn from(refusal: Refusal) -> DropCause {
        match refusal {
            Refusal::NoMapping => DropCause::NoMapping,
            Refusal::Filtered => DropCause::Filtered,
            Refusal::TableFull => DropCause::TableFull,
            Refusal::Hairpin => DropCause::Hairpin,
            Refusal::Blocked => DropCause::Blocked,
            Refusal::Off => DropCause::BoxOff,
        }
    }
}

/// The class of a packet, for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Udp,
    Tcp,
}

/// The fate of one packet on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped(DropCause),
    /// The packet arrives at `at_ns`, and its copy, if it has one, at `copy_at_ns`. `flip` and `cut` are draws that
    /// select a bit to flip and a length to truncate to.
    Arrives {
        at_ns: u64,
        copy_at_ns: Option<u64>,
        flip: Option<u64>,
        cut: Option<u64>,
    },
}

/// The state of a link between packets.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    /// When the last queued byte will have left, at the link's rate for the last packet.
    busy_until_ns: u64,
    bytes_per_second: u64,
    /// When the last TCP segment arrives that wasn't held back. Later segments don't arrive earlier.
    tcp_floor_ns: u64,
    /// Whether it is in a burst.
    bad: bool,
}

impl LinkState {
    /// The bytes that wait for their turn, at a link that gets a packet at `now_ns`.
    pub(crate) fn waiting_bytes(&self, now_ns: u64) -> u64 {
        let waits_ns = self.busy_until_ns.saturating_sub(now_ns);
        let bytes_ns = u128::from(waits_ns) * u128::from(self.bytes_per_second);
        u64::try_from(bytes_ns.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    }
}

/// A duration in nanoseconds, saturating at more than five centuries.
pub(crate) fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl LinkConfig {
    /// A link without any effect: packets reach the other end at once, apart from the 10 µs of a kernel.
    pub fn ideal() -> LinkConfig {
        LinkConfig { latency: Duration::ZERO, ..LinkConfig::default() }
    }

    /// The MTU that a sender learns of.
    pub(crate) fn told_mtu(&self) -> usize {
        if self.black_hole { self.mtu.max(DEFAULT_MTU) } else { self.mtu }
    }

    pub(crate) fn remembers(&self, class: Class) -> bool {
        class == Class::Tcp || self.burst.is_some() || self.bandwidth.is_some()
    }

    /// Draws a packet's fate.
    pub(crate) fn fate(
        &self,
        now_ns: u64,
        class: Class,
        len: usize,
        pair_ns: u64,
        state: &mut LinkState,
        rng: &mut Rng,
    ) -> Fate {
        let (rates, jitters, more) = (rng.next_u64(), rng.next_u64(), rng.next_u64());
        let further = mix(rates ^ more);
        if len > self.mtu {
            return Fate::Dropped(DropCause::Mtu);
        }
        let mut leaves_ns = now_ns;
        if let Some(bandwidth) = self.bandwidth {
            let rate = u128::from(bandwidth.bytes_per_second.max(1));
            let mut waits_ns = state.busy_until_ns.saturating_sub(now_ns);
            let before = std::mem::replace(&mut state.bytes_per_second, rate as u64);
            if waits_ns > 0 && before != state.bytes_per_second {
                // The queued bytes stay, and leave at the new rate.
                let bytes_ns = u128::from(waits_ns) * u128::from(before);
                waits_ns = u64::try_from(bytes_ns.div_ceil(rate)).unwrap_or(u64::MAX);
                state.busy_until_ns = now_ns.saturating_add(waits_ns);
            }
            let waiting = u128::from(waits_ns) * rate / 1_000_000_000;
            if waits_ns > 0 && waiting + len as u128 > u128::from(bandwidth.queue_bytes) {
                return Fate::Dropped(DropCause::QueueFull);
            }
            let takes_ns = (len as u128 * 1_000_000_000).div_ceil(rate) as u64;
            state.busy_until_ns = now_ns.saturating_add(waits_ns).saturating_add(takes_ns);
            leaves_ns = state.busy_until_ns;
        }
        if let Some(burst) = self.burst {
            let change = if state.bad { burst.end } else { burst.begin };
            state.bad ^= change.hits(further as u32);
            if state.bad && burst.loss.hits((further >> 32) as u32) {
                return Fate::Dropped(DropCause::Loss);
            }
        }
        let loss = match class {
            Class::Udp => self.udp_loss,
            Class::Tcp => self.tcp_loss,
        };
        if loss.hits(rates as u32) {
            return Fate::Dropped(DropCause::Loss);
        }
        let arrives_ns = leaves_ns.saturating_add(whole_ns(self.latency)).saturating_add(pair_ns);
        let jitter_ns = whole_ns(self.jitter);
        let held = self.reorder.hits(more as u32);
        let copy = self.duplicate.hits((rates >> 32) as u32);
        let mut at_ns = arrives_ns.saturating_add(self.spread.draw(jitter_ns, jitters));
        if held {
            // A segment that is held back doesn't delay later ones.
            at_ns = at_ns.saturating_add(whole_ns(self.reorder_by));
        } else if class == Class::Tcp {
            at_ns = at_ns.max(state.tcp_floor_ns);
            state.tcp_floor_ns = at_ns;
        }
        let draw = jitters ^ more.rotate_left(17);
        Fate::Arrives {
            at_ns,
            copy_at_ns: copy
                .then(|| arrives_ns.saturating_add(self.spread.draw(jitter_ns, jitters.rotate_left(32)))),
            flip: self.corrupt.hits((more >> 32) as u32).then_some(draw),
            cut: self.truncate.hits(mix(further) as u32).then_some(draw),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;

    const LOST: Fate = Fate::Dropped(DropCause::Loss);

    fn fate(config: &LinkConfig, class: Class, rng: &mut Rng) -> Fate {
        config.fate(0, class, 100, 0, &mut LinkState::default(), rng)
    }

    #[test]
    fn a_rate_is_exact_at_its_ends() {
        assert!(!Rate::NEVER.hits(0));
        assert!(Rate::ALWAYS.hits(u32::MAX));
        assert_eq!(Rate::percent(100), Rate::ALWAYS);
        assert_eq!(Rate::percent(50), Rate(1 << 31));
    }

    #[test]
    fn a_new_rate_does_not_shift_the_draws_of_later_packets() {
        let fates = |config: &LinkConfig| {
            let mut rng = stream(3, "link/a");
            (0..100).map(|_| fate(config, Class::Udp, &mut rng)).collect::<Vec<_>>()
        };
        let plain = LinkConfig { jitter: Duration::from_millis(9), ..LinkConfig::default() };
        let lossy = LinkConfig { udp_loss: Rate::percent(40), ..plain.clone() };
        let (plain, lossy) = (fates(&plain), fates(&lossy));
        assert!(lossy.contains(&LOST));
        for (a, b) in plain.iter().zip(&lossy) {
            assert!(*b == LOST || a == b);
        }
    }

    #[test]
    fn loss_is_separate_for_udp_and_tcp() {
        let config = LinkConfig { udp_loss: Rate::ALWAYS, ..LinkConfig::default() };
        let mut rng = stream(3, "link/a");
        assert_eq!(fate(&config, Class::Udp, &mut rng), LOST);
        assert_ne!(fate(&config, Class::Tcp, &mut rng), LOST);
    }

    #[test]
    fn a_bandwidth_delays_what_waits_and_drops_what_does_not_fit() {
        let bandwidth = Bandwidth { bytes_per_second: 1_000_000, queue_bytes: 3_000 };
        let config = LinkConfig { bandwidth: Some(bandwidth), ..LinkConfig::ideal() };
        let (mut state, mut rng) = (LinkState::default(), stream(3, "link/a"));
        let mut send = |now_ns| match config.fate(now_ns, Class::Udp, 1_000, 0, &mut state, &mut rng) {
            Fate::Arrives { at_ns, .. } => Some(at_ns),
            Fate::Dropped(why) => {
                assert_eq!(why, DropCause::QueueFull);
                None
            }
        };
        assert_eq!([send(0), send(0), send(0)], [Some(1_000_000), Some(2_000_000), Some(3_000_000)]);
        assert_eq!(send(0), None);
        assert_eq!(send(1_000_000), Some(4_000_000));
        assert_eq!(send(9_000_000), Some(10_000_000));
        let bandwidth = Bandwidth { queue_bytes: 0, ..bandwidth };
        let config = LinkConfig { bandwidth: Some(bandwidth), ..config };
        let fate = config.fate(0, Class::Udp, 1_000, 0, &mut LinkState::default(), &mut rng);
        assert!(matches!(fate, Fate::Arrives { at_ns: 1_000_000, .. }), "an idle link takes any packet");
    }

    #[test]
    fn what_waits_leaves_at_the_rate_that_the_link_has_now() {
        let at_rate = |bytes_per_second| LinkConfig {
            bandwidth: Some(Bandwidth { bytes_per_second, queue_bytes: 3_000 }),
            ..LinkConfig::ideal()
        };
        let (mut state, mut rng) = (LinkState::default(), stream(3, "link/a"));
        let mut send = |config: &LinkConfig| match config.fate(0, Class::Udp, 1_000, 0, &mut state, &mut rng)
        {
            Fate::Arrives { at_ns, .. } => Some(at_ns / 1_000_000_000),
            Fate::Dropped(_) => None,
        };
        let (slow, fast) = (at_rate(1), at_rate(1_000));
        assert_eq!([send(&slow), send(&slow)], [Some(1_000), Some(2_000)]);
        assert_eq!([send(&fast), send(&fast)], [Some(3), None]);
        assert_eq!(send(&slow), None, "3,000 bytes wait");
    }

    #[test]
    fn what_takes_for_ever_does_not_come_round_again() {
        let long = Duration::from_secs(18_446_744_074);
        let all =
            LinkConfig { latency: long + Duration::from_millis(10), jitter: long, ..LinkConfig::default() };
        let all = LinkConfig { duplicate: Rate::ALWAYS, reorder: Rate::ALWAYS, reorder_by: long, ..all };
        for spread in [Spread::Uniform, Spread::Exponential, Spread::HeavyTail] {
            let config = LinkConfig { spread, ..all.clone() };
            let fate = fate(&config, Class::Tcp, &mut stream(3, "link/a"));
            let Fate::Arrives { at_ns, copy_at_ns: Some(copy_at_ns), .. } = fate else { panic!("{fate:?}") };
            assert!(at_ns > u64::MAX / 2 && copy_at_ns > u64::MAX / 2, "{fate:?}");
        }
        assert_eq!(Rate::ALWAYS.or(Rate::ALWAYS), Rate::ALWAYS);
        assert_eq!(Rate::ALWAYS.or(Rate::NEVER), Rate::ALWAYS);
    }

    #[test]
    fn losses_of_a_burst_stand_together() {
        let burst = Burst { begin: Rate::percent(1), end: Rate::percent(10), loss: Rate::ALWAYS };
        let config = LinkConfig { burst: Some(burst), ..LinkConfig::default() };
        let (mut state, mut rng) = (LinkState::default(), stream(3, "link/a"));
        let lost: Vec<bool> =
            (0..20_000).map(|_| config.fate(0, Class::Udp, 100, 0, &mut state, &mut rng) == LOST).collect();
        let count = lost.iter().filter(|lost| **lost).count();
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        // The link is bad for a tenth of the time, in bursts of ten packets.
        assert!((1_400..2_300).contains(&count), "{count}");
        assert!((7..14).contains(&(count / runs)), "{count} in {runs} bursts");
    }

    #[test]
    fn a_spread_has_the_tail_that_it_says() {
        let mut rng = stream(3, "link/a");
        let mut share_above = |spread: Spread, limit: u64| {
            (0..10_000).filter(|_| spread.draw(1_000, rng.next_u64()) > limit).count()
        };
        assert_eq!(share_above(Spread::Uniform, 1_000), 0);
        assert!((4_700..5_300).contains(&share_above(Spread::Exponential, 1_000)));
        assert!((230..400).contains(&share_above(Spread::Exponential, 5_000)));
        assert!((800..1_200).contains(&share_above(Spread::HeavyTail, 10_000)));
        assert_eq!(share_above(Spread::HeavyTail, 65_000), 0);
    }
}
