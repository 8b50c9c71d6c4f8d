//! Scenarios, their knobs, and the reports of their runs.
//!
//! A [`Scenario`] is a body with metadata: its name and purpose, its knobs, the faults that a seed may draw for it,
//! the marks that some run of it has to reach. [`Scenario::run`] makes one run of it, as a function of its
//! [`Options`]; sweeps, shrinking and replays consist of such runs.

use crate::lab::faults::{Account, Injector, StartedPlan};
use crate::lab::plan::draw::draw;
use crate::lab::plan::{FaultKind, Plan, Targets};
use crate::lab::points::Point;
use crate::lab::run::{Failure, Run};
use crate::world::World;
use crate::world::host::Host;
use crate::world::property::{PropertyKind, Violation};
use crate::world::recipe::{Branch, Recipe};
use crate::world::watch::{RecordingOptions, Recordings};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::time::Duration;

/// The result of a scenario for a run that held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The end state as sorted text without times or random counts: the content of a snapshot.
    pub state: String,
    /// Further counts for a reader, which may change with every draw.
    pub notes: String,
}

/// The result of a run that held, or the property that broke.
pub type RunResult = Result<Passed, Violation>;

/// The quantity that a knob sets, in the order in which a shrinker reduces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnobKind {
    /// The amount of work.
    Work,
    /// The number of hosts.
    Hosts,
    /// How long something goes on.
    Length,
}

/// A numeric parameter of a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Its name, for `--set name=value`.
    pub name: &'static str,
    /// Its description, with its unit.
    pub about: &'static str,
    /// Its value unless set.
    pub default: u64,
    /// The least value with which the scenario makes sense.
    pub least: u64,
    /// The quantity that it sets.
    pub turns: KnobKind,
}

/// A rare path that some run has to take.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The text given to [`sometimes!`](crate::sometimes).
    pub name: &'static str,
    /// From this number of the scenario's runs on, its absence means that a sweep is vacuous.
    pub within: u32,
}

impl Mark {
    /// A mark that must be reached within 300 runs.
    pub const fn new(name: &'static str) -> Mark {
        Mark { name, within: 300 }
    }

    /// A mark that must be reached within `within` runs.
    pub const fn within(name: &'static str, within: u32) -> Mark {
        Mark { name, within }
    }
}

/// The purpose of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A proof: a run that breaks a property is a failure.
    Proof,
    /// An observation: runs are reported, and liveness isn't asserted. Safety and the absence of panics are
    /// asserted.
    Observation,
    /// A canary: it has a planted bug that every sweep must find. Finding it isn't a failure.
    Canary,
}

/// The body of a scenario.
pub type Body = fn(Trial) -> Pin<Box<dyn Future<Output = RunResult> + Send>>;

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// The property that it proves, in one line.
    pub about: &'static str,
    /// Its purpose.
    pub purpose: Purpose,
    /// Its knobs.
    pub knobs: &'static [Knob],
    /// The kinds of fault that a seed may draw for it, if it [starts](Trial::start_faults) any.
    pub faults: &'static [FaultKind],
    /// The points of its program that the fault `buggify` may turn on. In a long sweep each has to fire.
    pub points: &'static [Point],
    /// The marks that a sweep over it must reach.
    pub marks: &'static [Mark],
    /// The virtual time after which a run has failed.
    pub time_limit: Duration,
    /// Its code.
    pub body: Body,
}

/// The input of a body: the world, and this run's settings.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The world.
    pub world: World,
    knobs: BTreeMap<&'static str, u64>,
    faults: &'static [FaultKind],
    points: &'static [Point],
    /// The plan that the run was given.
    plan: Option<Plan>,
    injector: Injector,
}

impl Trial {
    /// The value of a knob.
    ///
    /// # Panics
    /// If the scenario has no knob of that name.
    pub fn knob(&self, name: &str) -> u64 {
        *self.knobs.get(name).unwrap_or_else(|| panic!("the scenario has no knob {name}"))
    }

    /// Starts faults, from now on and in the background: those of the plan that the run was given, or else of a plan
    /// that the seed draws of the scenario's [`faults`](crate::Scenario::faults) for these targets, all of it over
    /// after `span`. Returns at once.
    ///
    /// # Panics
    /// If faults have been started in this run before.
    pub fn start_faults(&self, targets: &Targets, span: Duration) {
        let (plan, drawn) = match &self.plan {
            Some(plan) => (plan.clone(), None),
            None => {
                let drawn = draw(self.world.seed(), self.faults, self.points, targets, span);
                (drawn.plan, Some(drawn.options))
            }
        };
        self.injector.start(plan, drawn);
    }

