//! Scenarios: what is run, with which knobs, and what a run leaves behind.
//!
//! A [`Scenario`] is data beside a body: its name and purpose, its knobs, the faults that a seed may draw for it,
//! the marks that some run of it has to reach. [`Scenario::run`] makes one run of it, a function of its [`Options`];
//! sweeping, shrinking and replaying are made of such runs.

use crate::plan::{FaultKind, Plan};
use crate::property::{Broken, Kind};
use crate::run::{Failure, Run, Unleashed};
use crate::watch::{Sight, Watching};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::time::Duration;

/// What a scenario says of a run that held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The end state as sorted text without times or counts of luck: what a snapshot keeps.
    pub state: String,
    /// What else was counted, for a reader; it may change with every draw.
    pub notes: String,
}

/// How it held, or the property that broke.
pub type Verdict = Result<Held, Broken>;

/// What a knob turns, in the order in which a shrinker turns them down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turns {
    /// The number of hosts.
    Hosts,
    /// The amount of work.
    Work,
    /// Anything else; never turned down by itself.
    Other,
}

/// A number that a scenario can be run with.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Its name, for `--set name=value`.
    pub name: &'static str,
    /// What it is, with its unit.
    pub about: &'static str,
    /// Its value unless set.
    pub default: u64,
    /// The least value with which the scenario makes sense.
    pub least: u64,
    /// What it turns.
    pub turns: Turns,
}

/// A rare path that some run has to take.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The text given to [`sometimes!`](crate::sometimes).
    pub name: &'static str,
    /// From so many runs of the scenario on, its absence means that a sweep is vacuous.
    pub within: u32,
}

impl Mark {
    /// A mark that 300 runs must reach.
    pub const fn new(name: &'static str) -> Mark {
        Mark { name, within: 300 }
    }

    /// A mark that `within` runs must reach.
    pub const fn within(name: &'static str, within: u32) -> Mark {
        Mark { name, within }
    }
}

/// What a scenario is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It proves something: a run that breaks is a failure.
    Proof,
    /// It is run and told: whether it comes to its end is not asserted. That nothing panics, and what must hold at every
    /// moment, is.
    Observation,
    /// It has a planted bug that every sweep must find; finding it is no failure.
    Canary,
}

/// The body of a scenario.
pub type Body = fn(Trial) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it proves, in one line.
    pub about: &'static str,
    /// What it is for.
    pub purpose: Purpose,
    /// Its knobs.
    pub knobs: &'static [Knob],
    /// The kinds of fault that a seed may draw for it, where it [unleashes](Trial::unleash) any.
    pub faults: &'static [FaultKind],
    /// The marks that a sweep over it must reach.
    pub marks: &'static [Mark],
    /// The virtual time after which a run has failed.
    pub time_limit: Duration,
    /// What happens.
    pub body: Body,
}

/// What a body is given: the world, and this run's settings.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The world.
    pub world: World,
    knobs: BTreeMap<&'static str, u64>,
    faults: &'static [FaultKind],
    plan: Option<Plan>,
}

impl Trial {
    pub(crate) fn fault_kinds(&self) -> &'static [FaultKind] {
        self.faults
    }

    /// The plan that the run was given.
    pub(crate) fn given_plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// The value of a knob.
    ///
    /// # Panics
    /// If the scenario has none of that name.
    pub fn knob(&self, name: &str) -> u64 {
        *self.knobs.get(name).unwrap_or_else(|| panic!("the scenario has no knob {name}"))
    }
}

/// What a run is a function of.
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
}

impl Options {
    /// A run of `seed`, everything else at its default.
    pub fn seed(seed: u64) -> Options {
        Options { seed, ..Options::default() }
    }
}

/// A run's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// What it was run with.
    pub options: Options,
    /// The scheduler's seed that it was run with.
    pub scheduler_seed: u64,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Virtual time that it took.
    pub elapsed: Duration,
    /// The marks that it reached.
    pub marks: BTreeSet<&'static str>,
    /// The fault plan that was let loose, if one was.
    pub plan: Option<Unleashed>,
    /// What came of it.
    pub verdict: Verdict,
}

impl Report {
    /// A failure in short: what broke, where, and the seed that runs it again.
    /// [`story::explain`](crate::story::explain) tells it in full. Empty for a run that held.
    pub fn story(&self) -> String {
        let Err(broken) = &self.verdict else { return String::new() };
        let (scenario, seed) = (self.scenario, self.options.seed);
        format!(
            "{scenario} with seed {seed}: {broken}\n  at {:?}, {}:{}\nreplay: cargo chaos run {scenario} --seed {seed}\n",
            broken.at, broken.file, broken.line,
        )
    }
}

