//! Whether this node's wall clock is ahead of the authority's.
//!
//! Only gates look at the time, so a clock that is ahead shuts out its owner alone: it takes everybody's pass for ended.
//! The node can't know the time, but it sees when the authority signed a pass that it has just asked for, and that a hub
//! takes a pass which has ended by this clock. A clock that is behind harms nobody, and isn't told.

use std::time::Duration;

use crate::authority::pass::{GRACE, Grant};

/// What this node's pass has shown of its clock.
#[derive(Debug, Default)]
pub(super) struct OwnClock {
    ahead: Option<Duration>,
}

impl OwnClock {
    /// A pass was signed just now, or a moment ago.
    pub(super) fn issued(&mut self, unix_now: Duration, pass: &Grant) {
        self.ahead = ahead_of(unix_now, pass.issued);
    }

    /// A hub takes this pass.
    pub(super) fn taken(&mut self, unix_now: Duration, pass: &Grant) {
        self.ahead = self.ahead.max(ahead_of(unix_now, pass.not_after));
    }

    /// By how much this clock is ahead at least, if it is by more than the day that gates allow for.
    pub(super) fn ahead(&self) -> Option<Duration> {
        self.ahead
    }
}

fn ahead_of(unix_now: Duration, seconds: u32) -> Option<Duration> {
    let ahead = unix_now.checked_sub(Duration::from_secs(seconds.into()))?;
    (ahead > Duration::from_secs(GRACE.into())).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::level::Level;
    use crate::key::PublicKey;

    #[test]
    fn a_clock_is_ahead_if_a_fresh_pass_is_old_by_it_or_a_hub_takes_one_that_has_ended() {
        let day = 24 * 3_600;
        let pass = Grant::new(PublicKey::from_bytes([1; 32]), Level::Worker, 10 * day, 13 * day);
        let at = |days: u32| Duration::from_secs((days * day).into());
        let mut clock = OwnClock::default();
        for (now, issued, taken) in [
            (at(0), None, None),
            (at(10), None, None),
            (at(11), None, None),
            (at(12), Some(at(2)), Some(at(2))),
            (at(14), Some(at(4)), Some(at(4))),
            (at(375), Some(at(365)), Some(at(365))),
        ] {
            clock.issued(now, &pass);
            assert_eq!(clock.ahead(), issued, "{now:?}");
            clock.taken(now, &pass);
            assert_eq!(clock.ahead(), taken, "{now:?}");
        }
        let mut clock = OwnClock::default();
        for (now, taken) in [(at(12), None), (at(14), None), (at(20), Some(at(7)))] {
            clock.taken(now, &pass);
            assert_eq!(clock.ahead(), taken, "{now:?}");
        }
        clock.issued(at(10), &pass);
        assert_eq!(clock.ahead(), None, "it was set right, and a new pass shows it");
    }
}
