//! Full-jitter back-off: a delay drawn uniformly from zero to a bound that doubles with each retry.
//!
//! Full jitter spreads many submitters that lost the same executor over the whole interval (Brooker, "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use rand_core::Rng as _;

use crate::rt::Rng;

/// The delay before retry number `retry` (from 0).
pub fn full_jitter(rng: &mut Rng, base: Duration, cap: Duration, retry: u32) -> Duration {
    let bound = base.saturating_mul(1 << retry.min(20)).min(cap);
    within(rng, bound)
}

/// A duration from zero to `bound`, in whole microseconds.
pub fn within(rng: &mut Rng, bound: Duration) -> Duration {
    let bound_us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX - 1);
    // The remainder's bias is below 2^-20 for bounds of hours, which is negligible here.
    Duration::from_micros(rng.next_u64() % (bound_us + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn delays_stay_under_a_doubling_bound_and_use_all_of_it() {
        let mut rng = Rng::seed_from_u64(1);
        let base = Duration::from_millis(100);
        let cap = Duration::from_secs(10);
        for retry in 0..40 {
            let bound = base.saturating_mul(1 << retry.min(20)).min(cap);
            let draws: Vec<_> = (0..200).map(|_| full_jitter(&mut rng, base, cap, retry)).collect();
            assert!(draws.iter().all(|delay| *delay <= bound));
            assert!(draws.iter().any(|delay| *delay > bound * 3 / 4), "retry {retry}");
            assert!(draws.iter().any(|delay| *delay < bound / 4), "retry {retry}");
        }
    }
}
