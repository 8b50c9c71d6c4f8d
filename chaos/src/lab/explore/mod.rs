//! Guided exploration: runs that branch from runs that reached something new.
//!
//! A sweep draws each run anew, so a failure that needs two rare steps in a row takes as many runs as the product of both
//! says. An exploration notes what its runs reach ([`Novelty`]), and makes further runs that are the same up to such a place
//! and others from there on ([`Recipe`](crate::Recipe)): then the second step takes only as many runs as it alone needs.
//!
//! What it is worth depends on the bug: four times fewer runs for two steps of 1:16 each, nothing if the first step is one that
//! most runs take, or if chance alone decides. `cargo bench -p chaos --bench explore` measures bugs of ten kinds; the
//! crate's README has the table.
//!
//! The runs are a function of the start: they are chosen in rounds of [`ROUND`], from what the rounds before have reached,
//! so that the result doesn't depend on the threads.

mod corpus;

use crate::lab::parallel::in_order;
use crate::lab::scenario::{Options, Purpose, Report, Scenario};
use crate::lab::stall::{GivenUp, PATIENCE, StalledRun, attended};
use crate::world::novelty::{Novelties, Novelty};
use crate::world::property::PropertyKind;
use crate::world::watch::RecordingOptions;
use corpus::Corpus;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs that are chosen at once: enough for the threads of a usual machine, few enough that none is chosen without what the
/// runs before it have shown.
pub const ROUND: u64 = 8;

/// An exploration to be made.
#[derive(Clone)]
pub struct Explorer {
    /// The scenario. Of a canary the planted bug counts as a failure.
    pub scenario: Scenario,
    /// The number of runs.
    pub runs: u64,
    /// The first blind seed, which also decides all choices.
    pub start: u64,
    /// The number of threads, at most [`ROUND`].
    pub jobs: usize,
    /// Knobs that aren't at their default.
    pub knobs: BTreeMap<String, u64>,
    /// Targets of log lines whose pairs count as something to reach; see [`RecordingOptions::logs`].
    pub logs: &'static [&'static str],
    /// Real time without a poll after which a single run is given up.
    pub patience: Duration,
    /// Ends the exploration when it becomes true.
    pub stop: Arc<AtomicBool>,
}

/// What happens in an exploration.
#[derive(Debug)]
pub enum ExploreEvent<'a> {
    /// A run has come to its end.
    Run {
        /// Its number, from 1 on.
        number: u64,
        /// Its report.
        report: &'a Report,
        /// What it reached as the first.
        new: &'a [Novelty],
        /// If it is a failure, how often its property has broken by now.
        times: Option<u64>,
    },
    /// A run was given up.
    Stuck(&'a StuckBranch),
}

/// A run that was given up, because one of its polls didn't return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckBranch {
    /// Its inputs.
    pub options: Options,
    /// Real time without a poll.
    pub after: Duration,
    /// The task that was being polled.
    pub doing: String,
}

/// A property that broke.
#[derive(Debug, Clone)]
pub struct BrokenInRuns {
    /// The first run that broke it.
    pub first: Box<Report>,
    /// The number of that run, from 1 on.
    pub number: u64,
    /// How often it broke.
    pub times: u64,
}

/// The result of an exploration.
#[derive(Debug, Clone, Default)]
pub struct Exploration {
    /// Runs made, without those that were given up.
    pub runs: u64,
    /// Runs that branched from another.
    pub branched: u64,
    /// Virtual time of all runs.
    pub elapsed: Duration,
    /// What has been reached, each with the number of the first run.
    pub reached: BTreeMap<Novelty, u64>,
    /// How much had been reached after so many runs, whenever it became more.
    pub history: Vec<(u64, usize)>,
    /// Each property that broke, in the order of their first runs.
    pub found: Vec<BrokenInRuns>,
    /// Runs that were given up.
    pub stuck: Vec<StuckBranch>,
    /// Marks of the scenario that no run reached, although the runs sufficed.
    pub missing: Vec<&'static str>,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// Real time that it took.
    pub took: Duration,
}

