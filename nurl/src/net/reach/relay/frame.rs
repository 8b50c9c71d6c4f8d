//! The relay's frames and their encoding. Integers are little-endian;
//! [`control::frames`](crate::net::reach::control::frames) describes a sequence of frames.
//!
//! | kind | frame | from | body |
//! | --- | --- | --- | --- |
//! | 0x01 | REGISTER | client | `version:1, namespace:32, boot:8`, tail ignored |
//! | 0x02 | REGISTERED | hub | [`Limits`], tail ignored |
//! | 0x03 | PING | either | `nonce:8` |
//! | 0x04 | PONG | either | `nonce:8` |
//! | 0x05 | CLOSE | either | `reason:1` ([`CloseReason`]), tail ignored |
//! | 0x10 | FORWARD | client | `dst:32, payload` |
//! | 0x11 | DELIVER | hub | `src:32, payload` |
//! | 0x12 | PEER_GONE | hub | `peer:32` |
//! | 0x13 | QUEUE_FULL | hub | `peer:32` |
//! | 0x20 | GJOIN | client | `tag:16` |
//! | 0x21 | GLEAVE | client | `tag:16` |
//! | 0x22 | GSEND | client | `tag:16, payload` |
//! | 0x23 | GDELIVER | hub | `src:32, tag:16, payload` |

use std::time::Duration;

use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::mesh::Namespace;
use crate::net::reach::control::frames::{HEADER_BYTES, begin, put};

/// The version of the control protocol, in REGISTER and REGISTERED. A hub closes a connection of any other
/// version.
pub const VERSION: u8 = 1;

/// The name of a group at a hub: a keyed tag, so that the hub learns neither the group's name nor its
/// content.
pub type GroupTag = [u8; 16];

/// The most payload bytes of one relayed datagram. Four times a UDP path's usual packet would suffice; the
/// rest is room for batches of the reliable layer. A larger datagram would block a slow client's queue for
/// seconds.
pub const MAX_DATAGRAM_BYTES: usize = crate::net::secure::securedgram::frames::MAX_DATAGRAM_BYTES;

/// Bytes that a DELIVER frame adds to its payload.
pub const DELIVER_OVERHEAD_BYTES: usize = HEADER_BYTES + 32;

mod kind {
    pub(super) const REGISTER: u8 = 0x01;
    pub(super) const REGISTERED: u8 = 0x02;
    pub(super) const PING: u8 = 0x03;
    pub(super) const PONG: u8 = 0x04;
    pub(super) const CLOSE: u8 = 0x05;
    pub(super) const FORWARD: u8 = 0x10;
    pub(super) const DELIVER: u8 = 0x11;
    pub(super) const PEER_GONE: u8 = 0x12;
    pub(super) const QUEUE_FULL: u8 = 0x13;
    pub(super) const GROUP_JOIN: u8 = 0x20;
    pub(super) const GROUP_LEAVE: u8 = 0x21;
    pub(super) const GROUP_SEND: u8 = 0x22;
    pub(super) const GROUP_DELIVER: u8 = 0x23;
}

/// Which of a hub's roles are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Forwards datagrams and groups.
    pub relay: bool,
    /// Stores records.
    pub rendezvous: bool,
    /// Answers STUN Binding requests on the same port over UDP.
    pub stun: bool,
}

impl Roles {
    /// All roles.
    pub const ALL: Roles = Roles { relay: true, rendezvous: true, stun: true };

    fn bits(self) -> u8 {
        u8::from(self.relay) | u8::from(self.rendezvous) << 1 | u8::from(self.stun) << 2
    }

    fn from_bits(bits: u8) -> Roles {
        Roles { relay: bits & 1 != 0, rendezvous: bits & 2 != 0, stun: bits & 4 != 0 }
    }
}

impl Default for Roles {
    fn default() -> Roles {
        Roles::ALL
    }
}

