//! The transport, the seam of the stack: `send(peer)`, `broadcast(group)`, `recv()`.
//!
//! The layers above address a peer by its public key and don't see which route carried a datagram. The layers
//! below are sessions, paths, hubs and sockets. The transport guarantees:
//!
//! - A peer that is registered at a common hub is reachable at once, through the hub. If both NATs allow it,
//!   datagrams soon take a direct path, and fall back to the hub when the direct path fails.
//! - Datagrams ([`channel`]) may be lost and reordered, but are never duplicated. Reliable messages
//!   ([`reliable`]) arrive once and whole, or fail with a reason; they survive a change of the route.
//! - A broadcast to a group ([`group`]) is sealed end to end: the hub sees a keyed tag and ciphertext.
//! - All memory is bounded: a full queue is an error or a drop counted in [`TransportStats`].
//!
//! [`core`] is the state machine without IO, [`driver`] the thin loop over [`crate::rt`].

pub mod core;
pub mod driver;
mod gauges;
pub mod group;
mod outbox;
pub mod reliable;
mod waiting;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::authority::credential::Credential;
use crate::authority::revocation::RevocationsDigest;
use crate::authority::rotation::SignedSecret;
use crate::key::{AllowList, PublicKey, SecretKey};
use crate::mesh::Ticket;
use crate::net::reach::hub_client::{Ask, DownReason};
use crate::net::reach::listen::Listen;
use crate::net::reach::rendezvous::Contact;
use crate::net::secure::securedgram::paths::PathReason;
use crate::net::secure::version::Versions;

pub use self::core::Transport;
pub use self::gauges::{Gauge, Gauges};
pub use crate::net::secure::securedgram::{MAX_PEERS, channel};
pub use reliable::{MessageId, Priority};

/// Kinds of reliable messages: the first byte of a message's stream.
pub mod kind {
    /// Membership, over reliable messages.
    pub const MEMBERSHIP: u8 = 1;
    /// Jobs.
    pub const JOB: u8 = 2;
    /// Replicated state.
    pub const STATE: u8 = 3;
    /// The application's messages.
    pub const APPLICATION: u8 = 4;
    /// Revocations, and the secret's rotation.
    pub const REVOCATIONS: u8 = 5;
    /// Detached tasks.
    pub const CUSTODY: u8 = 6;
    /// Large payloads and results.
    pub const LARGE_FILE: u8 = 7;
}

/// The largest body of a datagram before its path is probed higher: with its 30 bytes of framing it fits
/// IPv6's minimum MTU.
pub const MAX_DATAGRAM_BYTES: usize = crate::net::secure::securedgram::DEFAULT_BODY_BYTES;

/// The limits of a transport. Tests set a smaller table than the default one in order to fill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Known peers at a time, members and strangers; [`MAX_PEERS`] by default.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { peers: MAX_PEERS }
    }
}

/// The configuration of a transport.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Our secret key.
    pub key: SecretKey,
    /// The mesh, its secrets, its hubs, and perhaps an invitation.
    pub ticket: Ticket,
    /// Our pass, if we have one.
    pub credential: Option<Credential>,
    /// The name that we would like in our pass.
    pub name: String,
    /// The peers that may open a session with us.
    pub allow: AllowList,
    /// This process's boot id; random, and the same wherever a boot id is sent.
    pub boot: u64,
    /// Whether rendezvous gets a record of us, by which new nodes find us: members have a record, observers don't.
    pub listed: bool,
    /// Where to bind UDP.
    pub listen: Listen,
    /// The transport's limits.
    pub limits: Limits,
    /// The versions of the protocol that we speak.
    pub versions: Versions,
}

