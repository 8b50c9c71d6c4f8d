//! `explore`: runs that branch from runs that reached something new, and a report of them.

use std::sync::atomic::Ordering;
use std::thread::available_parallelism;

use crate::lab::explore::{BrokenInRuns, Exploration, ExploreEvent, Explorer};
use crate::lab::scenario::Report;
use crate::lab::story::{Teller, save};
use crate::lab::sweep::SEEDS_LISTED;
use crate::world::novelty::Novelty;
use serde::Serialize;

use super::Program;
use super::args::{self, Usage};
use super::exit;
use super::failure::{Failed, FailureTeller, STORIES};
use super::line::{self, RunLine, StuckLine};
use super::sweep::stop_at_signals;
use super::sweep_report::rate;

#[derive(Serialize)]
struct NewLine {
    event: &'static str,
    run: u64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    new: Vec<String>,
}

#[derive(Serialize)]
struct ExplorationLine<'a> {
    event: &'static str,
    scenario: &'a str,
    runs: u64,
    branched: u64,
    reached: usize,
    failures: usize,
    /// Runs and what they had reached, whenever it became more.
    history: &'a [(u64, usize)],
    missing_marks: &'a [&'static str],
    interrupted: bool,
    real_seconds: f64,
    exit: u8,
}

pub(crate) fn explore(program: &Program<'_>, args: &args::Explore) -> Result<u8, Usage> {
    let scenario = program.scenario(&args.scenario)?;
    let explorer = Explorer {
        start: args.start,
        jobs: args.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from),
        knobs: args::knobs(program, &args.set, &[scenario])?,
        logs: program.logs,
        patience: args.patience.real(),
        ..Explorer::new(scenario, args.runs)
    };
    stop_at_signals(&explorer.stop).map_err(|error| format!("can't listen to signals: {error}"))?;
    let mut witness = ExploreWitness { teller: args.out.teller(program), json: args.json, unwritten: None };
    let explored = explorer.run(&mut |event| {
        witness.see(&event);
        if witness.unwritten.is_some() {
            explorer.stop.store(true, Ordering::Relaxed);
        }
    });
    let mut gravest = explored.gravest();
    let told = FailureTeller {
        teller: &witness.teller,
        json: args.json,
        shrink_runs: args.shrink_runs,
        jobs: explorer.jobs,
        patience: explorer.patience,
        stop: &explorer.stop,
    };
    for found in explored.found.iter().take(if explored.interrupted { 0 } else { STORIES }) {
        let report = (*found.first).clone();
        let kind = report.verdict.as_ref().err().map(|broken| broken.kind);
        match told.tell(Failed { scenario, run: report.options.named(), kind, report: move || report }) {
            Ok(kind) => gravest = gravest.min(Some(kind)),
            Err(why) => witness.unwritten = witness.unwritten.or(Some(why)),
        }
    }
    let code = match (&witness.unwritten, gravest) {
        (Some(_), _) => exit::USAGE,
        (None, Some(kind)) => exit::of(kind),
        (None, None) if explored.interrupted => exit::INTERRUPTED,
        (None, None) if !explored.missing.is_empty() => exit::VACUOUS,
        (None, None) => exit::HELD,
    };
    print(args.json, &explorer, &explored, code);
    witness.unwritten.map_or(Ok(code), |why| Err(format!("a file could not be written: {why}")))
}

/// Tells what happens in an exploration when it happens.
struct ExploreWitness {
    teller: Teller,
    json: bool,
    /// Why a file could not be written.
    unwritten: Option<String>,
}

