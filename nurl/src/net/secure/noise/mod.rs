//! The handshakes: `Noise_IKpsk2_25519_ChaChaPoly_SHA256` between peers, [`Ik`] without the pre-shared key for
//! control connections (Noise revision 34), run by `snow` over our own primitives.
//!
//! **Guarantees.** The initiator knows the responder's static key beforehand and hides its own. Both ends
//! derive the same two transport keys. A refused message leaves the handshake unchanged, so a forged message 2
//! never kills a pending handshake. The pre-shared key is mixed at `psk2`, so it is needed only when message 2
//! is written or read, and a change of it applies to pending handshakes. An all-zero Diffie-Hellman output is
//! an error, as RFC 7748 §6.1 allows.
//!
//! **How.** snow asks a resolver for X25519, ChaCha20-Poly1305, SHA-256 and randomness (`resolver.rs`). Two
//! backends supply them, always compiled and tested against each other ([`backend`]): aws-lc-rs, and the
//! portable x25519-dalek with chacha20poly1305; the feature `portable-crypto` selects the default. The caller
//! draws the ephemeral key from the core's generator, and the resolver yields it exactly once, so a run can be
//! replayed. The responder reads message 1 in two steps. [`Responder::peek`] stops after one Diffie-Hellman,
//! when the initiator's static key is known and no further computation was done. [`Responder::admit`]
//! continues from there, with the static-static secret from the caller's cache if it is there.
//!
//! **Limits.** The module keeps no state between handshakes: cookies, timestamps and budgets are the caller's
//! task.

pub mod backend;
mod handshake;
mod ik;
mod resolver;

pub use backend::{AeadKey, Backend, OpenFailed, SharedSecret, StaticKey};
pub use handshake::{Initiator, MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD, Responder, TransportKeys};
pub use ik::Ik;

/// Why a handshake message was refused or couldn't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// A wrong length or a failed authentication: another key, another mesh, another PSK, or garbage.
    #[error("the handshake message doesn't authenticate")]
    Message,
    /// A Diffie-Hellman with a point of small order: its output would be zero.
    #[error("a key in the handshake has small order")]
    ZeroOutput,
    /// A call out of order, or a buffer that is too small: a defect of the caller.
    #[error("the handshake was driven out of order")]
    State,
}

#[cfg(test)]
mod tests;
