//! Scenarios as ordinary tests: what the attribute [`chaos::test`](macro@crate::test) expands to.

mod done;
mod seeds;

use crate::lab::bundle::{self, Bundle};
use crate::lab::plan::FaultKind;
use crate::lab::scenario::{Body, Options, Passed, Report, RunResult, Scenario, Trial};
use crate::lab::shrink::Shrinker;
use crate::lab::stall::{GivenUp, PATIENCE, attended};
use crate::lab::story::{Teller, explain, shell_word};
use crate::world::World;
use crate::world::panics::silently;
use crate::world::property::Violation;
use crate::world::watch::RecordingOptions;
use done::Done;
use seeds::{BUNDLE, Seeds};
use std::any::Any;
use std::env;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The seeds of a test that says nothing about them: enough for a gross error, in a second or so.
const SEEDS: u64 = 20;

/// Runs to shrink the fault plan of a failure. Each shorter plan is a page less to read.
const SHRINK_RUNS: u32 = 100;

/// A test: its scenario, and the seeds that it runs.
#[derive(Debug, Clone)]
pub struct Test {
    /// Its path, from the crate on: `register::tests::a_write_is_kept`.
    pub path: &'static str,
    /// Its body.
    pub body: Body,
    /// How many seeds it runs.
    pub seeds: u64,
    /// The first seed.
    pub start: u64,
    /// The virtual time after which a run has failed.
    pub time_limit: Duration,
    /// The kinds of fault that a seed may draw.
    pub faults: &'static [FaultKind],
    /// Targets of log lines that a story tells, or beginnings of them.
    pub logs: &'static [&'static str],
}

/// What the argument of a test's function is made of.
#[diagnostic::on_unimplemented(
    message = "a `chaos::test` takes nothing, `world: chaos::World`, or `trial: chaos::Trial`"
)]
pub trait Given {
    /// The argument.
    fn given(trial: Trial) -> Self;
}

impl Given for World {
    fn given(trial: Trial) -> World {
        trial.world
    }
}

impl Given for Trial {
    fn given(trial: Trial) -> Trial {
        trial
    }
}

/// What a test's function may return.
#[diagnostic::on_unimplemented(
    message = "a `chaos::test` returns nothing, or `Result<(), E>` where `E: Debug + 'static`"
)]
pub trait Returned {
    /// Whether the run held.
    fn result(self) -> RunResult;
}

impl Returned for () {
    fn result(self) -> RunResult {
        Ok(Passed::default())
    }
}

impl<E: Debug + 'static> Returned for Result<(), E> {
    fn result(self) -> RunResult {
        let Err(error) = self else { return Ok(Passed::default()) };
        let seen = format!("{error:?}");
        let error: Box<dyn Any> = Box::new(error);
        Err(match error.downcast::<Violation>() {
            Ok(broken) => *broken,
            Err(_) => {
                Violation { file: String::new(), line: 0, ..Violation::safety("the test returns Ok", seen) }
            }
        })
    }
}

/// The body of a test that takes a world.
pub async fn in_world<R: Returned>(function: impl Future<Output = R>) -> RunResult {
    function.await.result()
}

/// The body of a test that takes nothing: it runs on the only host of its world.
pub fn on_one_host<F>(trial: Trial, function: F) -> Pin<Box<dyn Future<Output = RunResult> + Send>>
where
    F: Future<Output: Returned> + Send + 'static,
{
    Box::pin(async move {
        let (done, result) = tokio::sync::oneshot::channel();
        let host = trial.world.host("one").addr("10.0.0.1").addr("fd00::1");
        // Nothing awaits the task, so its panic ends the run, and the place of the panic is told.
        drop(host.run(async move { done.send(function.await.result()) }));
        result
            .await
            .unwrap_or_else(|_| Err(Violation::liveness("the test comes to its end", "its task is gone")))
    })
}