impl ExploreWitness {
    fn see(&mut self, event: &ExploreEvent<'_>) {
        match event {
            ExploreEvent::Run { number, report, new, times } => {
                if !new.is_empty() && self.json {
                    let Report { options, .. } = report;
                    line::print(&NewLine {
                        event: "new",
                        run: *number,
                        seed: options.seed,
                        recipe: (!options.recipe.is_empty()).then(|| options.recipe.to_string()),
                        new: new.iter().map(Novelty::to_string).collect(),
                    });
                }
                if let Some(times) = times {
                    self.failed(*number, report, *times);
                }
            }
            ExploreEvent::Stuck(stuck) if self.json => {
                line::print(&StuckLine::of(None, stuck.options.seed, stuck.after, &stuck.doing));
            }
            ExploreEvent::Stuck(stuck) => eprintln!(
                "GIVEN UP: {}: no poll has returned for {:.0?} of real time; {}",
                stuck.options.named(),
                stuck.after,
                stuck.doing
            ),
        }
    }

    /// A run has failed; its property has broken so many times by now.
    fn failed(&mut self, number: u64, report: &Report, times: u64) {
        let Err(broken) = &report.verdict else { return };
        let bundle = if times <= SEEDS_LISTED as u64 { save(&self.teller, report) } else { Ok(None) };
        let bundle = bundle.unwrap_or_else(|error| {
            self.unwritten.get_or_insert(error.to_string());
            None
        });
        if self.json {
            line::print(&RunLine::of("failed", report, bundle.map(|folder| folder.display().to_string())));
        } else {
            let (name, run) = (report.scenario, report.options.named());
            eprintln!("FAILED {name} in run {number}, with {run}: {broken}");
        }
    }
}

fn print(json: bool, explorer: &Explorer, explored: &Exploration, code: u8) {
    let name = explorer.scenario.name;
    if json {
        line::print(&ExplorationLine {
            event: "exploration",
            scenario: name,
            runs: explored.runs,
            branched: explored.branched,
            reached: explored.reached.len(),
            failures: explored.found.len(),
            history: &explored.history,
            missing_marks: &explored.missing,
            interrupted: explored.interrupted,
            real_seconds: explored.took.as_secs_f64(),
            exit: code,
        });
        return;
    }
    println!("{:>8} {:>8}", "runs", "reached");
    for (runs, reached) in by_doublings(&explored.history, explored.runs) {
        println!("{runs:>8} {reached:>8}");
    }
    for (novelty, run) in &explored.reached {
        if let Novelty::Mark(mark) = novelty {
            println!("reached in run {run}: {mark}");
        }
    }
    for mark in &explored.missing {
        println!("NOT REACHED: {mark}");
    }
    for BrokenInRuns { first, number, times } in &explored.found {
        if let Err(broken) = &first.verdict {
            println!("FAILED {times} times, first in run {number}: {name}: {broken}");
            println!("  with {}", first.options.named());
        }
    }
    if explored.interrupted {
        println!("interrupted after {} of {} runs", explored.runs, explorer.runs);
    }
    println!(
        "{} runs, {} of them branches, from seed {} on in {:.0} s on {} threads: {:.1} runs/s; {}",
        explored.runs,
        explored.branched,
        explorer.start,
        explored.took.as_secs_f64(),
        explorer.jobs,
        rate(explored.runs as f64, explored.took),
        match code {
            exit::HELD => "clean",
            exit::INTERRUPTED => "interrupted",
            exit::VACUOUS => "vacuous: it proved less than it seems",
            _ => "failed",
        }
    );
}

/// What had been reached after 1, 2, 4, … runs, and after all.
fn by_doublings(history: &[(u64, usize)], runs: u64) -> Vec<(u64, usize)> {
    let doublings = (0..64).map(|n| 1 << n).take_while(|at| *at < runs).chain([runs]);
    let reached =
        |at: u64| history.iter().rev().find(|(run, _)| *run <= at).map_or(0, |(_, reached)| *reached);
    doublings.map(|at| (at, reached(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_is_told_by_doublings() {
        let history = [(1, 10), (3, 12), (9, 13)];
        assert_eq!(by_doublings(&history, 11), [(1, 10), (2, 10), (4, 12), (8, 12), (11, 13)]);
    }
}
