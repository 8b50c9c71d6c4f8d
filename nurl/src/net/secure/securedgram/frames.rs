//! The wire layout of the frames, little-endian; other modules define their meaning.
//!
//! First bytes lie outside RFC 7983's ranges, so STUN, whose first byte is 0 or 1, shares the socket.
//!
//! | frame | layout |
//! | --- | --- |
//! | init | `0xC1, sender:4, noise message 1, mac1:16, mac2:16` |
//! | response | `0xC2, sender:4, receiver:4, noise message 2, mac1:16, mac2:16` |
//! | cookie | `0xC3, receiver:4, nonce:24, sealed:32` |
//! | data | `0xC4, receiver:4, counter:8, ciphertext, tag:16` |
//! | group | `0xC5, group tag:16, sender:32, boot:8, key id:8, counter:8, ciphertext, tag:16` |
//!
//! Each kind of handshake frame has a fixed length; a frame of another length is refused unread.

use crate::authority::credential::SHOWN_BYTES;
use crate::net::secure::noise::{MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD};
use crate::net::secure::session;

/// First byte of a handshake's first message.
pub const INIT: u8 = 0xC1;
/// First byte of a handshake's second message.
pub const RESPONSE: u8 = 0xC2;
/// First byte of a cookie reply, and of a challenge to a peer whose clock went back.
pub const COOKIE: u8 = 0xC3;
/// First byte of a data frame.
pub const DATA: u8 = session::DATA_FRAME;
/// First byte of a group frame; its content belongs to the group layer.
pub const GROUP: u8 = 0xC5;

/// The length of mac1 and of mac2.
pub const MAC_LEN: usize = 16;
/// `timestamp:12 ‖ boot:8 ‖ versions:2 ‖ features:2 ‖ challenge:16 ‖ credential`. The credential has one length, so that a length
/// tells nothing about a peer.
pub const INIT_PAYLOAD_LEN: usize = 40 + SHOWN_BYTES;
/// `boot:8 ‖ versions:2 ‖ features:2 ‖ credential`.
pub const RESPONSE_PAYLOAD_LEN: usize = 12 + SHOWN_BYTES;
/// An init frame's length.
pub const INIT_LEN: usize = 1 + 4 + MESSAGE_1_OVERHEAD + INIT_PAYLOAD_LEN + 2 * MAC_LEN;
/// A response frame's length: shorter than an init's, so that an answer never amplifies.
pub const RESPONSE_LEN: usize = 1 + 4 + 4 + MESSAGE_2_OVERHEAD + RESPONSE_PAYLOAD_LEN + 2 * MAC_LEN;
/// A cookie frame's length.
pub const COOKIE_LEN: usize = 1 + 4 + 24 + 32;
/// Where the counter of a group frame is. All before it is the same in each of a sender's frames.
pub const GROUP_COUNTER_AT: usize = 1 + 16 + 32 + 8 + 8;
/// The shortest group frame.
pub const MIN_GROUP_LEN: usize = 1 + 16 + 32 + 8 + 8 + 8 + 16;

/// The largest datagram that is processed. A relay carries no larger one; a longer datagram is a
/// coalescing error or garbage.
pub const MAX_DATAGRAM_BYTES: usize = 16 * 1024;

/// The body of one data frame must fit [`MAX_DATAGRAM_BYTES`] together with header, channel and tag.
pub const MAX_BODY_BYTES: usize = MAX_DATAGRAM_BYTES - session::OVERHEAD - 1;

/// The encrypted payload of an init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitPayload {
    /// Seconds and nanoseconds, big-endian so that they compare as bytes.
    pub timestamp: [u8; 12],
    /// The boot id of the sender's process.
    pub boot: u64,
    /// The versions that the sender speaks above the handshake, as they stand there: zeros from a program that says none.
    pub versions: [u8; 2],
    /// The sender's features.
    pub features: u16,
    /// The responder's challenge, returned; or zero.
    pub challenge: [u8; 16],
    /// The initiator's credential.
    pub shown: [u8; SHOWN_BYTES],
}

impl InitPayload {
    /// The encoding.
    pub fn encode(&self) -> [u8; INIT_PAYLOAD_LEN] {
        let mut out = [0; INIT_PAYLOAD_LEN];
        out[..12].copy_from_slice(&self.timestamp);
        out[12..20].copy_from_slice(&self.boot.to_le_bytes());
        out[20..22].copy_from_slice(&self.versions);
        out[22..24].copy_from_slice(&self.features.to_le_bytes());
        out[24..40].copy_from_slice(&self.challenge);
        out[40..].copy_from_slice(&self.shown);
        out
    }

    /// Reads the encoding.
    pub fn decode(bytes: &[u8; INIT_PAYLOAD_LEN]) -> InitPayload {
        let mut payload = InitPayload {
            timestamp: [0; 12],
            boot: 0,
            versions: [0; 2],
            features: 0,
            challenge: [0; 16],
            shown: [0; SHOWN_BYTES],
        };
        payload.timestamp.copy_from_slice(&bytes[..12]);
        payload.boot = u64::from_le_bytes(array(&bytes[12..20]));
        payload.versions.copy_from_slice(&bytes[20..22]);
        payload.features = u16::from_le_bytes(array(&bytes[22..24]));
        payload.challenge.copy_from_slice(&bytes[24..40]);
        payload.shown.copy_from_slice(&bytes[40..]);
        payload
    }
}

