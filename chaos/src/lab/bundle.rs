//! A run as a file: everything needed to repeat the run on any machine that has the sources.
//!
//! A failing run has a folder of its own, with the bundle and what helps a reader:
//!
//! | file | content |
//! | --- | --- |
//! | `bundle.json` | a [`Bundle`]: the inputs of the run, and its result |
//! | `story.txt` | the failure, described for a person |
//! | `plan.txt` | the fault plan, shrunk; it can be edited and passed back with `--plan` |
//! | `plan.drawn.txt` | the plan before shrinking, if it was shrunk |
//! | `events.txt` | the last two thousand events; the first line says if there were more |
//! | `whole.trace`, `packets.pcapng` | all events and packets of the run, if the teller was asked for them |
//! | `first.trace`, `second.trace` | both traces of a run that isn't reproducible |
//!
//! A run is kept for good as the bundle alone ([`Bundle::kept`]): a regression, which has to hold from then on. A seed
//! alone would not do: with the next kind of fault, or another default of a knob, it is another run. So a kept bundle has
//! every knob and the whole plan. It has no digest, because each change of the programs changes that.

use crate::lab::plan::text::PlanError;
use crate::lab::scenario::{Options, Report, Scenario};
use crate::world::recipe::RecipeError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The version of the file's format. A reader refuses every other version.
const FORMAT: u32 = 2;

/// The name of the file in a bundle's folder.
pub const FILE: &str = "bundle.json";

/// All files that a bundle may have.
pub(crate) const FILES: [&str; 9] =
    [FILE, "story.txt", "plan.txt", "plan.drawn.txt", EVENTS, TRACE, PACKETS, "first.trace", "second.trace"];

/// The last events of the run, its whole trace, and its packets.
pub(crate) const EVENTS: &str = "events.txt";
pub(crate) const TRACE: &str = "whole.trace";
pub(crate) const PACKETS: &str = "packets.pcapng";

/// A run: its inputs, and its result as far as it is worth keeping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The format's version: 2.
    pub format: u32,
    /// The version of this crate that wrote it.
    pub version: String,
    /// The defect that the run found, as a sentence, if it is a kept run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The planted bugs that break the kept run, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub red_with: Vec<String>,
    /// The scenario's name.
    pub scenario: String,
    /// The world's seed.
    pub seed: u64,
    /// The scheduler's seed.
    pub scheduler_seed: u64,
    /// Knobs that aren't at their default; every knob if it is a kept run.
    pub knobs: BTreeMap<String, u64>,
    /// The fault plan as [text](crate::lab::plan::text), in the file a list of its lines; `None` for a scenario that
    /// starts no faults.
    #[serde(with = "lines")]
    pub plan: Option<String>,
    /// Where the run leaves that of its seeds, as text; empty for most runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recipe: String,
    /// The property that broke; `None` if the run held when it was kept.
    #[serde(flatten)]
    pub broken: Option<BrokenProperty>,
    /// What a second run is compared with; `None` if it is a kept run.
    #[serde(flatten)]
    pub trace: Option<TraceSummary>,
    /// "14 faults → 2, in 61 runs", if it was shrunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<String>,
}

/// A property that broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenProperty {
    /// The kind of the property, in a word.
    pub kind: String,
    /// The property.
    pub property: String,
    /// The observation that contradicts it.
    pub seen: String,
}

/// The trace of a run, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Whether a second run gave the same result; `None` if none was made.
    pub reproducible: Option<bool>,
}

/// A text as the list of its lines, so that a change of one line is a change of one line of the file.
mod lines {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        text.as_ref().map(|text| text.lines().collect::<Vec<_>>()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        let lines = Option::<Vec<String>>::deserialize(from)?;
        Ok(lines.map(|lines| lines.into_iter().map(|line| line + "\n").collect()))
    }
}

