//! `list`, `run`, `replay` and `diff`.

use std::path::Path;

use chaos::scenario::{Knob, Report, Scenario};
use chaos::story::{Story, explain, not_reproducible};
use chaos::{Watching, diff as traces};
use serde::Serialize;

use super::args::{Run, Subject, Usage};
use super::exit;
use super::line::{self, RunLine};

#[derive(Serialize)]
struct ScenarioLine {
    event: &'static str,
    scenario: &'static str,
    about: &'static str,
    purpose: String,
    knobs: Vec<String>,
    faults: Vec<&'static str>,
    marks: Vec<&'static str>,
}

pub(crate) fn list(scenarios: &[Scenario], json: bool) -> u8 {
    for scenario in scenarios {
        let knob =
            |knob: &Knob| format!("{}={} ({}, at least {})", knob.name, knob.default, knob.about, knob.least);
        let line = ScenarioLine {
            event: "scenario",
            scenario: scenario.name,
            about: scenario.about,
            purpose: format!("{:?}", scenario.purpose).to_lowercase(),
            knobs: scenario.knobs.iter().map(knob).collect(),
            faults: scenario.faults.iter().map(|kind| kind.as_str()).collect(),
            marks: scenario.marks.iter().map(|mark| mark.name).collect(),
        };
        if json {
            line::print(&line);
            continue;
        }
        println!("{:<16} {}", line.scenario, line.about);
        line.knobs.iter().for_each(|knob| println!("{:<16}   knob {knob}", ""));
        if !line.faults.is_empty() {
            println!("{:<16}   faults {}", "", line.faults.join(" "));
        }
        line.marks.iter().for_each(|mark| println!("{:<16}   mark: {mark}", ""));
    }
    exit::HELD
}

pub(crate) fn run(scenarios: &[Scenario], args: &Run) -> Result<u8, Usage> {
    let subject = args.subject(scenarios)?;
    let report = watched(args, &subject);
    if report.verdict.is_ok() {
        tell_held(args, &report);
        return Ok(exit::HELD);
    }
    tell_failed(args, &subject.scenario, &report)
}

pub(crate) fn replay(scenarios: &[Scenario], args: &Run) -> Result<u8, Usage> {
    let subject = args.subject(scenarios)?;
    let mut report = watched(args, &subject);
    let again = subject.scenario.run(&subject.options);
    if let Some(bundle) = &subject.bundle {
        let is = |yes: bool| if yes { "yes" } else { "no" };
        eprintln!("broken as in the bundle: {}", is(bundle.is_reproduced_by(&report)));
        eprintln!("digest as in the bundle: {}", is(bundle.digest == report.digest));
    }
    if again != report {
        report.verdict = Err(not_reproducible(&report, &again));
    }
    if report.verdict.is_ok() {
        tell_held(args, &report);
        return Ok(exit::HELD);
    }
    // The bundle that is replayed stays as it is.
    let teller = args.out.teller();
    let folder = teller.folder.join("replayed");
    let teller = chaos::story::Teller { folder, ..teller };
    let story = explain(&teller, &subject.scenario, &report, None).map_err(|error| error.to_string())?;
    Ok(tell_story(args.json, "replay", &report, &story))
}

/// Makes the run, with what the command line wants written.
fn watched(args: &Run, subject: &Subject) -> Report {
    let watching = Watching { trace: args.trace.clone(), capture: args.pcap.clone(), ..Watching::default() };
    subject.scenario.run_watched(&subject.options, &watching).0
}

fn tell_held(args: &Run, report: &Report) {
    if args.json {
        line::print(&RunLine::of("run", report, None));
        return;
    }
    if let Ok(held) = &report.verdict {
        print!("{}{}", held.state, held.notes);
    }
    if let Some(unleashed) = &report.plan {
        if let Some(drawn) = &unleashed.drawn {
            println!("drawn: {drawn}");
        }
        println!("{} faults were let loose", unleashed.plan.len());
        unleashed.skipped.iter().for_each(|skipped| println!("{skipped}"));
    } else if args.plan.is_some() {
        println!("the plan was of no use: the scenario lets no faults loose");
    }
    println!(
        "held; digest {} over {} events, {:?} of virtual time",
        report.digest, report.events, report.elapsed
    );
}

fn tell_failed(args: &Run, scenario: &Scenario, report: &Report) -> Result<u8, Usage> {
    let story = explain(&args.out.teller(), scenario, report, None).map_err(|error| error.to_string())?;
    Ok(tell_story(args.json, "run", report, &story))
}

/// Tells a failure; returns its exit code.
pub(crate) fn tell_story(json: bool, event: &'static str, report: &Report, story: &Story) -> u8 {
    if json {
        line::print(&RunLine::of(event, report, Some(story.bundle.display().to_string())));
    }
    eprint!("{}", story.text);
    exit::of(story.broken.kind)
}

pub(crate) fn diff(left: &Path, right: &Path) -> Result<u8, Usage> {
    let found = traces::diff(left, right)
        .map_err(|error| format!("{} or {}: {error}", left.display(), right.display()))?;
    Ok(match found {
        None => {
            println!("the traces are the same");
            exit::HELD
        }
        Some(difference) => {
            print!("{difference}");
            exit::NOT_REPRODUCIBLE
        }
    })
}
