//! The authority's key, and the one verifier of what it signs.

use std::fmt;
use std::path::Path;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::SIGNATURE_LEN;
use super::UnixSeconds;
use super::keyfile::KeyFile;
use super::revocation::{Revocation, Subject};
use super::rotation::Rotation;
#[cfg(any(test, feature = "internals"))]
use super::{
    credential::Credential,
    level::Level,
    pass::{Grant, MAX_LIFE, MAX_WEIGHT},
};
use crate::key::KeyError;
use crate::mesh::MeshId;
use crate::rt::{self, Cost};

/// The Ed25519 key that signs a mesh's passes and revocations. It has no counters, so a copy is a backup or a move.
pub struct AuthorityKey(SigningKey);

impl AuthorityKey {
    /// Draws a key, and with it a new mesh.
    pub fn generate(rng: &mut impl CryptoRng) -> AuthorityKey {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        AuthorityKey::from_seed(&seed)
    }

    /// Takes the 32 bytes of the seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> AuthorityKey {
        AuthorityKey(SigningKey::from_bytes(seed))
    }

    /// The seed. The caller must zeroize any copy.
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The mesh of which this is the authority: its id is the public key.
    pub fn mesh(&self) -> MeshId {
        MeshId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// A credential that counts from `from` for as long as a pass may, of the greatest weight, made without an issuer: for
    /// tests and worlds.
    #[cfg(any(test, feature = "internals"))]
    pub fn mint(&self, key: crate::key::PublicKey, level: Level, from: UnixSeconds) -> Credential {
        self.mint_in_zone(key, level, from, "")
    }

    /// As [`mint`](AuthorityKey::mint), in a zone.
    #[cfg(any(test, feature = "internals"))]
    pub fn mint_in_zone(
        &self,
        key: crate::key::PublicKey,
        level: Level,
        from: UnixSeconds,
        zone: &str,
    ) -> Credential {
        let seed = blake3::hash(key.as_bytes());
        let ring_seed = seed.as_bytes().first_chunk().copied().unwrap_or_default();
        let grant = Grant::new(key, level, from, from + MAX_LIFE);
        let grant = Grant { ring_seed, weight: MAX_WEIGHT, zone: zone.to_owned(), ..grant };
        Credential::new(grant.sign(self).expect("a short zone is within its bounds"))
    }

    /// Reads the key from a file. [`KeyFile`] is for one that may be sealed.
    ///
    /// # Errors
    /// [`KeyError`]: the file can't be read, holds no key, or a sealed one, or others may read it.
    pub fn load(path: &Path) -> Result<AuthorityKey, KeyError> {
        match KeyFile::load(path)? {
            KeyFile::Open(key) => Ok(key),
            KeyFile::Sealed(_) => Err(KeyError::Sealed),
        }
    }

    /// Revokes every pass of the subject that was issued until `now`. The entry takes effect once a node has it
    /// (`Node::revoke`), which tells the others.
    pub fn revoke(&self, subject: Subject, now: UnixSeconds) -> Revocation {
        Revocation::sign(self, subject, now, now)
    }

    /// Rotates the mesh's secret to this generation, which must be above the present one. It takes effect once a node has
    /// it (`Node::rotate`), which sees to it that the others get it.
    pub fn rotate(&self, generation: u32, now: UnixSeconds) -> Rotation {
        Rotation::new(self, generation, now)
    }

    /// Signs a statement.
    pub(super) fn sign(&self, label: &[u8], body: &[u8]) -> [u8; SIGNATURE_LEN] {
        rt::cost(Cost::Sign, 1);
        self.0.sign(&statement(label, &self.mesh(), body)).to_bytes()
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey(of {:?})", self.mesh().namespace())
    }
}

/// Whether the authority of `mesh` signed this statement. Strict: a non-canonical scalar, and a key or a commitment of
/// small order, are refused, so that every verifier agrees on every signature (Chalkias and others, "Taming the many
/// EdDSAs", 2020).
pub(super) fn verify(mesh: &MeshId, label: &[u8], body: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    rt::cost(Cost::Verify, 1);
    let Ok(key) = VerifyingKey::from_bytes(mesh.as_bytes()) else { return false };
    key.verify_strict(&statement(label, mesh, body), &Signature::from_bytes(signature)).is_ok()
}

/// The signed bytes: the label, its end, the mesh, the body. A label has no zero byte, so no label is another's prefix.
pub(super) fn statement(label: &[u8], mesh: &MeshId, body: &[u8]) -> Vec<u8> {
    [label, &[0], mesh.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn a_statement_holds_for_its_label_its_mesh_and_its_body_alone() {
        let mut rng = crate::rt::Rng::from_seed([1; 32]);
        let (ours, theirs) = (AuthorityKey::generate(&mut rng), AuthorityKey::generate(&mut rng));
        let signature = ours.sign(b"a", b"body");
        assert!(verify(&ours.mesh(), b"a", b"body", &signature));
        assert!(!verify(&ours.mesh(), b"b", b"body", &signature));
        assert!(!verify(&ours.mesh(), b"a", b"other", &signature));
        assert!(!verify(&theirs.mesh(), b"a", b"body", &signature));
        let copy = AuthorityKey::from_seed(ours.seed());
        assert_eq!(copy.sign(b"a", b"body"), signature, "a copy is the same authority");
    }

    #[test]
    fn a_mesh_id_of_small_order_and_a_non_canonical_scalar_verify_nothing() {
        let key = AuthorityKey::from_seed(&[7; 32]);
        let mut signature = key.sign(b"a", b"body");
        // S + L: the same scalar modulo the group's order, which RFC 8032 §5.1.7 refuses.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0;
        for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert!(!verify(&key.mesh(), b"a", b"body", &signature));
        // The identity as key and as R, and S = 0, satisfy the plain equation for every message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut forged = [0; SIGNATURE_LEN];
        forged[..32].copy_from_slice(&identity);
        assert!(!verify(&MeshId::from_bytes(identity), b"a", b"body", &forged));
    }
}
