//! A submitted task, from its submitter's side.

use std::path::PathBuf;

use bytes::Bytes;

use crate::compute::job::{JobError, TaskId, WaitReason};
use crate::compute::pool::{Content, LargeFile};
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
    /// Its result is a file that is on its way here.
    Fetching {
        /// The bytes that are here.
        there: u64,
        /// The file's length.
        len: u64,
    },
    /// It has ended; no event follows.
    Ended {
        /// The worker that ran it, if any did.
        by: Option<PublicKey>,
        /// Number of times that it was given to a worker.
        attempts: u32,
        /// Its result or error; no bytes if the result is a file.
        outcome: Result<Bytes, JobError>,
        /// The file with the result, if the handler of a [large](crate::compute::job::SubmitOptions::large) task made one.
        file: Option<LargeFile>,
    },
}

/// The payload of a task that may be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// At most [`MAX_PAYLOAD_LEN`](crate::compute::job::options::MAX_PAYLOAD_LEN) bytes.
    Bytes(Bytes),
    /// A file of at most 4 GiB. It is read when a worker fetches it, so it must stay as it is until the task's end.
    File(PathBuf),
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

    /// Waits for the end of a task whose result may be a file. The file goes when the last clone of it is dropped: move it
    /// away, or read it before.
    ///
    /// # Errors
    /// As [`outcome`](Task::outcome).
    pub async fn content(mut self) -> Result<Content, JobError> {
        while let Some(event) = self.next().await {
            if let TaskEvent::Ended { outcome, file, .. } = event {
                return outcome.map(|bytes| file.map_or(Content::Bytes(bytes), Content::File));
            }
        }
        Err(JobError::Cancelled)
    }
}
