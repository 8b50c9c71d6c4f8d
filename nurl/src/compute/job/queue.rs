//! A kind's queue: shared fairly by the [accounts](crate::authority::account) whose tasks wait in it.
//!
//! A submitter's own tasks start by priority, then by arrival. A priority ages: a task that has waited for a minute counts as
//! one of the next higher priority, so those that come later don't keep it waiting for ever. Between invitations, and
//! between the passes of one, the one with the fewest running tasks starts first, then the one whose last start is longer ago. A priority is a wish of a
//! pass's holder, so it orders that one's tasks alone and displaces nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::options::KindLimits;
use super::task::{Priority, TaskId};
use crate::authority::account::Account;
use crate::kit::shares::Shares;

/// The limits of a `Busy` hint, whatever the mean run time is.
pub(super) const MIN_RETRY_AFTER: Duration = Duration::from_millis(100);
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);
/// The assumed mean run time of a kind before the first measurement.
const FIRST_MEAN: Duration = Duration::from_millis(200);

/// For so long a task waits for those of the next higher priority that come later.
pub(super) const AGES_IN: Duration = Duration::from_secs(60);

/// A task's place among those of its submitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// When its age makes it one of high priority.
    urgent: Instant,
    /// The number of its arrival.
    arrival: u64,
    pub(super) task: TaskId,
}

impl Place {
    /// The place of a task that waits since then.
    pub(super) fn new(since: Instant, priority: Priority, arrival: u64, task: TaskId) -> Place {
        let levels = match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        Place { urgent: since + AGES_IN * levels, arrival, task }
    }

    /// What its priority has become by now.
    pub(super) fn priority(&self, now: Instant) -> Priority {
        match self.urgent.saturating_duration_since(now) {
            Duration::ZERO => Priority::High,
            left if left <= AGES_IN => Priority::Normal,
            _ => Priority::Low,
        }
    }
}

/// The tasks of one kind that wait, and the number of those that run.
#[derive(Debug)]
pub(super) struct KindQueue {
    pub(super) limits: KindLimits,
    pub(super) running: usize,
    waiting: BTreeMap<Account, BTreeSet<Place>>,
    shares: Shares<Account>,
    mean: Duration,
}

impl KindQueue {
    pub(super) fn new(limits: KindLimits) -> KindQueue {
        KindQueue {
            limits,
            running: 0,
            waiting: BTreeMap::new(),
            shares: Shares::default(),
            mean: FIRST_MEAN,
        }
    }

    fn len(&self) -> usize {
        self.shares.total() as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limits.queue
    }

    /// When to ask again.
    pub(super) fn retry_after(&self) -> Duration {
        let ahead = u32::try_from(self.len() + 1).unwrap_or(u32::MAX);
        let lanes = u32::try_from(self.limits.concurrency.max(1)).unwrap_or(u32::MAX);
        (self.mean.saturating_mul(ahead) / lanes).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
    }

    /// Notes that a run has ended.
    pub(super) fn ended(&mut self, took: Duration) {
        self.running = self.running.saturating_sub(1);
        // A moving mean with weight 1/8, like TCP's round-trip estimate (RFC 6298 §2).
        self.mean = (self.mean * 7 + took) / 8;
    }

    pub(super) fn insert(&mut self, submitter: Account, place: Place) {
        if self.waiting.entry(submitter).or_default().insert(place) {
            self.shares.add(submitter, 1);
        }
    }

    pub(super) fn remove(&mut self, submitter: &Account, place: &Place) {
        let Some(places) = self.waiting.get_mut(submitter) else { return };
        if places.remove(place) {
            self.shares.sub(*submitter, 1);
        }
        if places.is_empty() {
            self.waiting.remove(submitter);
        }
    }

    /// Each submitter's next task, if another one may run.
    pub(super) fn next(&self) -> impl Iterator<Item = (&Account, &Place)> {
        let free = self.running < self.limits.concurrency;
        let waiting = free.then_some(&self.waiting).into_iter().flatten();
        waiting.filter_map(|(submitter, places)| Some((submitter, places.first()?)))
    }

    /// The last of a submitter's tasks.
    pub(super) fn last_of(&self, submitter: &Account) -> Option<TaskId> {
        self.waiting.get(submitter).and_then(BTreeSet::last).map(|place| place.task)
    }

    /// The task that gives way when the queue is full and `newcomer` brings one more: the last one of the submitter that
    /// pays.
    pub(super) fn gives_way_to(&self, newcomer: &Account) -> Option<TaskId> {
        self.last_of(&self.shares.payer(newcomer, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    fn key(n: u8) -> Account {
        Account::alone(PublicKey::from_bytes([n; 32]))
    }

    fn place(since: Instant, priority: Priority, n: u8) -> Place {
        Place::new(since, priority, n.into(), TaskId::from_bytes([n; 16]))
    }

    #[test]
    fn a_task_that_has_waited_a_minute_is_before_those_of_the_next_priority_that_come_then() {
        let start = crate::rt::test_now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let low = place(start, Priority::Low, 1);
        for (seconds, is_now, is_before) in [
            (0, Priority::Low, [true, false, false]),
            (59, Priority::Low, [true, false, false]),
            (61, Priority::Normal, [true, true, false]),
            (119, Priority::Normal, [true, true, false]),
            (121, Priority::High, [true, true, true]),
        ] {
            assert_eq!(low.priority(after(seconds)), is_now, "after {seconds} s");
            let others = [Priority::Low, Priority::Normal, Priority::High];
            let before = others.map(|priority| low < place(after(seconds), priority, 2));
            assert_eq!(before, is_before, "after {seconds} s");
        }
    }

    #[test]
    fn the_last_task_of_the_submitter_with_most_gives_way_to_one_with_fewer() {
        let mut queue =
            KindQueue::new(KindLimits { concurrency: 1, queue: 4, time_limit: None, pure: false });
        let start = crate::rt::test_now();
        for (submitter, n, priority) in
            [(1, 1, Priority::High), (1, 2, Priority::Low), (1, 3, Priority::Normal), (2, 4, Priority::Low)]
        {
            queue.insert(key(submitter), place(start, priority, n));
        }
        assert!(queue.is_full());
        let gives = |queue: &KindQueue, n| queue.gives_way_to(&key(n));
        assert_eq!(gives(&queue, 1), None, "the largest pays itself");
        assert_eq!(gives(&queue, 2), Some(TaskId::from_bytes([2; 16])));
        assert_eq!(gives(&queue, 3), Some(TaskId::from_bytes([2; 16])));
        queue.remove(&key(1), &place(start, Priority::Low, 2));
        assert_eq!(gives(&queue, 2), None, "it would have as many");
        assert_eq!(queue.next().map(|(_, place)| place.arrival).collect::<Vec<_>>(), [1, 4]);
        queue.running = 1;
        assert_eq!(queue.next().count(), 0);
    }
}
