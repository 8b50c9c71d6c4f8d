//! Whether a run gets on: its polls are counted, so that one that stands still is noticed and its task named.
//!
//! A run stands still in two ways. Tasks that wake themselves keep the executor busy, so that virtual time only creeps:
//! each poll takes 50–100 ns of it. That is found inside of the world, by the number of polls in a span of virtual time,
//! and is therefore the same in every run of a seed. Or one poll doesn't return. That can only be found from another
//! thread, by the real time without a further poll: [`in_progress`] shows each run's [`Pulse`].

use super::findings::{PropertyKind, Violation};
use super::sim;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// The property of a run that stands still.
pub(crate) const TIME_MOVES_ON: &str = "virtual time moves on";

/// The virtual time in which polls are counted.
const SPAN: Duration = Duration::from_millis(100);

/// The number of polls in a [`SPAN`] from which on a run stands still. Polls alone take 50–100 ns of virtual time each,
/// so tasks that only wake themselves make at least a million in it. The busiest scenario of whole meshes makes ten
/// thousand.
const POLLS: u64 = 900_000;

/// The time is read once in this many polls, because reading it costs as much as a small poll.
const POLLS_PER_READING: u64 = 1 << 10;

/// The number of the world itself among the tasks: its network, timers and checks.
const WORLD: usize = 0;

/// The signs of life of a run, for observers on other threads.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// The thread that waits for the run.
    pub(crate) waiter: ThreadId,
    /// Distinguishes the runs of a process.
    pub(crate) number: u64,
    pub(crate) seed: u64,
    polls: AtomicU64,
    now_ns: AtomicU64,
    /// The number of the task that is being polled.
    polled: AtomicUsize,
    /// The descriptions of the tasks, by number.
    tasks: Mutex<Vec<String>>,
}

impl Pulse {
    /// The number of polls so far.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// The task that is being polled, and the virtual time.
    pub(crate) fn doing(&self) -> String {
        let tasks = lock(&self.tasks);
        let task = tasks.get(self.polled.load(Ordering::Relaxed)).map_or("a new task", String::as_str);
        let now = Duration::from_nanos(self.now_ns.load(Ordering::Relaxed));
        format!("{task} is being polled, at about {now:.3?} of virtual time, after {} polls", self.polls())
    }
}

/// The runs of this process.
static IN_PROGRESS: Mutex<Vec<Arc<Pulse>>> = Mutex::new(Vec::new());

/// The number of the last run.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The runs of this process that have not ended.
pub(crate) fn in_progress() -> Vec<Arc<Pulse>> {
    lock(&IN_PROGRESS).clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run is in progress until this is dropped.
#[derive(Debug)]
pub(crate) struct Running(Arc<Pulse>);

impl Running {
    /// A run of `seed` begins, for which the thread `waiter` waits.
    pub(crate) fn begin(seed: u64, waiter: ThreadId) -> Running {
        let pulse = Arc::new(Pulse {
            waiter,
            number: LAST.fetch_add(1, Ordering::Relaxed),
            seed,
            polls: AtomicU64::new(0),
            now_ns: AtomicU64::new(0),
            polled: AtomicUsize::new(WORLD),
            tasks: Mutex::new(vec!["the world itself".to_owned()]),
        });
        lock(&IN_PROGRESS).push(pulse.clone());
        Running(pulse)
    }

    /// Counts the polls of this thread's tasks from now on.
    pub(crate) fn count(&self) {
        let beat = Beat {
            pulse: self.0.clone(),
            polls: 0,
            tasks: BTreeMap::new(),
            span: Span::default(),
            stands_still: false,
        };
        BEAT.set(Some(beat));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        BEAT.set(None);
        lock(&IN_PROGRESS).retain(|pulse| pulse.number != self.0.number);
    }
}

/// The task of a future, as far as its polls are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// The place of the call that spawned it.
    spawned: &'static Location<'static>,
    /// Its number among the run's tasks, from its first poll on. Tasks of one host and place share a number.
    number: Option<usize>,
}

impl Counted {
    /// A task that was spawned at `spawned`.
    pub(crate) fn new(spawned: &'static Location<'static>) -> Counted {
        Counted { spawned, number: None }
    }

