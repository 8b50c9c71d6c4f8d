//! A failing run as a folder: everything needed to repeat the run on any machine that has the sources.
//!
//! | file | content |
//! | --- | --- |
//! | `bundle.json` | a [`Bundle`]: the inputs of the run, and its result |
//! | `story.txt` | the failure, described for a person |
//! | `plan.txt` | the fault plan, shrunk; it can be edited and passed back with `--plan` |
//! | `plan.drawn.txt` | the plan before shrinking, if it was shrunk |
//! | `events.txt` | the last two thousand events |
//! | `first.trace`, `second.trace` | both traces of a run that isn't reproducible |

use crate::lab::plan::text::PlanError;
use crate::lab::scenario::{Options, Report};
use crate::world::property::PropertyKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The version of the file's format. A reader refuses every other version.
const FORMAT: u32 = 1;

/// The name of the file in a bundle's folder.
pub const FILE: &str = "bundle.json";

/// All files that a bundle may have.
pub(crate) const FILES: [&str; 7] =
    [FILE, "story.txt", "plan.txt", "plan.drawn.txt", "events.txt", "first.trace", "second.trace"];

/// A failing run: its inputs and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The format's version: 1.
    pub format: u32,
    /// The version of this crate that wrote it.
    pub version: String,
    /// The scenario's name.
    pub scenario: String,
    /// The world's seed.
    pub seed: u64,
    /// The scheduler's seed.
    pub scheduler_seed: u64,
    /// Knobs that aren't at their default.
    pub knobs: BTreeMap<String, u64>,
    /// The fault plan as [text](crate::lab::plan::text); `None` for a scenario that starts no faults.
    pub plan: Option<String>,
    /// The kind of the property that broke, in a word.
    pub kind: String,
    /// The broken property.
    pub property: String,
    /// The observation that contradicts it.
    pub seen: String,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Whether a second run gave the same result; `None` if none was made.
    pub reproducible: Option<bool>,
    /// "14 faults → 2, in 61 runs", if it was shrunk.
    pub shrunk: Option<String>,
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
}

impl Bundle {
    /// The bundle of a failing run; `None` for a run that held.
    pub fn of(report: &Report, reproducible: Option<bool>, shrunk: Option<String>) -> Option<Bundle> {
        let broken = report.verdict.as_ref().err()?;
        Some(Bundle {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: report.scenario.to_owned(),
            seed: report.options.seed,
            scheduler_seed: report.scheduler_seed,
            knobs: report.options.knobs.clone(),
            plan: report.plan.as_ref().map(|unleashed| unleashed.plan.to_string()),
            kind: broken.kind.as_str().to_owned(),
            property: broken.property.clone(),
            seen: broken.seen.clone(),
            digest: report.digest.clone(),
            events: report.events,
            reproducible,
            shrunk,
        })
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

    /// Writes `bundle.json` into an existing folder.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(folder.join(FILE), text)
    }

    /// The inputs of the run.
    ///
    /// # Errors
    /// If its plan can't be read.
    pub fn options(&self) -> Result<Options, BundleError> {
        let plan = self.plan.as_deref().map(str::parse).transpose()?;
        let scheduler_seed = Some(self.scheduler_seed);
        Ok(Options { seed: self.seed, scheduler_seed, knobs: self.knobs.clone(), plan })
    }

    /// Whether a run broke the same property.
    pub fn is_reproduced_by(&self, report: &Report) -> bool {
        let same =
            |kind: PropertyKind, property: &str| kind.as_str() == self.kind && property == self.property;
        report.verdict.as_ref().is_err_and(|broken| same(broken.kind, &broken.property))
    }
}
