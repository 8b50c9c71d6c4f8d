//! Every scenario: pinned seeds with their end states, more seeds for the invariants alone, and each seed
//! twice with equal digests. `NURL_SEED` runs one seed instead, `NURL_SEEDS` another number of them.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use chaos::scenario::{Options, Report};
use sim_scenarios::scenario::find;

/// Seeds whose end state is a snapshot.
const PINNED: [u64; 2] = [1, 2];

/// Seeds beyond them, for the invariants alone.
const MORE: u64 = 20;

/// Seeds that once broke a scenario, each with what it found.
///
/// - `blackout` 3 and 100: jitter of a tenth of the round trip looked like loss to QUIC's packet threshold of
///   3, and a steady transfer on a good path fell to half its rate.
const REGRESSIONS: [(&str, u64); 2] = [("blackout", 3), ("blackout", 100)];

/// A run with fewer records in its trace has not happened.
const LEAST_EVENTS: u64 = 1_000;

/// The digests of this run, rewritten sorted after each scenario, for `ci/test` to compare.
static DIGESTS: Mutex<BTreeMap<(String, u64), String>> = Mutex::new(BTreeMap::new());

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs a seed twice and checks that both runs are the same, byte for byte.
fn twice(name: &str, seed: u64) -> Report {
    let scenario = find(name).expect("the scenario exists");
    let (first, second) = (scenario.run(&Options::seed(seed)), scenario.run(&Options::seed(seed)));
    assert_eq!(first, second, "{name} with seed {seed} is not reproducible");
    assert!(first.events >= LEAST_EVENTS, "{name} with seed {seed} has only {} events", first.events);
    let mut digests = DIGESTS.lock().unwrap();
    digests.insert((name.to_owned(), seed), first.digest.clone());
    write_digests(&digests);
    first
}

#[expect(clippy::disallowed_methods, reason = "after the runs, outside of every world")]
fn write_digests(digests: &BTreeMap<(String, u64), String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/chaos");
    std::fs::create_dir_all(&folder).unwrap();
    let mut file = std::fs::File::create(folder.join("digests.txt")).unwrap();
    for ((name, seed), digest) in digests {
        writeln!(file, "{name} {seed} {digest}").unwrap();
    }
}

fn prove(name: &str) {
    if let Some(seed) = number("NURL_SEED") {
        let report = twice(name, seed);
        assert!(report.verdict.is_ok(), "{}", report.story());
        return;
    }
    let mut digests = BTreeMap::new();
    for seed in PINNED {
        let report = twice(name, seed);
        assert!(report.verdict.is_ok(), "{}", report.story());
        insta::assert_snapshot!(format!("{name}-{seed}"), report.verdict.unwrap().state);
        digests.insert(report.digest, seed);
    }
    let more = number("NURL_SEEDS").unwrap_or(MORE);
    for seed in 100..100 + more {
        let report = twice(name, seed);
        assert!(report.verdict.is_ok(), "{}", report.story());
        if let Some(other) = digests.insert(report.digest, seed) {
            panic!("{name}: seeds {other} and {seed} gave the same bytes");
        }
    }
}

#[test]
fn what_once_broke_holds() {
    for (name, seed) in REGRESSIONS {
        let report = find(name).expect("the scenario exists").run(&Options::seed(seed));
        assert!(report.verdict.is_ok(), "{}", report.story());
    }
}

#[test]
fn converge_under_loss() {
    prove("converge");
}

#[test]
fn keystone_across_a_partition() {
    prove("keystone");
}

#[test]
fn a_transfer_survives_a_blackout() {
    prove("blackout");
}

#[test]
fn leased_effects_happen_once_across_kills() {
    prove("lease");
}

#[test]
fn loss_on_both_legs_is_run_and_told() {
    let report = find("converge-hard").unwrap().run(&Options::seed(1));
    println!("{}", report.verdict.map_or_else(|broken| broken.to_string(), |held| held.notes));
    assert!(report.events >= LEAST_EVENTS);
}
