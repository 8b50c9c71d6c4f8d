//! What a hub keeps on its disk: the passes that it issued (table `passes`, a mesh's id with a key, and the key's latest
//! pass), and what the authorities of its meshes have revoked (table `revocations`, a mesh's id with a subject, and the
//! latest entry).

use std::collections::BTreeMap;
use std::path::Path;

use super::core::Hub;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::key::PublicKey;
use crate::mesh::MeshId;
use crate::rt::{self, Rng, disk};
use crate::store::{Store, StoreError, Table};

/// The passes of a mesh that are kept in a hub's file, which may be running; none without a file.
///
/// # Errors
/// [`StoreError`].
pub fn issued_passes(path: &Path, mesh: &MeshId) -> Result<Vec<Pass>, StoreError> {
    if !disk::exists(path) {
        return Ok(Vec::new());
    }
    latest_passes(&Store::copy_of(path, &mut rt::rng("issued"))?, mesh)
}

/// The latest pass of each key of a mesh. A file that an earlier program began may have two of a key.
fn latest_passes(store: &Store, mesh: &MeshId) -> Result<Vec<Pass>, StoreError> {
    let mut passes = BTreeMap::<PublicKey, Pass>::new();
    store.each(Table::PASSES, |_, bytes| {
        let Ok(pass) = Pass::decode(mesh, bytes) else { return };
        let latest = passes.entry(pass.grant().key).or_insert_with(|| pass.clone());
        if latest.grant().issued < pass.grant().issued {
            *latest = pass;
        }
    })?;
    Ok(passes.into_values().collect())
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

    /// Makes a pass of a mesh durable, in place of the one before of its key.
    pub(super) fn keep(&self, mesh: &MeshId, pass: &Pass) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        let name = [&mesh.as_bytes()[..], pass.grant().key.as_bytes()].concat();
        write.put(Table::PASSES, &name, pass.as_bytes())?;
        write.commit()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::authority::key::AuthorityKey;
    use crate::authority::level::Level;

    #[test]
    fn a_key_of_two_meshes_has_its_latest_pass_of_each() {
        let mut rng = Rng::from_seed([1; 32]);
        let file = IssuedPasses(Store::in_memory(&mut rng).unwrap());
        let meshes = [1, 2].map(|n| AuthorityKey::from_seed(&[n; 32]));
        let key = PublicKey::from_bytes([9; 32]);
        let pass = |mesh: usize, issued| meshes[mesh].mint(key, Level::Worker, issued).pass().clone();
        // As an earlier program named it.
        let write = file.0.begin().unwrap();
        write.put(Table::PASSES, key.as_bytes(), pass(0, 50).as_bytes()).unwrap();
        write.commit().unwrap();
        for (mesh, issued) in [(0, 100), (1, 200), (0, 300)] {
            file.keep(&meshes[mesh].mesh(), &pass(mesh, issued)).unwrap();
        }
        for (mesh, issued) in [(0, 300), (1, 200)] {
            assert_eq!(latest_passes(&file.0, &meshes[mesh].mesh()).unwrap(), [pass(mesh, issued)]);
        }
    }
}
