//! Keys: the identity of a peer.
//!
//! A peer is identified by its X25519 public key. The text forms are bech32m (BIP 350), `nurl1…` for a
//! public key and `nurl-secret-1…` for a secret one, so a mistyped character is an error and never another
//! peer. Secret bytes are zeroized when dropped, never printed by `Debug`, and stored in files of mode 0600
//! that are never overwritten.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use bech32::primitives::decode::{CheckedHrpstring, CheckedHrpstringError};
use bech32::{Bech32m, Hrp};
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::rt::disk;

/// The length of either key in bytes.
pub const KEY_LEN: usize = 32;

/// The longest key file that is read: the text form, a newline, and some slack for surrounding whitespace.
const KEY_FILE_LIMIT_BYTES: u64 = 256;

const PUBLIC_HRP: &str = "nurl";
const SECRET_HRP: &str = "nurl-secret-";

/// An X25519 public key: the identity of a peer. In CBOR it is a byte string of 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(n(0), with = "minicbor::bytes")] [u8; KEY_LEN]);

impl PublicKey {
    /// Takes the 32 bytes unchanged (RFC 7748 §5: any 32 bytes are a u-coordinate).
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Takes a slice of exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<PublicKey> {
        bytes.try_into().ok().map(PublicKey)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The first 8 characters after the prefix: enough to distinguish the peers of one mesh in a log or a
    /// table, but not a usable address.
    pub fn short(&self) -> String {
        self.to_string()[PUBLIC_HRP.len() + 1..][..8].to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, Hrp::parse_unchecked(PUBLIC_HRP), &self.0)
            .map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        Ok(PublicKey(*decode_32(text.trim(), PUBLIC_HRP)?))
    }
}

/// An X25519 secret key.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; KEY_LEN]>);

