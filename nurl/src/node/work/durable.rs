//! What the plane keeps in its store, if it has one.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::compute::job::Jobs;
use crate::compute::job::store::JobRecords;
use crate::error::Error;
use crate::key::PublicKey;
use crate::membership::limit::told_limit;
use crate::node::command::Departure;
use crate::node::own_pass::OwnPass;
use crate::node::own_revocations::OwnRevocations;
use crate::node::own_secret::OwnSecret;
use crate::node::signed_passes::SignedPasses;
use crate::replication::crdt::Stamp;
use crate::replication::identity::ReplicaId;
use crate::replication::replicator::{Presence, Replicator};
use crate::replication::store::{Heads, StateRecords};
use crate::rt::time;
use crate::rt::{Point, buggify};
use crate::store::{Store, StoreError};

/// The node's identity and counters, as an earlier process left them.
pub(super) struct Memory {
    pub(super) replica: ReplicaId,
    pub(super) epoch: u64,
    pub(super) clock: Stamp,
    pub(super) presence: Presence,
}

/// The store, and the epoch counter told last.
pub(super) struct Durable {
    store: Option<Store>,
    /// A new pass that isn't durable yet.
    pass: Option<Pass>,
    /// Passes of others that this node signed, and that aren't durable yet.
    signed: Vec<Pass>,
    /// Revocations that aren't durable yet.
    revoked: Vec<Revocation>,
    /// The record of a new secret that isn't durable yet.
    secret: Option<Zeroizing<Vec<u8>>>,
    epoch_told: u64,
}

impl Durable {
    pub(super) fn new(store: Option<Store>) -> Durable {
        Durable { store, pass: None, signed: Vec::new(), revoked: Vec::new(), secret: None, epoch_told: 0 }
    }

    /// Whether there is a store.
    pub(super) fn is_some(&self) -> bool {
        self.store.is_some()
    }

    /// What an earlier process left. Without a store all writes of this process are lost at its end, so the replica
    /// id is the process's.
    pub(super) fn memory(&self, key: PublicKey, boot: u64) -> Result<Memory, Error> {
        Ok(match &self.store {
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

    /// This node has a new pass, which [`keep_pass`](Durable::keep_pass) keeps.
    pub(super) fn take_pass(&mut self, pass: Pass) {
        self.pass = Some(pass);
    }

    /// This node, an issuer, signed a pass, which [`keep_pass`](Durable::keep_pass) keeps too.
    pub(super) fn take_signed(&mut self, pass: Pass) {
        if self.store.is_some() {
            self.signed.push(pass);
        }
    }

    /// The authority revoked something, which [`keep_pass`](Durable::keep_pass) keeps too.
    pub(super) fn take_revocations(&mut self, news: Vec<Revocation>) {
        if self.store.is_some() {
            self.revoked.extend(news);
        }
    }

    /// The mesh has a new secret, which [`keep_pass`](Durable::keep_pass) keeps too.
    pub(super) fn take_secret(&mut self, record: Zeroizing<Vec<u8>>) {
        self.secret = Some(record);
    }

    /// Makes a new pass, new revocations and a new secret durable.
    pub(super) fn keep_pass(&mut self) -> Result<(), StoreError> {
        if let Some(store) = &self.store
            && !self.revoked.is_empty()
        {
            OwnRevocations(store).keep(&std::mem::take(&mut self.revoked))?;
        }
        if let Some(store) = &self.store
            && !self.signed.is_empty()
        {
            SignedPasses(store).keep(&std::mem::take(&mut self.signed))?;
        }
        if let (Some(store), Some(record)) = (&self.store, self.secret.take()) {
            OwnSecret(store).keep(&record)?;
        }
        match (&self.store, self.pass.take()) {
            (Some(store), Some(pass)) => OwnPass(store).keep(&pass),
            _ => Ok(()),
        }
    }

    /// Gives the stored records back to the replicator.
    pub(super) fn restore(&self, replicator: &mut Replicator, now: Instant) -> Result<(), Error> {
        let Some(store) = &self.store else { return Ok(()) };
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

    /// Refills the reserve of durable epoch counters.
    pub(super) fn reserve_epochs(&self, jobs: &mut Jobs) -> Result<(), Error> {
        while let Some(counter) = jobs.poll_persist() {
            if let Some(store) = &self.store {
                JobRecords(store).set_epoch_counter(counter)?;
                if buggify(Point::EpochsTwice) {
                    JobRecords(store).set_epoch_counter(counter)?;
                }
            }
            jobs.on_persisted(counter);
        }
        Ok(())
    }

    /// The highest epoch counter taken, if membership doesn't know it yet.
    pub(super) fn epoch_to_tell(&mut self, highest: u64) -> Option<u64> {
        let news = highest > self.epoch_told;
        self.epoch_told = self.epoch_told.max(highest);
        news.then_some(highest)
    }

    /// Stores the replicator's changes. Until this returns, none of its answers and messages may leave.
    pub(super) fn store_changes(&self, replicator: &mut Replicator) -> Result<(), Error> {
        while let Some(changed) = replicator.poll_changed() {
            let Some(store) = &self.store else { continue };
            let records = changed.into_iter().map(|key| {
                let record = replicator.record(&key);
                (key, record)
            });
            let records: Vec<_> = records.collect();
            let most = if buggify(Point::StoreByOne) { 1 } else { records.len().max(1) };
            let empty = records.is_empty().then_some(&[][..]);
            for records in records.chunks(most).chain(empty) {
                let (clock, replica) = (replicator.clock_high_water(), replicator.local());
                let heads = Heads { clock, replica, presence: replicator.presence() };
                StateRecords(store).put_state(heads, records)?;
            }
        }
        Ok(())
    }

    /// What becomes of the `keys` whose newest writes no other node has.
    pub(super) fn departure(&self, keys: usize) -> Departure {
        match self.store {
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
    use rand_core::SeedableRng as _;

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

    #[test]
    fn a_write_that_no_other_node_has_is_stored_or_lost() {
        let store = Store::in_memory(&mut crate::rt::Rng::from_seed([1; 32])).unwrap();
        assert_eq!(Durable::new(Some(store)).departure(2), Departure { lost: 0, stored: 2 });
        assert_eq!(Durable::new(None).departure(2), Departure { lost: 2, stored: 0 });
    }
}
