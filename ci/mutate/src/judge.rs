//! Who notices a mutant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Trouble;
use crate::check::{Check, Outcome, Runner};
use crate::sites::Kind;
use crate::tree::Mutant;

/// The unit tests that run in one process: it can't be stopped at the first failure.
const BATCH: Duration = Duration::from_secs(2);

/// A mutant, and who noticed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) id: u32,
    pub(crate) layer: String,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) was: String,
    pub(crate) becomes: String,
    pub(crate) units: Noticed,
    pub(crate) scenarios: Noticed,
}

/// Whether a kind of check notices a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Noticed {
    /// By this check, which said this.
    By(String),
    /// So many checks reach it and pass all the same.
    No(usize),
}

impl Noticed {
    pub(crate) fn is_killed(&self) -> bool {
        matches!(self, Noticed::By(_))
    }
}

/// All checks, and how long those of a kind may take for one mutant.
pub(crate) struct Court<'a> {
    pub(crate) runner: Runner<'a>,
    pub(crate) units: Vec<Check>,
    pub(crate) scenarios: Vec<Check>,
    pub(crate) budget: Duration,
}

impl Court<'_> {
    pub(crate) fn judge(&self, mutant: &Mutant) -> Result<Verdict, Trouble> {
        Ok(Verdict {
            id: mutant.id,
            layer: mutant.layer().to_owned(),
            file: mutant.file.clone(),
            line: mutant.site.lines.0,
            kind: mutant.site.kind,
            was: mutant.site.was.clone(),
            becomes: mutant.site.becomes.clone(),
            units: self.by_units(mutant.id)?,
            scenarios: self.by_scenarios(mutant.id)?,
        })
    }

    /// The quickest tests first.
    fn by_units(&self, id: u32) -> Result<Noticed, Trouble> {
        let tests = quickest(&self.units, id);
        let (mut spent, mut ran) = (Duration::ZERO, 0);
        let mut rest = &tests[..];
        while !rest.is_empty() && spent < self.budget {
            let mut takes = Duration::ZERO;
            let fits = |check: &&&Check| {
                let is_first = takes == Duration::ZERO;
                takes += check.takes;
                is_first || takes <= BATCH
            };
            let count = rest.iter().take_while(fits).count();
            let (batch, left) = rest.split_at(count);
            rest = left;
            let names: Vec<String> = batch.iter().map(|check| check.name.clone()).collect();
            let takes = batch.iter().map(|check| check.takes).sum();
            spent += takes;
            ran += count;
            match self.runner.units_with(id, &names, takes)? {
                Outcome::Passed => {}
                Outcome::Failed(_) if count == 1 => return Ok(Noticed::By(names[0].clone())),
                Outcome::Failed(_) => return Ok(Noticed::By(self.first_that_fails(id, batch)?)),
                Outcome::Spun => return Ok(Noticed::By(format!("{} spins", names[0]))),
            }
        }
        Ok(Noticed::No(ran))
    }

    fn first_that_fails(&self, id: u32, batch: &[&Check]) -> Result<String, Trouble> {
        for check in batch {
            let names = std::slice::from_ref(&check.name);
            if self.runner.units_with(id, names, check.takes)? != Outcome::Passed {
                return Ok(check.name.clone());
            }
        }
        Ok(format!("{} and others together", batch[0].name))
    }

    /// All scenarios with seed 1, the quickest first, then with seed 2, and so on.
    fn by_scenarios(&self, id: u32) -> Result<Noticed, Trouble> {
        let scenarios = quickest(&self.scenarios, id);
        let (mut spent, mut ran) = (Duration::ZERO, 0);
        for seed in 1.. {
            for check in &scenarios {
                if spent >= self.budget {
                    return Ok(Noticed::No(ran));
                }
                spent += check.takes.max(Duration::from_millis(1));
                ran += 1;
                let (name, takes) = (&check.name, check.takes);
                let said = match self.runner.scenario_with(Some(id), name, seed, takes)? {
                    Outcome::Passed => continue,
                    Outcome::Failed(said) => said,
                    Outcome::Spun => format!("{name} with seed {seed} spins"),
                };
                // It has to be the mutant that it fails of.
                if self.runner.scenario_with(None, name, seed, takes)? == Outcome::Passed {
                    return Ok(Noticed::By(said));
                }
            }
            if scenarios.is_empty() {
                break;
            }
        }
        Ok(Noticed::No(ran))
    }
}

/// The checks that reach a mutant, the quickest first.
fn quickest(checks: &[Check], id: u32) -> Vec<&Check> {
    let mut found: Vec<&Check> = checks.iter().filter(|check| check.reaches.contains(&id)).collect();
    found.sort_by_key(|check| check.takes);
    found
}
