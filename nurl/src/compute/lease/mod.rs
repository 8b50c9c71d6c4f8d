//! The discipline of a resource: effects happen once, and never under an old token.
//!
//! Without consensus two nodes may both believe that they act for a key. So it is the resource that decides:
//! [`Resource::admit`] takes a fencing token and a task, and answers in this order:
//!
//! 1. the task has an outcome → that outcome, whatever the token ([`Admission::Recorded`]);
//! 2. the task is in progress → [`Admission::InProgress`];
//! 3. the token is below the key's → [`Admission::Fenced`], with the token that stands;
//! 4. else (token, task) is made durable, and the caller does the effect ([`Admission::Admitted`]), records its
//!    outcome with [`Resource::complete`], and only then acknowledges.
//!
//! # What it promises
//! - A resource that has admitted a token never admits a lower one for that key, across restarts.
//! - A recorded outcome is given again for the task's life and 10 minutes more, whoever asks.
//! - An effect made through [`Resource::commit_with`] is durable in one transaction with its outcome, and is
//!   refused there if a higher token came meanwhile. This is what *fenced* and *exactly once* hold for.
//! - For any other effect, a task that was in progress when the process died has the outcome
//!   [`Outcome::Unknown`], and is never run again. Its owner can be asked at the start, by a closure, whether
//!   the effect can be read back or was rolled back: see [`Recovered`].
//!
//! # What it refuses
//! A token whose counter is more than 2³² above the highest known, so nobody fences out the world. A full table
//! answers [`Admission::Busy`]: nothing younger than its life is evicted. Where a key's token must go to make
//! room, the floor rises to it, and unknown keys need at least the floor.

mod record;
mod resource;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use resource::Resource;

use crate::replication::store::StoreError;
use crate::ring::Epoch;

/// 128 random bits, the same on every retry of a task.
pub type TaskId = [u8; 16];

/// The longest life of a task.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer than the task's life its outcome is kept: for retries under way when the life ends.
pub const KEEP: Duration = Duration::from_secs(10 * 60);

/// The longest key, as everywhere.
pub const MAX_KEY_BYTES: usize = 1024;

/// The largest outcome: a job's result.
pub const MAX_OUTCOME_BYTES: usize = 16 * 1024 * 1024;

/// Tasks remembered. Each costs about 200 bytes of memory; its outcome lies on the disk.
pub const MAX_TASKS: usize = 65_536;

/// Keys whose token is remembered. Beyond, the lowest token without tasks raises the floor, which can only
/// refuse old owners, never admit them.
pub const MAX_KEYS: usize = 65_536;

/// What a resource remembers at most.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Tasks.
    pub max_tasks: usize,
    /// Keys.
    pub max_keys: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { max_tasks: MAX_TASKS, max_keys: MAX_KEYS }
    }
}

/// How a task ended at this resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With this.
    Done(Vec<u8>),
    /// The process died in it: the effect happened once or not at all, and won't again.
    Unknown,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The task has ended before; the effect is not repeated.
    Recorded(Outcome),
    /// The task runs here now; the effect is not repeated.
    InProgress,
    /// Somebody with a higher token acts for the key.
    Fenced {
        /// The token that stands: the key's, or the floor.
        current: Epoch,
    },
    /// There is no room; nothing was recorded. Try again later or elsewhere.
    Busy,
    /// (token, task) is durable: do the effect now, then complete.
    Admitted,
}

/// What the owner of a resource finds out about a task that was in progress when the process died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// The effect can be read back, and this is its outcome.
    Done(Vec<u8>),
    /// The effect did not happen, or was undone: the task may run again.
    RolledBack,
    /// Nobody can tell.
    Unknown,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The token's counter is a lie, or from a different mesh.
    #[error("epoch counter {counter} is more than 2^32 above the highest known, {highest}")]
    TooFarAhead {
        /// What was claimed.
        counter: u64,
        /// The highest known.
        highest: u64,
    },
    /// The key or the outcome is too long, or the life is.
    #[error("{what} of {size}, the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The task is not in progress: it was not admitted, or has ended.
    #[error("the task is not in progress here")]
    NotInProgress,
    /// A higher token came before the effect was committed: nothing was done.
    #[error("fenced before its effect was committed")]
    Fenced {
        /// The token that stands.
        current: Epoch,
    },
    /// The disk failed. What is durable stands; open the store again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a resource did and refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks admitted.
    pub admitted: u64,
    /// Outcomes given again.
    pub recorded: u64,
    /// Requests for a task in progress.
    pub in_progress: u64,
    /// Requests and commits under a lower token.
    pub fenced: u64,
    /// Requests refused for want of room.
    pub busy: u64,
    /// Tokens too far ahead.
    pub too_far_ahead: u64,
    /// Keys whose token raised the floor.
    pub evicted: u64,
    /// Tasks that a restart found in progress and could not tell.
    pub unknown: u64,
}
