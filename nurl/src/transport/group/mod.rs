//! Groups: one frame to many, with one uplink; the relay fans it out.
//!
//! **Promises.** The relay learns a tag and the sender's key, neither the group's name nor any content. A
//! receiver takes each frame at most once, and after a restart nothing that was sent before it. A peer that
//! is taken off a group's list reads nothing sent after the next rotation, within a minute.
//!
//! **How.** Each sender has a random key per group and process (`boot`), which others pull from it over
//! their session with it (channel 4, see `message`). The answer carries the key *and the counter reached*;
//! nothing at or below that is accepted. A sender answers the members of its list, or any live member. It
//! changes its key when a list loses someone or the mesh secret changes, else hourly, at most once a minute,
//! and hands the new one to those who had the old. The **mesh group**, the empty name, is always joined and
//! needs no pulling: every holder of the mesh secret derives each sender's subkey.
//!
//! **Refuses.** Frames of unknown groups, of senders that a list excludes, of voided boots, replays and
//! forgeries: each counted. Frames whose key isn't here wait, few and briefly. Everything is bounded.
//!
//! **Doesn't promise.** Whoever holds a sender's key can forge that sender: nothing with authority rests on
//! a group frame. In the mesh group, a receiver that restarted can be fed frames from before its restart.
//! The first frames of a sender whose key was never pulled are lost, since the answer's counter is past
//! them: [`Groups::pull`] early from those who matter.

mod frame;
mod message;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::key::PublicKey;

pub use frame::{GROUP_FRAME, OVERHEAD_BYTES};
pub use state::Groups;

/// What the relay knows a group by: a keyed hash of its name.
pub type Tag = [u8; 16];

/// The name of the mesh group.
pub const MESH_GROUP: &str = "";

/// The longest group name in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Groups that a node is in, beside the mesh group. With two generations of the mesh secret each takes two
/// of the relay's groups per client.
pub const MAX_GROUPS: usize = 64;

/// The largest frame: a relayed datagram's 16 KiB.
pub const MAX_FRAME_BYTES: usize = 16 << 10;

/// The largest body.
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES - OVERHEAD_BYTES;

/// (group, sender) pairs whose keys and windows are kept, in all. The one that was silent longest makes
/// room: if it speaks again, its key is pulled again, with a later counter.
pub const MAX_SENDERS: usize = 4_096;

/// Peers that a sender remembers to hand the next key to. Later ones pull it when they meet a frame.
pub const MAX_HOLDERS: usize = 4_096;

/// Frames that wait for one sender's key.
pub const MAX_WAITING_PER_SENDER: usize = 8;

/// Frames that wait for keys, in all: 1 MiB at most.
pub const MAX_WAITING: usize = 64;

/// Requests for keys under way. A forged sender costs one of them; real ones wait for their next frame.
pub const MAX_REQUESTS: usize = 64;

/// Messages for channel 4 that weren't polled yet. A handed-on key beyond it is dropped; it gets pulled.
pub const MAX_OUTBOX: usize = 4_096;

/// A frame waits for its key no longer than this.
pub const WAIT: Duration = Duration::from_secs(5);

/// An unanswered request is repeated after this, doubling, [`REQUEST_TRIES`] times in all.
pub const REQUEST_RETRY: Duration = Duration::from_millis(500);

/// Tries of a request: the last one 3.5 s after the first, within [`WAIT`].
pub const REQUEST_TRIES: u32 = 4;

/// A key serves no longer than this.
pub const ROTATION: Duration = Duration::from_secs(3_600);

/// A key serves at least this long, so that a flapping list doesn't flood the session layer with keys.
pub const MIN_ROTATION: Duration = Duration::from_secs(60);

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A name has 1 to [`MAX_NAME_BYTES`] bytes; the empty one is the mesh group's.
    #[error("a group's name has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// Leave a group first.
    #[error("this node is in {MAX_GROUPS} groups already: leave one first")]
    TooManyGroups,
    /// Join it first.
    #[error("this node is not in that group: join it first")]
    NotJoined,
    /// Send it as a reliable message to each.
    #[error("a group frame carries at most {MAX_BODY_BYTES} bytes, not {len}")]
    TooLarge {
        /// The body's length.
        len: usize,
    },
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is an event now.
    Received,
    /// It waits for its key, which was asked for.
    Waiting,
    /// Too short, too long, or no group frame.
    Malformed,
    /// No group of ours has this tag.
    UnknownGroup,
    /// The group's list excludes the sender, or the sender is this node.
    SenderRefused,
    /// The sender's boot is not the one it has now, or the key was replaced.
    Voided,
    /// Its counter was seen, or lies before the key was given to us.
    Replayed,
    /// It doesn't open.
    Forged,
    /// Its key isn't here, and there is no room to wait.
    Overflow,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A frame arrived.
    Received {
        /// The group's name; [`MESH_GROUP`] for the mesh group.
        group: String,
        /// Who claims to have sent it. Every holder of the key could have.
        sender: PublicKey,
        /// What it carried.
        body: Vec<u8>,
    },
}

/// Counters. All only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames sealed.
    pub sealed: u64,
    /// Frames delivered.
    pub received: u64,
    /// Frames that had to wait.
    pub waited: u64,
    /// Frames that waited in vain.
    pub expired: u64,
    /// [`Outcome::Malformed`]
    pub malformed: u64,
    /// [`Outcome::UnknownGroup`]
    pub unknown_group: u64,
    /// [`Outcome::SenderRefused`]
    pub sender_refused: u64,
    /// [`Outcome::Voided`]
    pub voided: u64,
    /// [`Outcome::Replayed`]
    pub replayed: u64,
    /// [`Outcome::Forged`]
    pub forged: u64,
    /// [`Outcome::Overflow`]
    pub overflow: u64,
    /// Key messages that are malformed, of unknown groups, or of voided boots.
    pub bad_key_messages: u64,
    /// Requests for our key that were refused.
    pub requests_refused: u64,
    /// Requests for our key that were answered.
    pub requests_answered: u64,
    /// Requests sent, repetitions included.
    pub requests_sent: u64,
    /// Requests that nobody answered.
    pub requests_failed: u64,
    /// New keys of ours after the first.
    pub rotations: u64,
    /// Senders that made room for others.
    pub senders_evicted: u64,
    /// Messages for channel 4 dropped because too many were waiting.
    pub outbox_full: u64,
}
