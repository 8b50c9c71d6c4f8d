//! Replays the committed corpora, and seeded mutations of them, through every target on stable.
#![allow(
    clippy::disallowed_methods,
    reason = "the corpora are files of this repository, and only tests read them"
)]

use std::alloc::System;
use std::fs;
use std::path::PathBuf;

use fuzz_targets::mutation::Mutator;
use fuzz_targets::{Target, check, target, targets};
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

fn folder(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name)
}

/// The files of a target's corpus, by name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder(target)).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let mut corpus: Vec<_> = files
        .map(|file| {
            let file = file.expect("the folder can be listed");
            (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("it can be read"))
        })
        .collect();
    corpus.sort();
    corpus
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

/// Writes what `seeds` makes; run by `ci/fuzz seeds` after a change of the wire.
#[test]
#[ignore = "it writes the corpora"]
fn write_the_seeds() {
    for target in targets() {
        let folder = folder(target);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, _) in corpus(target).into_iter().filter(|(name, _)| name.starts_with("seed")) {
            fs::remove_file(folder.join(name)).expect("it can be deleted");
        }
        for (n, bytes) in (target.seeds)().iter().enumerate() {
            assert!(check(target, bytes, allocated), "seed {n} of {} is refused: {bytes:02x?}", target.name);
            fs::write(folder.join(format!("seed-{n:02}")), bytes).expect("it can be written");
        }
    }
}

/// Replays the file in `NURL_FUZZ_INPUT` through the target in `NURL_FUZZ_TARGET`; run by `ci/fuzz replay`.
#[test]
#[ignore = "it needs an input"]
fn replay_one_input() {
    let variable =
        |name| std::env::var(name).unwrap_or_else(|_| panic!("set {name}, or call ci/fuzz replay"));
    let bytes = fs::read(variable("NURL_FUZZ_INPUT")).expect("it can be read");
    let accepted = check(target(&variable("NURL_FUZZ_TARGET")), &bytes, allocated);
    println!("{} bytes, {}", bytes.len(), if accepted { "taken" } else { "refused" });
}
