//! `Noise_IK_25519_ChaChaPoly_SHA256`: the control connection's handshake, over the same primitives.
//!
//! Any client that has the responder's key may begin, so there is neither a pre-shared key nor a gate.
//! Messages carry no payload.

use std::fmt;

use snow::HandshakeState;

use super::NoiseError;
use super::backend::{Backend, StaticKey};
use super::handshake::{MESSAGE_1_OVERHEAD, TransportKeys, build, cause};
use super::resolver::{Shared, SharedRef};
use crate::key::PublicKey;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_SHA256";

/// One side of an IK handshake.
pub struct Ik {
    state: Box<HandshakeState>,
    shared: SharedRef,
    backend: Backend,
}

impl Ik {
    /// The initiator's side, which knows the responder's key. `ephemeral` must be fresh from the core's
    /// generator.
    ///
    /// # Errors
    /// [`NoiseError::State`] if the library refuses the parameters.
    pub fn initiator(
        key: &StaticKey,
        remote: &PublicKey,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Ik, NoiseError> {
        Ik::start(key, Some(remote), prologue, ephemeral, Shared::default())
    }

    /// The responder's side, which accepts every key.
    ///
    /// # Errors
    /// The same as [`initiator`](Ik::initiator).
    pub fn responder(key: &StaticKey, prologue: &[u8], ephemeral: [u8; 32]) -> Result<Ik, NoiseError> {
        let shared = Shared { responder: true, admitted: true, ..Shared::default() };
        Ik::start(key, None, prologue, ephemeral, shared)
    }

    fn start(
        key: &StaticKey,
        remote: Option<&PublicKey>,
        prologue: &[u8],
        ephemeral: [u8; 32],
        shared: Shared,
    ) -> Result<Ik, NoiseError> {
        let shared = SharedRef::new(shared.into());
        let state = Box::new(build(PATTERN, key, remote, prologue, ephemeral, &shared)?);
        Ok(Ik { state, shared, backend: key.backend() })
    }

    /// Appends the next message, of `len` bytes, to `out`.
    ///
    /// # Errors
    /// [`NoiseError::ZeroOutput`] when the other side's key has small order; [`NoiseError::State`] when the
    /// call is out of order or the message has another length.
    pub fn write(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), NoiseError> {
        let start = out.len();
        out.resize(start + len, 0);
        match self.state.write_message(&[], &mut out[start..]) {
            Ok(written) if written == len => Ok(()),
            refused => {
                out.truncate(start);
                Err(refused.map_or_else(|error| cause(&self.shared, &error), |_| NoiseError::State))
            }
        }
    }

    /// Reads the other side's next message.
    ///
    /// # Errors
    /// [`NoiseError::Message`] or [`NoiseError::ZeroOutput`].
    pub fn read(&mut self, message: &[u8]) -> Result<(), NoiseError> {
        let mut payload = [0; MESSAGE_1_OVERHEAD];
        self.state.read_message(message, &mut payload).map_err(|error| cause(&self.shared, &error))?;
        Ok(())
    }

    /// The other side's key and the transport keys, after both messages.
    ///
    /// # Errors
    /// [`NoiseError::State`] before that.
    pub fn finish(&mut self) -> Result<(PublicKey, TransportKeys), NoiseError> {
        if !self.state.is_handshake_finished() {
            return Err(NoiseError::State);
        }
        let peer = self.state.get_remote_static().and_then(PublicKey::from_slice).ok_or(NoiseError::State)?;
        Ok((peer, TransportKeys::split(&mut self.state, self.backend)))
    }
}

impl fmt::Debug for Ik {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ik(…)")
    }
}
