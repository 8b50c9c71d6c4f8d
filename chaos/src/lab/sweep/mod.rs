//! Many runs: distributes seeds over scenarios and threads, counts the results, and reports them.
//!
//! A sweep can fail in two ways. Either a property breaks, or the sweep is *vacuous*: it proved less than it seems.
//! A sweep is vacuous if a mark was not reached in as many runs as should reach it, if the canary's planted bug was
//! not found, or if a scenario had no run at all. Both are reported with the same emphasis.
//!
//! Runs are distributed round robin: scenario after scenario with one seed, then all of them with the next. The last
//! quarter goes to the scenarios that have not reached all of their marks by then, so that a large sweep can
//! distinguish a rare path from an unreachable one. Canaries run first, each until its bug has been found, and don't
//! count. The first seed of each scenario is run twice and has to give the same run again. The selection of runs
//! depends on the seeds and the shard alone, not on the threads.
//!
//! A sweep can be stopped, and resumed with the runs that a [`Ledger`] has of it: the selection stays the same, so the
//! report does too.

mod book;
mod deal;
mod entry;
mod ledger;
mod merge;
mod report;

use crate::lab::scenario::{Options, Purpose, Report, Scenario};
use crate::lab::stall::{GivenUp, attended};
use crate::lab::story::not_reproducible;
use book::Book;
use deal::Deal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use crate::lab::stall::PATIENCE;
pub use entry::RunEntry;
pub use ledger::{KnownRuns, Ledger, LedgerError, LedgerHeader, LedgerLine, LedgerWriter, SweepArguments};
pub use merge::{MergeError, merge};
pub use report::{Canary, Found, Progress, SEEDS_LISTED, ScenarioCounts, StuckRun, SweepReport};

/// The number of runs within which a canary's bug must be found.
pub const CANARY_RUNS: u64 = 100;

/// A sweep to be made.
#[derive(Clone)]
pub struct Sweep {
    /// The scenarios over which runs are distributed; canaries among them run separately.
    pub scenarios: Vec<Scenario>,
    /// The number of runs; `None` continues until the time is over.
    pub runs: Option<u64>,
    /// The first seed.
    pub start: u64,
    /// The number of threads.
    pub jobs: usize,
    /// The shard to run, and the number of shards: `(1, 1)` is all runs.
    pub shard: (u64, u64),
    /// The real time after which no further run is begun.
    pub limit: Option<Duration>,
    /// Real time without a poll after which a single run is given up.
    pub patience: Duration,
    /// Knobs that aren't at their default; a scenario takes those that it has.
    pub knobs: BTreeMap<String, u64>,
    /// Runs that are not made again, because a ledger has them.
    pub known: Arc<KnownRuns>,
    /// Ends the sweep when it becomes true: no further run begins, and active ones have some seconds.
    pub stop: Arc<AtomicBool>,
}

