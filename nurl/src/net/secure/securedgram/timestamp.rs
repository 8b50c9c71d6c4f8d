//! The timestamp of an init: strictly rising within a process, comparable as bytes (TAI64N's layout).

use std::time::{Duration, Instant};

use crate::kit::wall_clock::WallClock;

/// Seconds and nanoseconds since 1970, big-endian, so that they compare as bytes.
pub(super) type Timestamp = [u8; 12];

/// The timestamp of a time since 1970.
pub(super) fn stamp(unix: Duration) -> Timestamp {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&unix.as_secs().to_be_bytes());
    bytes[8..].copy_from_slice(&unix.subsec_nanos().to_be_bytes());
    bytes
}

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

    /// The next timestamp.
    pub(super) fn next(&mut self, now: Instant) -> Timestamp {
        let unix = self.wall.unix(now);
        self.last = unix.max(self.last.saturating_add(Duration::from_nanos(1)));
        stamp(self.last)
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
