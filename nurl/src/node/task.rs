//! A submitted task, from its submitter's side.

use bytes::Bytes;

use crate::compute::job::{JobError, TaskId, WaitReason};
use crate::key::PublicKey;
use crate::rt::sync::mpsc;

/// Notices of one task that may wait for its submitter; the end is always delivered.
pub(super) const COURSE: usize = 16;

/// An event of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEvent {
    /// A worker accepted it.
    Accepted {
        /// The worker.
        by: PublicKey,
    },
    /// It has waited for longer than a moment. Reported once per wait.
    Waiting {
        /// The cause.
        why: WaitReason,
    },
    /// Its handler [says](crate::compute::pool::JobContext::progress) how far it is.
    Progress {
        /// The worker.
        by: PublicKey,
        /// The handler's note.
        note: Bytes,
    },
    /// It has ended; no event follows.
    Ended {
        /// The worker that ran it, if any did.
        by: Option<PublicKey>,
        /// Number of times that it was given to a worker.
        attempts: u32,
        /// Its result or error.
        outcome: Result<Bytes, JobError>,
    },
}

/// A submitted task. Dropping it doesn't cancel the task.
#[derive(Debug)]
pub struct Task {
    pub(super) id: TaskId,
    pub(super) course: mpsc::Receiver<TaskEvent>,
}

impl Task {
    /// Its id, the same on every attempt.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The next event; `None` after the end. Notices may be left out, the end never is.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.course.recv().await
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The task's own error, or [`JobError::Cancelled`] when the node shut down first.
    pub async fn outcome(mut self) -> Result<Bytes, JobError> {
        while let Some(event) = self.next().await {
            if let TaskEvent::Ended { outcome, .. } = event {
                return outcome;
            }
        }
        Err(JobError::Cancelled)
    }
}
