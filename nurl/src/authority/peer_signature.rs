//! Signatures by a peer's X25519 key: XEdDSA (Perrin, "The XEdDSA and VXEdDSA Signature Schemes", 2016), with strict
//! verification.
//!
//! The verifying key is always computed from the X25519 key, with sign bit 0, and never passed in: otherwise a signer
//! could be made to reveal its scalar. The nonce's prefix is derived from the secret key, so that signing needs no
//! randomness and the same statement has the same signature.

use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Sha256, Sha512};

use super::SIGNATURE_LEN;
use super::key::statement;
use crate::key::{PublicKey, SecretKey};
use crate::mesh::MeshId;
use crate::rt::{self, Cost};

/// Signs a statement in a mesh.
pub fn sign(secret: &SecretKey, label: &[u8], mesh: &MeshId, body: &[u8]) -> [u8; SIGNATURE_LEN] {
    rt::cost(Cost::Sign, 1);
    let expanded = expand(secret);
    let verifying = VerifyingKey::from(&expanded);
    raw_sign::<Sha512>(&expanded, &statement(label, mesh, body), &verifying).to_bytes()
}

/// Whether the peer signed this statement in this mesh.
pub fn verify(
    peer: &PublicKey,
    label: &[u8],
    mesh: &MeshId,
    body: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    rt::cost(Cost::Verify, 1);
    let Some(point) = MontgomeryPoint(*peer.as_bytes()).to_edwards(0) else { return false };
    let verifying = VerifyingKey::from(point);
    verifying.verify_strict(&statement(label, mesh, body), &Signature::from_bytes(signature)).is_ok()
}

/// The Edwards secret whose public point has sign bit 0.
fn expand(secret: &SecretKey) -> ExpandedSecretKey {
    let mut hash_prefix = [0; 32];
    Hkdf::<Sha256>::new(None, secret.as_bytes())
        .expand(b"nurl/2 signature nonce", &mut hash_prefix)
        .expect("32 bytes are within HKDF's length");
    let scalar = Scalar::from_bytes_mod_order(clamp_integer(*secret.as_bytes()));
    let expanded = ExpandedSecretKey { scalar, hash_prefix };
    let negative = VerifyingKey::from(&expanded).as_bytes()[31] >> 7 == 1;
    if negative { ExpandedSecretKey { scalar: -scalar, hash_prefix } } else { expanded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn a_peer_signs_with_the_key_that_names_it() {
        let mut rng = crate::rt::Rng::from_seed([2; 32]);
        let (mesh, other) = (MeshId::from_bytes([1; 32]), MeshId::from_bytes([2; 32]));
        for _ in 0..32 {
            let (ours, theirs) = (SecretKey::generate(&mut rng), SecretKey::generate(&mut rng));
            let signature = sign(&ours, b"fact", &mesh, b"alive");
            assert_eq!(signature, sign(&ours, b"fact", &mesh, b"alive"), "no randomness");
            assert!(verify(&ours.public(), b"fact", &mesh, b"alive", &signature));
            assert!(!verify(&ours.public(), b"slip", &mesh, b"alive", &signature));
            assert!(!verify(&ours.public(), b"fact", &other, b"alive", &signature));
            assert!(!verify(&ours.public(), b"fact", &mesh, b"left", &signature));
            assert!(!verify(&theirs.public(), b"fact", &mesh, b"alive", &signature));
        }
    }

    #[test]
    fn keys_off_the_curve_and_of_small_order_verify_nothing() {
        let mesh = MeshId::from_bytes([1; 32]);
        let mut small = [0; SIGNATURE_LEN];
        small[0] = 1;
        for key in [[0; 32], [1; 32], [2; 32], [0xff; 32]] {
            for signature in [[0; SIGNATURE_LEN], small] {
                assert!(!verify(&PublicKey::from_bytes(key), b"fact", &mesh, b"alive", &signature));
            }
        }
    }
}
