//! Many runs: deals seeds over scenarios and threads, counts what happened, and says what it did.
//!
//! A sweep can fail in two ways. A property breaks; or it proved less than it seems: a mark was not reached in as many
//! runs as should reach it, or the canary's planted bug was not found. The second is called *vacuous*, and a sweep says
//! of it as loudly as of the first.
//!
//! Runs are dealt round robin: scenario after scenario with one seed, then all of them with the next. The last quarter
//! goes to the scenarios that have not reached all of their marks by then, so that a large sweep can tell a rare path
//! from one that nothing takes. Canaries come first, until each has been found, and don't count. The first seed of
//! each scenario is run twice and has to be the same again. Which runs are made depends on the seeds and the shard
//! alone, not on the threads.

use crate::property::{Broken, Kind};
use crate::scenario::{Options, Purpose, Report, Scenario};
use crate::story::not_reproducible;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Runs in which a canary's bug must be found.
pub const CANARY_RUNS: u64 = 100;

/// How often a sweep tells how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// A sweep to be made.
#[derive(Clone)]
pub struct Sweep {
    /// The scenarios over which runs are dealt; canaries among them are looked for besides.
    pub scenarios: Vec<Scenario>,
    /// Runs in all; none goes on until the time is over.
    pub runs: Option<u64>,
    /// The first seed.
    pub start: u64,
    /// Threads.
    pub jobs: usize,
    /// Which part of the runs to make, of how many: `(1, 1)` is all of them.
    pub shard: (u64, u64),
    /// After this no further run is begun.
    pub limit: Option<Duration>,
    /// Knobs that aren't at their default; a scenario takes those that it has.
    pub knobs: BTreeMap<String, u64>,
}

/// What a sweep counted of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Tally {
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

/// What became of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// Its scenario.
    pub name: &'static str,
    /// In which of its runs it was found, from 1 on.
    pub found_in: Option<u64>,
}

/// How far a sweep is.
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
    /// Marks reached, of how many.
    pub marks: (usize, usize),
}

/// What a sweep did.
#[derive(Debug, Clone)]
pub struct Swept {
    /// By scenario.
    pub tallies: BTreeMap<&'static str, Tally>,
    /// Each failure once: the first of its scenario and property.
    pub found: Vec<Found>,
    /// The canaries.
    pub canaries: Vec<Canary>,
    /// Marks that too many runs missed: the scenario, the mark, its runs.
    pub missing: Vec<(&'static str, &'static str, u64)>,
    /// Marks that were missed in too few runs to mean anything.
    pub unsure: Vec<(&'static str, &'static str, u64)>,
    /// Runs that it was to make and didn't, because the time was over.
    pub skipped: u64,
    /// Real time that it took.
    pub took: Duration,
}

impl Swept {
    /// Runs made.
    pub fn runs(&self) -> u64 {
        self.tallies.values().map(|tally| tally.runs).sum()
    }

    /// Virtual time of all runs.
    pub fn elapsed(&self) -> Duration {
        self.tallies.values().map(|tally| tally.elapsed).sum()
    }

    /// The gravest kind of property that broke.
    pub fn gravest(&self) -> Option<Kind> {
        self.found
            .iter()
            .filter_map(|found| found.report.verdict.as_ref().err())
            .map(|broken| broken.kind)
            .min()
    }

    /// Whether it proved less than it seems.
    pub fn is_vacuous(&self) -> bool {
        let unfound = self.canaries.iter().any(|canary| canary.found_in.is_none());
        let nothing = self.runs() == 0 && (self.skipped > 0 || self.canaries.is_empty());
        unfound || nothing || !self.missing.is_empty()
    }
}

impl Sweep {
    /// Makes the runs; `told` hears now and then how far it is.
    pub fn run(&self, told: &mut dyn FnMut(&Progress)) -> Swept {
        let begun = Instant::now();
        let (canaries, scenarios): (Vec<Scenario>, Vec<Scenario>) =
            self.scenarios.iter().copied().partition(|scenario| scenario.purpose == Purpose::Canary);
        let canaries = canaries.iter().map(|canary| self.look_for(canary)).collect();
        let mut book = Book::new(&scenarios);
        // Every scenario at least once.
        let rounds = |runs: u64| (runs / 4 * 3 / (scenarios.len() as u64).max(1)).max(1);
        let first = Phase {
            scenarios: scenarios.clone(),
            place: 0,
            number: 0,
            runs: self.runs.map(|runs| runs.min(rounds(runs) * scenarios.len() as u64)),
        };
        self.phase(&first, begun, &mut book, told);
        if let (Some(all), Some(done)) = (self.runs, first.runs) {
            let wanting = book.wanting();
            let second = Phase {
                scenarios: if wanting.is_empty() { scenarios.clone() } else { wanting },
                place: done,
                number: done.div_ceil((scenarios.len() as u64).max(1)),
                runs: Some(all - done),
            };
            self.phase(&second, begun, &mut book, told);
        }
        told(&book.progress(begun.elapsed()));
        book.close(canaries, begun.elapsed())
    }

