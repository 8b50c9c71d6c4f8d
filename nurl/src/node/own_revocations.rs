//! What the authority has revoked, in this node's store: table `revocations`, a subject and its latest entry.

use crate::authority::revocation::Revocation;
use crate::kit::reader::Reader;
use crate::mesh::MeshId;
use crate::store::{Store, StoreError, Table};

/// The records of revocations.
pub(super) struct OwnRevocations<'a>(pub(super) &'a Store);

impl OwnRevocations<'_> {
    /// The entries of this mesh.
    pub(super) fn load(&self, mesh: &MeshId) -> Result<Vec<Revocation>, StoreError> {
        let mut entries = Vec::new();
        self.0.each(Table::REVOCATIONS, |_, entry| {
            entries.extend(Revocation::decode(mesh, &mut Reader(entry)));
        })?;
        Ok(entries)
    }

    /// Keeps entries, each in place of the one before of its subject.
    pub(super) fn keep<'a>(&self, news: impl IntoIterator<Item = &'a Revocation>) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        for entry in news {
            write.put(Table::REVOCATIONS, &entry.subject.encode(), &entry.encode())?;
        }
        write.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::key::AuthorityKey;
    use crate::authority::revocation::Subject;
    use crate::key::PublicKey;
    use rand_core::SeedableRng as _;

    #[test]
    fn the_latest_entry_of_each_subject_comes_back_and_none_of_another_mesh() {
        let store = Store::in_memory(&mut crate::rt::Rng::from_seed([1; 32])).unwrap();
        let (ours, theirs) = (AuthorityKey::from_seed(&[1; 32]), AuthorityKey::from_seed(&[2; 32]));
        let key = Subject::Key(PublicKey::from_bytes([9; 32]));
        let records = OwnRevocations(&store);
        records.keep(&[ours.revoke(key, 1), ours.revoke(Subject::All, 2)]).unwrap();
        records.keep(&[ours.revoke(key, 3)]).unwrap();
        let mut loaded = records.load(&ours.mesh()).unwrap();
        loaded.sort_by_key(|entry| entry.subject);
        assert_eq!(loaded, [ours.revoke(Subject::All, 2), ours.revoke(key, 3)]);
        assert_eq!(records.load(&theirs.mesh()).unwrap(), []);
    }
}
