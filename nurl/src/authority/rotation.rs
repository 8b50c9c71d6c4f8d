//! A rotation: the mesh gets a new secret, and the one before is accepted for a while.
//!
//! **Guarantees.** What announces a rotation has no secret in it: it is an entry among the [revocations], of the subject
//! [`Subject::Secret`], and travels and merges as they do. The greater generation wins; of two with one number, the later.
//! The new secret is derived from the authority's key, the generation and its time, so every issuer that hears of a rotation
//! has its secret, and a copy, restored or not, has no other one. A [`SignedSecret`] proves itself: nobody but the authority
//! can make a node use a secret.
//!
//! [revocations]: super::revocation

use super::key::{self, AuthorityKey};
use super::revocation::{Revocation, Subject};
use super::{SIGNATURE_LEN, UnixSeconds};
use crate::kit::reader::Reader;
use crate::mesh::{MeshId, MeshSecret};

/// How long the secret before the present one is accepted: whoever was away for less comes back by itself.
pub const ACCEPTED_FOR: UnixSeconds = 7 * super::pass::DAY;

/// The length of a [`SignedSecret`].
pub const SIGNED_SECRET_BYTES: usize = 4 + 4 + 32 + SIGNATURE_LEN;

const LABEL: &[u8] = b"nurl/2 secret";

/// A generation of the mesh's secret, as an issuer hands it to the holder of a pass:
/// `generation:4 ‖ made:4 ‖ secret:32 ‖ signature:64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedSecret {
    /// Its number: 1 for the first one that isn't the first ticket's.
    pub generation: u32,
    /// When the rotation was made.
    pub made: UnixSeconds,
    /// The secret.
    pub secret: MeshSecret,
    signature: [u8; SIGNATURE_LEN],
}

impl SignedSecret {
    /// The secret of a generation: the same at every issuer.
    pub(crate) fn of(authority: &AuthorityKey, generation: u32, made: UnixSeconds) -> SignedSecret {
        let secret = MeshSecret::derived(&authority.mesh(), authority.seed(), generation, made);
        let signature = authority.sign(LABEL, &body(generation, made, &secret));
        SignedSecret { generation, made, secret, signature }
    }

    /// Which of two is in force: the greater.
    pub(crate) fn stamp(&self) -> (u32, UnixSeconds) {
        (self.generation, self.made)
    }

    /// Whether the authority of this mesh signed it.
    pub fn is_of(&self, mesh: &MeshId) -> bool {
        key::verify(mesh, LABEL, &body(self.generation, self.made, &self.secret), &self.signature)
    }

    /// The encoding. It contains the secret.
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut out = body(self.generation, self.made, &self.secret);
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads the encoding; the signature isn't checked yet. `None`: malformed.
    pub fn decode(bytes: &[u8]) -> Option<SignedSecret> {
        let mut reader = Reader(bytes);
        let (generation, made) = (reader.u32()?, reader.u32()?);
        let secret = MeshSecret::from_bytes(reader.array()?);
        let signature = reader.array()?;
        reader.end(SignedSecret { generation, made, secret, signature })
    }
}

fn body(generation: u32, made: UnixSeconds, secret: &MeshSecret) -> zeroize::Zeroizing<Vec<u8>> {
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(SIGNED_SECRET_BYTES));
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&made.to_le_bytes());
    out.extend_from_slice(secret.as_bytes());
    out
}

/// What the authority makes to rotate the secret; see `Node::rotate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// What everybody may know: there is a new secret.
    pub entry: Revocation,
    /// The secret, for holders of passes.
    pub secret: SignedSecret,
}

impl Rotation {
    /// The rotation to this generation.
    pub(super) fn new(authority: &AuthorityKey, generation: u32, made: UnixSeconds) -> Rotation {
        let entry = Revocation::sign(authority, Subject::Secret, generation, made);
        Rotation { entry, secret: SignedSecret::of(authority, generation, made) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_from_its_bytes_and_no_byte_can_be_changed() {
        let authority = AuthorityKey::from_seed(&[1; 32]);
        let signed = authority.rotate(3, 2_000).secret;
        let bytes = signed.encode();
        assert_eq!(bytes.len(), SIGNED_SECRET_BYTES);
        assert_eq!(SignedSecret::decode(&bytes), Some(signed.clone()));
        assert!(signed.is_of(&authority.mesh()));
        assert!(!signed.is_of(&AuthorityKey::from_seed(&[2; 32]).mesh()));
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 4;
            let changed = SignedSecret::decode(&changed).unwrap();
            assert!(!changed.is_of(&authority.mesh()), "byte {at}");
        }
        assert_eq!(SignedSecret::decode(&bytes[1..]), None);
    }

    #[test]
    fn every_copy_of_the_authority_has_the_same_secrets_and_no_two_rotations_have_one() {
        let copies = [AuthorityKey::from_seed(&[1; 32]), AuthorityKey::from_seed(&[1; 32])];
        let [a, b] = copies.each_ref().map(|authority| authority.rotate(1, 2_000));
        assert_eq!(a, b);
        let others = [
            copies[0].rotate(2, 2_000).secret.secret,
            copies[0].rotate(1, 2_001).secret.secret,
            AuthorityKey::from_seed(&[2; 32]).rotate(1, 2_000).secret.secret,
        ];
        assert!(others.iter().all(|other| *other != a.secret.secret));
    }
}