/// Virtual time that a run may take unless its scenario says otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(600);

impl Scenario {
    /// A scenario that proves something, without knobs, faults and marks; the fields are public, to add them.
    pub const fn new(name: &'static str, about: &'static str, body: Body) -> Scenario {
        Scenario {
            name,
            about,
            purpose: Purpose::Proof,
            knobs: &[],
            faults: &[],
            marks: &[],
            time_limit: TIME_LIMIT,
            body,
        }
    }

    /// Makes one run.
    pub fn run(&self, options: &Options) -> Report {
        self.watched(options, &Watching::default()).0
    }

    /// Makes one run that a reader watches; returns besides what there was to be seen.
    ///
    /// # Errors
    /// If a file that the reader wants can't be written: that is no failure of the run.
    pub fn run_watched(&self, options: &Options, watching: &Watching) -> io::Result<(Report, Sight)> {
        match self.watched(options, watching) {
            (_, _, Some(why)) => Err(io::Error::other(why)),
            (report, sight, None) => Ok((report, sight)),
        }
    }

    /// Makes one run; the last is why its files could not be written.
    fn watched(&self, options: &Options, watching: &Watching) -> (Report, Sight, Option<String>) {
        let mut run = Run::new(options.seed).time_limit(self.time_limit).watching(watching.clone());
        if let Some(seed) = options.scheduler_seed {
            run = run.scheduler_seed(seed);
        }
        let knobs = self.knobs.iter().map(|knob| (knob.name, self.knob(knob, options))).collect();
        let (body, faults, plan) = (self.body, self.faults, options.plan.clone());
        let outcome = run.run(move |world| body(Trial { world, knobs, faults, plan }));
        let unwritten = match &outcome.result {
            Err(failure @ Failure::Capture(_)) => Some(failure.to_string()),
            _ => None,
        };
        let verdict = match outcome.result {
            Ok(verdict) => verdict,
            Err(Failure::Broken(broken)) => Err(broken),
            Err(failure) => Err(broken_by(&failure, outcome.elapsed)),
        };
        let report = Report {
            scenario: self.name,
            options: options.clone(),
            scheduler_seed: outcome.scheduler_seed,
            digest: outcome.digest,
            events: outcome.events,
            elapsed: outcome.elapsed,
            marks: outcome.marks,
            plan: outcome.plan,
            verdict,
        };
        (report, outcome.sight, unwritten)
    }

    /// The value of a knob in a run with these options.
    pub fn knob(&self, knob: &Knob, options: &Options) -> u64 {
        options.knobs.get(knob.name).copied().unwrap_or(knob.default).max(knob.least)
    }
}

/// The property that is broken when a run has no result.
fn broken_by(failure: &Failure, at: Duration) -> Broken {
    let seen = failure.to_string();
    // The place is a part of the property: another panic is another failure.
    let place = seen.rsplit_once(", at ").map_or("", |(_, place)| place);
    let mut place = place.rsplitn(3, ':');
    let (_, line, file) = (place.next(), place.next(), place.next());
    let (file, line) = (file.unwrap_or("").to_owned(), line.and_then(|line| line.parse().ok()).unwrap_or(0));
    let (kind, property) = match failure {
        Failure::TimeLimit(_) => (Kind::Liveness, "a run comes to its end".to_owned()),
        Failure::SelfCheck(_) => (Kind::Reproducibility, "time and entropy are the world's".to_owned()),
        _ if file.is_empty() => (Kind::Panic, "nothing panics".to_owned()),
        _ => (Kind::Panic, format!("nothing panics at {file}:{line}")),
    };
    Broken { property, kind, seen, at, host: None, file, line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        let failure = Failure::Panicked("no: a, at noon, at src/a.rs:12:7".to_owned());
        let broken = broken_by(&failure, Duration::from_secs(3));
        assert_eq!((broken.kind, broken.file.as_str(), broken.line), (Kind::Panic, "src/a.rs", 12));
        assert_eq!(broken.property, "nothing panics at src/a.rs:12");
        let nowhere = broken_by(&Failure::Panicked("no".to_owned()), Duration::ZERO);
        assert_eq!(nowhere.property, "nothing panics");
    }
}
