//! What a hub keeps on its disk: the passes that it issued (table `passes`, a key and its latest pass), and what the
//! authorities of its meshes have revoked (table `revocations`, a mesh's id with a subject, and the latest entry).

use std::path::Path;

use super::core::Hub;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::mesh::MeshId;
use crate::rt::{self, Rng, disk};
use crate::store::{Store, StoreError, Table};

/// The passes of a mesh that are kept in a hub's file, which may be running; none without a file.
///
/// # Errors
/// [`StoreError`].
pub fn issued_passes(path: &Path, mesh: &MeshId) -> Result<Vec<Pass>, StoreError> {
    let mut passes = Vec::new();
    if disk::exists(path) {
        let store = Store::copy_of(path, &mut rt::rng("issued"))?;
        store.each(Table::PASSES, |_, pass| passes.extend(Pass::decode(mesh, pass)))?;
    }
    Ok(passes)
}

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
        store.each(Table::REVOCATIONS, |_, entry| hub.restore_revocation(entry))?;
        Ok(IssuedPasses(store))
    }

    /// Makes an entry of a mesh durable.
    pub(super) fn keep_revocation(&self, mesh: &MeshId, entry: &Revocation) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        let name = [&mesh.as_bytes()[..], &entry.subject.encode()].concat();
        write.put(Table::REVOCATIONS, &name, &entry.encode())?;
        write.commit()
    }

    /// Makes a pass durable.
    pub(super) fn keep(&self, pass: &Pass) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        write.put(Table::PASSES, pass.grant().key.as_bytes(), pass.as_bytes())?;
        write.commit()
    }
}
