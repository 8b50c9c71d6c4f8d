//! Both roles of one handshake, from the first message to the two transport keys.

use std::fmt;

use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::NoiseError;
use super::backend::{AeadKey, Backend, SharedSecret, StaticKey, TAG_LEN};
use super::resolver::{Resolver, Shared, SharedRef, lock};
use crate::key::PublicKey;

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_SHA256";

/// The pre-shared key's position in snow's table, for psk2.
const PSK_PLACE: usize = 2;

/// The bytes that message 1 adds to its payload: e, encrypted s with tag, and the payload's tag.
pub const MESSAGE_1_OVERHEAD: usize = 32 + 32 + TAG_LEN + TAG_LEN;

/// The bytes that message 2 adds to its payload: e and the payload's tag.
pub const MESSAGE_2_OVERHEAD: usize = 32 + TAG_LEN;

/// The two keys of a finished handshake (Noise §5.2, Split), one for each direction.
pub struct TransportKeys {
    backend: Backend,
    send: Zeroizing<[u8; 32]>,
    receive: Zeroizing<[u8; 32]>,
}

impl TransportKeys {
    /// Takes keys from another source, for tests and benchmarks of the record layer.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn from_bytes(backend: Backend, send: [u8; 32], receive: [u8; 32]) -> TransportKeys {
        TransportKeys { backend, send: Zeroizing::new(send), receive: Zeroizing::new(receive) }
    }

    /// The ciphers to seal and to open with.
    pub fn ciphers(&self) -> (AeadKey, AeadKey) {
        (AeadKey::new(self.backend, &self.send), AeadKey::new(self.backend, &self.receive))
    }

    pub(super) fn split(state: &mut HandshakeState, backend: Backend) -> TransportKeys {
        let (from_initiator, from_responder) = state.dangerously_get_raw_split();
        let (a, b) = (Zeroizing::new(from_initiator), Zeroizing::new(from_responder));
        if state.is_initiator() {
            TransportKeys { backend, send: a, receive: b }
        } else {
            TransportKeys { backend, send: b, receive: a }
        }
    }
}

impl fmt::Debug for TransportKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKeys(…)")
    }
}

pub(super) fn build(
    pattern: &str,
    key: &StaticKey,
    remote: Option<&PublicKey>,
    prologue: &[u8],
    ephemeral: [u8; 32],
    shared: &SharedRef,
) -> Result<HandshakeState, NoiseError> {
    let params = pattern.parse().map_err(|_| NoiseError::State)?;
    let resolver = Resolver::new(key, ephemeral, shared.clone());
    // The resolver holds the static key; snow only checks that a key is set.
    let builder = Builder::with_resolver(params, Box::new(resolver))
        .local_private_key(&[])
        .and_then(|builder| builder.prologue(prologue))
        .map_err(|_| NoiseError::State)?;
    match remote {
        Some(remote) => builder
            .remote_public_key(remote.as_bytes())
            .and_then(Builder::build_initiator)
            .map_err(|_| NoiseError::State),
        None => builder.build_responder().map_err(|_| NoiseError::State),
    }
}

/// Why the last step failed: the error that a `Dh` recorded, else a bad message.
pub(super) fn cause(shared: &SharedRef, error: &snow::Error) -> NoiseError {
    match (lock(shared).failure.take(), error) {
        (Some(failure), _) => failure,
        (None, snow::Error::State(_) | snow::Error::Rng | snow::Error::Init(_)) => NoiseError::State,
        (None, _) => NoiseError::Message,
    }
}

/// A handshake that we began: message 1 is sent, message 2 is awaited.
pub struct Initiator {
    state: Box<HandshakeState>,
    shared: SharedRef,
    backend: Backend,
}