    /// A poll of it begins.
    pub(crate) fn begin(&mut self) {
        BEAT.with_borrow_mut(|beat| {
            let Some(beat) = beat else { return };
            let number = *self.number.get_or_insert_with(|| beat.number_of(self.spawned));
            beat.poll(number);
        });
    }

    /// Its poll has returned.
    pub(crate) fn end(self) {
        BEAT.with_borrow(|beat| {
            if let Some(beat) = beat {
                beat.pulse.polled.store(WORLD, Ordering::Relaxed);
            }
        });
    }
}

/// The world itself has been polled.
pub(crate) fn world_polled() {
    BEAT.with_borrow_mut(|beat| {
        if let Some(beat) = beat {
            beat.poll(WORLD);
        }
    });
}

thread_local! {
    static BEAT: RefCell<Option<Beat>> = const { RefCell::new(None) };
}

/// The host and the place of spawn of tasks.
type Origin = (Option<String>, &'static Location<'static>);

/// The counters of a run, on its own thread.
struct Beat {
    pulse: Arc<Pulse>,
    polls: u64,
    /// The number of the tasks of each origin.
    tasks: BTreeMap<Origin, usize>,
    span: Span,
    stands_still: bool,
}

/// The polls in a span of virtual time.
#[derive(Default)]
struct Span {
    began_ns: u64,
    polls: u64,
    /// Those of each task, by its number.
    of_tasks: Vec<u64>,
}

impl Beat {
    fn number_of(&mut self, spawned: &'static Location<'static>) -> usize {
        let next = self.tasks.len() + 1;
        let host = sim::is_running().then(sim::place_name).flatten();
        *self.tasks.entry((host, spawned)).or_insert_with_key(|origin| {
            lock(&self.pulse.tasks).push(Told(origin).to_string());
            next
        })
    }

    fn poll(&mut self, number: usize) {
        self.polls += 1;
        self.pulse.polls.store(self.polls, Ordering::Relaxed);
        self.pulse.polled.store(number, Ordering::Relaxed);
        if number >= self.span.of_tasks.len() {
            self.span.of_tasks.resize(number + 1, 0);
        }
        self.span.of_tasks[number] += 1;
        self.span.polls += 1;
        if self.polls.is_multiple_of(POLLS_PER_READING) {
            self.read_time();
        }
    }

    fn read_time(&mut self) {
        let Some(now_ns) = sim::try_with(|sim| sim.now_ns()) else { return };
        self.pulse.now_ns.store(now_ns, Ordering::Relaxed);
        if now_ns - self.span.began_ns >= SPAN.as_nanos() as u64 {
            self.span.began_ns = now_ns;
            self.span.polls = 0;
            self.span.of_tasks.fill(0);
        } else if self.span.polls >= POLLS && !self.stands_still {
            self.stands_still = true;
            self.tell(now_ns);
        }
    }

    /// Ends the run, naming the busiest task.
    fn tell(&self, now_ns: u64) {
        // Of equals the first, so that the answer is the same in every run.
        let busiest = (1..self.span.of_tasks.len()).rev().max_by_key(|number| self.span.of_tasks[*number]);
        let origin =
            busiest.and_then(|number| Some((self.tasks.iter().find(|(_, n)| **n == number)?.0, number)));
        let Some((origin, number)) = origin else { return };
        let (host, spawned) = origin;
        let since = Duration::from_nanos(now_ns - self.span.began_ns);
        let seen = format!(
            "{} polls in {since:.0?} of it, {} of them of {}",
            self.span.polls,
            self.span.of_tasks[number],
            Told(origin)
        );
        let broken = Violation {
            property: TIME_MOVES_ON.to_owned(),
            kind: PropertyKind::Liveness,
            seen,
            at: Duration::from_nanos(now_ns),
            host: host.clone(),
            file: spawned.file().to_owned(),
            line: spawned.line(),
        };
        sim::try_with(|sim| {
            sim.break_property(broken);
            sim.agenda.wake_driver();
        });
    }
}

/// Describes the tasks of an origin.
struct Told<'a>(&'a Origin);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, spawned) = self.0;
        match host {
            Some(host) => write!(f, "a task of host {host}")?,
            None => write!(f, "a task of the scenario")?,
        }
        write!(f, ", spawned at {}:{}", spawned.file(), spawned.line())
    }
}
