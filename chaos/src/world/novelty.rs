//! What a run reached, and where first: for an explorer, which branches from the runs that reached something new.
//!
//! Three kinds of thing are noted: marks, pairs of events that the programs of one host logged in a row, and high
//! watermarks of counters and queues in steps of a doubling. An event is known by its place in the source, so no text is
//! made. A run whose novelties are noted has the digest of the run without.

use super::stats::WorldStats;
use crate::ids::HostId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Something that a run can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Novelty {
    /// A mark ([`sometimes!`](crate::sometimes)).
    Mark(&'static str),
    /// Two events of one host's programs in a row, by their places in the source.
    Pair(&'static str, &'static str),
    /// A counter or a queue has come to 2^n or more.
    Watermark(&'static str, u32),
}

impl fmt::Display for Novelty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Novelty::Mark(mark) => write!(f, "mark: {mark}"),
            Novelty::Pair(first, then) => write!(f, "{first}, then {then}"),
            Novelty::Watermark(what, doublings) => write!(f, "{what}: {} or more", 1u64 << doublings),
        }
    }
}

/// The place at which a run reached something first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstReach {
    /// Records of the trace by then.
    pub event: u64,
    /// The world's time.
    pub at: Duration,
}

/// Everything that a run reached.
pub type Novelties = BTreeMap<Novelty, FirstReach>;

/// Notes what a running world reaches.
#[derive(Debug, Default)]
pub(crate) struct NoveltyWatch {
    reached: Novelties,
    /// The last event of each host's programs.
    last: BTreeMap<Option<HostId>, &'static str>,
    /// The levels that have been noted of each queue, and of the world's counters in their order.
    levels: BTreeMap<&'static str, u32>,
    counter_levels: Vec<u32>,
}

/// The doublings of 1 that a value has reached, and one more; 0 of 0.
fn level_of(value: u64) -> u32 {
    value.checked_ilog2().map_or(0, |doublings| doublings + 1)
}

impl NoveltyWatch {
    pub(crate) fn reach(&mut self, novelty: Novelty, place: FirstReach) {
        self.reached.entry(novelty).or_insert(place);
    }

    /// A program of a host logs an event.
    pub(crate) fn event(&mut self, host: Option<HostId>, name: &'static str, place: FirstReach) {
        let before = self.last.insert(host, name).unwrap_or_default();
        self.reach(Novelty::Pair(before, name), place);
    }

    /// A queue, or whatever is counted, has this value.
    pub(crate) fn level(&mut self, what: &'static str, value: u64, place: FirstReach) {
        let level = level_of(value);
        let noted = self.levels.entry(what).or_default();
        if level > *noted {
            *noted = level;
            self.reach(Novelty::Watermark(what, level - 1), place);
        }
    }

    /// The world's counters are these.
    pub(crate) fn counters(&mut self, stats: &WorldStats, place: FirstReach) {
        for (number, (what, value)) in stats.named().enumerate() {
            if number == self.counter_levels.len() {
                self.counter_levels.push(0);
            }
            let level = level_of(value);
            if level > self.counter_levels[number] {
                self.counter_levels[number] = level;
                self.reach(Novelty::Watermark(what, level - 1), place);
            }
        }
    }

    pub(crate) fn into_reached(self) -> Novelties {
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(event: u64) -> FirstReach {
        FirstReach { event, at: Duration::ZERO }
    }

    #[test]
    fn a_pair_is_of_one_host_and_noted_where_it_was_first() {
        let mut watch = NoveltyWatch::default();
        let (a, b) = (Some(HostId(0)), Some(HostId(1)));
        for (event, host, name) in [(1, a, "x"), (2, b, "y"), (3, a, "y"), (4, b, "x"), (5, b, "y")] {
            watch.event(host, name, at(event));
        }
        let reached = watch.into_reached();
        assert_eq!(reached.get(&Novelty::Pair("x", "y")), Some(&at(3)));
        assert_eq!(reached.get(&Novelty::Pair("y", "x")), Some(&at(4)));
        assert_eq!(reached.len(), 4, "{reached:?}");
    }

    #[test]
    fn a_watermark_is_noted_once_for_each_doubling() {
        let mut watch = NoveltyWatch::default();
        for (event, value) in [(1, 0), (2, 1), (3, 5), (4, 7), (5, 8), (6, 2)] {
            watch.level("queue", value, at(event));
        }
        let marks: Vec<_> =
            watch.into_reached().into_iter().map(|(what, place)| (what, place.event)).collect();
        let mark = |doublings| Novelty::Watermark("queue", doublings);
        assert_eq!(marks, [(mark(0), 2), (mark(2), 3), (mark(3), 5)]);

        let mut watch = NoveltyWatch::default();
        let mut stats = WorldStats::default();
        for (event, disk_writes) in [(1, 0), (2, 3), (3, 2), (4, 4)] {
            stats.disk_writes = disk_writes;
            watch.counters(&stats, at(event));
        }
        let marks: Vec<_> =
            watch.into_reached().into_iter().map(|(what, place)| (what, place.event)).collect();
        let mark = |doublings| Novelty::Watermark("disk writes", doublings);
        assert_eq!(marks, [(mark(1), 2), (mark(2), 4)]);
    }
}
