//! One suspicion and its timer: Lifeguard's "dogpile" (§4.2, LHA-Suspicion).
//!
//! A suspicion starts with its longest timeout. With c *independent* accusers after the first, the timeout is
//! `max − (max − min) · ln(c + 1) / ln(k + 1)`, where k is the number of confirmations that suffice; the same accuser
//! never counts twice. With k = 0, in a mesh without another member that could confirm, the shortest timeout applies
//! at once.

use std::time::{Duration, Instant};

use crate::key::PublicKey;

/// The most accusers that are remembered and passed on: the first and k ≤ 3 confirmations. More would not change the
/// timer and would cost 34 bytes each in every message.
pub const MAX_ACCUSERS: usize = 4;

/// The timeout of a suspicion, from its start.
///
/// The logarithms are libm's, so every platform computes the same milliseconds.
pub fn timeout(min: Duration, max: Duration, k: u32, confirmations: u32) -> Duration {
    if k == 0 || confirmations >= k {
        return min;
    }
    let share = libm::log(f64::from(confirmations) + 1.0) / libm::log(f64::from(k) + 1.0);
    let range_ms = max.saturating_sub(min).as_millis() as f64;
    let shorter = Duration::from_millis(libm::floor(range_ms * share) as u64);
    max.saturating_sub(shorter).max(min)
}

/// The shortest timeout for a mesh of `n` members: `base · max(1, log10 n)`.
pub fn min_timeout(base: Duration, n: usize) -> Duration {
    let factor = libm::log10(n.max(1) as f64).max(1.0);
    Duration::from_millis(libm::floor(base.as_millis() as f64 * factor) as u64)
}

/// Number of confirmations that suffice in a mesh of `n` members: `min(limit, n − 2)`, since neither the accused nor
/// the first accuser can confirm.
pub fn expected_confirmations(limit: u32, n: usize) -> u32 {
    limit.min(u32::try_from(n.saturating_sub(2)).unwrap_or(u32::MAX))
}

/// A running suspicion of one member at one incarnation.
#[derive(Debug, Clone)]
pub struct Suspicion {
    started: Instant,
    min: Duration,
    max: Duration,
    k: u32,
    accusers: Vec<PublicKey>,
    /// A probe of this node has failed, too.
    proven: bool,
    /// Its time passed before it was proven.
    overdue: bool,
}

impl Suspicion {
    /// Starts a suspicion. `k` is [`expected_confirmations`].
    pub fn new(now: Instant, accuser: PublicKey, min: Duration, max: Duration, k: u32) -> Suspicion {
        Suspicion { started: now, min, max, k, accusers: vec![accuser], proven: false, overdue: false }
    }

    /// Counts an accuser. False, without effect, if it accused before or if enough have.
    pub fn confirm(&mut self, accuser: PublicKey) -> bool {
        if !self.is_open() || self.accusers.len() >= MAX_ACCUSERS || self.accusers.contains(&accuser) {
            return false;
        }
        self.accusers.push(accuser);
        true
    }

    /// Whether another accuser would shorten the timeout.
    pub fn is_open(&self) -> bool {
        self.confirmations() < self.k
    }

    /// Accusers after the first.
    pub fn confirmations(&self) -> u32 {
        self.accusers.len() as u32 - 1
    }

    /// A probe of this node has failed: without that there is no verdict, since others may be wrong about the accused,
    /// or lie.
    pub fn prove(&mut self) {
        self.proven = true;
    }

    /// Whether a probe of this node has failed.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Others have come to the verdict that the accused is dead, and said so at `told`: from then on the shortest time
    /// suffices.
    pub fn hasten(&mut self, told: Instant) {
        self.started = self.started.min(told);
        self.k = 0;
    }

    /// The time is over, and this node has no evidence of its own: the verdict waits for it.
    pub fn wait(&mut self) {
        self.overdue = true;
    }

    /// When something is due: the verdict, or the wait for evidence. `None` while it waits.
    pub fn due(&self) -> Option<Instant> {
        (self.proven || !self.overdue).then(|| self.deadline())
    }

