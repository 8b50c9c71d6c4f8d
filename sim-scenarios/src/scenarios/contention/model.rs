//! What a resource has to answer, by its documented rules alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nurl::internals::compute::lease::{Admission, KEEP, MAX_LIFE, Moment, Outcome, Recovered};
use nurl::internals::membership::limit::answer_limit;
use nurl::internals::ring::Epoch;

use super::{MAX_KEYS, MAX_TASKS};

/// A key and a task on it.
pub(super) type Name = (u8, u8);

/// A task that the resource knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// None while it is in progress.
    pub(super) outcome: Option<Outcome>,
    token: Epoch,
    /// On the resource's clock.
    expires: Duration,
}

impl Task {
    /// How its record goes on behind its status: `expires_ms:8 (little-endian) ‖ token:40`.
    pub(super) fn record(&self) -> Vec<u8> {
        let expires_ms = u64::try_from(self.expires.as_millis()).unwrap_or(u64::MAX);
        [&expires_ms.to_le_bytes()[..], &self.token.to_bytes()].concat()
    }
}

/// The resource's clock: it counts the time while the resource is open, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    at: Duration,
    /// When it showed that.
    seen: Instant,
    /// What the disk has of it.
    durable: Duration,
}

/// What a resource knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    /// None before the first opening.
    clock: Option<Clock>,
    floor: Epoch,
    pub(super) keys: BTreeMap<u8, Epoch>,
    pub(super) tasks: BTreeMap<Name, Task>,
    /// How often each task's effect was made in the store.
    pub(super) effects: BTreeMap<Name, u64>,
}

/// An answer, or the error in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Admission(Admission),
    Ended,
    EndedLate(Epoch),
    NotInProgress,
    Fenced(Epoch),
    TooFarAhead,
    TooLarge,
}

impl Model {
    pub(super) fn new() -> Model {
        let (keys, tasks, effects) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Model { clock: None, floor: Epoch::ZERO, keys, tasks, effects }
    }

    /// The resource is opened, which writes its clock.
    pub(super) fn open(&mut self, now: &Moment) {
        let at = self.clock.map_or(now.unix, |clock| clock.durable);
        self.clock = Some(Clock { at, seen: now.monotonic, durable: at });
        self.write_clock();
    }

    fn advance(&mut self, now: &Moment) -> Duration {
        let clock = self.clock.as_mut().expect("it is open");
        clock.at += now.monotonic.saturating_duration_since(clock.seen);
        clock.seen = now.monotonic;
        clock.at
    }

    /// The record counts milliseconds.
    fn write_clock(&mut self) {
        let clock = self.clock.as_mut().expect("it is open");
        clock.durable = Duration::from_millis(clock.at.as_millis() as u64);
    }

    /// The lowest token that a key accepts.
    pub(super) fn current(&self, key: u8) -> Epoch {
        self.keys.get(&key).copied().unwrap_or(self.floor)
    }

    /// The highest counter that was admitted.
    pub(super) fn highest(&self) -> u64 {
        self.keys.values().map(|token| token.counter).max().unwrap_or(0).max(self.floor.counter)
    }

    pub(super) fn in_progress(&self) -> BTreeSet<Name> {
        self.tasks.iter().filter(|(_, task)| task.outcome.is_none()).map(|(name, _)| *name).collect()
    }

    /// Drops the outcomes whose time is over; what is in progress has no end.
    pub(super) fn expire(&mut self, now: &Moment) -> usize {
        let at = self.advance(now);
        let before = self.tasks.len();
        // The records count milliseconds.
        self.tasks.retain(|_, task| task.outcome.is_none() || task.expires.as_millis() > at.as_millis());
        let over = before - self.tasks.len();
        if over > 0 {
            self.write_clock();
        }
        over
    }

    /// Asks for a task on a key. Beside the answer: whether another key had to go for it.
    pub(super) fn admit(&mut self, now: &Moment, name: Name, token: Epoch, life: Duration) -> (Answer, bool) {
        let answer = |admission| (Answer::Admission(admission), false);
        if life.as_secs() > MAX_LIFE.as_secs() {
            return (Answer::TooLarge, false);
        }
        self.expire(now);
        match self.tasks.get(&name) {
            Some(Task { outcome: None, .. }) => return answer(Admission::InProgress),
            Some(Task { outcome: Some(outcome), .. }) => return answer(Admission::Recorded(outcome.clone())),
            None => {}
        }
        if token.counter > answer_limit(now.unix) {
            return (Answer::TooFarAhead, false);
        }
        let current = self.current(name.0);
        if token < current {
            return answer(Admission::Fenced { current });
        }
        if self.tasks.len() >= MAX_TASKS {
            return answer(Admission::Busy);
        }
        let mut evicted = false;
        if !self.keys.contains_key(&name.0) && self.keys.len() >= MAX_KEYS {
            let idle = self.keys.iter().filter(|(key, _)| self.tasks.keys().all(|(of, _)| of != *key));
            let Some((victim, lowest)) = idle.min_by_key(|(_, token)| **token).map(|(key, at)| (*key, *at))
            else {
                return answer(Admission::Busy);
            };
            let floor = self.floor.max(lowest);
            if token < floor {
                return answer(Admission::Fenced { current: floor });
            }
            self.floor = floor;
            self.keys.remove(&victim);
            evicted = true;
        }
        self.keys.insert(name.0, token);
        let expires = self.advance(now) + life + KEEP;
        self.tasks.insert(name, Task { outcome: None, token, expires });
        self.write_clock();
        (Answer::Admission(Admission::Admitted), evicted)
    }

    /// Ends a task with an outcome; with an effect in the store, only under the key's token.
    pub(super) fn end(&mut self, name: Name, token: Epoch, outcome: &[u8], with_effect: bool) -> Answer {
        let current = self.current(name.0);
        let Some(task) = self.tasks.get_mut(&name).filter(|task| task.outcome.is_none()) else {
            return Answer::NotInProgress;
        };
        if token < task.token || (with_effect && token < current) {
            return Answer::Fenced(current);
        }
        task.outcome = Some(Outcome::Done(outcome.to_vec()));
        if with_effect {
            *self.effects.entry(name).or_default() += 1;
        }
        if token < current { Answer::EndedLate(current) } else { Answer::Ended }
    }

    /// Forgets a task that is in progress.
    pub(super) fn release(&mut self, name: Name, token: Epoch) -> Answer {
        let current = self.current(name.0);
        let Some(task) = self.tasks.get(&name).filter(|task| task.outcome.is_none()) else {
            return Answer::NotInProgress;
        };
        if token < task.token {
            return Answer::Fenced(current);
        }
        self.tasks.remove(&name);
        Answer::Ended
    }

    /// The token under which a task was admitted.
    pub(super) fn token(&self, name: Name) -> Option<Epoch> {
        self.tasks.get(&name).map(|task| task.token)
    }

    /// What the resource's owner said after a restart of what had been in progress.
    pub(super) fn recover(&mut self, name: Name, said: &Recovered) {
        let outcome = match said {
            Recovered::Done(outcome) => Outcome::Done(outcome.clone()),
            Recovered::Unknown => Outcome::Unknown,
            Recovered::RolledBack => {
                self.tasks.remove(&name);
                return;
            }
            Recovered::Running => return,
        };
        if let Some(task) = self.tasks.get_mut(&name) {
            task.outcome = Some(outcome);
        }
    }
}
