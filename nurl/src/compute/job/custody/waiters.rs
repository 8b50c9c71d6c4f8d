//! The askers that wait here until a task's state changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::MAX_WAITING;
use super::entry::Mark;
use super::message::Want;
use crate::compute::job::TaskId;
use crate::key::PublicKey;

/// How long an asker waits here at most; it asks again then.
const WAITS_FOR: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asker {
    pub(super) who: PublicKey,
    pub(super) call: u64,
}

/// Those that wait for one task: the mark that each has seen, what it wants, and until when it waits.
type Waits = BTreeMap<Asker, (Option<Mark>, Want, Instant)>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: BTreeMap<TaskId, Waits>,
    until: BTreeSet<(Instant, TaskId, Asker)>,
}

impl Waiters {
    /// Lets an asker wait; false if too many do.
    pub(super) fn wait(
        &mut self,
        now: Instant,
        task: TaskId,
        asker: Asker,
        (seen, want): (Option<Mark>, Want),
        wait: Duration,
    ) -> bool {
        if self.until.len() >= MAX_WAITING || wait.is_zero() {
            return false;
        }
        let until = now + wait.min(WAITS_FOR);
        if let Some((_, _, before)) = self.waiting.entry(task).or_default().insert(asker, (seen, want, until))
        {
            self.until.remove(&(before, task, asker));
        }
        self.until.insert((until, task, asker));
        true
    }

    /// Takes out the askers that `wants` to be answered now.
    pub(super) fn take(&mut self, task: &TaskId, wants: impl Fn(Option<Mark>) -> bool) -> Vec<(Asker, Want)> {
        let Some(waiting) = self.waiting.get_mut(task) else { return Vec::new() };
        let taken: Vec<_> = waiting.extract_if(.., |_, (seen, _, _)| wants(*seen)).collect();
        if waiting.is_empty() {
            self.waiting.remove(task);
        }
        for (asker, (_, _, until)) in &taken {
            self.until.remove(&(*until, *task, *asker));
        }
        taken.into_iter().map(|(asker, (_, want, _))| (asker, want)).collect()
    }

    /// The next asker that has waited for long enough.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(TaskId, Asker, Want)> {
        let (until, task, asker) = *self.until.first().filter(|(until, _, _)| *until <= now)?;
        self.until.remove(&(until, task, asker));
        let waiting = self.waiting.get_mut(&task)?;
        let (_, want, _) = waiting.remove(&asker)?;
        if waiting.is_empty() {
            self.waiting.remove(&task);
        }
        Some((task, asker, want))
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.until.first().map(|(until, _, _)| *until)
    }
}