/// Events for the layer above.
#[derive(Debug)]
pub enum TransportEvent {
    /// A datagram on the membership channel.
    Membership {
        /// The peer that sealed it.
        peer: PublicKey,
        /// Its body.
        body: Bytes,
    },
    /// An event of the reliable messages.
    Reliable(reliable::ReliableEvent),
    /// A body that was broadcast to a group.
    Group {
        /// The group's name.
        group: String,
        /// The claimed sender: any holder of the group's key could have sent the frame.
        sender: PublicKey,
        /// The body.
        body: Bytes,
    },
    /// We have a new pass.
    Issued {
        /// What we show from now on.
        credential: Credential,
        /// The hub through which it came.
        hub: PublicKey,
        /// Who issued it.
        issuer: PublicKey,
    },
    /// A hub asks this node, as an issuer, for a pass.
    Asked {
        /// The hub.
        hub: PublicKey,
        /// The number for the answer.
        number: u64,
        /// The newcomer's key.
        key: PublicKey,
        /// Its request.
        ask: Ask,
    },
    /// A hub, or a peer whose session ends by it, tells what the authority has revoked.
    Revocations {
        /// The hub or the peer.
        from: PublicKey,
        /// Entries one after another, unchecked.
        entries: Bytes,
    },
    /// A hub has taken what this node told it, or has told all that it knows.
    HubKnows {
        /// The hub.
        hub: PublicKey,
        /// The digest of all revocations that the hub knows.
        digest: RevocationsDigest,
    },
    /// A hub hands out the mesh's present secret, whose signature isn't checked yet.
    Secret {
        /// The hub.
        from: PublicKey,
        /// The secret.
        secret: Box<SignedSecret>,
        /// An issuer sealed it for us: the hub doesn't know it.
        sealed: bool,
    },
    /// A peer was met with a pass that was revoked.
    Revoked {
        /// The peer.
        peer: PublicKey,
    },
    /// A peer speaks no version that we speak; each is told once a minute.
    Incompatible {
        /// The peer.
        peer: PublicKey,
        /// What it speaks.
        theirs: Versions,
    },
    /// A session with a peer is up.
    Established {
        /// The peer.
        peer: PublicKey,
        /// Its boot id.
        #[cfg_attr(
            not(any(test, feature = "internals")),
            expect(dead_code, reason = "for examples, benchmarks and scenarios")
        )]
        boot: u64,
    },
    /// The peer runs another process than before.
    Restarted {
        /// The peer.
        peer: PublicKey,
        /// Its new boot id.
        #[cfg_attr(
            not(any(test, feature = "internals")),
            expect(dead_code, reason = "for examples, benchmarks and scenarios")
        )]
        boot: u64,
    },
    /// A handshake with the peer was given up.
    Unreachable {
        /// The peer.
        peer: PublicKey,
    },
    /// A peer was dropped from the table. Nothing queued for it will be sent.
    Forgotten {
        /// The peer.
        peer: PublicKey,
    },
    /// The path to a peer changed.
    Path {
        /// The peer.
        peer: PublicKey,
        /// The new path.
        path: PathInfo,
    },
    /// An answer to [`Transport::echo`].
    Echo {
        /// The peer.
        peer: PublicKey,
        /// The number that was sent.
        nonce: u64,
    },
    /// A hub accepted our registration.
    HubUp {
        /// The hub.
        hub: PublicKey,
    },
    /// The connection to a hub ended, or could not be made.
    HubDown {
        /// The hub.
        hub: PublicKey,
        /// The reason.
        reason: DownReason,
    },
    /// A hub reports that a peer to which we sent isn't registered there.
    NotThere {
        /// The hub.
        hub: PublicKey,
        /// The peer.
        peer: PublicKey,
    },
    /// A hub answered a PING.
    HubPong,
    /// Peers that rendezvous lists as connected to a hub.
    Contacts {
        /// The hub.
        hub: PublicKey,
        /// At most sixteen.
        contacts: Vec<Contact>,
    },
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Whether the path is direct, not through a hub.
    pub direct: bool,
    /// The peer's address, if the path is direct.
    pub addr: Option<SocketAddr>,
    /// The reason for this path.
    pub reason: PathReason,
    /// The smoothed round-trip time, if measured.
    pub rtt: Option<Duration>,
    /// Whether the checks of candidates have ended.
    pub settled: bool,
}

/// Why a send was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The body is larger than a datagram: use a reliable message.
    #[error("a datagram holds at most {MAX_DATAGRAM_BYTES} bytes, this one has {0}: send it as a message")]
    TooLarge(usize),
    /// The peer is this node itself.
    #[error("the peer is this node")]
    Oneself,
    /// No session with the peer is allowed, or the table of peers is full.
    #[error("no session with this peer is allowed, or the table of peers is full")]
    Refused,
}

/// The transport's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Application datagrams delivered.
    pub datagrams_in: u64,
    /// Application datagrams sealed.
    pub datagrams_out: u64,
    /// Application datagrams dropped because the inbox was full.
    pub inbox_dropped: u64,
    /// Datagrams on unknown channels.
    pub unknown_channel: u64,
    /// Datagrams dropped while they waited for a session.
    pub waiting_dropped: u64,
    /// Datagrams and requests to hubs dropped because the queue was full, or the hub was down.
    pub hub_dropped: u64,
    /// Requests for group keys that weren't sent, because the frame's claimed sender isn't a known peer.
    pub unknown_group_senders: u64,
    /// Groups that a hub refused because we are in too many.
    pub groups_refused: u64,
    /// Peers refused because the table was full.
    pub refused_peers: u64,
    /// Peers evicted because the table was full.
    pub evicted_peers: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
}
