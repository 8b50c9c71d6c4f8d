//! Clocks and timers.

use std::future::Future;
use std::path::Path;
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

/// How long a machine has been up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uptime {
    /// Drawn anew at each start of a machine.
    pub boot: [u8; 16],
    /// Since the start, with the time that the machine was asleep.
    pub since_boot: Duration,
}

/// How long this machine has been up; none where it doesn't tell (Linux does).
pub fn uptime() -> Option<Uptime> {
    let text = |path| String::from_utf8(super::disk::read(Path::new(path), 256).ok()?).ok();
    let id = text("/proc/sys/kernel/random/boot_id")?.trim().replace('-', "");
    let boot = u128::from_str_radix(&id, 16).ok()?.to_be_bytes();
    let seconds: f64 = text("/proc/uptime")?.split_whitespace().next()?.parse().ok()?;
    Some(Uptime { boot, since_boot: Duration::try_from_secs_f64(seconds).ok()? })
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
