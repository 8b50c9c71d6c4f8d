//! The end of the plane: the time for handing writes over, and the callers that wait for it.

use std::time::{Duration, Instant};

use crate::node::command::{Departure, Reply};

/// How long a leaving node offers writes that only it has. A healthy owner takes them within a few round trips;
/// container engines kill ten seconds after the stop request, part of which the drain has used.
const HAND_OVER_FOR: Duration = Duration::from_secs(2);

/// The end of the hand-over time and the callers, once the node leaves.
#[derive(Default)]
pub(super) struct Leaving(Option<(Instant, Vec<Reply<Departure>>)>);

impl Leaving {
    /// Begins the hand-over. False if it has begun: then the caller waits for the same end, which doesn't move.
    pub(super) fn begin(&mut self, now: Instant, reply: Reply<Departure>) -> bool {
        let first = self.0.is_none();
        self.0.get_or_insert_with(|| (now + HAND_OVER_FOR, Vec::new())).1.push(reply);
        first
    }

    /// The end of the hand-over time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().map(|(until, _)| *until)
    }

    /// Whether the time is up.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The callers, once nothing is `offered` any more or the time is up.
    pub(super) fn over(
        &mut self,
        now: Instant,
        offered: impl FnOnce() -> usize,
    ) -> Option<Vec<Reply<Departure>>> {
        self.deadline()?;
        let over = self.is_due(now) || offered() == 0;
        self.0.take_if(|_| over).map(|(_, replies)| replies)
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
            assert!(!leaving.begin(now + after, oneshot::channel().0), "a second caller moves nothing");
            let told = leaving.over(now + after, || offered).map(|replies| replies.len());
            assert_eq!(told, over.then_some(2), "{after:?} {offered}");
            assert_eq!(leaving.deadline().is_none(), over);
        }
    }
}
