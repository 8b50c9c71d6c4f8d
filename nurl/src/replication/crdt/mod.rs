//! State-based CRDTs with delta mutators.
//!
//! # Guarantees
//! - Merging is commutative, associative and idempotent: replicas that saw the same writes are equal, regardless of
//!   order, loss or repetition of messages.
//! - **Canonical**: equal states have equal bytes, so digests converge. Decoding accepts only the canonical form.
//! - A mutator returns a *delta*, itself a state: the cost of merging a delta depends on the delta, not on the state.
//!
//! # Types
//! [`PnCounter`], [`LwwRegister`] (hybrid logical clock), [`OrSet`] (observed-remove, add wins, no tombstones),
//! [`MultiRegister`] (concurrent writes stay side by side), [`OrMap`] (fields of all these kinds).
//! [`Value`] is any of them. A key says of which [`Kind`] its value is, so states of two kinds never meet.
//!
//! # Rejected input
//! Bytes that are not canonical, states over a limit ([`MAX_COUNTER_SLOTS`], [`MAX_STATE_BYTES`], …), and a write
//! whose clock drifted ([`CrdtError::ClockDrift`]). A merge never refuses a stamp: a register's write that is too far ahead
//! is parked, a deletion or an expiry is left out until it is told again.

mod clock;
mod codec;
mod context;
mod counter;
mod map;
mod multi;
mod object;
mod register;
mod set;
mod sums;
#[cfg(test)]
mod tests;
mod value;

pub use clock::{Clock, MAX_DRIFT, Stamp};
pub use context::{Context, Dot, MAX_ACTORS, MAX_CLOUD_DOTS};
pub use counter::{MAX_COUNTER_SLOTS, PnCounter};
pub use map::{Author, MAX_FIELD_BYTES, OrMap};
pub use multi::{MAX_SIBLING_BYTES, MAX_SIBLINGS, MultiRegister};
pub use object::{MAX_TTL, Object};
pub use register::{LwwRegister, MAX_PARKED, MAX_REGISTER_BYTES};
pub use set::{MAX_ELEMENT_BYTES, OrSet};
pub use value::{DIGEST_LEN, Digest, Kind, News, Value};

/// The encoded size above which a local write is refused. It is a quarter of [`MAX_STATE_BYTES`], so that two sides
/// of a partition that both fill up can still merge.
pub const MAX_WRITE_BYTES: usize = 256 * 1024;

/// The limit on the encoded size of any one state: it is sent in one message of at most 1 MiB together with its key.
pub const MAX_STATE_BYTES: usize = 1000 * 1024;

/// Why a write, a merge or a decoding was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrdtError {
    /// The counter has as many writers as it can have.
    #[error("a counter has at most {MAX_COUNTER_SLOTS} slots")]
    TooManySlots,
    /// The writer's counter would overflow.
    #[error("the counter's slot is exhausted")]
    Overflow,
    /// The value has too many actors or unordered dots.
    #[error("the value's causal context is full")]
    TooManyActors,
    /// The register would show too many values side by side.
    #[error("a register shows at most {MAX_SIBLINGS} values side by side")]
    TooManySiblings,
    /// The state, the value or the element is too large.
    #[error("{size} bytes, the limit is {limit}")]
    TooLarge {
        /// The size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The local wall clock is more than 10 s behind a stamp that this node wrote or saw: fix the clock, or wait.
    #[error("the wall clock is {behind_ms} ms behind the newest stamp")]
    ClockDrift {
        /// The difference in milliseconds.
        behind_ms: u64,
    },
    /// The two states, or the key and its value, are of different kinds.
    #[error("values of different kinds don't go together")]
    WrongKind,
    /// The bytes are not the canonical encoding of a state.
    #[error("not a canonical state: {0}")]
    NotCanonical(&'static str),
}

impl CrdtError {
    /// Whether the value has no place for another writer.
    pub(super) fn wants_a_place(&self) -> bool {
        matches!(self, CrdtError::TooManySlots | CrdtError::TooManyActors)
    }
}
