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
    pub(super) fn keep(&self, news: &[Revocation]) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        for entry in news {
            write.put(Table::REVOCATIONS, &entry.subject.encode(), &entry.encode())?;
        }
        write.commit()
    }
}
