//! What the plane keeps in its store, if it has one.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::batch::Batch;
use super::committer::Committer;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::compute::job::Jobs;
use crate::compute::job::store::JobRecords;
use crate::error::Error;
use crate::key::PublicKey;
use crate::membership::limit::told_limit;
use crate::node::command::Departure;
use crate::replication::crdt::Stamp;
use crate::replication::identity::ReplicaId;
use crate::replication::replicator::{Presence, Replicator};
use crate::replication::store::StateRecords;
use crate::rt::time;
use crate::store::{Store, StoreError};

/// The node's identity and counters, as an earlier process left them.
pub(super) struct Memory {
    pub(super) replica: ReplicaId,
    pub(super) epoch: u64,
    pub(super) clock: Stamp,
    pub(super) presence: Presence,
}

/// What an earlier process left. Without a store all writes of this process are lost at its end, so the replica id is
/// the process's.
pub(super) fn memory(store: Option<&Store>, key: PublicKey, boot: u64) -> Result<Memory, Error> {
    Ok(match store {
        Some(store) => Memory {
            replica: StateRecords(store).replica_id(key)?,
            epoch: believable(JobRecords(store).epoch_counter()?, time::unix_now()),
            clock: StateRecords(store).clock()?,
            presence: StateRecords(store).presence()?,
        },
        None => Memory {
            replica: ReplicaId { key, incarnation: boot },
            epoch: 0,
            clock: Stamp::default(),
            presence: Presence::default(),
        },
    })
}

/// Gives the stored records back to the replicator.
pub(super) fn restore(store: &Store, replicator: &mut Replicator, now: Instant) -> Result<(), Error> {
    let (wall, mut refused) = (time::unix_now(), None);
    StateRecords(store).each_state(|key, record| {
        if let Err(error) = replicator.restore(now, wall, key, record) {
            refused = Some(error);
        }
    })?;
    match refused {
        Some(error) => Err(StoreError::Value(error.to_string()).into()),
        None => Ok(()),
    }
}

/// Makes the first epoch counters durable, so that tasks can be submitted from the beginning.
pub(super) fn reserve_epochs(store: &Store, jobs: &mut Jobs) -> Result<(), Error> {
    while let Some(counter) = jobs.poll_persist() {
        JobRecords(store).set_epoch_counter(counter)?;
        jobs.on_persisted(counter);
    }
    Ok(())
}

/// The committer, if there is a store, and what it has to make durable.
pub(super) struct Durable {
    committer: Option<Committer>,
    /// What is new since the last batch, beside the replicator's records.
    next: Batch,
    /// The epoch counter in the batch under way.
    reserving: Option<u64>,
    epoch_told: u64,
}

impl Durable {
    pub(super) fn new(committer: Option<Committer>) -> Durable {
        Durable { committer, next: Batch::default(), reserving: None, epoch_told: 0 }
    }

    /// Whether a batch is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.committer.as_ref().is_some_and(Committer::is_busy)
    }

    /// This node has a new pass.
    pub(super) fn take_pass(&mut self, pass: Pass) {
        if self.committer.is_some() {
            self.next.pass = Some(pass);
        }
    }

    /// This node, an issuer, signed a pass.
    pub(super) fn take_signed(&mut self, pass: Pass) {
        if self.committer.is_some() {
            self.next.signed.push(pass);
        }
    }

    /// The authority revoked something.
    pub(super) fn take_revocations(&mut self, news: Vec<Revocation>) {
        if self.committer.is_some() {
            self.next.revoked.extend(news);
        }
    }

    /// The mesh has a new secret.
    pub(super) fn take_secret(&mut self, record: Zeroizing<Vec<u8>>) {
        if self.committer.is_some() {
            self.next.secret = Some(record);
        }
    }

    /// The highest epoch counter taken, if membership doesn't know it yet.
    pub(super) fn epoch_to_tell(&mut self, highest: u64) -> Option<u64> {
        let news = highest > self.epoch_told;
        self.epoch_told = self.epoch_told.max(highest);
        news.then_some(highest)
    }

    /// Begins to make durable what is new. None may be under way. False if there is nothing to wait for.
    pub(super) fn begin(&mut self, jobs: &mut Jobs, replicator: &mut Replicator) -> bool {
        let mut batch = std::mem::take(&mut self.next);
        batch.take_records(replicator);
        batch.epoch = jobs.poll_persist();
        match &mut self.committer {
            Some(committer) if !batch.is_empty() => {
                self.reserving = batch.epoch;
                committer.begin(batch);
                true
            }
            Some(_) => false,
            None => {
                batch.epoch.into_iter().for_each(|counter| jobs.on_persisted(counter));
                false
            }
        }
    }

    /// Waits for the end of the batch under way; forever if there is none. Cancel safe.
    pub(super) async fn outcome(&mut self) -> Result<(), StoreError> {
        match &mut self.committer {
            Some(committer) => committer.outcome().await,
            None => std::future::pending().await,
        }
    }

    /// The batch that was under way is durable.
    pub(super) fn on_durable(&mut self, jobs: &mut Jobs) {
        self.reserving.take().into_iter().for_each(|counter| jobs.on_persisted(counter));
    }

    /// Closes the store, after the batch under way.
    pub(super) async fn close(self) {
        if let Some(committer) = self.committer {
            committer.close().await;
        }
    }

    /// What becomes of the `keys` whose newest writes no other node has.
    pub(super) fn departure(&self, keys: usize) -> Departure {
        match self.committer {
            Some(_) => Departure { lost: 0, stored: keys },
            None => Departure { lost: keys, stored: 0 },
        }
    }
}

/// The epoch counter from which a node continues. A stored one that nobody would believe now is no floor: nobody has
/// believed a token under it, and nobody would believe a later one.
fn believable(stored: u64, unix_now: Duration) -> u64 {
    stored.min(told_limit(unix_now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_counter_is_told_once_and_only_if_it_is_higher() {
        let mut durable = Durable::new(None);
        for (highest, told) in [(0, None), (3, Some(3)), (3, None), (2, None), (5, Some(5))] {
            assert_eq!(durable.epoch_to_tell(highest), told);
        }
    }

    #[test]
    fn a_stored_counter_that_nobody_would_believe_keeps_no_node_out() {
        let now = Duration::from_secs(1_800_000_000);
        for (stored, begins) in [(0, 0), (1 << 33, 1 << 33), (u64::MAX, told_limit(now))] {
            assert_eq!(believable(stored, now), begins);
        }
    }
}