/// The limits in force at a hub, as REGISTERED carries them: `version:1, roles:1, frame_bytes:4,
/// datagram_bytes:4, queue_bytes:4, bytes_per_second:8, groups:2, record_ttl_s:2, idle_s:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The roles that are on.
    pub roles: Roles,
    /// The longest frame with its header.
    pub frame_bytes: u32,
    /// The longest payload of a relayed datagram.
    pub datagram_bytes: u32,
    /// The size of a client's datagram queue.
    pub queue_bytes: u32,
    /// Payload bytes that a client may send per second.
    pub bytes_per_second: u64,
    /// Groups that a client may join.
    pub groups: u16,
    /// The lifetime of a record that isn't refreshed.
    pub record_ttl: Duration,
    /// A client that is silent for so long is closed.
    pub idle: Duration,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// The side that closes has ended.
    Bye,
    /// A newer registration of the same key has replaced this one.
    Replaced,
    /// The hub doesn't serve this namespace.
    UnknownNamespace,
    /// The other side broke the protocol.
    Protocol,
    /// The other side speaks another version.
    Version,
    /// No bytes were received for too long.
    Idle,
    /// The hub has reached its limit of clients.
    Full,
    /// The hub is shutting down.
    Shutdown,
    /// A reason that this program doesn't know.
    Other(u8),
}

impl CloseReason {
    fn code(self) -> u8 {
        match self {
            CloseReason::Bye => 0,
            CloseReason::Replaced => 1,
            CloseReason::UnknownNamespace => 2,
            CloseReason::Protocol => 3,
            CloseReason::Version => 4,
            CloseReason::Idle => 5,
            CloseReason::Full => 6,
            CloseReason::Shutdown => 7,
            CloseReason::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> CloseReason {
        match code {
            0 => CloseReason::Bye,
            1 => CloseReason::Replaced,
            2 => CloseReason::UnknownNamespace,
            3 => CloseReason::Protocol,
            4 => CloseReason::Version,
            5 => CloseReason::Idle,
            6 => CloseReason::Full,
            7 => CloseReason::Shutdown,
            code => CloseReason::Other(code),
        }
    }

    /// The machine-readable name.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Bye => "bye",
            CloseReason::Replaced => "replaced",
            CloseReason::UnknownNamespace => "unknown-namespace",
            CloseReason::Protocol => "protocol",
            CloseReason::Version => "version",
            CloseReason::Idle => "idle",
            CloseReason::Full => "full",
            CloseReason::Shutdown => "shutdown",
            CloseReason::Other(_) => "other",
        }
    }
}

/// A frame; payloads are borrowed from the plaintext that carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first frame of a client.
    Register {
        /// [`VERSION`].
        version: u8,
        /// The mesh's namespace; a client that knows it counts as a member.
        namespace: Namespace,
        /// The client's boot id.
        boot: u64,
    },
    /// The hub has registered the client.
    Registered(Limits),
    /// Asks for a [`Frame::Pong`].
    Ping {
        /// A number that the PONG repeats.
        nonce: u64,
    },
    /// Answers a [`Frame::Ping`].
    Pong {
        /// The nonce of the PING.
        nonce: u64,
    },
    /// The last frame of a connection.
    Close(CloseReason),
    /// A datagram for `dst`.
    Forward {
        /// The receiver.
        dst: PublicKey,
        /// The bytes.
        payload: &'a [u8],
    },
    /// A datagram from `src`, whose connection proved that key to this hub.
    Deliver {
        /// The sender.
        src: PublicKey,
        /// The bytes.
        payload: &'a [u8],
    },
    /// No client is registered under this key, or not any more.
    PeerGone {
        /// The key.
        peer: PublicKey,
    },
    /// The queue of this key is full: the hub drops datagrams that the client sends to it.
    QueueFull {
        /// The key.
        peer: PublicKey,
    },
    /// Subscribes to a group.
    GroupJoin {
        /// The group.
        tag: GroupTag,
    },
    /// Ends a subscription.
    GroupLeave {
        /// The group.
        tag: GroupTag,
    },
    /// A datagram for all others of a group.
    GroupSend {
        /// The group.
        tag: GroupTag,
        /// The bytes.
        payload: &'a [u8],
    },
    /// A group's datagram.
    GroupDeliver {
        /// The sender.
        src: PublicKey,
        /// The group.
        tag: GroupTag,
        /// The bytes.
        payload: &'a [u8],
    },
}

/// A body that is malformed for its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame of kind {0:#04x}")]
pub struct Malformed(pub u8);

