//! Random draws from a given generator, with negligible bias and without floats: multiply-shift (Lemire, "Fast Random
//! Integer Generation in an Interval", 2019).

use std::time::Duration;

use rand_core::Rng;

/// A number below `bound` (0 when `bound` is 0). It is off by less than `bound / 2^64`.
pub fn below(rng: &mut impl Rng, bound: usize) -> usize {
    below_u64(rng, bound as u64) as usize
}

/// A number below `bound` (0 when `bound` is 0), for numbers that may be wider than a pointer.
pub fn below_u64(rng: &mut impl Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A duration from zero to `bound`, in whole nanoseconds; without a limit for a bound over 584 years.
pub fn duration(rng: &mut impl Rng, bound: Duration) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(below_u64(rng, nanos.saturating_add(1)))
}

/// `base`, plus or minus one part in `parts`: keeps peers that lost the same thing from retrying in step.
pub fn jittered(rng: &mut impl Rng, base: Duration, parts: u32) -> Duration {
    base - base / parts + duration(rng, base / parts * 2)
}

/// Fisher–Yates shuffle.
pub fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

/// Up to `count` of `items`, without repetition, in random order.
pub fn sample<T>(rng: &mut impl Rng, mut items: Vec<T>, count: usize) -> Vec<T> {
    for at in 0..count.min(items.len()) {
        let other = at + below(rng, items.len() - at);
        items.swap(at, other);
    }
    items.truncate(count);
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn a_sample_has_no_repetition_and_reaches_everything() {
        let mut rng = crate::rt::Rng::from_seed([1; 32]);
        let mut seen = [0u32; 10];
        for _ in 0..1000 {
            let mut drawn = sample(&mut rng, (0..10usize).collect(), 3);
            assert_eq!(drawn.len(), 3);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 3);
            drawn.iter().for_each(|at| seen[*at] += 1);
        }
        assert!(seen.iter().all(|count| (200..400).contains(count)), "{seen:?}");
        assert_eq!(sample(&mut rng, vec![1, 2], 5).len(), 2);
        assert_eq!(below(&mut rng, 0), 0);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut rng = crate::rt::Rng::from_seed([2; 32]);
        let mut items: Vec<u32> = (0..50).collect();
        shuffle(&mut rng, &mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
