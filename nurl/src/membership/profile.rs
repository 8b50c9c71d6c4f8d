//! What a member says of itself, signed with the key that names it, with the pass that permits it.
//!
//! A profile proves itself: whoever knows the mesh's id checks the pass with it, and the signature with the member's key.
//! So members pass profiles on, and a member can neither be made up nor quoted wrongly. What is merged is what is said;
//! the signatures are evidence, and two valid ones of the same words are as good as each other.

use std::sync::Arc;

use minicbor::Encoder;

use super::meta::Meta;
use crate::authority::SIGNATURE_LEN;
use crate::authority::pass::{Grant, Pass, PassHash};
use crate::authority::peer_signature;
use crate::key::{PublicKey, SecretKey};
use crate::mesh::MeshId;

const LABEL: &[u8] = b"nurl/2 profile";

/// What a member says of itself at one incarnation. Ordered, so that all nodes merge conflicting ones alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberProfile {
    /// The incarnation at which the member issued it.
    pub incarnation: u64,
    /// Whether it is the member's goodbye.
    pub left: bool,
    /// The boot id of its process.
    pub boot: u64,
    /// Its metadata.
    pub meta: Meta,
    /// The name of its pass.
    pub pass: PassHash,
}

impl MemberProfile {
    /// Signs the profile with the member's key. `pass` is the one that it names.
    pub fn sign(self, secret: &SecretKey, mesh: &MeshId, pass: &Pass) -> SignedProfile {
        debug_assert_eq!(self.pass, pass.hash(), "a profile names the pass that it comes with");
        let signature = peer_signature::sign(secret, LABEL, mesh, &self.statement());
        let grant = Some(Arc::new(pass.grant().clone()));
        SignedProfile { said: self, pass: pass.as_bytes().into(), signature, grant }
    }

    /// The bytes that are signed: the fields as on the wire, and the pass's name.
    fn statement(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        let written = encoder
            .array(FIELDS_SAID + 1)
            .and_then(|e| self.write(e))
            .and_then(|e| e.bytes(&self.pass.0)?.ok());
        written.expect("a Vec takes every byte");
        out
    }

    /// Writes the fields that the member says, without the pass.
    pub(super) fn write<'a, W: minicbor::encode::Write>(
        &self,
        e: &'a mut Encoder<W>,
    ) -> Result<&'a mut Encoder<W>, minicbor::encode::Error<W::Error>> {
        let MemberProfile { incarnation, left, boot, meta, pass: _ } = self;
        e.u64(*incarnation)?.bool(*left)?.u64(*boot)?.u16(meta.roles().bits())?.u16(meta.weight())?;
        e.array(meta.kinds().len() as u64)?;
        for kind in meta.kinds() {
            e.str(kind)?;
        }
        e.str(meta.version())
    }
}

/// The fields that [`MemberProfile::write`] writes.
pub(super) const FIELDS_SAID: u64 = 7;

/// A profile with its evidence, which may be unchecked. Equal if the same is said.
#[derive(Debug, Clone)]
pub struct SignedProfile {
    said: MemberProfile,
    /// The pass, as it came.
    pass: Arc<[u8]>,
    signature: [u8; SIGNATURE_LEN],
    /// What the pass says; `None`: the evidence isn't checked.
    grant: Option<Arc<Grant>>,
}

impl SignedProfile {
    /// A profile as it came, unchecked. It names the pass that it came with.
    pub(super) fn unchecked(
        said: MemberProfile,
        pass: &[u8],
        signature: [u8; SIGNATURE_LEN],
    ) -> SignedProfile {
        SignedProfile { said, pass: pass.into(), signature, grant: None }
    }

    /// What is said.
    pub fn said(&self) -> &MemberProfile {
        &self.said
    }

    /// The pass's bytes.
    pub(super) fn pass(&self) -> &[u8] {
        &self.pass
    }

    /// The signature's bytes.
    pub(super) fn signature(&self) -> &[u8; SIGNATURE_LEN] {
        &self.signature
    }

    /// What the pass says, once the evidence is checked.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
    }

    /// Whether `key` signed this in the mesh.
    pub(super) fn is_signed_by(&self, key: &PublicKey, mesh: &MeshId) -> bool {
        peer_signature::verify(key, LABEL, mesh, &self.said.statement(), &self.signature)
    }

    /// The evidence is checked: this is what the pass says, and the encoding that was checked.
    pub(super) fn check_off(&mut self, (grant, pass): (Arc<Grant>, Arc<[u8]>)) {
        (self.grant, self.pass) = (Some(grant), pass);
    }
}

impl PartialEq for SignedProfile {
    fn eq(&self, other: &SignedProfile) -> bool {
        self.said == other.said
    }
}

impl Eq for SignedProfile {}

impl PartialOrd for SignedProfile {
    fn partial_cmp(&self, other: &SignedProfile) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SignedProfile {
    fn cmp(&self, other: &SignedProfile) -> std::cmp::Ordering {
        self.said.cmp(&other.said)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::authority::level::Level;
    use crate::authority::pass::MAX_WEIGHT;

    impl SignedProfile {
        /// Changes what is said, in tests whose subject isn't the evidence.
        pub(in super::super) fn said_mut(&mut self) -> &mut MemberProfile {
            &mut self.said
        }
    }

    /// What members say in tests whose subject isn't the evidence: nobody signed it, and it counts as checked.
    pub(in super::super) fn said(incarnation: u64, left: bool, boot: u64, meta: Meta) -> SignedProfile {
        let said = MemberProfile { incarnation, left, boot, meta, pass: PassHash::of(&[]) };
        let grant =
            Grant { weight: MAX_WEIGHT, ..Grant::new(PublicKey::from_bytes([0; 32]), Level::Worker, 0, 1) };
        SignedProfile {
            said,
            pass: Arc::new([]),
            signature: [0; SIGNATURE_LEN],
            grant: Some(Arc::new(grant)),
        }
    }
}
