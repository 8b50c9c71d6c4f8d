//! The control connection: Noise IK over a byte stream, between a client and the hub whose key it pins.
//!
//! Guarantees: after the handshake both sides know the other's key, and every byte of a frame is authentic, in
//! order and confidential. A client connects only to the hub that holds the pinned key. A hub knows that a client
//! holds its key only once a *transport* message decrypts: anyone who saw message 1 can replay it, so the key is
//! unproven until then.
//!
//! How: `Noise_IK_25519_ChaChaPoly_SHA256`, prologue `"nurl/2 hub"`, empty handshake payloads. On the stream each
//! Noise message follows its length, 16 bits big-endian (Noise §13). The plaintext of a transport message is a
//! sequence of frames ([`frames`], [`table`]): up to [`MAX_PLAINTEXT_BYTES`], so that one write system call carries many.
//!
//! A [`Connection`] is pure: bytes in by [`Connection::handle_bytes`], plaintexts out by
//! [`Connection::poll_message`], bytes to write by [`Connection::poll_write`] and [`Connection::seal`]. It keeps a
//! partial message for as long as the stream lives: there is no timeout between a header and its body that could
//! desynchronise it. Its memory is bounded by the bytes that arrived: a header reserves nothing. Any error is
//! final.

pub mod frames;
pub mod table;
#[cfg(test)]
mod tests;
mod told;

use rand_core::Rng as _;

use crate::key::{PublicKey, SecretKey};
use crate::net::secure::noise::backend::TAG_LEN;
use crate::net::secure::noise::{
    AeadKey, Backend, Ik, MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD, NoiseError, StaticKey,
};
use crate::rt::{self, Rng};

/// The Noise prologue of a control connection.
pub const PROLOGUE: &[u8] = b"nurl/2 hub";

/// Noise messages are at most 65,535 bytes (Noise §3); without the AEAD's tag of 16 so much plaintext is left. It
/// also limits a relay frame with its header: frames never span messages.
pub const MAX_PLAINTEXT_BYTES: usize = 65_519;

/// Bytes of the length before each Noise message.
pub const LENGTH_BYTES: usize = 2;

/// Handshake messages carry no payload, so another length means another protocol.
const MESSAGE_1_BYTES: usize = MESSAGE_1_OVERHEAD;
const MESSAGE_2_BYTES: usize = MESSAGE_2_OVERHEAD;

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A handshake message with a length that this protocol doesn't have.
    #[error("the other side doesn't speak this protocol (a handshake message of {0} bytes)")]
    NotOurProtocol(usize),
    /// The handshake failed: the other side holds another key than expected, or the bytes were changed.
    #[error("the handshake failed: another key than the pinned one, or changed bytes")]
    Handshake,
    /// A transport message failed to decrypt.
    #[error("a message failed its authentication")]
    Decrypt,
    /// A transport message shorter than its tag.
    #[error("a message of {0} bytes is too short")]
    TooShort(usize),
    /// Sealing was attempted before the handshake was done, or with more than a message holds.
    #[error("the connection can't carry this now")]
    NotReady,
    /// All nonces of one direction are used up (2^64 − 1 messages).
    #[error("all nonces are used up")]
    Exhausted,
}

enum State {
    /// Server: waits for message 1.
    AwaitFirst(Box<Ik>),
    /// Client: waits for message 2.
    AwaitSecond(Box<Ik>),
    Open {
        peer: PublicKey,
        sealer: Direction,
        opener: Direction,
    },
    Failed(ControlError),
}

/// One direction of the open connection.
struct Direction {
    cipher: AeadKey,
    nonce: u64,
}

impl Direction {
    fn new(cipher: AeadKey) -> Direction {
        Direction { cipher, nonce: 0 }
    }

    /// The next nonce. 2^64 − 1 is reserved (Noise §5.1).
    fn next(&mut self) -> Result<u64, ControlError> {
        let nonce = self.nonce;
        self.nonce = nonce.checked_add(1).ok_or(ControlError::Exhausted)?;
        Ok(nonce)
    }
}

