//! The effects of link faults on a link's configuration, in addition to the scenario's own settings.
//!
//! Active effects are kept apart from the configurations, and a link's behaviour is always composed from both. So
//! effects overlap in any order, the scenario may change a link meanwhile, and an effect that has ended leaves no
//! trace.

use super::link::{Bandwidth, Burst, LinkConfig, MIN_MTU, Rate, whole_ns};
use crate::ids::End;
use std::borrow::Cow;
use std::time::Duration;

/// The effect of a fault on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Loses packets independently.
    Loss {
        /// Loss of UDP datagrams.
        udp_percent: u32,
        /// Loss of TCP segments.
        tcp_percent: u32,
    },
    /// Loses packets in bursts.
    Burst {
        /// The chance of each packet to begin a burst.
        begin_percent: u32,
        /// The chance of each packet in a burst to end it.
        end_percent: u32,
        /// Loss inside a burst.
        loss_percent: u32,
    },
    /// Adds latency.
    Latency {
        /// The added latency.
        add: Duration,
        /// The most extra latency, drawn for each packet.
        jitter: Duration,
    },
    /// Duplicates packets.
    Duplicate {
        /// The percentage of packets.
        percent: u32,
    },
    /// Holds packets back.
    Reorder {
        /// The percentage of packets.
        percent: u32,
        /// For how long they are held back.
        by: Duration,
    },
    /// Flips a bit in packets.
    Corrupt {
        /// The percentage of packets.
        percent: u32,
    },
    /// Truncates datagrams.
    Truncate {
        /// The percentage of packets.
        percent: u32,
    },
    /// Limits the bandwidth.
    Bandwidth {
        /// The rate in bytes per second.
        bytes_per_second: u64,
        /// The size of the queue in bytes.
        queue_bytes: u64,
    },
    /// Drops packets larger than this.
    Mtu {
        /// The largest IP packet.
        bytes: usize,
    },
    /// Holds everything, and releases it in a burst at whole multiples of a span, as an access point does for a station
    /// that sleeps between beacons (IEEE 802.11, power management), and a cell for a phone in discontinuous reception.
    Clog {
        /// The span.
        every: Duration,
    },
}

impl Effect {
    /// Adds this effect to a link's configuration.
    fn add_to(&self, config: &mut LinkConfig) {
        let also = |rate: &mut Rate, percent: u32| *rate = rate.or(Rate::percent(percent));
        match *self {
            Effect::Loss { udp_percent, tcp_percent } => {
                also(&mut config.udp_loss, udp_percent);
                also(&mut config.tcp_loss, tcp_percent);
            }
            Effect::Burst { begin_percent, end_percent, loss_percent } => {
                // A link has one burst state, so the fault's bursts replace its own.
                config.burst = Some(Burst {
                    begin: Rate::percent(begin_percent),
                    end: Rate::percent(end_percent),
                    loss: Rate::percent(loss_percent),
                });
            }
            Effect::Latency { add, jitter } => {
                config.latency = config.latency.saturating_add(add);
                config.jitter = config.jitter.saturating_add(jitter);
            }
            Effect::Duplicate { percent } => also(&mut config.duplicate, percent),
            Effect::Reorder { percent, by } => {
                config.reorder_by =
                    if config.reorder == Rate::NEVER { by } else { config.reorder_by.max(by) };
                also(&mut config.reorder, percent);
            }
            Effect::Corrupt { percent } => also(&mut config.corrupt, percent),
            Effect::Truncate { percent } => also(&mut config.truncate, percent),
            Effect::Bandwidth { bytes_per_second, queue_bytes } => {
                let slower = config.bandwidth.is_none_or(|own| bytes_per_second < own.bytes_per_second);
                if slower {
                    config.bandwidth = Some(Bandwidth { bytes_per_second, queue_bytes });
                }
            }
            Effect::Mtu { bytes } => config.mtu = config.mtu.min(bytes.max(MIN_MTU)),
            // It is before the link: see `Effects::released_ns`.
            Effect::Clog { .. } => {}
        }
    }
}

/// The direction of a link fault, as seen from the spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Direction {
    /// Both directions.
    #[default]
    Both,
    /// Packets that it sends.
    Out,
    /// Packets that it receives.
    In,
}

/// The links that an effect is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// `None` is every link.
    pub(crate) end: Option<End>,
    pub(crate) way: Direction,
}

impl Scope {
    fn covers(self, from: End, to: End) -> bool {
        let Some(end) = self.end else { return true };
        match self.way {
            Direction::Both => from == end || to == end,
            Direction::Out => from == end,
            Direction::In => to == end,
        }
    }
}

