//! Making a replicator with what a store remembers: at the start, and when the disk has failed or works again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;
use crate::replication::replicator::{Config, Replicator};
use crate::replication::store::StateRecords;
use crate::rt::{self, time};
use crate::store::{Store, StoreError};

/// What a process's replicators have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub(super) key: PublicKey,
    pub(super) boot: u64,
    pub(super) observer: bool,
}

impl Recipe {
    /// A replicator with what the store remembers. Without a store all writes of this process are lost at its end, so the
    /// replica id is the process's.
    ///
    /// # Errors
    /// Those of the store; a value that can't be taken back.
    pub(super) fn replicator(
        &self,
        store: Option<&Store>,
        read_only: Option<Arc<str>>,
    ) -> Result<Replicator, StoreError> {
        let Some(store) = store else { return Ok(self.begin(self.config(read_only), self.boot)) };
        let records = StateRecords(store);
        let config = Config {
            clock: records.clock()?,
            presence: records.presence()?,
            durable: true,
            ..self.config(read_only)
        };
        let mut replicator = self.begin(config, records.replica_id(self.key)?.incarnation);
        restore(store, &mut replicator, time::now(), time::unix_now())?;
        Ok(replicator)
    }

    /// A replicator that knows nothing and writes nothing, while the last commit may be on the disk.
    pub(super) fn empty(&self, read_only: Arc<str>) -> Replicator {
        self.begin(Config { in_doubt: true, ..self.config(Some(read_only)) }, self.boot)
    }

    fn config(&self, read_only: Option<Arc<str>>) -> Config {
        Config { observer: self.observer, boot: self.boot, read_only, ..Config::default() }
    }

    fn begin(&self, config: Config, incarnation: u64) -> Replicator {
        let local = ReplicaId { key: self.key, incarnation };
        Replicator::new(config, local, time::now(), rt::rng("replicator"))
    }
}

/// Gives the stored records back to the replicator.
fn restore(
    store: &Store,
    replicator: &mut Replicator,
    now: Instant,
    wall: Duration,
) -> Result<(), StoreError> {
    let mut refused = None;
    StateRecords(store).each_state(|key, record| {
        if let Err(error) = replicator.restore(now, wall, key, record) {
            refused = Some(error);
        }
    })?;
    refused.map_or(Ok(()), |error| Err(StoreError::Value(error.to_string())))
}
