//! A submitted task, as its submitter follows it.

use bytes::Bytes;

use crate::compute::job::{JobError, TaskId, WaitReason};
use crate::key::PublicKey;
use crate::rt::sync::mpsc;

/// Notices of one task that may wait for its submitter; the end always finds room.
pub(super) const COURSE: usize = 16;

/// Something about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEvent {
    /// A worker has it.
    Accepted {
        /// The worker.
        by: PublicKey,
    },
    /// It waits, for longer than a moment. Once for each time that it does.
    Waiting {
        /// Why.
        why: WaitReason,
    },
    /// It is over; nothing follows.
    Ended {
        /// Who ran it, if anybody did.
        by: Option<PublicKey>,
        /// How many times it was given to a worker.
        attempts: u32,
        /// What came of it.
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
    /// Its id: the same on every attempt.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The next thing that happens to it; `None` after the end. Notices may be left out, the end never is.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.course.recv().await
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The task's, or [`JobError::Cancelled`] when the node shut down first.
    pub async fn outcome(mut self) -> Result<Bytes, JobError> {
        while let Some(event) = self.next().await {
            if let TaskEvent::Ended { outcome, .. } = event {
                return outcome;
            }
        }
        Err(JobError::Cancelled)
    }
}
