//! The world's own time, as madsim has it.

use madsim::time::TimeHandle;
use std::time::{Duration, Instant};

/// Virtual time since the world began, and the `Instant` of its beginning.
pub(crate) struct WorldClock {
    time: TimeHandle,
    base: Instant,
}

impl WorldClock {
    pub(crate) fn new(time: TimeHandle) -> WorldClock {
        WorldClock { base: time.now_instant() - time.elapsed(), time }
    }

    /// Nanoseconds since the world began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.time.elapsed().as_nanos() as u64
    }

    /// The `Instant` of a clock reading.
    pub(crate) fn instant(&self, ns: u64) -> Instant {
        self.base + Duration::from_nanos(ns)
    }

    /// The clock reading of an `Instant`.
    pub(crate) fn reading(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }
}
