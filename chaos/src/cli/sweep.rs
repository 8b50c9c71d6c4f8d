//! `sweep`: many seeds, and a report of the runs.

use std::io::{self, IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use crate::lab::scenario::{Purpose, Report, Scenario};
use crate::lab::story::{Teller, save};
use crate::lab::sweep as many;
use crate::lab::sweep::{
    KnownRuns, Ledger, LedgerHeader, LedgerLine, LedgerWriter, Progress, SEEDS_LISTED, SweepEvent,
};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::Program;
use super::args::{self, Usage};
use super::exit;
use super::failure::{Failed, FailureTeller, STORIES};
use super::line::{self, RunLine, StuckLine};
use super::sweep_report::{self, Heading, rate};

/// The number of runs if the command line gives none.
const RUNS: u64 = 100;

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

pub(crate) fn sweep(program: &Program<'_>, args: &args::Sweep) -> Result<u8, Usage> {
    let mut sweep = asked(program, args)?;
    let (known, ledger) = ledger(args, &sweep)?;
    sweep.known = Arc::new(known);
    stop_at_signals(&sweep.stop).map_err(|error| format!("can't listen to signals: {error}"))?;
    let teller = args.out.teller(program);
    let progress = ProgressTeller { json: args.json, terminal: stderr().is_terminal(), step: 0 };
    let mut witness = Witness { teller, progress, ledger, stop: sweep.stop.clone(), unwritten: None };
    let swept = sweep.run(&mut |event| witness.see(event));
    let is_over = !swept.interrupted;
    if is_over {
        witness.note(&LedgerLine::End { skipped: swept.skipped });
    }
    witness.progress.end();
    // A story makes the run once more, so its verdict counts too.
    let mut gravest = swept.gravest();
    let told = FailureTeller {
        teller: &witness.teller,
        json: args.json,
        shrink_runs: args.shrink_runs,
        jobs: sweep.jobs,
        patience: sweep.patience,
        stop: &sweep.stop,
    };
    for found in &swept.found[..swept.found.len().min(if is_over { STORIES } else { 0 })] {
        let made = found.clone();
        let failed = Failed {
            scenario: found.scenario,
            run: found.options.named(),
            kind: found.kind(),
            report: move || made.report(),
        };
        match told.tell(failed) {
            Ok(kind) => gravest = gravest.min(Some(kind)),
            Err(why) => witness.unwritten = witness.unwritten.or(Some(why)),
        }
    }
    let code = match witness.unwritten {
        Some(_) => exit::USAGE,
        None => exit::of_sweep(gravest, &swept),
    };
    if let (true, Some(ledger)) = (swept.interrupted, &witness.ledger) {
        eprintln!("`--resume {}` in place of `--ledger` goes on with it", ledger.path.display());
    }
    sweep_report::print(args.json, &Heading::Swept, &sweep, &swept, code);
    witness.unwritten.map_or(Ok(code), |why| Err(format!("a file could not be written: {why}")))
}

/// The sweep that the command line asks for.
fn asked(program: &Program<'_>, args: &args::Sweep) -> Result<many::Sweep, Usage> {
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
    Ok(many::Sweep {
        start: args.start,
        jobs: args.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from),
        shard: args.shard,
        limit: args.minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60))),
        patience: args.patience.real(),
        knobs: args::knobs(program, &args.set, &scenarios)?,
        ..many::Sweep::new(&scenarios, args.seeds.or_else(|| args.minutes.is_none().then_some(RUNS)))
    })
}

/// The runs of the ledger that the sweep goes on with, and the ledger to write.
fn ledger(args: &args::Sweep, sweep: &many::Sweep) -> Result<(KnownRuns, Option<LedgerWriter>), Usage> {
    let said = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let header =
        || LedgerHeader::of(sweep.arguments()).map_err(|error| format!("can't read this program: {error}"));
    if let Some(path) = &args.resume {
        let ledger = Ledger::load(path).map_err(|error| said(path, &error))?;
        ledger.check(&header()?).map_err(|error| said(path, &error))?;
        let writer = LedgerWriter::resume(path, &ledger).map_err(|error| said(path, &error))?;
        return Ok((ledger.known, Some(writer)));
    }
    let Some(path) = &args.ledger else { return Ok((KnownRuns::default(), None)) };
    let writer = LedgerWriter::create(path, &header()?).map_err(|error| said(path, &error))?;
    Ok((KnownRuns::default(), Some(writer)))
}

/// The first SIGINT or SIGTERM sets `stop`; a second one ends the process.
pub(crate) fn stop_at_signals(stop: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first one doesn't find the flag that it sets itself.
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(())
}

/// Tells and records what happens in a sweep when it happens.
struct Witness {
    teller: Teller,
    progress: ProgressTeller,
    ledger: Option<LedgerWriter>,
    stop: Arc<AtomicBool>,
    /// Why a file could not be written.
    unwritten: Option<String>,
}

impl Witness {
    fn see(&mut self, event: SweepEvent<'_>) {
        match event {
            SweepEvent::Progress(progress) => self.progress.tell(&progress),
            SweepEvent::Run { entry, report, times } => {
                self.note(&LedgerLine::Run(entry.clone()));
                if let Some(times) = times {
                    self.failed(report, times);
                }
            }
            SweepEvent::Stuck(stuck) => {
                self.note(&LedgerLine::Stuck(stuck.clone()));
                let many::StuckRun { scenario, seed, after, doing, .. } = stuck;
                if self.progress.json {
                    line::print(&StuckLine::of(Some(scenario), *seed, *after, doing));
                } else {
                    self.progress.say(&sweep_report::given_up(stuck));
                }
            }
            SweepEvent::Canary(canary) => self.note(&LedgerLine::Canary(canary.clone())),
        }
    }

    /// Writes a line into the ledger. A sweep whose ledger can't be written is of no use, so it ends.
    fn note(&mut self, line: &LedgerLine) {
        let Some(ledger) = &mut self.ledger else { return };
        if let Err(error) = ledger.append(line) {
            let why = format!("{}: {error}", ledger.path.display());
            self.progress.say(&why);
            self.unwritten.get_or_insert(why);
            self.ledger = None;
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// A run has failed; its property has broken so many times by now.
    fn failed(&mut self, report: &Report, times: u64) {
        let Err(broken) = &report.verdict else { return };
        let bundle = if times <= SEEDS_LISTED as u64 { save(&self.teller, report) } else { Ok(None) };
        let bundle = bundle.unwrap_or_else(|error| {
            self.unwritten.get_or_insert(error.to_string());
            None
        });
        if self.progress.json {
            line::print(&RunLine::of("failed", report, bundle.map(|folder| folder.display().to_string())));
        } else {
            self.progress
                .say(&format!("FAILED {} with seed {}: {broken}", report.scenario, report.options.seed));
        }
    }
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
        let seeds_per_second = rate((progress.runs - progress.resumed) as f64, progress.took);
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

    /// Says something that stays.
    fn say(&self, text: &str) {
        let clear = if self.terminal && !self.json { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{text}");
    }

    fn end(&self) {
        if self.terminal && !self.json {
            eprintln!();
        }
    }
}
