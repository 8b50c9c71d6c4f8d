//! The mesh's secret in this node's store: the record `secret`. The store's folder is the node's own, as its key's is.

use crate::authority::UnixSeconds;
use crate::authority::keyring::Keyring;
use crate::store::{Store, StoreError};

const SECRET: &str = "secret";

/// The record of the mesh's secret.
pub(super) struct OwnSecret<'a>(pub(super) &'a Store);

impl OwnSecret<'_> {
    /// Adds what an earlier process kept to what the ticket has.
    pub(super) fn restore(&self, keyring: &mut Keyring, time: UnixSeconds) -> Result<(), StoreError> {
        if let Some(record) = self.0.meta(SECRET)? {
            keyring.restore(&record, time);
        }
        Ok(())
    }

    /// Keeps a secret in place of the one before.
    pub(super) fn keep(&self, record: &[u8]) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        write.set_meta(SECRET, record)?;
        write.commit()
    }
}
