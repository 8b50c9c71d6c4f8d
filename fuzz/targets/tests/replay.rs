//! Replays the committed corpora, and seeded mutations of them, through every target on stable.
#![allow(
    clippy::disallowed_methods,
    reason = "the corpora are files of this repository, and only tests read them"
)]

use std::alloc::System;
use std::fs;
use std::path::PathBuf;

use fuzz_targets::corpus::corpus;
use fuzz_targets::mutation::Mutator;
use fuzz_targets::{check, targets};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Mutations of each parser's corpus, and of each insider's, whose inputs are whole scenarios.
const PARSER_MUTATIONS: usize = 2_000;
const INSIDER_MUTATIONS: usize = 100;

/// `NURL_FUZZ_TIMES=50` makes that many times as many mutations, and `NURL_FUZZ_TARGET` names the only target.
fn times() -> usize {
    std::env::var("NURL_FUZZ_TIMES").map_or(1, |times| times.parse().expect("NURL_FUZZ_TIMES is a number"))
}

fn allocated() -> usize {
    ALLOCATOR.stats().bytes_allocated
}

/// One test for all, one after another: the allocations that are counted are those of the process.
#[test]
fn the_corpora_and_mutations_of_them_break_no_property() {
    let only = std::env::var("NURL_FUZZ_TARGET").ok();
    for target in targets().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus: ci/fuzz seeds", target.name);
        for (name, bytes) in &corpus {
            let accepted = check(target, bytes, allocated);
            // A seed that is refused tests nothing: the wire has changed.
            assert!(
                accepted || !name.starts_with("seed"),
                "{}/{name} is refused: ci/fuzz seeds",
                target.name
            );
        }
        let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
        let count = if target.stateful { INSIDER_MUTATIONS } else { PARSER_MUTATIONS };
        let mut mutator = Mutator::new(1);
        for n in 0..count * times() {
            let bytes = mutator.mutate(&inputs);
            let outcome = std::panic::catch_unwind(|| check(target, &bytes, allocated));
            if outcome.is_err() {
                let path = std::env::temp_dir().join(format!("{}-{n}", target.name));
                fs::write(&path, &bytes).expect("there is a folder for temporary files");
                panic!(
                    "mutation {n} of {} breaks it: ci/fuzz replay {} {}",
                    target.name,
                    target.name,
                    path.display()
                );
            }
        }
    }
}

#[test]
fn each_target_has_a_fuzzer() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("it is there");
    for target in targets() {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{}.rs", target.name)));
        let program = program.unwrap_or_else(|error| panic!("fuzz_targets/{}.rs: {error}", target.name));
        assert!(program.contains(&format!("fuzz!(\"{}\")", target.name)), "{program}");
        assert!(
            manifest.contains(&format!("name = \"{}\"\n", target.name)),
            "{} has no [[bin]]",
            target.name
        );
    }
}
