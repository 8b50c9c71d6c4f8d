//! The end of the plane: the time for handing writes over, and the caller that waits for it.

use std::time::{Duration, Instant};

use crate::node::command::{Departure, Reply};

/// How long a leaving node offers writes that only it has. A healthy owner takes them within a few round trips;
/// container engines kill ten seconds after the stop request, part of which the drain has used.
const HAND_OVER_FOR: Duration = Duration::from_secs(2);

/// The end of the hand-over time and the caller, once the node leaves.
#[derive(Default)]
pub(super) struct Leaving(Option<(Instant, Reply<Departure>)>);

impl Leaving {
    /// Begins the hand-over. False if it has begun: only the first caller is answered.
    pub(super) fn begin(&mut self, now: Instant, reply: Reply<Departure>) -> bool {
        let first = self.0.is_none();
        if first {
            self.0 = Some((now + HAND_OVER_FOR, reply));
        }
        first
    }

    /// The end of the hand-over time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().map(|(until, _)| *until)
    }

    /// The caller, once nothing is `offered` any more or the time is up.
    pub(super) fn over(&mut self, now: Instant, offered: impl FnOnce() -> usize) -> Option<Reply<Departure>> {
        let over = self.deadline()? <= now || offered() == 0;
        self.0.take_if(|_| over).map(|(_, reply)| reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::sync::oneshot;
    use crate::rt::time;

    #[test]
    fn the_hand_over_ends_when_nothing_is_offered_or_its_time_is_up() {
        let now = time::now();
        // The time since the beginning; the keys offered; whether it is over.
        let table = [
            (Duration::ZERO, 1, false),
            (HAND_OVER_FOR - Duration::from_millis(1), 1, false),
            (HAND_OVER_FOR, 1, true),
            (Duration::ZERO, 0, true),
        ];
        for (after, offered, over) in table {
            let mut leaving = Leaving::default();
            assert!(leaving.over(now + after, || offered).is_none(), "it hasn't begun");
            assert!(leaving.begin(now, oneshot::channel().0));
            assert!(!leaving.begin(now + after, oneshot::channel().0), "only the first caller counts");
            assert_eq!(leaving.over(now + after, || offered).is_some(), over, "{after:?} {offered}");
            assert_eq!(leaving.deadline().is_none(), over);
        }
    }
}
