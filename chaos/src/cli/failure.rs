//! Tells the failures of a sweep or of an exploration at its end: each is shrunk and explained.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::lab::scenario::{Report, Scenario};
use crate::lab::shrink::{Shrinker, Shrunk};
use crate::lab::stall::{GivenUp, attended};
use crate::lab::story::{Story, Teller, explain};
use crate::world::property::PropertyKind;

use super::args::Usage;
use super::line::{self, RunLine};

/// Failures that are shrunk and explained; each further failure gets one line.
pub(crate) const STORIES: usize = 5;

/// How failures are told.
pub(crate) struct FailureTeller<'a> {
    pub(crate) teller: &'a Teller,
    pub(crate) json: bool,
    /// The most runs to shrink one.
    pub(crate) shrink_runs: u32,
    /// The number of threads for that.
    pub(crate) jobs: usize,
    pub(crate) patience: Duration,
    pub(crate) stop: &'a AtomicBool,
}

/// A failure to be told.
pub(crate) struct Failed<M> {
    pub(crate) scenario: Scenario,
    /// The run's name, as in "seed 7".
    pub(crate) run: String,
    pub(crate) kind: Option<PropertyKind>,
    /// Its report, which may have to be made.
    pub(crate) report: M,
}

impl FailureTeller<'_> {
    /// Shrinks a failure and tells its story; returns the kind of property that the story reports broken. Nothing is
    /// told if one of the runs stands still or the command is stopped: then the small bundle stays.
    pub(crate) fn tell<M>(&self, failed: Failed<M>) -> Result<PropertyKind, Usage>
    where
        M: FnOnce() -> Report + Send + 'static,
    {
        let Failed { scenario, run, kind, report } = failed;
        let teller = self.teller.clone();
        let shrinker =
            Shrinker { scenario, runs: self.shrink_runs, jobs: self.jobs, patience: self.patience };
        let told = attended(self.patience, self.stop, move || explained(&teller, &shrinker, kind, &report()));
        let (report, small, story) = match told {
            Ok(explained) => explained.map_err(|error| error.to_string())?,
            Err(why) => {
                let name = scenario.name;
                match why {
                    GivenUp::Stall(stalled) => eprintln!("{name} with {run} was not shrunk: {stalled}"),
                    GivenUp::Stopped => eprintln!("{name} with {run} was not shrunk: interrupted"),
                }
                return Ok(kind.unwrap_or(PropertyKind::Liveness));
            }
        };
        let report = small.map_or(report, |small| small.report);
        if self.json {
            let told = Report { verdict: Err(story.broken.clone()), ..report };
            line::print(&RunLine::of("failure", &told, Some(story.bundle.display().to_string())));
        }
        eprintln!("{}", story.text);
        Ok(story.broken.kind)
    }
}

/// A failure, shrunk and explained.
fn explained(
    teller: &Teller,
    shrinker: &Shrinker,
    kind: Option<PropertyKind>,
    report: &Report,
) -> io::Result<(Report, Option<Shrunk>, Story)> {
    let is_determinism = kind == Some(PropertyKind::Reproducibility);
    let small = (!is_determinism).then(|| shrinker.shrink(report, &mut |step| eprintln!("{step}")));
    let story = explain(teller, &shrinker.scenario, report, small.as_ref())?;
    Ok((report.clone(), small, story))
}