impl Initiator {
    /// Begins, and appends message 1 with `payload` to `out`. `ephemeral` must be fresh from the core's
    /// generator; `ss` is the static-static secret of a former handshake, if cached.
    ///
    /// # Errors
    /// [`NoiseError::ZeroOutput`] when `remote` has small order.
    pub fn start(
        key: &StaticKey,
        remote: &PublicKey,
        ss: Option<SharedSecret>,
        prologue: &[u8],
        ephemeral: [u8; 32],
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Initiator, NoiseError> {
        let shared = SharedRef::new(Shared { ss, ..Shared::default() }.into());
        let mut state = Box::new(build(PATTERN, key, Some(remote), prologue, ephemeral, &shared)?);
        let start = out.len();
        out.resize(start + MESSAGE_1_OVERHEAD + payload.len(), 0);
        if let Err(error) = state.write_message(payload, &mut out[start..]) {
            out.truncate(start);
            return Err(cause(&shared, &error));
        }
        Ok(Initiator { state, shared, backend: key.backend() })
    }

    /// Reads message 2. A refused message leaves the handshake unchanged.
    ///
    /// # Errors
    /// [`NoiseError::Message`] or [`NoiseError::ZeroOutput`].
    pub fn read_response(
        &mut self,
        psk: &[u8; 32],
        message: &[u8],
        payload: &mut [u8],
    ) -> Result<(usize, TransportKeys), NoiseError> {
        self.state.set_psk(PSK_PLACE, psk).map_err(|_| NoiseError::State)?;
        // Message 1 already used ss, so the static key's next agreement is se.
        lock(&self.shared).static_calls = 1;
        let len = self.state.read_message(message, payload).map_err(|error| cause(&self.shared, &error))?;
        Ok((len, TransportKeys::split(&mut self.state, self.backend)))
    }

    /// The static-static secret, for the caller's cache.
    pub fn shared_secret(&self) -> Option<SharedSecret> {
        lock(&self.shared).ss.clone()
    }

    /// Diffie-Hellmans done since the last call.
    pub fn take_dh_count(&mut self) -> u64 {
        std::mem::take(&mut lock(&self.shared).dh)
    }

    /// The hash of the transcript so far.
    #[cfg(test)]
    pub fn handshake_hash(&self) -> &[u8] {
        self.state.get_handshake_hash()
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(…)")
    }
}

/// A handshake that the peer began.
pub struct Responder {
    state: Box<HandshakeState>,
    shared: SharedRef,
    backend: Backend,
    initiator: PublicKey,
    message: Vec<u8>,
}

impl Responder {
    /// Reads message 1 only until the initiator's static key is known: one Diffie-Hellman. Whether the
    /// initiator holds that key isn't proved yet.
    ///
    /// # Errors
    /// [`NoiseError::Message`] or [`NoiseError::ZeroOutput`].
    pub fn peek(
        key: &StaticKey,
        prologue: &[u8],
        ephemeral: [u8; 32],
        message: &[u8],
    ) -> Result<Responder, NoiseError> {
        let shared = SharedRef::new(Shared { responder: true, ..Shared::default() }.into());
        let mut state = Box::new(build(PATTERN, key, None, prologue, ephemeral, &shared)?);
        let mut payload = Zeroizing::new(vec![0; message.len()]);
        match state.read_message(message, &mut payload) {
            Ok(_) => Err(NoiseError::State),
            Err(error) => {
                let seen = lock(&shared).seen;
                let initiator = seen.ok_or_else(|| cause(&shared, &error))?;
                let message = message.to_vec();
                Ok(Responder { state, shared, backend: key.backend(), initiator, message })
            }
        }
    }

    /// The static key that the initiator claims.
    pub fn initiator(&self) -> &PublicKey {
        &self.initiator
    }

    /// Admits that key: reads the rest of message 1 and its payload. With a cached `ss` this costs no
    /// Diffie-Hellman, otherwise one.
    ///
    /// # Errors
    /// [`NoiseError::Message`] when the claim was false, or [`NoiseError::ZeroOutput`].
    pub fn admit(&mut self, ss: Option<SharedSecret>, payload: &mut [u8]) -> Result<usize, NoiseError> {
        {
            let mut shared = lock(&self.shared);
            shared.admitted = true;
            shared.static_calls = 0;
            shared.ss = ss;
        }
        self.state.read_message(&self.message, payload).map_err(|error| cause(&self.shared, &error))
    }

    /// Appends message 2 with `payload` to `out`: two Diffie-Hellmans.
    ///
    /// # Errors
    /// [`NoiseError::State`] before [`admit`](Responder::admit), or [`NoiseError::ZeroOutput`].
    pub fn respond(
        &mut self,
        psk: &[u8; 32],
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<TransportKeys, NoiseError> {
        self.state.set_psk(PSK_PLACE, psk).map_err(|_| NoiseError::State)?;
        let start = out.len();
        out.resize(start + MESSAGE_2_OVERHEAD + payload.len(), 0);
        if let Err(error) = self.state.write_message(payload, &mut out[start..]) {
            out.truncate(start);
            return Err(cause(&self.shared, &error));
        }
        Ok(TransportKeys::split(&mut self.state, self.backend))
    }

    /// The static-static secret, for the caller's cache; proven only once [`admit`](Responder::admit)
    /// succeeded.
    pub fn shared_secret(&self) -> Option<SharedSecret> {
        lock(&self.shared).ss.clone()
    }

    /// Diffie-Hellmans done since the last call.
    pub fn take_dh_count(&mut self) -> u64 {
        std::mem::take(&mut lock(&self.shared).dh)
    }

    /// The hash of the transcript so far.
    #[cfg(test)]
    pub fn handshake_hash(&self) -> &[u8] {
        self.state.get_handshake_hash()
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder(to {:?})", self.initiator)
    }
}
