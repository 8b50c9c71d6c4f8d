//! Clocks and timers of a host.

use crate::ids::HostId;
use crate::kernel::slab::Key;
use crate::kernel::timer::TimerKind;
use crate::world::sim;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The monotonic clock. It never steps; in the simulation it may drift.
pub fn now() -> Instant {
    if !sim::is_running() {
        // A plain test of a pure core only needs an instant to start from.
        return Instant::now();
    }
    let host = sim::place().map(|place| place.host);
    sim::with(|sim| sim.instant(sim.local_ns(host)))
}

/// The wall clock, as time since 1970-01-01 UTC. It may step either way, and is zero before that day.
pub fn unix_now() -> Duration {
    if !sim::is_running() {
        return crate::kernel::clock::WALL_BASE;
    }
    let host = sim::place().map(|place| place.host);
    sim::with(|sim| {
        let now_ns = sim.now_ns();
        match host {
            Some(host) => sim.host(host).clock.wall(now_ns),
            None => crate::kernel::clock::WALL_BASE + Duration::from_nanos(now_ns),
        }
    })
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    let host = sim::place().map(|place| place.host);
    let now_ns = sim::with(|sim| sim.local_ns(host));
    let ahead = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Sleep { host, local_ns: now_ns.saturating_add(ahead), timer: None, polled: false }.await;
}

/// Waits until `deadline` on the clock of [`now`].
pub async fn sleep_until(deadline: Instant) {
    let host = sim::place().map(|place| place.host);
    let local_ns = sim::with(|sim| sim.reading(deadline));
    Sleep { host, local_ns, timer: None, polled: false }.await;
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
pub struct Elapsed(());

/// A wait for an instant of a host's clock. Dropping it removes its timer.
struct Sleep {
    host: Option<HostId>,
    local_ns: u64,
    timer: Option<Key>,
    polled: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (host, local_ns, timer) = (self.host, self.local_ns, self.timer);
        let waker = cx.waker();
        // A past deadline still yields to other tasks once, so that a loop over it can't stall virtual time.
        let first = !std::mem::replace(&mut self.polled, true);
        let (poll, timer, _dropped_outside) = sim::with(|sim| {
            if sim.local_ns(host) >= local_ns && !first {
                let old = timer.and_then(|timer| sim.timers.cancel(timer));
                return (Poll::Ready(()), None, (old, None));
            }
            if let Some(timer) = timer
                && let Some(old) = sim.timers.rewake(timer, waker)
            {
                return (Poll::Pending, Some(timer), (None, old));
            }
            let at_ns = sim.world_ns(host, local_ns);
            let timer = sim.set_timer(at_ns, TimerKind::Wake { host, local_ns, waker: waker.clone() });
            (Poll::Pending, Some(timer), (None, None))
        });
        self.timer = timer;
        poll
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            drop(sim::try_with(|sim| sim.timers.cancel(timer)));
        }
    }
}
