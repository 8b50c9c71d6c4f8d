//! A limit per second that starts to count with the first event of each second.

use std::time::{Duration, Instant};

/// The amount counted since the start of the current second.
#[derive(Debug, Default)]
pub(crate) struct PerSecond {
    since: Option<Instant>,
    count: usize,
}

impl PerSecond {
    /// Counts `amount` and returns the sum of this second, `amount` included. What the caller then refuses is counted
    /// too, so a flood stays refused until its second is over.
    pub(crate) fn add(&mut self, now: Instant, amount: usize) -> usize {
        let over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(over) {
            *self = PerSecond { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(amount);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_begins_with_its_first_event_and_the_sum_begins_anew() {
        let start = crate::rt::test_now();
        let mut sum = PerSecond::default();
        for (at_ms, amount, expected) in
            [(500, 2, 2), (1499, 3, 5), (1500, 1, 1), (2499, usize::MAX, usize::MAX), (9000, 4, 4)]
        {
            assert_eq!(sum.add(start + Duration::from_millis(at_ms), amount), expected, "at {at_ms} ms");
        }
    }
}
