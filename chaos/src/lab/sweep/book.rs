//! The counters of a sweep while its runs come in.

use super::Sweep;
use super::entry::RunEntry;
use super::report::{Canary, Found, Progress, SEEDS_LISTED, ScenarioCounts, StuckRun, SweepReport};
use crate::lab::scenario::{Purpose, Report, Scenario};
use crate::world::property::PropertyKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// The counters while the runs come in.
pub(super) struct Book<'a> {
    sweep: &'a Sweep,
    /// Runs to be made, if that is known.
    of: Option<u64>,
    scenarios: &'a [Scenario],
    tallies: BTreeMap<&'static str, ScenarioCounts>,
    found: BTreeMap<(&'static str, PropertyKind, String), Finding>,
    stuck: Vec<StuckRun>,
    /// Runs that were taken from a ledger, and their virtual time.
    resumed: (u64, Duration),
}

/// A property of a scenario that broke.
struct Finding {
    scenario: Scenario,
    first: RunEntry,
    made: Option<Box<Report>>,
    /// The first seeds by their places.
    seeds: BTreeMap<u64, u64>,
    times: u64,
}

impl<'a> Book<'a> {
    pub(super) fn new(sweep: &'a Sweep, scenarios: &'a [Scenario]) -> Book<'a> {
        let tally = |scenario: &Scenario| {
            let marks = scenario.all_marks().map(|mark| (mark.name.to_owned(), 0)).collect();
            (scenario.name, ScenarioCounts { marks, ..ScenarioCounts::default() })
        };
        Book {
            sweep,
            of: Some(0),
            scenarios,
            tallies: scenarios.iter().map(tally).collect(),
            found: BTreeMap::new(),
            stuck: Vec::new(),
            resumed: (0, Duration::ZERO),
        }
    }

    /// The number of runs to be made, if it is known.
    pub(super) fn expect(&mut self, runs: Option<u64>) {
        self.of = runs;
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

    /// A run was taken from a ledger.
    pub(super) fn enter_known(&mut self, entry: &RunEntry) {
        self.resumed.0 += 1;
        self.resumed.1 += entry.elapsed();
        self.enter(entry, None);
    }

    /// Counts a run. Returns how often its property has broken by now; `None` if it isn't a failure.
    pub(super) fn enter(&mut self, entry: &RunEntry, report: Option<&Report>) -> Option<u64> {
        let scenario = self.scenarios.iter().find(|scenario| scenario.name == entry.scenario)?;
        let tally = self.tallies.get_mut(scenario.name)?;
        tally.runs += 1;
        tally.elapsed += entry.elapsed();
        for mark in &entry.marks {
            *tally.marks.entry(mark.clone()).or_default() += 1;
        }
        let broken = entry.broken.as_ref()?;
        // An observation may break liveness, but no other property.
        if scenario.purpose == Purpose::Observation && broken.kind == PropertyKind::Liveness {
            return None;
        }
        tally.failures += 1;
        let identity = (scenario.name, broken.kind, broken.property.clone());
        let made = || report.map(|report| Box::new(report.clone()));
        let finding = self.found.entry(identity).or_insert_with(|| Finding {
            scenario: *scenario,
            first: entry.clone(),
            made: made(),
            seeds: BTreeMap::new(),
            times: 0,
        });
        finding.times += 1;
        finding.seeds.insert(entry.place, entry.seed);
        if finding.seeds.len() > SEEDS_LISTED {
            finding.seeds.pop_last();
        }
        // Threads don't finish in order: the first failure is the one with the lowest place.
        if entry.place < finding.first.place {
            (finding.first, finding.made) = (entry.clone(), made());
        }
        Some(finding.times)
    }

    pub(super) fn progress(&self, took: Duration) -> Progress {
        let all = self.tallies.values();
        let marks = all.clone().flat_map(|tally| tally.marks.values());
        let elapsed: Duration = all.clone().map(|tally| tally.elapsed).sum();
        Progress {
            runs: all.clone().map(|tally| tally.runs).sum(),
            resumed: self.resumed.0,
            of: self.of,
            failures: all.map(|tally| tally.failures).sum(),
            took,
            elapsed: elapsed - self.resumed.1,
            marks: (marks.clone().filter(|count| **count > 0).count(), marks.count()),
        }
    }

    pub(super) fn close(self, canaries: Vec<Canary>, interrupted: bool, took: Duration) -> SweepReport {
        let (mut missing, mut unsure) = (Vec::new(), Vec::new());
        for scenario in self.scenarios {
            let Some(tally) = self.tallies.get(scenario.name) else { continue };
            for mark in scenario.all_marks().filter(|mark| tally.marks.get(mark.name) == Some(&0)) {
                let enough = tally.runs >= u64::from(mark.within);
                let list = if enough { &mut missing } else { &mut unsure };
                list.push((scenario.name, mark.name, tally.runs));
            }
        }
        let mut found: Vec<Finding> = self.found.into_values().collect();
        found.sort_by_key(|finding| finding.first.place);
        let found = found.into_iter().map(|finding| Found {
            options: self.sweep.options(&finding.scenario, finding.first.seed),
            scenario: finding.scenario,
            first: finding.first,
            made: finding.made,
            seeds: finding.seeds.into_values().collect(),
            times: finding.times,
        });
        let runs: u64 = self.tallies.values().map(|tally| tally.runs).sum();
        let given_up = self.stuck.iter().filter(|stuck| stuck.place.is_some()).count() as u64;
        let idle = |name: &&str| {
            self.tallies[name].runs == 0 && self.stuck.iter().all(|stuck| stuck.scenario != *name)
        };
        let names = self.scenarios.iter().map(|scenario| scenario.name);
        SweepReport {
            unrun: names.filter(|name| self.sweep.shard.1 == 1 && idle(name)).collect(),
            tallies: self.tallies,
            found: found.collect(),
            canaries,
            missing,
            unsure,
            of: self.of,
            skipped: self.of.map_or(0, |of| of.saturating_sub(runs + given_up)),
            stuck: self.stuck,
            interrupted,
            resumed: self.resumed,
            took,
        }
    }
}
