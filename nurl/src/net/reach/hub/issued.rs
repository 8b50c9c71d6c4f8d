//! The passes that a hub issued, on its disk: table `passes`, a key and its latest pass.

use std::path::Path;

use super::core::Hub;
use crate::authority::pass::Pass;
use crate::rt::Rng;
use crate::store::{Store, StoreError, Table};

/// The file of issued passes.
pub(super) struct IssuedPasses(Store);

impl IssuedPasses {
    /// Opens the file, and lets the hub remember what is in it.
    pub(super) fn open(path: &Path, hub: &mut Hub, rng: &mut Rng) -> Result<IssuedPasses, StoreError> {
        let store = Store::open(path, rng)?;
        store.each(Table::PASSES, |_, pass| {
            // A pass of a mesh that this hub no longer issues for is no harm.
            let _ = hub.restore(pass);
        })?;
        Ok(IssuedPasses(store))
    }

    /// Makes a pass durable.
    pub(super) fn keep(&self, pass: &Pass) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        write.put(Table::PASSES, pass.grant().key.as_bytes(), pass.as_bytes())?;
        write.commit()
    }
}
