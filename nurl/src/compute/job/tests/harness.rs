//! Nodes in one process, with virtual time, seeded delays, losses, partitions and deaths.
#![allow(clippy::disallowed_methods, reason = "the base of virtual time")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::{Rng as _, SeedableRng};

use super::super::*;
use crate::authority::account::Account;
use crate::authority::level::Level;
use crate::key::PublicKey;
use crate::kit::draw;
use crate::rt::Rng;

pub(super) fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A view: members in a fixed order of preference for every key.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) placed: Vec<PublicKey>,
    pub(super) live: BTreeSet<PublicKey>,
    /// The kinds that each member advertises; a member without an entry advertises every kind.
    pub(super) kinds: BTreeMap<PublicKey, BTreeSet<String>>,
}

impl View {
    pub(super) fn of(order: &[u8]) -> View {
        let placed: Vec<_> = order.iter().map(|n| key(*n)).collect();
        View { live: placed.iter().copied().collect(), placed, kinds: BTreeMap::new() }
    }
}

impl Placement for View {
    fn executors(&self, kind: &str, _key: &[u8]) -> Vec<PublicKey> {
        let advertises = |member: &PublicKey| self.kinds.get(member).is_none_or(|kinds| kinds.contains(kind));
        self.placed.iter().copied().filter(|m| self.live.contains(m) && advertises(m)).collect()
    }

    fn owners(&self, _key: &[u8], r: usize) -> Vec<PublicKey> {
        self.placed.iter().copied().take(r).collect()
    }

    fn has_kind(&self, kind: &str) -> bool {
        self.placed.iter().any(|member| self.kinds.get(member).is_none_or(|kinds| kinds.contains(kind)))
    }
}

pub(super) struct Node {
    pub(super) jobs: Jobs,
    pub(super) boot: u64,
    pub(super) up: bool,
    pub(super) events: Vec<JobEvent>,
    pub(super) view: View,
    /// Whether its disk takes epoch counters.
    pub(super) persists: bool,
}

/// The behaviour of a handler: node, payload, number of runs of the task so far → time and result.
pub(super) type Behaviour = dyn Fn(PublicKey, &[u8], usize) -> (Duration, Result<Bytes, JobError>);

enum Happening {
    Arrives { from: PublicKey, to: PublicKey, body: Bytes },
    NotDelivered { at: PublicKey, to: PublicKey },
    Ends { at: PublicKey, boot: u64, run: RunId, result: Result<Bytes, JobError> },
    Verdict { on: PublicKey, change: MemberChange },
}

/// Persists at once, like a disk without delay.
pub(super) fn persist(jobs: &mut Jobs) {
    while let Some(counter) = jobs.poll_persist() {
        jobs.on_persisted(counter);
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) nodes: BTreeMap<PublicKey, Node>,
    pub(super) rng: Rng,
    pub(super) loss_percent: u64,
    pub(super) max_delay: Duration,
    /// Lost messages are reported to the sender after a second.
    pub(super) reports_losses: bool,
    pub(super) cut: BTreeSet<(PublicKey, PublicKey)>,
    pub(super) behaviour: Box<Behaviour>,
    /// Each handler start: task, node, time.
    pub(super) started: Vec<(TaskId, PublicKey, Instant)>,
    pub(super) messages: u64,
    pub(super) messages_to: BTreeMap<PublicKey, u64>,
    /// What the pass of each node says; nothing is proved of the others.
    levels: BTreeMap<PublicKey, Level>,
    config: Config,
    queue: BTreeMap<(Instant, u64), Happening>,
    cancelled: BTreeSet<(PublicKey, RunId)>,
    seq: u64,
}

impl World {
    /// `n` workers, numbered from 1, each with the handler `work`, all with the same full view.
    pub(super) fn new(seed: u64, n: u8) -> World {
        World::with(seed, n, Config::default())
    }

    pub(super) fn with(seed: u64, n: u8, config: Config) -> World {
        let start = Instant::now() + secs(86_400);
        let mut world = World {
            now: start,
            start,
            nodes: BTreeMap::new(),
            rng: Rng::seed_from_u64(seed),
            loss_percent: 0,
            max_delay: ms(20),
            reports_losses: true,
            cut: BTreeSet::new(),
            behaviour: Box::new(|_, payload, _| (ms(50), Ok(Bytes::copy_from_slice(payload)))),
            started: Vec::new(),
            messages: 0,
            messages_to: BTreeMap::new(),
            levels: BTreeMap::new(),
            config,
            queue: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            seq: 0,
        };
        let view = View::of(&(1..=n).collect::<Vec<_>>());
        for n in 1..=n {
            world.boot(key(n), 1, view.clone());
        }
        world
    }