/// What happens in a sweep.
#[derive(Debug)]
pub enum SweepEvent<'a> {
    /// At intervals.
    Progress(Progress),
    /// A run has come to its end.
    Run {
        /// Its place and its result.
        entry: &'a RunEntry,
        /// Its report.
        report: &'a Report,
        /// If it is a failure, how often its property has broken by now, runs of the ledger included.
        times: Option<u64>,
    },
    /// A run was given up.
    Stuck(&'a StuckRun),
    /// A canary's runs have come to their end.
    Canary(&'a Canary),
}

impl Sweep {
    /// A sweep of `runs` runs from seed 1 on, on one thread.
    pub fn new(scenarios: &[Scenario], runs: Option<u64>) -> Sweep {
        Sweep {
            scenarios: scenarios.to_vec(),
            runs,
            start: 1,
            jobs: 1,
            shard: (1, 1),
            limit: None,
            patience: PATIENCE,
            knobs: BTreeMap::new(),
            known: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// The arguments that decide which runs it makes.
    pub fn arguments(&self) -> SweepArguments {
        SweepArguments {
            scenarios: self.scenarios.iter().map(|scenario| scenario.name.to_owned()).collect(),
            runs: self.runs,
            start: self.start,
            shard: self.shard,
            knobs: self.knobs.clone(),
        }
    }

    /// Makes the runs, and tells what happens.
    pub fn run(&self, told: &mut dyn FnMut(SweepEvent<'_>)) -> SweepReport {
        let begun = Instant::now();
        let (canaries, scenarios): (Vec<Scenario>, Vec<Scenario>) =
            self.scenarios.iter().copied().partition(|scenario| scenario.purpose == Purpose::Canary);
        let mut book = Book::new(self, &scenarios);
        let canaries = canaries.iter().filter_map(|canary| self.look_for(canary, &mut book, told)).collect();
        // Every scenario runs at least once.
        let rounds = |runs: u64| (runs / 4 * 3 / (scenarios.len() as u64).max(1)).max(1);
        let first = Deal {
            sweep: self.clone(),
            scenarios: scenarios.clone(),
            place: 0,
            number: 0,
            runs: self.runs.map(|runs| runs.min(rounds(runs) * scenarios.len() as u64)),
            begun,
        };
        let dealt = first.runs;
        let count = scenarios.len() as u64;
        // How many of the rest are the shard's depends on how many scenarios they go to, so this is exact later only.
        let mine = |all: u64, done: u64, to: usize| match count {
            0 => 0,
            _ => self.count_mine(done, count) + self.count_mine(all - done, to as u64),
        };
        book.expect(self.runs.zip(dealt).map(|(all, done)| mine(all, done, scenarios.len())));
        first.run(&mut book, told);
        if let (Some(all), Some(done)) = (self.runs, dealt) {
            let wanting = book.wanting();
            let second = Deal {
                sweep: self.clone(),
                scenarios: if wanting.is_empty() { scenarios.clone() } else { wanting },
                place: done,
                number: done.div_ceil(count.max(1)),
                runs: Some(all - done),
                begun,
            };
            book.expect(Some(mine(all, done, second.scenarios.len())));
            second.run(&mut book, told);
        }
        told(SweepEvent::Progress(book.progress(begun.elapsed())));
        book.close(canaries, self.is_stopped(), begun.elapsed())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the run at this place is a part of the shard. Neighbouring runs of one seed go to different shards,
    /// so that each shard runs every scenario.
    fn is_mine(&self, at: u64, scenarios: u64) -> bool {
        let (shard, shards) = self.shard;
        let scenarios = scenarios.max(1);
        (at / scenarios + at % scenarios) % shards.max(1) + 1 == shard
    }

    /// How many of the first `runs` places are a part of the shard.
    fn count_mine(&self, runs: u64, scenarios: u64) -> u64 {
        let (scenarios, shards) = (scenarios.max(1), self.shard.1.max(1));
        let (rounds, rest) = (runs / scenarios, runs % scenarios);
        let of_one = |place: u64| {
            // The shard has every `shards`-th round of each scenario, beginning with this one.
            let first = (self.shard.0 + shards - 1 - place % shards) % shards;
            let rounds = rounds + u64::from(place < rest);
            if first < rounds { (rounds - first - 1) / shards + 1 } else { 0 }
        };
        (0..scenarios).map(of_one).sum()
    }

    /// The seed of a number.
    fn seed(&self, number: u64) -> u64 {
        self.start.wrapping_add(number)
    }

    fn options(&self, scenario: &Scenario, seed: u64) -> Options {
        let has = |name: &String| scenario.knobs.iter().any(|knob| knob.name == name);
        let knobs = self.knobs.iter().filter(|(name, _)| has(name)).map(|(k, v)| (k.clone(), *v)).collect();
        Options { knobs, ..Options::seed(seed) }
    }

    fn one(&self, scenario: &Scenario, number: u64) -> Report {
        let options = self.options(scenario, self.seed(number));
        let mut report = scenario.run(&options);
        if number == 0 {
            let again = scenario.run(&options);
            if again != report {
                report.verdict = Err(not_reproducible(&report, &again));
            }
        }
        report
    }

    /// Makes the runs of a canary; `None` if the sweep was stopped before their end.
    fn look_for(
        &self,
        canary: &Scenario,
        book: &mut Book<'_>,
        told: &mut dyn FnMut(SweepEvent<'_>),
    ) -> Option<Canary> {
        if let Some(known) = self.known.canary(canary.name) {
            return Some(known.clone());
        }
        let (sweep, scenario) = (self.clone(), *canary);
        let fails =
            move |number: &u64| scenario.run(&sweep.options(&scenario, sweep.seed(*number))).verdict.is_err();
        let looked = attended(self.patience, &self.stop, move || (0..CANARY_RUNS).find(fails));
        let found_in = match looked {
            Ok(found) => found.map(|number| number + 1),
            Err(GivenUp::Stopped) => return None,
            Err(GivenUp::Stall(stalled)) => {
                let scenario = canary.name.to_owned();
                let stuck = StuckRun {
                    place: None,
                    scenario,
                    seed: stalled.seed,
                    after: stalled.after,
                    doing: stalled.doing,
                };
                told(SweepEvent::Stuck(&stuck));
                book.give_up(stuck);
                None
            }
        };
        let canary = Canary { scenario: canary.name.to_owned(), found_in };
        told(SweepEvent::Canary(&canary));
        Some(canary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_of_a_shard_are_counted_as_they_are_dealt() {
        for (runs, scenarios, shards) in [(0, 3, 2), (1, 3, 2), (20, 3, 4), (57, 5, 7), (100, 1, 1)] {
            for shard in 1..=shards {
                let sweep = Sweep { shard: (shard, shards), ..Sweep::new(&[], None) };
                let dealt = (0..runs).filter(|at| sweep.is_mine(*at, scenarios)).count() as u64;
                assert_eq!(
                    sweep.count_mine(runs, scenarios),
                    dealt,
                    "{shard}/{shards} of {runs}, {scenarios}"
                );
            }
        }
    }
}
