//! The record layer: seals and opens frames with the keys of one finished handshake.
//!
//! **Guarantees.** A frame is delivered at most once, on whichever leg and in whatever order it arrives. Its 13-byte
//! header is authenticated. A counter is never used twice. Keys older than [`REJECT_AFTER`] or used beyond
//! [`REJECT_AFTER_MESSAGES`] neither seal nor open frames.
//!
//! **How.** A frame is `0xC4 ‖ receiver index:4 ‖ counter:8 ‖ ciphertext ‖ tag:16`, ChaCha20-Poly1305 with the
//! counter as nonce and the header as associated data. Sealing appends the frame to the caller's batch buffer,
//! opening works in the received datagram: no allocation, and no copy except the body's. Both legs of a path share
//! one counter, so the [replay window](crate::kit::window) reaches 65,536 back. It is checked before the AEAD, so a replay
//! costs nothing, and committed after it, so a forgery changes nothing.
//!
//! **Limits.** It has no notion of peers, routes or channels; [`securedgram`](super::securedgram) has.

use std::time::{Duration, Instant};

use super::noise::{AeadKey, TransportKeys};
use crate::kit::window::ReplayWindow;
use crate::rt::{self, Cost};

mod lateness;

pub use lateness::LATE_AFTER;
pub(in crate::layers::net) use lateness::Lateness;

/// The first byte of a data frame.
pub const DATA_FRAME: u8 = 0xC4;

/// `0xC4 ‖ receiver index ‖ counter`: the associated data.
pub const HEADER_LEN: usize = 13;

pub use super::noise::backend::TAG_LEN;

/// The bytes that a frame adds to its plaintext.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// The age at which the initiator of a session begins the next one (WireGuard §6.1). A longer time would keep more
/// traffic under one key; a shorter one would cost handshakes.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The age at which keys expire: they neither seal nor open any more (WireGuard §6.1). A rekeying that began in time
/// has a minute to complete.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);

/// Sealed messages after which the next session is begun (WireGuard §6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// Counters at or above this are neither used nor accepted (WireGuard §6.1), long before they could wrap.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The widest replay window, in counters: at 1 Gbit/s a frame that takes 100 ms longer through the relay is 10,000
/// packets late, and at 100,000 packets a second 500 ms are 50,000.
const WINDOW_BITS: u64 = 65_536;

/// The leg that a frame came by. The highest counter is kept for each leg, because a relayed frame is always late
/// against a direct one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// Over UDP.
    Direct,
    /// Through a hub.
    Relay,
}

/// Why a session refused to seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Older than [`REJECT_AFTER`], or [`REJECT_AFTER_MESSAGES`] were sealed: a new handshake is due.
    #[error("the session's keys are worn out")]
    Expired,
}

/// Why a session refused a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short to be a frame.
    #[error("the frame is too short")]
    Short,
    /// The keys are worn out.
    #[error("the session's keys are worn out")]
    Expired,
    /// Seen before, or older than the window. It may be the second copy of a frame that was sent on two routes.
    #[error("the frame was seen before or is too old")]
    Replay,
    /// It doesn't authenticate.
    #[error("the frame doesn't authenticate")]
    Forged,
}

/// The order of a frame relative to earlier arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Whether the counter is the highest so far on its leg.
    pub newest_on_leg: bool,
    /// Whether a frame that was sealed later arrived [`LATE_AFTER`] earlier, on either leg. A late frame shows the
    /// past state of its path, not the present one.
    pub late: bool,
}

/// The content of an opened frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The plaintext's length; it begins at [`HEADER_LEN`].
    pub len: usize,
    /// The frame's order relative to earlier arrivals.
    pub freshness: Freshness,
}

/// One end of a session.
#[derive(Debug)]
pub struct Session {
    seal: AeadKey,
    open: AeadKey,
    local_index: u32,
    header: [u8; 5],
    initiator: bool,
    created: Instant,
    next_counter: u64,
    window: ReplayWindow,
    highest_on_leg: [Option<u64>; 2],
    lateness: Lateness,
}

