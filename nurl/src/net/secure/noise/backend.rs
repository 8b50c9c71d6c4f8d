//! The primitives for the handshake and the record layer, from either of two suppliers.
//!
//! X25519 (RFC 7748) and ChaCha20-Poly1305 (RFC 8439) come from aws-lc-rs, or from x25519-dalek and
//! chacha20poly1305. Both are compiled in every build and give the same bytes; a proptest checks that. The
//! backend is a value and not a type, so that one process can run both against each other.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{aead, agreement};
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::NoiseError;
use crate::key::{PublicKey, SecretKey};

/// The length of a Poly1305 tag.
pub const TAG_LEN: usize = 16;

/// The output of a Diffie-Hellman.
pub type SharedSecret = Zeroizing<[u8; 32]>;

/// The library that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// aws-lc-rs: assembly, about four times faster on a record.
    AwsLc,
    /// x25519-dalek and chacha20poly1305: Rust only.
    Portable,
}

impl Backend {
    /// The default of this build: aws-lc-rs, or with the feature `portable-crypto` the portable one.
    pub const DEFAULT: Backend =
        if cfg!(feature = "portable-crypto") { Backend::Portable } else { Backend::AwsLc };
}

impl Default for Backend {
    fn default() -> Backend {
        Backend::DEFAULT
    }
}

#[derive(Clone)]
enum Scalar {
    AwsLc(Arc<agreement::PrivateKey>),
    Portable(StaticSecret),
}

/// An X25519 key pair, with the public half computed once.
#[derive(Clone)]
pub struct StaticKey {
    scalar: Scalar,
    public: PublicKey,
}

impl StaticKey {
    /// Prepares a node's own key.
    ///
    /// # Errors
    /// [`NoiseError::State`] if the backend can't take 32 bytes as a key.
    pub fn new(backend: Backend, key: &SecretKey) -> Result<StaticKey, NoiseError> {
        StaticKey::from_bytes(backend, key.as_bytes())
    }

    /// Prepares a key from the 32 bytes of a scalar; every use clamps it.
    ///
    /// # Errors
    /// The same as [`new`](StaticKey::new).
    pub fn from_bytes(backend: Backend, bytes: &[u8; 32]) -> Result<StaticKey, NoiseError> {
        match backend {
            Backend::AwsLc => {
                let scalar = agreement::PrivateKey::from_private_key(&agreement::X25519, bytes)
                    .map_err(|_| NoiseError::State)?;
                let public = scalar.compute_public_key().map_err(|_| NoiseError::State)?;
                let public = PublicKey::from_slice(public.as_ref()).ok_or(NoiseError::State)?;
                Ok(StaticKey { scalar: Scalar::AwsLc(Arc::new(scalar)), public })
            }
            Backend::Portable => {
                let scalar = StaticSecret::from(*bytes);
                let public = PublicKey::from_bytes(x25519_dalek::PublicKey::from(&scalar).to_bytes());
                Ok(StaticKey { scalar: Scalar::Portable(scalar), public })
            }
        }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The backend that the key computes with.
    pub fn backend(&self) -> Backend {
        match self.scalar {
            Scalar::AwsLc(_) => Backend::AwsLc,
            Scalar::Portable(_) => Backend::Portable,
        }
    }

    /// The Diffie-Hellman with `theirs`.
    ///
    /// # Errors
    /// [`NoiseError::ZeroOutput`] when `theirs` has small order.
    pub fn agree(&self, theirs: &PublicKey) -> Result<SharedSecret, NoiseError> {
        let mut shared = Zeroizing::new([0; 32]);
        match &self.scalar {
            Scalar::AwsLc(scalar) => {
                // The library refuses an all-zero output itself; no other failure is possible here.
                let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, theirs.as_bytes());
                agreement::agree(scalar, theirs, NoiseError::ZeroOutput, |bytes| {
                    shared.copy_from_slice(bytes);
                    Ok(())
                })?;
            }
            Scalar::Portable(scalar) => {
                let theirs = x25519_dalek::PublicKey::from(*theirs.as_bytes());
                shared.copy_from_slice(scalar.diffie_hellman(&theirs).as_bytes());
            }
        }
        if bool::from(shared.ct_eq(&[0; 32])) { Err(NoiseError::ZeroOutput) } else { Ok(shared) }
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticKey(of {:?})", self.public)
    }
}

/// The bytes don't authenticate under this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext doesn't authenticate")]
pub struct OpenFailed;

enum Cipher {
    AwsLc(aead::LessSafeKey),
    Portable(ChaCha20Poly1305),
}

/// A ChaCha20-Poly1305 key. The nonce is Noise's: four zero bytes and the counter, little-endian (§12.3).
pub struct AeadKey(Cipher);

impl AeadKey {
    /// Prepares a key.
    pub fn new(backend: Backend, key: &[u8; 32]) -> AeadKey {
        AeadKey(match backend {
            Backend::AwsLc => {
                let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key);
                Cipher::AwsLc(aead::LessSafeKey::new(key.expect("a key of 32 bytes is ChaCha20's length")))
            }
            Backend::Portable => Cipher::Portable(ChaCha20Poly1305::new(key.into())),
        })
    }

    /// Encrypts `in_out` in place and returns the tag. A counter must never be used twice.
    pub fn seal(&self, counter: u64, aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        const FITS: &str = "a datagram is far below the cipher's limit of 256 GiB";
        let mut out = [0; TAG_LEN];
        match &self.0 {
            Cipher::AwsLc(key) => {
                let nonce = aead::Nonce::assume_unique_for_key(nonce(counter));
                let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), in_out).expect(FITS);
                out.copy_from_slice(tag.as_ref());
            }
            Cipher::Portable(key) => {
                let tag = key.encrypt_in_place_detached(&nonce(counter).into(), aad, in_out).expect(FITS);
                out.copy_from_slice(&tag);
            }
        }
        out
    }

    /// Decrypts `in_out`, ciphertext followed by tag, in place, and returns the plaintext's length.
    ///
    /// # Errors
    /// [`OpenFailed`]; the content of `in_out` is then meaningless.
    pub fn open(&self, counter: u64, aad: &[u8], in_out: &mut [u8]) -> Result<usize, OpenFailed> {
        let len = in_out.len().checked_sub(TAG_LEN).ok_or(OpenFailed)?;
        match &self.0 {
            Cipher::AwsLc(key) => {
                let nonce = aead::Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place(nonce, aead::Aad::from(aad), in_out).map_err(|_| OpenFailed)?;
            }
            Cipher::Portable(key) => {
                let (text, tag) = in_out.split_at_mut(len);
                key.decrypt_in_place_detached(&nonce(counter).into(), aad, text, (&*tag).into())
                    .map_err(|_| OpenFailed)?;
            }
        }
        Ok(len)
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(…)")
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
