//! The client's side of a hub: one control connection, kept alive for as long as the node lives.
//!
//! Promise: while the hub can be reached we are registered there; after a reconnect groups and record
//! are as they were, without the layer above doing anything; a dead connection is noticed within 20 s, also a
//! half-open one, which no FIN announces. A hub that restarts needs no peer to restart.
//!
//! How: [`core::HubClient`] is pure. It dials at once, then with full-jitter back-off (0.2 s doubling to 10 s)
//! for ever; pings each 15 s and expects to hear something within 5 s. While no other hub is up either, the
//! back-off ends at 2 s for the first two minutes: until then peers that are relayed hear nothing of each other.
//! [`spawn`] drives it over TCP, [`dial`] finds the address that answers.
//!
//! Only a hub that has proved its key can refuse us ([`DownReason::is_refusal`]). Anything may answer on a hub's
//! port before that: a captive portal, a proxy whose hub isn't up yet.
//!
//! A client that a newer registration of the same key has replaced waits at least 10 s, longer each time, since
//! two processes with one key must not duel; only [`HubCommand::NetworkChanged`] ends that wait, since a
//! roamed phone may well have replaced itself.
//!
//! It refuses, and counts: datagrams while the connection is down, over the hub's limit, or beyond its own
//! bounded queue (the oldest go), and records older than one already seen.

pub mod backoff;
pub mod core;
pub mod dial;
mod down;
mod driver;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::key::{PublicKey, SecretKey};
use crate::mesh::{Hub, Namespace};
use crate::net::relay::{GroupTag, Limits};
use crate::net::rendezvous::{PublishResult, SealedRecord};
use crate::rt::net::Interface;
use crate::rt::sync::oneshot;

pub use down::DownReason;
pub use driver::{Batch, COMMAND_QUEUE, EVENT_QUEUE, spawn, spawn_into};

/// Which hub, and who we are there.
#[derive(Debug, Clone)]
pub struct HubClientConfig {
    /// The hub: its key, which is pinned, and its address.
    pub hub: Hub,
    /// Our key.
    pub key: SecretKey,
    /// Our mesh's namespace.
    pub namespace: Namespace,
    /// This process's boot id.
    pub boot: u64,
}

/// What happens at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEvent {
    /// We are registered.
    Up {
        /// The hub's limits.
        limits: Limits,
    },
    /// We aren't (any more).
    Down {
        /// Why.
        reason: DownReason,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// A relayed datagram.
    Datagram {
        /// Who sent it, as the hub says: a return address, never an identity.
        src: PublicKey,
        /// The sealed bytes.
        payload: Bytes,
    },
    /// A group's datagram.
    Group {
        /// Who sent it, as the hub says.
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
    /// Another process registered with our key; [`HubEvent::Down`] follows.
    Replaced,
    /// The group wasn't joined: we are in as many as allowed.
    GroupRefused {
        /// The group.
        tag: GroupTag,
    },
    /// What the hub did with our record.
    Published {
        /// The number that it holds now; publish above it after [`PublishResult::Stale`].
        seq: u64,
        /// What it did.
        result: PublishResult,
    },
    /// The answer to [`HubCommand::List`].
    Records(Vec<SealedRecord>),
    /// The answer to [`HubCommand::Lookup`].
    Record(SealedRecord),
    /// The answer to [`HubCommand::Lookup`]: there is none.
    NoRecord {
        /// Whose.
        peer: PublicKey,
    },
    /// The hub answered a ping.
    Pong {
        /// The round trip.
        rtt: Duration,
    },
}

/// What the layer above asks for.
#[derive(Debug)]
pub enum HubCommand {
    /// Relays a datagram.
    Forward {
        /// To whom.
        dst: PublicKey,
        /// The sealed bytes.
        payload: Bytes,
    },
    /// Joins a group, now and after each reconnect.
    GroupJoin {
        /// The group.
        tag: GroupTag,
    },
    /// Leaves a group.
    GroupLeave {
        /// The group.
        tag: GroupTag,
    },
    /// Sends to all others of a group.
    GroupSend {
        /// The group.
        tag: GroupTag,
        /// The sealed bytes.
        payload: Bytes,
    },
    /// Sets our record; it is refreshed at a third of its time, and published again after each reconnect.
    Publish {
        /// Its number, above all earlier ones.
        seq: u64,
        /// The sealed record.
        sealed: Bytes,
    },
    /// Takes our record back.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: a node that stays and wants no more callers")
    )]
    Withdraw,
    /// Asks for one record.
    Lookup {
        /// Whose.
        peer: PublicKey,
    },
    /// Asks for a random sample of the mesh.
    List {
        /// At most so many.
        max: u16,
    },
    /// Measures the round trip.
    Ping,
    /// Our network is another one: the connection is made anew at once, whatever wait was going on.
    NetworkChanged,
    /// Whether another hub is up. While none is, this one is tried more often; a client assumes at first that none
    /// is.
    OthersUp(bool),
    /// This host's interfaces are these now. A connection that still leaves by its own stays; else as
    /// [`NetworkChanged`](HubCommand::NetworkChanged).
    InterfacesChanged(Arc<[Interface]>),
    /// Asks for the counters.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: metrics"))]
    Stats(oneshot::Sender<ClientStats>),
}

/// What happened, and what was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Attempts to connect.
    pub dials: u64,
    /// Registrations.
    pub ups: u64,
    /// Registrations of ours that a newer one replaced.
    pub replaced: u64,
    /// Datagrams handed to the stream.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams dropped because there was no connection.
    pub dropped_down: u64,
    /// Datagrams dropped because the stream doesn't take them fast enough.
    pub dropped_queue_full: u64,
    /// Datagrams over the hub's limit.
    pub dropped_too_large: u64,
    /// Datagrams and answers dropped because the layer above doesn't take events.
    pub dropped_events: u64,
    /// Requests dropped because too many wait.
    pub dropped_requests: u64,
    /// Groups beyond the limit.
    pub refused_groups: u64,
    /// Records older than one already seen.
    pub stale_records: u64,
    /// Frames of unknown kinds, stepped over.
    pub unknown_frames: u64,
}
