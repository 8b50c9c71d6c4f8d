//! How high a counter may be before it is believed: an epoch of the mesh, or an incarnation of a member.
//!
//! Both only rise, and the next one is taken above all that are known. So a single false counter at the end of the range
//! would leave no room for the true ones. A limit relative to the highest known counter doesn't help: a liar raises in
//! steps, and a node that has missed some of the steps refuses the rest. The limit is therefore one that all nodes share,
//! the wall clock, and it rises faster than honest counters do: by [`PER_MS`] a millisecond. A liar can raise a counter to
//! the limit, and the next true one still fits below the limit of its time.
//!
//! **Two limits.** A counter that somebody *tells* is believed up to a day ahead of the clock. An *answer* to it (the token
//! of a tenure, the refutation of a member) is above what was told, and the teller's clock may be ahead of another's: so it
//! is believed up to two days ahead. Honest counters begin at 0 and stay far below the limits of any clock; only after a
//! lie does it matter that a node's clock is right within a day.

use std::time::Duration;

/// Counters for each millisecond since 1970. A mesh of 4,096 nodes that each take a tenure every 63 microseconds stays
/// below it, and the 64 bits of a counter last until the year 10,889.
pub const PER_MS: u64 = 1 << 16;

/// How far ahead of the wall clock a told counter may be: clocks that are set by hand err by hours.
const TOLD_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// How far ahead of the wall clock an answer may be: a told counter that is as high as it may be, and another day for the
/// difference of two clocks.
const ANSWER_AHEAD: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// The highest counter that is believed when somebody tells it at `unix_now`.
pub fn told_limit(unix_now: Duration) -> u64 {
    limit(unix_now.saturating_add(TOLD_AHEAD))
}

/// The highest counter of a token or a refutation that is believed at `unix_now`.
pub fn answer_limit(unix_now: Duration) -> u64 {
    limit(unix_now.saturating_add(ANSWER_AHEAD))
}

fn limit(unix: Duration) -> u64 {
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX).saturating_mul(PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_follow_the_clock_and_leave_a_day_between_them() {
        let day_ms = 24 * 60 * 60 * 1_000;
        for unix_ms in [0, 1, 1_800_000_000_000] {
            let now = Duration::from_millis(unix_ms);
            assert_eq!(told_limit(now), (unix_ms + day_ms) << 16);
            assert_eq!(answer_limit(now), (unix_ms + 2 * day_ms) << 16);
        }
        assert_eq!(answer_limit(Duration::MAX), u64::MAX, "no clock overflows them");
    }
}
