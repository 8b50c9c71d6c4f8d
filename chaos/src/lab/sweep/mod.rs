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

mod book;
mod deal;

use crate::lab::scenario::{Options, Purpose, Report, Scenario};
use crate::lab::story::not_reproducible;
use crate::world::property::PropertyKind;
use book::Book;
use deal::Deal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The default real time after which a run is given up: the slowest takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

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
    /// Real time after which a single run is given up.
    pub patience: Duration,
    /// Knobs that aren't at their default; a scenario takes those that it has.
    pub knobs: BTreeMap<String, u64>,
}

/// The counters of a sweep for one scenario.
#[derive(Debug, Clone, Default)]
pub struct ScenarioCounts {
    /// Runs made.
    pub runs: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Virtual time of all of them.
    pub elapsed: Duration,
    /// In how many runs each mark was reached.
    pub marks: BTreeMap<&'static str, u64>,
}

/// A failure that was not seen before in the sweep.
#[derive(Debug, Clone)]
pub struct Found {
    /// The scenario.
    pub scenario: Scenario,
    /// The run.
    pub report: Report,
    /// How often the same property of the same scenario broke.
    pub times: u64,
}

/// A run that was given up, because it blocked or looped without advancing virtual time. Its thread is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckRun {
    /// The scenario.
    pub name: &'static str,
    /// The seed.
    pub seed: u64,
    /// Real time after which it was given up.
    pub after: Duration,
}

/// The result of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// Its scenario.
    pub name: &'static str,
    /// The number of the run that found its bug, from 1 on; `None` if none did.
    pub found_in: Option<u64>,
}

/// The progress of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Runs made.
    pub runs: u64,
    /// Runs to be made, if that is known.
    pub of: Option<u64>,
    /// Runs that failed.
    pub failures: u64,
    /// Real time since the beginning.
    pub took: Duration,
    /// Virtual time of all runs.
    pub elapsed: Duration,
    /// Marks reached, and all marks.
    pub marks: (usize, usize),
}

/// The result of a sweep.
#[derive(Debug, Clone)]
pub struct SweepReport {
    /// The counters by scenario.
    pub tallies: BTreeMap<&'static str, ScenarioCounts>,
    /// Each failure once: the first of its scenario and property.
    pub found: Vec<Found>,
    /// Runs that were given up.
    pub stuck: Vec<StuckRun>,
    /// The canaries.
    pub canaries: Vec<Canary>,
    /// Marks that no run reached, although the runs sufficed: the scenario, the mark, its runs.
    pub missing: Vec<(&'static str, &'static str, u64)>,
    /// Marks that no run reached, but with too few runs to mean anything.
    pub unsure: Vec<(&'static str, &'static str, u64)>,
    /// Scenarios that had no run. Empty for one of several shards, because a shard may have no run of a scenario.
    pub unrun: Vec<&'static str>,
    /// Runs that were not made, because the time was over.
    pub skipped: u64,
    /// Real time that it took.
    pub took: Duration,
}

impl SweepReport {
    /// Runs made.
    pub fn runs(&self) -> u64 {
        self.tallies.values().map(|tally| tally.runs).sum()
    }

    /// Virtual time of all runs.
    pub fn elapsed(&self) -> Duration {
        self.tallies.values().map(|tally| tally.elapsed).sum()
    }

    /// The most severe kind of property that broke. A run that was given up broke liveness.
    pub fn gravest(&self) -> Option<PropertyKind> {
        let stuck = self.stuck.first().map(|_| PropertyKind::Liveness);
        self.found
            .iter()
            .filter_map(|found| found.report.verdict.as_ref().err())
            .map(|broken| broken.kind)
            .chain(stuck)
            .min()
    }

    /// Whether the sweep is vacuous: it proved less than it seems.
    pub fn is_vacuous(&self) -> bool {
        let unfound = self.canaries.iter().any(|canary| canary.found_in.is_none());
        let nothing = self.runs() == 0 && (!self.tallies.is_empty() || self.canaries.is_empty());
        unfound || nothing || !self.unrun.is_empty() || !self.missing.is_empty()
    }
}

impl Sweep {
    /// Makes the runs, and reports the progress to `told` at intervals.
    pub fn run(&self, told: &mut dyn FnMut(&Progress)) -> SweepReport {
        let begun = Instant::now();
        let (canaries, scenarios): (Vec<Scenario>, Vec<Scenario>) =
            self.scenarios.iter().copied().partition(|scenario| scenario.purpose == Purpose::Canary);
        let canaries = canaries.iter().map(|canary| self.look_for(canary)).collect();
        let mut book = Book::new(&scenarios);
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
        first.run(&mut book, told);
        if let (Some(all), Some(done)) = (self.runs, dealt) {
            let wanting = book.wanting();
            let second = Deal {
                sweep: self.clone(),
                scenarios: if wanting.is_empty() { scenarios.clone() } else { wanting },
                place: done,
                number: done.div_ceil((scenarios.len() as u64).max(1)),
                runs: Some(all - done),
                begun,
            };
            second.run(&mut book, told);
        }
        told(&book.progress(begun.elapsed()));
        book.close(canaries, self.shard.1 > 1, begun.elapsed())
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

    fn options(&self, scenario: &Scenario, number: u64) -> Options {
        let has = |name: &String| scenario.knobs.iter().any(|knob| knob.name == name);
        let knobs = self.knobs.iter().filter(|(name, _)| has(name)).map(|(k, v)| (k.clone(), *v)).collect();
        Options { knobs, ..Options::seed(self.start.wrapping_add(number)) }
    }

    fn one(&self, scenario: &Scenario, number: u64) -> Report {
        let options = self.options(scenario, number);
        let mut report = scenario.run(&options);
        if number == 0 {
            let again = scenario.run(&options);
            if again != report {
                report.verdict = Err(not_reproducible(&report, &again));
            }
        }
        report
    }

    fn look_for(&self, canary: &Scenario) -> Canary {
        let fails = |number: &u64| canary.run(&self.options(canary, *number)).verdict.is_err();
        let found_in = (0..CANARY_RUNS).find(fails).map(|number| number + 1);
        Canary { name: canary.name, found_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_of_a_shard_are_counted_as_they_are_dealt() {
        for (runs, scenarios, shards) in [(0, 3, 2), (1, 3, 2), (20, 3, 4), (57, 5, 7), (100, 1, 1)] {
            for shard in 1..=shards {
                let sweep = Sweep {
                    scenarios: Vec::new(),
                    runs: None,
                    start: 1,
                    jobs: 1,
                    shard: (shard, shards),
                    limit: None,
                    patience: PATIENCE,
                    knobs: BTreeMap::new(),
                };
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
