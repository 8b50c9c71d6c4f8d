//! A leave under way: how long the plane runs on after the node was told to stop.

use std::time::{Duration, Instant};

/// The longest time that a leaving node continues, so that its leave and its last messages reach others. It ends
/// sooner when all of them have been acknowledged.
pub(super) const LEAVE_FOR: Duration = Duration::from_millis(600);

/// A leave, and the replies to its callers.
#[derive(Debug)]
pub(super) struct Leave<R> {
    until: Instant,
    /// Whether the leave has been gossiped.
    departed: bool,
    pub(super) replies: Vec<R>,
}

impl<R> Leave<R> {
    /// Begins. Nobody gossips about an observer, so for it there is no leave to tell: `departed`.
    pub(super) fn begin(now: Instant, departed: bool, reply: R) -> Leave<R> {
        Leave { until: now + LEAVE_FOR, departed, replies: vec![reply] }
    }

    /// The leave has been gossiped.
    pub(super) fn on_departed(&mut self) {
        self.departed = true;
    }

    /// When the time is up.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.until
    }

    /// Whether the plane may end. `quiet`: everything sent has been acknowledged.
    pub(super) fn is_over(&self, now: Instant, quiet: bool) -> bool {
        now >= self.until || (self.departed && quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leave_ends_when_all_is_said_or_its_time_is_up() {
        let start = crate::rt::time::now();
        let table = [
            // Departed, quiet, the time is up, over.
            (false, false, false, false),
            (false, true, false, false),
            (true, false, false, false),
            (true, true, false, true),
            (false, false, true, true),
            (true, false, true, true),
        ];
        for (departed, quiet, late, over) in table {
            let mut leave = Leave::begin(start, false, ());
            if departed {
                leave.on_departed();
            }
            let now = if late { leave.poll_timeout() } else { start };
            assert_eq!(leave.is_over(now, quiet), over, "{departed} {quiet} {late}");
        }
        assert!(Leave::begin(start, true, ()).is_over(start, true), "an observer has no leave to tell");
    }
}
