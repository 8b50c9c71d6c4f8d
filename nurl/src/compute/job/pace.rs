//! Which worker gets the next free task: the one that is expected to end it first.
//!
//! A submitter knows of a worker how many tasks it runs at once (its *lanes*), how many free tasks of its own are there, and how
//! long such tasks have taken. From that follows when the worker would end one more. A worker has at most twice as many as its
//! lanes: one half runs, the other waits where it runs next. All others wait at the submitter, for the worker that is
//! free first. A slow worker gets a task only if it would end it before the others are through with all that waits.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::key::PublicKey;

/// What an executor says of its handler for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Lanes {
    /// How many tasks it runs at once.
    #[n(0)]
    pub(super) count: u16,
    /// Whether a second run of a task does no harm: it has no effect but its result.
    #[n(1)]
    pub(super) pure: bool,
}

/// A worker as the submitter knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) key: PublicKey,
    /// None until it has accepted a task.
    pub(super) lanes: Option<Lanes>,
    /// How many of the submitter's free tasks are there.
    pub(super) tasks: u32,
    /// How long it takes for a task: as measured, or longer if its present tasks have taken longer. None: none has ended.
    pub(super) mean: Option<Duration>,
    /// The longest time that a present task has taken.
    pub(super) oldest: Duration,
}

impl Worker {
    fn count(&self) -> u32 {
        self.lanes.map_or(1, |lanes| u32::from(lanes.count.max(1)))
    }

    /// How often all of its lanes are used until one more task would have ended.
    pub(super) fn rounds(&self) -> u32 {
        self.tasks / self.count() + 1
    }

    fn service(&self) -> Duration {
        self.mean.unwrap_or_default().max(self.oldest)
    }

    /// How long it would take to end one more task.
    pub(super) fn end(&self) -> Duration {
        self.service().saturating_mul(self.rounds())
    }

    /// Whether one more task may go there. Before the first one has ended none waits there: the worker may be very slow.
    fn has_room(&self) -> bool {
        let most = if self.mean.is_some() { self.count() * 2 } else { self.count() };
        self.tasks < most
    }

    /// Tasks that it ends in a second.
    fn rate(&self) -> f64 {
        match self.mean {
            Some(_) => f64::from(self.count()) / self.service().as_secs_f64().max(1e-6),
            None => 0.0,
        }
    }

    /// Whether it would run a task at once, and would have ended one by now that has run for so long elsewhere.
    pub(super) fn outruns(&self, elapsed: Duration) -> bool {
        let is_free = self.lanes.is_some_and(|lanes| lanes.pure) && self.tasks < self.count();
        is_free && self.mean.is_some() && elapsed >= self.service() * 3 / 2
    }
}

/// The worker for the next of `waiting` tasks; none if they had better wait.
pub(super) fn choose(workers: &[Worker], waiting: usize) -> Option<PublicKey> {
    let soonest = workers.iter().map(Worker::end).min()?;
    let rate: f64 = workers.iter().map(Worker::rate).sum();
    #[expect(clippy::cast_precision_loss, reason = "an estimate, of at most thousands of tasks")]
    let all = if rate > 0.0 { waiting as f64 / rate } else { 0.0 };
    let with_room = workers.iter().filter(|worker| worker.has_room());
    let best = with_room.min_by_key(|worker| (worker.end(), worker.tasks))?;
    let in_time = best.end() <= soonest || best.end().as_secs_f64() <= all;
    in_time.then_some(best.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(n: u8, tasks: u32, mean_ms: u64) -> Worker {
        Worker {
            key: key(n),
            lanes: Some(Lanes { count: 2, pure: true }),
            tasks,
            mean: (mean_ms > 0).then(|| Duration::from_millis(mean_ms)),
            oldest: Duration::ZERO,
        }
    }

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn the_worker_that_ends_it_first_gets_it_and_a_slow_one_only_what_it_ends_in_time() {
        let cases: [(&str, Vec<Worker>, usize, Option<u8>); 8] = [
            ("none", vec![], 9, None),
            ("equal", vec![worker(1, 1, 100), worker(2, 0, 100)], 1, Some(2)),
            ("a free lane is sooner", vec![worker(1, 2, 100), worker(2, 0, 150)], 1, Some(2)),
            ("both queues are full", vec![worker(1, 4, 100), worker(2, 4, 100)], 9, None),
            ("slow, and few wait", vec![worker(1, 4, 100), worker(2, 0, 3_000)], 5, None),
            ("slow, and many wait", vec![worker(1, 4, 100), worker(2, 0, 3_000)], 90, Some(2)),
            ("unknown: a task for each lane", vec![worker(1, 4, 100), worker(2, 1, 0)], 9, Some(2)),
            ("unknown: and no more", vec![worker(1, 4, 100), worker(2, 2, 0)], 9, None),
        ];
        for (name, workers, waiting, expected) in cases {
            assert_eq!(choose(&workers, waiting), expected.map(key), "{name}");
        }
    }

    #[test]
    fn a_worker_whose_present_task_takes_long_is_slow() {
        let stuck = Worker { oldest: Duration::from_secs(9), tasks: 1, ..worker(1, 0, 100) };
        assert_eq!(choose(&[stuck, worker(2, 4, 100)], 3), None);
        assert_eq!(choose(&[stuck, worker(2, 3, 100)], 3), Some(key(2)));
    }

    #[test]
    fn only_a_free_lane_of_a_pure_handler_that_is_faster_runs_a_task_once_more() {
        let ms = Duration::from_millis;
        assert!(worker(1, 1, 100).outruns(ms(150)));
        assert!(!worker(1, 1, 100).outruns(ms(149)) && !worker(1, 2, 100).outruns(ms(900)));
        assert!(!worker(1, 0, 0).outruns(ms(900)), "its pace isn't known");
        let effects = Worker { lanes: Some(Lanes { count: 2, pure: false }), ..worker(1, 0, 100) };
        assert!(!effects.outruns(ms(900)));
    }
}
