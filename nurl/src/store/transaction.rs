//! Transactions: all of one becomes durable together, or none of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::ReadableTable;

use super::COMMITS;
use super::error::{StoreError, check, guarded};
use super::table::{META, Table};
use crate::rt::{self, Cost};

/// A transaction; dropped without a commit, it changes nothing.
pub(crate) struct Transaction {
    // Taken out at its end.
    write: Option<redb::WriteTransaction>,
    /// The store's.
    commits: Arc<AtomicU64>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let write = self.write.take();
        // One that failed may panic again when it is dropped. Drop has no way to report it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(write)));
    }
}

impl Transaction {
    pub(super) fn new(write: redb::WriteTransaction, commits: Arc<AtomicU64>) -> Transaction {
        Transaction { write: Some(write), commits }
    }

    fn write(&self) -> &redb::WriteTransaction {
        self.write.as_ref().expect("present until the commit")
    }

    /// The bytes under `name`, including this transaction's own writes.
    pub(crate) fn get(&self, table: Table, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let table = self.write().open_table(table.definition())?;
            Ok(table.get(name)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Stores `bytes` under `name`.
    pub(crate) fn put(&self, table: Table, name: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        check(name, bytes)?;
        guarded(|| {
            self.write().open_table(table.definition())?.insert(name, bytes)?;
            Ok(())
        })
    }

    /// Deletes the bytes under `name`.
    pub(crate) fn remove(&self, table: Table, name: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            self.write().open_table(table.definition())?.remove(name)?;
            Ok(())
        })
    }

    /// Stores many records, and deletes those without bytes. The caller has checked their sizes.
    pub(crate) fn put_all(
        &self,
        table: Table,
        records: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<(), StoreError> {
        guarded(|| {
            let mut table = self.write().open_table(table.definition())?;
            for (name, bytes) in records {
                match bytes {
                    Some(bytes) => table.insert(name.as_slice(), bytes.as_slice())?,
                    None => table.remove(name.as_slice())?,
                };
            }
            Ok(())
        })
    }

    /// Stores a single record beside the tables.
    pub(crate) fn set_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            self.write().open_table(META)?.insert(name, bytes)?;
            Ok(())
        })
    }

    /// Makes the transaction durable.
    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        rt::cost(Cost::Commit, 1);
        // Nobody else writes meanwhile. A commit that failed may be in the file all the same: its number tells.
        let number = self.commits.load(Ordering::Relaxed) + 1;
        self.set_meta(COMMITS, &number.to_le_bytes())?;
        guarded(|| {
            self.write.take().expect("present until the commit").commit()?;
            Ok(())
        })?;
        self.commits.store(number, Ordering::Relaxed);
        Ok(())
    }
}
