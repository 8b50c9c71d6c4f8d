//! A picture of a run: one page of HTML that needs nothing else, with a lane for each host and an arrow for each packet.
//!
//! [`Picture::of`] makes the data of the page from a run's report and its [`History`]: columns of numbers, and one table of
//! texts to which they point. `page` puts them into the page, whose parts are files of this folder:
//!
//! | file | what it does |
//! | --- | --- |
//! | `picture.html`, `picture.css` | the page's parts, and how they look |
//! | `model.js` | the data as typed arrays; which entries a filter shows |
//! | `draw.js` | draws the part of the picture that is in view |
//! | `controls.js` | filters, details, keys and mouse; the view in the page's address |
//! | `check.js` | the page's test of itself, for `ci/picture` |

mod columns;
mod page;

use crate::lab::plan::{Fault, LinkScope};
use crate::lab::scenario::Report;
use crate::wire::pcap::create;
use crate::world::history::{History, HostNumber, HostPhase, Shown};
use crate::world::watch::Recordings;
use columns::{Ends, Entries, Ranks, Texts};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

/// The lane of the scenario, which has what happens on no host; the hosts' lanes follow in the order of their creation.
const SCENARIO_LANE: u32 = 0;

/// A picture of a run: the data of its page.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// The run's name and its result, as sentences.
    run: String,
    title: String,
    seen: Option<String>,
    /// What else there is to say about the run: its digest, and its length.
    about: Vec<String>,
    /// When the run ended; in nanoseconds of virtual time, as all times are.
    ended_ns: u64,
    broken: Option<Broken>,
    /// How many entries older than all of these were left out.
    left_out: u64,
    lanes: Vec<String>,
    texts: Vec<String>,
    entries: Entries,
    ends: Ends,
    /// The faults of the plan.
    faults: Vec<Band>,
    /// The times in which a host didn't run.
    gaps: Vec<Band>,
}

/// The moment at which the property broke.
#[derive(Debug, Serialize)]
struct Broken {
    at_ns: u64,
    /// The happenings up to that moment.
    rank: u32,
    lane: u32,
}

/// A span of time on some lanes.
#[derive(Debug, Serialize)]
struct Band {
    text: String,
    lanes: Vec<u32>,
    /// Its beginning and its end: ranks and times.
    ranks: (u32, u32),
    times: (u64, u64),
}

fn lane(host: Option<HostNumber>) -> u32 {
    host.map_or(SCENARIO_LANE, |host| host + 1)
}

impl Picture {
    /// The picture of a run with this report; nothing without a [history](crate::RecordingOptions::history).
    pub fn of(report: &Report, seen: &Recordings) -> Option<Picture> {
        let history = seen.history.as_ref()?;
        let ranks = Ranks::of(history);
        let ended_ns = report.elapsed.as_nanos() as u64;
        let mut texts = Texts::default();
        let (entries, ends) = columns::of(history, &ranks, &mut texts);
        let run = format!("{} with {}", report.scenario, report.options.named());
        let broken = report.verdict.as_ref().err();
        let title = match broken {
            Some(broken) => format!("{} is broken: {}", broken.kind.as_str(), broken.property),
            None => "all properties held".to_owned(),
        };
        let host = |name: &str| seen.hosts.iter().position(|host| host == name).map(|at| at as u32);
        let lanes = std::iter::once("scenario".to_owned()).chain(seen.hosts.iter().cloned()).collect();
        Some(Picture {
            run,
            title,
            seen: broken.map(|broken| broken.seen.clone()),
            about: vec![
                format!("{:?} of virtual time", report.elapsed),
                format!("digest {}", report.digest),
                format!("{} events in the trace", report.events),
            ],
            ended_ns,
            broken: broken.map(|broken| {
                let at_ns = broken.at.as_nanos() as u64;
                Broken { at_ns, rank: ranks.until(at_ns), lane: lane(broken.host.as_deref().and_then(host)) }
            }),
            left_out: history.left_out,
            lanes,
            texts: texts.into_all(),
            entries,
            ends,
            faults: faults(history, &ranks, ended_ns, |number| {
                let plan = report.plan.as_ref().map(|started| started.plan.faults());
                let planned = plan.and_then(|faults| faults.get(number));
                let named = planned.map(|planned| targets(&planned.fault)).unwrap_or_default();
                named.into_iter().filter_map(|name| Some(lane(Some(host(name)?)))).collect()
            }),
            gaps: gaps(history, &ranks, ended_ns),
        })
    }

