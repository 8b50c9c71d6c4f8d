//! Encrypted datagrams addressed by public key: one endpoint, sessions with every peer.
//!
//! **Promises.** What [`Endpoint::handle_datagram`] hands up was sealed by the peer that it names, at most
//! once, and not by a replay of old keys. A stranger without the mesh's secret gets silence and costs one
//! MAC. A replayed message 1 replaces no session and moves nothing; a forged message 2 kills no handshake;
//! two peers that begin at once end with one session; a peer whose clock went back is let in. Session
//! indices are random. Reachability survives any loss that lets a handshake's retries through.
//!
//! **How.** Every inbound handshake passes the gate, each step cheaper than the next: its length; mac1,
//! which needs the mesh's secret; a cookie, when its source or everyone together is over budget
//! ([`budget`]); the initiator's key, known or allowed, for one Diffie-Hellman; the rest; its timestamp.
//! Unconfirmed sessions wait aside until their initiator has sealed something with them. The same sealed
//! frame may go by two routes; the copy dies in the replay window. Channel 0 is sealed for one route at a
//! time and consumed here, by [`paths`]. Everything is a pure function of (datagram, now, generator): drain
//! [`poll_transmit`](Endpoint::poll_transmit) and [`poll_event`](Endpoint::poll_event) after each call, and
//! call [`handle_timeout`](Endpoint::handle_timeout) when [`poll_timeout`](Endpoint::poll_timeout) says so.
//!
//! **Deviates from WireGuard** where pitfalls of its userspace kin showed: mac1 takes the mesh's secret;
//! cookies are bound to the port too; budgets are per source; the endpoint never moves on a handshake; a
//! tie has a winner. Responses carry mac1 only: one is looked at only with the random index of a try that
//! is out, and at most [`attempt::MAX_RESPONSES`] times.
//!
//! **Refuses.** It queues no application data: [`SealError::NoSession`] begins a handshake, and
//! [`Event::Established`] says when to try again. It keeps no more than [`Config::max_peers`] peers.

pub mod attempt;
pub mod budget;
mod endpoint;
pub mod frames;
mod generation;
pub mod mac;
pub mod paths;
mod peer;
mod source;
mod stats;
mod table;
mod timestamp;

use std::net::SocketAddr;
use std::ops::Range;

pub use endpoint::{Endpoint, MAX_EVENTS, MAX_TRANSMITS};
pub use peer::{
    ANSWER_LIFE, CONCURRENT, CONFIRM_WAIT, MAX_CONFIRM_WAIT, MAX_COOKIES, MAX_UNCONFIRMED,
    REKEY_AFTER_AS_RESPONDER, UNANSWERED,
};
pub use source::{Origin, Prefix, Source};
pub use stats::Stats;
pub use table::MAX_PEERS;

use crate::key::{AllowList, PublicKey, SecretKey};
use crate::mesh::{Generation, MeshId};
use crate::net::noise::Backend;
use crate::net::route::Route;
use budget::Rates;
use paths::{PathConfig, PathEvent};

/// The body that fits every path before it is probed: with header, channel and tag 1,230 bytes of UDP
/// payload, within IPv6's minimum MTU.
pub const DEFAULT_BODY_BYTES: usize = 1200;

/// The channels of a session. Channel 0 is the paths' own.
pub mod channel {
    /// Path control; never handed up.
    pub const CONTROL: u8 = 0;
    /// Membership.
    pub const MEMBERSHIP: u8 = 1;
    /// Reliable messages.
    pub const RELIABLE: u8 = 2;
    /// Application datagrams.
    pub const APPLICATION: u8 = 3;
    /// Group keys.
    pub const GROUP_KEYS: u8 = 4;
    /// Echo: `0, nonce:8` asks, `1, nonce:8` answers.
    pub const ECHO: u8 = 5;

    /// Whether callers may seal on it, and are handed what comes on it.
    pub const fn is_callers(channel: u8) -> bool {
        CONTROL < channel && channel <= ECHO
    }
}

