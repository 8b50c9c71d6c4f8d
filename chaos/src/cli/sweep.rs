//! `sweep`: many seeds, and a report of the runs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};
use std::thread::available_parallelism;
use std::time::Duration;

use crate::lab::scenario::Scenario;
use crate::lab::scenario::{Purpose, Report};
use crate::lab::shrink::shrink;
use crate::lab::story::explain;
use crate::lab::sweep as many;
use crate::lab::sweep::{Found, Progress, ScenarioCounts, StuckRun, SweepReport};
use crate::world::property::PropertyKind;
use serde::Serialize;

use super::Program;
use super::args::{self, Usage};
use super::exit;
use super::line::{self, RunLine};

/// The number of runs if the command line gives none.
const RUNS: u64 = 100;

/// Failures that are shrunk and explained; each further failure gets one line.
const STORIES: usize = 5;

/// Without a terminal, or with `--json`, progress is printed once in this many steps.
const QUIET_STEPS: u32 = 60;

#[derive(Serialize)]
struct ProgressLine {
    event: &'static str,
    runs: u64,
    of: Option<u64>,
    failures: u64,
    seeds_per_second: f64,
    virtual_per_real: f64,
    marks_reached: usize,
    marks: usize,
}

#[derive(Serialize)]
struct TallyLine<'a> {
    event: &'static str,
    scenario: &'a str,
    runs: u64,
    failures: u64,
    virtual_seconds: f64,
    marks: &'a BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct CanaryLine<'a> {
    event: &'static str,
    scenario: &'a str,
    found_in_run: Option<u64>,
}

#[derive(Serialize)]
struct StuckLine<'a> {
    event: &'static str,
    scenario: &'a str,
    seed: u64,
    real_seconds: f64,
}

#[derive(Serialize)]
struct SweepLine<'a> {
    event: &'static str,
    runs: u64,
    skipped: u64,
    failures: usize,
    vacuous: bool,
    unrun: &'a [&'static str],
    missing_marks: Vec<(&'a str, &'a str)>,
    real_seconds: f64,
    virtual_per_real: f64,
    exit: u8,
}

pub(crate) fn sweep(program: &Program<'_>, args: &args::Sweep) -> Result<u8, Usage> {
    let known = program.scenarios;
    let mut scenarios: Vec<Scenario> = match args.all {
        true => known.to_vec(),
        false => args.scenarios.iter().map(|name| program.scenario(name)).collect::<Result<_, _>>()?,
    };
    // Every sweep has to find the planted bugs, so it includes every canary.
    let canaries = known.iter().filter(|scenario| scenario.purpose == Purpose::Canary);
    for canary in canaries {
        if scenarios.iter().all(|scenario| scenario.name != canary.name) {
            scenarios.push(*canary);
        }
    }
    let runs = args.seeds.or_else(|| args.minutes.is_none().then_some(RUNS));
    let sweep = many::Sweep {
        runs,
        start: args.start,
        jobs: args.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from),
        shard: args.shard,
        limit: args.minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60))),
        patience: many::PATIENCE,
        knobs: args::knobs(program, &args.set, &scenarios)?,
        scenarios,
    };
    let mut teller = ProgressTeller { json: args.json, terminal: stderr().is_terminal(), step: 0 };
    let swept = sweep.run(&mut |progress| teller.tell(progress));
    teller.end();
    // A story makes the run once more, so its verdict counts too.
    let (mut gravest, mut untold) = (swept.gravest(), None);
    for found in &swept.found[..swept.found.len().min(STORIES)] {
        match tell(program, args, found) {
            Ok(kind) => gravest = gravest.min(Some(kind)),
            Err(why) => untold = untold.or(Some(why)),
        }
    }
    let code = match gravest {
        _ if untold.is_some() => exit::USAGE,
        Some(kind) => exit::of(kind),
        None if swept.is_vacuous() => exit::VACUOUS,
        None => exit::HELD,
    };
    if args.json {
        lines(&swept, code)
    } else {
        report(&sweep, &swept)
    }
    untold.map_or(Ok(code), |why| Err(format!("a bundle could not be written: {why}")))
}

fn rate(what: f64, took: Duration) -> f64 {
    what / took.as_secs_f64().max(0.001)
}

/// Reports the progress of a sweep: on one line of a terminal, else at intervals.
struct ProgressTeller {
    json: bool,
    terminal: bool,
    step: u32,
}

