//! What a path does to packets: latency, jitter, loss, duplication, reordering, corruption, MTU, partitions.
//!
//! A path is directed, from a host to a host, and may be changed at any time. For each packet exactly three
//! numbers are drawn from the sender's own stream, whatever the configuration, so that a change of one rate
//! doesn't shift the fate of later packets in any other respect.

use crate::host::HostId;
use crate::seed::{Rng, below};
use rand_core::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A probability, as a threshold for a 32-bit draw: exact at 0 and at 1, and free of floats.
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

    pub(crate) fn hits(self, draw: u32) -> bool {
        u64::from(draw) < self.0
    }
}

/// The least MTU: a TCP segment needs room for its headers and some bytes.
pub const MIN_MTU: usize = 576;

/// One direction of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// The least time from the sender's interface to the receiver's.
    pub latency: Duration,
    /// Added to it: uniform from zero to this, drawn for each packet. UDP datagrams overtake each other so;
    /// TCP segments of one connection keep their order, as on a path that hashes flows.
    pub jitter: Duration,
    /// Loss of UDP datagrams.
    pub udp_loss: Rate,
    /// Loss of TCP segments.
    pub tcp_loss: Rate,
    /// A second copy, with a jitter of its own.
    pub duplicate: Rate,
    /// Holding a packet back by [`reorder_by`](LinkConfig::reorder_by); also for TCP.
    pub reorder: Rate,
    /// How long.
    pub reorder_by: Duration,
    /// One flipped bit, behind the IP header; checksums find it.
    pub corrupt: Rate,
    /// The largest IP packet in bytes; a larger one is dropped and counted. At least [`MIN_MTU`].
    pub mtu: usize,
}

impl Default for LinkConfig {
    /// A good path of 10 ms: nothing is lost, doubled or reordered, MTU 1,500.
    fn default() -> Self {
        LinkConfig {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            udp_loss: Rate::NEVER,
            tcp_loss: Rate::NEVER,
            duplicate: Rate::NEVER,
            reorder: Rate::NEVER,
            reorder_by: Duration::from_millis(20),
            corrupt: Rate::NEVER,
            mtu: 1500,
        }
    }
}

/// Why a packet ended before its receiver had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropCause {
    /// The path lost it.
    Loss = 0,
    /// It was larger than the path's MTU.
    Mtu = 1,
    /// A partition lay between.
    Partition = 2,
    /// No host has the address.
    NoHost = 3,
    /// No socket at that port.
    NoSocket = 4,
    /// The socket's receive buffer was full.
    BufferFull = 5,
    /// The host had no power, or was asleep.
    HostDown = 6,
    /// Damaged on the way.
    Checksum = 7,
    /// The listener's backlog was full.
    Backlog = 8,
}

/// Distinct [`DropCause`]s.
pub(crate) const DROP_CAUSES: usize = 9;

/// What a packet is to the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Udp,
    Tcp,
}

/// What the path does to one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    /// Arrives after this delay; `copy` is the delay of a second one; `flip` a draw that selects a bit.
    Arrives {
        delay_ns: u64,
        copy_ns: Option<u64>,
        flip: Option<u64>,
        overtakes: bool,
    },
}

impl LinkConfig {
    /// Draws a packet's fate.
    pub(crate) fn fate(&self, class: Class, rng: &mut Rng) -> Fate {
        let (rates, jitters, more) = (rng.next_u64(), rng.next_u64(), rng.next_u64());
        let loss = match class {
            Class::Udp => self.udp_loss,
            Class::Tcp => self.tcp_loss,
        };
        if loss.hits(rates as u32) {
            return Fate::Lost;
        }
        let jitter_ns = self.jitter.as_nanos() as u64;
        let latency_ns = self.latency.as_nanos() as u64;
        let held = self.reorder.hits(more as u32);
        let held_ns = if held { self.reorder_by.as_nanos() as u64 } else { 0 };
        let copy = self.duplicate.hits((rates >> 32) as u32);
        Fate::Arrives {
            delay_ns: latency_ns + below(jitters, jitter_ns + 1) + held_ns,
            copy_ns: copy.then(|| latency_ns + below(jitters.rotate_left(32), jitter_ns + 1)),
            flip: self.corrupt.hits((more >> 32) as u32).then_some(jitters ^ more.rotate_left(17)),
            overtakes: held,
        }
    }
}

/// All paths.
#[derive(Default)]
pub(crate) struct Links {
    default: LinkConfig,
    own: BTreeMap<(HostId, HostId), LinkConfig>,
    cut: BTreeSet<(HostId, HostId)>,
}

impl Links {
    pub(crate) fn get(&self, from: HostId, to: HostId) -> &LinkConfig {
        if self.own.is_empty() {
            return &self.default;
        }
        self.own.get(&(from, to)).unwrap_or(&self.default)
    }

    pub(crate) fn set_default(&mut self, config: LinkConfig) {
        self.default = checked(config);
    }

    pub(crate) fn set(&mut self, from: HostId, to: HostId, config: LinkConfig) {
        self.own.insert((from, to), checked(config));
    }

    pub(crate) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        !self.cut.is_empty() && self.cut.contains(&(from, to))
    }

    pub(crate) fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }
}

fn checked(mut config: LinkConfig) -> LinkConfig {
    config.mtu = config.mtu.clamp(MIN_MTU, 65535);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;

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
            (0..100).map(|_| config.fate(Class::Udp, &mut rng)).collect::<Vec<_>>()
        };
        let plain = LinkConfig { jitter: Duration::from_millis(9), ..LinkConfig::default() };
        let lossy = LinkConfig { udp_loss: Rate::percent(40), ..plain.clone() };
        let (plain, lossy) = (fates(&plain), fates(&lossy));
        assert!(lossy.contains(&Fate::Lost));
        for (a, b) in plain.iter().zip(&lossy) {
            assert!(*b == Fate::Lost || a == b);
        }
    }

    #[test]
    fn loss_is_separate_for_udp_and_tcp() {
        let config = LinkConfig { udp_loss: Rate::ALWAYS, ..LinkConfig::default() };
        let mut rng = stream(3, "link/a");
        assert_eq!(config.fate(Class::Udp, &mut rng), Fate::Lost);
        assert_ne!(config.fate(Class::Tcp, &mut rng), Fate::Lost);
    }
}
