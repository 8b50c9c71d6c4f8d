//! Full-jitter back-off: a delay drawn uniformly from zero to a bound that doubles with each retry.
//!
//! Full jitter spreads many that lost the same peer over the whole interval (Brooker, "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use super::draw;
use crate::rt::Rng;

/// The delay before retry number `retry` (from 0).
pub fn full_jitter(rng: &mut Rng, base: Duration, cap: Duration, retry: u32) -> Duration {
    draw::duration(rng, window(base, cap, retry))
}

/// The bound of retry number `retry` (from 0): `base`, doubled so often, never above `cap`.
pub fn window(base: Duration, cap: Duration, retry: u32) -> Duration {
    base.saturating_mul(1 << retry.min(20)).min(cap)
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
