//! When each peer has work: its deadline, and whether it changed since its messages and events were last fetched.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::table::Slot;
use crate::kit::timers::Timers;

/// A peer is *touched* when it may have a message, an event or another deadline, and *settled* once those were fetched.
#[derive(Default)]
pub(in super::super) struct PeerSchedule {
    /// The deadlines of settled peers.
    timers: Timers<Slot>,
    /// The touched peers, in the order in which they were touched.
    touched: VecDeque<Slot>,
    /// Whether a slot is among `touched`.
    is_touched: Vec<bool>,
}

impl PeerSchedule {
    /// Marks a peer that may have a message, an event or another deadline.
    pub(in super::super) fn touch(&mut self, slot: Slot) {
        let at = slot as usize;
        if self.is_touched.len() <= at {
            self.is_touched.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is_touched[at], true) {
            self.touched.push_back(slot);
        }
    }

    /// The peer that was touched first.
    pub(super) fn first_touched(&self) -> Option<Slot> {
        self.touched.front().copied()
    }

    /// The first touched peer is settled, with this deadline.
    pub(super) fn settle_first(&mut self, deadline: Option<Instant>) {
        let Some(slot) = self.touched.pop_front() else { return };
        self.is_touched[slot as usize] = false;
        match deadline {
            Some(at) => self.timers.set(slot, at),
            None => self.timers.clear(slot),
        }
    }

    /// Forgets a peer that is removed.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.timers.clear(slot);
        if let Some(touched) = self.is_touched.get_mut(slot as usize)
            && std::mem::take(touched)
        {
            self.touched.retain(|touched| *touched != slot);
        }
    }

    /// Takes the peers that are due, in the order of their slots. A touched peer is asked for its deadline.
    pub(super) fn take_due(&mut self, now: Instant, deadline: impl Fn(Slot) -> Option<Instant>) -> Vec<Slot> {
        let mut due: Vec<Slot> = std::iter::from_fn(|| self.timers.pop_due(now)).collect();
        due.extend(self.touched.iter().filter(|slot| deadline(**slot).is_some_and(|at| at <= now)));
        due.sort_unstable();
        due.dedup();
        due
    }

    /// The next deadline. A touched peer is asked for its own.
    pub(super) fn next_deadline(&self, deadline: impl Fn(Slot) -> Option<Instant>) -> Option<Instant> {
        let touched = self.touched.iter().filter_map(|slot| deadline(*slot));
        touched.chain(self.timers.next()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_touched_peer_is_asked_and_a_settled_one_has_its_timer() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut schedule = PeerSchedule::default();
        for slot in [2, 0, 2, 1] {
            schedule.touch(slot);
        }
        let asked = |slot: Slot| Some(at(u64::from(slot) * 10));
        assert_eq!(schedule.next_deadline(asked), Some(now));
        for (slot, deadline) in [(2, Some(at(20))), (0, None), (1, Some(at(5)))] {
            assert_eq!(schedule.first_touched(), Some(slot));
            schedule.settle_first(deadline);
        }
        assert_eq!((schedule.first_touched(), schedule.next_deadline(|_| None)), (None, Some(at(5))));
        schedule.touch(0);
        assert_eq!(schedule.take_due(at(20), asked), [0, 1, 2], "each once, whatever its deadline");
        assert_eq!(schedule.next_deadline(|_| None), None, "a peer that was due is touched by the caller");
        schedule.touch(1);
        schedule.forget(0);
        assert_eq!(schedule.first_touched(), Some(1));
    }
}
