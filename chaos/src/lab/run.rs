//! The runner: one world on one fresh thread, from its self-check to its digest.
//!
//! A run never aborts the process: a panic of the scenario, of a host's process or of Drop code, a failed self-check
//! and the limit of virtual time all become the outcome's error. A run ends by killing every node and letting the
//! executor drop its futures, because madsim itself drops no pending future.

use crate::seed::subseed;
use crate::wire::pcap::Pcap;
use crate::world::World;
use crate::world::logs::{Logs, keep_audible};
use crate::world::novelty::NoveltyWatch;
use crate::world::panics::{CatchPanic, as_silent, note_panic_locations, panic_message, panicked_at};
use crate::world::process;
use crate::world::property::{Violation, check_all};
use crate::world::pulse::{self, Running};
use crate::world::recipe::Recipe;
use crate::world::sim::{self, Sim};
use crate::world::stats::WorldStats;
use crate::world::watch::{RecordingOptions, Recordings, Watch};
use madsim::runtime::{Handle, Runtime};
use madsim::time::{Sleep, TimeHandle};
use std::collections::BTreeSet;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub use crate::lab::faults::StartedPlan;

/// The default limit of a run's virtual time.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The stack of a run's thread: futures of whole protocol stacks are large in builds without optimisation.
const STACK_BYTES: usize = 16 << 20;

/// Why a run has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The scenario, a host's process, a task that is not awaited, or Drop code panicked; the text is the panic's
    /// message.
    #[error("{0}")]
    Panicked(String),
    /// The scenario had not ended when the limit of virtual time was reached.
    #[error("the scenario had not ended after {0:?} of virtual time")]
    TimeLimit(Duration),
    /// Something that must be virtual isn't: the run would not be reproducible.
    #[error("self-check: {0}")]
    SelfCheck(String),
    /// A property was found broken.
    #[error("{0}")]
    Violation(Violation),
    /// The capture or the trace could not be written. A file that can't be created is reported before the world is
    /// made.
    #[error("can't write the capture or the trace: {0}")]
    Capture(String),
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct RunOutcome<T> {
    /// The world's seed.
    pub seed: u64,
    /// The scheduler's seed.
    pub scheduler_seed: u64,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Virtual time at the end.
    pub elapsed: Duration,
    /// The world's counters at the end.
    pub stats: WorldStats,
    /// The marks that were reached.
    pub marks: BTreeSet<&'static str>,
    /// The requested recordings.
    pub sight: Recordings,
    /// The scenario's return value.
    pub result: Result<T, Failure>,
}

/// A run and its settings.
#[derive(Debug, Clone)]
pub struct Run {
    seed: u64,
    scheduler_seed: u64,
    time_limit: Duration,
    recipe: Recipe,
    watching: RecordingOptions,
}

impl Run {
    /// A run of `seed`. The scheduler's seed is derived from it.
    pub fn new(seed: u64) -> Run {
        Run {
            seed,
            scheduler_seed: subseed(seed, "scheduler"),
            time_limit: TIME_LIMIT,
            recipe: Recipe::default(),
            watching: RecordingOptions::default(),
        }
    }

    /// Sets the scheduler's seed, which orders the tasks that are ready at one instant.
    #[must_use]
    pub fn scheduler_seed(mut self, scheduler_seed: u64) -> Run {
        self.scheduler_seed = scheduler_seed;
        self
    }

    /// Sets where the run leaves that of its seed.
    #[must_use]
    pub fn recipe(mut self, recipe: Recipe) -> Run {
        self.recipe = recipe;
        self
    }

    /// Sets the virtual time after which the run fails.
    #[must_use]
    pub fn time_limit(mut self, time_limit: Duration) -> Run {
        self.time_limit = time_limit;
        self
    }

    /// Writes every packet that is sent into a `.pcapng` file.
    #[must_use]
    pub fn capture(mut self, path: impl Into<PathBuf>) -> Run {
        self.watching.capture = Some(path.into());
        self
    }

