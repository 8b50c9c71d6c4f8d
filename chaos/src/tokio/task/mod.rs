//! Tasks of a host's process, as in `tokio::task`.

mod join_set;

pub use crate::rt::task::{JoinError, JoinHandle, spawn, yield_now};
pub use crate::world::task::AbortHandle;
pub use join_set::JoinSet;

/// Runs a closure as a task. It runs at once to its end and takes no virtual time, so it must not wait for another task.
#[track_caller]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    spawn(async move { work() })
}
