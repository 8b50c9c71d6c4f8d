//! Ticks at equal distances.

use super::{Instant, Sleep, sleep_until};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A tick that comes later than this is missed; tokio has the same limit.
const LATE: Duration = Duration::from_millis(5);

/// When the ticks after a missed one come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedTickBehavior {
    /// At once, until all that were missed have been made up for.
    #[default]
    Burst,
    /// A period after the late one.
    Delay,
    /// At the next multiple of the period.
    Skip,
}

/// Ticks every `period`, the first time at once.
///
/// # Panics
/// If `period` is zero.
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, the first time at `start`.
///
/// # Panics
/// If `period` is zero.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(period > Duration::ZERO, "`period` must be non-zero.");
    Interval { wait: sleep_until(start), period, missed: MissedTickBehavior::default() }
}

/// The ticks of [`interval`].
#[derive(Debug)]
pub struct Interval {
    wait: Sleep,
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick, and returns when it was due. Cancel safe.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// Polls for the next tick.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if Pin::new(&mut self.wait).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let due = self.wait.deadline();
        self.reset_at(self.next(due, Instant::now()));
        Poll::Ready(due)
    }

    /// The tick after the one that was due at `due` and came at `now`.
    fn next(&self, due: Instant, now: Instant) -> Instant {
        match self.missed {
            _ if now <= due + LATE => due + self.period,
            MissedTickBehavior::Burst => due + self.period,
            MissedTickBehavior::Delay => now + self.period,
            MissedTickBehavior::Skip => {
                let over_ns = (now - due).as_nanos() % self.period.as_nanos();
                now + self.period - Duration::from_nanos(u64::try_from(over_ns).unwrap_or(u64::MAX))
            }
        }
    }

    /// The next tick comes a period from now.
    pub fn reset(&mut self) {
        self.reset_at(Instant::now() + self.period);
    }

    /// The next tick comes at once.
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick comes after this time.
    pub fn reset_after(&mut self, after: Duration) {
        self.reset_at(Instant::now() + after);
    }

    /// The next tick comes at this instant.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.wait = sleep_until(deadline);
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// When the ticks after a missed one come.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed
    }

    /// Sets when the ticks after a missed one come.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }
}
