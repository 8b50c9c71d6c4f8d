//! The content of a task: fixed at its submission, and the same at every node that gets it.

use bytes::Bytes;

use super::task::TaskId;
use super::warrant::Warrant;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct TaskSpec {
    pub(super) kind: String,
    pub(super) key: Bytes,
    pub(super) payload: Bytes,
    /// The [`digest`] of the three.
    pub(super) digest: [u8; 32],
    /// The task that this one tries again.
    pub(super) parent: Option<TaskId>,
    /// Whether the payload is in an envelope, and the result will be ([`blob`](crate::compute::blob)).
    pub(super) large: bool,
    /// The word of whose task it is, if it is submitted for another.
    pub(super) warrant: Option<Box<Warrant>>,
}

/// The digest of a task id's content: BLAKE3 over kind, key and payload, each with its length.
pub fn digest(kind: &str, key: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [kind.as_bytes(), key, payload] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}