    /// Ends every fault: links are as before, partitions mended, boxes on, hosts back in their networks, started,
    /// continued and awake. Clocks stay as they are. Then it waits while a packet can still be
    /// [held back](Plan::held_back). After it, liveness can be checked.
    pub async fn heal(&self) {
        self.injector.heal().await;
    }

    /// Like [`heal`](Trial::heal), but only for faults that touch `core`: its hosts, the boxes that they are behind,
    /// partitions among them, and the links of the core. No fault begins anywhere, but hosts outside the core that
    /// are down, stalled or cut off stay so until everything is healed, and the core has to cope with that.
    pub async fn heal_core(&self, core: &[Host]) {
        self.injector.heal_core(core).await;
    }

    /// The plan in use; empty until faults are started.
    pub fn plan(&self) -> Plan {
        self.injector.plan()
    }
}

/// The inputs of which a run is a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The world's seed.
    pub seed: u64,
    /// The scheduler's seed; derived from the world's if left out.
    pub scheduler_seed: Option<u64>,
    /// Knobs that aren't at their default.
    pub knobs: BTreeMap<String, u64>,
    /// The faults; drawn by the seed if left out.
    pub plan: Option<Plan>,
    /// Where the run leaves that of its seeds.
    pub recipe: Recipe,
}

impl Options {
    /// A run of `seed`, everything else at its default.
    pub fn seed(seed: u64) -> Options {
        Options { seed, ..Options::default() }
    }

    /// The name of the run's files: `toy-7`, or `toy-7-120.3` if it has a recipe.
    pub(crate) fn file_name(&self, scenario: &str) -> String {
        let branches = self.recipe.branches().iter().map(|Branch { event, seed }| format!("-{event}.{seed}"));
        format!("{scenario}-{}{}", self.seed, branches.collect::<String>())
    }

    /// The name of the run among those of its scenario: "seed 7", or "seed 7 and recipe 120:3".
    pub fn named(&self) -> String {
        match self.recipe.is_empty() {
            true => format!("seed {}", self.seed),
            false => format!("seed {} and recipe {}", self.seed, self.recipe),
        }
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// Its options.
    pub options: Options,
    /// The scheduler's seed that it was run with.
    pub scheduler_seed: u64,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Virtual time that it took.
    pub elapsed: Duration,
    /// Packets that left an interface.
    pub packets: u64,
    /// The marks that it reached.
    pub marks: BTreeSet<&'static str>,
    /// The fault plan that was started, if there was one.
    pub plan: Option<StartedPlan>,
    /// Its verdict.
    pub verdict: RunResult,
}

impl Report {
    /// A short description of a failure: the broken property, its place, and the seed that repeats the run.
    /// [`story::explain`](crate::lab::story::explain) gives the full description. Empty for a run that held.
    pub fn story(&self) -> String {
        let Err(broken) = &self.verdict else { return String::new() };
        let (scenario, seed) = (self.scenario, self.options.seed);
        let recipe = match self.options.recipe.is_empty() {
            true => String::new(),
            false => format!(" --recipe {}", self.options.recipe),
        };
        format!(
            "{scenario} with {}: {broken}\n  at {:?}, {}:{}\nreplay: cargo chaos run {scenario} --seed {seed}{recipe}\n",
            self.options.named(),
            broken.at,
            broken.file,
            broken.line,
        )
    }
}

/// From this number of runs on, a point that never fired means that a sweep is vacuous. One of dozens is on in a run.
const FIRES_WITHIN: u32 = 2_000;

/// The default limit of a run's virtual time.
const TIME_LIMIT: Duration = Duration::from_secs(600);

impl Scenario {
    /// A proof without knobs, faults and marks; the fields are public, so that they can be set.
    pub const fn new(name: &'static str, about: &'static str, body: Body) -> Scenario {
        Scenario {
            name,
            about,
            purpose: Purpose::Proof,
            knobs: &[],
            faults: &[],
            points: &[],
            marks: &[],
            time_limit: TIME_LIMIT,
            body,
        }
    }

    /// Makes one run.
    pub fn run(&self, options: &Options) -> Report {
        self.watched(options, &RecordingOptions::default()).0
    }