/// One side of a control connection.
pub struct Connection {
    state: State,
    /// Bytes that arrived and aren't consumed yet; the next message begins at `at`.
    inbox: Vec<u8>,
    at: usize,
    outbox: Vec<u8>,
    proven: bool,
}

impl Connection {
    /// The client's side; message 1 is ready for [`poll_write`](Connection::poll_write) at once.
    ///
    /// # Errors
    /// [`ControlError::Handshake`] when `hub` is a key of small order.
    pub fn client(key: &SecretKey, hub: &PublicKey, rng: &mut Rng) -> Result<Connection, ControlError> {
        let mut noise = own_key(key)
            .and_then(|key| Ik::initiator(&key, hub, PROLOGUE, ephemeral(rng)))
            .map_err(|_| ControlError::Handshake)?;
        let mut outbox = Vec::new();
        write_handshake(&mut noise, MESSAGE_1_BYTES, &mut outbox)?;
        Ok(Connection::in_state(State::AwaitSecond(Box::new(noise)), outbox))
    }

    /// The hub's side.
    ///
    /// # Errors
    /// [`ControlError::Handshake`] when the crypto backend refuses the key.
    pub fn server(key: &SecretKey, rng: &mut Rng) -> Result<Connection, ControlError> {
        let noise = own_key(key)
            .and_then(|key| Ik::responder(&key, PROLOGUE, ephemeral(rng)))
            .map_err(|_| ControlError::Handshake)?;
        Ok(Connection::in_state(State::AwaitFirst(Box::new(noise)), Vec::new()))
    }

    fn in_state(state: State, outbox: Vec<u8>) -> Connection {
        Connection { state, inbox: Vec::new(), at: 0, outbox, proven: false }
    }

    /// The other side's key, once the handshake is done.
    pub fn peer(&self) -> Option<PublicKey> {
        match &self.state {
            State::Open { peer, .. } => Some(*peer),
            _ => None,
        }
    }

