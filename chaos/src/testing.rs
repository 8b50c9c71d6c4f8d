//! Scenarios as ordinary tests: what the attribute [`chaos::test`](macro@crate::test) expands to.

use crate::lab::plan::FaultKind;
use crate::lab::scenario::{Body, Options, Passed, Report, RunResult, Scenario, Trial};
use crate::lab::shrink::Shrinker;
use crate::lab::stall::{GivenUp, PATIENCE, attended};
use crate::lab::story::{Teller, explain, shell_word};
use crate::world::World;
use crate::world::property::Violation;
use crate::world::watch::RecordingOptions;
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

/// The seeds to run.
#[derive(Debug, PartialEq, Eq)]
enum Seeds {
    /// One alone, told in full.
    Alone(u64),
    Several {
        start: u64,
        count: u64,
    },
}

impl Seeds {
    /// What the two variables say, `seed` and `seeds`.
    fn asked(test: &Test, seed: Option<&str>, seeds: Option<&str>) -> Result<Seeds, String> {
        let number = |name: &str, text: &str| {
            text.trim()
                .parse::<u64>()
                .map_err(|_| format!("{name}={text} is not a number from 0 to {}", u64::MAX))
        };
        if let Some(seed) = seed {
            return Ok(Seeds::Alone(number("CHAOS_SEED", seed)?));
        }
        let count = seeds.map(|seeds| number("CHAOS_SEEDS", seeds)).transpose()?.unwrap_or(test.seeds);
        if count == 0 {
            return Err("CHAOS_SEEDS=0 would test nothing".to_owned());
        }
        Ok(Seeds::Several { start: test.start, count })
    }
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
    /// With the story of the first seed that fails.
    #[track_caller]
    pub fn check(&self) {
        let variable = |name| env::var(name).ok();
        let (seed, seeds) = (variable("CHAOS_SEED"), variable("CHAOS_SEEDS"));
        let held = Seeds::asked(self, seed.as_deref(), seeds.as_deref()).and_then(|seeds| self.run(&seeds));
        if let Err(story) = held {
            panic!("\n{story}");
        }
    }

    fn run(&self, seeds: &Seeds) -> Result<(), String> {
        match *seeds {
            Seeds::Alone(seed) => self.run_alone(seed),
            Seeds::Several { start, count } => {
                (0..count).try_for_each(|n| self.run_one(start.wrapping_add(n), n == 0))
            }
        }
    }

    /// Runs a seed; `twice` also compares it with a second run.
    fn run_one(&self, seed: u64, twice: bool) -> Result<(), String> {
        let report = self.attended(seed, move |test| test.scenario().run(&Options::seed(seed)))?;
        if !twice && report.verdict.is_ok() { Ok(()) } else { self.judge(report) }
    }

    /// The story of a run that failed, or of which a second run differs.
    fn judge(&self, report: Report) -> Result<(), String> {
        if report.verdict.is_ok() {
            let seed = report.options.seed;
            let again = self.attended(seed, move |test| test.scenario().run(&Options::seed(seed)))?;
            if (&again.digest, &again.verdict) == (&report.digest, &report.verdict) {
                return Ok(());
            }
        }
        Err(self.told(report)?)
    }

    /// Runs one seed, with all that can be recorded of it.
    fn run_alone(&self, seed: u64) -> Result<(), String> {
        let folder = self.folder();
        let [trace, packets] =
            ["trace", "packets.pcapng"].map(|name| folder.join(format!("seed-{seed}.{name}")));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let watching = RecordingOptions {
            trace: Some(trace.clone()),
            capture: Some(packets.clone()),
            logs: self.logs,
            ..RecordingOptions::default()
        };
        let report =
            self.attended(seed, move |test| test.scenario().run_watched(&Options::seed(seed), &watching))?;
        let (report, _) = report.map_err(|error| error.to_string())?;
        let files = format!("its whole trace: {}\nits packets: {}", trace.display(), packets.display());
        let held = format!(
            "{} holds with seed {seed}: {} events, digest {}",
            self.path, report.events, report.digest
        );
        self.judge(report).map_err(|story| format!("{story}{files}\n"))?;
        println!("{held}\n{files}");
        Ok(())
    }

    /// The story of a run that failed, with the plan of its faults shrunk.
    fn told(&self, report: Report) -> Result<String, String> {
        let replay =
            format!("CHAOS_SEED={} cargo test {} -- --exact", report.options.seed, shell_word(self.filter()));
        let teller = Teller { replay: Some(replay), logs: self.logs, ..Teller::new(self.folder()) };
        let seed = report.options.seed;
        let explained = self.attended(seed, move |test| {
            let has_faults = report.plan.as_ref().is_some_and(|plan| !plan.plan.is_empty());
            let small = (report.verdict.is_err() && has_faults)
                .then(|| Shrinker::new(test.scenario(), SHRINK_RUNS).shrink(&report, &mut |_| ()));
            explain(&teller, &test.scenario(), &report, small.as_ref())
        })?;
        explained
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
        let name = self.filter().rsplit("::").next().unwrap_or(self.path);
        Scenario { time_limit, faults, ..Scenario::new(name, "", self.body) }
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

/// The folder into which cargo builds, in which this program is. Cargo marks it, unless the folder was there before.
fn target_folder() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let is_it = |folder: &&Path| folder.ends_with("target") || folder.join("CACHEDIR.TAG").is_file();
    program.ancestors().find(is_it).map_or_else(|| PathBuf::from("target"), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> Test {
        Test {
            seeds: 5,
            start: 100,
            ..Test::new("a::b::c", |trial| Box::pin(in_world(async move { drop(trial) })))
        }
    }

    #[test]
    fn the_environment_names_one_seed_or_a_number_of_them() {
        let asked = |seed, seeds| Seeds::asked(&test(), seed, seeds);
        assert_eq!(asked(None, None), Ok(Seeds::Several { start: 100, count: 5 }));
        assert_eq!(asked(None, Some("500")), Ok(Seeds::Several { start: 100, count: 500 }));
        assert_eq!(asked(Some("7"), Some("500")), Ok(Seeds::Alone(7)));
        assert!(asked(Some("seven"), None).unwrap_err().starts_with("CHAOS_SEED=seven is not a number"));
        assert!(asked(None, Some("0")).is_err());
    }

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
        let test = test();
        assert!(test.folder().ends_with("chaos/a/b"), "{}", test.folder().display());
        assert_eq!((test.filter(), test.scenario().name), ("b::c", "c"));
    }
}
