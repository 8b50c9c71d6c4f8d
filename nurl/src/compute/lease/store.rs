//! The lease table and the effects in the store.
//!
//! Table `lease tokens`: the name is the key, the bytes are its token. Table `lease tasks`: see `record`. The record
//! `lease floor` is a token, the record `lease clock` a time: see `clock`. Table `effects` has what the application keeps there, under its own names.

use crate::store::{Store, StoreError, Table, Transaction};

/// The name of the floor's record.
const FLOOR: &str = "lease floor";

/// The name of the clock's record.
const CLOCK: &str = "lease clock";

/// What a resource keeps in a store.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseRecords<'a>(pub(super) &'a Store);

impl LeaseRecords<'_> {
    /// The lease table's floor, tokens and tasks, as the bytes that it stored.
    pub(crate) fn lease(
        &self,
        token: impl FnMut(&[u8], &[u8]),
        task: impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.each(Table::LEASE_TOKENS, token)?;
        self.0.each(Table::LEASE_TASKS, task)?;
        self.0.meta(FLOOR)
    }

    /// The clock's record.
    pub(crate) fn clock(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.meta(CLOCK)
    }

    /// The stored bytes of one task.
    pub(crate) fn lease_task(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(Table::LEASE_TASKS, name)
    }

    /// Begins a transaction over the lease table and the effects.
    pub(crate) fn begin_lease(&self) -> Result<LeaseWrite, StoreError> {
        Ok(LeaseWrite(self.0.begin()?))
    }
}

impl Store {
    /// The bytes that [`Effects::put`] stored.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn effect(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Table::EFFECTS, name)
    }
}

/// A transaction of the lease: all of it becomes durable together, or none of it.
pub(crate) struct LeaseWrite(Transaction);

impl LeaseWrite {
    pub(super) fn set_floor(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.set_meta(FLOOR, bytes)
    }

    pub(super) fn set_clock(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.set_meta(CLOCK, bytes)
    }

    pub(super) fn put_token(&self, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        self.0.put(Table::LEASE_TOKENS, key, bytes)
    }

    pub(super) fn remove_token(&self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(Table::LEASE_TOKENS, key)
    }

    pub(super) fn put_task(&self, name: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        self.0.put(Table::LEASE_TASKS, name, bytes)
    }

    pub(super) fn remove_task(&self, name: &[u8]) -> Result<(), StoreError> {
        self.0.remove(Table::LEASE_TASKS, name)
    }

    pub(super) fn effects(&self) -> Effects<'_> {
        Effects { write: &self.0 }
    }

    pub(super) fn commit(self) -> Result<(), StoreError> {
        self.0.commit()
    }
}

/// Effects that become durable in one transaction with the outcome of their task.
pub struct Effects<'a> {
    write: &'a Transaction,
}

impl Effects<'_> {
    /// The bytes stored under `name`, including this transaction's own writes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.write.get(Table::EFFECTS, name)
    }

    /// Stores `bytes` under `name`.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Database`].
    pub fn put(&mut self, name: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        self.write.put(Table::EFFECTS, name, bytes)
    }

    /// Deletes the bytes stored under `name`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove(&mut self, name: &[u8]) -> Result<(), StoreError> {
        self.write.remove(Table::EFFECTS, name)
    }
}
