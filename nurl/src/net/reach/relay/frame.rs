//! The limits of relayed datagrams, and the fields of the relay's frames that are types of their own.
//! [`RelayFrame`](crate::net::reach::control::table::RelayFrame) has the frames.

use std::time::Duration;

use crate::kit::reader::Reader;
use crate::net::reach::control::frames::{Field, HEADER_BYTES};
use crate::net::secure::version::Versions;

/// The version of the outermost layout, first in REGISTER, ENROL, RENEW and REGISTERED; it stays. A hub closes a connection
/// of any other version.
pub const VERSION: u8 = 2;

/// The name of a group at a hub: a keyed tag, so that the hub learns neither the group's name nor its
/// content.
pub type GroupTag = [u8; 16];

/// The most payload bytes of one relayed datagram. Four times a UDP path's usual packet would suffice; the
/// rest is room for batches of the reliable layer. A larger datagram would block a slow client's queue for
/// seconds.
pub const MAX_DATAGRAM_BYTES: usize = crate::net::secure::securedgram::frames::MAX_DATAGRAM_BYTES;

/// Bytes that a DELIVER frame adds to its payload.
pub const DELIVER_OVERHEAD_BYTES: usize = HEADER_BYTES + 32;

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
}

/// A byte of bits.
impl Field<'_> for Roles {
    fn read(body: &mut Reader<'_>) -> Option<Roles> {
        let bits = body.u8()?;
        Some(Roles { relay: bits & 1 != 0, rendezvous: bits & 2 != 0, stun: bits & 4 != 0 })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.relay) | u8::from(self.rendezvous) << 1 | u8::from(self.stun) << 2);
    }
}

impl Default for Roles {
    fn default() -> Roles {
        Roles::ALL
    }
}

/// Two bytes; a program that doesn't say them speaks the first version.
impl Field<'_> for Versions {
    fn read(body: &mut Reader<'_>) -> Option<Versions> {
        Versions::from_bytes(body.array().unwrap_or_default())
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.to_bytes().write(out);
    }
}

/// The limits in force at a hub, as REGISTERED carries them: `version:1, roles:1, frame_bytes:4,
/// datagram_bytes:4, queue_bytes:4, bytes_per_second:8, groups:2, record_ttl_s:2, idle_s:2, versions:2`.
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
    /// What the hub speaks.
    pub versions: Versions,
}

impl Field<'_> for Limits {
    fn read(body: &mut Reader<'_>) -> Option<Limits> {
        let _version = body.u8()?;
        Some(Limits {
            roles: Field::read(body)?,
            frame_bytes: Field::read(body)?,
            datagram_bytes: Field::read(body)?,
            queue_bytes: Field::read(body)?,
            bytes_per_second: Field::read(body)?,
            groups: Field::read(body)?,
            record_ttl: Field::read(body)?,
            idle: Field::read(body)?,
            versions: Field::read(body)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        VERSION.write(out);
        self.roles.write(out);
        self.frame_bytes.write(out);
        self.datagram_bytes.write(out);
        self.queue_bytes.write(out);
        self.bytes_per_second.write(out);
        self.groups.write(out);
        self.record_ttl.write(out);
        self.idle.write(out);
        self.versions.write(out);
    }
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
    /// The client shows no pass.
    NoPass,
    /// What the client shows is no pass of this mesh for its key.
    BadPass,
    /// The pass, or the invitation, has expired.
    Expired,
    /// The pass, or the invitation, was revoked.
    Revoked,
    /// The invitation has enrolled as many keys as it may.
    UsedUp,
    /// The invitation is none of this mesh's.
    BadInvitation,
    /// The hub doesn't issue passes of this mesh.
    NoIssuer,
    /// The issuer signs as much as it may.
    Busy,
    /// A reason that this program doesn't know.
    Other(u8),
}

impl CloseReason {
    /// The reasons with a name. Each has its place here as its number on the wire.
    const NAMED: [(CloseReason, &str); 16] = [
        (CloseReason::Bye, "bye"),
        (CloseReason::Replaced, "replaced"),
        (CloseReason::UnknownNamespace, "unknown-namespace"),
        (CloseReason::Protocol, "protocol"),
        (CloseReason::Version, "version"),
        (CloseReason::Idle, "idle"),
        (CloseReason::Full, "full"),
        (CloseReason::Shutdown, "shutdown"),
        (CloseReason::NoPass, "no-pass"),
        (CloseReason::BadPass, "bad-pass"),
        (CloseReason::Expired, "expired"),
        (CloseReason::Revoked, "revoked"),
        (CloseReason::UsedUp, "used-up"),
        (CloseReason::BadInvitation, "bad-invitation"),
        (CloseReason::NoIssuer, "no-issuer"),
        (CloseReason::Busy, "busy"),
    ];

    fn place(self) -> Option<usize> {
        CloseReason::NAMED.iter().position(|(reason, _)| *reason == self)
    }

    /// The machine-readable name.
    pub fn as_str(self) -> &'static str {
        self.place().map_or("other", |place| CloseReason::NAMED[place].1)
    }
}

