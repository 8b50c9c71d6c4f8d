//! What a sweep keeps of each run: enough to count it, and to make it again.

use crate::lab::scenario::Report;
use crate::world::property::Violation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// A run of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// The run's place in the whole sweep, from 0 on; the shards of a sweep share its places.
    pub place: u64,
    /// The scenario's name.
    pub scenario: String,
    /// The world's seed.
    pub seed: u64,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// The property that broke; `None` for a run that held.
    pub broken: Option<Violation>,
    /// The marks that it reached.
    pub marks: BTreeSet<String>,
    /// Virtual time that it took.
    pub virtual_ns: u64,
    /// Real time that it took.
    pub real_ms: u64,
}

impl RunEntry {
    /// The entry of a run that took `real` of real time.
    pub(super) fn of(place: u64, report: &Report, real: Duration) -> RunEntry {
        RunEntry {
            place,
            scenario: report.scenario.to_owned(),
            seed: report.options.seed,
            digest: report.digest.clone(),
            broken: report.verdict.as_ref().err().cloned(),
            marks: report.marks.iter().map(|mark| (*mark).to_owned()).collect(),
            virtual_ns: u64::try_from(report.elapsed.as_nanos()).unwrap_or(u64::MAX),
            real_ms: u64::try_from(real.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Virtual time that it took.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.virtual_ns)
    }
}
