//! Clocks and timers of a host.

use crate::kernel::clock::WALL_BASE;
use crate::world::sim;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

pub use crate::world::sleep::{sleep, sleep_until};

/// The monotonic clock. It never steps; in the simulation it may drift.
pub fn now() -> Instant {
    if !sim::is_running() {
        // A plain test of a pure core only needs an instant to start from.
        return Instant::now();
    }
    let host = sim::place().map(|place| place.host);
    sim::with(|sim| sim.clock.instant(sim.local_ns(host)))
}

/// The wall clock, as time since 1970-01-01 UTC. It may step either way, and is zero before that day.
pub fn unix_now() -> Duration {
    if !sim::is_running() {
        return WALL_BASE;
    }
    let host = sim::place().map(|place| place.host);
    sim::with(|sim| {
        let now_ns = sim.now_ns();
        match host {
            Some(host) => sim.host(host).clock.wall(now_ns),
            None => WALL_BASE + Duration::from_nanos(now_ns),
        }
    })
}

/// How long a machine has been up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uptime {
    /// Drawn anew at each start of a machine.
    pub boot: [u8; 16],
    /// Since the start, with the time that the machine was asleep.
    pub since_boot: Duration,
}

/// How long this machine has been up: none, because a host of the simulated world doesn't tell.
pub fn uptime() -> Option<Uptime> {
    None
}

/// Runs `future` for at most `duration`.
///
/// # Errors
/// [`Elapsed`] when the time is over first; the future is dropped then.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut limit = pin!(sleep(duration));
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        limit.as_mut().poll(cx).map(|()| Err(Elapsed(())))
    })
    .await
}

/// The time of a [`timeout`] is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed(pub(crate) ());

impl From<Elapsed> for std::io::Error {
    fn from(_: Elapsed) -> std::io::Error {
        std::io::ErrorKind::TimedOut.into()
    }
}
