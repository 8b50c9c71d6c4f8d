//! A host's monotonic clock and its timers, as in `tokio::time`.

mod instant;
mod interval;

use crate::world::sleep;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

pub use instant::Instant;
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use std::time::Duration;

/// Errors of this module.
pub mod error {
    pub use crate::rt::time::Elapsed;
}

/// A wait that never ends in a program's life; it stands for a deadline that can't be expressed.
const FOR_EVER: Duration = Duration::from_secs(86400 * 365 * 30);

fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + FOR_EVER)
}

/// Waits for `duration` from now on.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(after(duration))
}

/// Waits until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, wait: sleep::Sleep::until(deadline.into_std()) }
}

/// The wait of [`sleep`]. Dropping it removes its timer.
pub struct Sleep {
    deadline: Instant,
    wait: sleep::Sleep,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline is past.
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Sets another deadline.
    pub fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        *self = sleep_until(deadline);
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.wait).poll(cx)
    }
}

/// Runs `future` for at most `duration` from now on.
///
/// # Errors
/// [`Elapsed`](error::Elapsed) when the time is over first; the future is dropped then.
pub fn timeout<F: IntoFuture>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, error::Elapsed>> {
    timeout_at(after(duration), future)
}

/// Runs `future` until `deadline` at the latest.
///
/// # Errors
/// [`Elapsed`](error::Elapsed) when the time is over first; the future is dropped then.
pub fn timeout_at<F: IntoFuture>(
    deadline: Instant,
    future: F,
) -> impl Future<Output = Result<F::Output, error::Elapsed>> {
    let (future, mut limit) = (future.into_future(), sleep_until(deadline));
    async move {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(&mut limit).poll(cx).map(|()| Err(error::Elapsed(()))),
        })
        .await
    }
}
