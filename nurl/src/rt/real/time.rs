//! Clocks and timers.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

#[doc(no_inline)]
pub use tokio::time::error::Elapsed;

/// The monotonic clock. It never steps; in the simulated world it may drift.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, as time since 1970-01-01 UTC. It may step in either direction, and is zero before that day.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits until `deadline` on the clock of [`now`].
pub async fn sleep_until(deadline: Instant) {
    tokio::time::sleep_until(deadline.into()).await;
}

/// Runs `future` for at most `duration`.
///
/// # Errors
/// [`Elapsed`] when the duration ends first; the future is then dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(duration, future).await
}