impl Test {
    /// A test of this path and body, everything else at its default.
    pub fn new(path: &'static str, body: Body) -> Test {
        let time_limit = Scenario::new(path, "", body).time_limit;
        Test { path, body, seeds: SEEDS, start: 1, time_limit, faults: &[], logs: &[] }
    }

    /// Runs the seeds for which the test or the environment asks.
    ///
    /// # Panics
    /// With the story of the first seed that fails. Also if all hold and the test names faults, but no run had any.
    #[track_caller]
    pub fn check(&self) {
        let held = Seeds::asked(self, |name| env::var(name).ok()).and_then(|seeds| self.run(&seeds));
        match held {
            Ok(done) => println!("{done}"),
            Err(story) => panic!("\n{story}"),
        }
    }

    /// Makes the runs; returns what they have done, for a person.
    fn run(&self, seeds: &Seeds) -> Result<String, String> {
        match seeds {
            Seeds::Alone(seed) => self.run_alone(Options::seed(*seed), None),
            Seeds::Bundle(bundle) => {
                let refused = |why: &str| format!("{BUNDLE}={}: {why}", bundle.display());
                let read = Bundle::load(bundle).map_err(|error| refused(&error.to_string()))?;
                if read.scenario != self.name() {
                    return Err(refused(&format!("a run of {}, and this is {}", read.scenario, self.name())));
                }
                let options = read.options().map_err(|error| refused(&error.to_string()))?;
                self.run_alone(options, Some(bundle))
            }
            &Seeds::Several { start, count } => {
                let mut done = Done::default();
                for n in 0..count {
                    done.add(&self.run_one(start.wrapping_add(n), n == 0)?);
                }
                if let Some(why) = done.is_vacuous().filter(|_| !self.faults.is_empty()) {
                    return Err(format!("{} names faults, but {why}\n", self.path));
                }
                let Done { seeds, faults, packets, .. } = done;
                Ok(format!("{}: {seeds} seeds, {faults} faults begun, {packets} packets", self.path))
            }
        }
    }

    /// Runs a seed; `twice` also compares it with a second run.
    fn run_one(&self, seed: u64, twice: bool) -> Result<Report, String> {
        let run = move |test: &Test| test.scenario().run(&Options::seed(seed));
        let report = self.attended(seed, run)?;
        let held = report.verdict.is_ok();
        if held && !twice {
            return Ok(report);
        }
        if held && is_same(&self.attended(seed, run)?, &report) {
            return Ok(report);
        }
        Err(self.told(report, None, false)?)
    }

    /// Makes one run, with all that can be recorded of it. A run of a bundle is told as it is.
    fn run_alone(&self, options: Options, bundle: Option<&Path>) -> Result<String, String> {
        let (seed, name) = (options.seed, options.file_name(self.name()));
        let own = options.clone();
        let report = self.attended(seed, move |test| test.scenario().run(&own))?;
        if report.verdict.is_err() {
            return Err(self.told(report, bundle, true)?);
        }
        let folder = self.folder();
        let [trace, packets] =
            [bundle::TRACE, bundle::PACKETS].map(|file| folder.join(format!("{name}.{file}")));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let watching = RecordingOptions {
            trace: Some(trace.clone()),
            capture: Some(packets.clone()),
            logs: self.logs,
            ..RecordingOptions::default()
        };
        let again = self.attended(seed, move |test| test.scenario().run_watched(&options, &watching))?;
        let (again, _) = again.map_err(|error| error.to_string())?;
        if !is_same(&again, &report) {
            return Err(self.told(report, bundle, true)?);
        }
        let faults = report.plan.as_ref().map_or(0, |plan| plan.begun);
        Ok(format!(
            "{} holds with seed {seed}: {} events, {faults} faults begun, {} packets, digest {}\nits whole trace: {}\nits packets: {}",
            self.path,
            report.events,
            report.packets,
            report.digest,
            trace.display(),
            packets.display()
        ))
    }

