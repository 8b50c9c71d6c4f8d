//! The fenced register of one key, one call after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use nurl::internals::compute::lease::{KEEP, Outcome, Recovered, TaskId};
use nurl::internals::ring::Epoch;

use super::Operation;

/// A resource counts in whole milliseconds, from a beginning of its own.
const ROUNDING: Duration = Duration::from_millis(2);

/// A call to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// To do a task.
    Admit { token: Epoch, life: Duration },
    /// An effect with its outcome, in one transaction.
    Commit { token: Epoch, outcome: Vec<u8> },
    /// The outcome of an effect made elsewhere.
    Complete { token: Epoch, outcome: Vec<u8> },
    /// The effect won't be made.
    Release { token: Epoch },
    /// The resource's owner says what came of the task of a process that died.
    Recover(Recovered),
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Admitted,
    InProgress,
    Recorded(Outcome),
    Fenced(Epoch),
    /// It is ended, or recovered.
    Ended,
    /// It is ended, behind a higher token.
    Late(Epoch),
    NotInProgress,
    /// No room, or a call over a bound: nothing happened.
    Refused,
}

/// What the register knows of a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    InProgress { token: Epoch, kept_until: Duration },
    Done { outcome: Vec<u8>, kept_until: Duration },
    Unknown { kept_until: Duration },
}

impl Task {
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Task::InProgress { .. } => None,
            Task::Done { outcome, .. } => Some(Outcome::Done(outcome.clone())),
            Task::Unknown { .. } => Some(Outcome::Unknown),
        }
    }

    /// Whether its outcome may have been dropped at a time.
    fn is_over(&self, at: Duration) -> bool {
        match self {
            Task::InProgress { .. } => false,
            Task::Done { kept_until, .. } | Task::Unknown { kept_until } => at + ROUNDING >= *kept_until,
        }
    }
}

/// The register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    /// The lowest token that is admitted.
    token: Epoch,
    tasks: BTreeMap<TaskId, Task>,
    /// Whether the key may be evicted when it has no tasks, for others.
    evictable: bool,
}

impl Register {
    pub(crate) fn new() -> Register {
        Register { token: Epoch::ZERO, tasks: BTreeMap::new(), evictable: false }
    }

    /// The register of a resource that remembers fewer keys than it is asked for.
    pub(crate) fn evictable() -> Register {
        Register { evictable: true, ..Register::new() }
    }

    /// The register after a call, as often as there are ways; none if its answer isn't the register's.
    pub(crate) fn after(&self, operation: &Operation) -> Vec<Register> {
        let Operation { task, call, until, answer, .. } = operation;
        if *answer == Some(Answer::Refused) {
            return vec![self.clone()];
        }
        let mut ways = vec![self.step(operation)];
        // An outcome may be dropped from the end of its time on; it need not be.
        if self.tasks.get(task).is_some_and(|task| task.is_over(*until)) {
            let mut forgetful = self.clone();
            forgetful.tasks.remove(task);
            ways.push(forgetful.step(operation));
        }
        // A key without tasks may have been evicted: then the floor fences, or the token of the key that would have to go
        // for it, which leaves the floor as it is. Neither is below what was admitted for this key.
        if let (Call::Admit { token, .. }, Some(Answer::Fenced(floor))) = (call, answer)
            && self.evictable
            && *floor >= self.token
            && token < floor
            && self.tasks.values().all(|task| task.is_over(*until))
        {
            ways.push(Some(Register { token: self.token, ..Register::evictable() }));
        }
        ways.into_iter().flatten().collect()
    }

    fn step(&self, operation: &Operation) -> Option<Register> {
        let Operation { task: id, call, from, answer, .. } = operation;
        let (id, mut after) = (*id, self.clone());
        let says = match call {
            Call::Admit { token, life } => after.admit(id, *token, *from + *life + KEEP),
            Call::Commit { token, outcome } => after.finish(id, *token, outcome, true),
            Call::Complete { token, outcome } => after.finish(id, *token, outcome, false),
            Call::Release { token } => match after.tasks.get(&id) {
                Some(Task::InProgress { token: held, .. }) if token < held => Answer::Fenced(after.token),
                Some(Task::InProgress { .. }) => {
                    after.tasks.remove(&id);
                    Answer::Ended
                }
                _ => Answer::NotInProgress,
            },
            Call::Recover(said) => after.recover(id, said),
        };
        answer.as_ref().is_none_or(|answer| *answer == says).then_some(after)
    }

    fn admit(&mut self, id: TaskId, token: Epoch, kept_until: Duration) -> Answer {
        match self.tasks.get(&id).map(Task::outcome) {
            Some(None) => return Answer::InProgress,
            Some(Some(outcome)) => return Answer::Recorded(outcome),
            None => {}
        }
        if token < self.token {
            return Answer::Fenced(self.token);
        }
        self.token = token;
        self.tasks.insert(id, Task::InProgress { token, kept_until });
        Answer::Admitted
    }

    fn finish(&mut self, id: TaskId, token: Epoch, outcome: &[u8], with_effect: bool) -> Answer {
        let Some(Task::InProgress { token: held, kept_until }) = self.tasks.get(&id) else {
            return Answer::NotInProgress;
        };
        if token < *held || (with_effect && token < self.token) {
            return Answer::Fenced(self.token);
        }
        let done = Task::Done { outcome: outcome.to_vec(), kept_until: *kept_until };
        self.tasks.insert(id, done);
        if token < self.token { Answer::Late(self.token) } else { Answer::Ended }
    }

    fn recover(&mut self, id: TaskId, said: &Recovered) -> Answer {
        let Some(Task::InProgress { kept_until, .. }) = self.tasks.get(&id) else {
            return Answer::NotInProgress;
        };
        let kept_until = *kept_until;
        match said {
            Recovered::Done(outcome) => {
                self.tasks.insert(id, Task::Done { outcome: outcome.clone(), kept_until });
            }
            Recovered::Unknown => {
                self.tasks.insert(id, Task::Unknown { kept_until });
            }
            Recovered::RolledBack => {
                self.tasks.remove(&id);
            }
            Recovered::Running => {}
        }
        Answer::Ended
    }
}
