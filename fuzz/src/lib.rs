//! Puts a target under libFuzzer.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

pub use libfuzzer_sys;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs a target on one input.
pub fn check(name: &str, bytes: &[u8]) {
    fuzz_targets::check(fuzz_targets::target(name), bytes, || ALLOCATOR.stats().bytes_allocated);
}

/// The program of a fuzzer.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::check($name, bytes));
    };
}
