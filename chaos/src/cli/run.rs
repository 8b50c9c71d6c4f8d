//! `list`, `run`, `replay` and `diff`.

use std::path::Path;

use crate::lab::diff as traces;
use crate::lab::no_return::NoReturn;
use crate::lab::picture::Picture;
use crate::lab::scenario::{Knob, Report, Scenario};
use crate::lab::story::{Story, Teller, explain, not_reproducible};
use crate::world::watch::RecordingOptions;
use serde::Serialize;

use super::Program;
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
    points: Vec<PointLine>,
    marks: Vec<&'static str>,
}

/// A point of a scenario's program.
#[derive(Debug, Serialize)]
struct PointLine {
    point: &'static str,
    about: &'static str,
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
            points: scenario
                .points
                .iter()
                .map(|point| PointLine { point: point.name, about: point.about })
                .collect(),
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
        line.points.iter().for_each(|of| println!("{:<16}   point {}: {}", "", of.point, of.about));
        line.marks.iter().for_each(|mark| println!("{:<16}   mark: {mark}", ""));
    }
    exit::HELD
}

pub(crate) fn run(program: &Program<'_>, args: &Run) -> Result<u8, Usage> {
    let subject = args.which.subject(program)?;
    let (report, map) = watched(program, args, &subject)?;
    args.which.check_plan(&report)?;
    if report.verdict.is_ok() {
        tell_held(args, &report, map.as_deref());
        return Ok(exit::HELD);
    }
    let teller = Teller { keep: args.which.plan.clone(), ..args.out.teller(program) };
    tell_failed(program, args, ("run", &teller, &subject.scenario), &report, map.as_deref())
}

pub(crate) fn replay(program: &Program<'_>, args: &Run) -> Result<u8, Usage> {
    let subject = args.which.subject(program)?;
    let (mut report, map) = watched(program, args, &subject)?;
    args.which.check_plan(&report)?;
    let again = subject.scenario.run(&subject.options);
    if again != report {
        report.verdict = Err(not_reproducible(&report, &again));
    }
    if let Some(bundle) = &subject.bundle {
        let is = |yes: bool| if yes { "yes" } else { "no" };
        if bundle.broken.is_some() {
            eprintln!("broken as in the bundle: {}", is(bundle.is_reproduced_by(&report)));
        }
        if let Some(trace) = &bundle.trace {
            eprintln!("digest as in the bundle: {}", is(trace.digest == report.digest));
        }
        if let Some(found) = &bundle.found {
            eprintln!("kept because: {found}");
        }
    }
    if report.verdict.is_ok() {
        tell_held(args, &report, map.as_deref());
        return Ok(exit::HELD);
    }
    // A replay must not overwrite the bundle that it replays.
    let teller = args.out.teller(program);
    let teller = Teller { folder: teller.folder.join("replayed"), keep: args.which.plan.clone(), ..teller };
    tell_failed(program, args, ("replay", &teller, &subject.scenario), &report, map.as_deref())
}

/// Makes the run and writes the outputs that the command line asks for; also returns the map.
fn watched(program: &Program<'_>, args: &Run, subject: &Subject) -> Result<(Report, Option<String>), Usage> {
    let (trace, capture, decoder) = (args.trace.clone(), args.pcap.clone(), program.decoder);
    let history = args.html.is_some();
    let logs = if history { program.logs } else { &[] };
    let watching = RecordingOptions {
        trace,
        capture,
        decoder,
        history,
        logs,
        map: args.map,
        ..RecordingOptions::default()
    };
    let made = subject.scenario.run_watched(&subject.options, &watching);
    let (report, seen) = made.map_err(|error| error.to_string())?;
    if let (Some(path), Some(picture)) = (&args.html, Picture::of(&report, &seen)) {
        picture.write(path).map_err(|error| error.to_string())?;
    }
    Ok((report, seen.map))
}

fn tell_held(args: &Run, report: &Report, map: Option<&str>) {
    if args.json {
        line::print(&RunLine::of("run", report, None).with_map(map));
        return;
    }
    print!("{}", map.unwrap_or_default());
    if let Ok(held) = &report.verdict {
        print!("{}{}", held.state, held.notes);
    }
    if let Some(unleashed) = &report.plan {
        if let Some(drawn) = &unleashed.drawn {
            println!("drawn: {drawn}");
        }
        let (begun, given) = (unleashed.begun, unleashed.plan.len());
        println!("{begun} of {given} faults have begun, let loose at {:?}:", unleashed.at);
        print!("{}", unleashed.plan);
        unleashed.skipped.iter().for_each(|skipped| println!("# {skipped}"));
    }
    println!(
        "held; digest {} over {} events, {:?} of virtual time",
        report.digest, report.events, report.elapsed
    );
}

fn tell_failed(
    program: &Program<'_>,
    args: &Run,
    (event, teller, scenario): (&'static str, &Teller, &Scenario),
    report: &Report,
    map: Option<&str>,
) -> Result<u8, Usage> {
    let mut story = explain(teller, scenario, report, None).map_err(|error| error.to_string())?;
    let seeker = args.no_return.seeker(program, *scenario, args.patience.real());
    // A run that isn't the same again has no events that could be counted.
    let seeker = seeker.filter(|_| story.reproducible);
    let moment = seeker.and_then(|seeker| seeker.seek(report, &mut |step| eprintln!("{step}")));
    if let Some(moment) = &moment {
        story.add(&moment.to_string()).map_err(|error| error.to_string())?;
    }
    if !args.json {
        print!("{}", map.unwrap_or_default());
    }
    Ok(tell_story(args.json, event, report, &story, (map, moment.as_ref())))
}

/// Tells a failure; returns its exit code.
pub(crate) fn tell_story(
    json: bool,
    event: &'static str,
    report: &Report,
    story: &Story,
    (map, moment): (Option<&str>, Option<&NoReturn>),
) -> u8 {
    if json {
        // The verdict comes from the story, which has made the run a second time.
        let told = Report { verdict: Err(story.broken.clone()), ..report.clone() };
        let line = RunLine::of(event, &told, Some(story.bundle.display().to_string()));
        line::print(&line.with_map(map).with_no_return(moment));
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
