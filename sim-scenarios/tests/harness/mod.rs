//! The common part of scenario tests: run a seed once or twice, compare the runs, keep the digest, and explain failures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use chaos::scenario::{Options, Report, Scenario};
use chaos::story::{Teller, explain};
use sim_scenarios::scenarios::find;

/// A run with a shorter trace counts as not having happened.
const LEAST_EVENTS: u64 = 1_000;

/// Bundles and digests go here.
fn folder() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the crate lies in a workspace").join("target/chaos")
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The runs of one scenario in one test.
pub(crate) struct Runs {
    scenario: Scenario,
    digests: BTreeMap<u64, String>,
}

impl Runs {
    pub(crate) fn of(name: &str) -> Runs {
        let scenario = find(name).unwrap_or_else(|| panic!("there is no scenario {name}"));
        Runs { scenario, digests: BTreeMap::new() }
    }

    /// Runs a seed twice; both runs must be the same, byte for byte, and hold.
    pub(crate) fn prove(&mut self, seed: u64) -> Report {
        let report = self.twice(&Options::seed(seed));
        self.holds(seed, report)
    }

    /// Runs a seed once; it must hold. `ci/digests` runs it again and compares.
    pub(crate) fn prove_once(&mut self, seed: u64) -> Report {
        let report = self.scenario.run(&Options::seed(seed));
        self.holds(seed, report)
    }

    fn holds(&mut self, seed: u64, report: Report) -> Report {
        if report.verdict.is_err() {
            self.fail(&report);
        }
        let events = report.events;
        assert!(events >= LEAST_EVENTS, "{} with seed {seed} has only {events} events", self.scenario.name);
        self.digests.insert(seed, report.digest.clone());
        report
    }

    /// Runs a former failure; it must hold.
    pub(crate) fn regress(&self, options: &Options) -> Report {
        let report = self.scenario.run(options);
        if report.verdict.is_err() {
            self.fail(&report);
        }
        report
    }

    /// Runs `options` twice, whatever the verdict; both runs must be the same, byte for byte.
    pub(crate) fn twice(&self, options: &Options) -> Report {
        let (first, second) = (self.scenario.run(options), self.scenario.run(options));
        if first != second {
            self.fail(&first);
        }
        first
    }

    /// Checks that no two seeds give one digest.
    pub(crate) fn differ(&self) {
        let mut seen = BTreeMap::new();
        for (seed, digest) in &self.digests {
            if let Some(other) = seen.insert(digest, seed) {
                panic!("{}: seeds {other} and {seed} gave the same bytes", self.scenario.name);
            }
        }
    }

    /// Writes the digests into a file of this scenario's own, for `ci/test` to compare: other scenarios' tests
    /// may run in other processes.
    #[expect(clippy::disallowed_methods, reason = "after the runs, outside of every world")]
    pub(crate) fn write_digests(&self) {
        let folder = folder().join("digests");
        let mut text = String::new();
        for (seed, digest) in &self.digests {
            writeln!(text, "{} {seed} {digest}", self.scenario.name).expect("a string takes it");
        }
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{}.txt", self.scenario.name)), text).unwrap();
    }

    fn fail(&self, report: &Report) -> ! {
        let teller = Teller {
            decoder: Some(sim_scenarios::decode::payload),
            logs: &["nurl", "audit"],
            ..Teller::new(folder())
        };
        match explain(&teller, &self.scenario, report, None) {
            Ok(story) => panic!("{}", story.text),
            Err(error) => panic!("{:?}; no bundle could be written: {error}", report.verdict),
        }
    }
}
