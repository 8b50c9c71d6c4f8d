//! This node's pass in its store: the record `pass`.

use crate::authority::pass::Pass;
use crate::key::PublicKey;
use crate::mesh::MeshId;
use crate::store::{Store, StoreError};

const PASS: &str = "pass";

/// The record of this node's pass.
pub(super) struct OwnPass<'a>(pub(super) &'a Store);

impl OwnPass<'_> {
    /// The pass of this key in this mesh, if there is one.
    pub(super) fn load(&self, mesh: &MeshId, key: &PublicKey) -> Result<Option<Pass>, StoreError> {
        let kept = self.0.meta(PASS)?.and_then(|bytes| Pass::decode(mesh, &bytes).ok());
        Ok(kept.filter(|pass| pass.grant().key == *key))
    }

    /// Keeps a pass in place of the one before.
    pub(super) fn keep(&self, pass: &Pass) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        write.set_meta(PASS, pass.as_bytes())?;
        write.commit()
    }
}
