//! Encrypted datagrams addressed by public key: one endpoint, with sessions to every peer.
//!
//! **Guarantees.** Data that [`Endpoint::handle_datagram`] returns was sealed by the named peer, arrives at
//! most once, and isn't a replay under old keys. A stranger without the mesh's secret gets no answer and
//! costs one MAC. A replayed message 1 replaces no session and moves no path; a forged message 2 ends no
//! handshake. Two peers that begin at once end with one session. An outsider that replays a captured message 1 gets
//! silence (module `remembered`); a peer whose clock went back is admitted where a replay can't come from. Session indices
//! are random. Reachability survives any loss that lets a handshake's retries through.
//!
//! **How.** Every inbound handshake passes the gate, each step cheaper than the next: the length; mac1,
//! which needs the mesh's secret; a cookie, if its source or all sources together are over budget
//! ([`budget`]); the initiator's key against the allow-list, for one Diffie-Hellman; the rest of the
//! message; its pass ([`checker`](crate::authority::checker)); the timestamp. An unconfirmed session isn't used until its initiator has sealed a frame with
//! it. The same sealed frame may go by two routes; the replay window drops the second copy. Channel 0 is
//! sealed for one route at a time and handled here, by [`paths`]. Everything is a pure function of
//! (datagram, now, generator): drain [`poll_transmit`](Endpoint::poll_transmit) and
//! [`poll_event`](Endpoint::poll_event) after each call, and call
//! [`handle_timeout`](Endpoint::handle_timeout) when [`poll_timeout`](Endpoint::poll_timeout) says so.
//!
//! **Parts.** `endpoint` dispatches each call to a peer, and holds what all peers share: our identity, the gate, the
//! schedule, the queues. `peer` is one peer: its sessions and its handshakes in both directions. [`paths`] are its routes:
//! NAT traversal, roaming, relays. `table` finds a peer by its key or by a session index.
//!
//! **Differs from WireGuard** where its userspace implementations had pitfalls: mac1 needs the mesh's
//! secret; cookies are bound to the port too; budgets are per source; a handshake never moves the peer's
//! address; simultaneous handshakes have a defined winner. Responses carry mac1 only: a response is
//! examined only if it has the random index of a pending try, and at most [`attempt::MAX_RESPONSES`] times.
//!
//! **Limits.** It queues no application data: [`SealError::NoSession`] begins a handshake, and
//! [`SessionEvent::Established`] says when to try again. It keeps no more than [`EndpointConfig::max_peers`] peers.

pub mod attempt;
pub mod budget;
mod endpoint;
pub mod frames;
mod generation;
mod indices;
pub mod mac;
pub mod paths;
mod peer;
mod remembered;
mod source;
mod stats;
mod table;
mod timestamp;
mod told;

use std::net::SocketAddr;
use std::ops::Range;

pub use endpoint::{Endpoint, MAX_EVENTS, MAX_TRANSMITS};
pub use peer::{
    ANSWER_LIFE, CONCURRENT, CONFIRM_WAIT, MAX_CONFIRM_WAIT, MAX_COOKIES, MAX_UNCONFIRMED,
    REKEY_AFTER_AS_RESPONDER, UNANSWERED,
};
pub use source::{Origin, Prefix, Source};
pub use stats::EndpointStats;
pub use table::MAX_PEERS;

use crate::authority::credential::Credential;
use crate::key::{AllowList, PublicKey, SecretKey};
use crate::mesh::{Generation, MeshId};
use crate::net::secure::noise::Backend;
use crate::net::secure::route::Route;
use crate::net::secure::version::Versions;
use budget::Rates;
use paths::{PathConfig, PathEvent};

/// The largest body for a path that hasn't been probed: with header, channel and tag 1,230 bytes of UDP
/// payload, within IPv6's minimum MTU.
pub const DEFAULT_BODY_BYTES: usize = 1200;

/// The channels of a session. Channel 0 belongs to the paths.
pub mod channel {
    /// Path control; never passed to the caller.
    pub const CONTROL: u8 = 0;
    /// Membership.
    pub const MEMBERSHIP: u8 = 1;
    /// Reliable messages.
    pub const RELIABLE: u8 = 2;
    /// Application datagrams.
    pub const APPLICATION: u8 = 3;
    /// Group keys.
    pub const GROUP_KEYS: u8 = 4;
    /// Echo: `0, nonce:8` is a request, `1, nonce:8` its answer.
    pub const ECHO: u8 = 5;
    /// The entry by which the receiver's pass is revoked: the last datagram of a session.
    pub const REVOKED: u8 = 6;

    /// Whether callers may seal on this channel and receive its data.
    pub const fn is_callers(channel: u8) -> bool {
        CONTROL < channel && channel <= REVOKED
    }
}

