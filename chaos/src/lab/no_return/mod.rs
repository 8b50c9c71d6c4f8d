//! The moment of no return: the event of a failed run after which nothing could save it.
//!
//! A *continuation* from an event is the failed run up to that event; then all faults end, none begins, and schedules and
//! randomness are others. If one of a few holds, the run could still be saved there. [`Seeker::seek`] finds the last such
//! event: the next one is where to look for the reason, which may be long before the failure was seen.
//!
//! | module | concept |
//! | --- | --- |
//! | `search` | which continuations to make, in which order: a pure machine |
//! | `continuation` | the inputs of one |
//! | `tell` | the finding as text |
//!
//! Threads make the next continuations ahead, as a [shrink](crate::shrink) does: the finding is the same for any number of
//! them.

mod continuation;
mod search;
mod tell;

use crate::lab::parallel::in_order;
use crate::lab::scenario::{Options, Report, Scenario};
use crate::lab::stall::{PATIENCE, attended};
use crate::world::recipe::Branch;
use crate::world::timeline::Timeline;
use crate::world::watch::{Decoder, RecordingOptions};
use continuation::continued;
use search::{Border, Probe, Search};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;
use tell::named;

/// The default number of continuations from an event.
pub const EACH: u32 = 8;

/// The default limit of continuations: a run of a million events takes fewer.
pub const RUNS: u32 = 200;

/// Events before and after the moment that are told.
const AROUND: u64 = 6;

/// An event of the failed run, and what became of the continuations from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedEvent {
    /// Its number: a recipe's branch at this number comes right after it. 0 is the beginning of the run.
    pub event: u64,
    /// Its time.
    pub at: Duration,
    /// Its line in the trace; empty for the beginning.
    pub text: String,
    /// Continuations that were made.
    pub tried: u32,
    /// Those that held.
    pub held: u32,
}

/// The moment of no return of a failed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoReturn {
    /// The last event from which a continuation held; `None` if none holds from the beginning either, so that the work
    /// itself fails without any fault.
    pub saved: Option<TriedEvent>,
    /// The first event after it from which none held: the moment. `None` if the run could be saved at its last event.
    pub lost: Option<TriedEvent>,
    /// The number of events of the run.
    pub events: u64,
    /// When the failure was seen.
    pub failed_at: Duration,
    /// The lines of the trace around the moment, with log lines.
    pub around: Vec<String>,
    /// Continuations that were made in all.
    pub runs: u32,
    /// Whether the search stopped because these were used up: then the moment lies after `saved`, and not after `lost`.
    pub gave_up: bool,
}

/// Seeks the moment of no return of failed runs of a scenario.
#[derive(Debug, Clone)]
pub struct Seeker {
    /// The scenario.
    pub scenario: Scenario,
    /// Continuations from an event: if none of them holds, the run is lost there.
    pub each: u32,
    /// The most continuations to make.
    pub runs: u32,
    /// The number of threads. The finding doesn't depend on it.
    pub jobs: usize,
    /// The real time after which a continuation in which no poll returns is given up; it counts as one that fails.
    pub patience: Duration,
    /// Describes payloads in the lines around the moment.
    pub decoder: Option<Decoder>,
    /// Targets of log lines that are told; see [`RecordingOptions::logs`].
    pub logs: &'static [&'static str],
}

impl Seeker {
    /// A seeker with the default numbers, and with a thread for each core.
    pub fn new(scenario: Scenario) -> Seeker {
        let jobs = available_parallelism().map_or(1, usize::from);
        Seeker { scenario, each: EACH, runs: RUNS, jobs, patience: PATIENCE, decoder: None, logs: &[] }
    }

