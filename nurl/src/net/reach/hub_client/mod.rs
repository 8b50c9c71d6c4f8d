//! The client's side of a hub: one control connection, kept alive for as long as the node lives.
//!
//! Guarantees: while the hub can be reached the client is registered there. After a reconnect the client restores
//! groups and record by itself. A dead connection is noticed within 20 s, also a half-open one, which no FIN
//! announces. No peer has to restart because a hub restarts.
//!
//! [`core::HubClient`] is pure. It dials at once, then with full-jitter back-off (0.2 s doubling to 10 s) for
//! ever. It pings every 15 s and expects to receive something within 5 s. While no other hub is up either, the
//! back-off is capped at 2 s for the first two minutes, because relayed peers can't reach each other until then.
//! [`Link`] carries its bytes over TCP, [`dial`] finds the address that answers. A node's transport owns one of each
//! for every hub, and no task or queue lies between them.
//!
//! Only a hub that has proved its key can refuse the client ([`DownReason::is_refusal`]). Before that, the answer
//! may come from anything on the hub's port: a captive portal, or a proxy whose hub isn't up yet.
//!
//! When a newer registration of the same key replaces a client, the client waits at least 10 s, longer each time,
//! so that two processes with one key don't replace each other in turn. Only [`HubClient::network_changed`] ends
//! that wait, since a phone that roamed may have replaced itself.
//!
//! The client drops and counts: datagrams while the connection is down, over the hub's limit, or beyond its own
//! bounded queue (the oldest go), and records older than one already seen.

pub mod backoff;
pub mod core;
pub mod dial;
mod down;
mod link;
#[cfg(any(test, feature = "internals"))]
mod lone;
#[cfg(test)]
mod tests;
mod way;

use std::time::Duration;
#[cfg(any(test, feature = "internals"))]
use std::time::Instant;

use bytes::Bytes;

use crate::authority::credential::Credential;
use crate::authority::invitation::Invitation;
use crate::authority::pass::Pass;
use crate::authority::revocation::RevocationsDigest;
use crate::authority::rotation::SignedSecret;
#[cfg(any(test, feature = "internals"))]
use crate::authority::{key::AuthorityKey, level::Level};
use crate::key::{PublicKey, SecretKey};
use crate::kit::wall_clock::WallClock;
#[cfg(any(test, feature = "internals"))]
use crate::mesh::Ticket;
use crate::mesh::{Hub, MeshId};
use crate::net::reach::relay::{CloseReason, GroupTag, Limits};
use crate::net::reach::rendezvous::{PublishResult, SealedRecord};
use crate::net::secure::version::Versions;

pub use self::core::HubClient;
pub use down::DownReason;
pub use link::Link;
#[cfg(any(test, feature = "internals"))]
pub use lone::LoneClient;

/// Which hub to use, and our identity there.
#[derive(Debug, Clone)]
pub struct HubClientConfig {
    /// The hub: its key, which is pinned, and its address.
    pub hub: Hub,
    /// Our key.
    pub key: SecretKey,
    /// This process's boot id.
    pub boot: u64,
    /// How we get in.
    pub joining: Joining,
}

/// How a node gets into its mesh.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The mesh.
    pub mesh: MeshId,
    /// Our pass, if we have one.
    pub credential: Option<Credential>,
    /// The ticket's invitation, which gets us a pass.
    pub invitation: Option<Invitation>,
    /// The name that we would like in our pass.
    pub name: String,
    /// The clock by which a pass has ended.
    pub wall: WallClock,
    /// The versions that we speak.
    pub versions: Versions,
}

#[cfg(any(test, feature = "internals"))]
impl Joining {
    /// With the invitation of a ticket, and no pass yet.
    pub fn by(ticket: &Ticket, wall: WallClock) -> Joining {
        let (mesh, invitation) = (ticket.mesh, ticket.invitation.clone());
        let versions = Versions::SPOKEN;
        Joining { mesh, credential: None, invitation, name: String::new(), wall, versions }
    }

    /// With a pass that was made without an issuer.
    pub fn minted(
        authority: &AuthorityKey,
        key: PublicKey,
        level: Level,
        wall: WallClock,
        now: Instant,
    ) -> Joining {
        let credential = Some(authority.mint(key, level, wall.seconds(now)));
        let (mesh, versions) = (authority.mesh(), Versions::SPOKEN);
        Joining { mesh, credential, invitation: None, name: String::new(), wall, versions }
    }
}

