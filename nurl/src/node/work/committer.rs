//! The committer: it makes one batch durable at a time, on the disk's thread.
//!
//! The work plane never waits for the disk. While a batch is under way, the plane goes on, and what changes meanwhile
//! gathers into the next batch: many writes share one commit when they are many, and a single one has its own at once.
//!
//! A commit that fails closes the store, and is never tried again: see [`crate::store`]. What is certainly on the disk is
//! read back at once, and the store is opened again when the plane says so.

use std::sync::Arc;

use super::batch::Batch;
use super::recipe::Recipe;
use crate::replication::replicator::Replicator;
use crate::rt;
use crate::rt::sync::mpsc;
use crate::rt::task::{self, JoinHandle, Plane, Planes};
use crate::store::{Closed, Store, StoreError};

/// An order to the disk's thread.
enum Order {
    Commit(Box<Batch>),
    Reopen,
}

/// What became of an order.
pub(super) enum Done {
    /// The batch is durable.
    Durable,
    /// The batch isn't durable, and the store is closed.
    Failed(Box<Failed>),
    /// The store is open again: what it has.
    Reopened(Box<Replicator>),
    /// The store can't be opened again yet.
    StillFails(StoreError),
}

/// What is left when a commit has failed.
pub(super) struct Failed {
    pub(super) why: Arc<str>,
    /// What the batch had beside the replicator's records.
    pub(super) left: Batch,
    /// What is certainly on the disk; nothing, if it can't be read.
    pub(super) restored: Box<Replicator>,
}

/// The store, on the disk's thread.
enum Disk {
    Open(Store),
    Closed(Closed),
}

impl Disk {
    fn obey(self, order: Order, recipe: &Recipe) -> (Disk, Done) {
        match (self, order) {
            (Disk::Open(store), Order::Commit(mut batch)) => match batch.commit(&store) {
                Ok(()) => (Disk::Open(store), Done::Durable),
                Err(error) => {
                    let closed = store.fail();
                    let why: Arc<str> = closed.told(error).to_string().into();
                    batch.forget_records();
                    let failed = Failed { restored: restored(&closed, recipe, &why), left: *batch, why };
                    (Disk::Closed(closed), Done::Failed(Box::new(failed)))
                }
            },
            (Disk::Closed(closed), Order::Reopen) => {
                let opened = closed.reopen(&mut rt::rng("store"));
                match opened.and_then(|store| Ok((recipe.replicator(Some(&store), None)?, store))) {
                    Ok((replicator, store)) => (Disk::Open(store), Done::Reopened(Box::new(replicator))),
                    Err(error) => (Disk::Closed(closed), Done::StillFails(error)),
                }
            }
            (Disk::Open(_), Order::Reopen) | (Disk::Closed(_), Order::Commit(_)) => {
                unreachable!("the plane knows whether the store is open")
            }
        }
    }
}

/// A replicator with what is certainly on the disk.
fn restored(closed: &Closed, recipe: &Recipe, why: &Arc<str>) -> Box<Replicator> {
    let view = closed.view(&mut rt::rng("store"));
    let read = view.and_then(|view| recipe.replicator(Some(&view), Some(why.clone())));
    Box::new(read.unwrap_or_else(|error| {
        tracing::warn!(target: "nurl::store", %error, "nothing of the store can be read back");
        recipe.empty(why.clone())
    }))
}

/// See the module.
pub(super) struct Committer {
    orders: mpsc::Sender<Order>,
    outcomes: mpsc::Receiver<Done>,
    task: JoinHandle<()>,
    busy: bool,
}

impl Committer {
    /// A committer that has the store until it is [closed](Committer::close) or dropped.
    pub(super) fn start(store: Store, recipe: Recipe, planes: &Planes) -> Committer {
        let (orders, mut taken) = mpsc::channel::<Order>(1);
        let (told, outcomes) = mpsc::channel(1);
        let task = planes.spawn(Plane::Disk, async move {
            let mut disk = Disk::Open(store);
            while let Some(order) = taken.recv().await {
                let done;
                (disk, done) = disk.obey(order, &recipe);
                // A batch is durable at the end of the time that it takes.
                task::caught_up().await;
                if told.send(done).await.is_err() {
                    return;
                }
            }
        });
        Committer { orders, outcomes, task, busy: false }
    }

    /// Whether an order is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins to make a batch durable. No order may be under way, and the store is open.
    pub(super) fn begin(&mut self, batch: Batch) {
        self.give(Order::Commit(Box::new(batch)));
    }

    /// Begins to open the store again. No order may be under way, and the last commit has failed.
    pub(super) fn reopen(&mut self) {
        self.give(Order::Reopen);
    }

    fn give(&mut self, order: Order) {
        assert!(!self.busy, "one order at a time");
        self.busy = true;
        // An error means that the task has panicked, which the wait for the outcome tells.
        let _ = self.orders.try_send(order);
    }

    /// Waits for the outcome of the order under way; forever if there is none. Cancel safe.
    ///
    /// # Errors
    /// The committer has panicked.
    pub(super) async fn outcome(&mut self) -> Result<Done, StoreError> {
        if !self.busy {
            return std::future::pending().await;
        }
        let outcome = match self.outcomes.recv().await {
            Some(done) => Ok(done),
            None => Err(StoreError::Panicked(match (&mut self.task).await {
                Ok(()) => "the committer has ended".to_owned(),
                Err(error) => error.to_string(),
            })),
        };
        self.busy = false;
        outcome
    }

    /// Closes the store, after the order under way.
    pub(super) async fn close(self) {
        drop((self.orders, self.outcomes));
        // An error means that it has panicked; then the store is closed, too.
        let _ = self.task.await;
    }
}