/// The encrypted payload of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsePayload {
    /// The boot id of the sender's process.
    pub boot: u64,
    /// The versions that the sender speaks above the handshake, likewise.
    pub versions: [u8; 2],
    /// The sender's features.
    pub features: u16,
    /// The responder's credential.
    pub shown: [u8; SHOWN_BYTES],
}

impl ResponsePayload {
    /// The encoding.
    pub fn encode(&self) -> [u8; RESPONSE_PAYLOAD_LEN] {
        let mut out = [0; RESPONSE_PAYLOAD_LEN];
        out[..8].copy_from_slice(&self.boot.to_le_bytes());
        out[8..10].copy_from_slice(&self.versions);
        out[10..12].copy_from_slice(&self.features.to_le_bytes());
        out[12..].copy_from_slice(&self.shown);
        out
    }

    /// Reads the encoding.
    pub fn decode(bytes: &[u8; RESPONSE_PAYLOAD_LEN]) -> ResponsePayload {
        let mut shown = [0; SHOWN_BYTES];
        shown.copy_from_slice(&bytes[12..]);
        ResponsePayload {
            boot: u64::from_le_bytes(array(&bytes[..8])),
            versions: array(&bytes[8..10]),
            features: u16::from_le_bytes(array(&bytes[10..12])),
            shown,
        }
    }
}

/// The kind of a datagram, by first byte and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// [`INIT_LEN`] bytes.
    Init,
    /// [`RESPONSE_LEN`] bytes.
    Response,
    /// [`COOKIE_LEN`] bytes.
    Cookie,
    /// Long enough for a header and a tag.
    Data,
    /// Long enough for a group frame's header and tag.
    Group,
}

/// Why a datagram is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRefusal {
    /// An empty datagram, or an unknown first byte.
    Unknown,
    /// A known first byte with a length that such a frame can't have.
    Length,
    /// Longer than [`MAX_DATAGRAM_BYTES`].
    Oversize,
}

/// Classifies a datagram by its first byte and its length.
///
/// # Errors
/// Why the datagram is no frame.
pub fn classify(datagram: &[u8]) -> Result<FrameKind, FrameRefusal> {
    let len = datagram.len();
    if len > MAX_DATAGRAM_BYTES {
        return Err(FrameRefusal::Oversize);
    }
    let (kind, fits) = match datagram.first() {
        Some(&DATA) => (FrameKind::Data, len >= session::OVERHEAD),
        Some(&INIT) => (FrameKind::Init, len == INIT_LEN),
        Some(&RESPONSE) => (FrameKind::Response, len == RESPONSE_LEN),
        Some(&COOKIE) => (FrameKind::Cookie, len == COOKIE_LEN),
        Some(&GROUP) => (FrameKind::Group, len >= MIN_GROUP_LEN),
        _ => return Err(FrameRefusal::Unknown),
    };
    if fits { Ok(kind) } else { Err(FrameRefusal::Length) }
}

/// The `u32` at `at`; the caller has checked the length.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..at + 4]))
}

/// The bytes as an array; the caller has checked the length.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice was cut to this length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_of_each_kind_has_its_own_length() {
        assert_eq!((INIT_LEN, RESPONSE_LEN, COOKIE_LEN), (477, 405, 61));
        let of = |first: u8, len: usize| {
            let mut bytes = vec![0; len];
            bytes[0] = first;
            classify(&bytes)
        };
        for (first, len, kind) in [
            (INIT, INIT_LEN, FrameKind::Init),
            (RESPONSE, RESPONSE_LEN, FrameKind::Response),
            (COOKIE, COOKIE_LEN, FrameKind::Cookie),
        ] {
            assert_eq!(of(first, len), Ok(kind));
            assert_eq!(of(first, len - 1), Err(FrameRefusal::Length));
            assert_eq!(of(first, len + 1), Err(FrameRefusal::Length));
        }
        assert_eq!(of(DATA, 28), Err(FrameRefusal::Length));
        assert_eq!(of(DATA, MAX_DATAGRAM_BYTES), Ok(FrameKind::Data));
        assert_eq!(of(DATA, MAX_DATAGRAM_BYTES + 1), Err(FrameRefusal::Oversize));
        assert_eq!(of(GROUP, MIN_GROUP_LEN - 1), Err(FrameRefusal::Length));
        assert_eq!(of(1, 20), Err(FrameRefusal::Unknown));
        assert_eq!(classify(&[]), Err(FrameRefusal::Unknown));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn payloads_come_back(
            timestamp: [u8; 12],
            boot: u64,
            versions: [u8; 2],
            features: u16,
            challenge: [u8; 16],
        ) {
            let shown = [challenge[0]; SHOWN_BYTES];
            let init = InitPayload { timestamp, boot, versions, features, challenge, shown };
            prop_assert_eq!(InitPayload::decode(&init.encode()), init);
            let response = ResponsePayload { boot, versions, features, shown };
            prop_assert_eq!(ResponsePayload::decode(&response.encode()), response);
        }
    }
}
