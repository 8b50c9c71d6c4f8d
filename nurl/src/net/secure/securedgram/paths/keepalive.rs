//! The keepalive interval of an idle direct path.
//!
//! The timer counts from the last datagram of any kind that we sent on the path, so no keepalive is sent
//! while traffic flows. A received keepalive doesn't trigger one: both NATs need outbound packets (RFC 4787
//! REQ-6), and each side sends for its own. Without a second socket the lifetime of a mapping can't be
//! measured, so the interval adapts: a path that died while idle shortens it, one that held lengthens it.

use std::time::{Duration, Instant};

use super::config::{KEEPALIVE_GROWS_AFTER, KEEPALIVE_RANGE};

#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    last_sent: Option<Instant>,
    /// When a datagram last showed the path alive, and since when it has held.
    last_heard: Option<Instant>,
    held_since: Option<Instant>,
}

impl Keepalive {
    pub(super) fn new(interval: Duration) -> Keepalive {
        Keepalive { interval, last_sent: None, last_heard: None, held_since: None }
    }

    /// Starts the timer: the path is now the one in use.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.last_sent, self.last_heard, self.held_since) = (Some(now), Some(now), Some(now));
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = Some(now);
        if self.held_since.is_some_and(|since| now >= since + KEEPALIVE_GROWS_AFTER) {
            self.interval = (self.interval * 5 / 4).min(KEEPALIVE_RANGE.1.max(self.interval));
            self.held_since = Some(now);
        }
    }

    /// The path was lost. If it had been idle for about an interval before (the sends that found it dead
    /// began at `first_unanswered`), a mapping has probably died, and the interval was too long.
    pub(super) fn lost(&mut self, first_unanswered: Option<Instant>) {
        let idle = match (first_unanswered, self.last_heard) {
            (Some(first), Some(heard)) => first.saturating_duration_since(heard),
            _ => Duration::ZERO,
        };
        if idle >= self.interval * 3 / 4 {
            self.interval = (self.interval * 2 / 3).max(KEEPALIVE_RANGE.0.min(self.interval));
        }
    }

    /// Stops the timer: there is no direct path.
    pub(super) fn end(&mut self) {
        (self.last_sent, self.last_heard, self.held_since) = (None, None, None);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.last_sent.map(|sent| sent + self.interval)
    }

    #[cfg(test)]
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }
}