    /// Seeks the moment of a failed run, and reports each step to `told`. `None` for a run that held, or isn't the same
    /// when it is made again.
    pub fn seek(&self, failing: &Report, told: &mut dyn FnMut(&str)) -> Option<NoReturn> {
        failing.verdict.as_ref().err()?;
        let timeline = self.timeline(failing, 0..0)?;
        let mut search = Search::new(timeline.events(), self.each.max(1));
        let mut border = search.border();
        let mut runs = 0;
        let gave_up = loop {
            let ahead = self.ahead(&search);
            if ahead.is_empty() {
                break false;
            }
            if runs == self.runs {
                break true;
            }
            let ahead = &ahead[..ahead.len().min((self.runs - runs) as usize)];
            let held = in_order(self.jobs, ahead, |probe| self.holds(failing, &timeline, *probe));
            for (probe, held) in ahead.iter().zip(held) {
                // What was made ahead may turn out to be of no use.
                if search.propose() != Some(*probe) {
                    break;
                }
                search.judged(*probe, held);
                runs += 1;
                if search.border() != border {
                    border = search.border();
                    if let Some(step) = step(border, &timeline) {
                        told(&format!("{step} after {runs} runs"));
                    }
                }
            }
        };
        self.finding(failing, &search, (runs, gave_up))
    }

    /// The next continuations, as many as there are threads, if all of them fail.
    fn ahead(&self, search: &Search) -> Vec<Probe> {
        let mut search = search.clone();
        let mut ahead = Vec::new();
        while ahead.len() < self.jobs.max(1) {
            let Some(probe) = search.propose() else { break };
            search.judged(probe, false);
            ahead.push(probe);
        }
        ahead
    }

    /// Makes a continuation.
    fn holds(&self, failing: &Report, timeline: &Timeline, probe: Probe) -> bool {
        let branch = Branch { event: probe.event, seed: u64::from(probe.number) };
        let (scenario, options) = (self.scenario, continued(failing, timeline, branch));
        let ended = attended(self.patience, &AtomicBool::new(false), move || scenario.run(&options));
        ended.is_ok_and(|report| report.verdict.is_ok())
    }

    /// Makes the failed run again, for the lines of the records in a range; `None` if it isn't the same.
    fn timeline(&self, failing: &Report, lines: Range<u64>) -> Option<Timeline> {
        let options = Options { scheduler_seed: Some(failing.scheduler_seed), ..failing.options.clone() };
        let (decoder, logs) = (self.decoder, self.logs);
        let watching =
            RecordingOptions { timeline: Some(lines), decoder, logs, ..RecordingOptions::default() };
        let (again, seen) = self.scenario.run_watched(&options, &watching).expect("no file is asked for");
        seen.timeline.filter(|_| again.digest == failing.digest)
    }

    fn finding(&self, failing: &Report, search: &Search, (runs, gave_up): (u32, bool)) -> Option<NoReturn> {
        let failed_at = failing.verdict.as_ref().err()?.at;
        let Border { saved, lost } = search.border();
        let moment = if saved.is_some() { lost } else { 0 };
        let timeline = self.timeline(failing, moment.saturating_sub(AROUND)..moment + AROUND + 1)?;
        let tried = |event: u64| {
            let (tally, text) = (search.tally(event), timeline.line(event).to_owned());
            TriedEvent { event, at: timeline.at(event), text, tried: tally.tried, held: tally.held }
        };
        let events = timeline.events();
        let around = timeline.lines.iter().filter(|(number, _)| *number <= events);
        Some(NoReturn {
            saved: saved.map(tried),
            lost: (moment <= events).then(|| tried(moment)),
            events,
            failed_at,
            around: around.map(|(_, line)| line.clone()).collect(),
            runs,
            gave_up,
        })
    }
}

/// How far the search is; `None` before the run is known to be saved at any event.
fn step(border: Border, timeline: &Timeline) -> Option<String> {
    let at = |event: u64| named(event, timeline.at(event));
    let saved = at(border.saved?);
    Some(match border.lost {
        lost if lost > timeline.events() => format!("saved at {saved}"),
        lost => format!("saved at {saved}, lost at {}", at(lost)),
    })
}
