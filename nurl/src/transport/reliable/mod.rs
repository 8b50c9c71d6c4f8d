//! Reliable messages: anything larger than a datagram, or that must arrive.
//!
//! **Promises.** A message of up to 16 MiB arrives whole and once at the process (the boot) for which it was
//! accepted, or its sender is told why not. While one is unacknowledged there is a timer, whatever QUIC thinks.
//! Messages don't wait for each other: each is a QUIC stream of its own. Under four priorities, a higher one always goes first. What waits is bounded, per peer, priority and
//! in all; what arrives is bounded too. No path change, rekeying or silence ever ends a connection.
//!
//! **How.** One QUIC connection ([`quinn_proto`]) per pair of boot ids, inside sealed datagrams on channel 2,
//! so with a cipher that does nothing (`crypto`). The smaller key is the QUIC client; the other side asks it
//! to connect when it has something to send (`wire`: OPEN). A peer that lost its half says so when the next
//! packet arrives (GONE), and the client connects anew. Time, randomness and bytes come from the caller; the
//! same calls give the same bytes.
//!
//! **Refuses.** Messages above the budgets, with a typed error, followed by [`Event::Writable`] when a
//! message left. Datagrams of earlier boots and anything that is neither QUIC nor ours, each counted. A peer
//! that announces more than it may, by closing its connection.
//!
//! **Ends.** A changed boot id of the peer fails everything unacknowledged with
//! [`FailReason::PeerRestarted`]; [`Reliable::forget`] with [`FailReason::Forgotten`]; a peer that forgot us
//! fails what was on its way (it may have arrived) with [`FailReason::ConnectionLost`], the rest goes over
//! the next connection.
//!
//! The caller drains [`Reliable::poll_transmit`] and [`Reliable::poll_event`] after each call, and comes back
//! at [`Reliable::poll_timeout`]. It calls [`Reliable::on_established`] before it hands over the first
//! datagram of a session.

mod congestion;
mod crypto;
mod engine;
mod inbox;
mod limits;
mod link;
mod outbox;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;

use crate::key::PublicKey;

pub use engine::Reliable;
pub use limits::{
    BATCH_DATAGRAMS, CLASS_BUDGET_BYTES, CLASS_MESSAGES, CONNECTION_WINDOW_BYTES, DATAGRAM_BYTES,
    MAX_INCOMPLETE_BYTES, MAX_MESSAGE_BYTES, MAX_PEERS, RECEIVE_BUDGET_BYTES, SEND_BUDGET_BYTES,
    STREAM_WINDOW_BYTES,
};

/// Which message goes first. The best is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Membership, keys, leases: small, and everything depends on them.
    Control,
    /// Replicated state.
    State,
    /// Jobs and results.
    Job,
    /// Whatever can wait.
    Bulk,
}

impl Priority {
    /// All of them, best first.
    pub const ALL: [Priority; 4] = [Priority::Control, Priority::State, Priority::Job, Priority::Bulk];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// The name of an accepted message, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// The budgets. Each default is the constant that it names.
#[derive(Debug, Clone)]
pub struct ReliableConfig {
    /// [`CLASS_BUDGET_BYTES`]
    pub class_budget_bytes: usize,
    /// [`CLASS_MESSAGES`]
    pub class_messages: usize,
    /// [`SEND_BUDGET_BYTES`]
    pub send_budget_bytes: usize,
    /// [`RECEIVE_BUDGET_BYTES`]
    pub receive_budget_bytes: usize,
    /// [`MAX_PEERS`]
    pub max_peers: usize,
}

impl Default for ReliableConfig {
    fn default() -> ReliableConfig {
        ReliableConfig {
            class_budget_bytes: CLASS_BUDGET_BYTES,
            class_messages: CLASS_MESSAGES,
            send_budget_bytes: SEND_BUDGET_BYTES,
            receive_budget_bytes: RECEIVE_BUDGET_BYTES,
            max_peers: MAX_PEERS,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message arrived.
    Message {
        /// From whom.
        peer: PublicKey,
        /// The sender's kind: which layer it is for.
        kind: u8,
        /// The whole body.
        body: Bytes,
    },
    /// The peer's process has the whole message (not: has acted on it).
    Acked {
        /// To whom.
        peer: PublicKey,
        /// Which.
        id: MessageId,
    },
    /// The message will not be sent any more. It may have arrived.
    Failed {
        /// To whom.
        peer: PublicKey,
        /// Which.
        id: MessageId,
        /// Why.
        reason: FailReason,
    },
    /// After [`SendError::Full`]: try again.
    Writable {
        /// To whom.
        peer: PublicKey,
    },
}

/// Why an accepted message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReason {
    /// The peer's boot id changed: the process for which the message was meant is gone.
    PeerRestarted,
    /// The peer was dropped: it is gone for good, can't be reached, or had to make room.
    Forgotten,
    /// The same process of the peer dropped the connection.
    ConnectionLost,
    /// The peer refused this message's stream.
    Refused,
}

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The body is above [`MAX_MESSAGE_BYTES`]: split it.
    #[error("a message of {len} bytes is above the limit of {MAX_MESSAGE_BYTES}: split it")]
    TooLarge {
        /// Its length.
        len: usize,
    },
    /// Too much is waiting, to this peer at this priority or to all: try again when the peer is writable.
    #[error("{queued_bytes} bytes are waiting for this peer: retry when it is writable")]
    Full {
        /// Bytes that wait for this peer.
        queued_bytes: usize,
    },
    /// The table of peers is full: forget one.
    #[error("the table of peers is full: forget one first")]
    TooManyPeers,
    /// The peer is this process.
    #[error("a message to oneself needs no transport")]
    ToSelf,
}

/// Counters. All only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages accepted by `send`.
    pub accepted: u64,
    /// Messages acknowledged by their peer.
    pub acked: u64,
    /// Messages given up.
    pub failed: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// `send` refused: too large.
    pub refused_large: u64,
    /// `send` refused: a budget was used up.
    pub refused_full: u64,
    /// `send` or `on_established` refused: no room for another peer.
    pub refused_peers: u64,
    /// Connections that were established.
    pub connections: u64,
    /// Connections that ended, for whatever reason.
    pub connections_ended: u64,
    /// Datagrams that are neither QUIC nor ours.
    pub garbage: u64,
    /// Datagrams from peers whose boot isn't known.
    pub unknown_peer: u64,
    /// Datagrams of an earlier boot, attempt or connection.
    pub stale: u64,
    /// Connections closed because the peer broke the rules of messages.
    pub violations: u64,
    /// Connections closed because they blocked the receive budget without progress.
    pub stalled: u64,
    /// Times that reading from a peer paused for the receive budget.
    pub paused: u64,
    /// OPEN datagrams sent.
    pub opens_sent: u64,
    /// GONE datagrams sent.
    pub gones_sent: u64,
    /// Probes sent ahead of QUIC's back-off.
    pub early_probes: u64,
}
