//! The counters of a sweep while its runs come in.

use super::{Canary, Found, Progress, ScenarioCounts, StuckRun, SweepReport};
use crate::lab::scenario::{Purpose, Report, Scenario};
use crate::world::property::{PropertyKind, Violation};
use std::collections::BTreeMap;
use std::time::Duration;

/// The counters while the runs come in.
pub(super) struct Book<'a> {
    /// Runs to be made, if that is known.
    of: Option<u64>,
    scenarios: &'a [Scenario],
    tallies: BTreeMap<&'static str, ScenarioCounts>,
    /// For each scenario and property, the first failure by its place in the sweep.
    found: BTreeMap<(&'static str, PropertyKind, String), (u64, Found)>,
    stuck: Vec<StuckRun>,
}

impl<'a> Book<'a> {
    pub(super) fn new(scenarios: &'a [Scenario]) -> Book<'a> {
        let tally = |scenario: &Scenario| {
            let marks = scenario.marks.iter().map(|mark| (mark.name, 0)).collect();
            (scenario.name, ScenarioCounts { marks, ..ScenarioCounts::default() })
        };
        Book {
            of: Some(0),
            scenarios,
            tallies: scenarios.iter().map(tally).collect(),
            found: BTreeMap::new(),
            stuck: Vec::new(),
        }
    }

    /// Adds to the number of runs to be made; `None` makes it unknown.
    pub(super) fn expect(&mut self, runs: Option<u64>) {
        self.of = self.of.zip(runs).map(|(before, more)| before + more);
    }

    /// The scenarios that have not reached all of their marks.
    pub(super) fn wanting(&self) -> Vec<Scenario> {
        let wants =
            |scenario: &&Scenario| self.tallies[scenario.name].marks.values().any(|count| *count == 0);
        self.scenarios.iter().filter(wants).copied().collect()
    }

    /// A run was given up.
    pub(super) fn give_up(&mut self, stuck: StuckRun) {
        self.stuck.push(stuck);
    }

    pub(super) fn enter(&mut self, at: u64, report: Report) {
        let scenario = self.scenarios.iter().find(|scenario| scenario.name == report.scenario);
        let (Some(scenario), Some(tally)) = (scenario, self.tallies.get_mut(report.scenario)) else { return };
        tally.runs += 1;
        tally.elapsed += report.elapsed;
        for mark in &report.marks {
            *tally.marks.entry(mark).or_default() += 1;
        }
        let Err(Violation { kind, property, .. }) = &report.verdict else { return };
        // An observation may break liveness, but no other property.
        if scenario.purpose == Purpose::Observation && *kind == PropertyKind::Liveness {
            return;
        }
        tally.failures += 1;
        let identity = (scenario.name, *kind, property.clone());
        let first = self
            .found
            .entry(identity)
            .or_insert_with(|| (at, Found { scenario: *scenario, report: report.clone(), times: 0 }));
        first.1.times += 1;
        // Threads don't finish in order: the first failure is the one with the lowest place.
        if at < first.0 {
            *first = (at, Found { report, ..first.1.clone() });
        }
    }

    pub(super) fn progress(&self, took: Duration) -> Progress {
        let all = self.tallies.values();
        let marks = all.clone().flat_map(|tally| tally.marks.values());
        Progress {
            runs: all.clone().map(|tally| tally.runs).sum(),
            of: self.of,
            failures: all.clone().map(|tally| tally.failures).sum(),
            took,
            elapsed: all.map(|tally| tally.elapsed).sum(),
            marks: (marks.clone().filter(|count| **count > 0).count(), marks.count()),
        }
    }

    pub(super) fn close(self, canaries: Vec<Canary>, sharded: bool, took: Duration) -> SweepReport {
        let (mut missing, mut unsure) = (Vec::new(), Vec::new());
        for scenario in self.scenarios {
            let Some(tally) = self.tallies.get(scenario.name) else { continue };
            for mark in scenario.marks.iter().filter(|mark| tally.marks.get(mark.name) == Some(&0)) {
                let enough = tally.runs >= u64::from(mark.within);
                let list = if enough { &mut missing } else { &mut unsure };
                list.push((scenario.name, mark.name, tally.runs));
            }
        }
        let mut found: Vec<(u64, Found)> = self.found.into_values().collect();
        found.sort_by_key(|(at, _)| *at);
        let runs: u64 = self.tallies.values().map(|tally| tally.runs).sum();
        let idle =
            |name: &&str| self.tallies[name].runs == 0 && self.stuck.iter().all(|stuck| stuck.name != *name);
        let names = self.scenarios.iter().map(|scenario| scenario.name);
        SweepReport {
            unrun: names.filter(|name| !sharded && idle(name)).collect(),
            tallies: self.tallies,
            found: found.into_iter().map(|(_, found)| found).collect(),
            canaries,
            missing,
            unsure,
            skipped: self.of.map_or(0, |of| of.saturating_sub(runs + self.stuck.len() as u64)),
            stuck: self.stuck,
            took,
        }
    }
}
