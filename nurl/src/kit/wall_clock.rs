//! The wall clock as a pure core sees it: what it showed at the start, plus the time that passed since.

use std::time::{Duration, Instant};

/// A wall clock that never steps: it is read once, and then follows the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    unix_at_start: Duration,
    start: Instant,
}

impl WallClock {
    /// A clock that shows `unix` at `start`.
    pub fn new(start: Instant, unix: Duration) -> WallClock {
        WallClock { unix_at_start: unix, start }
    }

    /// The time since 1970.
    pub fn unix(&self, now: Instant) -> Duration {
        self.unix_at_start.saturating_add(now.saturating_duration_since(self.start))
    }

    /// The whole seconds since 1970; the last second of 2106's range if it is later.
    pub fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(self.unix(now).as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_monotonic_clock_and_stops_at_its_end() {
        let start = crate::rt::test_now();
        let clock = WallClock::new(start, Duration::from_millis(1_500));
        assert_eq!((clock.seconds(start), clock.seconds(start + Duration::from_millis(500))), (1, 2));
        assert_eq!(WallClock::new(start, Duration::MAX).seconds(start + Duration::from_secs(1)), u32::MAX);
    }
}