impl Exploration {
    /// The most severe kind of property that broke. A run that was given up broke liveness.
    pub fn gravest(&self) -> Option<PropertyKind> {
        let stuck = self.stuck.first().map(|_| PropertyKind::Liveness);
        let broken = self.found.iter().filter_map(|found| found.first.verdict.as_ref().err());
        broken.map(|broken| broken.kind).chain(stuck).min()
    }
}

/// The end of a run.
type Ended = Result<(Report, Novelties), GivenUp>;

impl Explorer {
    /// An exploration of so many runs from seed 1 on, on one thread.
    pub fn new(scenario: Scenario, runs: u64) -> Explorer {
        Explorer {
            scenario,
            runs,
            start: 1,
            jobs: 1,
            knobs: BTreeMap::new(),
            logs: &[],
            patience: PATIENCE,
            stop: Arc::default(),
        }
    }

    /// Makes the runs, and tells what happens. It ends before all are made if `told` sets `stop`.
    pub fn run(&self, told: &mut dyn FnMut(ExploreEvent<'_>)) -> Exploration {
        let begun = Instant::now();
        let mut corpus = Corpus::new(self.start, self.knobs.clone());
        let mut result = Exploration::default();
        let mut number = 0;
        while number < self.runs && !self.is_stopped() {
            let round: Vec<Options> =
                (number..self.runs.min(number + ROUND)).map(|_| corpus.next()).collect();
            for (options, ended) in round.iter().zip(self.make(&round)) {
                number += 1;
                match ended {
                    Ok((report, novelties)) => {
                        let new = corpus.add(number, &report, novelties);
                        if !new.is_empty() {
                            result.history.push((number, corpus.len()));
                        }
                        let times = self.enter(&mut result, number, &report);
                        told(ExploreEvent::Run { number, report: &report, new: &new, times });
                    }
                    Err(GivenUp::Stall(StalledRun { after, doing, .. })) => {
                        let stuck = StuckBranch { options: options.clone(), after, doing };
                        told(ExploreEvent::Stuck(&stuck));
                        result.stuck.push(stuck);
                    }
                    Err(GivenUp::Stopped) => {}
                }
            }
        }
        result.interrupted = self.is_stopped() && number < self.runs;
        result.reached = corpus.into_reached();
        let is_missing = |mark: &crate::lab::scenario::Mark| {
            result.runs >= u64::from(mark.within) && !result.reached.contains_key(&Novelty::Mark(mark.name))
        };
        result.missing = self.scenario.all_marks().filter(is_missing).map(|mark| mark.name).collect();
        result.took = begun.elapsed();
        result
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes the runs of a round; returns their ends in its order.
    fn make(&self, round: &[Options]) -> Vec<Ended> {
        in_order(self.jobs, round, |options| self.one(options.clone()))
    }

    fn one(&self, options: Options) -> Ended {
        let (scenario, logs) = (self.scenario, self.logs);
        attended(self.patience, &self.stop, move || {
            let watching = RecordingOptions { logs, novelties: true, ..RecordingOptions::default() };
            let (report, seen) = scenario.run_watched(&options, &watching).expect("no file is asked for");
            (report, seen.novelties)
        })
    }

    /// Counts a run. Returns how often its property has broken by now; `None` if it isn't a failure.
    fn enter(&self, result: &mut Exploration, number: u64, report: &Report) -> Option<u64> {
        result.runs += 1;
        result.branched += u64::from(!report.options.recipe.is_empty());
        result.elapsed += report.elapsed;
        let broken = report.verdict.as_ref().err()?;
        // An observation may break liveness, but no other property.
        if self.scenario.purpose == Purpose::Observation && broken.kind == PropertyKind::Liveness {
            return None;
        }
        let is_same = |found: &&mut BrokenInRuns| {
            let first = found.first.verdict.as_ref().err();
            first.is_some_and(|first| first.kind == broken.kind && first.property == broken.property)
        };
        if let Some(found) = result.found.iter_mut().find(is_same) {
            found.times += 1;
            return Some(found.times);
        }
        result.found.push(BrokenInRuns { first: Box::new(report.clone()), number, times: 1 });
        Some(1)
    }
}
