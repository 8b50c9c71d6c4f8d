//! Reliable messages: for bodies larger than a datagram, or that must arrive.
//!
//! **Guarantees.** A message of up to 16 MiB arrives whole and once at the process (the boot) for which it was
//! accepted, or its sender gets the reason for the failure. An unacknowledged message always has a timer, independent
//! of QUIC's own. Messages don't block each other: each is a QUIC stream of its own. Of the four priorities, a higher
//! one always goes first. Waiting messages are bounded per peer, per priority and in total, and so is received data.
//! No path change, rekeying or silence ever ends a connection.
//!
//! **Mechanism.** One QUIC connection ([`quinn_proto`]) per pair of boot ids, inside sealed datagrams on channel 2,
//! so QUIC's own cipher does nothing (`crypto`). The peer with the smaller key is the QUIC client; the other side
//! asks it to connect when it has something to send (`wire`: OPEN). A peer that lost its half of a connection answers
//! the next packet with GONE, and the client connects again. Time, randomness and bytes come from the caller; the
//! same calls give the same bytes.
//!
//! **Refusals.** A message above the budgets is refused with a typed error, and [`ReliableEvent::Writable`] follows
//! when a message left. Datagrams of earlier boots, and datagrams that are neither QUIC nor control datagrams, are
//! dropped and counted. If a peer announces more than it may, its connection is closed. So it is, when memory is short, if
//! its unfinished messages take more than a fair share of it and don't go on.
//!
//! **Failures.** A changed boot id of the peer fails every unacknowledged message with [`FailReason::PeerRestarted`];
//! [`Reliable::forget`] fails them with [`FailReason::Forgotten`]. If the peer lost the connection, the messages in
//! flight fail with [`FailReason::ConnectionLost`] (they may have arrived); the rest uses the next connection.
//!
//! The caller drains [`Reliable::poll_transmit`] and [`Reliable::poll_event`] after each call, and calls again at
//! [`Reliable::poll_timeout`]. It calls [`Reliable::on_established`] before it passes the first datagram of a
//! session.

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

/// The priority of a message, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Membership, keys, leases: small, and all other traffic depends on them.
    Control,
    /// Replicated state.
    State,
    /// Jobs and results.
    Job,
    /// Bulk data without urgency.
    Bulk,
}

impl Priority {
    /// All priorities, highest first.
    pub const ALL: [Priority; 4] = [Priority::Control, Priority::State, Priority::Job, Priority::Bulk];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// The id of an accepted message, unique in this process.
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

/// Events of reliable messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReliableEvent {
    /// A message arrived.
    Message {
        /// The sender.
        peer: PublicKey,
        /// The sender's kind, which selects the layer.
        kind: u8,
        /// The whole body.
        body: Bytes,
    },
    /// The peer's process has received the whole message (it may not have acted on it yet).
    Acked {
        /// The receiver.
        peer: PublicKey,
        /// The message.
        id: MessageId,
    },
    /// The message will no longer be sent. It may have arrived.
    Failed {
        /// The receiver.
        peer: PublicKey,
        /// The message.
        id: MessageId,
        /// The reason.
        reason: FailReason,
    },
    /// After [`SendError::Full`]: the caller may try again.
    Writable {
        /// The receiver.
        peer: PublicKey,
    },
}

/// Why an accepted message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReason {
    /// The peer's boot id changed: the process for which the message was meant is gone.
    PeerRestarted,
    /// The peer was dropped: it left for good, can't be reached, or was evicted.
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
    /// A budget is used up, for this peer at this priority or for all peers: try again when the peer is writable.
    #[error("{queued_bytes} bytes are waiting for this peer: retry when it is writable")]
    Full {
        /// Bytes that wait for this peer.
        queued_bytes: usize,
    },
    /// The table of peers is full: forget a peer first.
    #[error("the table of peers is full: forget one first")]
    TooManyPeers,
    /// The peer is this node itself.
    #[error("a message to oneself needs no transport")]
    ToSelf,
}

/// Counters. They only increase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReliableStats {
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
    /// Connections that ended, for any reason.
    pub connections_ended: u64,
    /// Datagrams that are neither QUIC nor control datagrams.
    pub garbage: u64,
    /// Datagrams from peers whose boot id isn't known.
    pub unknown_peer: u64,
    /// Datagrams of an earlier boot, attempt or connection.
    pub stale: u64,
    /// Connections closed because the peer violated the message protocol.
    pub violations: u64,
    /// Connections closed because they blocked the receive budget without progress.
    pub stalled: u64,
    /// Connections closed because the receive budget was used up, and the peer held most of it.
    pub evicted: u64,
    /// Times that reading from a peer paused because of the receive budget.
    pub paused: u64,
    /// OPEN datagrams sent.
    pub opens_sent: u64,
    /// GONE datagrams sent.
    pub gones_sent: u64,
    /// Probes sent ahead of QUIC's back-off.
    pub early_probes: u64,
}
