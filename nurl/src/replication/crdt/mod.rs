//! State-based CRDTs with delta mutators.
//!
//! # What they promise
//! - Merging is commutative, associative and idempotent: replicas that saw the same writes are equal, whatever
//!   the order, loss or repetition on the way.
//! - **Canonical**: equal states are equal bytes, so digests settle. Decoding takes exactly the canonical form.
//! - A mutator returns a *delta*, itself a state: merging it costs the delta, not the state.
//!
//! # Which
//! [`PnCounter`], [`LwwRegister`] (hybrid logical clock), [`OrSet`] (observed-remove, add wins, no tombstones).
//! [`Value`] is any of them. A write of another type than the key has is refused where it enters. Replicas that
//! couldn't hear each other may still create one key as different types: they converge too, on a state that is
//! [mixed](Mixed), in which each type has what was written as such.
//!
//! # What they refuse
//! Bytes that are not canonical, states over a bound ([`MAX_COUNTER_SLOTS`], [`MAX_STATE_BYTES`], …), a write
//! whose clock drifted ([`CrdtError::ClockDrift`]). A merge never refuses a stamp: one too far ahead is parked.

mod clock;
mod codec;
mod context;
mod counter;
mod register;
mod set;
#[cfg(test)]
mod tests;
mod value;

pub use clock::{Clock, MAX_DRIFT, Stamp};
pub use context::{Context, Dot, MAX_ACTORS, MAX_CLOUD_DOTS};
pub use counter::{MAX_COUNTER_SLOTS, PnCounter};
pub use register::{LwwRegister, MAX_PARKED, MAX_REGISTER_BYTES};
pub use set::{MAX_ELEMENT_BYTES, OrSet};
pub use value::{DIGEST_LEN, Digest, Kind, Mixed, Value};

/// The encoded size above which a local write is refused. A quarter of [`MAX_STATE_BYTES`], so that the sides of a
/// partition that both fill up can still merge.
pub const MAX_WRITE_BYTES: usize = 256 * 1024;

/// The encoded size of any one state: it rides in one message of at most 1 MiB together with its key.
pub const MAX_STATE_BYTES: usize = 1000 * 1024;

/// Why a write, a merge or some bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrdtError {
    /// The counter has as many writers as it can have.
    #[error("a counter has at most {MAX_COUNTER_SLOTS} slots")]
    TooManySlots,
    /// The writer's counter would overflow.
    #[error("the counter's slot is exhausted")]
    Overflow,
    /// The set has too many actors or unordered dots.
    #[error("the set's causal context is full")]
    TooManyActors,
    /// The state, the value or the element is too large.
    #[error("{size} bytes, the limit is {limit}")]
    TooLarge {
        /// How large.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The local wall clock is more than 10 s behind what this node wrote or saw: fix the clock, or wait.
    #[error("the wall clock is {behind_ms} ms behind the newest stamp")]
    ClockDrift {
        /// By how much.
        behind_ms: u64,
    },
    /// The key holds another type.
    #[error("the key holds a {}, not a {}", held.as_str(), wanted.as_str())]
    WrongKind {
        /// What it holds.
        held: Kind,
        /// What the operation needs.
        wanted: Kind,
    },
    /// The bytes are not the canonical encoding of a state.
    #[error("not a canonical state: {0}")]
    NotCanonical(&'static str),
}