    /// Keeps the last events for [`RunOutcome::sight`].
    #[must_use]
    pub fn keep_last(mut self, events: usize) -> Run {
        self.watching.last = events;
        self
    }

    /// Writes the whole trace as text.
    #[must_use]
    pub fn write_trace(mut self, path: impl Into<PathBuf>) -> Run {
        self.watching.trace = Some(path.into());
        self
    }

    /// Sets all recordings that a reader requests.
    #[must_use]
    pub fn watching(mut self, watching: RecordingOptions) -> Run {
        self.watching = watching;
        self
    }

    /// Runs a scenario to its end, on a separate thread.
    pub fn run<F, Fut, T>(self, scenario: F) -> RunOutcome<T>
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        warm_up();
        self.on_fresh_thread(scenario)
    }

    fn on_fresh_thread<F, Fut, T>(self, scenario: F) -> RunOutcome<T>
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let scheduler_seed = self.scheduler_seed;
        let expected = on_thread(move || fingerprint_of(scheduler_seed));
        let running = Running::begin(self.seed, thread::current().id());
        on_thread(move || self.on_this_thread(expected, &running, scenario))
    }

    fn on_this_thread<F, Fut, T>(self, expected: Fingerprint, running: &Running, scenario: F) -> RunOutcome<T>
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let runtime = Runtime::with_seed_and_config(self.scheduler_seed, madsim::Config::default());
        let mut ended = EndState::default();
        let result = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(self.world(expected, running, scenario, &mut ended))
        }));
        // Drop code of pending futures may have panicked before the world was taken away.
        let left = sim::replace(None);
        let result = result
            .unwrap_or_else(|payload| Err(Failure::Panicked(panic_message(&*payload) + &panicked_at())));
        if let Some(mut left) = left {
            ended = EndState::of(&mut left);
            ended.sight.add(left.record.trace.end_watch().unwrap_or_default());
        }
        RunOutcome {
            seed: self.seed,
            scheduler_seed: self.scheduler_seed,
            digest: ended.digest,
            events: ended.events,
            elapsed: ended.elapsed,
            stats: ended.stats,
            marks: ended.marks,
            sight: ended.sight,
            result,
        }
    }

    async fn world<F, Fut, T>(
        &self,
        expected: Fingerprint,
        running: &Running,
        scenario: F,
        ended: &mut EndState,
    ) -> Result<T, Failure>
    where
        F: FnOnce(World) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        self_check(expected)?;
        let time = TimeHandle::current();
        let handle = Handle::current();
        running.count();
        let mut sim = Sim::new(self.seed, &self.recipe, time.clone());
        sim.record.novelties = self.watching.novelties.then(NoveltyWatch::default);
        sim.map.request(self.watching.map);
        if let Some(path) = &self.watching.capture {
            sim.record.trace.capture(Pcap::create(path).map_err(capture_failed)?);
        }
        if let Some(watch) = Watch::begin(&self.watching).map_err(capture_failed)? {
            sim.record.trace.watch(watch);
        }
        drop(sim::replace(Some(Box::new(sim))));
        keep_audible();
        // Everything of a run is on this thread.
        let targets = self.watching.logs;
        let _logs = (!targets.is_empty()).then(|| tracing::subscriber::set_default(Logs { targets }));
        // The scenario doesn't run on the main node, which can't be killed.
        let node = handle.create_node().name("scenario").build();
        // The closure runs on that node too, so that a panic in it is a panic of the scenario.
        let body = node.spawn(CatchPanic::new(async move { scenario(World::new()).await }));
        let limit_ns = u64::try_from(self.time_limit.as_nanos()).unwrap_or(u64::MAX);
        let mut driver = Driver::new(time, limit_ns);
        let mut body = body;
        let result = std::future::poll_fn(|cx| {
            pulse::world_polled();
            let out_of_time = driver.poll(cx);
            check_all();
            if let Some(broken) = sim::with(|sim| sim.findings.take_broken()) {
                return Poll::Ready(Err(Failure::Violation(broken)));
            }
            if let Some(why) = sim::with(|sim| sim.findings.take_failure()) {
                return Poll::Ready(Err(Failure::Panicked(why)));
            }
            if let Poll::Ready(done) = Pin::new(&mut body).poll(cx) {
                return Poll::Ready(match done {
                    Ok(Ok(output)) => Ok(output),
                    Ok(Err(message)) => Err(Failure::Panicked(message + &panicked_at())),
                    Err(_) => Err(Failure::Panicked("the scenario was cancelled".to_owned())),
                });
            }
            if out_of_time { Poll::Ready(Err(Failure::TimeLimit(self.time_limit))) } else { Poll::Pending }
        })
        .await;
        drop(body);
        let next_draw = madsim::rand::RngCore::next_u64(&mut madsim::rand::thread_rng());
        let (nodes, captured) = sim::with(|sim| {
            sim.keep_map();
            let now_ns = sim.now_ns();
            sim.record.scheduler(now_ns, next_draw);
            *ended = EndState::of(sim);
            let captured = sim.record.trace.end_capture().and_then(|()| sim.record.trace.end_watch());
            let captured = captured.map(|seen| ended.sight.add(seen));
            (sim.hosts.places.keys().copied().collect::<Vec<_>>(), captured)
        });
        // The world stays in place while the futures' Drop code runs, but its digest is already taken.
        for node in nodes.into_iter().chain([node.id()]) {
            process::end_node(&handle, node);
        }
        // Time moves only when nothing is ready, so after this every killed future has been dropped.
        madsim::time::sleep(Duration::from_millis(1)).await;
        // A task that awaited a panicked task may have ended without polling its handle again.
        let unheard = sim::with(|sim| sim.findings.take_failure());
        let result = result.and_then(|output| unheard.map_or(Ok(output), |why| Err(Failure::Panicked(why))));
        drop(sim::replace(None));
        // Once more, for the contents of the wakers and closures inside the world.
        madsim::time::sleep(Duration::from_millis(1)).await;
        captured.map_err(capture_failed).and(result)
    }
}

