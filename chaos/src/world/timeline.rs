//! When each record of a trace was made, which faults had begun by then, and the text of a few records.
//!
//! Records are numbered from 1 on, so the number of a record is that of the records up to it: a
//! [branch](crate::Branch) at that number comes right after it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// The records of a run in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Nanoseconds of virtual time of each record.
    times_ns: Vec<u64>,
    /// Records before those that only close the digest.
    events: u64,
    /// For each fault that has begun, by its number in the plan from 0 on, the record that says so.
    pub begun: BTreeMap<usize, u64>,
    /// The requested records as lines, each with its number. A log line has the number of the record before it.
    pub lines: Vec<(u64, String)>,
}

impl Timeline {
    /// The number of the run's last event. Later records only close the digest: the positions of random streams, the
    /// scheduler's next draw, the result.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// When a record was made; zero for the number 0, which is before all records.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn at(&self, record: u64) -> Duration {
        let before = record.checked_sub(1).map(|index| self.times_ns[index as usize]);
        Duration::from_nanos(before.unwrap_or(0))
    }

    /// The requested line of a record; empty if it wasn't requested.
    pub fn line(&self, record: u64) -> &str {
        let line = self.lines.iter().find(|(number, _)| *number == record);
        line.map_or("", |(_, line)| line)
    }
}

/// Makes a timeline.
#[derive(Debug)]
pub(crate) struct TimelineRecorder {
    timeline: Timeline,
    /// The records whose lines are kept.
    told: Range<u64>,
}

impl TimelineRecorder {
    pub(crate) fn new(told: Range<u64>) -> TimelineRecorder {
        TimelineRecorder { timeline: Timeline::default(), told }
    }

    /// The next record; `line` makes its text.
    pub(crate) fn record(&mut self, now_ns: u64, is_closing: bool, line: impl FnOnce() -> String) {
        self.timeline.times_ns.push(now_ns);
        let number = self.timeline.times_ns.len() as u64;
        if !is_closing {
            self.timeline.events = number;
        }
        if self.told.contains(&number) {
            self.timeline.lines.push((number, line()));
        }
    }

    /// A log line, which is no record.
    pub(crate) fn log(&mut self, line: &str) {
        let number = self.timeline.times_ns.len() as u64;
        if self.told.contains(&number) {
            self.timeline.lines.push((number, line.to_owned()));
        }
    }

    /// A fault of the plan begins, as the last record says.
    pub(crate) fn fault_begins(&mut self, number: usize) {
        self.timeline.begun.insert(number, self.timeline.times_ns.len() as u64);
    }

    pub(crate) fn end(self) -> Timeline {
        self.timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_numbered_from_one_on_and_closing_ones_are_no_events() {
        let mut recorder = TimelineRecorder::new(2..4);
        for (at_ns, is_closing) in [(0, false), (5, true), (7, false), (9, true)] {
            recorder.record(at_ns, is_closing, || format!("at {at_ns}"));
            recorder.log(&format!("after {at_ns}"));
        }
        recorder.fault_begins(3);
        let timeline = recorder.end();
        assert_eq!(
            (timeline.events(), timeline.at(0), timeline.at(3)),
            (3, Duration::ZERO, Duration::from_nanos(7))
        );
        assert_eq!((timeline.line(2), timeline.line(3), timeline.line(4)), ("at 5", "at 7", ""));
        assert_eq!(timeline.lines.len(), 4, "{timeline:?}");
        assert_eq!(timeline.begun, [(3, 4)].into());
    }
}
