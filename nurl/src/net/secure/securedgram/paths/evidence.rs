//! Whether the route in use still delivers: application sends, and their answers.
//!
//! Evidence for a route is an application datagram, or the keepalive that answers one, received on the route and not
//! late. An echo shows that small packets pass. It clears a doubt that a few lost datagrams raised, but not the loss
//! of all data. Our keepalives and challenges never count as unanswered, so an idle path can't come into doubt.

use std::time::{Duration, Instant};

use super::challenge::Rtt;
use super::config::{DATA_LOSS_SENDS, PATIENCE};
use super::status::PathReason;

/// The judgement on the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathVerdict {
    /// There is no evidence against it.
    Trust,
    /// Probe it, and send a copy by another route.
    Doubt,
    /// The doubt was unfounded.
    Clear,
    /// Give it up.
    Drop(PathReason),
}

/// How long sends may go unanswered on a route with this round-trip time.
pub(super) fn patience(rtt: &Rtt, answer_delay: Duration) -> Duration {
    (rtt.expected() + answer_delay).clamp(PATIENCE.0, PATIENCE.1)
}

/// The facts on which the route is judged.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PathCase {
    /// The time since the first unanswered send.
    silence: Duration,
    unanswered: u32,
    /// How long the route has been in doubt.
    doubted: Option<Duration>,
    /// Whether a probe sent since the doubt began was answered.
    echo: bool,
    /// Whether an echo has cleared a doubt since the last answer.
    excused: bool,
}

/// The policy. An echo excuses the first silence: the path may have recovered from a short outage. If data goes
/// unanswered again after that while probes still pass, the path loses data.
pub(super) fn judge(case: PathCase, patience: Duration, limit: Duration) -> PathVerdict {
    let Some(doubted) = case.doubted else {
        return if case.silence < patience { PathVerdict::Trust } else { PathVerdict::Doubt };
    };
    if case.echo {
        let loses_data = case.excused && case.unanswered >= DATA_LOSS_SENDS;
        return if loses_data { PathVerdict::Drop(PathReason::DataLost) } else { PathVerdict::Clear };
    }
    // Even if the timer came late (the process may have been suspended), the probes get their time.
    if case.silence < limit || doubted < limit.saturating_sub(PATIENCE.1) {
        return PathVerdict::Doubt;
    }
    PathVerdict::Drop(PathReason::PathLost)
}

/// The evidence so far about the route in use.
#[derive(Debug, Default)]
pub(super) struct PathEvidence {
    since: Option<Instant>,
    unanswered: u32,
    doubt: Option<Instant>,
    excused: bool,
}

impl PathEvidence {
    pub(super) fn sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Application data or its answer arrived on the route. Returns whether that ended a doubt.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::take(self).doubt.is_some()
    }

    /// An echo ends the doubt. It is no answer to data, so the second echo keeps the count. The first one resets it,
    /// since losses during an outage say nothing about the time after it.
    pub(super) fn clear(&mut self) {
        let unanswered = if self.excused { self.unanswered } else { 0 };
        *self = PathEvidence { unanswered, excused: true, ..PathEvidence::default() };
    }

    pub(super) fn reset(&mut self) {
        *self = PathEvidence::default();
    }

    /// Puts the route in doubt, for a reason other than silence.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.doubt.is_none() {
            (self.since, self.doubt) = (Some(self.since.unwrap_or(now)), Some(now));
        }
    }

    pub(super) fn first_unanswered(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn doubted_since(&self) -> Option<Instant> {
        self.doubt
    }

    pub(super) fn verdict(
        &self,
        now: Instant,
        echo: bool,
        patience: Duration,
        limit: Duration,
    ) -> PathVerdict {
        self.since.map_or(PathVerdict::Trust, |since| {
            let case = PathCase {
                silence: now.saturating_duration_since(since),
                unanswered: self.unanswered,
                doubted: self.doubt.map(|doubt| now.saturating_duration_since(doubt)),
                echo,
                excused: self.excused,
            };
            judge(case, patience, limit)
        })
    }

    /// When the verdict changes without a further event.
    pub(super) fn deadline(&self, patience: Duration, limit: Duration) -> Option<Instant> {
        let since = self.since?;
        Some(match self.doubt {
            Some(doubt) => (since + limit).max(doubt + limit.saturating_sub(PATIENCE.1)),
            None => since + patience,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_doubt() {
        use PathVerdict::{Clear, Doubt, Drop, Trust};
        for (silence, unanswered, doubted, echo, excused, expected) in [
            (0, 1, None, false, false, Trust),
            (699, 100, None, false, true, Trust),
            (700, 1, None, false, false, Doubt),
            (9_000, 1, None, false, false, Doubt),
            (800, 1, Some(100), false, false, Doubt),
            (800, 100, Some(100), true, false, Clear),
            (800, 7, Some(100), true, true, Clear),
            (800, 8, Some(100), true, true, Drop(PathReason::DataLost)),
            (1_499, 100, Some(799), false, true, Doubt),
            (1_500, 1, Some(800), false, false, Drop(PathReason::PathLost)),
            (9_100, 1, Some(100), false, false, Doubt),
            (9_500, 1, Some(500), false, false, Drop(PathReason::PathLost)),
        ] {
            let case = PathCase {
                silence: Duration::from_millis(silence),
                unanswered,
                doubted: doubted.map(Duration::from_millis),
                echo,
                excused,
            };
            let verdict = judge(case, Duration::from_millis(700), Duration::from_millis(1_500));
            assert_eq!(verdict, expected, "{case:?}");
        }
    }

    #[test]
    fn patience_follows_the_round_trip_within_its_range() {
        let mut slow = Rtt::default();
        slow.sample(Duration::from_secs(5));
        let delay = Duration::from_millis(250);
        assert_eq!(patience(&Rtt::default(), delay), PATIENCE.0);
        assert_eq!(patience(&slow, delay), PATIENCE.1);
        let mut medium = Rtt::default();
        for _ in 0..100 {
            medium.sample(Duration::from_millis(500));
        }
        let patience = patience(&medium, delay);
        assert!(patience >= Duration::from_millis(750) && patience < Duration::from_millis(800));
    }
}