impl SecretKey {
    /// Draws a key.
    pub fn generate(rng: &mut impl CryptoRng) -> SecretKey {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *bytes);
        SecretKey(bytes)
    }

    /// Takes the 32 bytes; clamping (RFC 7748 §5) happens at every use.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> SecretKey {
        SecretKey(Zeroizing::new(bytes))
    }

    /// The 32 bytes. The caller must zeroize any copy.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public key of this secret.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&StaticSecret::from(*self.0)).to_bytes())
    }

    /// The text form. It is the secret itself: write it to a file, don't display it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(SECRET_HRP), &*self.0);
        Zeroizing::new(text.expect("32 bytes are within bech32m's length"))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError::File`] when the file can't be read, or when others can read or change it; otherwise the error in its
    /// text.
    pub fn load(path: &Path) -> Result<SecretKey, KeyError> {
        let bytes =
            disk::read_private(path, KEY_FILE_LIMIT_BYTES).map_err(|error| KeyError::file(path, error))?;
        let bytes = Zeroizing::new(bytes);
        std::str::from_utf8(&bytes).map_err(|_| KeyError::NotAKey)?.trim().parse()
    }

    /// Writes the key to a new file of mode 0600.
    ///
    /// # Errors
    /// [`KeyError::File`], also when a file of that name exists: a key is never overwritten.
    pub fn save_new(&self, path: &Path) -> Result<(), KeyError> {
        let text = Zeroizing::new(format!("{}\n", *self.to_text()));
        disk::create_new_private(path, text.as_bytes()).map_err(|error| KeyError::file(path, error))
    }

    /// Reads the key file, or makes one if there is none.
    ///
    /// # Errors
    /// Those of [`load`](SecretKey::load) and [`save_new`](SecretKey::save_new).
    pub fn load_or_create(path: &Path, rng: &mut impl CryptoRng) -> Result<SecretKey, KeyError> {
        if disk::exists(path) {
            return SecretKey::load(path);
        }
        let key = SecretKey::generate(rng);
        match key.save_new(path) {
            Ok(()) => Ok(key),
            // Another process has made it in between.
            Err(_) if disk::exists(path) => SecretKey::load(path),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<SecretKey, KeyError> {
        Ok(SecretKey(decode_32(text.trim(), SECRET_HRP)?))
    }
}

/// Which peers may open a session, or read and speak in a group: everybody with a part in it, or a list of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowList {
    /// For a session, the mesh secret is enough; in a group, every live member.
    #[default]
    Anyone,
    /// Only these keys.
    Only(BTreeSet<PublicKey>),
}

impl AllowList {
    /// Whether `key` is allowed.
    pub fn allows(&self, key: &PublicKey) -> bool {
        match self {
            AllowList::Anyone => true,
            AllowList::Only(keys) => keys.contains(key),
        }
    }
}

/// Why a text or a file is not the expected key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text isn't bech32m, has a mistyped character, or has another prefix.
    #[error("not a key: {reason} (expected {expected}1…)")]
    Text {
        /// The prefix that was expected.
        expected: &'static str,
        /// The decoder's error.
        reason: String,
    },
    /// The text is valid bech32m, but doesn't hold 32 bytes.
    #[error("not a key: it holds {0} bytes instead of 32")]
    Length(usize),
    /// The authority's key is sealed by a passphrase, and none was given.
    #[error("the key is sealed by a passphrase")]
    Sealed,
    /// The passphrase is another one.
    #[error("a wrong passphrase")]
    Passphrase,
    /// The file holds no text.
    #[error("not a key file")]
    NotAKey,
    /// The file can't be read or created.
    #[error("{path}: {error}")]
    File {
        /// The file's path.
        path: String,
        /// The operating system's error.
        error: io::Error,
    },
}

impl KeyError {
    pub(crate) fn file(path: &Path, error: io::Error) -> KeyError {
        KeyError::File { path: path.display().to_string(), error }
    }
}

fn decode_32(text: &str, hrp: &'static str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let bytes = decode_text(text, hrp).map_err(|reason| KeyError::Text { expected: hrp, reason })?;
    let length = bytes.len();
    Ok(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| KeyError::Length(length))?))
}

/// Decodes bech32m with the given prefix; the error is a phrase for users.
pub(crate) fn decode_text(text: &str, hrp: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|error| match error {
        // bech32m allows all upper or all lower case, but not a mixture (BIP 173).
        CheckedHrpstringError::Parse(_) if is_mixed(text) => "it has capital and small letters".to_owned(),
        CheckedHrpstringError::Parse(_) => "it doesn't look like one".to_owned(),
        _ => "a character is mistyped or missing".to_owned(),
    })?;
    if checked.hrp().to_lowercase() != hrp {
        return Err(format!("its prefix is {}", checked.hrp()));
    }
    Ok(Zeroizing::new(checked.byte_iter().collect()))
}

fn is_mixed(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase()) && text.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn rng() -> crate::rt::Rng {
        crate::rt::Rng::from_seed([7; 32])
    }

    #[test]
    fn rfc_7748_section_5_2_after_one_iteration() {
        let mut scalar = [0; 32];
        scalar[0] = 9;
        let product = [
            0x42, 0x2c, 0x8e, 0x7a, 0x62, 0x27, 0xd7, 0xbc, 0xa1, 0x35, 0x0b, 0x3e, 0x2b, 0xb7, 0x27, 0x9f,
            0x78, 0x97, 0xb8, 0x7b, 0xb6, 0x85, 0x4b, 0x78, 0x3c, 0x60, 0xe8, 0x03, 0x11, 0xae, 0x30, 0x79,
        ];
        assert_eq!(SecretKey::from_bytes(scalar).public().as_bytes(), &product);
    }

    #[test]
    fn the_text_forms_have_their_prefixes_and_come_back() {
        let secret = SecretKey::generate(&mut rng());
        let public = secret.public();
        assert!(public.to_string().starts_with("nurl1"));
        assert!(secret.to_text().starts_with("nurl-secret-1"));
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert_eq!(secret.to_text().parse::<SecretKey>().unwrap().public(), public);
        assert_eq!(public.short().len(), 8);
    }

    #[test]
    fn one_kind_of_key_is_not_taken_for_the_other() {
        let secret = SecretKey::generate(&mut rng());
        assert!(matches!(secret.to_text().parse::<PublicKey>(), Err(KeyError::Text { .. })));
        assert!(matches!(secret.public().to_string().parse::<SecretKey>(), Err(KeyError::Text { .. })));
    }

    #[test]
    fn debug_never_shows_a_secret() {
        let secret = SecretKey::generate(&mut rng());
        let shown = format!("{secret:?}");
        assert!(!shown.contains(&secret.to_text()[14..30]), "{shown}");
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = SecretKey::load_or_create(&path, &mut rng()).unwrap();
        assert_eq!(disk::mode(&path).unwrap(), 0o600);
        let second = SecretKey::generate(&mut crate::rt::rng("test"));
        assert!(matches!(second.save_new(&path), Err(KeyError::File { .. })));
        assert_eq!(SecretKey::load_or_create(&path, &mut rng()).unwrap().public(), first.public());
    }

    proptest! {
        #[test]
        fn one_mistyped_character_is_an_error(bytes: [u8; 32], at in 5usize..63, by in 1u8..32) {
            const ALPHABET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
            let mut text = PublicKey(bytes).to_string().into_bytes();
            let at = at.min(text.len() - 1);
            let now = ALPHABET.iter().position(|c| *c == text[at]).unwrap();
            text[at] = ALPHABET[(now + by as usize) % 32];
            let mistyped = String::from_utf8(text).unwrap();
            prop_assert!(mistyped.parse::<PublicKey>().is_err());
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in "\\PC{0,200}") {
            let _ = text.parse::<PublicKey>();
            let _ = text.parse::<SecretKey>();
        }
    }
}
