//! The jobs' part of the store.
//!
//! The record `highest epoch counter` is a little-endian number of 8 bytes. Table `results` has outcomes: the name is
//! the task's id, the bytes are `expires_ms:8 (little-endian, since 1970) ‖ outcome`.

use std::time::Duration;

use crate::store::{Store, StoreError, Table, check, number};

/// The name of the epoch counter's record.
const EPOCH: &str = "highest epoch counter";

/// What the jobs keep in a store.
#[derive(Debug, Clone, Copy)]
pub struct JobRecords<'a>(pub &'a Store);

impl JobRecords<'_> {
    /// The stored epoch counter, from which a node continues; 0 at first.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn epoch_counter(&self) -> Result<u64, StoreError> {
        self.0.meta(EPOCH)?.map_or(Ok(0), |bytes| number(&bytes, EPOCH))
    }

    /// Stores the epoch counter.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_epoch_counter(&self, counter: u64) -> Result<(), StoreError> {
        self.0.write(|write| write.set_meta(EPOCH, &counter.to_le_bytes()))
    }

    /// Stores the outcome of a task, to be kept until `expires` (since 1970).
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Database`].
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: durable results"))]
    pub fn put_result(&self, task: &[u8; 16], expires: Duration, record: &[u8]) -> Result<(), StoreError> {
        check(task, record)?;
        let mut bytes = millis(expires).to_le_bytes().to_vec();
        bytes.extend_from_slice(record);
        self.0.write(|write| write.put_all(Table::RESULTS, &[(task.to_vec(), Some(bytes))]))
    }

    /// The outcome of a task.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: durable results"))]
    pub fn result(&self, task: &[u8; 16]) -> Result<Option<Vec<u8>>, StoreError> {
        let record = self.0.get(Table::RESULTS, task)?;
        Ok(record.map(|bytes| bytes.get(8..).unwrap_or_default().to_vec()))
    }

    /// Deletes the results that have expired at `wall`, and returns their number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: durable results"))]
    pub fn expire_results(&self, wall: Duration) -> Result<usize, StoreError> {
        let now = millis(wall);
        let mut expired = 0;
        let keep = |bytes: &[u8]| {
            let keep = bytes.get(..8).is_some_and(|expires| number(expires, "").is_ok_and(|at| at > now));
            expired += usize::from(!keep);
            keep
        };
        self.0.write(|write| write.retain(Table::RESULTS, keep))?;
        Ok(expired)
    }
}

fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::rt::Rng;

    #[test]
    fn the_epoch_counter_comes_back_and_results_expire() {
        let store = Store::in_memory(&mut Rng::from_seed([1; 32])).unwrap();
        assert_eq!(JobRecords(&store).epoch_counter().unwrap(), 0);
        JobRecords(&store).set_epoch_counter(42).unwrap();
        assert_eq!(JobRecords(&store).epoch_counter().unwrap(), 42);
        JobRecords(&store).put_result(&[1; 16], Duration::from_secs(100), b"early").unwrap();
        JobRecords(&store).put_result(&[2; 16], Duration::from_secs(200), b"late").unwrap();
        assert_eq!(JobRecords(&store).expire_results(Duration::from_secs(100)).unwrap(), 1);
        assert_eq!(JobRecords(&store).result(&[1; 16]).unwrap(), None);
        assert_eq!(JobRecords(&store).result(&[2; 16]).unwrap(), Some(b"late".to_vec()));
    }
}
