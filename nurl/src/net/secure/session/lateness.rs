//! Detects late frames: a frame is late if one that was sealed after it arrived much earlier, on either leg.
//!
//! Counters give the order in which the peer sealed its frames, not the time. So a frame is late only relative to
//! another that overtook it; a path that delays every frame isn't detected.

use std::time::{Duration, Instant};

/// How much earlier the frame that was sealed later must have arrived. The time is longer than jitter and an ordinary
/// detour through a hub, and shorter than the stall of a TCP connection that loses one segment twice (RFC 6298 §5).
pub const LATE_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Arrival {
    counter: u64,
    at: Instant,
}

impl Arrival {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= LATE_AFTER
    }
}

/// The highest counter now, and one that was the highest [`LATE_AFTER`] ago. The arrival of each frame isn't stored,
/// so a frame may be up to twice as late before it is reported.
#[derive(Debug, Default)]
pub(in crate::layers::net) struct Lateness {
    highest: Option<Arrival>,
    /// The highest arrival at the time when this was set; it becomes the bound when it is old.
    next_bound: Option<Arrival>,
    /// Counters below are late.
    bound: Option<u64>,
}

impl Lateness {
    /// Takes one authentic frame; returns whether it is late.
    pub(in crate::layers::net) fn arrived(&mut self, now: Instant, counter: u64) -> bool {
        let old = |arrival: &Arrival| arrival.is_old(now);
        if let Some(bound) = self.highest.filter(old).or(self.next_bound.filter(old)) {
            (self.bound, self.next_bound) = (Some(bound.counter), self.highest);
        }
        if self.highest.is_none_or(|highest| counter > highest.counter) {
            self.highest = Some(Arrival { counter, at: now });
        }
        self.next_bound = self.next_bound.or(self.highest);
        self.bound.is_some_and(|bound| counter < bound)
    }

    /// Whether a frame arrived [`LATE_AFTER`] ago: then any frame sealed with the previous keys is late.
    pub(in crate::layers::net) fn is_past_start(&self, now: Instant) -> bool {
        self.bound.is_some() || self.next_bound.is_some_and(|arrival| arrival.is_old(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::secure::session::tests::start;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_frame_is_late_behind_one_that_came_500_ms_before() {
        let (start, mut lateness) = (start(), Lateness::default());
        for (at, counter, late) in [
            (0, 10, false),
            (499, 5, false),
            (500, 6, true),
            (500, 20, false),
            (501, 7, true),
            (999, 15, false),
            (1_000, 16, true),
            // After a silence, all earlier arrivals are old.
            (9_000, 8, true),
            (9_000, 21, false),
        ] {
            assert_eq!(lateness.arrived(start + ms(at), counter), late, "{counter} after {at} ms");
        }
    }

    #[test]
    fn keys_are_past_their_start_500_ms_after_their_first_frame() {
        let (start, mut lateness) = (start(), Lateness::default());
        assert!(!lateness.is_past_start(start));
        lateness.arrived(start, 0);
        assert!(!lateness.is_past_start(start + ms(499)) && lateness.is_past_start(start + ms(500)));
        lateness.arrived(start + ms(800), 1);
        assert!(lateness.is_past_start(start + ms(800)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn none_is_late_too_early_and_all_are_after_twice_the_time(
            steps in proptest::collection::vec((0u64..700, 0u64..100), 1..200)
        ) {
            let (mut now, mut lateness) = (start(), Lateness::default());
            let mut seen: Vec<(u64, Instant)> = Vec::new();
            for (wait, counter) in steps {
                now += ms(wait);
                let overtaken = |by: Duration| {
                    seen.iter().any(|&(other, at)| other > counter && now - at >= by)
                };
                let (may, must) = (overtaken(LATE_AFTER), overtaken(LATE_AFTER * 2));
                let late = lateness.arrived(now, counter);
                prop_assert!(may || !late);
                prop_assert!(late || !must);
                seen.push((counter, now));
            }
        }
    }
}
