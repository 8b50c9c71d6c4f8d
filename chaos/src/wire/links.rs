//! All links of a world: their configurations, their state, and the partitions.
//!
//! A link has its network's configuration unless it has its own; the effects of faults are added. A partition lies
//! between two hosts, not on a link: it loses each packet that was in flight between them at any moment of it.

use super::effect::Effects;
use super::link::{Class, Fate, LinkConfig, LinkState, MIN_MTU, whole_ns};
use crate::ids::End;
use crate::ids::HostId;
use crate::seed::{Rng, below, rekey, stream};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A stored configuration, its MTU within bounds, with the information whether it is ideal.
#[derive(Debug)]
pub(crate) struct Link {
    config: LinkConfig,
    is_ideal: bool,
}

impl Link {
    pub(crate) fn new(mut config: LinkConfig) -> Link {
        config.mtu = config.mtu.clamp(MIN_MTU, 65535);
        Link { is_ideal: config == LinkConfig::ideal(), config }
    }
}

/// A cut from one host to another. The last one is kept after it has healed, for packets that were sent during it.
#[derive(Debug, Clone, Copy)]
struct Cut {
    since_ns: u64,
    until_ns: Option<u64>,
}

/// The random streams of links: one for each end that sends.
pub(crate) struct LinkRngs {
    /// By the number of the host.
    pub(crate) hosts: Vec<Rng>,
    /// By the number of the network in front of which the box is. That of the internet, which has no box, is unused.
    pub(crate) boxes: Vec<Rng>,
}

impl LinkRngs {
    fn of(&mut self, end: End) -> &mut Rng {
        match end {
            End::Host(host) => &mut self.hosts[host.0 as usize],
            End::Box(net) => &mut self.boxes[net.0 as usize],
        }
    }
}

/// All links.
pub(crate) struct Links {
    seed: u64,
    own: BTreeMap<(End, End), Link>,
    states: BTreeMap<(End, End), LinkState>,
    pairs: BTreeMap<(End, End), u64>,
    cuts: BTreeMap<(HostId, HostId), Cut>,
    rngs: LinkRngs,
    /// Whether a link has had a bandwidth: before that, nothing waits.
    has_queues: bool,
    /// The effects of faults on links.
    pub(crate) effects: Effects,
}

impl Links {
    pub(crate) fn new(seed: u64) -> Links {
        Links {
            seed,
            own: BTreeMap::new(),
            states: BTreeMap::new(),
            pairs: BTreeMap::new(),
            cuts: BTreeMap::new(),
            rngs: LinkRngs { hosts: Vec::new(), boxes: vec![stream(seed, "link/box of internet")] },
            has_queues: false,
            effects: Effects::default(),
        }
    }

    /// Opens the stream of the links on which the next host sends.
    pub(crate) fn host_named(&mut self, name: &str) {
        self.rngs.hosts.push(stream(self.seed, &format!("link/{name}")));
    }

    /// Opens the stream of the links on which the box of the next network sends.
    pub(crate) fn net_named(&mut self, name: &str) {
        self.rngs.boxes.push(stream(self.seed, &format!("link/box of {name}")));
    }

    /// The random streams go on with another seed; the names are those of all hosts and networks, in their order.
    pub(crate) fn rekey<'a, 'b>(
        &mut self,
        seed: u64,
        hosts: impl Iterator<Item = &'a str>,
        nets: impl Iterator<Item = &'b str>,
    ) {
        self.seed = seed;
        for (rng, name) in self.rngs.hosts.iter_mut().zip(hosts) {
            rekey(rng, seed, &format!("link/{name}"));
        }
        for (rng, name) in self.rngs.boxes.iter_mut().zip(nets) {
            rekey(rng, seed, &format!("link/box of {name}"));
        }
    }

    /// The random streams.
    pub(crate) fn rngs(&self) -> &LinkRngs {
        &self.rngs
    }

    /// The configuration of a link; `default` is that of its network.
    pub(crate) fn get<'a>(&'a self, from: End, to: End, default: &'a Link) -> Cow<'a, LinkConfig> {
        let link = self.own(from, to, default);
        match self.effects.is_empty() {
            true => Cow::Borrowed(&link.config),
            false => self.effects.compose(from, to, &link.config),
        }
    }

    /// Whether a link has no effect on packets.
    pub(crate) fn is_ideal(&self, from: End, to: End, default: &Link) -> bool {
        let link = self.own(from, to, default);
        link.is_ideal
            && (self.effects.is_empty()
                || (*self.effects.compose(from, to, &link.config) == link.config
                    && !self.effects.is_clogged(from, to)))
    }

    fn own<'a>(&'a self, from: End, to: End, default: &'a Link) -> &'a Link {
        match self.own.is_empty() {
            true => default,
            false => self.own.get(&(from, to)).unwrap_or(default),
        }
    }

    pub(crate) fn set(&mut self, from: End, to: End, config: LinkConfig) {
        self.own.insert((from, to), Link::new(config));
    }

    /// Resets a link to its network's configuration.
    pub(crate) fn unset(&mut self, from: End, to: End) {
        self.own.remove(&(from, to));
    }

