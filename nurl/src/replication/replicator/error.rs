//! Why an update or a read failed.

use std::sync::Arc;

use super::config::MAX_KEY_BYTES;
use super::confirm::Decline;
use super::operations::OperationError;
use crate::key::PublicKey;
use crate::replication::crdt::CrdtError;

/// Why a write or a read wasn't started, or a write failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// Too many of the key's owners haven't said what they have.
    #[error("too few owners of the key answer, so its value isn't known: try again")]
    Unknown,
    /// Fewer nodes than are wanted have the write so far. This node goes on sending it.
    #[error("{}", unconfirmed(.0))]
    Unconfirmed(Vec<PublicKey>),
    /// All live owners of the key refused the write. Nobody has it, and it isn't sent any more.
    #[error("the owners of the key refused the write: {0}")]
    Declined(Decline),
    /// This node's disk takes no commits, for this reason. Nothing was changed.
    #[error(
        "this node's disk fails ({0}), so it takes no writes: write through another node, or mend the disk first"
    )]
    Disk(Arc<str>),
    /// An observer has no replica id to write under. It sends an operation to a member instead.
    #[error("an observer writes through a member")]
    Observer,
    /// The ring is empty.
    #[error("nobody owns the key")]
    NoOwners,
}

/// How an update failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFailure {
    /// This node made no write, or too few nodes have the one that it made.
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The read wasn't started.
    #[error(transparent)]
    Refused(#[from] UpdateError),
    /// No owner answered.
    #[error("no owner of the key answered")]
    NoAnswer,
}

/// What is told of a write that too few nodes have.
fn unconfirmed(holders: &[PublicKey]) -> String {
    let goes_on = "it goes on being sent, and may be lost if this process ends before";
    if holders.is_empty() {
        return format!("no owner of the key has acknowledged the write yet: {goes_on}");
    }
    let names: Vec<String> = holders.iter().map(|holder| holder.short().to_string()).collect();
    format!("only {} has acknowledged the write yet: {goes_on}", names.join(", "))
}
