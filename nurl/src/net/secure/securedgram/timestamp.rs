//! The timestamp of an init: strictly rising within a process, comparable as bytes (TAI64N's layout).

use std::time::{Duration, Instant};

use crate::kit::wall_clock::WallClock;

/// A strictly rising clock, whatever the wall clock and the monotonic clock do.
#[derive(Debug)]
pub(super) struct TimestampClock {
    wall: WallClock,
    last: Duration,
}

impl TimestampClock {
    pub(super) fn new(wall: WallClock) -> TimestampClock {
        TimestampClock { wall, last: Duration::ZERO }
    }

    /// Seconds and nanoseconds, big-endian.
    pub(super) fn next(&mut self, now: Instant) -> [u8; 12] {
        let unix = self.wall.unix(now);
        self.last = unix.max(self.last.saturating_add(Duration::from_nanos(1)));
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.last.as_secs().to_be_bytes());
        bytes[8..].copy_from_slice(&self.last.subsec_nanos().to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_rise_also_when_the_clock_does_not() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now() + Duration::from_secs(9);
        let mut clock = TimestampClock::new(WallClock::new(now, Duration::from_secs(1_700_000_000)));
        let times =
            [now, now, now - Duration::from_secs(5), now + Duration::from_secs(300)].map(|at| clock.next(at));
        assert!(times.is_sorted_by(|a, b| a < b));
        assert_eq!(times[3][..8], 1_700_000_300u64.to_be_bytes());
    }
}
