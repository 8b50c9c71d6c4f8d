//! Shrinks a failing run: less work, fewer kinds of fault, hosts and faults, milder faults, fewer moments.
//!
//! A simpler run counts only if *the same property* breaks; otherwise a shrinker drifts from the failure that was found
//! to one that is easier to trigger.
//!
//! | module | concept |
//! | --- | --- |
//! | `proposer` | which runs to try, in which order: a pure machine |
//! | `pieces`, `milder`, `moments` | plans with fewer, milder and simultaneous faults |
//!
//! Threads make the next proposals ahead, as if those before held, since most do. Results are taken in the order of the
//! proposals, and a run that was made for nothing isn't counted: the result is the same for any number of threads.

mod milder;
mod moments;
mod pieces;
mod proposer;

use crate::lab::parallel::in_order;
use crate::lab::plan::Plan;
use crate::lab::scenario::{Options, Report, Scenario};
use crate::lab::stall::{PATIENCE, attended};
use crate::world::property::{PropertyKind, Violation};
use proposer::{Judged, Proposer};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;

/// The default limit of a shrink's runs: some minutes.
pub const RUNS: u32 = 400;

/// A failing run after shrinking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest run that still fails; its options name the plan and the scheduler's seed.
    pub report: Report,
    /// The number of faults in the original run.
    pub faults_before: usize,
    /// Reduced knobs: name, value before, value after.
    pub knobs: Vec<(&'static str, u64, u64)>,
    /// Runs that the shrink took.
    pub runs: u32,
    /// Whether the shrink stopped because the runs were used up.
    pub gave_up: bool,
}

impl Shrunk {
    /// The number of faults left.
    pub fn faults_after(&self) -> usize {
        self.report.options.plan.as_ref().map_or(0, Plan::len)
    }
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults → {}", self.faults_before, self.faults_after())?;
        for (name, before, after) in &self.knobs {
            write!(f, ", {name} {before} → {after}")?;
        }
        write!(f, ", in {} runs", self.runs)?;
        f.write_str(if self.gave_up { " (the limit)" } else { "" })
    }
}

/// The identity of the failure to preserve.
struct Target {
    kind: PropertyKind,
    property: String,
}

impl Target {
    fn is(&self, broken: &Violation) -> bool {
        broken.kind == self.kind && broken.property == self.property
    }
}

/// Shrinks failing runs of a scenario.
#[derive(Debug, Clone)]
pub struct Shrinker {
    /// The scenario.
    pub scenario: Scenario,
    /// The most runs to make.
    pub runs: u32,
    /// The number of threads. The result doesn't depend on it.
    pub jobs: usize,
    /// The real time after which a run in which no poll returns is given up; it counts as one that holds.
    pub patience: Duration,
}

impl Shrinker {
    /// Shrinks in at most `runs` runs, with a thread for each core.
    pub fn new(scenario: Scenario, runs: u32) -> Shrinker {
        let jobs = available_parallelism().map_or(1, usize::from);
        Shrinker { scenario, runs, jobs, patience: PATIENCE }
    }

    /// Shrinks a failing run, and reports each step to `told`. The report of a run that held is returned without
    /// shrinking.
    pub fn shrink(&self, failing: &Report, told: &mut dyn FnMut(&str)) -> Shrunk {
        let plan = failing.plan.as_ref().map(|started| started.plan.clone());
        let faults_before = plan.as_ref().map_or(0, Plan::len);
        let mut best = failing.clone();
        best.options.plan = plan;
        best.options.scheduler_seed = Some(failing.scheduler_seed);
        let Err(broken) = &failing.verdict else {
            return Shrunk { report: best, faults_before, knobs: Vec::new(), runs: 0, gave_up: false };
        };
        let target = Target { kind: broken.kind, property: broken.property.clone() };
        let mut proposer = Proposer::new(self.scenario.knobs, best.options.clone(), idle(failing));
        let (mut runs, mut gave_up) = (0, false);
        loop {
            let ahead = proposals(&proposer, self.jobs);
            if ahead.is_empty() {
                break;
            }
            if runs == self.runs {
                gave_up = true;
                break;
            }
            let ahead = &ahead[..ahead.len().min((self.runs - runs) as usize)];
            for report in in_order(self.jobs, ahead, |options| self.run(options)) {
                runs += 1;
                proposer.propose();
                let Some(report) =
                    report.filter(|report| report.verdict.as_ref().is_err_and(|b| target.is(b)))
                else {
                    proposer.judged(Judged::Holds);
                    continue;
                };
                proposer.judged(Judged::Fails { idle: idle(&report) });
                if let Some(step) = self.step(&best, &report) {
                    told(&format!("{step} after {runs} runs"));
                }
                best = report;
                // The further proposals were for the case that this one holds.
                break;
            }
        }
        let knobs = self.scenario.knobs.iter().filter_map(|knob| {
            let of = |report: &Report| self.scenario.knob(knob, &report.options);
            (of(failing) != of(&best)).then_some((knob.name, of(failing), of(&best)))
        });
        Shrunk { faults_before, knobs: knobs.collect(), runs, gave_up, report: best }
    }

    /// Makes a run; `None` if it stands still.
    fn run(&self, options: &Options) -> Option<Report> {
        let (scenario, options) = (self.scenario, options.clone());
        attended(self.patience, &AtomicBool::new(false), move || scenario.run(&options)).ok()
    }

    /// What has become less; `None` if faults only became milder.
    fn step(&self, before: &Report, after: &Report) -> Option<String> {
        let branches = |report: &Report| report.options.recipe.branches().len();
        let faults = |report: &Report| report.options.plan.as_ref().map_or(0, Plan::len);
        if branches(after) < branches(before) {
            return Some(format!("{} branches left", branches(after)));
        }
        if faults(after) < faults(before) {
            return Some(format!("{} faults left", faults(after)));
        }
        let value = |knob, report: &Report| self.scenario.knob(knob, &report.options);
        let turned = self.scenario.knobs.iter().find(|knob| value(knob, after) < value(knob, before));
        turned.map(|knob| format!("{} {}", knob.name, value(knob, after)))
    }
}

/// The next proposals, as many as there are threads, if all of them hold.
fn proposals(proposer: &Proposer, jobs: usize) -> Vec<Options> {
    let mut ahead = proposer.clone();
    let mut proposals = Vec::new();
    while proposals.len() < jobs.max(1) {
        let Some(options) = ahead.propose() else { break };
        ahead.judged(Judged::Holds);
        proposals.push(options);
    }
    proposals
}

/// The faults that have never begun, by number.
fn idle(report: &Report) -> BTreeSet<usize> {
    report.plan.as_ref().map_or(BTreeSet::new(), |started| started.idle.clone())
}
