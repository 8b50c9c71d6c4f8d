//! The plane's periodic work, and the comparison of two clocks by which it notices a suspend.
//!
//! The monotonic clock stands still while a machine sleeps, the wall clock doesn't. So a wall clock that is ahead
//! means that all peers have lived on meanwhile: the detector mustn't hold them for silent, and every path is in doubt.
//! (How far ahead the clock of a *write* may be is said by `nurl/src/replication/crdt/clock.rs`.)

use std::time::{Duration, Instant};

/// How often a hub is pinged: at least twice within the detector's freshness.
const HUB_PING_EVERY: Duration = Duration::from_secs(4);

/// How often the two clocks are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// A wall clock that is ahead by more than this means a suspend; a smaller step may be a time server's correction.
const SLEPT: Duration = Duration::from_secs(5);

/// The due times of the periodic work, and the clocks at their last comparison.
#[derive(Debug)]
pub(super) struct Clocks {
    hub_ping: Instant,
    comparison: Instant,
    before: (Instant, Duration),
}

impl Clocks {
    /// Clocks that begin at `now`, which is `wall` since the epoch of Unix.
    pub(super) fn new(now: Instant, wall: Duration) -> Clocks {
        Clocks { hub_ping: now, comparison: now + COMPARE_EVERY, before: (now, wall) }
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.hub_ping.min(self.comparison)
    }

    /// Makes the next ping of the hubs due at once.
    pub(super) fn ping_now(&mut self, now: Instant) {
        self.hub_ping = now;
    }

    /// Whether the hubs are to be pinged.
    pub(super) fn take_hub_ping(&mut self, now: Instant) -> bool {
        let due = now >= self.hub_ping;
        if due {
            self.hub_ping = now + HUB_PING_EVERY;
        }
        due
    }

    /// Whether the clocks are to be compared: [`has_slept`](Clocks::has_slept) does.
    pub(super) fn take_comparison(&mut self, now: Instant) -> bool {
        let due = now >= self.comparison;
        if due {
            self.comparison = now + COMPARE_EVERY;
        }
        due
    }

    /// Whether the machine slept since the last comparison.
    pub(super) fn has_slept(&mut self, now: Instant, wall: Duration) -> bool {
        let (now_before, wall_before) = std::mem::replace(&mut self.before, (now, wall));
        wall.saturating_sub(wall_before) > now.saturating_duration_since(now_before) + SLEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn only_a_wall_clock_that_is_far_ahead_is_a_suspend() {
        let ms = Duration::from_millis;
        let table = [
            // How far the monotonic clock went, how far the wall clock did, and whether that is a suspend.
            (ms(1_000), ms(1_000), false),
            (ms(1_000), ms(6_000), false),
            (ms(1_000), ms(6_001), true),
            (ms(0), ms(3_600_000), true),
            // A busy machine whose plane didn't run is no sleeping one.
            (ms(30_000), ms(30_000), false),
            (ms(30_000), ms(35_001), true),
        ];
        for (ran, walked, slept) in table {
            let start = crate::rt::time::now();
            let mut clocks = Clocks::new(start, WALL);
            assert_eq!(clocks.has_slept(start + ran, WALL + walked), slept, "{ran:?} {walked:?}");
            assert!(!clocks.has_slept(start + ran, WALL + walked), "a suspend is noticed once");
        }
        // A wall clock that is set back says nothing.
        let start = crate::rt::time::now();
        let mut clocks = Clocks::new(start, WALL);
        assert!(!clocks.has_slept(start, WALL / 2));
        assert!(
            clocks.has_slept(start, WALL),
            "set forward again, it looks like a suspend: a false alarm is cheap"
        );
    }

    #[test]
    fn work_is_due_at_its_own_intervals() {
        let start = crate::rt::time::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clocks = Clocks::new(start, WALL);
        let mut due = |ms| {
            let now = at(ms);
            assert_eq!(clocks.poll_timeout() <= now, ms != 500, "{ms}");
            (clocks.take_hub_ping(now), clocks.take_comparison(now))
        };
        assert_eq!(due(0), (true, false));
        assert_eq!(due(500), (false, false));
        assert_eq!(due(1_000), (false, true));
        assert_eq!(due(4_200), (true, true));
        clocks.ping_now(at(4_300));
        assert!(clocks.take_hub_ping(at(4_300)) && !clocks.take_hub_ping(at(4_300)));
        assert_eq!(clocks.poll_timeout(), at(5_200));
    }
}
