//! The choice of the next probe's target, and the course of one probe: pure parts that send nothing.
//!
//! Targets come round-robin from a shuffled list (SWIM §4.3), which bounds a member's wait; new members get a random
//! place in the list, and a round ends with a new shuffle. The next target is fixed one period ahead, so that its
//! session can be established in the meantime.
//!
//! One probe, all times scaled by local health:
//!
//! | at | what |
//! | --- | --- |
//! | 0, 300, 600 ms | a ping by datagram |
//! | 300 ms | a ping over the reliable leg, and k others asked to ping |
//! | 1 s | the failure, if nothing was heard |
//!
//! Without a session the clock is held until there is one, for a bounded time. If the handshake fails, the direct leg
//! is dropped and the other legs start at once.
//!
//! Deaths are correlated: a rack loses its power, a deployment is taken down. One probe at a time would find them one
//! by one. So some members are probed outside the rounds, up to [`MAX_BESIDE`] at once: suspects of other members,
//! peers that a hub denies, and helpers that didn't answer. Such a hint causes a probe, never a verdict.
//!
//! | part | its duty |
//! | --- | --- |
//! | [`ProbeRotation`] | the order in which the members are probed |
//! | [`Probe`] | one probe: its target, its helpers, its clock |
//! | [`ProbeClock`] | the times of one probe's pings and of its failure |
//! | [`ProbeHelpers`] | the members that were asked to ping, and their NACKs |
//! | [`ProbeSet`] | the probes under way, those that wait, and those that may still be answered |

mod clock;
mod helpers;
mod rotation;
mod set;

use std::time::{Duration, Instant};

pub use clock::{DIRECT_PINGS, ProbeClock, ProbeStep};
pub use helpers::ProbeHelpers;
pub use rotation::ProbeRotation;
pub use set::{MAX_BESIDE, MAX_PAST_PROBES, MAX_URGENT, ProbeSet};

use crate::key::PublicKey;

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its sequence number on the wire.
    pub seq: u64,
    /// The member under probe.
    pub target: PublicKey,
    /// The members asked to ping the target.
    pub helpers: ProbeHelpers,
    /// An ack came in time.
    pub acked: bool,
    /// The target was asked for a ping and gave no NACK. If it answers this probe, this node missed the NACK.
    pub owes: bool,
    /// Its times.
    pub clock: ProbeClock,
}

impl Probe {
    /// Starts a probe; `timeout` and `period` are scaled already.
    pub fn new(now: Instant, seq: u64, target: PublicKey, timeout: Duration, period: Duration) -> Probe {
        let clock = ProbeClock::new(now, timeout, period);
        Probe { seq, target, helpers: ProbeHelpers::default(), acked: false, owes: false, clock }
    }

    /// The next action, if one is due.
    pub fn step(&mut self, now: Instant) -> Option<ProbeStep> {
        if self.acked { None } else { self.clock.step(now) }
    }

    /// When [`step`](Probe::step) next has an action.
    pub fn due(&self) -> Option<Instant> {
        if self.acked { None } else { Some(self.clock.due()) }
    }

    /// Whether an ack from `from` confirms that the target is alive.
    pub fn is_answered_by(&self, from: &PublicKey) -> bool {
        *from == self.target || self.helpers.contains(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_probe_has_no_further_step() {
        let now = crate::rt::test_now();
        let [target, helper, stranger] = [1, 2, 3].map(|at| PublicKey::from_bytes([at; 32]));
        let mut probe = Probe::new(now, 1, target, Duration::from_millis(300), Duration::from_secs(1));
        probe.helpers = ProbeHelpers::new(vec![helper], 1);
        for (from, answers) in [(target, true), (helper, true), (stranger, false)] {
            assert_eq!(probe.is_answered_by(&from), answers);
        }
        assert_eq!(probe.due(), Some(now));
        probe.acked = true;
        assert_eq!((probe.step(now + Duration::from_secs(9)), probe.due()), (None, None));
    }
}