    /// Puts a packet of `len` bytes on a link.
    pub(crate) fn take(
        &mut self,
        now_ns: u64,
        (from, to): (End, End),
        default: &Link,
        class: Class,
        len: usize,
    ) -> Fate {
        let link = match self.own.is_empty() {
            true => default,
            false => self.own.get(&(from, to)).unwrap_or(default),
        };
        let composed;
        let mut released_ns = now_ns;
        let config = match self.effects.is_empty() {
            true => &link.config,
            false => {
                released_ns = self.effects.released_ns(now_ns, from, to);
                composed = self.effects.compose(from, to, &link.config);
                composed.as_ref()
            }
        };
        let pair_ns = match whole_ns(config.pair_latency) {
            0 => 0,
            most_ns => {
                let seed = self.seed;
                let draw = *self
                    .pairs
                    .entry((from, to))
                    .or_insert_with(|| crate::seed::subseed(seed, &format!("pair/{from:?}/{to:?}")));
                below(draw, most_ns.saturating_add(1))
            }
        };
        self.has_queues |= config.bandwidth.is_some();
        let rng = self.rngs.of(from);
        if config.remembers(class) {
            let state = self.states.entry((from, to)).or_default();
            config.fate(released_ns, class, len, pair_ns, state, rng)
        } else {
            config.fate(released_ns, class, len, pair_ns, &mut LinkState::default(), rng)
        }
    }

    /// Whether bytes may wait on any link.
    #[inline]
    pub(crate) fn has_queues(&self) -> bool {
        self.has_queues
    }

    /// The bytes that wait for their turn on a link now, and its bytes per second; `None` if it has no bandwidth.
    pub(crate) fn waiting(&self, now_ns: u64, (from, to): (End, End), default: &Link) -> Option<(u64, u64)> {
        let bandwidth = self.get(from, to, default).bandwidth?;
        let now_ns = self.effects.released_ns(now_ns, from, to);
        let waiting_bytes = self.states.get(&(from, to)).map_or(0, |state| state.waiting_bytes(now_ns));
        Some((waiting_bytes, bandwidth.bytes_per_second.max(1)))
    }

    /// Whether a packet from `from` to `to`, in flight from `sent_ns` until now, met a cut at any moment.
    pub(crate) fn crosses_cut(&self, from: HostId, to: HostId, sent_ns: u64, now_ns: u64) -> bool {
        if self.cuts.is_empty() {
            return false;
        }
        self.cuts.get(&(from, to)).is_some_and(|cut| {
            cut.since_ns <= now_ns && cut.until_ns.is_none_or(|until_ns| sent_ns < until_ns)
        })
    }

    /// Whether packets from `from` to `to` have been cut off at every moment since `since_ns`.
    pub(crate) fn is_cut_since(&self, since_ns: u64, from: HostId, to: HostId) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|cut| cut.since_ns <= since_ns && cut.until_ns.is_none())
    }

    pub(crate) fn cut(&mut self, now_ns: u64, from: HostId, to: HostId) {
        let cut = self.cuts.entry((from, to)).or_insert(Cut { since_ns: now_ns, until_ns: None });
        if cut.until_ns.take().is_some() {
            cut.since_ns = now_ns;
        }
    }

    /// Ends the cut from `from` to `to`.
    pub(crate) fn mend(&mut self, now_ns: u64, from: HostId, to: HostId) {
        if let Some(cut) = self.cuts.get_mut(&(from, to)) {
            cut.until_ns.get_or_insert(now_ns);
        }
    }

    /// Ends every cut.
    pub(crate) fn heal(&mut self, now_ns: u64) {
        for cut in self.cuts.values_mut() {
            cut.until_ns.get_or_insert(now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_links_go_on_with_another_seed_and_later_ones_have_it() {
        use rand_core::Rng as _;
        let named = |links: &mut Links, suffix: &str| {
            links.host_named(&format!("host{suffix}"));
            links.net_named(&format!("net{suffix}"));
        };
        let next = |links: &Links| {
            let all = links.rngs.hosts.iter().chain(&links.rngs.boxes);
            all.map(|rng| rng.clone().next_u64()).collect::<Vec<_>>()
        };
        let (mut moved, mut other) = (Links::new(1), Links::new(2));
        named(&mut moved, " 1");
        moved.rekey(2, ["host 1"].into_iter(), ["internet", "net 1"].into_iter());
        named(&mut moved, " 2");
        [" 1", " 2"].iter().for_each(|suffix| named(&mut other, suffix));
        assert_eq!(next(&moved), next(&other));
    }

    #[test]
    fn a_packet_is_lost_if_any_moment_of_its_way_is_cut() {
        let mut links = Links::new(1);
        let (a, b) = (HostId(0), HostId(1));
        links.cut(10, a, b);
        assert!(links.crosses_cut(a, b, 5, 10) && links.crosses_cut(a, b, 12, 20));
        assert!(!links.crosses_cut(b, a, 5, 10));
        assert!(
            links.is_cut_since(10, a, b) && !links.is_cut_since(9, a, b) && !links.is_cut_since(10, b, a)
        );
        links.heal(30);
        assert!(links.crosses_cut(a, b, 29, 40));
        assert!(!links.crosses_cut(a, b, 30, 40));
    }
}
