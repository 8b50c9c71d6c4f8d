//! The errors of a task, and of a call.

use std::time::Duration;

use super::options::{MAX_ERROR_TEXT_LEN, MAX_KEY_LEN, MAX_KIND_LEN, MAX_PAYLOAD_LEN};
use super::task::TaskId;
use crate::ring::Epoch;

/// Why a task, or one attempt at it, has no result.
///
/// A handler's error decides how the task continues:
///
/// - **Try elsewhere**: [`JobError::retriable`]. The submitter goes to the next executor of the list (or to the same
///   one if it is the only one), after a back-off of 0.2 s at first. After
///   [`max_failures`](super::SubmitOptions::max_failures) such failures the task is a
///   [`DeadLetter`](JobError::DeadLetter). It is meant for faults of the machine: a full disk, a missing device, a
///   process that the system killed.
/// - **Final**: [`JobError::permanent`]. The task ends with this error, and no other executor is asked. It is meant
///   for faults of the task: an input that can't be parsed.
///
/// The runtime adds its own errors: a task over the kind's time limit and a fenced task are tried elsewhere, a panic
/// is final. A lost worker sends no error: see [`Lost`](JobError::Lost).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The handler failed. Only a retriable failure moves the task to the next executor.
    #[error("the handler failed: {message}")]
    Failed {
        /// Whether another attempt may succeed.
        retriable: bool,
        /// The handler's message, at most [`MAX_ERROR_TEXT_LEN`] bytes.
        message: String,
    },
    /// The handler panicked. Permanent: the same input would panic elsewhere.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// The handler exceeded its kind's time limit. Retriable, because a busy machine may be the cause.
    #[error("the handler ran over its time limit")]
    TimedOut,
    /// Every live executor of the list answered that it has no handler of this kind.
    #[error("no handler of kind `{0}` is registered where it was advertised")]
    UnknownKind(String),
    /// No member advertises the kind, live or not.
    #[error("no member executes tasks of kind `{0}`")]
    Infeasible(String),
    /// Every live executor of the list has a policy for the kind that doesn't permit this submitter.
    #[error("no worker lets you submit `{kind}`: needs {needs}")]
    NotAllowed {
        /// The kind.
        kind: String,
        /// What any one of the workers would need, such as `level member or name alice`.
        needs: String,
    },
    /// The submitter cancelled the task.
    #[error("cancelled")]
    Cancelled,
    /// The task's life ended without an outcome.
    #[error("the task's life ended before it had an outcome")]
    Deadline,
    /// Too many attempts failed retriably. A detached task can be tried again.
    #[error("given up after {failures} failed attempts, the last: {last}")]
    DeadLetter {
        /// The number of failed attempts.
        failures: u32,
        /// The error text of the last attempt.
        last: String,
    },
    /// Too many workers died, or were replaced by another process, while they had the task: the task may have killed
    /// them. A dead letter, like [`DeadLetter`](JobError::DeadLetter).
    #[error("a dead letter: lost with {workers} workers: {names}")]
    Lost {
        /// The number of processes lost with the task.
        workers: u32,
        /// The short keys of their nodes, in the order in which they accepted the task.
        names: String,
    },
    /// The resource has admitted a higher token: this node's tenure of the key is over.
    #[error("fenced by a token with counter {}", current.counter)]
    Fenced {
        /// The token that the resource holds.
        current: Epoch,
    },
    /// The same task id was used for another kind, key or payload.
    #[error("the task id is already used for another payload")]
    Conflict,
    /// The task has ended before, and the bytes of its outcome were acknowledged and dropped; only their hash is
    /// left.
    #[error("the task is settled and its outcome has been delivered before")]
    Settled {
        /// The hash of that outcome.
        hash: [u8; 32],
    },
    /// The handler's result is longer than a message may be.
    #[error("the result has {len} bytes, more than {MAX_PAYLOAD_LEN}")]
    TooLarge {
        /// Its length.
        len: u64,
    },
}

impl JobError {
    /// A failure that another attempt, elsewhere or later, may avoid: the task goes to the next executor.
    pub fn retriable(message: impl Into<String>) -> JobError {
        JobError::Failed { retriable: true, message: message.into() }
    }

    /// A failure that every attempt would have: the task ends with this error.
    pub fn permanent(message: impl Into<String>) -> JobError {
        JobError::Failed { retriable: false, message: message.into() }
    }

    /// Whether the submitter moves on to the next executor.
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            JobError::Failed { retriable: true, .. } | JobError::TimedOut | JobError::Fenced { .. }
        )
    }

    /// The error with its text cut to the wire's limit.
    pub(crate) fn bounded(self) -> JobError {
        match self {
            JobError::Failed { retriable, message } => JobError::Failed { retriable, message: cut(message) },
            JobError::Panicked(text) => JobError::Panicked(cut(text)),
            JobError::UnknownKind(text) => JobError::UnknownKind(cut(text)),
            JobError::Infeasible(text) => JobError::Infeasible(cut(text)),
            JobError::NotAllowed { kind, needs } => JobError::NotAllowed { kind, needs: cut(needs) },
            JobError::DeadLetter { failures, last } => JobError::DeadLetter { failures, last: cut(last) },
            JobError::Lost { workers, names } => JobError::Lost { workers, names: cut(names) },
            other => other,
        }
    }
}

/// Cuts the text at a character boundary.
fn cut(mut text: String) -> String {
    if text.len() > MAX_ERROR_TEXT_LEN {
        let mut end = MAX_ERROR_TEXT_LEN;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// Why a task was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The payload doesn't fit a message.
    #[error("the payload has {len} bytes, more than {MAX_PAYLOAD_LEN}")]
    PayloadTooLarge {
        /// Its length.
        len: usize,
    },
    /// The kind is empty or too long.
    #[error("a kind has 1 to {MAX_KIND_LEN} bytes")]
    BadKind,
    /// The key is too long.
    #[error("a key has at most {MAX_KEY_LEN} bytes")]
    BadKey,
    /// The life is zero or over the limit.
    #[error("a life is more than zero and at most 24 hours")]
    BadLife,
    /// The id is in use for another kind, key or payload.
    #[error("task {0} is already used for another payload")]
    Conflict(TaskId),
    /// Too many tasks, or too many bytes of them, wait for their outcome.
    #[error("too many open tasks; try again in {retry_after:?}")]
    Busy {
        /// The time after which the caller should try again.
        retry_after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_cut_at_a_character() {
        let long = "ä".repeat(MAX_ERROR_TEXT_LEN);
        let JobError::Panicked(text) = JobError::Panicked(format!("x{long}")).bounded() else { panic!() };
        assert!(text.len() <= MAX_ERROR_TEXT_LEN && text.len() >= MAX_ERROR_TEXT_LEN - 1);
    }

    #[test]
    fn only_silence_and_retriable_failures_move_on() {
        assert!(JobError::retriable("disk full").is_retriable());
        assert!(!JobError::permanent("not a number").is_retriable());
        assert!(!JobError::Panicked("index".into()).is_retriable());
        assert!(!JobError::UnknownKind("x".into()).is_retriable());
    }
}