    /// Writes the page, and its folder if that is missing.
    ///
    /// # Errors
    /// If the file can't be written; the error names it.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        create(path)?.write_all(page::page(self).as_bytes())
    }
}

/// The hosts that a fault names, on one side or both of a partition; none for boxes and for all links.
fn targets(fault: &Fault) -> Vec<&String> {
    match fault {
        Fault::Host { host, .. } | Fault::Link { on: LinkScope::Host(host), .. } => vec![host],
        Fault::Partition { left, right, .. } => left.iter().chain(right).collect(),
        Fault::Link { .. } | Fault::Box { .. } => Vec::new(),
    }
}

/// The faults of the plan from their beginnings to their ends; `lanes` are those of a fault's targets.
fn faults(history: &History, ranks: &Ranks, ended_ns: u64, lanes: impl Fn(usize) -> Vec<u32>) -> Vec<Band> {
    let band = |number: usize, text: &str, rank: u32, at_ns: u64| Band {
        text: text.to_owned(),
        lanes: lanes(number),
        ranks: (rank, ranks.count()),
        times: (at_ns, ended_ns),
    };
    let first_ns = history.entries.front().map_or(0, |entry| entry.at_ns);
    let before = history.faults_before.iter();
    let mut all: BTreeMap<usize, Band> =
        before.map(|(number, text)| (*number, band(*number, text, 0, first_ns))).collect();
    for entry in &history.entries {
        let (rank, at_ns) = (ranks.of_order(entry.order), entry.at_ns);
        match &entry.what {
            Shown::FaultBegins(number, text) => {
                all.insert(*number, band(*number, text, rank, at_ns));
            }
            Shown::FaultEnds(number) => {
                if let Some(band) = all.get_mut(number) {
                    (band.ranks.1, band.times.1) = (rank, at_ns);
                }
            }
            _ => {}
        }
    }
    all.into_values().collect()
}

/// The times in which hosts didn't run, each phase on its own.
fn gaps(history: &History, ranks: &Ranks, ended_ns: u64) -> Vec<Band> {
    let first_ns = history.entries.front().map_or(0, |entry| entry.at_ns);
    let before = history.phases_before.iter();
    let mut open: BTreeMap<HostNumber, (HostPhase, u32, u64)> =
        before.map(|(host, phase)| (*host, (*phase, 0, first_ns))).collect();
    let mut all = Vec::new();
    let mut close = |host: HostNumber, began: Option<(HostPhase, u32, u64)>, rank: u32, at_ns: u64| {
        if let Some((phase, from, from_ns)) = began {
            let (text, lanes) = (phase.as_str().to_owned(), vec![lane(Some(host))]);
            all.push(Band { text, lanes, ranks: (from, rank), times: (from_ns, at_ns) });
        }
    };
    for entry in &history.entries {
        let (Shown::Phase(phase), Some(host)) = (&entry.what, entry.host) else { continue };
        let (rank, at_ns) = (ranks.of_order(entry.order), entry.at_ns);
        close(host, open.remove(&host), rank, at_ns);
        if *phase != HostPhase::Running {
            open.insert(host, (*phase, rank, at_ns));
        }
    }
    for (host, began) in open {
        close(host, Some(began), ranks.count(), ended_ns);
    }
    all
}