impl Session {
    /// Takes over a finished handshake. `local_index` is the index that the peer puts into frames to us,
    /// `remote_index` the one that we put into frames to the peer.
    pub fn new(
        keys: &TransportKeys,
        local_index: u32,
        remote_index: u32,
        initiator: bool,
        now: Instant,
    ) -> Session {
        let (seal, open) = keys.ciphers();
        let mut header = [DATA_FRAME; 5];
        header[1..].copy_from_slice(&remote_index.to_le_bytes());
        Session {
            seal,
            open,
            local_index,
            header,
            initiator,
            created: now,
            next_counter: 0,
            window: ReplayWindow::new(WINDOW_BITS),
            highest_on_leg: [None; 2],
            lateness: Lateness::default(),
        }
    }

    /// The index by which the peer addresses this session.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index by which we address this session in frames to the peer.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn remote_index(&self) -> u32 {
        u32::from_le_bytes([self.header[1], self.header[2], self.header[3], self.header[4]])
    }

    /// Whether we began the handshake.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// When the keys were made.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Whether the keys have expired.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.created) >= REJECT_AFTER
            || self.next_counter >= REJECT_AFTER_MESSAGES
    }

    /// Whether so much was sealed that the next session is due.
    pub fn is_spent(&self) -> bool {
        self.next_counter >= REKEY_AFTER_MESSAGES
    }

    /// Whether an authentic frame came on `leg`.
    pub fn heard_on(&self, leg: Leg) -> bool {
        self.highest_on_leg[leg as usize].is_some()
    }

    /// Whether any authentic frame came: the peer has the keys.
    pub fn is_heard(&self) -> bool {
        self.highest_on_leg.iter().any(Option::is_some)
    }

    /// Whether the first authentic frame came so long ago that any frame of the previous session is late.
    pub fn is_past_start(&self, now: Instant) -> bool {
        self.lateness.is_past_start(now)
    }

    /// Appends one frame with the plaintext `prefix ‖ body` to `out`.
    ///
    /// # Errors
    /// [`SessionError::Expired`]; `out` is untouched.
    pub fn seal(
        &mut self,
        now: Instant,
        prefix: &[u8],
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        if self.is_expired(now) {
            return Err(SessionError::Expired);
        }
        let counter = self.next_counter;
        self.next_counter += 1;
        let mut header = [0; HEADER_LEN];
        header[..5].copy_from_slice(&self.header);
        header[5..].copy_from_slice(&counter.to_le_bytes());

        let start = out.len() + HEADER_LEN;
        out.reserve(OVERHEAD + prefix.len() + body.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(prefix);
        out.extend_from_slice(body);
        rt::cost(Cost::SealedByte, out.len() - start);
        let tag = self.seal.seal(counter, &header, &mut out[start..]);
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens one frame in place.
    ///
    /// # Errors
    /// Why the frame was refused. The session is unchanged then; on [`OpenError::Forged`] the bytes are overwritten.
    pub fn open(&mut self, now: Instant, leg: Leg, frame: &mut [u8]) -> Result<Opened, OpenError> {
        if frame.len() < OVERHEAD {
            return Err(OpenError::Short);
        }
        let (header, text) = frame.split_at_mut(HEADER_LEN);
        let counter = u64::from_le_bytes(header[5..].try_into().map_err(|_| OpenError::Short)?);
        if counter >= REJECT_AFTER_MESSAGES || now.saturating_duration_since(self.created) >= REJECT_AFTER {
            return Err(OpenError::Expired);
        }
        if !self.window.would_accept(counter) {
            return Err(OpenError::Replay);
        }
        rt::cost(Cost::SealedByte, text.len());
        let len = self.open.open(counter, header, text).map_err(|_| OpenError::Forged)?;
        self.window.commit(counter);
        let highest = &mut self.highest_on_leg[leg as usize];
        let newest_on_leg = highest.is_none_or(|highest| counter > highest);
        if newest_on_leg {
            *highest = Some(counter);
        }
        let late = self.lateness.arrived(now, counter);
        Ok(Opened { len, freshness: Freshness { newest_on_leg, late } })
    }

    /// Sets the counter: tests can't seal 2^60 messages.
    #[cfg(test)]
    pub(crate) fn set_counter(&mut self, counter: u64) {
        self.next_counter = counter;
    }
}

#[cfg(test)]
mod tests;