/// What an endpoint is and how it guards itself.
#[derive(Clone)]
pub struct Config {
    /// Our own key.
    pub key: SecretKey,
    /// The mesh: the handshake's prologue.
    pub mesh: MeshId,
    /// The mesh's secrets, current first.
    pub generations: Vec<Generation>,
    /// Who may have a session.
    pub allow: AllowList,
    /// This process: random, the same everywhere in it.
    pub boot: u64,
    /// What this node can do, told in the handshake.
    pub features: u32,
    /// Who computes.
    pub backend: Backend,
    /// Handshakes without a cookie.
    pub open_rates: Rates,
    /// Handshakes with one.
    pub cookie_rates: Rates,
    /// The largest body that is sealed; at most [`frames::MAX_BODY_BYTES`].
    pub max_body_bytes: usize,
    /// How paths are kept.
    pub paths: PathConfig,
    /// The most peers that are known at a time.
    pub max_peers: usize,
}

impl Config {
    /// A configuration with the default budgets.
    pub fn new(key: SecretKey, mesh: MeshId, generations: Vec<Generation>, boot: u64) -> Config {
        Config {
            key,
            mesh,
            generations,
            allow: AllowList::Anyone,
            boot,
            features: 0,
            backend: Backend::DEFAULT,
            open_rates: Rates::OPEN,
            cookie_rates: Rates::COOKIE,
            max_body_bytes: DEFAULT_BODY_BYTES,
            paths: PathConfig::default(),
            max_peers: MAX_PEERS,
        }
    }
}

/// What an inbound datagram held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A peer's data, decrypted in the datagram's own buffer.
    Data {
        /// Who sealed it.
        peer: PublicKey,
        /// Which [`channel`] it is for; never the paths' own.
        channel: u8,
        /// Where the body lies in the datagram.
        body: Range<usize>,
    },
    /// A group frame, untouched: the whole datagram belongs to the group layer.
    Group,
}

/// Where a datagram from [`Endpoint::poll_transmit`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// For whom it is, if that is known.
    pub peer: Option<PublicKey>,
    /// By which way.
    pub route: Route,
    /// To whom the hub shall deliver it, when the way is a hub.
    pub relay_dst: Option<PublicKey>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There is a session with this process of the peer, where there was none.
    Established {
        /// The peer.
        peer: PublicKey,
        /// Its process.
        boot: u64,
        /// Whether we began.
        initiator: bool,
    },
    /// The peer is another process than the one known before; [`Established`](Event::Established) follows.
    PeerRestarted {
        /// The peer.
        peer: PublicKey,
        /// Its new process.
        boot: u64,
    },
    /// There is no session any more.
    Closed {
        /// The peer.
        peer: PublicKey,
        /// Why.
        reason: CloseReason,
    },
    /// The way to a peer changed.
    Path {
        /// The peer.
        peer: PublicKey,
        /// How.
        event: PathEvent,
    },
    /// Addresses of a peer are being challenged to open a way: it had better know ours as it is now.
    Punched {
        /// The peer.
        peer: PublicKey,
    },
    /// A peer says where it sees us; a change only, and its word only.
    Observed {
        /// The peer.
        peer: PublicKey,
        /// Our address as it sees it.
        addr: SocketAddr,
    },
    /// The peer didn't answer for [`attempt::ATTEMPT_LIFE`].
    HandshakeFailed {
        /// The peer.
        peer: PublicKey,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// We closed it.
    Local,
    /// The peer closed it.
    Remote,
    /// Its keys wore out and no new ones came.
    Expired,
    /// The peer is not on the allow-list any more.
    NotAllowed,
}

impl CloseReason {
    /// For machines.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: an allow-list that changes")
    )]
    pub const fn as_str(&self) -> &'static str {
        match self {
            CloseReason::Local => "local",
            CloseReason::Remote => "remote",
            CloseReason::Expired => "expired",
            CloseReason::NotAllowed => "not-allowed",
        }
    }
}

/// Why nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no session; a handshake has begun. Keep the datagram and wait for [`Event::Established`].
    #[error("no session with this peer yet")]
    NoSession,
    /// There is a session and no way to the peer just now. Wait for a relay or for [`Event::Path`].
    #[error("no route to this peer now")]
    NoRoute,
    /// The body is longer than the path's limit: send it as a reliable message.
    #[error("the body is longer than {max_bytes} bytes")]
    TooLarge {
        /// The limit in force.
        max_bytes: usize,
    },
    /// The [`channel`] is the paths' own, or unknown.
    #[error("this channel isn't for callers")]
    BadChannel,
    /// The peer is ourselves, or isn't on the allow-list.
    #[error("this peer may have no session")]
    NotAllowed,
    /// [`Config::max_peers`] peers are known and none is idle: forget one.
    #[error("the table of peers is full")]
    PeersFull,
}

#[cfg(test)]
mod tests;