    /// Whether the other side has proved that it holds its key and is live: one of its transport messages has
    /// decrypted. For a client, message 2 is the proof.
    #[cfg(test)]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Buffers bytes of the stream, in any portions.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Failed(_)) {
            self.inbox.extend_from_slice(bytes);
        }
    }

    /// Handles the next whole message; a transport message's plaintext replaces the content of `plaintext`.
    /// `false`: no whole message is left. Call it until then after each
    /// [`handle_bytes`](Connection::handle_bytes).
    ///
    /// # Errors
    /// Any [`ControlError`]; the connection is over then, and later calls repeat the error.
    pub fn poll_message(&mut self, plaintext: &mut Vec<u8>) -> Result<bool, ControlError> {
        loop {
            if let State::Failed(error) = self.state {
                return Err(error);
            }
            match self.poll_once(plaintext) {
                Ok(Some(false)) => {}
                Ok(Some(true)) => return Ok(true),
                Ok(None) => {
                    // Consumed bytes are removed in one move, not one for each message.
                    self.inbox.drain(..self.at);
                    self.at = 0;
                    return Ok(false);
                }
                Err(error) => {
                    self.state = State::Failed(error);
                    self.inbox = Vec::new();
                    return Err(error);
                }
            }
        }
    }

    /// Handles the message that begins at `at` and says whether it was a transport message; `None` if it isn't
    /// complete yet.
    fn poll_once(&mut self, plaintext: &mut Vec<u8>) -> Result<Option<bool>, ControlError> {
        let Some(len) = self.whole_message()? else { return Ok(None) };
        let from = self.at + LENGTH_BYTES;
        self.at = from + len;
        self.handle_message(from..from + len, plaintext).map(Some)
    }

    /// The length of the message that begins at `at`, if it is complete. Its two length bytes already reveal
    /// another protocol, whose message might never be complete.
    fn whole_message(&self) -> Result<Option<usize>, ControlError> {
        let rest = &self.inbox[self.at..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*length));
        let fits = match self.state {
            State::AwaitFirst(_) => len == MESSAGE_1_BYTES,
            State::AwaitSecond(_) => len == MESSAGE_2_BYTES,
            _ => true,
        };
        if !fits {
            return Err(ControlError::NotOurProtocol(len));
        }
        Ok((rest.len() >= len).then_some(len))
    }

    /// Handles one message and says whether it was a transport message.
    fn handle_message(
        &mut self,
        range: std::ops::Range<usize>,
        plaintext: &mut Vec<u8>,
    ) -> Result<bool, ControlError> {
        let message = &self.inbox[range];
        match &mut self.state {
            State::AwaitFirst(noise) => {
                read_handshake(noise, message)?;
                write_handshake(noise, MESSAGE_2_BYTES, &mut self.outbox)?;
                self.state = open(noise)?;
                Ok(false)
            }
            State::AwaitSecond(noise) => {
                read_handshake(noise, message)?;
                self.state = open(noise)?;
                self.proven = true;
                Ok(false)
            }
            State::Open { opener, .. } => {
                if message.len() < TAG_LEN {
                    return Err(ControlError::TooShort(message.len()));
                }
                plaintext.clear();
                plaintext.extend_from_slice(message);
                let nonce = opener.next()?;
                let len = opener.cipher.open(nonce, &[], plaintext).map_err(|_| ControlError::Decrypt)?;
                plaintext.truncate(len);
                self.proven = true;
                Ok(true)
            }
            State::Failed(error) => Err(*error),
        }
    }

    /// Appends the handshake bytes that wait to be written.
    pub fn poll_write(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outbox);
    }

    /// Appends one sealed message with its length to `out`.
    ///
    /// # Errors
    /// [`ControlError::NotReady`] before the handshake is done or over [`MAX_PLAINTEXT_BYTES`].
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), ControlError> {
        self.seal_in_place(out, |out| out.extend_from_slice(plaintext))
    }

    /// Appends one sealed message with its length to `out`. `fill` appends the plaintext, which is encrypted where it
    /// stands.
    ///
    /// # Errors
    /// Those of [`seal`](Connection::seal); nothing is appended then.
    pub fn seal_in_place(
        &mut self,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), ControlError> {
        let State::Open { sealer, .. } = &mut self.state else { return Err(ControlError::NotReady) };
        let begin = out.len();
        let from = begin + LENGTH_BYTES;
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        fill(out);
        let len = out.len() - from;
        if len > MAX_PLAINTEXT_BYTES {
            out.truncate(begin);
            return Err(ControlError::NotReady);
        }
        let nonce = sealer.next().inspect_err(|_| out.truncate(begin))?;
        let text = rt::is_read().then(|| told::plaintext(&out[from..]));
        out[begin..from].copy_from_slice(&((len + TAG_LEN) as u16).to_be_bytes());
        let tag = sealer.cipher.seal(nonce, &[], &mut out[from..]);
        out.extend_from_slice(&tag);
        if let Some(text) = text {
            rt::label(&out[begin..], || text);
        }
        Ok(())
    }

    #[cfg(test)]
    fn reserved_bytes(&self) -> usize {
        self.inbox.capacity()
    }
}

fn own_key(key: &SecretKey) -> Result<StaticKey, NoiseError> {
    StaticKey::new(Backend::DEFAULT, key)
}

fn ephemeral(rng: &mut Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn write_handshake(noise: &mut Ik, len: usize, out: &mut Vec<u8>) -> Result<(), ControlError> {
    let begin = out.len();
    out.extend_from_slice(&(len as u16).to_be_bytes());
    noise.write(len, out).map_err(|_| ControlError::Handshake)?;
    rt::label(&out[begin..], || "handshake of a control connection".to_owned());
    Ok(())
}

fn read_handshake(noise: &mut Ik, message: &[u8]) -> Result<(), ControlError> {
    noise.read(message).map_err(|_| ControlError::Handshake)
}

fn open(noise: &mut Ik) -> Result<State, ControlError> {
    let (peer, keys) = noise.finish().map_err(|_| ControlError::Handshake)?;
    let (sealer, opener) = keys.ciphers();
    Ok(State::Open { peer, sealer: Direction::new(sealer), opener: Direction::new(opener) })
}