    /// Makes one run with the recordings that a reader requests, and returns these too.
    ///
    /// # Errors
    /// If a requested file can't be written. This isn't a failure of the run.
    pub fn run_watched(
        &self,
        options: &Options,
        watching: &RecordingOptions,
    ) -> io::Result<(Report, Recordings)> {
        match self.watched(options, watching) {
            (_, _, Some(why)) => Err(io::Error::other(why)),
            (report, sight, None) => Ok((report, sight)),
        }
    }

    /// Makes one run; the last value is the reason if its files could not be written.
    fn watched(
        &self,
        options: &Options,
        watching: &RecordingOptions,
    ) -> (Report, Recordings, Option<String>) {
        let mut run = Run::new(options.seed)
            .time_limit(self.time_limit)
            .recipe(options.recipe.clone())
            .watching(watching.clone());
        if let Some(seed) = options.scheduler_seed {
            run = run.scheduler_seed(seed);
        }
        let knobs = self.knobs.iter().map(|knob| (knob.name, self.knob(knob, options))).collect();
        let (body, faults, points, plan) = (self.body, self.faults, self.points, options.plan.clone());
        let account = Account::default();
        let own = account.clone();
        let outcome = run.run(move |world| {
            let injector = Injector::new(world, points, own);
            let body = body(Trial { world, knobs, faults, points, plan, injector });
            async move {
                let verdict = body.await;
                world.ended(&match &verdict {
                    Ok(passed) => format!("held\n{}{}", passed.state, passed.notes),
                    Err(broken) => broken.to_string(),
                });
                verdict
            }
        });
        let unwritten = match &outcome.result {
            Err(failure @ Failure::Capture(_)) => Some(failure.to_string()),
            _ => None,
        };
        let verdict = match outcome.result {
            Ok(verdict) => verdict,
            Err(Failure::Violation(broken)) => Err(broken),
            Err(failure) => Err(broken_by(&failure, outcome.elapsed)),
        };
        let report = Report {
            scenario: self.name,
            options: options.clone(),
            scheduler_seed: outcome.scheduler_seed,
            digest: outcome.digest,
            events: outcome.events,
            elapsed: outcome.elapsed,
            packets: outcome.stats.packets_sent,
            marks: outcome.marks,
            plan: account.report(),
            verdict,
        };
        (report, outcome.sight, unwritten)
    }

    /// Its marks, and those of its points, if a plan may turn them on.
    pub fn all_marks(&self) -> impl Iterator<Item = Mark> {
        let points = if self.faults.contains(&FaultKind::Buggify) { self.points } else { &[] };
        let of_points = points.iter().map(|point| Mark::within(point.name, FIRES_WITHIN));
        self.marks.iter().copied().chain(of_points)
    }

    /// The value of a knob in a run with these options.
    pub fn knob(&self, knob: &Knob, options: &Options) -> u64 {
        options.knobs.get(knob.name).copied().unwrap_or(knob.default).max(knob.least)
    }
}

/// The property that is broken when a run has no result.
fn broken_by(failure: &Failure, at: Duration) -> Violation {
    let seen = failure.to_string();
    // The place is a part of the property, so that a panic elsewhere is another failure.
    let place = seen.rsplit_once(", at ").map_or("", |(_, place)| place);
    let mut place = place.rsplitn(3, ':');
    let (_, line, file) = (place.next(), place.next(), place.next());
    let (file, line) = (file.unwrap_or("").to_owned(), line.and_then(|line| line.parse().ok()).unwrap_or(0));
    let (kind, property) = match failure {
        Failure::TimeLimit(_) => (PropertyKind::Liveness, "a run comes to its end".to_owned()),
        Failure::SelfCheck(_) => {
            (PropertyKind::Reproducibility, "time and entropy are the world's".to_owned())
        }
        _ if file.is_empty() => (PropertyKind::Panic, "nothing panics".to_owned()),
        _ => (PropertyKind::Panic, format!("nothing panics at {file}:{line}")),
    };
    Violation { property, kind, seen, at, host: None, file, line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        let failure = Failure::Panicked("no: a, at noon, at src/a.rs:12:7".to_owned());
        let broken = broken_by(&failure, Duration::from_secs(3));
        assert_eq!((broken.kind, broken.file.as_str(), broken.line), (PropertyKind::Panic, "src/a.rs", 12));
        assert_eq!(broken.property, "nothing panics at src/a.rs:12");
        let nowhere = broken_by(&Failure::Panicked("no".to_owned()), Duration::ZERO);
        assert_eq!(nowhere.property, "nothing panics");
    }
}