    pub(super) fn boot(&mut self, who: PublicKey, boot: u64, view: View) {
        let rng = Rng::seed_from_u64(self.rng.next_u64());
        let mut jobs = Jobs::new(self.config.clone(), who, boot, self.now, rng);
        jobs.register("work", KindLimits::default());
        jobs.set_placement(self.now, Arc::new(view.clone()));
        jobs.on_view_complete(self.now);
        persist(&mut jobs);
        self.nodes.insert(who, Node { jobs, boot, up: true, events: Vec::new(), view, persists: true });
    }

    /// Gives a node a pass of this level.
    pub(super) fn set_level(&mut self, n: u8, level: Level) {
        self.levels.insert(key(n), level);
        let standing = self.submitter(key(n)).standing().expect("it was just given");
        self.jobs(n).set_standing(standing);
    }

    fn submitter(&self, key: PublicKey) -> Submitter {
        match self.levels.get(&key) {
            Some(level) => Submitter::for_tests(Account::alone(key), *level, ""),
            None => Submitter::alone(key),
        }
    }

    pub(super) fn jobs(&mut self, n: u8) -> &mut Jobs {
        &mut self.nodes.get_mut(&key(n)).unwrap().jobs
    }

    pub(super) fn jobs_ref(&self, n: u8) -> &Jobs {
        &self.nodes[&key(n)].jobs
    }

    pub(super) fn set_view(&mut self, n: u8, view: View) {
        let now = self.now;
        let node = self.nodes.get_mut(&key(n)).unwrap();
        node.view = view.clone();
        node.jobs.set_placement(now, Arc::new(view));
        self.drain();
    }

    pub(super) fn submit(&mut self, n: u8, payload: &[u8], options: SubmitOptions) -> TaskId {
        let now = self.now;
        let payload = Bytes::copy_from_slice(payload);
        let id = self.jobs(n).submit(now, "work", b"key", payload, options).unwrap();
        self.drain();
        id
    }

    /// Ends the process; all failure detectors report it after `detected`.
    pub(super) fn kill(&mut self, n: u8, detected: Option<Duration>) {
        self.nodes.get_mut(&key(n)).unwrap().up = false;
        if let Some(after) = detected {
            let verdict = Happening::Verdict { on: key(n), change: MemberChange::Dead };
            self.at(self.now + after, verdict);
        }
    }

    /// Starts a new process under the same key.
    pub(super) fn restart(&mut self, n: u8, detected: Duration) {
        let (boot, view) = {
            let node = &self.nodes[&key(n)];
            (node.boot + 1, node.view.clone())
        };
        self.boot(key(n), boot, view);
        let verdict = Happening::Verdict { on: key(n), change: MemberChange::Restarted };
        self.at(self.now + detected, verdict);
    }

    pub(super) fn partition(&mut self, left: &[u8], right: &[u8]) {
        for a in left {
            for b in right {
                self.cut.insert((key(*a), key(*b)));
                self.cut.insert((key(*b), key(*a)));
            }
        }
    }

    pub(super) fn inject(&mut self, from: u8, to: u8, message: &message::Message) {
        let now = self.now;
        let from = self.submitter(key(from));
        self.jobs(to).handle_message(now, from, message.encode());
        self.drain();
    }

    fn at(&mut self, when: Instant, what: Happening) {
        self.seq += 1;
        self.queue.insert((when, self.seq), what);
    }

    /// Runs for this time.
    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until a handle of this task is resolved at node `n`, for at most `time`.
    pub(super) fn run_to_done(&mut self, n: u8, task: TaskId, time: Duration) -> Result<Bytes, JobError> {
        self.run_until(time, |world| !world.outcomes(n, task).is_empty());
        let outcomes = self.outcomes(n, task);
        assert_eq!(outcomes.len(), 1, "{task:?} at {n} has resolved {} times", outcomes.len());
        outcomes[0].clone()
    }

    pub(super) fn outcomes(&self, n: u8, task: TaskId) -> Vec<Result<Bytes, JobError>> {
        let of_task = |event: &JobEvent| match event {
            JobEvent::Done { task: id, outcome, .. } if *id == task => Some(outcome.clone()),
            _ => None,
        };
        self.nodes[&key(n)].events.iter().filter_map(of_task).collect()
    }

