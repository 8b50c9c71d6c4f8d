//! The detector's output to its node: events, counters, errors.

use super::message::MAX_EVENT_BYTES;
use super::table::Member;
use crate::key::PublicKey;

/// An event of the detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipEvent {
    /// The first exchange after [`join`](super::Detector::join) is complete: this node has joined and knows the mesh.
    Joined,
    /// It is proven that no other member is there: this node's view of the mesh is complete.
    Alone,
    /// Time to ask the hubs for contacts: no contact has answered yet.
    ListDue,
    /// A member is new, or alive again.
    Alive(Member),
    /// A member is suspect; it still counts as live.
    Suspect(Member),
    /// A member is dead.
    Dead(Member),
    /// A member left gracefully.
    Left(Member),
    /// A member runs a new process.
    Restarted {
        /// The member.
        peer: PublicKey,
        /// The boot id of the new process.
        boot: u64,
    },
    /// A member's metadata changed.
    MetaChanged(Member),
    /// A dead or left member is forgotten; it has no place on the ring any more.
    Reclaimed(PublicKey),
    /// The peer's pass was revoked: it is no member any more.
    Expelled(PublicKey),
    /// The peer knows other revocations than this node.
    RevocationsDiffer {
        /// The peer.
        peer: PublicKey,
    },
    /// This node refuted a claim that it is suspect, dead or gone.
    Refuted {
        /// The incarnation of the refutation.
        incarnation: u64,
    },
    /// A session to this peer will be needed within about a period.
    WantSession {
        /// The peer.
        peer: PublicKey,
    },
    /// Whether this node is isolated.
    Isolated(bool),
    /// Time to broadcast [`announce`](super::Detector::announce) on the mesh group, and to read rendezvous again.
    AnnounceDue,
    /// An application's event arrived.
    User {
        /// The claimed author, unauthenticated.
        origin: PublicKey,
        /// The event's body.
        body: Vec<u8>,
    },
    /// [`leave`](super::Detector::leave) has told enough members; the node may end.
    Departed,
}

/// Counters of refusals, losses and notable events since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetectorStats {
    /// Bodies that are no message.
    pub malformed: u64,
    /// Messages of a kind that this version doesn't know.
    pub unknown_kinds: u64,
    /// Bodies above the limit.
    pub oversize: u64,
    /// Messages from this node's own key.
    pub from_self: u64,
    /// Facts whose incarnation is too far ahead of the wall clock.
    pub incarnations_too_high: u64,
    /// Epochs too far ahead of the wall clock.
    pub epochs_too_high: u64,
    /// New members without room.
    pub table_full: u64,
    /// Facts about members that are about to be forgotten.
    pub expired_facts: u64,
    /// Claims that a live member is dead, which this node checked with its subject.
    pub claims_checked: u64,
    /// Such claims that their subject refuted by its answer.
    pub claims_refuted: u64,
    /// Claims and suspicions refused because their teller had caused too many.
    pub claims_limited: u64,
    /// Claims and suspicions refused because their teller is no live member.
    pub claims_of_strangers: u64,
    /// Messages of members from peers whose pass permits no membership, served as those of observers.
    pub beyond_level: u64,
    /// Facts about peers whose pass was revoked.
    pub facts_of_outcasts: u64,
    /// Facts whose pass or signature isn't valid.
    pub facts_forged: u64,
    /// Facts left unchecked, since their teller had told forged ones.
    pub facts_of_forgers: u64,
    /// Facts about peers whose pass permits no membership.
    pub facts_below_member: u64,
    /// Accusations of peers that this node doesn't know.
    pub facts_of_unknown: u64,
    /// Words of forgotten members that say no more than was known of these.
    pub facts_of_forgotten: u64,
    /// Messages dropped because too many were queued.
    pub transmits_dropped: u64,
    /// Events dropped because too many were queued.
    pub events_dropped: u64,
    /// Facts or user events that found the gossip queue full.
    pub gossip_full: u64,
    /// Acks and NACKs that match no probe.
    pub unsolicited_acks: u64,
    /// Acks after their probe had failed.
    pub late_acks: u64,
    /// Ping-reqs answered with a NACK at once, because too many were being served.
    pub served_full: u64,
    /// Ping-reqs answered with a NACK at once, because this node doesn't know their target.
    pub served_unknown: u64,
    /// Ping-reqs served.
    pub served: u64,
    /// Push-pull requests refused by the limit per second.
    pub push_pulls_refused: u64,
    /// Push-pulls without an answer in time, or whose request was lost.
    pub push_pulls_failed: u64,
    /// Push-pulls completed.
    pub push_pulls: u64,
    /// Chunks of an answer that this node didn't ask for.
    pub unsolicited_chunks: u64,
    /// Facts about this node left unrefuted by the rate limit.
    pub refutations_limited: u64,
    /// Pings sent, for others too.
    pub pings: u64,
    /// Acks sent.
    pub acks: u64,
    /// Gossip messages sent.
    pub gossips: u64,
    /// Chunks of this node's table sent.
    pub chunks: u64,
    /// Times that this node itself stalled.
    pub stalls: u64,
    /// Probes that failed.
    pub probes_failed: u64,
    /// Probes outside the rounds, of members under accusation or denial.
    pub probes_beside: u64,
    /// Members that were not probed out of turn, because too many were queued.
    pub urgent_full: u64,
    /// Probes that were answered in time.
    pub probes_answered: u64,
    /// Announcements not answered because too many were queued.
    pub announcements_dropped: u64,
}

/// An application's mistake in using membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Metadata beyond its bounds: use fewer or shorter names.
    #[error("metadata too large: {kinds} job kinds, {bytes} bytes of names")]
    MetaTooLarge {
        /// Number of job kinds.
        kinds: usize,
        /// Total bytes of all names.
        bytes: usize,
    },
    /// A user event above its limit: store the data elsewhere and gossip its name.
    #[error("a user event of {0} bytes; at most {MAX_EVENT_BYTES}")]
    EventTooLarge(usize),
    /// Too many user events are queued: try again in a few seconds.
    #[error("too many user events wait")]
    EventsFull,
    /// Observers and members that left don't gossip.
    #[error("not a member")]
    NotAMember,
    /// An epoch counter too far ahead of the wall clock: it is false, or a clock is wrong by more than a day.
    #[error("epoch counter {counter} is above {limit}, too far ahead of the clock")]
    EpochTooHigh {
        /// The refused counter.
        counter: u64,
        /// The highest that is believed now.
        limit: u64,
    },
}
