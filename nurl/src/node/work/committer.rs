//! The committer: it makes one batch durable at a time, on the disk's thread.
//!
//! The work plane never waits for the disk. While a batch is under way, the plane goes on, and what changes meanwhile
//! gathers into the next batch: many writes share one commit when they are many, and a single one has its own at once.

use super::batch::Batch;
use crate::rt::sync::mpsc;
use crate::rt::task::{self, JoinHandle, Plane, Planes};
use crate::store::{Store, StoreError};

/// See the module.
pub(super) struct Committer {
    batches: mpsc::Sender<Batch>,
    outcomes: mpsc::Receiver<Result<(), StoreError>>,
    task: JoinHandle<()>,
    busy: bool,
}

impl Committer {
    /// A committer that has the store until it is [closed](Committer::close) or dropped.
    pub(super) fn start(store: Store, planes: &Planes) -> Committer {
        let (batches, mut taken) = mpsc::channel::<Batch>(1);
        let (told, outcomes) = mpsc::channel(1);
        let task = planes.spawn(Plane::Disk, async move {
            while let Some(batch) = taken.recv().await {
                let outcome = batch.commit(&store);
                // A batch is durable at the end of the time that it takes.
                task::caught_up().await;
                if told.send(outcome).await.is_err() {
                    return;
                }
            }
        });
        Committer { batches, outcomes, task, busy: false }
    }

    /// Whether a batch is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins to make a batch durable. None may be under way.
    pub(super) fn begin(&mut self, batch: Batch) {
        assert!(!self.busy, "one batch at a time");
        self.busy = true;
        // An error means that the task has panicked, which the wait for the outcome tells.
        let _ = self.batches.try_send(batch);
    }

    /// Waits for the outcome of the batch under way; forever if there is none. Cancel safe.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn outcome(&mut self) -> Result<(), StoreError> {
        if !self.busy {
            return std::future::pending().await;
        }
        let outcome = match self.outcomes.recv().await {
            Some(outcome) => outcome,
            None => Err(StoreError::Panicked(match (&mut self.task).await {
                Ok(()) => "the committer has ended".to_owned(),
                Err(error) => error.to_string(),
            })),
        };
        self.busy = false;
        outcome
    }

    /// Closes the store, after the batch under way.
    pub(super) async fn close(self) {
        drop((self.batches, self.outcomes));
        // An error means that it has panicked; then the store is closed, too.
        let _ = self.task.await;
    }
}