/// Why a bundle can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is no such file, or it can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It isn't a bundle.
    #[error("not a bundle: {0}")]
    Json(#[from] serde_json::Error),
    /// The bundle has another format version.
    #[error("a bundle of format {0}; this is format {FORMAT}")]
    Format(u32),
    /// Its plan can't be read.
    #[error("its plan: {0}")]
    Plan(#[from] PlanError),
    /// Its recipe can't be read.
    #[error("its recipe: {0}")]
    Recipe(#[from] RecipeError),
}

impl Bundle {
    /// The bundle of a failing run; `None` for a run that held.
    pub fn of(report: &Report, reproducible: Option<bool>, shrunk: Option<String>) -> Option<Bundle> {
        report.verdict.as_ref().err()?;
        let trace = TraceSummary { digest: report.digest.clone(), events: report.events, reproducible };
        Some(Bundle { trace: Some(trace), shrunk, ..Bundle::inputs(report) })
    }

    /// The bundle of a run that is kept for good. `found` is the defect that it found, as a sentence.
    pub fn kept(scenario: &Scenario, report: &Report, found: &str) -> Bundle {
        let knobs = scenario.knobs.iter();
        let knobs = knobs.map(|knob| (knob.name.to_owned(), scenario.knob(knob, &report.options))).collect();
        Bundle { knobs, found: Some(found.to_owned()), ..Bundle::inputs(report) }
    }

    /// The inputs of a run, and the property that it broke.
    fn inputs(report: &Report) -> Bundle {
        let broken = report.verdict.as_ref().err().map(|broken| BrokenProperty {
            kind: broken.kind.as_str().to_owned(),
            property: broken.property.clone(),
            seen: broken.seen.clone(),
        });
        Bundle {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            found: None,
            red_with: Vec::new(),
            scenario: report.scenario.to_owned(),
            seed: report.options.seed,
            scheduler_seed: report.scheduler_seed,
            knobs: report.options.knobs.clone(),
            plan: report.plan.as_ref().map(|unleashed| unleashed.plan.to_string()),
            recipe: report.options.recipe.to_string(),
            broken,
            trace: None,
            shrunk: None,
        }
    }

    /// Why a kept run is not whole, if it isn't: it lacks a knob of its scenario, or sets one that the scenario doesn't
    /// have, so that the run would be another one than was kept.
    pub fn incomplete(&self, scenario: &Scenario) -> Option<String> {
        let lacks = scenario.knobs.iter().find(|knob| !self.knobs.contains_key(knob.name));
        let lacks = lacks
            .map(|knob| format!("the knob {} has no value (its default is {})", knob.name, knob.default));
        let is_known = |name: &str| scenario.knobs.iter().any(|knob| knob.name == name);
        let more = self.knobs.keys().find(|name| !is_known(name));
        lacks.or(more.map(|name| format!("{} has no knob {name}", scenario.name)))
    }

    /// Reads a bundle, given its folder or its file.
    ///
    /// # Errors
    /// If the file is missing, or isn't a bundle.
    pub fn load(path: &Path) -> Result<Bundle, BundleError> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let bundle: Bundle = serde_json::from_slice(&std::fs::read(file)?)?;
        if bundle.format == FORMAT { Ok(bundle) } else { Err(BundleError::Format(bundle.format)) }
    }

    /// Writes it into a file, or as `bundle.json` into an existing folder.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(file, text)
    }

    /// The inputs of the run.
    ///
    /// # Errors
    /// If its plan or its recipe can't be read.
    pub fn options(&self) -> Result<Options, BundleError> {
        let plan = self.plan.as_deref().map(str::parse).transpose()?;
        let scheduler_seed = Some(self.scheduler_seed);
        let recipe = self.recipe.parse()?;
        Ok(Options { seed: self.seed, scheduler_seed, knobs: self.knobs.clone(), plan, recipe })
    }

    /// Whether a run broke the same property.
    pub fn is_reproduced_by(&self, report: &Report) -> bool {
        let (Some(expected), Err(broken)) = (&self.broken, &report.verdict) else { return false };
        expected.kind == broken.kind.as_str() && expected.property == broken.property
    }
}
