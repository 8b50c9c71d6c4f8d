//! Distributes runs to threads, and supervises the threads.
//!
//! A thread that takes too long for a run is abandoned, and another takes its place: a scenario that blocks must not
//! stop a sweep.

use super::book::Book;
use super::{Progress, StuckRun, Sweep};
use crate::lab::scenario::{Report, Scenario};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a sweep reports its progress, and checks its threads.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// A part of a sweep's runs.
pub(super) struct Deal {
    pub(super) sweep: Sweep,
    pub(super) scenarios: Vec<Scenario>,
    /// Runs distributed before it.
    pub(super) place: u64,
    /// Seeds that every scenario had before it.
    pub(super) number: u64,
    pub(super) runs: Option<u64>,
    /// When the sweep began.
    pub(super) begun: Instant,
}

/// The shared state of the threads.
struct SharedWork {
    deal: Deal,
    next: AtomicU64,
    /// The start of each active run, by its place.
    running: Mutex<BTreeMap<u64, Instant>>,
}

/// A message of a thread.
enum Message {
    /// The run at this place came to its end.
    Report(u64, Box<Report>),
    /// The thread has no more work.
    Done,
}

impl Deal {
    /// Makes the runs.
    pub(super) fn run(self, book: &mut Book<'_>, told: &mut dyn FnMut(&Progress)) {
        if self.scenarios.is_empty() {
            return;
        }
        let count = self.scenarios.len() as u64;
        book.expect(self.runs.map(|runs| self.sweep.count_mine(runs, count)));
        let (begun, jobs, patience) = (self.begun, self.sweep.jobs.max(1), self.sweep.patience);
        let work = Arc::new(SharedWork { deal: self, next: AtomicU64::new(0), running: Mutex::default() });
        let (sender, receiver) = mpsc::channel();
        let sit_down = || {
            let (work, sender) = (work.clone(), sender.clone());
            drop(thread::spawn(move || work.work(&sender)));
        };
        (0..jobs).for_each(|_| sit_down());
        let (mut working, mut told_at) = (jobs, begun);
        while working > 0 {
            match receiver.recv_timeout(TOLD_EVERY) {
                Ok(Message::Report(place, report)) => book.enter(place, *report),
                Ok(Message::Done) => working -= 1,
                Err(_) => {}
            }
            if told_at.elapsed() < TOLD_EVERY {
                continue;
            }
            told_at = Instant::now();
            told(&book.progress(begun.elapsed()));
            for stuck in work.give_up(patience) {
                book.give_up(stuck);
                sit_down();
            }
        }
    }
}

impl SharedWork {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one run after the other, until none is left or the current one has been given up.
    fn work(&self, sender: &Sender<Message>) {
        let Deal { sweep, runs, begun, place, .. } = &self.deal;
        while sweep.limit.is_none_or(|limit| begun.elapsed() < limit) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= runs.unwrap_or(u64::MAX) {
                break;
            }
            if !sweep.is_mine(at, self.deal.scenarios.len() as u64) {
                continue;
            }
            self.running().insert(at, Instant::now());
            let (scenario, number) = self.dealt(at);
            let report = sweep.one(scenario, number);
            if self.running().remove(&at).is_none() {
                return;
            }
            let _ = sender.send(Message::Report(place + at, Box::new(report)));
        }
        let _ = sender.send(Message::Done);
    }

    /// The scenario of the run at a place, and the number of its seed.
    fn dealt(&self, at: u64) -> (&Scenario, u64) {
        let count = self.deal.scenarios.len() as u64;
        (&self.deal.scenarios[(at % count) as usize], self.deal.number + at / count)
    }

    /// Removes the runs that take too long.
    fn give_up(&self, patience: Duration) -> Vec<StuckRun> {
        let late = self.running().extract_if(.., |_, since| since.elapsed() > patience).collect::<Vec<_>>();
        let stuck = late.into_iter().map(|(at, since)| {
            let (scenario, number) = self.dealt(at);
            let seed = self.deal.sweep.options(scenario, number).seed;
            StuckRun { name: scenario.name, seed, after: since.elapsed() }
        });
        stuck.collect()
    }
}