/// The effects that are active, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Effects(Vec<(usize, Scope, Effect)>);

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn begin(&mut self, number: usize, scope: Scope, effect: Effect) {
        self.0.push((number, scope, effect));
        self.0.sort_by_key(|(number, ..)| *number);
    }

    /// The end that an effect belongs to; `None` if it applies to every link.
    pub(crate) fn end_of(&self, number: usize) -> Option<End> {
        self.0.iter().find(|(other, ..)| *other == number).and_then(|(_, scope, _)| scope.end)
    }

    pub(crate) fn end(&mut self, number: usize) {
        self.0.retain(|(other, ..)| *other != number);
    }

    /// When the link from `from` to `to` gets a packet that is sent at `now_ns`: of several clogs the longest counts. So a
    /// burst meets the link's own rate and queue.
    pub(crate) fn released_ns(&self, now_ns: u64, from: End, to: End) -> u64 {
        let on_it = self.0.iter().filter(|(_, scope, _)| scope.covers(from, to));
        let spans = on_it.filter_map(|(_, _, effect)| match effect {
            Effect::Clog { every } => Some(whole_ns(*every)),
            _ => None,
        });
        match spans.max() {
            None | Some(0) => now_ns,
            Some(every_ns) => now_ns.checked_next_multiple_of(every_ns).unwrap_or(u64::MAX),
        }
    }

    /// Whether a clog is on the link from `from` to `to`.
    pub(crate) fn is_clogged(&self, from: End, to: End) -> bool {
        self.0
            .iter()
            .any(|(_, scope, effect)| scope.covers(from, to) && matches!(effect, Effect::Clog { .. }))
    }

    /// The configuration of the link from `from` to `to` with its effects; `base` is the link's own.
    pub(crate) fn compose<'a>(&self, from: End, to: End, base: &'a LinkConfig) -> Cow<'a, LinkConfig> {
        let mut config = Cow::Borrowed(base);
        for (_, _, effect) in self.0.iter().filter(|(_, scope, _)| scope.covers(from, to)) {
            effect.add_to(config.to_mut());
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::HostId;

    const A: End = End::Host(HostId(0));
    const B: End = End::Host(HostId(1));

    #[test]
    fn effects_that_overlap_compose_and_leave_nothing_behind() {
        let base = LinkConfig::default();
        let mut effects = Effects::default();
        let everywhere = Scope { end: None, way: Direction::Both };
        effects.begin(0, everywhere, Effect::Loss { udp_percent: 50, tcp_percent: 0 });
        effects.begin(1, everywhere, Effect::Loss { udp_percent: 50, tcp_percent: 10 });
        effects.begin(2, everywhere, Effect::Latency { add: Duration::from_secs(1), jitter: Duration::ZERO });
        let all = effects.compose(A, B, &base).into_owned();
        assert_eq!((all.udp_loss, all.tcp_loss), (Rate::percent(75), Rate::percent(10)));
        assert_eq!(all.latency, base.latency + Duration::from_secs(1));
        effects.end(1);
        assert_eq!(effects.compose(A, B, &base).udp_loss, Rate::percent(50));
        effects.end(0);
        effects.end(2);
        assert!(matches!(effects.compose(A, B, &base), Cow::Borrowed(same) if *same == base));
    }

    #[test]
    fn a_clog_releases_everything_at_multiples_of_its_span() {
        let mut effects = Effects::default();
        let clog = |every_ns| Effect::Clog { every: Duration::from_nanos(every_ns) };
        let released =
            |effects: &Effects| [0, 1, 100, 101, 250].map(|now_ns| effects.released_ns(now_ns, A, B));
        effects.begin(0, Scope { end: Some(A), way: Direction::Out }, clog(100));
        assert_eq!(released(&effects), [0, 100, 100, 200, 300]);
        assert_eq!(effects.released_ns(1, B, A), 1);
        assert!(effects.is_clogged(A, B) && !effects.is_clogged(B, A));
        effects.begin(1, Scope { end: None, way: Direction::Both }, clog(240));
        assert_eq!(released(&effects), [0, 240, 240, 240, 480], "the longer one");
        effects.end(0);
        effects.end(1);
        effects.begin(2, Scope { end: None, way: Direction::Both }, clog(0));
        assert_eq!(released(&effects), [0, 1, 100, 101, 250]);
    }

    #[test]
    fn an_effect_is_on_the_links_of_its_end_in_its_direction() {
        let covers = |end, way| {
            let scope = Scope { end, way };
            (scope.covers(A, B), scope.covers(B, A))
        };
        assert_eq!(covers(Some(A), Direction::Both), (true, true));
        assert_eq!(covers(Some(A), Direction::Out), (true, false));
        assert_eq!(covers(Some(A), Direction::In), (false, true));
        assert_eq!(covers(Some(End::Host(HostId(2))), Direction::Both), (false, false));
        assert_eq!(covers(None, Direction::Both), (true, true));
    }
}