/// One byte.
impl Field<'_> for CloseReason {
    fn read(body: &mut Reader<'_>) -> Option<CloseReason> {
        let code = body.u8()?;
        Some(
            CloseReason::NAMED.get(usize::from(code)).map_or(CloseReason::Other(code), |(reason, _)| *reason),
        )
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(match *self {
            CloseReason::Other(code) => code,
            named => named.place().expect("each reason but `Other` is in the list") as u8,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::credential::SHOWN_BYTES;
    use crate::key::PublicKey;
    use crate::mesh::Namespace;
    use crate::net::reach::control::frames::{Counted, Malformed, split};
    use crate::net::reach::control::table::RelayFrame as Frame;
    use proptest::prelude::*;

    fn back(frame: &Frame<'_>) -> Vec<u8> {
        let bytes = frame.to_vec();
        let (kind, body) = split(&bytes).next().unwrap().unwrap();
        assert_eq!(Frame::decode(kind, body).as_ref(), Ok(&Some(frame.clone())));
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
            versions: Versions::made_up(2, 3),
        };
        let shown = [3; SHOWN_BYTES];
        let namespace = Namespace::from_bytes([9; 32]);
        let versions = Versions::made_up(2, 3);
        let register = Frame::Register { version: 2, namespace, boot: 7, shown: &shown, versions };
        assert_eq!(back(&register).len(), 3 + 41 + SHOWN_BYTES + 2);
        assert_eq!(back(&Frame::Speaks { versions }), [0x0f, 2, 0, 2, 3]);
        let request = b"terms";
        assert_eq!(back(&Frame::Enrol { version: 2, namespace, request })[..4], [0x06, 38, 0, 2]);
        assert_eq!(back(&Frame::Renew { version: 2, namespace, pass: b"pass" })[..4], [0x07, 37, 0, 2]);
        assert_eq!(back(&Frame::Issued { pass: b"pass" }), [8, 4, 0, b'p', b'a', b's', b's']);
        assert_eq!(back(&Frame::Revoked { entries: b"entry" })[..4], [9, 5, 0, b'e']);
        assert_eq!(back(&Frame::Secret { signed: b"signed" })[..4], [11, 6, 0, b's']);
        assert_eq!(back(&Frame::Issuer { key: a })[..4], [12, 32, 0, 0xaa]);
        assert_eq!(back(&Frame::Sealed { sealed: b"box" })[..4], [13, 3, 0, b'b']);
        assert_eq!(back(&Frame::Issues), [0x18, 0, 0]);
        assert_eq!(back(&Frame::Asked { number: 1, key: a, kind: 6, body: b"b" })[..4], [0x19, 42, 0, 1]);
        let granted = Frame::Granted { number: 1, pass: Counted(b"pass"), sealed: b"box" };
        assert_eq!(back(&granted)[11..], [4, b'p', b'a', b's', b's', b'b', b'o', b'x']);
        assert_eq!(back(&Frame::Denied { number: 1, reason: CloseReason::UsedUp })[11..], [12]);
        assert_eq!(back(&Frame::Knows { digest: [7; 32] })[..4], [10, 32, 0, 7]);
        assert_eq!(back(&Frame::Registered(limits)).len(), 3 + 30);
        assert_eq!(back(&Frame::Ping { nonce: 0x0102 }), [3, 8, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(back(&Frame::Pong { nonce: 1 })[..4], [4, 8, 0, 1]);
        assert_eq!(back(&Frame::Close(CloseReason::Replaced)), [5, 1, 0, 1]);
        let forward = back(&Frame::Forward { dst: a, payload });
        assert_eq!(forward[..4], [0x10, 35, 0, 0xaa]);
        assert_eq!(&forward[35..], b"xyz");
        let mut begun = b"before".to_vec();
        Frame::begin_forward(&a, payload.len(), &mut begun);
        begun.extend_from_slice(payload);
        assert_eq!(begun[6..], forward, "a frame that is begun, and its payload appended");
        assert_eq!(back(&Frame::Deliver { src: a, payload }).len(), DELIVER_OVERHEAD_BYTES + 3);
        assert_eq!(back(&Frame::PeerGone { peer: a })[0], 0x12);
        assert_eq!(back(&Frame::QueueFull { peer: a })[0], 0x13);
        assert_eq!(back(&Frame::GroupJoin { tag })[..4], [0x20, 16, 0, 0xbb]);
        assert_eq!(back(&Frame::GroupLeave { tag })[0], 0x21);
        assert_eq!(back(&Frame::GroupSend { tag, payload })[..4], [0x22, 19, 0, 0xbb]);
        assert_eq!(back(&Frame::GroupDeliver { src: a, tag, payload })[..4], [0x23, 51, 0, 0xaa]);
        for code in 0..=255 {
            let close = Frame::decode(5, std::slice::from_ref(&code)).unwrap().unwrap();
            assert_eq!(back(&close), [5, 1, 0, code]);
        }
    }

    #[test]
    fn a_later_versions_tail_is_ignored_where_the_table_says_so() {
        let mut body = vec![2];
        body.extend([9; 32]);
        body.extend([0; 8 + SHOWN_BYTES]);
        let speaks = |body: &[u8]| match Frame::decode(0x01, body) {
            Ok(Some(Frame::Register { version: 2, versions, .. })) => Ok(versions),
            other => Err(other.map(|_| ())),
        };
        assert_eq!(speaks(&body), Ok(Versions::SPOKEN), "a client from before");
        body.extend([2, 3]);
        body.extend(b"more");
        assert_eq!(speaks(&body), Ok(Versions::made_up(2, 3)));
        let at = body.len() - 6;
        body[at] = 4;
        assert_eq!(speaks(&body), Err(Err(Malformed(0x01))), "no range");
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
                if !matches!(kind, 0x01 | 0x02 | 0x05 | 0x0f) {
                    prop_assert_eq!(body_again, &body[..]);
                }
            }
        }
    }
}
