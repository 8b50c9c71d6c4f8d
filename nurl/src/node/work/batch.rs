//! What one turn of the committer makes durable.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::authority::pass::Pass;
use crate::authority::revocation::{Revocation, Subject};
use crate::compute::job::TaskId;
use crate::compute::job::custody::{Custody, Stored};
use crate::compute::job::store::JobRecords;
use crate::key::PublicKey;
use crate::node::own_pass::OwnPass;
use crate::node::own_revocations::OwnRevocations;
use crate::node::own_secret::OwnSecret;
use crate::node::signed_passes::SignedPasses;
use crate::replication::replicator::Replicator;
use crate::replication::store::{Heads, StateRecords};
use crate::rt::{Point, buggify};
use crate::store::{Store, StoreError};

/// Records of the replicator with their keys; none deletes a key's record.
type Records = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Detached tasks in one commit: each may have 16 MiB.
const TASKS_AT_ONCE: usize = 64;

/// See the module.
#[derive(Default)]
pub(super) struct Batch {
    /// The highest epoch counter that may be used.
    pub(super) epoch: Option<u64>,
    /// News of the authority's revocations.
    revoked: BTreeMap<Subject, Revocation>,
    /// Passes of others that this node, an issuer, signed.
    signed: BTreeMap<PublicKey, Pass>,
    /// The record of the mesh's new secret.
    pub(super) secret: Option<Zeroizing<Vec<u8>>>,
    /// This node's new pass.
    pub(super) pass: Option<Pass>,
    /// What changed of detached tasks.
    pub(super) detached: Vec<(TaskId, Option<Stored>)>,
    /// The replicator's records, a commit each, and what goes with it.
    records: Vec<(Heads, Records)>,
}

impl Batch {
    /// Takes the records that changed.
    pub(super) fn take_records(&mut self, replicator: &mut Replicator) {
        while let Some(changed) = replicator.poll_changed() {
            let records = changed.into_iter().map(|key| {
                let record = replicator.record(&key);
                (key, record)
            });
            let records = records.collect();
            let (clock, replica) = (replicator.clock_high_water(), replicator.local());
            self.records.push((Heads { clock, replica, presence: replicator.presence() }, records));
        }
    }

    /// Takes what changed of detached tasks.
    pub(super) fn take_detached(&mut self, custody: &mut Custody) {
        loop {
            let changed = custody.poll_changed(TASKS_AT_ONCE);
            if changed.is_empty() {
                return;
            }
            self.detached.extend(changed);
        }
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        let Batch { epoch, revoked, signed, secret, pass, detached, records } = self;
        let none = epoch.is_none() && secret.is_none() && pass.is_none();
        none && revoked.is_empty() && signed.is_empty() && detached.is_empty() && records.is_empty()
    }

    /// Forgets the records of the replicator, and of detached tasks.
    pub(super) fn forget_records(&mut self) {
        self.records = Vec::new();
        self.detached = Vec::new();
    }

    /// Puts what an earlier batch had before what this one has. Neither has records.
    pub(super) fn follow(&mut self, mut earlier: Batch) {
        let Batch { epoch, revoked, signed, secret, pass, .. } = std::mem::take(self);
        earlier.epoch = epoch.max(earlier.epoch);
        earlier.secret = secret.or(earlier.secret);
        earlier.pass = pass.or(earlier.pass);
        *self = earlier;
        self.revoked.extend(revoked);
        self.signed.extend(signed);
    }

    /// Adds news of revocations; the later entry of a subject counts. There is at most one for each, however long the disk
    /// takes nothing.
    pub(super) fn revoke(&mut self, news: Vec<Revocation>) {
        self.revoked.extend(news.into_iter().map(|entry| (entry.subject, entry)));
    }

    /// Adds a signed pass, in place of an earlier one of its key.
    pub(super) fn sign(&mut self, pass: Pass) {
        self.signed.insert(pass.grant().key, pass);
    }

    /// Makes all of it durable. This blocks on the disk.
    ///
    /// # Errors
    /// Those of the store. A part of the batch may be durable then.
    pub(super) fn commit(&self, store: &Store) -> Result<(), StoreError> {
        if let Some(counter) = self.epoch {
            let times = if buggify(Point::EpochsTwice) { 2 } else { 1 };
            (0..times).try_for_each(|_| JobRecords(store).set_epoch_counter(counter))?;
        }
        if !self.revoked.is_empty() {
            OwnRevocations(store).keep(self.revoked.values())?;
        }
        if !self.signed.is_empty() {
            SignedPasses(store).keep(self.signed.values())?;
        }
        if let Some(record) = &self.secret {
            OwnSecret(store).keep(record)?;
        }
        if let Some(pass) = &self.pass {
            OwnPass(store).keep(pass)?;
        }
        self.detached.chunks(TASKS_AT_ONCE).try_for_each(|some| JobRecords(store).put_tasks(some))?;
        for (heads, records) in &self.records {
            let most = if buggify(Point::StoreByOne) { 1 } else { records.len().max(1) };
            let empty = records.is_empty().then_some(&[][..]);
            let mut chunks = records.chunks(most).chain(empty);
            chunks.try_for_each(|records| StateRecords(store).put_state(*heads, records))?;
        }
        Ok(())
    }
}
