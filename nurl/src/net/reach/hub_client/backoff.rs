//! Reconnect back-off with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015), so that the clients
//! of a restarted hub don't all come back in one instant.

use std::time::Duration;

use crate::kit::backoff::full_jitter;
use crate::kit::draw;
use crate::rt::Rng;

/// The first window: after a mere restart of the hub the client is back before users notice.
pub const BASE: Duration = Duration::from_millis(200);

/// The longest window: a hub that comes back after an hour is found within so long.
pub const CAP: Duration = Duration::from_secs(10);

/// The longest window while no hub at all is up. Relayed peers can't reach each other until then, and a hub that
/// merely restarted can take so many registrations at once.
pub const URGENT_CAP: Duration = Duration::from_secs(2);

/// The minimum wait of a replaced client; the first window on top of it is as long.
pub const REPLACED: Duration = Duration::from_secs(10);

/// The longest window on top of [`REPLACED`].
pub const REPLACED_CAP: Duration = Duration::from_secs(60);

/// The windows of consecutive failures, and of consecutive replacements.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    replacements: u32,
}

impl Backoff {
    /// The wait after a failure: uniform in a window that doubles.
    pub fn after_failure(&mut self, rng: &mut Rng) -> Duration {
        self.after(CAP, rng)
    }

    /// The wait after a failure while no hub at all is up: never above [`URGENT_CAP`].
    pub fn after_urgent_failure(&mut self, rng: &mut Rng) -> Duration {
        self.after(URGENT_CAP, rng)
    }

    /// A newly drawn wait for a client that is waiting when the last other hub goes down.
    pub fn urgent_wait(&self, rng: &mut Rng) -> Duration {
        draw::duration(rng, URGENT_CAP)
    }

    fn after(&mut self, cap: Duration, rng: &mut Rng) -> Duration {
        let wait = full_jitter(rng, BASE, cap, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The wait after a newer registration has replaced ours: never below [`REPLACED`].
    pub fn after_replaced(&mut self, rng: &mut Rng) -> Duration {
        let wait = full_jitter(rng, REPLACED, REPLACED_CAP, self.replacements);
        self.replacements = self.replacements.saturating_add(1);
        REPLACED + wait
    }

    /// The connection has proved stable.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// No newer registration has replaced ours for long, or our network changed.
    pub fn unchallenged(&mut self) {
        self.replacements = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::backoff::window;
    use rand_core::SeedableRng;

    #[test]
    fn the_window_doubles_to_its_cap_and_the_draw_fills_it() {
        let mut rng = Rng::from_seed([1; 32]);
        for (failures, limit_ms) in [(0, 200), (1, 400), (3, 1600), (5, 6400), (6, 10_000), (400, 10_000)] {
            let waits: Vec<Duration> =
                (0..200).map(|_| Backoff { failures, replacements: 0 }.after_failure(&mut rng)).collect();
            let limit = Duration::from_millis(limit_ms);
            assert!(waits.iter().all(|wait| *wait <= limit));
            assert!(waits.iter().any(|wait| *wait < limit / 4));
            assert!(waits.iter().any(|wait| *wait > limit * 3 / 4));
        }
    }

    #[test]
    fn a_replaced_client_waits_ten_seconds_at_least_and_longer_each_time() {
        let mut rng = Rng::from_seed([1; 32]);
        for replacements in [0, 1, 5, 100] {
            let wait = Backoff { failures: 0, replacements }.after_replaced(&mut rng);
            assert!(wait >= REPLACED && wait <= REPLACED + REPLACED_CAP, "{wait:?}");
        }
        let mut backoff = Backoff::default();
        backoff.after_replaced(&mut rng);
        backoff.after_replaced(&mut rng);
        assert_eq!(window(REPLACED, REPLACED_CAP, backoff.replacements), Duration::from_secs(40));
        backoff.unchallenged();
        assert_eq!(window(REPLACED, REPLACED_CAP, backoff.replacements), Duration::from_secs(10));
    }
}