    /// The story of a run that failed, with the plan of its faults shrunk, unless it is that of a bundle.
    fn told(&self, report: Report, bundle: Option<&Path>, whole: bool) -> Result<String, String> {
        let seed = report.options.seed;
        let folder = if bundle.is_some() { self.folder().join("replayed") } else { self.folder() };
        let usual = bundle.map_or_else(
            || folder.join(report.options.file_name(self.name())),
            |bundle| bundle.canonicalize().unwrap_or_else(|_| bundle.to_owned()),
        );
        let of_bundle = format!("{BUNDLE}={}", shell_word(&usual.display().to_string()));
        let (logs, is_replay) = (self.logs, bundle.is_some());
        let work = move |test: &Test| {
            let has_faults = report.plan.as_ref().is_some_and(|plan| !plan.plan.is_empty());
            let small = (report.verdict.is_err() && has_faults && !is_replay)
                .then(|| Shrinker::new(test.scenario(), SHRINK_RUNS).shrink(&report, &mut |_| ()));
            let run = if small.is_some() || is_replay { of_bundle } else { format!("CHAOS_SEED={seed}") };
            let replay = Some(format!("{run} cargo test {} -- --exact", shell_word(test.filter())));
            let teller = Teller { replay, logs, whole, ..Teller::new(folder) };
            explain(&teller, &test.scenario(), &report, small.as_ref())
        };
        self.attended(seed, move |test| silently(|| work(test)))?
            .map(|story| story.text)
            .map_err(|error| format!("seed {seed} fails, and can't be told: {error}"))
    }

    /// Does work on another thread, which is given up if a run of it stands still.
    fn attended<T: Send + 'static>(
        &self,
        seed: u64,
        work: impl FnOnce(&Test) -> T + Send + 'static,
    ) -> Result<T, String> {
        let test = self.clone();
        attended(PATIENCE, &AtomicBool::new(false), move || work(&test)).map_err(|why| match why {
            GivenUp::Stall(stalled) => format!("{}: {stalled}\n", self.path),
            GivenUp::Stopped => format!("{} with seed {seed} was stopped", self.path),
        })
    }

    fn scenario(&self) -> Scenario {
        let (time_limit, faults) = (self.time_limit, self.faults);
        Scenario { time_limit, faults, ..Scenario::new(self.name(), "", self.body) }
    }

    /// Its function's name.
    fn name(&self) -> &'static str {
        self.filter().rsplit("::").next().unwrap_or(self.path)
    }

    /// Its name as the test harness has it, without the crate.
    fn filter(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, filter)| filter)
    }

    /// The folder of the test's module, for bundles.
    fn folder(&self) -> PathBuf {
        let module = self.path.rsplit_once("::").map_or("", |(module, _)| module);
        module.split("::").fold(target_folder().join("chaos"), |folder, name| folder.join(name))
    }
}

/// Whether two runs of a seed are the same.
fn is_same(one: &Report, other: &Report) -> bool {
    (&one.digest, &one.verdict) == (&other.digest, &other.verdict)
}

/// The folder into which cargo builds, in which this program is. Cargo marks it, unless the folder was there before.
fn target_folder() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let is_it = |folder: &&Path| folder.ends_with("target") || folder.join("CACHEDIR.TAG").is_file();
    program.ancestors().find(is_it).map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_broken_property_and_a_violation_stays_one() {
        let broken = Err::<(), _>("no luck").result().unwrap_err();
        assert_eq!((broken.property.as_str(), broken.seen.as_str()), ("the test returns Ok", "\"no luck\""));
        let own = Violation::liveness("it ends", "it doesn't");
        assert_eq!(Err::<(), _>(own.clone()).result(), Err(own));
        assert_eq!(Ok::<(), String>(()).result(), Ok(Passed::default()));
    }

    #[test]
    fn a_bundle_is_in_a_folder_of_its_module() {
        let test = Test::new("a::b::c", |trial| Box::pin(in_world(async move { drop(trial) })));
        assert!(test.folder().ends_with("chaos/a/b"), "{}", test.folder().display());
        assert_eq!((test.filter(), test.scenario().name), ("b::c", "c"));
    }
}
