//! A token bucket in integers: limits how many bytes, requests or handshakes are accepted.

use std::time::{Duration, Instant};

/// Fills at `per_second`, up to `burst`.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    tokens: u64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u64, burst: u64, now: Instant) -> TokenBucket {
        TokenBucket { per_second, burst, tokens: burst, filled_at: now }
    }

    /// Takes `amount` tokens if so many are left.
    pub fn take(&mut self, now: Instant, amount: u64) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(amount) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }

    /// Whether nothing was taken lately. A full bucket holds no state worth keeping, so it can be
    /// dropped.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at);
        let nanos = u128::from(self.per_second) * passed.as_nanos();
        let gained = u64::try_from(nanos / NANOS).unwrap_or(u64::MAX);
        if gained == 0 {
            return;
        }
        self.tokens = self.tokens.saturating_add(gained).min(self.burst);
        // The fraction of a token is kept: only the time for the whole tokens is used up.
        let unused = (nanos % NANOS) / u128::from(self.per_second.max(1));
        self.filled_at = now.checked_sub(Duration::from_nanos(unused as u64)).unwrap_or(now);
    }
}

const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = crate::rt::time::now();
        let mut bucket = TokenBucket::new(100, 50, start);
        assert!(bucket.take(start, 50));
        assert!(!bucket.take(start, 1));
        assert!(bucket.take(start + Duration::from_millis(10), 1));
        assert!(!bucket.take(start + Duration::from_millis(15), 1));
        assert!(bucket.take(start + Duration::from_millis(20), 1));
        assert!(bucket.take(start + Duration::from_secs(60), 50));
        assert!(!bucket.take(start + Duration::from_secs(60), 1));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(
            steps in proptest::collection::vec((0u64..50, 0u64..20), 1..200),
        ) {
            let start = crate::rt::time::now();
            let mut bucket = TokenBucket::new(1000, 30, start);
            let (mut at, mut taken) = (0, 0);
            for (millis, amount) in steps {
                at += millis;
                if bucket.take(start + Duration::from_millis(at), amount) {
                    taken += amount;
                }
                prop_assert!(taken <= 30 + at);
            }
        }
    }
}
