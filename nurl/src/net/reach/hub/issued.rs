//! What a hub keeps on its disk: the passes that it issued (table `passes`, a mesh's id with a key, and the key's latest
//! pass), and what the authorities of its meshes have revoked (table `revocations`, a mesh's id with a subject, and the
//! latest entry).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::core::Hub;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::key::PublicKey;
use crate::mesh::MeshId;
use crate::rt::{self, Rng, disk};
use crate::store::{Closed, Store, StoreError, Table};

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

/// The pause before a file whose disk has failed is opened again.
const REOPEN: Duration = Duration::from_secs(60);

/// The most records that wait for the disk: what is beyond them is known again when it is issued or told again.
const MAX_WAITING: usize = 16_384;

/// The file of issued passes. While its disk takes nothing, the hub goes on, and what it is to keep waits.
pub(super) struct IssuedPasses {
    open: Option<Store>,
    /// Otherwise the file whose disk has failed, and when it is opened again.
    failed: Option<(Closed, Instant)>,
    /// By table and name.
    waiting: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl IssuedPasses {
    /// Opens the file, and lets the hub remember what is in it.
    pub(super) fn open(path: &Path, hub: &mut Hub, rng: &mut Rng) -> Result<IssuedPasses, StoreError> {
        let store = Store::open(path, rng)?;
        store.each(Table::PASSES, |_, pass| {
            // A pass of a mesh that this hub no longer issues for is no harm.
            let _ = hub.restore(pass);
        })?;
        store.each(Table::REVOCATIONS, |_, entry| hub.restore_revocation(entry))?;
        Ok(IssuedPasses::on(store))
    }

    fn on(store: Store) -> IssuedPasses {
        IssuedPasses { open: Some(store), failed: None, waiting: BTreeMap::new() }
    }

    /// An entry of a mesh is to be kept.
    pub(super) fn keep_revocation(&mut self, mesh: &MeshId, entry: &Revocation) {
        self.wait(
            (Table::REVOCATIONS, [&mesh.as_bytes()[..], &entry.subject.encode()].concat()),
            entry.encode(),
        );
    }

    /// A pass of a mesh is to be kept, in place of the one before of its key.
    pub(super) fn keep(&mut self, mesh: &MeshId, pass: &Pass) {
        let name = [&mesh.as_bytes()[..], pass.grant().key.as_bytes()].concat();
        self.wait((Table::PASSES, name), pass.as_bytes().to_vec());
    }

    fn wait(&mut self, name: (Table, Vec<u8>), bytes: Vec<u8>) {
        if self.waiting.len() < MAX_WAITING || self.waiting.contains_key(&name) {
            self.waiting.insert(name, bytes);
        }
    }

    /// Makes all that waits durable, if the disk takes it.
    ///
    /// # Errors
    /// Once for each attempt that failed; it is tried again.
    pub(super) fn flush(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if let Some((closed, until)) = &mut self.failed {
            if now < *until {
                return Ok(());
            }
            *until = now + REOPEN;
            self.open = Some(closed.reopen(&mut rt::rng("issued"))?);
            self.failed = None;
        }
        let Some(store) = &self.open else { return Ok(()) };
        let written = store.write(|write| {
            self.waiting.iter().try_for_each(|((table, name), bytes)| write.put(*table, name, bytes))
        });
        if let Err(error) = written {
            return Err(self.fail(now, error));
        }
        self.waiting.clear();
        Ok(())
    }

    /// The disk has failed: the file is closed until it is time to try again.
    fn fail(&mut self, now: Instant, error: StoreError) -> StoreError {
        let Some(store) = self.open.take() else { return error };
        let closed = store.fail();
        let error = closed.told(error);
        self.failed = Some((closed, now + REOPEN));
        error
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
        let mut file = IssuedPasses::on(Store::in_memory(&mut rng).unwrap());
        let meshes = [1, 2].map(|n| AuthorityKey::from_seed(&[n; 32]));
        let key = PublicKey::from_bytes([9; 32]);
        let pass = |mesh: usize, issued| meshes[mesh].mint(key, Level::Worker, issued).pass().clone();
        // As an earlier program named it.
        let write = file.open.as_ref().unwrap().begin().unwrap();
        write.put(Table::PASSES, key.as_bytes(), pass(0, 50).as_bytes()).unwrap();
        write.commit().unwrap();
        for (mesh, issued) in [(0, 100), (1, 200), (0, 300)] {
            file.keep(&meshes[mesh].mesh(), &pass(mesh, issued));
            file.flush(crate::rt::time::now()).unwrap();
        }
        let store = file.open.unwrap();
        for (mesh, issued) in [(0, 300), (1, 200)] {
            assert_eq!(latest_passes(&store, &meshes[mesh].mesh()).unwrap(), [pass(mesh, issued)]);
        }
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn what_a_full_disk_does_not_take_is_kept_when_there_is_room() {
        use crate::store::faulty::Faulty;

        let mut rng = Rng::from_seed([1; 32]);
        let disk = Faulty::default();
        let mut file = IssuedPasses::on(disk.store(&mut rng));
        let authority = AuthorityKey::from_seed(&[1; 32]);
        let (mesh, mut now) = (authority.mesh(), crate::rt::time::now());
        let pass = |n| authority.mint(PublicKey::from_bytes([n; 32]), Level::Worker, 100).pass().clone();
        disk.set_full(true);
        file.keep(&mesh, &pass(1));
        assert!(file.flush(now).is_err());
        file.keep(&mesh, &pass(2));
        assert!(file.flush(now).is_ok(), "it is told once");
        now += REOPEN;
        assert!(file.flush(now).is_err(), "and at each attempt");
        disk.set_full(false);
        now += REOPEN;
        file.flush(now).unwrap();
        assert_eq!(latest_passes(file.open.as_ref().unwrap(), &mesh).unwrap(), [pass(1), pass(2)]);
        assert!(file.waiting.is_empty());
    }
}
