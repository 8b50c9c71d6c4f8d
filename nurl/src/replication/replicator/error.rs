//! Why an update or a read failed.

use super::config::MAX_KEY_BYTES;
use super::operations::OperationError;
use crate::replication::crdt::CrdtError;

/// Why a write or a read wasn't started, or a write failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The value refused it.
    #[error(transparent)]
    Value(#[from] CrdtError),
    /// The key, as the application gave it, is longer than [`MAX_KEY_BYTES`].
    #[error("a key of {0} bytes, the limit is {MAX_KEY_BYTES}")]
    KeyTooLong(usize),
    /// A table is full: try again after owners have acknowledged, or at another node.
    #[error("the table of {0} is full")]
    Full(&'static str),
    /// This node holds no copy, and the other owners haven't said whether one exists.
    #[error("the other owners of the key don't answer, so its value isn't known: try again")]
    Unknown,
    /// This node keeps the write and goes on sending it, but the write is lost if the process ends first.
    #[error("no owner of the key has acknowledged the write yet: it is lost if this process ends before")]
    Unacknowledged,
    /// An observer has no replica id to write under. It sends an operation to a member instead.
    #[error("an observer writes through a member")]
    Observer,
    /// The ring is empty.
    #[error("nobody owns the key")]
    NoOwners,
}

/// How an update failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFailure {
    /// This node made no write, or no owner has acknowledged the one that it made.
    #[error(transparent)]
    Here(#[from] UpdateError),
    /// The member that an observer asked made no write, or is lost.
    #[error(transparent)]
    AtMember(#[from] OperationError),
    /// This node leaves. It made no write, because a later write could miss the offers to the other owners.
    #[error("the node leaves")]
    Leaving,
}

/// How a read failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The read wasn't started.
    #[error(transparent)]
    Refused(#[from] UpdateError),
    /// No owner answered.
    #[error("no owner of the key answered")]
    NoAnswer,
}
