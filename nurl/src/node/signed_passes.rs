//! The passes that this node signed as an issuer, in its store: table `passes`, a key and its latest pass.

use crate::authority::issuer::Issuer;
use crate::authority::pass::Pass;
use crate::store::{Store, StoreError, Table};

/// The records of signed passes.
pub(super) struct SignedPasses<'a>(pub(super) &'a Store);

impl SignedPasses<'_> {
    /// Lets an issuer remember them.
    pub(super) fn restore(&self, issuer: &mut Issuer) -> Result<(), StoreError> {
        self.0.each(Table::PASSES, |_, pass| {
            // One of another mesh is no harm.
            let _ = issuer.restore(pass);
        })
    }

    /// Keeps passes, each in place of the one before of its key.
    pub(super) fn keep<'a>(&self, passes: impl IntoIterator<Item = &'a Pass>) -> Result<(), StoreError> {
        let write = self.0.begin()?;
        for pass in passes {
            write.put(Table::PASSES, pass.grant().key.as_bytes(), pass.as_bytes())?;
        }
        write.commit()
    }
}
