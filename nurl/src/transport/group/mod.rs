//! Groups: one frame to many receivers with one uplink; the relay fans it out.
//!
//! **Guarantees.** The relay learns a tag and the sender's key, but neither the group's name nor any
//! content. A receiver accepts each frame at most once, and after a restart none that was sent before it. A
//! peer that is removed from a group's list can't read frames sent after the next rotation, within a minute.
//!
//! **Mechanism.** Each sender has a random key per group and process (`boot`). Receivers pull it over their session
//! with the sender (channel 4, see `message`). The answer carries the key *and the counter reached*; no frame at or
//! below that counter is accepted. A sender answers the peers on its list, or, without a list, any live member: a session
//! alone, which a ticket gives to everybody, is not enough. It
//! changes its key when a list loses a peer or the mesh secret changes, otherwise hourly, at most once a minute, and
//! sends the new key to the holders of the old one. The **mesh group**, the empty name, is always joined and needs no
//! pull: every holder of the mesh secret derives each sender's subkey.
//!
//! **Refusals.** Frames of unknown groups, of senders that a list excludes, and of voided boots, replays and
//! forgeries are dropped and counted. Few frames wait for a missing key, and only briefly. All tables are bounded.
//!
//! **Limitations.** Any holder of a sender's key can forge that sender, so no authority may rest on a group
//! frame. In the mesh group, an attacker can replay to a restarted receiver the frames from before its
//! restart. The first frames of a sender whose key was never pulled are lost, since the answer's counter is
//! past them: call [`Groups::pull`] early for important senders.

mod frame;
mod message;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::key::PublicKey;

pub use frame::{GROUP_FRAME, OVERHEAD_BYTES};
pub use state::Groups;

/// The relay's id of a group: a keyed hash of its name.
pub type Tag = [u8; 16];

/// The name of the mesh group.
pub const MESH_GROUP: &str = "";

/// The longest group name in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Groups of a node, in addition to the mesh group. With two generations of the mesh secret each takes two
/// of the relay's groups per client.
pub const MAX_GROUPS: usize = 64;

/// The largest frame: the 16 KiB of a relayed datagram.
pub const MAX_FRAME_BYTES: usize = 16 << 10;

/// The largest body.
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES - OVERHEAD_BYTES;

/// (group, sender) pairs whose keys and windows are kept, in total. The sender that was silent longest is
/// evicted; if it sends again, its key is pulled again, with a later counter.
pub const MAX_SENDERS: usize = 4_096;

/// Peers that a sender remembers in order to send them the next key. Further peers pull it when they receive a frame.
pub const MAX_HOLDERS: usize = 4_096;

/// Frames that wait for one sender's key.
pub const MAX_WAITING_PER_SENDER: usize = 8;

/// Frames that wait for keys, in total: 1 MiB at most.
pub const MAX_WAITING: usize = 64;

/// Requests for keys in progress. A forged sender occupies one; a real sender's key is requested at its next frame.
pub const MAX_REQUESTS: usize = 64;

/// Pending messages for channel 4. A new key beyond this limit isn't sent; its receiver pulls it.
pub const MAX_OUTBOX: usize = 4_096;

/// The longest time that a frame waits for its key.
pub const WAIT: Duration = Duration::from_secs(5);

/// An unanswered request is repeated after this, doubling, [`REQUEST_TRIES`] times in all.
pub const REQUEST_RETRY: Duration = Duration::from_millis(500);

/// Tries of a request: the last one 3.5 s after the first, within [`WAIT`].
pub const REQUEST_TRIES: u32 = 4;

/// The longest lifetime of a key.
pub const ROTATION: Duration = Duration::from_secs(3_600);

/// The shortest lifetime of a key, so that a flapping list doesn't flood the session layer with keys.
pub const MIN_ROTATION: Duration = Duration::from_secs(60);

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A name has 1 to [`MAX_NAME_BYTES`] bytes; the empty one is the mesh group's.
    #[error("a group's name has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// The node is in too many groups: leave one first.
    #[error("this node is in {MAX_GROUPS} groups already: leave one first")]
    TooManyGroups,
    /// The node isn't in the group: join it first.
    #[error("this node is not in that group: join it first")]
    NotJoined,
    /// The body is too large: send it to each member as a reliable message.
    #[error("a group frame carries at most {MAX_BODY_BYTES} bytes, not {len}")]
    TooLarge {
        /// The body's length.
        len: usize,
    },
}

/// The result of handling a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameOutcome {
    /// The frame was delivered as an event.
    Received,
    /// The frame waits for its key, which was requested.
    Waiting,
    /// The frame is too short, too long, or not a group frame.
    Malformed,
    /// No joined group has this tag.
    UnknownGroup,
    /// The group's list excludes the sender, or the sender is this node.
    SenderRefused,
    /// The sender's boot isn't its current one, or the key was replaced.
    Voided,
    /// The counter was seen before, or isn't above the counter received with the key.
    Replayed,
    /// Decryption failed.
    Forged,
    /// The key is missing, and there is no room to wait for it.
    Overflow,
}

/// Events of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// A frame arrived.
    Received {
        /// The group's name; [`MESH_GROUP`] for the mesh group.
        group: String,
        /// The claimed sender. Every holder of the key could have sent the frame.
        sender: PublicKey,
        /// The frame's body.
        body: Vec<u8>,
    },
}

/// Counters. They only increase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Frames sealed.
    pub sealed: u64,
    /// Frames delivered.
    pub received: u64,
    /// Frames that had to wait.
    pub waited: u64,
    /// Frames that waited until they expired.
    pub expired: u64,
    /// [`FrameOutcome::Malformed`]
    pub malformed: u64,
    /// [`FrameOutcome::UnknownGroup`]
    pub unknown_group: u64,
    /// [`FrameOutcome::SenderRefused`]
    pub sender_refused: u64,
    /// [`FrameOutcome::Voided`]
    pub voided: u64,
    /// [`FrameOutcome::Replayed`]
    pub replayed: u64,
    /// [`FrameOutcome::Forged`]
    pub forged: u64,
    /// [`FrameOutcome::Overflow`]
    pub overflow: u64,
    /// Key messages that are malformed, of unknown groups, or of voided boots.
    pub bad_key_messages: u64,
    /// Requests for our key that were refused.
    pub requests_refused: u64,
    /// Requests for our key that were answered.
    pub requests_answered: u64,
    /// Requests sent, repetitions included.
    pub requests_sent: u64,
    /// Requests that stayed unanswered.
    pub requests_failed: u64,
    /// New keys of ours after the first.
    pub rotations: u64,
    /// Senders evicted for others.
    pub senders_evicted: u64,
    /// Messages for channel 4 dropped because too many were pending.
    pub outbox_full: u64,
}
