//! What the plane keeps in its store, if it has one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::batch::Batch;
use super::committer::{Committer, Done};
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::compute::job::Jobs;
use crate::compute::job::custody::Custody;
use crate::compute::job::store::JobRecords;
use crate::error::Error;
use crate::kit::backoff::window;
use crate::membership::limit::told_limit;
use crate::node::command::{Departure, DiskStats};
use crate::replication::replicator::Replicator;
use crate::rt::time;
use crate::store::{Store, StoreError};

/// The epoch counter that an earlier process left.
pub(super) fn epoch(store: Option<&Store>) -> Result<u64, Error> {
    let stored = store.map_or(Ok(0), |store| JobRecords(store).epoch_counter())?;
    Ok(believable(stored, time::unix_now()))
}

/// Gives the stored tasks back to the log.
pub(super) fn restore_detached(store: &Store, custody: &mut Custody, now: Instant) -> Result<(), Error> {
    for (task, stored) in JobRecords(store).tasks()? {
        custody.restore(now, task, stored).map_err(|error| StoreError::Value(error.to_string()))?;
    }
    Ok(())
}

/// Makes the first epoch counters durable, so that tasks can be submitted from the beginning.
pub(super) fn reserve_epochs(store: &Store, jobs: &mut Jobs) -> Result<(), Error> {
    while let Some(counter) = jobs.poll_persist() {
        JobRecords(store).set_epoch_counter(counter)?;
        jobs.on_persisted(counter);
    }
    Ok(())
}

/// The first pause before a store that has failed is opened again. It doubles up to [`REOPEN_MAX`], so that a disk that
/// stays full isn't read and filled all the time.
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// The longest pause: a minute after there is room again, the node takes writes.
const REOPEN_MAX: Duration = Duration::from_secs(60);
/// A store that has worked for so long since begins with the first pause again.
const WORKS_AGAIN: Duration = Duration::from_secs(600);

/// Whether the store works.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    /// It does, since then if it has failed before.
    Works(Option<Instant>),
    /// It has failed, and is opened again at this time.
    Fails { why: Arc<str>, next: Instant },
}

/// The committer, if there is a store, and what it has to make durable.
pub(super) struct Durable {
    committer: Option<Committer>,
    /// What is new since the last batch, beside the replicator's records.
    next: Batch,
    /// The epoch counter in the batch under way.
    reserving: Option<u64>,
    epoch_told: u64,
    health: Health,
    /// Whether the network plane hasn't been told of the present health.
    health_is_news: bool,
    /// The pauses since the store has worked for long.
    pauses: u32,
    stats: DiskStats,
}

impl Durable {
    pub(super) fn new(committer: Option<Committer>) -> Durable {
        Durable {
            committer,
            next: Batch::default(),
            reserving: None,
            epoch_told: 0,
            health: Health::Works(None),
            health_is_news: false,
            pauses: 0,
            stats: DiskStats::default(),
        }
    }

    /// Whether a batch is under way. While the store fails, none is.
    pub(super) fn is_busy(&self) -> bool {
        !self.fails() && self.committer.as_ref().is_some_and(Committer::is_busy)
    }

    /// Whether the store has failed, and isn't open again.
    fn fails(&self) -> bool {
        matches!(self.health, Health::Fails { .. })
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
            self.next.sign(pass);
        }
    }

    /// The authority revoked something.
    pub(super) fn take_revocations(&mut self, news: Vec<Revocation>) {
        if self.committer.is_some() {
            self.next.revoke(news);
        }
    }

    /// The mesh has a new secret.
    pub(super) fn take_secret(&mut self, record: Zeroizing<Vec<u8>>) {
        if self.committer.is_some() {
            self.next.secret = Some(record);
        }
    }

    // ---- A store that fails.

    /// A commit failed. Nothing of the batch counts as durable; what it had beside records is tried again with the next one.
    pub(super) fn on_failed(&mut self, now: Instant, why: Arc<str>, left: Batch) {
        if matches!(self.health, Health::Works(Some(since)) if now >= since + WORKS_AGAIN) {
            self.pauses = 0;
        }
        self.reserving = None;
        self.next.follow(left);
        self.stats.failures += 1;
        self.stats.failing = 1;
        self.fail_until(now, why);
        self.health_is_news = true;
    }

    /// The store couldn't be opened again.
    pub(super) fn on_still_fails(&mut self, now: Instant) {
        if let Health::Fails { why, .. } = &self.health {
            self.fail_until(now, why.clone());
        }
    }

    fn fail_until(&mut self, now: Instant, why: Arc<str>) {
        let next = now + window(REOPEN_MIN, REOPEN_MAX, self.pauses);
        self.pauses = self.pauses.saturating_add(1);
        self.health = Health::Fails { why, next };
    }

    /// The store is open again.
    pub(super) fn on_reopened(&mut self, now: Instant) {
        (self.health, self.health_is_news) = (Health::Works(Some(now)), true);
        self.stats.failing = 0;
    }

    /// The time at which the store is to be opened again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.committer.as_ref().is_some_and(Committer::is_busy);
        match self.health {
            Health::Fails { next, .. } if !busy => Some(next),
            _ => None,
        }
    }

    /// Begins to open the store again if it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|next| next <= now)
            && let Some(committer) = &mut self.committer
        {
            committer.reopen();
        }
    }

    /// Why the store fails, or none if it works, if the network plane hasn't been told yet.
    pub(super) fn health_to_tell(&mut self) -> Option<Option<Arc<str>>> {
        let why = match &self.health {
            Health::Fails { why, .. } => Some(why.clone()),
            Health::Works(_) => None,
        };
        std::mem::take(&mut self.health_is_news).then_some(why)
    }

    /// Counters of the store's failures.
    pub(super) fn stats(&self) -> DiskStats {
        self.stats
    }

    // ---- Batches.

    /// The highest epoch counter taken, if membership doesn't know it yet.
    pub(super) fn epoch_to_tell(&mut self, highest: u64) -> Option<u64> {
        let news = highest > self.epoch_told;
        self.epoch_told = self.epoch_told.max(highest);
        news.then_some(highest)
    }

    /// Begins to make durable what is new. None may be under way. False if there is nothing to wait for.
    pub(super) fn begin(
        &mut self,
        jobs: &mut Jobs,
        custody: &mut Custody,
        replicator: &mut Replicator,
    ) -> bool {
        if self.fails() {
            // What changes in a replicator that takes no writes follows from what is on the disk; and the log of detached
            // tasks is stored whole when the disk works again.
            while replicator.poll_changed().is_some() {}
            custody.forget_changed();
            return false;
        }
        let mut batch = std::mem::take(&mut self.next);
        batch.take_records(replicator);
        batch.take_detached(custody);
        batch.epoch = jobs.poll_persist().max(batch.epoch);
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

    /// Waits for the end of the batch under way, or of an attempt to open the store; forever if there is none. Cancel safe.
    ///
    /// # Errors
    /// The committer has panicked.
    pub(super) async fn outcome(&mut self) -> Result<Done, StoreError> {
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