    /// Deals a part of the runs.
    fn phase(&self, phase: &Phase, begun: Instant, book: &mut Book<'_>, told: &mut dyn FnMut(&Progress)) {
        let count = phase.scenarios.len() as u64;
        if count == 0 {
            return;
        }
        let last = phase.runs.unwrap_or(u64::MAX);
        let mine = phase.runs.map(|runs| (0..runs).filter(|at| self.is_mine(*at, count)).count() as u64);
        book.expect(mine);
        let is_over = || self.limit.is_some_and(|limit| begun.elapsed() >= limit);
        let next = AtomicU64::new(0);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|threads| {
            let (next, is_over) = (&next, &is_over);
            for _ in 0..self.jobs.max(1) {
                let sender = sender.clone();
                threads.spawn(move || {
                    while !is_over() {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= last {
                            break;
                        }
                        if self.is_mine(at, count) {
                            let scenario = &phase.scenarios[(at % count) as usize];
                            let report = self.one(scenario, phase.number + at / count);
                            let _ = sender.send((phase.place + at, report));
                        }
                    }
                });
            }
            drop(sender);
            let mut told_at = begun;
            for (at, report) in receiver {
                book.enter(at, report);
                if told_at.elapsed() >= TOLD_EVERY {
                    told_at = Instant::now();
                    told(&book.progress(begun.elapsed()));
                }
            }
        });
    }

    /// Whether the run at this place is a part of the shard. Neighbours of one seed go to different shards, so that
    /// each shard sees every scenario.
    fn is_mine(&self, at: u64, scenarios: u64) -> bool {
        let (shard, shards) = self.shard;
        let scenarios = scenarios.max(1);
        (at / scenarios + at % scenarios) % shards.max(1) + 1 == shard
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

/// A part of a sweep's runs.
struct Phase {
    scenarios: Vec<Scenario>,
    /// Runs dealt before it.
    place: u64,
    /// Seeds that every scenario had before it.
    number: u64,
    runs: Option<u64>,
}

/// What is counted while the runs come in.
struct Book<'a> {
    /// Runs to be made, if that is known.
    of: Option<u64>,
    scenarios: &'a [Scenario],
    tallies: BTreeMap<&'static str, Tally>,
    /// The first failure by its place in the sweep, of each scenario and property.
    found: BTreeMap<(&'static str, Kind, String), (u64, Found)>,
}

impl<'a> Book<'a> {
    fn new(scenarios: &'a [Scenario]) -> Book<'a> {
        let tally = |scenario: &Scenario| {
            let marks = scenario.marks.iter().map(|mark| (mark.name, 0)).collect();
            (scenario.name, Tally { marks, ..Tally::default() })
        };
        Book {
            of: Some(0),
            scenarios,
            tallies: scenarios.iter().map(tally).collect(),
            found: BTreeMap::new(),
        }
    }

    /// So many more runs are to be made.
    fn expect(&mut self, runs: Option<u64>) {
        self.of = self.of.zip(runs).map(|(before, more)| before + more);
    }

    /// The scenarios that have not reached all of their marks.
    fn wanting(&self) -> Vec<Scenario> {
        let wants =
            |scenario: &&Scenario| self.tallies[scenario.name].marks.values().any(|count| *count == 0);
        self.scenarios.iter().filter(wants).copied().collect()
    }

    fn enter(&mut self, at: u64, report: Report) {
        let scenario = self.scenarios.iter().find(|scenario| scenario.name == report.scenario);
        let (Some(scenario), Some(tally)) = (scenario, self.tallies.get_mut(report.scenario)) else { return };
        tally.runs += 1;
        tally.elapsed += report.elapsed;
        for mark in &report.marks {
            *tally.marks.entry(mark).or_default() += 1;
        }
        let Err(Broken { kind, property, .. }) = &report.verdict else { return };
        // Of an observation nothing is asserted, but it must be the same again.
        if scenario.purpose == Purpose::Observation && *kind != Kind::Reproducibility {
            return;
        }
        tally.failures += 1;
        let identity = (scenario.name, *kind, property.clone());
        let first = self
            .found
            .entry(identity)
            .or_insert_with(|| (at, Found { scenario: *scenario, report: report.clone(), times: 0 }));
        first.1.times += 1;
        // Threads are not in step: the first is the one with the lowest seed.
        if at < first.0 {
            *first = (at, Found { report, ..first.1.clone() });
        }
    }

    fn progress(&self, took: Duration) -> Progress {
        let all = self.tallies.values();
        let marks = all.clone().flat_map(|tally| tally.marks.values());
        Progress {
            runs: all.clone().map(|tally| tally.runs).sum(),
            of: self.of,
            failures: all.clone().map(|tally| tally.failures).sum(),
            took,
            elapsed: all.map(|tally| tally.elapsed).sum(),
            marks: (marks.clone().filter(|count| **count > 0).count(), marks.count()),
        }
    }

    fn close(self, canaries: Vec<Canary>, took: Duration) -> Swept {
        let (mut missing, mut unsure) = (Vec::new(), Vec::new());
        for scenario in self.scenarios {
            let Some(tally) = self.tallies.get(scenario.name) else { continue };
            for mark in scenario.marks.iter().filter(|mark| tally.marks.get(mark.name) == Some(&0)) {
                let enough = tally.runs >= u64::from(mark.within);
                let list = if enough { &mut missing } else { &mut unsure };
                list.push((scenario.name, mark.name, tally.runs));
            }
        }
        let mut found: Vec<(u64, Found)> = self.found.into_values().collect();
        found.sort_by_key(|(at, _)| *at);
        let runs: u64 = self.tallies.values().map(|tally| tally.runs).sum();
        Swept {
            tallies: self.tallies,
            found: found.into_iter().map(|(_, found)| found).collect(),
            canaries,
            missing,
            unsure,
            skipped: self.of.map_or(0, |of| of.saturating_sub(runs)),
            took,
        }
    }
}