impl ProgressTeller {
    fn tell(&mut self, progress: &Progress) {
        self.step += 1;
        if (self.json || !self.terminal) && !self.step.is_multiple_of(QUIET_STEPS) {
            return;
        }
        let seeds_per_second = rate(progress.runs as f64, progress.took);
        let virtual_per_real = rate(progress.elapsed.as_secs_f64(), progress.took);
        let (marks_reached, marks) = progress.marks;
        if self.json {
            line::print(&ProgressLine {
                event: "progress",
                runs: progress.runs,
                of: progress.of,
                failures: progress.failures,
                seeds_per_second,
                virtual_per_real,
                marks_reached,
                marks,
            });
            return;
        }
        let of = progress.of.map_or(String::new(), |of| format!("/{of}"));
        let text = format!(
            "{}{of} runs, {} failed, {seeds_per_second:.1} seeds/s, virtual:real {virtual_per_real:.0}, marks {marks_reached}/{marks}",
            progress.runs, progress.failures
        );
        if self.terminal {
            eprint!("\r\x1b[K{text}");
            let _ = stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if self.terminal && !self.json {
            eprintln!();
        }
    }
}

/// Shrinks a failure and tells its story; returns the kind of property that the story reports broken.
fn tell(program: &Program<'_>, args: &args::Sweep, found: &Found) -> Result<PropertyKind, Usage> {
    let is_determinism =
        matches!(&found.report.verdict, Err(broken) if broken.kind == PropertyKind::Reproducibility);
    let small = (!is_determinism)
        .then(|| shrink(&found.scenario, &found.report, args.shrink_runs, &mut |step| eprintln!("{step}")));
    let story = explain(&args.out.teller(program), &found.scenario, &found.report, small.as_ref())
        .map_err(|error| error.to_string())?;
    let report = small.as_ref().map_or(&found.report, |small| &small.report);
    if args.json {
        let told = Report { verdict: Err(story.broken.clone()), ..report.clone() };
        line::print(&RunLine::of("failure", &told, Some(story.bundle.display().to_string())));
    }
    eprintln!("{}", story.text);
    Ok(story.broken.kind)
}

fn lines(swept: &SweepReport, exit: u8) {
    for (scenario, tally) in &swept.tallies {
        let ScenarioCounts { runs, failures, elapsed, marks } = tally;
        line::print(&TallyLine {
            event: "tally",
            scenario,
            runs: *runs,
            failures: *failures,
            virtual_seconds: elapsed.as_secs_f64(),
            marks,
        });
    }
    for canary in &swept.canaries {
        line::print(&CanaryLine { event: "canary", scenario: canary.name, found_in_run: canary.found_in });
    }
    for stuck in &swept.stuck {
        let real_seconds = stuck.after.as_secs_f64();
        line::print(&StuckLine { event: "stuck", scenario: stuck.name, seed: stuck.seed, real_seconds });
    }
    line::print(&SweepLine {
        event: "sweep",
        runs: swept.runs(),
        skipped: swept.skipped,
        failures: swept.found.len(),
        vacuous: swept.is_vacuous(),
        unrun: &swept.unrun,
        missing_marks: swept.missing.iter().map(|(scenario, mark, _)| (*scenario, *mark)).collect(),
        real_seconds: swept.took.as_secs_f64(),
        virtual_per_real: rate(swept.elapsed().as_secs_f64(), swept.took),
        exit,
    });
}

fn report(sweep: &many::Sweep, swept: &SweepReport) {
    println!("{:<16} {:>6} {:>8} {:>10}", "scenario", "runs", "failures", "virtual s");
    for (name, tally) in &swept.tallies {
        println!("{name:<16} {:>6} {:>8} {:>10}", tally.runs, tally.failures, tally.elapsed.as_secs());
        for (mark, runs) in &tally.marks {
            println!("{:<16} {runs:>6} runs: {mark}", "");
        }
    }
    for scenario in &swept.unrun {
        println!("NOT RUN: {scenario}");
    }
    for (scenario, mark, runs) in &swept.unsure {
        println!("not reached, in too few runs to mean anything: {mark} ({scenario}, {runs} runs)");
    }
    for (scenario, mark, runs) in &swept.missing {
        println!("NOT REACHED: {mark} ({scenario}, {runs} runs)");
    }
    for canary in &swept.canaries {
        match canary.found_in {
            Some(run) => println!("the bug planted in {} was found in run {run}", canary.name),
            None => {
                println!("THE BUG PLANTED IN {} WAS NOT FOUND in {} runs", canary.name, many::CANARY_RUNS)
            }
        }
    }
    for found in &swept.found {
        if let Err(broken) = &found.report.verdict {
            let seed = found.report.options.seed;
            println!("FAILED {} times: {} from seed {seed} on: {broken}", found.times, found.scenario.name);
        }
    }
    for stuck in &swept.stuck {
        let StuckRun { name, seed, after } = stuck;
        println!(
            "GIVEN UP: {name} with seed {seed} had no end after {after:.0?} of real time: it blocks or goes in circles"
        );
    }
    if swept.skipped > 0 {
        println!("{} runs were skipped: the time was over", swept.skipped);
    }
    let (shard, shards) = sweep.shard;
    let part = if shards > 1 { format!(" (part {shard} of {shards})") } else { String::new() };
    println!(
        "{} runs{part} from seed {} on in {:.0} s on {} threads: {:.1} seeds/s, virtual:real {:.0}; {}",
        swept.runs(),
        sweep.start,
        swept.took.as_secs_f64(),
        sweep.jobs,
        rate(swept.runs() as f64, swept.took),
        rate(swept.elapsed().as_secs_f64(), swept.took),
        match (swept.gravest().is_none(), swept.is_vacuous()) {
            (false, _) => "failed",
            (true, true) => "vacuous: it proved less than it seems",
            (true, false) => "clean",
        }
    );
}