    /// When the accused is declared dead, if this node has evidence by then.
    pub fn deadline(&self) -> Instant {
        self.started + timeout(self.min, self.max, self.k, self.confirmations())
    }

    /// Excludes the time `by` in which this node stalled.
    pub fn postpone(&mut self, by: Duration) {
        self.started += by;
    }

    /// Restarts the timeout and keeps the accusers.
    pub fn restart(&mut self, now: Instant) {
        self.started = now;
        self.overdue = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    #[test]
    fn the_time_follows_the_formula_of_the_paper() {
        let (min, max) = (Duration::from_secs(2), Duration::from_secs(30));
        // k, c, milliseconds; computed by hand from max − (max − min)·ln(c+1)/ln(k+1).
        for (k, c, ms) in [
            (3, 0, 30_000),
            (3, 1, 16_000),
            (3, 2, 7_811),
            (3, 3, 2_000),
            (3, 4, 2_000),
            (2, 0, 30_000),
            (2, 1, 12_334),
            (2, 2, 2_000),
            (1, 0, 30_000),
            (1, 1, 2_000),
            (0, 0, 2_000),
        ] {
            assert_eq!(timeout(min, max, k, c), Duration::from_millis(ms), "k {k}, c {c}");
        }
    }

    #[test]
    fn the_shortest_time_grows_with_log10_of_the_mesh() {
        let base = Duration::from_secs(4);
        for (n, ms) in [(0, 4000), (1, 4000), (2, 4000), (10, 4000), (100, 8000), (1000, 12_000)] {
            assert_eq!(min_timeout(base, n), Duration::from_millis(ms), "n {n}");
        }
    }

    #[test]
    fn a_mesh_of_two_expects_no_confirmation() {
        for (n, k) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (100, 3)] {
            assert_eq!(expected_confirmations(3, n), k, "n {n}");
        }
    }

    #[test]
    fn a_confirmation_counts_once_per_accuser() {
        let now = crate::rt::test_now();
        let mut suspicion = Suspicion::new(now, key(1), Duration::from_secs(4), Duration::from_secs(24), 3);
        let longest = suspicion.deadline();
        assert_eq!(longest, now + Duration::from_secs(24));
        assert!(!suspicion.confirm(key(1)), "the first accuser is no confirmation");
        assert_eq!(suspicion.deadline(), longest);
        assert!(suspicion.confirm(key(2)));
        let shorter = suspicion.deadline();
        assert!(shorter < longest);
        assert!(!suspicion.confirm(key(2)));
        assert_eq!(suspicion.deadline(), shorter);
        assert!(suspicion.confirm(key(3)) && suspicion.confirm(key(4)));
        assert_eq!(suspicion.deadline(), now + Duration::from_secs(4));
        assert!(!suspicion.confirm(key(5)), "enough have confirmed");
        assert_eq!(suspicion.confirmations() as usize, MAX_ACCUSERS - 1);
    }

    #[test]
    fn without_evidence_of_ones_own_the_verdict_waits_and_with_it_a_told_death_comes_soon() {
        let s = Duration::from_secs;
        let now = crate::rt::test_now();
        let new = || Suspicion::new(now, key(1), s(4), s(24), 3);
        let mut suspicion = new();
        assert_eq!(suspicion.due(), Some(now + s(24)));
        suspicion.wait();
        assert_eq!(suspicion.due(), None);
        suspicion.prove();
        assert_eq!(suspicion.due(), Some(now + s(24)), "due by then");
        let mut suspicion = new();
        suspicion.hasten(now + s(2));
        assert_eq!(suspicion.due(), Some(now + s(4)), "since it began");
        let mut suspicion = new();
        suspicion.hasten(now.checked_sub(s(3)).unwrap());
        assert_eq!(suspicion.due(), Some(now + s(1)), "since it was told");
        suspicion.wait();
        suspicion.restart(now + s(5));
        assert_eq!(suspicion.due(), Some(now + s(9)));
    }
}