impl<'a> Frame<'a> {
    /// Reads a body; `None` for a kind that isn't the relay's.
    ///
    /// # Errors
    /// [`Malformed`] when the body doesn't match its kind.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Option<Frame<'a>>, Malformed> {
        if !matches!(kind, 0x01..=0x05 | 0x10..=0x13 | 0x20..=0x23) {
            return Ok(None);
        }
        Frame::decode_known(kind, Reader(body)).map(Some).ok_or(Malformed(kind))
    }

    fn decode_known(kind: u8, mut body: Reader<'a>) -> Option<Frame<'a>> {
        match kind {
            kind::REGISTER => Some(Frame::Register {
                version: body.u8()?,
                namespace: Namespace::from_bytes(body.array()?),
                boot: body.u64()?,
            }),
            kind::REGISTERED => decode_limits(body).map(Frame::Registered),
            kind::PING => Some(Frame::Ping { nonce: body.u64()? }).and_then(|frame| body.end(frame)),
            kind::PONG => Some(Frame::Pong { nonce: body.u64()? }).and_then(|frame| body.end(frame)),
            kind::CLOSE => Some(Frame::Close(CloseReason::from_code(body.u8()?))),
            kind::FORWARD => Some(Frame::Forward { dst: key(&mut body)?, payload: body.rest() }),
            kind::DELIVER => Some(Frame::Deliver { src: key(&mut body)?, payload: body.rest() }),
            kind::PEER_GONE => {
                let peer = key(&mut body)?;
                body.end(Frame::PeerGone { peer })
            }
            kind::QUEUE_FULL => {
                let peer = key(&mut body)?;
                body.end(Frame::QueueFull { peer })
            }
            kind::GROUP_JOIN => {
                let tag = body.array()?;
                body.end(Frame::GroupJoin { tag })
            }
            kind::GROUP_LEAVE => {
                let tag = body.array()?;
                body.end(Frame::GroupLeave { tag })
            }
            kind::GROUP_SEND => Some(Frame::GroupSend { tag: body.array()?, payload: body.rest() }),
            kind::GROUP_DELIVER => {
                Some(Frame::GroupDeliver { src: key(&mut body)?, tag: body.array()?, payload: body.rest() })
            }
            _ => None,
        }
    }

    /// Appends the frame. Payloads are at most [`MAX_DATAGRAM_BYTES`]: callers refuse longer ones beforehand.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Register { version, namespace, boot } => {
                put(out, kind::REGISTER, &[&[*version], namespace.as_bytes(), &boot.to_le_bytes()]);
            }
            Frame::Registered(limits) => encode_limits(limits, out),
            Frame::Ping { nonce } => put(out, kind::PING, &[&nonce.to_le_bytes()]),
            Frame::Pong { nonce } => put(out, kind::PONG, &[&nonce.to_le_bytes()]),
            Frame::Close(reason) => put(out, kind::CLOSE, &[&[reason.code()]]),
            Frame::Forward { dst, payload } => put(out, kind::FORWARD, &[dst.as_bytes(), payload]),
            Frame::Deliver { src, payload } => put(out, kind::DELIVER, &[src.as_bytes(), payload]),
            Frame::PeerGone { peer } => put(out, kind::PEER_GONE, &[peer.as_bytes()]),
            Frame::QueueFull { peer } => put(out, kind::QUEUE_FULL, &[peer.as_bytes()]),
            Frame::GroupJoin { tag } => put(out, kind::GROUP_JOIN, &[tag]),
            Frame::GroupLeave { tag } => put(out, kind::GROUP_LEAVE, &[tag]),
            Frame::GroupSend { tag, payload } => put(out, kind::GROUP_SEND, &[tag, payload]),
            Frame::GroupDeliver { src, tag, payload } => {
                put(out, kind::GROUP_DELIVER, &[src.as_bytes(), tag, payload]);
            }
        }
    }

    /// Appends the beginning of a [`Frame::Forward`]; the caller appends the `len` bytes of its payload.
    pub fn begin_forward(dst: &PublicKey, len: usize, out: &mut Vec<u8>) {
        begin(out, kind::FORWARD, &[dst.as_bytes()], len);
    }

    /// The frame's bytes.
    pub fn to_vec(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

fn key(body: &mut Reader<'_>) -> Option<PublicKey> {
    body.array().map(PublicKey::from_bytes)
}

fn decode_limits(mut body: Reader<'_>) -> Option<Limits> {
    let _version = body.u8()?;
    Some(Limits {
        roles: Roles::from_bits(body.u8()?),
        frame_bytes: body.u32()?,
        datagram_bytes: body.u32()?,
        queue_bytes: body.u32()?,
        bytes_per_second: body.u64()?,
        groups: body.u16()?,
        record_ttl: Duration::from_secs(body.u16()?.into()),
        idle: Duration::from_secs(body.u16()?.into()),
    })
}

fn encode_limits(limits: &Limits, out: &mut Vec<u8>) {
    let seconds = |duration: Duration| u16::try_from(duration.as_secs()).unwrap_or(u16::MAX).to_le_bytes();
    put(
        out,
        kind::REGISTERED,
        &[
            &[VERSION, limits.roles.bits()],
            &limits.frame_bytes.to_le_bytes(),
            &limits.datagram_bytes.to_le_bytes(),
            &limits.queue_bytes.to_le_bytes(),
            &limits.bytes_per_second.to_le_bytes(),
            &limits.groups.to_le_bytes(),
            &seconds(limits.record_ttl),
            &seconds(limits.idle),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::reach::control::frames::split;
    use proptest::prelude::*;

    fn back(frame: &Frame<'_>) -> Vec<u8> {
        let bytes = frame.to_vec();
        let (kind, body) = split(&bytes).next().unwrap().unwrap();
        assert_eq!(Frame::decode(kind, body), Ok(Some(*frame)));
        bytes
    }

    #[test]
    fn every_frame_comes_back_and_has_the_bytes_of_the_table() {
        let (a, tag, payload) = (PublicKey::from_bytes([0xaa; 32]), [0xbb; 16], &b"xyz"[..]);
        let limits = Limits {
            roles: Roles { relay: true, rendezvous: false, stun: true },
            frame_bytes: 65_519,
            datagram_bytes: 16_384,
            queue_bytes: 262_144,
            bytes_per_second: 1,
            groups: 64,
            record_ttl: Duration::from_secs(120),
            idle: Duration::from_secs(60),
        };
        let register = Frame::Register { version: 1, namespace: Namespace::from_bytes([9; 32]), boot: 7 };
        assert_eq!(back(&register).len(), 3 + 41);
        assert_eq!(back(&Frame::Registered(limits)).len(), 3 + 28);
        assert_eq!(back(&Frame::Ping { nonce: 0x0102 }), [3, 8, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(back(&Frame::Pong { nonce: 1 })[..4], [4, 8, 0, 1]);
        assert_eq!(back(&Frame::Close(CloseReason::Replaced)), [5, 1, 0, 1]);
        let forward = back(&Frame::Forward { dst: a, payload });
        assert_eq!(forward[..4], [0x10, 35, 0, 0xaa]);
        assert_eq!(&forward[35..], b"xyz");
        assert_eq!(back(&Frame::Deliver { src: a, payload }).len(), DELIVER_OVERHEAD_BYTES + 3);
        assert_eq!(back(&Frame::PeerGone { peer: a })[0], 0x12);
        assert_eq!(back(&Frame::QueueFull { peer: a })[0], 0x13);
        assert_eq!(back(&Frame::GroupJoin { tag })[..4], [0x20, 16, 0, 0xbb]);
        assert_eq!(back(&Frame::GroupLeave { tag })[0], 0x21);
        assert_eq!(back(&Frame::GroupSend { tag, payload })[..4], [0x22, 19, 0, 0xbb]);
        assert_eq!(back(&Frame::GroupDeliver { src: a, tag, payload })[..4], [0x23, 51, 0, 0xaa]);
        for code in 0..=255 {
            assert_eq!(CloseReason::from_code(code).code(), code);
        }
    }

    #[test]
    fn a_later_versions_tail_is_ignored_where_the_table_says_so() {
        let mut body = vec![2];
        body.extend([9; 32]);
        body.extend([0; 8]);
        body.extend(b"more");
        let decoded = Frame::decode(0x01, &body).unwrap().unwrap();
        assert!(matches!(decoded, Frame::Register { version: 2, .. }));
        assert_eq!(Frame::decode(0x03, &[0; 9]), Err(Malformed(0x03)));
    }

    #[test]
    fn an_unknown_kind_is_none_and_never_an_error() {
        assert_eq!(Frame::decode(0x77, b"anything"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_body_decodes_without_a_panic_and_comes_back_the_same(
            kind in 0u8..0x30,
            body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Ok(Some(frame)) = Frame::decode(kind, &body) {
                let again = frame.to_vec();
                let (kind_again, body_again) = split(&again).next().unwrap().unwrap();
                prop_assert_eq!(kind_again, kind);
                // Only an ignored tail may be missing.
                if !matches!(kind, 0x01 | 0x02 | 0x05) {
                    prop_assert_eq!(body_again, &body[..]);
                }
            }
        }
    }
}