/// Runs a scenario in the world of `seed`; see [`Run`] for further settings.
pub fn run<F, Fut, T>(seed: u64, scenario: F) -> RunOutcome<T>
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    Run::new(seed).run(scenario)
}

/// The values read from a world at its end.
#[derive(Default)]
struct EndState {
    digest: String,
    events: u64,
    elapsed: Duration,
    stats: WorldStats,
    marks: BTreeSet<&'static str>,
    sight: Recordings,
}

impl EndState {
    fn of(sim: &mut Sim) -> EndState {
        let novelties = sim.record.novelties.take().map(NoveltyWatch::into_reached).unwrap_or_default();
        EndState {
            digest: sim.finish(),
            events: sim.record.trace.records(),
            elapsed: Duration::from_nanos(sim.now_ns()),
            stats: sim.record.stats.clone(),
            marks: sim.findings.marks().clone(),
            sight: Recordings { map: sim.map.take(), novelties, ..Recordings::default() },
        }
    }
}

/// Advances the world with one madsim `Sleep`, reset to the next event.
struct Driver {
    sleep: Pin<Box<Sleep>>,
    time: TimeHandle,
    limit_ns: u64,
    /// Deadlines of madsim timers that are still to fire, the earliest last. Each poll of a `Sleep` makes a timer
    /// that can't be cancelled, so it is polled only for a deadline before all of these.
    armed: Vec<u64>,
}

impl Driver {
    fn new(time: TimeHandle, limit_ns: u64) -> Driver {
        Driver { sleep: Box::pin(time.sleep(Duration::ZERO)), time, limit_ns, armed: Vec::new() }
    }

