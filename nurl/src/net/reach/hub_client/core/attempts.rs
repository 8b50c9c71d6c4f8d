//! When the hub is tried again: the back-off, and the time in which it is tried often.

use std::time::{Duration, Instant};

use super::super::DownReason;
use super::super::backoff::Backoff;
use crate::net::reach::relay::CloseReason;
use crate::rt::Rng;

/// A connection that lasted so long was a success: the next failure restarts the back-off.
const STABLE: Duration = Duration::from_secs(5);

/// How long this hub is tried often after the last hub was lost. A hub that restarts is back within seconds; after a
/// longer absence, an operator has probably noticed.
pub const URGENT_FOR: Duration = Duration::from_secs(120);

/// A connection that wasn't replaced for so long resets the back-off after replacements.
const UNCHALLENGED: Duration = Duration::from_secs(300);

/// The history of attempts, as far as the next wait depends on it.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    /// Until when this hub is tried often; `None` while another hub is up.
    urgent_until: Option<Instant>,
}

impl Attempts {
    /// No attempt yet. A client assumes at first that no other hub is up.
    pub(super) fn new(now: Instant) -> Attempts {
        Attempts { backoff: Backoff::default(), urgent_until: Some(now + URGENT_FOR) }
    }

    /// A registration that stood for so long has ended.
    pub(super) fn stood(&mut self, now: Instant, time: Duration) {
        if time >= STABLE {
            self.backoff.succeeded();
            self.urgent_again(now);
        }
        if time >= UNCHALLENGED {
            self.backoff.unchallenged();
        }
    }

    /// The wait before the next attempt. The current one has taken `dialing_for`, and ended for `reason`.
    pub(super) fn wait(
        &mut self,
        now: Instant,
        reason: DownReason,
        dialing_for: Duration,
        rng: &mut Rng,
    ) -> Duration {
        match reason {
            DownReason::Closed(CloseReason::Replaced) => self.backoff.after_replaced(rng),
            DownReason::NetworkChanged => {
                self.urgent_again(now);
                self.backoff.succeeded();
                self.backoff.unchallenged();
                Duration::ZERO
            }
            // The back-off counts from the beginnings of attempts.
            _ if reason.is_absence() && self.is_urgent(now) => {
                self.backoff.after_urgent_failure(rng).saturating_sub(dialing_for)
            }
            _ => self.backoff.after_failure(rng),
        }
    }

    /// Whether another hub is up. Returns whether this hub is tried often from now on, and wasn't before.
    pub(super) fn others_up(&mut self, now: Instant, up: bool) -> bool {
        let began = !up && self.urgent_until.is_none();
        if up {
            self.urgent_until = None;
        } else if began {
            self.urgent_until = Some(now + URGENT_FOR);
        }
        began
    }

    /// A newly drawn wait for a client that is waiting when the last other hub goes down.
    pub(super) fn urgent_wait(&self, rng: &mut Rng) -> Duration {
        self.backoff.urgent_wait(rng)
    }

    fn is_urgent(&self, now: Instant) -> bool {
        self.urgent_until.is_some_and(|until| now < until)
    }

    /// The hub was up, or our network has changed: the time of frequent attempts begins anew.
    fn urgent_again(&mut self, now: Instant) {
        self.urgent_until = self.urgent_until.map(|_| now + URGENT_FOR);
    }
}