/// An event at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEvent {
    /// We are registered.
    Up {
        /// The hub's limits.
        limits: Limits,
    },
    /// We aren't registered, or not any more.
    Down {
        /// The reason.
        reason: DownReason,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// A pass was issued for us, which is ours from now on.
    Issued {
        /// What we show from now on.
        credential: Credential,
        /// Who issued it, as the hub says: itself, or an issuer that it asked.
        issuer: PublicKey,
    },
    /// The hub asks us, as an issuer, for a pass.
    Asked {
        /// The number for [`HubClient::answer`].
        number: u64,
        /// The key that the newcomer has proved to the hub.
        key: PublicKey,
        /// The request.
        ask: Ask,
    },
    /// What the authority has revoked, as the hub tells: entries one after another, unchecked.
    Revocations(Bytes),
    /// The digest of all revocations that the hub knows.
    Knows(RevocationsDigest),
    /// The mesh's secret, whose signature isn't checked.
    Secret {
        /// The secret.
        secret: Box<SignedSecret>,
        /// It was sealed for us by an issuer; otherwise the hub knows it, and hands it to everybody.
        sealed: bool,
    },
    /// A relayed datagram.
    Datagram {
        /// The sender, as the hub says: a return address, never an identity.
        src: PublicKey,
        /// The sealed bytes.
        payload: Bytes,
    },
    /// A group's datagram.
    Group {
        /// The sender, as the hub says.
        src: PublicKey,
        /// The group.
        tag: GroupTag,
        /// The sealed bytes.
        payload: Bytes,
    },
    /// A peer that we sent to isn't registered (any more).
    PeerGone {
        /// The peer.
        peer: PublicKey,
    },
    /// A peer's queue is full and drops datagrams of ours.
    QueueFull {
        /// The peer.
        peer: PublicKey,
    },
    /// The group wasn't joined: we have as many groups as the limit allows.
    GroupRefused {
        /// The group.
        tag: GroupTag,
    },
    /// The hub's answer to our record.
    Published {
        /// The sequence number that the hub holds now; publish above it after [`PublishResult::Stale`].
        seq: u64,
        /// The result.
        result: PublishResult,
    },
    /// The answer to [`HubClient::list`].
    Records(Vec<SealedRecord>),
    /// The answer to [`HubClient::look_up`].
    Record(SealedRecord),
    /// The answer to [`HubClient::look_up`]: there is no record.
    NoRecord {
        /// The peer.
        peer: PublicKey,
    },
    /// The hub answered a ping.
    Pong {
        /// The round trip.
        rtt: Duration,
    },
}

/// What a newcomer at a hub asks an issuer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A first pass: an encoded [`EnrolRequest`](crate::authority::issuer::EnrolRequest).
    Enrol(Bytes),
    /// A new pass in place of this one.
    Renew(Bytes),
}

/// An issuer's answer: a pass, with the mesh's secret sealed for its key or nothing; or why there is none.
pub type Answer = Result<(Pass, Vec<u8>), CloseReason>;

/// Counters of events and drops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Attempts to connect.
    pub dials: u64,
    /// Registrations.
    pub ups: u64,
    /// Registrations of ours that a newer one replaced.
    pub replaced: u64,
    /// PINGs.
    pub pings: u64,
    /// LISTs.
    pub lists: u64,
    /// PUBLISHes, refreshes included.
    pub publishes: u64,
    /// Datagrams handed to the stream.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams dropped because there was no connection, or because it ended before the stream took them.
    pub dropped_down: u64,
    /// Datagrams dropped because the stream doesn't take them fast enough.
    pub dropped_queue_full: u64,
    /// Datagrams over the hub's limit.
    pub dropped_too_large: u64,
    /// Datagrams and answers dropped because the layer above doesn't take events.
    pub dropped_events: u64,
    /// Requests dropped because the request queue was full, or because the connection ended before the stream took them.
    pub dropped_requests: u64,
    /// Groups beyond the limit.
    pub refused_groups: u64,
    /// Records older than one already seen.
    pub stale_records: u64,
    /// Sequence numbers of records forgotten, because there were too many.
    pub forgotten_records: u64,
    /// Frames of unknown kinds, skipped.
    pub unknown_frames: u64,
    /// Registrations refused, by the hub or by us, because there is no common version.
    pub incompatible: u64,
}

impl ClientStats {
    /// Everything that was to be sent and was dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped_down + self.dropped_queue_full + self.dropped_too_large + self.dropped_requests
    }
}
