//! Distributes runs to threads, and supervises the threads.
//!
//! A thread whose run stands still is abandoned, and another takes its place: a scenario that blocks must not stop a
//! sweep.

use super::book::Book;
use super::entry::RunEntry;
use super::report::StuckRun;
use super::{Sweep, SweepEvent};
use crate::lab::scenario::{Report, Scenario};
use crate::lab::stall::{LOOK_EVERY, StallWatch};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a sweep that was told to stop waits for its active runs; they take seconds.
const GRACE: Duration = Duration::from_secs(5);

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
    /// Runs of the ledger that haven't been met.
    known_left: AtomicU64,
    /// The watch over each active run, by its place.
    running: Mutex<BTreeMap<u64, StallWatch>>,
}

/// A message of a thread.
enum Message {
    /// A run came to its end.
    Report(RunEntry, Box<Report>),
    /// The ledger has this run.
    Known(RunEntry),
    /// The ledger has this run, which was given up.
    KnownStuck(StuckRun),
    /// The thread has no more work.
    Done,
}

impl Deal {
    /// Makes the runs.
    pub(super) fn run(self, book: &mut Book<'_>, told: &mut dyn FnMut(SweepEvent<'_>)) {
        if self.scenarios.is_empty() {
            return;
        }
        let (begun, jobs, sweep) = (self.begun, self.sweep.jobs.max(1), self.sweep.clone());
        let work = Arc::new(SharedWork {
            known_left: AtomicU64::new(sweep.known.len() as u64),
            deal: self,
            next: AtomicU64::new(0),
            running: Mutex::default(),
        });
        let (sender, receiver) = mpsc::channel();
        let sit_down = || {
            let (work, sender) = (work.clone(), sender.clone());
            drop(thread::spawn(move || work.work(&sender)));
        };
        (0..jobs).for_each(|_| sit_down());
        let (mut working, mut told_at, mut stopped_at) = (jobs, begun, None);
        while working > 0 {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(Message::Report(entry, report)) => {
                    let times = book.enter(&entry, Some(&report));
                    told(SweepEvent::Run { entry: &entry, report: &report, times });
                }
                Ok(Message::Known(entry)) => book.enter_known(&entry),
                Ok(Message::KnownStuck(stuck)) => book.give_up(stuck),
                Ok(Message::Done) => working -= 1,
                Err(_) => {}
            }
            if sweep.is_stopped() && stopped_at.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return;
            }
            if told_at.elapsed() < LOOK_EVERY {
                continue;
            }
            told_at = Instant::now();
            told(SweepEvent::Progress(book.progress(begun.elapsed())));
            for stuck in work.give_up(sweep.patience) {
                told(SweepEvent::Stuck(&stuck));
                book.give_up(stuck);
                sit_down();
            }
        }
    }
}

impl SharedWork {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, StallWatch>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one run after the other, until none is left or the current one has been given up.
    fn work(&self, sender: &Sender<Message>) {
        let Deal { sweep, runs, begun, place, .. } = &self.deal;
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= runs.unwrap_or(u64::MAX) {
                break;
            }
            if !sweep.is_mine(at, self.deal.scenarios.len() as u64) {
                continue;
            }
            let (scenario, number) = self.dealt(at);
            if let Some(known) = self.known(scenario, sweep.seed(number)) {
                let _ = sender.send(known);
                continue;
            }
            if sweep.is_stopped() || sweep.limit.is_some_and(|limit| begun.elapsed() >= limit) {
                // The ledger may have runs behind this one.
                match self.known_left.load(Ordering::Relaxed) {
                    0 => break,
                    _ => continue,
                }
            }
            self.running().insert(at, StallWatch::new(thread::current().id()));
            let since = Instant::now();
            let report = sweep.one(scenario, number);
            if self.running().remove(&at).is_none() {
                return;
            }
            let entry = RunEntry::of(place + at, &report, since.elapsed());
            let _ = sender.send(Message::Report(entry, Box::new(report)));
        }
        let _ = sender.send(Message::Done);
    }

    /// What the ledger has of a run.
    fn known(&self, scenario: &Scenario, seed: u64) -> Option<Message> {
        let known = &self.deal.sweep.known;
        let message = match known.run(scenario.name, seed) {
            Some(entry) => Message::Known(entry.clone()),
            None => Message::KnownStuck(known.stuck(scenario.name, seed)?.clone()),
        };
        self.known_left.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }

    /// The scenario of the run at a place, and the number of its seed.
    fn dealt(&self, at: u64) -> (&Scenario, u64) {
        let count = self.deal.scenarios.len() as u64;
        (&self.deal.scenarios[(at % count) as usize], self.deal.number + at / count)
    }

    /// Removes the runs that stand still.
    fn give_up(&self, patience: Duration) -> Vec<StuckRun> {
        let mut stuck = Vec::new();
        self.running().retain(|at, watch| {
            let Some(stalled) = watch.look(patience) else { return true };
            let scenario = self.dealt(*at).0.name.to_owned();
            let place = Some(self.deal.place + at);
            stuck.push(StuckRun {
                place,
                scenario,
                seed: stalled.seed,
                after: stalled.after,
                doing: stalled.doing,
            });
            false
        });
        stuck
    }
}
