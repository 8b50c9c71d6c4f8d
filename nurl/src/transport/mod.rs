//! The seam: `send(peer)`, `broadcast(group)`, `recv()`.
//!
//! Everything above addresses a peer by its public key and never learns which leg carried a datagram.
//! Everything below is sessions, paths, hubs and sockets. What the seam promises:
//!
//! - A peer that is registered at a common hub is reachable at once, through the hub; when both NATs allow
//!   it, datagrams soon go straight, and fall back by themselves when the direct path dies.
//! - Datagrams ([`channel`]) may be lost, duplicated nowhere, reordered anywhere. Reliable messages
//!   ([`reliable`]) arrive once, whole, or fail with a reason; they survive a change of the leg.
//! - What is broadcast to a group ([`group`]) is sealed end to end: the hub sees a keyed tag and ciphertext.
//! - Nothing is unbounded: a full queue is an error or a counted drop, told in [`Stats`].
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

use crate::key::{AllowList, PublicKey, SecretKey};
use crate::mesh::Ticket;
use crate::net::hub_client::DownReason;
use crate::net::listen::Listen;
use crate::net::rendezvous::Contact;
use crate::net::securedgram::paths::Reason;

pub use self::core::Transport;
pub use self::gauges::{Gauge, Gauges};
pub use crate::net::securedgram::{MAX_PEERS, channel};
pub use reliable::{MessageId, Priority};

/// Kinds of reliable messages: the first byte of a message's stream.
pub mod kind {
    /// Membership, over the reliable leg.
    pub const MEMBERSHIP: u8 = 1;
    /// Jobs.
    pub const JOB: u8 = 2;
    /// Replicated state.
    pub const STATE: u8 = 3;
    /// The application's own.
    pub const APPLICATION: u8 = 4;
}

/// The largest body of a datagram before its path is probed higher: with its 30 bytes of frame it fits IPv6's
/// minimum MTU.
pub const MAX_DATAGRAM_BYTES: usize = crate::net::securedgram::DEFAULT_BODY_BYTES;

/// What a seam may hold at most. A smaller table than the default one is for those who want to see it full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Peers that are known at a time, members and strangers; [`MAX_PEERS`] if nothing else is said.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { peers: MAX_PEERS }
    }
}

/// What a seam is made of.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Who we are.
    pub key: SecretKey,
    /// The mesh, its secrets and its hubs.
    pub ticket: Ticket,
    /// Who may open a session with us.
    pub allow: AllowList,
    /// This process; random, and the same wherever a boot id is told.
    pub boot: u64,
    /// Whether rendezvous gets a record of us, by which newcomers find us: members have one, observers don't.
    pub listed: bool,
    /// Where to bind UDP.
    pub listen: Listen,
    /// What it may hold.
    pub limits: Limits,
}

/// What the seam tells the layer above.
#[derive(Debug)]
pub enum Event {
    /// A datagram on the membership channel.
    Membership {
        /// Who sealed it.
        peer: PublicKey,
        /// Its body.
        body: Bytes,
    },
    /// What reliable messages report.
    Reliable(reliable::Event),
    /// A body that was broadcast to a group.
    Group {
        /// The group's name.
        group: String,
        /// Who claims to have sent it: any holder of the group's key could have.
        sender: PublicKey,
        /// The body.
        body: Bytes,
    },
    /// A session with a peer is up.
    Established {
        /// The peer.
        peer: PublicKey,
        /// Its process.
        #[cfg_attr(
            not(any(test, feature = "internals")),
            expect(dead_code, reason = "for examples, benchmarks and scenarios")
        )]
        boot: u64,
    },
    /// The peer's process is another than before.
    Restarted {
        /// The peer.
        #[cfg_attr(
            not(any(test, feature = "internals")),
            expect(dead_code, reason = "for examples, benchmarks and scenarios")
        )]
        peer: PublicKey,
        /// Its new process.
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
    /// A peer is known no more: nothing that was for it will be sent.
    Forgotten {
        /// The peer.
        peer: PublicKey,
    },
    /// The way to a peer changed.
    Path {
        /// The peer.
        peer: PublicKey,
        /// How it is now.
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
        /// Why.
        reason: DownReason,
    },
    /// A hub says that a peer which we sent to isn't registered there.
    NotThere {
        /// The hub.
        hub: PublicKey,
        /// The peer.
        peer: PublicKey,
    },
    /// A hub answered a PING.
    HubPong,
    /// Those whom rendezvous names as connected to a hub.
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
    /// Straight, not through a hub.
    pub direct: bool,
    /// Its address, if direct.
    pub addr: Option<SocketAddr>,
    /// Why so.
    pub reason: Reason,
    /// The smoothed round-trip time, if measured.
    pub rtt: Option<Duration>,
    /// Whether the checks of candidates have ended.
    pub settled: bool,
}

/// Why a send was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The body is larger than the leg takes: use a reliable message.
    #[error("a datagram holds at most {MAX_DATAGRAM_BYTES} bytes, this one has {0}: send it as a message")]
    TooLarge(usize),
    /// The peer is this node itself.
    #[error("the peer is this node")]
    Oneself,
    /// The peer may not be talked to, or there are too many peers already.
    #[error("no session with this peer is allowed, or the table of peers is full")]
    Refused,
}

/// What the seam counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Application datagrams delivered.
    pub datagrams_in: u64,
    /// Application datagrams sealed.
    pub datagrams_out: u64,
    /// Application datagrams dropped because nobody took those before them.
    pub inbox_dropped: u64,
    /// Datagrams on channels that nobody knows.
    pub unknown_channel: u64,
    /// Datagrams dropped while they waited for a session.
    pub waiting_dropped: u64,
    /// Commands to hubs dropped because their queue was full.
    pub hub_dropped: u64,
    /// Keys of groups that were not asked for, because the sender that the frame names is no member.
    pub unknown_group_senders: u64,
    /// Groups that a hub refused because we are in too many.
    pub groups_refused: u64,
    /// Peers that got no place in a full table.
    pub refused_peers: u64,
    /// Peers that were forgotten because the table was full.
    pub evicted_peers: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
}
