//! Waits in the time of a host, or of the scenario.

use super::sim;
use crate::ids::HostId;
use crate::kernel::slab::Key;
use crate::kernel::timer::TimerKind;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    let host = sim::place().map(|place| place.host);
    let now_ns = sim::with(|sim| sim.local_ns(host));
    let ahead = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Sleep { host, local_ns: now_ns.saturating_add(ahead), timer: None, polled: false }.await;
}

/// Waits until `deadline` on the clock of [`rt::time::now`](crate::rt::time::now).
pub async fn sleep_until(deadline: Instant) {
    Sleep::until(deadline).await;
}

/// A wait for an instant of a host's clock. Dropping it removes its timer.
pub(crate) struct Sleep {
    host: Option<HostId>,
    local_ns: u64,
    timer: Option<Key>,
    polled: bool,
}

impl Sleep {
    /// A wait until `deadline` on the clock of the calling host.
    pub(crate) fn until(deadline: Instant) -> Sleep {
        let host = sim::place().map(|place| place.host);
        let local_ns = sim::with(|sim| sim.clock.reading(deadline));
        Sleep { host, local_ns, timer: None, polled: false }
    }
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
                let old = timer.and_then(|timer| sim.agenda.cancel(timer));
                return (Poll::Ready(()), None, (old, None));
            }
            if let Some(timer) = timer
                && let Some(old) = sim.agenda.rewake(timer, waker)
            {
                return (Poll::Pending, Some(timer), (None, old));
            }
            let at_ns = sim.world_ns(host, local_ns);
            let timer = sim.agenda.set_timer(at_ns, TimerKind::Wake { host, local_ns, waker: waker.clone() });
            (Poll::Pending, Some(timer), (None, None))
        });
        self.timer = timer;
        poll
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            drop(sim::try_with(|sim| sim.agenda.cancel(timer)));
        }
    }
}
