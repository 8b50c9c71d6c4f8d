//! Replicated state in the store.
//!
//! Table `state` has the replicator's records: the name is the key, the bytes are the replicator's
//! ([`Replicator::record`](crate::replication::replicator::Replicator::record)). The record `state layout` is a byte, which
//! tells how these are to be read. The record `clock high water` is `wall_ms:8 ‖ logical:4`, both little-endian. The record
//! `replica incarnation` is the node's as an actor, little-endian, if it isn't the store's any more. The record `presence` is
//! `since:8 ‖ seen:8`, in milliseconds since 1970, little-endian.

use std::time::Duration;

use crate::key::PublicKey;
use crate::replication::crdt::Stamp;
use crate::replication::identity::ReplicaId;
use crate::replication::replicator::Presence;
use crate::store::{Store, StoreError, Table, check, number, within};

/// The most records of the replicator in one commit: bounds how long callers wait for it.
pub const MAX_BATCH: usize = 4096;

/// The name of the clock's record.
const CLOCK: &str = "clock high water";

/// The name of the record of the actor's incarnation.
const INCARNATION: &str = "replica incarnation";

/// The name of the record of when this node was among others.
const PRESENCE: &str = "presence";

/// The name of the layout's record.
const LAYOUT: &str = "state layout";

/// The layout that is written and read. Stores without the record have layout 1, whose keys don't begin with their kind.
const LAYOUT_NOW: [u8; 1] = [2];

/// What is stored with the records of each commit.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// The high-water mark of the hybrid clock.
    pub clock: Stamp,
    /// The id under which the node writes.
    pub replica: ReplicaId,
    /// When it was among others.
    pub presence: Presence,
}

/// What the replicator keeps in a store.
#[derive(Debug, Clone, Copy)]
pub struct StateRecords<'a>(pub &'a Store);

