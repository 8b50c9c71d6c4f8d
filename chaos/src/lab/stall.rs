//! Work that is watched from another thread: a run in which a poll doesn't return must not silence the program.

use crate::world::panics::as_silent;
use crate::world::pulse::{Pulse, TIME_MOVES_ON, in_progress};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// The real time without a poll after which a run is given up. Polls take microseconds, the slowest of them seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a run is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The most that passes between two looks of a process that wasn't itself stopped or starved.
const LOOK_MOST: Duration = Duration::from_secs(2);

/// Why work was given up. Its thread is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// A run stands still.
    Stall(StalledRun),
    /// The caller has no more time.
    Stopped,
}

/// A run in which a poll doesn't return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StalledRun {
    pub(crate) seed: u64,
    /// Real time without a poll.
    pub(crate) after: Duration,
    /// The task that is being polled.
    pub(crate) doing: String,
}

impl fmt::Display for StalledRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StalledRun { seed, after, doing } = self;
        write!(
            f,
            "the run of seed {seed} stands still ({TIME_MOVES_ON}): no poll has returned for {after:.0?} of real time; {doing}"
        )
    }
}

/// Watches the runs that one thread waits for.
#[derive(Debug)]
pub(crate) struct StallWatch {
    waiter: ThreadId,
    /// The run and its polls at the last look.
    seen: Option<(u64, u64)>,
    looked: Instant,
    silent: Duration,
}

impl StallWatch {
    /// Watches the runs for which `waiter` waits.
    pub(crate) fn new(waiter: ThreadId) -> StallWatch {
        StallWatch { waiter, seen: None, looked: Instant::now(), silent: Duration::ZERO }
    }

    /// Looks at the current run; returns it if it has made no poll for `patience`.
    pub(crate) fn look(&mut self, patience: Duration) -> Option<StalledRun> {
        let passed = self.looked.elapsed().min(LOOK_MOST);
        self.looked = Instant::now();
        let pulse: Option<Arc<Pulse>> = in_progress().into_iter().find(|pulse| pulse.waiter == self.waiter);
        let seen = pulse.as_ref().map(|pulse| (pulse.number, pulse.polls()));
        let stays = seen.is_some() && seen == self.seen;
        self.silent = if stays { self.silent + passed } else { Duration::ZERO };
        self.seen = seen;
        let pulse = pulse.filter(|_| self.silent > patience)?;
        Some(StalledRun { seed: pulse.seed, after: self.silent, doing: pulse.doing() })
    }
}

/// Does work on another thread, and gives it up if one of its runs stands still for `patience`, or when `stop` is set.
pub(crate) fn attended<T: Send + 'static>(
    patience: Duration,
    stop: &AtomicBool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GivenUp> {
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn(as_silent(move || {
        // A caller that has given up doesn't listen.
        let _ = sender.send(work());
    }));
    let mut watch = StallWatch::new(worker.thread().id());
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Disconnected) => {
                let payload = worker.join().expect_err("it ended without a result, so it panicked");
                std::panic::resume_unwind(payload);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if stop.load(Ordering::Relaxed) {
            return Err(GivenUp::Stopped);
        }
        if let Some(stalled) = watch.look(patience) {
            return Err(GivenUp::Stall(stalled));
        }
    }
}
