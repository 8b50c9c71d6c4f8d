//! Works on the corpora; `ci/fuzz seeds` and `ci/fuzz replay` call it.
#![allow(clippy::disallowed_methods, reason = "it reads the files that it is given")]

use std::alloc::System;
use std::process::ExitCode;

use fuzz_targets::corpus::write_seeds;
use fuzz_targets::{check, target};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocated() -> usize {
    ALLOCATOR.stats().bytes_allocated
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["seeds"] => write_seeds(allocated),
        ["replay", name, ref files @ ..] if !files.is_empty() => {
            for file in files {
                let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
                let accepted = check(target(name), &bytes, allocated);
                println!("{file}: {} bytes, {}", bytes.len(), if accepted { "taken" } else { "refused" });
            }
        }
        _ => {
            eprintln!("usage: corpus seeds | corpus replay TARGET FILE…");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
