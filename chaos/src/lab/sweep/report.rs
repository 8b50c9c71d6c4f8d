//! The report of a sweep.

use super::entry::RunEntry;
use crate::lab::scenario::{Options, Report, Scenario};
use crate::world::property::PropertyKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The seeds that are listed of a property that broke.
pub const SEEDS_LISTED: usize = 20;

/// The counters of a sweep for one scenario.
#[derive(Debug, Clone, Default)]
pub struct ScenarioCounts {
    /// Runs made.
    pub runs: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Virtual time of all of them.
    pub elapsed: Duration,
    /// In how many runs each mark was reached.
    pub marks: BTreeMap<String, u64>,
}

/// A property of a scenario that broke.
#[derive(Debug, Clone)]
pub struct Found {
    /// The scenario.
    pub scenario: Scenario,
    /// The first run that broke it, by its place in the sweep.
    pub first: RunEntry,
    /// The inputs of that run.
    pub options: Options,
    /// The report of that run, if it was made by this process.
    pub(super) made: Option<Box<Report>>,
    /// The first [`SEEDS_LISTED`] seeds that broke it.
    pub seeds: Vec<u64>,
    /// How often it broke.
    pub times: u64,
}

impl Found {
    /// The report of the first run. A run that is known only from a ledger is made once more.
    pub fn report(&self) -> Report {
        if let Some(report) = &self.made {
            return (**report).clone();
        }
        let report = self.scenario.run(&self.options);
        match &self.first.broken {
            // The ledger's verdict stands even if this run has another: then the story says so.
            Some(broken) => {
                Report { verdict: Err(broken.clone()), digest: self.first.digest.clone(), ..report }
            }
            None => report,
        }
    }

    /// The kind of the property.
    pub fn kind(&self) -> Option<PropertyKind> {
        self.first.broken.as_ref().map(|broken| broken.kind)
    }

    /// How many seeds that broke it aren't listed.
    pub fn more(&self) -> u64 {
        self.times.saturating_sub(self.seeds.len() as u64)
    }
}

/// A run that was given up, because one of its polls didn't return. Its thread is abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckRun {
    /// The run's place in the whole sweep; `None` for a canary's.
    pub place: Option<u64>,
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Real time without a poll, after which it was given up.
    pub after: Duration,
    /// The task that was being polled: its host, and where it was spawned.
    pub doing: String,
}

/// The result of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Its scenario.
    pub scenario: String,
    /// The number of the run that found its bug, from 1 on; `None` if none did.
    pub found_in: Option<u64>,
}

/// The progress of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Runs made.
    pub runs: u64,
    /// How many of them were taken from a ledger.
    pub resumed: u64,
    /// Runs to be made, if that is known.
    pub of: Option<u64>,
    /// Runs that failed.
    pub failures: u64,
    /// Real time since the beginning.
    pub took: Duration,
    /// Virtual time of the runs that weren't taken from a ledger.
    pub elapsed: Duration,
    /// Marks reached, and all marks.
    pub marks: (usize, usize),
}

/// The result of a sweep.
#[derive(Debug, Clone)]
pub struct SweepReport {
    /// The counters by scenario.
    pub tallies: BTreeMap<&'static str, ScenarioCounts>,
    /// Each property that broke, in the order of their first runs.
    pub found: Vec<Found>,
    /// Runs that were given up.
    pub stuck: Vec<StuckRun>,
    /// The canaries.
    pub canaries: Vec<Canary>,
    /// Marks that no run reached, although the runs sufficed: the scenario, the mark, its runs.
    pub missing: Vec<(&'static str, &'static str, u64)>,
    /// Marks that no run reached, but with too few runs to mean anything.
    pub unsure: Vec<(&'static str, &'static str, u64)>,
    /// Scenarios that had no run. Empty for one of several shards, because a shard may have no run of a scenario.
    pub unrun: Vec<&'static str>,
    /// Runs to be made, if that is known.
    pub of: Option<u64>,
    /// Runs that were not made, because the time was over or the sweep was interrupted.
    pub skipped: u64,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// Runs that were taken from a ledger, and their virtual time.
    pub resumed: (u64, Duration),
    /// Real time that it took.
    pub took: Duration,
}

impl SweepReport {
    /// Runs made, also those that were taken from a ledger.
    pub fn runs(&self) -> u64 {
        self.tallies.values().map(|tally| tally.runs).sum()
    }

    /// Virtual time of all runs.
    pub fn elapsed(&self) -> Duration {
        self.tallies.values().map(|tally| tally.elapsed).sum()
    }

    /// The most severe kind of property that broke. A run that was given up broke liveness.
    pub fn gravest(&self) -> Option<PropertyKind> {
        let stuck = self.stuck.first().map(|_| PropertyKind::Liveness);
        self.found.iter().filter_map(Found::kind).chain(stuck).min()
    }

    /// Whether the sweep is vacuous: it proved less than it seems.
    pub fn is_vacuous(&self) -> bool {
        let unfound = self.canaries.iter().any(|canary| canary.found_in.is_none());
        let nothing = self.runs() == 0 && (!self.tallies.is_empty() || self.canaries.is_empty());
        unfound || nothing || !self.unrun.is_empty() || !self.missing.is_empty()
    }
}