    /// Handles the due events, and arms the timer for the next one. Returns whether the time limit is reached.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let base = self.time.now_instant() - self.time.elapsed();
        loop {
            let (next_ns, skip) = sim::with(|sim| {
                sim.agenda.set_driver(cx.waker());
                (sim.run_due(), sim.branches.take_skip())
            });
            for _ in 0..skip {
                madsim::rand::RngCore::next_u64(&mut madsim::rand::thread_rng());
            }
            let now_ns = self.time.elapsed().as_nanos() as u64;
            if now_ns >= self.limit_ns {
                return true;
            }
            while self.armed.last().is_some_and(|at_ns| *at_ns <= now_ns) {
                self.armed.pop();
            }
            let wanted_ns = next_ns.unwrap_or(u64::MAX).min(self.limit_ns);
            if self.armed.last().is_none_or(|at_ns| wanted_ns < *at_ns) {
                self.sleep.as_mut().reset(base + Duration::from_nanos(wanted_ns));
                if self.sleep.as_mut().poll(cx).is_ready() {
                    continue;
                }
                self.armed.push(wanted_ns);
            }
            let armed_ns = self.armed.last().copied().unwrap_or(u64::MAX);
            sim::with(|sim| sim.agenda.is_armed(armed_ns));
            return false;
        }
    }
}

fn capture_failed(error: io::Error) -> Failure {
    Failure::Capture(error.to_string())
}

fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().name("world".to_owned()).stack_size(STACK_BYTES);
    let thread = thread.spawn(as_silent(work));
    match thread.expect("the operating system gives a thread").join() {
        Ok(value) => value,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Globals that libraries build on first use must not make the first run differ from the second, so a process runs
/// one world before all others and ignores its result.
fn warm_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        note_panic_locations();
        Run::new(0).on_fresh_thread(|world| async move {
            world.host("warm-up").addr("10.0.0.1");
            world.sleep(Duration::from_millis(1)).await;
        });
    });
}

/// The values of ambient sources on a fresh thread under a scheduler seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    entropy: [u8; 16],
    hash: u64,
    instant: Duration,
    system: Duration,
}

fn fingerprint() -> Fingerprint {
    let mut entropy = [0; 16];
    getrandom::fill(&mut entropy).expect("madsim answers");
    let time = TimeHandle::current();
    Fingerprint {
        entropy,
        hash: RandomState::new().hash_one(0u64),
        instant: Instant::now() - (time.now_instant() - time.elapsed()),
        system: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
    }
}

fn fingerprint_of(scheduler_seed: u64) -> Fingerprint {
    let runtime = Runtime::with_seed_and_config(scheduler_seed, madsim::Config::default());
    runtime.block_on(async { fingerprint() })
}

/// Compares the values of ambient sources here with those on another thread with the same seed, at another moment:
/// they are equal only if madsim intercepts all of these sources.
fn self_check(expected: Fingerprint) -> Result<(), Failure> {
    let found = fingerprint();
    let differs = |what: &str| Err(Failure::SelfCheck(format!("{what} is not intercepted")));
    if found.entropy != expected.entropy {
        return differs("getrandom, and so rand,");
    }
    if found.hash != expected.hash {
        return differs("the seed of HashMap");
    }
    if found.instant != expected.instant {
        return differs("Instant::now");
    }
    if found.system != expected.system {
        return differs("SystemTime::now");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_fingerprint_fails_the_self_check() {
        let expected = on_thread(|| fingerprint_of(7));
        let other = on_thread(|| fingerprint_of(8));
        assert_ne!(expected, other);
        let checked = on_thread(move || {
            let runtime = Runtime::with_seed_and_config(7, madsim::Config::default());
            runtime.block_on(async { self_check(Fingerprint { system: other.system, ..expected }) })
        });
        assert_eq!(checked, Err(Failure::SelfCheck("SystemTime::now is not intercepted".to_owned())));
    }

    #[test]
    fn a_panic_of_the_scenario_is_an_error_with_its_message() {
        let outcome: RunOutcome<()> = run(1, |_| async { panic!("on purpose") });
        let message = outcome.result.unwrap_err().to_string();
        assert!(message.starts_with("on purpose, at chaos/src/lab/run.rs:"), "{message}");
    }

    #[test]
    fn a_scenario_that_waits_for_ever_ends_at_the_limit() {
        let limit = Duration::from_secs(5);
        let outcome = Run::new(1).time_limit(limit).run(|_| std::future::pending::<()>());
        assert_eq!(outcome.result, Err(Failure::TimeLimit(limit)));
    }
}
