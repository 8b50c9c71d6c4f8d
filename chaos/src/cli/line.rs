//! The output of `--json`: one object a line, distinguished by `event`.

use crate::lab::no_return::{NoReturn, TriedEvent};
use crate::lab::scenario::Report;
use crate::world::property::PropertyKind;
use crate::world::pulse::TIME_MOVES_ON;
use serde::Serialize;
use std::time::Duration;

/// Prints a line.
pub(crate) fn print(line: &impl Serialize) {
    println!("{}", serde_json::to_string(line).expect("a line is plain data"));
}

/// A run. It contains nothing about the machine, so the same seed gives the same line.
#[derive(Serialize)]
pub(crate) struct RunLine<'a> {
    event: &'static str,
    scenario: &'a str,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    held: bool,
    digest: &'a str,
    events: u64,
    virtual_seconds: f64,
    drawn: Option<&'a str>,
    plan: Option<String>,
    faults_given: Option<usize>,
    faults_begun: Option<usize>,
    skipped: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<&'a str>,
    state: Option<&'a str>,
    notes: Option<&'a str>,
    #[serde(flatten)]
    broken: Option<BrokenLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_return: Option<NoReturnLine<'a>>,
}

/// A failure's moment of no return.
#[derive(Serialize)]
struct NoReturnLine<'a> {
    saved: Option<TriedLine<'a>>,
    lost: Option<TriedLine<'a>>,
    runs: u32,
    gave_up: bool,
}

/// An event, and the continuations from it.
#[derive(Serialize)]
struct TriedLine<'a> {
    event: u64,
    virtual_seconds: f64,
    text: &'a str,
    tried: u32,
    held: u32,
}

impl<'a> TriedLine<'a> {
    fn of(TriedEvent { event, at, text, tried, held }: &'a TriedEvent) -> TriedLine<'a> {
        TriedLine { event: *event, virtual_seconds: at.as_secs_f64(), text, tried: *tried, held: *held }
    }
}

/// A run that stands still and was given up.
#[derive(Serialize)]
pub(crate) struct StuckLine<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<&'a str>,
    seed: u64,
    kind: &'static str,
    property: &'static str,
    seen: &'a str,
    real_seconds: f64,
}

impl<'a> StuckLine<'a> {
    /// The line of a run that made no poll for `after`; `doing` tells the task that was being polled.
    pub(crate) fn of(scenario: Option<&'a str>, seed: u64, after: Duration, doing: &'a str) -> StuckLine<'a> {
        StuckLine {
            event: "stuck",
            scenario,
            seed,
            kind: PropertyKind::Liveness.as_str(),
            property: TIME_MOVES_ON,
            seen: doing,
            real_seconds: after.as_secs_f64(),
        }
    }
}

/// A property that broke.
#[derive(Serialize)]
struct BrokenLine<'a> {
    kind: &'static str,
    property: &'a str,
    seen: &'a str,
    bundle: Option<String>,
}

impl<'a> RunLine<'a> {
    /// Adds the world's map.
    pub(crate) fn with_map(self, map: Option<&'a str>) -> RunLine<'a> {
        RunLine { map, ..self }
    }

    /// Adds the moment of no return.
    pub(crate) fn with_no_return(self, moment: Option<&'a NoReturn>) -> RunLine<'a> {
        let no_return = moment.map(|NoReturn { saved, lost, runs, gave_up, .. }| NoReturnLine {
            saved: saved.as_ref().map(TriedLine::of),
            lost: lost.as_ref().map(TriedLine::of),
            runs: *runs,
            gave_up: *gave_up,
        });
        RunLine { no_return, ..self }
    }

    /// The line of a report; `bundle` is the path of its story.
    pub(crate) fn of(event: &'static str, report: &'a Report, bundle: Option<String>) -> RunLine<'a> {
        let held = report.verdict.as_ref().ok();
        let broken = report.verdict.as_ref().err();
        RunLine {
            event,
            scenario: report.scenario,
            seed: report.options.seed,
            recipe: (!report.options.recipe.is_empty()).then(|| report.options.recipe.to_string()),
            held: held.is_some(),
            digest: &report.digest,
            events: report.events,
            virtual_seconds: report.elapsed.as_secs_f64(),
            drawn: report.plan.as_ref().and_then(|unleashed| unleashed.drawn.as_deref()),
            plan: report.plan.as_ref().map(|unleashed| unleashed.plan.to_string()),
            faults_given: report.plan.as_ref().map(|unleashed| unleashed.plan.len()),
            faults_begun: report.plan.as_ref().map(|unleashed| unleashed.begun),
            skipped: report.plan.as_ref().map_or(&[], |unleashed| unleashed.skipped.as_slice()),
            map: None,
            state: held.map(|held| held.state.as_str()),
            notes: held.map(|held| held.notes.as_str()),
            broken: broken.map(|broken| BrokenLine {
                kind: broken.kind.as_str(),
                property: &broken.property,
                seen: &broken.seen,
                bundle,
            }),
            no_return: None,
        }
    }
}
