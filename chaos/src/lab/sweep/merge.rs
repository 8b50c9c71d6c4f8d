//! One report of the ledgers of all shards of a sweep.

use super::Sweep;
use super::book::Book;
use super::ledger::{Ledger, SweepArguments};
use super::report::SweepReport;
use crate::lab::scenario::{Purpose, Scenario};
use std::collections::BTreeMap;
use std::time::Duration;

/// Why ledgers can't be merged. Each is told by its position among them, from 1 on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("there is no ledger")]
    Nothing,
    /// Two are of different programs.
    #[error(
        "ledger {0} is of another build than the first: their runs may differ; sweep all shards with one build"
    )]
    Builds(usize),
    /// Two are of different sweeps.
    #[error("ledger {0} is of another sweep than the first, which is {1}")]
    Sweeps(usize, String),
    /// Two are of the same shard.
    #[error("ledger {1} overlaps with ledger {0}: both are of the shard {2}")]
    Overlap(usize, usize, String),
    /// Shards are missing.
    #[error("shards are missing: {0}; sweep them with `--ledger`, and give all ledgers")]
    Missing(String),
    /// A scenario isn't known.
    #[error("this program has no scenario {0}")]
    Scenario(String),
}

/// Merges the ledgers of all shards of a sweep over some of `scenarios`.
///
/// # Errors
/// If the ledgers aren't those of one sweep by one build, each shard once.
pub fn merge(scenarios: &[Scenario], ledgers: &[Ledger]) -> Result<(Sweep, SweepReport), MergeError> {
    let arguments = check(ledgers)?;
    let find = |name: &String| {
        let known = scenarios.iter().find(|scenario| scenario.name == name).copied();
        known.ok_or_else(|| MergeError::Scenario(name.clone()))
    };
    let named: Vec<Scenario> = arguments.scenarios.iter().map(find).collect::<Result<_, _>>()?;
    let sweep = Sweep {
        start: arguments.start,
        knobs: arguments.knobs.clone(),
        jobs: ledgers.len(),
        ..Sweep::new(&named, arguments.runs)
    };
    let proofs: Vec<Scenario> =
        named.into_iter().filter(|scenario| scenario.purpose != Purpose::Canary).collect();
    let mut book = Book::new(&sweep, &proofs);
    book.expect(sweep.runs);
    let (mut canaries, mut took) = (BTreeMap::new(), Duration::ZERO);
    for ledger in ledgers {
        for entry in ledger.known.runs() {
            book.enter(entry, None);
            took += Duration::from_millis(entry.real_ms);
        }
        ledger.known.all_stuck().iter().cloned().for_each(|stuck| book.give_up(stuck));
        canaries.extend(ledger.known.canaries().map(|canary| (canary.scenario.clone(), canary.clone())));
    }
    let interrupted = ledgers.iter().any(|ledger| !ledger.ended);
    let report = book.close(canaries.into_values().collect(), interrupted, took);
    Ok((sweep, report))
}

/// Checks that the ledgers are those of one sweep by one build, each shard once. Returns the sweep's arguments.
fn check(ledgers: &[Ledger]) -> Result<&SweepArguments, MergeError> {
    let first = &ledgers.first().ok_or(MergeError::Nothing)?.header;
    let shards = first.sweep.shard.1;
    let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
    for (number, ledger) in (1..).zip(ledgers) {
        let header = &ledger.header;
        let shard = header.sweep.shard;
        if header.build != first.build {
            return Err(MergeError::Builds(number));
        }
        let alike = SweepArguments { shard: (first.sweep.shard.0, shard.1), ..header.sweep.clone() };
        if alike != first.sweep {
            return Err(MergeError::Sweeps(number, first.sweep.command_line()));
        }
        if let Some(other) = owners.insert(shard.0, number) {
            return Err(MergeError::Overlap(other, number, format!("{}/{}", shard.0, shard.1)));
        }
    }
    let missing: Vec<String> = (1..=shards)
        .filter(|shard| !owners.contains_key(shard))
        .map(|shard| format!("{shard}/{shards}"))
        .collect();
    if missing.is_empty() { Ok(&first.sweep) } else { Err(MergeError::Missing(missing.join(", "))) }
}
