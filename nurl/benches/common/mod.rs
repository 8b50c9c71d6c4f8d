//! Timing for the ratio benchmarks.
//!
//! A benchmark's result is a ratio of two costs, so its variants run in turns, in many short rounds: other load on
//! the machine affects all variants alike. The cost of a variant is its cheapest round, because noise can only
//! increase a cost.

use std::time::{Duration, Instant};

/// Rounds of each variant.
const ROUNDS: usize = 60;

/// The approximate time of one round: long against the clock's resolution, short against a scheduler's time slice.
const ROUND: Duration = Duration::from_millis(4);

/// The time that one call of each variant takes, measured in turns.
pub(crate) fn in_turns<const N: usize>(mut variants: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let calls = variants.each_mut().map(|call| {
        // Warm up, then count.
        (0..16).for_each(|_| call());
        let begun = Instant::now();
        let mut calls = 0u32;
        while begun.elapsed() < ROUND {
            call();
            calls += 1;
        }
        calls
    });
    let mut best = [Duration::MAX; N];
    for _ in 0..ROUNDS {
        for (at, call) in variants.iter_mut().enumerate() {
            let begun = Instant::now();
            (0..calls[at]).for_each(|_| call());
            best[at] = best[at].min(begun.elapsed() / calls[at]);
        }
    }
    best
}

/// `a / b`.
pub(crate) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
