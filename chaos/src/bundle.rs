//! A failing run in a folder: all that is needed to make it again, on any machine, from the sources alone.
//!
//! | file | what |
//! | --- | --- |
//! | `bundle.json` | a [`Bundle`]: what the run is a function of, and what came of it |
//! | `story.txt` | the failure as a person wants it |
//! | `plan.txt` | the fault plan, shrunk, to be edited and given back with `--plan` |
//! | `plan.drawn.txt` | the plan as it was before, if it was shrunk |
//! | `events.txt` | the last two thousand events |
//! | `first.trace`, `second.trace` | both traces of a run that isn't reproducible |

use crate::plan::text::PlanError;
use crate::property::Kind;
use crate::scenario::{Options, Report};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The form of the file; a reader refuses any other.
const FORMAT: u32 = 1;

/// The name of the file in a bundle's folder.
pub const FILE: &str = "bundle.json";

/// All files that a bundle may have.
pub(crate) const FILES: [&str; 7] =
    [FILE, "story.txt", "plan.txt", "plan.drawn.txt", "events.txt", "first.trace", "second.trace"];

/// What a failing run is a function of, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// 1.
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
    /// The fault plan as [text](crate::plan::text); none for a scenario that lets no faults loose.
    pub plan: Option<String>,
    /// The kind of the property that broke, in a word.
    pub kind: String,
    /// The property.
    pub property: String,
    /// What was seen instead.
    pub seen: String,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Whether a second run was the same.
    pub reproducible: bool,
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
    /// It is one of another form.
    #[error("a bundle of format {0}; this is format {FORMAT}")]
    Format(u32),
    /// Its plan can't be read.
    #[error("its plan: {0}")]
    Plan(#[from] PlanError),
}

impl Bundle {
    /// The bundle of a failing run; none for one that held.
    pub fn of(report: &Report, reproducible: bool, shrunk: Option<String>) -> Option<Bundle> {
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
    /// If it isn't there, or isn't one.
    pub fn load(path: &Path) -> Result<Bundle, BundleError> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let bundle: Bundle = serde_json::from_slice(&std::fs::read(file)?)?;
        if bundle.format == FORMAT { Ok(bundle) } else { Err(BundleError::Format(bundle.format)) }
    }

    /// Writes `bundle.json` into a folder that is there.
    ///
    /// # Errors
    /// If it can't.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(folder.join(FILE), text)
    }

    /// What the run is a function of.
    ///
    /// # Errors
    /// If its plan can't be read.
    pub fn options(&self) -> Result<Options, BundleError> {
        let plan = self.plan.as_deref().map(str::parse).transpose()?;
        let scheduler_seed = Some(self.scheduler_seed);
        Ok(Options { seed: self.seed, scheduler_seed, knobs: self.knobs.clone(), plan })
    }

    /// Whether a run broke in the same way.
    pub fn is_reproduced_by(&self, report: &Report) -> bool {
        let same = |kind: Kind, property: &str| kind.as_str() == self.kind && property == self.property;
        report.verdict.as_ref().is_err_and(|broken| same(broken.kind, &broken.property))
    }
}
