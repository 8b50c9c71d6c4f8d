//! The authority's key in a file: as it is, or sealed by a passphrase.
//!
//! A file is one line of text. `nurl-secret-1…` is the key itself, as any secret key is kept. `nurlsealed1…` is a sealed one,
//! bech32m of:
//!
//! | bytes | |
//! | --- | --- |
//! | `version:1` | 1 |
//! | `memory:4 ‖ passes:1 ‖ lanes:1` | the cost: KiB (little-endian), iterations, parallelism |
//! | `salt:16` | random, another one at each sealing |
//! | `mesh id:32` | of which mesh the key is |
//! | `sealed:48` | the seed, by ChaCha20-Poly1305 with a nonce of zeros and all bytes before as associated data |
//!
//! The cipher's key is Argon2id (RFC 9106, version 0x13) of the passphrase's bytes and the salt, 32 bytes long. A cost that
//! a file asks for is bounded, and a wrong passphrase opens nothing.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use bech32::{Bech32m, Hrp};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::key::AuthorityKey;
use crate::key::{KeyError, SecretKey, decode_text};
use crate::kit::reader::Reader;
use crate::mesh::MeshId;
use crate::rt::disk;

const HRP: &str = "nurlsealed";
const VERSION: u8 = 1;

/// The longest key file.
const FILE_LIMIT_BYTES: u64 = 1_024;

/// Half a second to a second on a desk's machine, and no more memory than a small one has. Each guess costs the same.
const COST: Cost = Cost { memory: 64 * 1_024, passes: 16, lanes: 1 };

/// The greatest cost that a file may ask for.
const MAX_COST: Cost = Cost { memory: 256 * 1_024, passes: 64, lanes: 8 };

/// Bytes before the sealed seed.
const HEAD: usize = 1 + 4 + 1 + 1 + 16 + 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory: u32,
    passes: u8,
    lanes: u8,
}