impl StateRecords<'_> {
    /// The id under which a node with this store writes.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn replica_id(&self, key: PublicKey) -> Result<ReplicaId, StoreError> {
        let incarnation = match self.0.meta(INCARNATION)? {
            Some(bytes) => number(&bytes, INCARNATION)?,
            None => self.0.incarnation(),
        };
        Ok(ReplicaId { key, incarnation })
    }

    /// The stored high-water mark of the hybrid clock.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn clock(&self) -> Result<Stamp, StoreError> {
        let Some(bytes) = self.0.meta(CLOCK)? else { return Ok(Stamp::default()) };
        let (wall, logical) = bytes.split_at_checked(8).ok_or(StoreError::Damaged(CLOCK))?;
        let logical = logical.try_into().map_err(|_| StoreError::Damaged(CLOCK))?;
        Ok(Stamp { wall_ms: number(wall, CLOCK)?, logical: u32::from_le_bytes(logical) })
    }

    /// When the node was among others.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn presence(&self) -> Result<Presence, StoreError> {
        let Some(bytes) = self.0.meta(PRESENCE)? else { return Ok(Presence::default()) };
        let (since, seen) = bytes.split_at_checked(8).ok_or(StoreError::Damaged(PRESENCE))?;
        let time = |bytes| number(bytes, PRESENCE).map(|ms| Some(Duration::from_millis(ms)));
        Ok(Presence { since: time(since)?, seen: time(seen)? })
    }

    /// Stores the high-water mark, the replica id and the presence together with the replicator's records: `None` deletes a record.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] (nothing is written then) or [`StoreError::Database`].
    pub fn put_state(
        &self,
        Heads { clock, replica, presence }: Heads,
        records: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<(), StoreError> {
        within("a batch", records.len(), MAX_BATCH)?;
        for (key, record) in records {
            check(key, record.as_deref().unwrap_or_default())?;
        }
        let mut stamp = clock.wall_ms.to_le_bytes().to_vec();
        stamp.extend_from_slice(&clock.logical.to_le_bytes());
        self.0.write(|write| {
            write.put_all(Table::STATE, records)?;
            write.set_meta(LAYOUT, &LAYOUT_NOW)?;
            if replica.incarnation != self.0.incarnation() {
                write.set_meta(INCARNATION, &replica.incarnation.to_le_bytes())?;
            }
            if let Presence { since: Some(since), seen: Some(seen) } = presence {
                let bytes = [since, seen].map(|time| (time.as_millis() as u64).to_le_bytes()).concat();
                write.set_meta(PRESENCE, &bytes)?;
            }
            write.set_meta(CLOCK, &stamp)
        })
    }

    /// Gives every record of the replicator, by key.
    ///
    /// # Errors
    /// [`StoreError::OtherLayout`] (no record is given then) or [`StoreError::Database`].
    pub fn each_state(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let readable = self.0.meta(LAYOUT)?.is_some_and(|layout| layout == LAYOUT_NOW);
        let mut unread = false;
        self.0.each(Table::STATE, |key, record| {
            if readable {
                each(key, record);
            } else {
                unread = true;
            }
        })?;
        if unread { Err(StoreError::OtherLayout("replicated state")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::rt::Rng;
    use crate::store::{MAX_NAME_BYTES, MAX_RECORD_BYTES};

    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

    fn heads(clock: Stamp, replica: ReplicaId) -> Heads {
        Heads { clock, replica, presence: Presence::default() }
    }

    fn rng(seed: u8) -> Rng {
        Rng::from_seed([seed; 32])
    }

    #[test]
    fn the_clock_and_the_records_come_back() {
        let store = Store::in_memory(&mut rng(1)).unwrap();
        assert_eq!(StateRecords(&store).clock().unwrap(), Stamp::default());
        let stamp = Stamp { wall_ms: 7, logical: 3 };
        let record = |n: u8| (vec![n], Some(vec![n; 100]));
        let id = StateRecords(&store).replica_id(KEY).unwrap();
        assert_eq!(id, ReplicaId { key: KEY, incarnation: store.incarnation() });
        StateRecords(&store).put_state(heads(stamp, id), &[record(1), record(2), record(3)]).unwrap();
        assert_eq!(StateRecords(&store).replica_id(KEY).unwrap(), id);
        let id = ReplicaId { incarnation: 9, ..id };
        assert_eq!(StateRecords(&store).presence().unwrap(), Presence::default());
        let time = |s| Some(Duration::from_secs(s));
        let presence = Presence { since: time(3), seen: time(9) };
        let heads = Heads { presence, ..heads(stamp, id) };
        StateRecords(&store).put_state(heads, &[(vec![2], None)]).unwrap();
        assert_eq!(StateRecords(&store).presence().unwrap(), presence);
        assert_eq!(StateRecords(&store).replica_id(KEY).unwrap(), id);
        assert_eq!(StateRecords(&store).clock().unwrap(), stamp);
        let mut keys = Vec::new();
        StateRecords(&store).each_state(|key, record| keys.push((key.to_vec(), record.len()))).unwrap();
        assert_eq!(keys, [(vec![1], 100), (vec![3], 100)]);
    }

    #[test]
    fn records_of_another_layout_are_not_read_and_a_store_without_records_has_none() {
        for (layout, records, read) in
            [(None, 1, false), (None, 0, true), (Some([3]), 1, false), (Some([2]), 1, true)]
        {
            let store = Store::in_memory(&mut rng(1)).unwrap();
            let records: Vec<_> = (0..records).map(|n| (vec![n], Some(vec![n]))).collect();
            store
                .write(|write| {
                    write.put_all(Table::STATE, &records)?;
                    layout.map_or(Ok(()), |layout| write.set_meta(LAYOUT, &layout))
                })
                .unwrap();
            let mut given = 0;
            let outcome = StateRecords(&store).each_state(|_, _| given += 1);
            if read {
                assert!(outcome.is_ok() && given == records.len());
            } else {
                assert!(matches!(outcome, Err(StoreError::OtherLayout(_))) && given == 0);
            }
        }
    }

    #[test]
    fn what_is_over_a_bound_is_refused_whole() {
        let store = Store::in_memory(&mut rng(1)).unwrap();
        let put = |records: &[(Vec<u8>, Option<Vec<u8>>)]| {
            let id = ReplicaId { key: KEY, incarnation: store.incarnation() };
            StateRecords(&store).put_state(heads(Stamp::default(), id), records)
        };
        let large = vec![0; MAX_RECORD_BYTES + 1];
        let records = [(vec![1], Some(vec![1])), (vec![2], Some(large))];
        assert!(matches!(put(&records), Err(StoreError::TooLarge { limit: MAX_RECORD_BYTES, .. })));
        let name = vec![0; MAX_NAME_BYTES + 1];
        assert!(put(&[(name, None)]).is_err());
        let many: Vec<_> = (0..=MAX_BATCH as u32).map(|n| (n.to_le_bytes().to_vec(), None)).collect();
        assert!(put(&many).is_err());
        let mut count = 0;
        StateRecords(&store).each_state(|_, _| count += 1).unwrap();
        assert_eq!(count, 0);
    }
}
