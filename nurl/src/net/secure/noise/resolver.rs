//! The primitives that snow asks for: X25519, ChaCha20-Poly1305, SHA-256 and exactly one ephemeral key.
//!
//! Every handshake has its own resolver. Its static `Dh` shares a small [`Shared`] with the handshake: the
//! gate, at which a responder learns the initiator's key before it computes anything with it; the cached
//! static-static secret; and the count of Diffie-Hellmans done.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use super::NoiseError;
use super::backend::{AeadKey, Backend, SharedSecret, StaticKey, TAG_LEN};
use crate::key::PublicKey;
use crate::rt::{self, Cost};

/// State shared between a handshake and the primitives inside its snow state.
#[derive(Default)]
pub(super) struct Shared {
    /// Whether the static key is the responder's: then its second agreement is the gate.
    pub(super) responder: bool,
    /// Agreements of the static key in the message being read.
    pub(super) static_calls: u8,
    /// The responder's first agreement, kept so that a second reading of message 1 costs nothing.
    pub(super) es: Option<SharedSecret>,
    /// The static-static secret, from the caller's cache or computed.
    pub(super) ss: Option<SharedSecret>,
    /// The initiator's static key, once the gate has seen it.
    pub(super) seen: Option<PublicKey>,
    /// Whether the caller admits that key.
    pub(super) admitted: bool,
    /// Diffie-Hellmans computed; cached ones don't count.
    pub(super) dh: u64,
    /// The failure of a `Dh`: snow's own error can't carry it.
    pub(super) failure: Option<NoiseError>,
}

pub(super) type SharedRef = Arc<Mutex<Shared>>;

pub(super) fn lock(shared: &SharedRef) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Resolver {
    backend: Backend,
    statics: Cell<Option<StaticKey>>,
    ephemeral: Cell<Option<Zeroizing<[u8; 32]>>>,
    shared: SharedRef,
}

impl Resolver {
    pub(super) fn new(key: &StaticKey, ephemeral: [u8; 32], shared: SharedRef) -> Resolver {
        Resolver {
            backend: key.backend(),
            statics: Cell::new(Some(key.clone())),
            ephemeral: Cell::new(Some(Zeroizing::new(ephemeral))),
            shared,
        }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneKey(self.ephemeral.take())))
    }

    /// snow calls this twice: first for the static key, then for the ephemeral one.
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let DHChoice::Curve25519 = choice else { return None };
        let shared = self.shared.clone();
        Some(match self.statics.take() {
            Some(key) => Box::new(StaticDh { key, shared }),
            None => Box::new(EphemeralDh { key: None, backend: self.backend, shared }),
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        let HashChoice::SHA256 = choice else { return None };
        Some(Box::new(Sha256Hash(Sha256::new())))
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let CipherChoice::ChaChaPoly = choice else { return None };
        Some(Box::new(ChaChaPoly { backend: self.backend, key: None }))
    }
}

/// Yields the key that the caller drew, once.
struct OneKey(Option<Zeroizing<[u8; 32]>>);

impl Random for OneKey {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let key = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != key.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(&*key);
        Ok(())
    }
}

fn fail(shared: &mut Shared, failure: NoiseError) -> Error {
    shared.failure = Some(failure);
    Error::Dh
}

fn agree(shared: &mut Shared, key: &StaticKey, theirs: &[u8]) -> Result<SharedSecret, Error> {
    let theirs = theirs.get(..32).and_then(PublicKey::from_slice).ok_or(Error::Dh)?;
    shared.dh += 1;
    rt::cost(Cost::KeyExchange, 1);
    key.agree(&theirs).map_err(|failure| fail(shared, failure))
}

struct StaticDh {
    key: StaticKey,
    shared: SharedRef,
}

impl StaticDh {
    fn agree(&self, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let shared = &mut *lock(&self.shared);
        shared.static_calls = shared.static_calls.saturating_add(1);
        match (shared.responder, shared.static_calls) {
            // The responder's es: kept, because message 1 is read again once its initiator is admitted.
            (true, 1) => {
                if shared.es.is_none() {
                    shared.es = Some(agree(shared, &self.key, theirs)?);
                }
                shared.es.clone().ok_or(Error::Dh)
            }
            // The responder's ss is the gate: here the initiator's static key first becomes known.
            (true, 2) if !shared.admitted => {
                shared.seen = theirs.get(..32).and_then(PublicKey::from_slice);
                Err(Error::Dh)
            }
            (true, 2) | (false, 1) => {
                if shared.ss.is_none() {
                    shared.ss = Some(agree(shared, &self.key, theirs)?);
                }
                shared.ss.clone().ok_or(Error::Dh)
            }
            _ => agree(shared, &self.key, theirs),
        }
    }
}

impl Dh for StaticDh {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {
        // The key pair is already here with its public half; snow's copy is a placeholder.
    }

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        Err(Error::Rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.key.public().as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        // Only snow's key generator would call this, and it isn't used.
        &[]
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let secret = self.agree(theirs)?;
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(&*secret);
        Ok(())
    }
}

struct EphemeralDh {
    key: Option<StaticKey>,
    backend: Backend,
    shared: SharedRef,
}

impl Dh for EphemeralDh {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {
        // snow sets fixed ephemerals only for tests; ours come from the resolver's generator.
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *bytes)?;
        self.key = Some(StaticKey::from_bytes(self.backend, &bytes).map_err(|_| Error::Dh)?);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |key| key.public().as_bytes())
    }

    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let key = self.key.as_ref().ok_or(Error::Dh)?;
        let secret = agree(&mut lock(&self.shared), key, theirs)?;
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(&*secret);
        Ok(())
    }
}

struct ChaChaPoly {
    backend: Backend,
    key: Option<AeadKey>,
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Some(AeadKey::new(self.backend, key));
    }

    fn encrypt(&self, nonce: u64, aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let key = self.key.as_ref().expect("snow sets a key before it encrypts");
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        rest[..TAG_LEN].copy_from_slice(&key.seal(nonce, aad, text));
        plaintext.len() + TAG_LEN
    }

    fn decrypt(&self, nonce: u64, aad: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.key.as_ref().ok_or(Error::Decrypt)?;
        // The handshake's ciphertexts are an encrypted key and a payload, so the cost of a copy is
        // negligible.
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let len = key.open(nonce, aad, &mut text).map_err(|_| Error::Decrypt)?;
        out.get_mut(..len).ok_or(Error::Decrypt)?.copy_from_slice(&text[..len]);
        Ok(len)
    }
}

struct Sha256Hash(Sha256);

impl Hash for Sha256Hash {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}