/// What a file of the authority's key holds.
#[derive(Debug)]
pub enum KeyFile {
    /// The key.
    Open(AuthorityKey),
    /// The key, sealed.
    Sealed(SealedKey),
}

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeyError`]: the file can't be read, holds no key, or others may read it.
    pub fn load(path: &Path) -> Result<KeyFile, KeyError> {
        let bytes =
            disk::read_private(path, FILE_LIMIT_BYTES).map_err(|error| KeyError::file(path, error))?;
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::NotAKey)?.trim();
        if text.starts_with(HRP) {
            return text.parse().map(KeyFile::Sealed);
        }
        let seed: SecretKey = text.parse()?;
        Ok(KeyFile::Open(AuthorityKey::from_seed(seed.as_bytes())))
    }
}

/// An authority's key that a passphrase opens.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    cost: Cost,
    salt: [u8; 16],
    mesh: MeshId,
    sealed: [u8; 48],
}

impl SealedKey {
    /// Seals a key. It takes most of a second.
    pub fn seal(authority: &AuthorityKey, passphrase: &[u8], rng: &mut impl CryptoRng) -> SealedKey {
        SealedKey::seal_at(COST, authority, passphrase, rng)
    }

    fn seal_at(
        cost: Cost,
        authority: &AuthorityKey,
        passphrase: &[u8],
        rng: &mut impl CryptoRng,
    ) -> SealedKey {
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let mut key = SealedKey { cost, salt, mesh: authority.mesh(), sealed: [0; 48] };
        let head = key.head();
        let payload = Payload { msg: authority.seed(), aad: &head };
        let sealed =
            key.cipher(passphrase).and_then(|cipher| cipher.encrypt(&Nonce::default(), payload).ok());
        key.sealed = sealed.and_then(|sealed| sealed.try_into().ok()).expect("the cost is within its bounds");
        key
    }

    /// Opens it. It takes most of a second.
    ///
    /// # Errors
    /// [`KeyError::Passphrase`].
    pub fn open(&self, passphrase: &[u8]) -> Result<AuthorityKey, KeyError> {
        let head = self.head();
        let payload = Payload { msg: &self.sealed, aad: &head };
        let opened =
            self.cipher(passphrase).and_then(|cipher| cipher.decrypt(&Nonce::default(), payload).ok());
        let opened = Zeroizing::new(opened.ok_or(KeyError::Passphrase)?);
        let seed = Zeroizing::new(<[u8; 32]>::try_from(&opened[..]).map_err(|_| KeyError::Passphrase)?);
        Ok(AuthorityKey::from_seed(&seed))
    }

    /// The mesh of which it is the authority's.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The text form, without an end of line.
    pub fn to_text(&self) -> String {
        let bytes = [self.head(), self.sealed.to_vec()].concat();
        bech32::encode::<Bech32m>(Hrp::parse_unchecked(HRP), &bytes).expect("it is within bech32m's length")
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD);
        head.push(VERSION);
        head.extend_from_slice(&self.cost.memory.to_le_bytes());
        head.extend_from_slice(&[self.cost.passes, self.cost.lanes]);
        head.extend_from_slice(&self.salt);
        head.extend_from_slice(self.mesh.as_bytes());
        head
    }

    fn cipher(&self, passphrase: &[u8]) -> Option<ChaCha20Poly1305> {
        let Cost { memory, passes, lanes } = self.cost;
        let params = Params::new(memory, passes.into(), lanes.into(), Some(32)).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(passphrase, &self.salt, &mut *key).ok()?;
        Some(ChaCha20Poly1305::new((&*key).into()))
    }
}

impl FromStr for SealedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<SealedKey, KeyError> {
        let bytes =
            decode_text(text.trim(), HRP).map_err(|reason| KeyError::Text { expected: HRP, reason })?;
        let mut reader = Reader(&bytes);
        if reader.u8() != Some(VERSION) {
            return Err(KeyError::NotAKey);
        }
        let mut read = || {
            let cost = Cost { memory: reader.u32()?, passes: reader.u8()?, lanes: reader.u8()? };
            let (salt, mesh) = (reader.array()?, MeshId::from_bytes(reader.array()?));
            let sealed = reader.array()?;
            let key = SealedKey { cost, salt, mesh, sealed };
            let fits = cost.memory <= MAX_COST.memory
                && cost.passes <= MAX_COST.passes
                && cost.lanes <= MAX_COST.lanes;
            (fits && reader.rest().is_empty()).then_some(key)
        };
        read().ok_or(KeyError::NotAKey)
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey(of {:?})", self.mesh.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng as _;

    /// The least that Argon2 takes.
    const CHEAP: Cost = Cost { memory: 8, passes: 1, lanes: 1 };

    #[test]
    fn the_passphrase_opens_it_and_no_other_one_does_nor_with_a_changed_byte() {
        let mut rng = crate::rt::Rng::from_seed([1; 32]);
        let authority = AuthorityKey::from_seed(&[7; 32]);
        let key = SealedKey::seal_at(CHEAP, &authority, b"correct horse", &mut rng);
        let text = key.to_text();
        assert_eq!(text.parse::<SealedKey>().unwrap(), key);
        assert_eq!(key.open(b"correct horse").unwrap().seed(), authority.seed());
        assert_eq!(key.mesh(), authority.mesh());
        for wrong in [&b""[..], b"correct hors", b"correct horse\n"] {
            assert!(matches!(key.open(wrong), Err(KeyError::Passphrase)));
        }
        for changed in [
            SealedKey { mesh: AuthorityKey::from_seed(&[8; 32]).mesh(), ..key.clone() },
            SealedKey { cost: Cost { passes: 2, ..CHEAP }, ..key.clone() },
            SealedKey { salt: [0; 16], ..key.clone() },
            SealedKey { sealed: [0; 48], ..key.clone() },
        ] {
            assert!(changed.open(b"correct horse").is_err());
        }
        assert_ne!(SealedKey::seal_at(CHEAP, &authority, b"correct horse", &mut rng), key, "another salt");
    }

    #[test]
    fn a_file_that_asks_for_more_than_the_greatest_cost_or_of_another_version_is_no_key() {
        let mut rng = crate::rt::Rng::from_seed([1; 32]);
        let authority = AuthorityKey::from_seed(&[7; 32]);
        let key = SealedKey::seal_at(CHEAP, &authority, b"x", &mut rng);
        let cost = Cost { memory: MAX_COST.memory + 1, ..CHEAP };
        assert!(SealedKey { cost, ..key.clone() }.to_text().parse::<SealedKey>().is_err());
        let mut bytes = [key.head(), key.sealed.to_vec()].concat();
        bytes[0] = 2;
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(HRP), &bytes).unwrap();
        assert!(text.parse::<SealedKey>().is_err());
        assert!(authority.mesh().to_string().parse::<SealedKey>().is_err());
    }
}
