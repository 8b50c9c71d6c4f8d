//! Fencing at a resource: effects happen once, and never under an old token.
//!
//! Without consensus two nodes may both believe that they act for a key. So the resource decides: [`Resource::admit`]
//! takes a fencing token and a task, and checks in this order:
//!
//! 1. The task has an outcome: the answer is that outcome, whatever the token ([`Admission::Recorded`]).
//! 2. The task is in progress: [`Admission::InProgress`].
//! 3. The token is below the key's: [`Admission::Fenced`], with the current token.
//! 4. Otherwise (token, task) is made durable, and the caller does the effect ([`Admission::Admitted`]), records its
//!    outcome with [`Resource::complete`], and acknowledges only after that.
//!
//! # Guarantees
//! - A resource that has admitted a token never admits a lower one for that key, across restarts.
//! - A recorded outcome is returned for the task's life and 10 minutes more, to any caller. That time is counted by a
//!   clock that no step of the wall clock moves: see `clock`.
//! - An effect made through [`Resource::commit_with`] becomes durable in one transaction with its outcome, and is
//!   refused if a higher token was admitted meanwhile. *Fenced* and *exactly once* hold for such effects.
//! - For any other effect, a task that was in progress when the process died has the outcome [`Outcome::Unknown`],
//!   and is never run again. At the start, a closure can ask the resource's owner whether the effect can be read back
//!   or was rolled back: see [`Recovered`]. A panic in an effect counts as the death of its process, and so does the
//!   drop of a task's [`Guard`]: neither leaves a task in progress for ever.
//! - A holder that comes back after another one took its place is told so: its admission and its commit are refused,
//!   and an outcome that it records of an effect made elsewhere is [`Completed::Late`].
//!
//! # Refusals
//! A token is refused if its counter is [too far ahead of the wall clock](crate::membership::limit), so that one node
//! can't fence out all others. A full table answers [`Admission::Busy`]: no task is evicted before the end of its life. If a key's token
//! must be evicted to make room, the floor rises to that token, and unknown keys need at least the floor.

mod clock;
mod guard;
mod record;
mod resource;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use clock::Moment;
pub use guard::Guard;
pub use resource::Resource;
pub use store::Effects;

use crate::ring::Epoch;
use crate::store::StoreError;

/// 128 random bits, the same on every retry of a task.
pub type TaskId = [u8; 16];

/// The longest life of a task.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer than the task's life its outcome is kept, for retries that are under way when the life ends.
pub const KEEP: Duration = Duration::from_secs(10 * 60);

/// The longest key, the same as in the other modules.
pub const MAX_KEY_BYTES: usize = 1024;

/// The largest outcome: a job's result.
pub const MAX_OUTCOME_BYTES: usize = 16 * 1024 * 1024;

/// The most tasks remembered. Each costs about 200 bytes of memory; its outcome is on the disk.
pub const MAX_TASKS: usize = 65_536;

/// The most keys whose token is remembered. Beyond this, evicting the lowest token without tasks raises the floor. A
/// higher floor can only refuse old owners, never admit them.
pub const MAX_KEYS: usize = 65_536;

/// The limits of a resource's memory.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The most tasks remembered.
    pub max_tasks: usize,
    /// The most keys remembered.
    pub max_keys: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { max_tasks: MAX_TASKS, max_keys: MAX_KEYS }
    }
}

/// A task's outcome at this resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task ended with these bytes.
    Done(Vec<u8>),
    /// The process died during the task: the effect happened once or not at all, and won't happen again.
    Unknown,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The task has ended before; the effect is not repeated.
    Recorded(Outcome),
    /// The task is running here; the effect is not repeated.
    InProgress,
    /// Another node acts for the key with a higher token.
    Fenced {
        /// The current token: the key's, or the floor.
        current: Epoch,
    },
    /// There is no room, and nothing was recorded. Try again later or at another resource.
    Busy,
    /// (token, task) is durable: do the effect now, then record its outcome.
    Admitted,
}

/// The answer to the end of a task: its outcome is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a late outcome is of an effect that was made beside a newer holder's"]
pub enum Completed {
    /// No higher token has been admitted for the key.
    InTime,
    /// A higher token was admitted before: the effect may have been made after that holder's first one.
    Late {
        /// The current token.
        current: Epoch,
    },
}

/// The answer of a resource's owner about a task whose holder is gone: its process died, or its effect panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// The effect can be read back, and this is its outcome.
    Done(Vec<u8>),
    /// The effect did not happen, or was undone: the task may run again.
    RolledBack,
    /// The owner can't tell.
    Unknown,
    /// The effect is made by another process, which may still be running: the task stays in progress.
    Running,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The token's counter is invalid, or from a different mesh.
    #[error("epoch counter {counter} is above {limit}, too far ahead of the clock")]
    TooFarAhead {
        /// The token's counter.
        counter: u64,
        /// The highest that is believed now.
        limit: u64,
    },
    /// The key, the outcome or the life is too long.
    #[error("{what} of {size}, the limit is {limit}")]
    TooLarge {
        /// The field that is too long.
        what: &'static str,
        /// Its size.
        size: u64,
        /// Its limit.
        limit: u64,
    },
    /// The task is not in progress: it was not admitted, or has already ended.
    #[error("the task is not in progress here")]
    NotInProgress,
    /// A higher token was admitted before: nothing was done.
    #[error("fenced: a higher token was admitted before")]
    Fenced {
        /// The current token.
        current: Epoch,
    },
    /// The effect panicked: its task has ended as it would by a crash.
    #[error("the effect panicked; its task is {}", match recovered {
        Recovered::Done(_) => "done",
        Recovered::RolledBack => "rolled back",
        Recovered::Unknown => "unknown",
        Recovered::Running => "in progress",
    })]
    Panicked {
        /// What came of it.
        recovered: Recovered,
    },
    /// The disk failed, as when it is full: the effect isn't admitted, and no outcome counts as recorded. The durable records remain
    /// valid; what was asked may be among them. Open the store again, and ask again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counters of a resource's answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks admitted.
    pub admitted: u64,
    /// Recorded outcomes returned again.
    pub recorded: u64,
    /// Requests for a task in progress.
    pub in_progress: u64,
    /// Requests and commits under a lower token.
    pub fenced: u64,
    /// Outcomes recorded after a higher token was admitted.
    pub late: u64,
    /// Requests refused because a table was full.
    pub busy: u64,
    /// Tokens refused because they were too far ahead.
    pub too_far_ahead: u64,
    /// Keys whose eviction raised the floor.
    pub evicted: u64,
    /// Tasks whose holder was gone and that have an unknown outcome.
    pub unknown: u64,
}