/// The configuration of an endpoint.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Our own key.
    pub key: SecretKey,
    /// The mesh: the handshake's prologue, and the key that signs passes.
    pub mesh: MeshId,
    /// What we show; `None` until we have a pass, and no session until then.
    pub credential: Option<Credential>,
    /// The mesh's secrets, current first.
    pub generations: Vec<Generation>,
    /// The peers that may have a session.
    pub allow: AllowList,
    /// The boot id: random, one per process.
    pub boot: u64,
    /// The versions that this node speaks, announced in the handshake.
    pub versions: Versions,
    /// This node's features, announced there too.
    pub features: u16,
    /// The crypto backend.
    pub backend: Backend,
    /// The budget for handshakes without a cookie.
    pub open_rates: Rates,
    /// The budget for handshakes with a cookie.
    pub cookie_rates: Rates,
    /// The largest body that is sealed; at most [`frames::MAX_BODY_BYTES`].
    pub max_body_bytes: usize,
    /// The configuration of the paths.
    pub paths: PathConfig,
    /// The most peers known at a time.
    pub max_peers: usize,
}

impl EndpointConfig {
    /// A configuration with the default budgets.
    pub fn new(key: SecretKey, mesh: MeshId, generations: Vec<Generation>, boot: u64) -> EndpointConfig {
        EndpointConfig {
            key,
            mesh,
            credential: None,
            generations,
            allow: AllowList::Anyone,
            boot,
            versions: Versions::SPOKEN,
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

/// The content of an inbound datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A peer's data, decrypted in the datagram's own buffer.
    Data {
        /// The peer that sealed it.
        peer: PublicKey,
        /// Its [`channel`]; never channel 0.
        channel: u8,
        /// The position of the body in the datagram.
        body: Range<usize>,
    },
    /// A group frame, unchanged: the whole datagram belongs to the group layer.
    Group,
}

/// The destination of a datagram from [`Endpoint::poll_transmit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// The peer that it is for, if known.
    pub peer: Option<PublicKey>,
    /// The route.
    pub route: Route,
    /// The key to which the hub delivers it, if the route is a hub.
    pub relay_dst: Option<PublicKey>,
}

impl Outgoing {
    /// To a known peer: a hub addresses it by its own key.
    fn to(peer: PublicKey, route: Route) -> Outgoing {
        Outgoing { peer: Some(peer), route, relay_dst: (!route.is_direct()).then_some(peer) }
    }

    /// Back to the source of a datagram.
    fn back(source: Source, peer: Option<PublicKey>) -> Outgoing {
        Outgoing { peer, route: source.route, relay_dst: source.relay_src }
    }
}

/// An event of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// There is a new session with this process of the peer, and there was none before.
    Established {
        /// The peer.
        peer: PublicKey,
        /// The boot id of its process.
        boot: u64,
        /// Whether we began the handshake.
        initiator: bool,
    },
    /// The peer's boot id has changed; [`Established`](SessionEvent::Established) follows.
    PeerRestarted {
        /// The peer.
        peer: PublicKey,
        /// The boot id of its new process.
        boot: u64,
    },
    /// The session has ended.
    Closed {
        /// The peer.
        peer: PublicKey,
        /// The reason.
        reason: CloseReason,
    },
    /// The route to a peer changed.
    Path {
        /// The peer.
        peer: PublicKey,
        /// The change.
        event: PathEvent,
    },
    /// Addresses of a peer are being challenged to open a path: the peer should know our current reflexive
    /// address.
    Punched {
        /// The peer.
        peer: PublicKey,
    },
    /// A peer reports our address as it sees it. Only changes are reported, and the report is unverified.
    Observed {
        /// The peer.
        peer: PublicKey,
        /// Our address as it sees it.
        addr: SocketAddr,
    },
    /// The peer answered our handshake, and shows a pass that was revoked.
    Revoked {
        /// The peer.
        peer: PublicKey,
    },
    /// A peer has proved who it is, and there is no version that both speak. Each is reported once a minute.
    Incompatible {
        /// The peer.
        peer: PublicKey,
        /// What it speaks.
        theirs: Versions,
    },
    /// The peer didn't answer for [`attempt::ATTEMPT_LIFE`], or there is no version that both speak.
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
    /// Its keys expired and there were no new ones.
    Expired,
    /// The peer was removed from the allow-list.
    NotAllowed,
    /// The peer's pass has ended or was revoked.
    NotAdmitted,
}

impl CloseReason {
    /// The machine-readable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            CloseReason::Local => "local",
            CloseReason::Remote => "remote",
            CloseReason::Expired => "expired",
            CloseReason::NotAllowed => "not-allowed",
            CloseReason::NotAdmitted => "not-admitted",
        }
    }
}

/// Why a datagram wasn't sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no session; a handshake has begun. Keep the datagram and wait for [`SessionEvent::Established`].
    #[error("no session with this peer yet")]
    NoSession,
    /// There is a session, but no route to the peer now. Wait for a relay or for [`SessionEvent::Path`].
    #[error("no route to this peer now")]
    NoRoute,
    /// The body is longer than the path's limit: send it as a reliable message.
    #[error("the body is longer than {max_bytes} bytes")]
    TooLarge {
        /// The limit in force.
        max_bytes: usize,
    },
    /// The [`channel`] belongs to the paths, or is unknown.
    #[error("this channel isn't for callers")]
    BadChannel,
    /// The peer is this node itself, or isn't on the allow-list.
    #[error("this peer may have no session")]
    NotAllowed,
    /// [`EndpointConfig::max_peers`] peers are known and none is idle: forget one of them.
    #[error("the table of peers is full")]
    PeersFull,
}

#[cfg(test)]
mod tests;