    pub(super) fn runs_of(&self, task: TaskId) -> Vec<PublicKey> {
        self.started.iter().filter(|(id, ..)| *id == task).map(|(_, node, _)| *node).collect()
    }

    pub(super) fn run_until(&mut self, time: Duration, mut done: impl FnMut(&World) -> bool) {
        let end = self.now + time;
        self.drain();
        while !done(self) {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.values().filter(|n| n.up).filter_map(|n| n.jobs.poll_timeout()).min();
            let next = match (queued, timers) {
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) => a,
                (None, Some(b)) => b,
                (None, None) => end,
            };
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= now
            {
                let what = entry.remove();
                self.happen(what);
                self.drain();
            }
            for node in self.nodes.values_mut().filter(|node| node.up) {
                if node.jobs.poll_timeout().is_some_and(|at| at <= now) {
                    node.jobs.handle_timeout(now);
                }
            }
            self.drain();
        }
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now;
        match what {
            Happening::Arrives { from, to, body } => {
                let from = self.submitter(from);
                if let Some(node) = self.nodes.get_mut(&to).filter(|node| node.up) {
                    node.jobs.handle_message(now, from, body);
                }
            }
            Happening::NotDelivered { at, to } => {
                if let Some(node) = self.nodes.get_mut(&at).filter(|node| node.up) {
                    node.jobs.on_send_failed(now, to);
                }
            }
            Happening::Ends { at, boot, run, result } => {
                if let Some(node) = self.nodes.get_mut(&at).filter(|node| node.up && node.boot == boot) {
                    // An aborted handler was returned before.
                    if !self.cancelled.remove(&(at, run)) {
                        node.jobs.finished(now, run, result);
                    }
                }
            }
            Happening::Verdict { on, change } => {
                for (who, node) in self.nodes.iter_mut().filter(|(who, node)| **who != on && node.up) {
                    if self.cut.contains(&(*who, on)) {
                        continue;
                    }
                    node.jobs.on_member(now, on, change);
                    if change == MemberChange::Dead {
                        node.view.live.remove(&on);
                        node.jobs.set_placement(now, Arc::new(node.view.clone()));
                    }
                }
            }
        }
    }

    pub(super) fn drain(&mut self) {
        let now = self.now;
        let names: Vec<_> = self.nodes.keys().copied().collect();
        for who in names {
            loop {
                let node = self.nodes.get_mut(&who).unwrap();
                if node.persists {
                    persist(&mut node.jobs);
                }
                let mut idle = true;
                if let Some((to, body)) = node.jobs.poll_transmit() {
                    idle = false;
                    if node.up {
                        self.transmit(who, to, body);
                    }
                }
                let node = self.nodes.get_mut(&who).unwrap();
                if let Some(run) = node.jobs.poll_cancel() {
                    idle = false;
                    self.cancelled.insert((who, run));
                    node.jobs.finished(now, run, Err(JobError::Cancelled));
                }
                if let Some(run) = node.jobs.poll_run(now) {
                    idle = false;
                    let boot = node.boot;
                    let times = self.runs_of(run.task).len();
                    self.started.push((run.task, who, now));
                    let (time, result) = (self.behaviour)(who, &run.payload, times);
                    let (deadline, limited) = run.deadline(now);
                    let limit = deadline.saturating_duration_since(now);
                    let (time, result) = if time > limit && limited {
                        (limit, Err(JobError::TimedOut))
                    } else {
                        (time, result)
                    };
                    self.at(now + time, Happening::Ends { at: who, boot, run: run.id, result });
                }
                let node = self.nodes.get_mut(&who).unwrap();
                if let Some(event) = node.jobs.poll_event() {
                    idle = false;
                    node.events.push(event);
                }
                if idle {
                    break;
                }
            }
        }
    }

    fn transmit(&mut self, from: PublicKey, to: PublicKey, body: Bytes) {
        self.messages += 1;
        *self.messages_to.entry(to).or_default() += 1;
        let lost = self.rng.next_u64() % 100 < self.loss_percent
            || self.cut.contains(&(from, to))
            || !self.nodes.get(&to).is_some_and(|node| node.up);
        if !lost {
            let delay = draw::duration(&mut self.rng, self.max_delay);
            self.at(self.now + delay, Happening::Arrives { from, to, body });
        } else if self.reports_losses {
            self.at(self.now + secs(1), Happening::NotDelivered { at: from, to });
        }
    }
}
