//! The world of these tests. Jobs are stood in for: a task that is submitted ends after a while as the world says.
#![allow(clippy::disallowed_methods, reason = "the base of virtual time")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::{Rng as _, SeedableRng};

use crate::authority::checker::Standing;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::authority::pass::{Grant, Pass};
use crate::compute::job::custody::*;
use crate::compute::job::event::JobEvent;
use crate::compute::job::warrant::{Detached, Warrants};
use crate::compute::job::{JobError, SubmitOptions, Submitter, TaskId};
use crate::key::{PublicKey, SecretKey};
use crate::kit::draw;
use crate::kit::wall_clock::WallClock;
use crate::ring::{Ring, RingMember};
use crate::rt::Rng;

/// 2026-11-01.
pub(super) const NOW_S: u32 = 1_793_000_000;

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) struct Node {
    pub(super) custody: Custody,
    pub(super) secret: SecretKey,
    pub(super) pass: Pass,
    pub(super) boot: u64,
    pub(super) up: bool,
    pub(super) disk: Option<BTreeMap<TaskId, Stored>>,
    pub(super) ended: BTreeMap<u64, Result<Told, CustodyError>>,
}

enum Happening {
    Arrives { from: PublicKey, to: PublicKey, body: Bytes },
    Ends { at: PublicKey, boot: u64, task: TaskId },
}

/// How a task ends: its payload, and the number of its runs so far.
pub(super) type Behaviour = dyn Fn(&[u8], usize) -> (Duration, Result<Bytes, JobError>);

pub(super) struct World {
    pub(super) now: Instant,
    start: Instant,
    pub(super) authority: AuthorityKey,
    pub(super) nodes: BTreeMap<PublicKey, Node>,
    /// The workers, in the order in which they were made.
    pub(super) workers: Vec<PublicKey>,
    pub(super) rng: Rng,
    pub(super) loss_percent: u64,
    pub(super) behaviour: Box<Behaviour>,
    /// Each run: task and custodian.
    pub(super) runs: Vec<(TaskId, PublicKey)>,
    running: BTreeMap<(PublicKey, TaskId), Bytes>,
    pub(super) released: BTreeSet<(PublicKey, TaskId)>,
    pub(super) cancelled: BTreeSet<(PublicKey, TaskId)>,
    pub(super) ended_runs: BTreeSet<(PublicKey, TaskId)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    pub(super) sent_bytes: usize,
    seq: u64,
}

impl World {
    /// So many workers, with or without a disk, and one client.
    pub(super) fn new(seed: u64, workers: u8, stores: bool) -> World {
        let start = Instant::now() + secs(86_400);
        let mut rng = Rng::seed_from_u64(seed);
        let authority = AuthorityKey::generate(&mut rng);
        let mut world = World {
            now: start,
            start,
            authority,
            nodes: BTreeMap::new(),
            workers: Vec::new(),
            rng,
            loss_percent: 0,
            behaviour: Box::new(|payload, _| (ms(50), Ok(Bytes::copy_from_slice(payload)))),
            runs: Vec::new(),
            running: BTreeMap::new(),
            released: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            ended_runs: BTreeSet::new(),
            queue: BTreeMap::new(),
            sent_bytes: 0,
            seq: 0,
        };
        for _ in 0..workers {
            let key = world.add(Level::Worker, stores);
            world.workers.push(key);
        }
        world.view();
        world
    }

    pub(super) fn add(&mut self, level: Level, store: bool) -> PublicKey {
        let secret = SecretKey::generate(&mut self.rng);
        let key = secret.public();
        let pass = Grant::new(key, level, NOW_S, NOW_S + 30 * 86_400).sign(&self.authority).unwrap();
        let custody = self.custody(&secret, &pass, 1, store);
        let disk = store.then(BTreeMap::new);
        let node = Node { custody, secret, pass, boot: 1, up: true, disk, ended: BTreeMap::new() };
        self.nodes.insert(key, node);
        let ring = self.ring();
        self.nodes.get_mut(&key).unwrap().custody.set_ring(self.now, ring);
        key
    }

    pub(super) fn client(&mut self) -> PublicKey {
        self.add(Level::Submit, false)
    }

    fn custody(&self, secret: &SecretKey, pass: &Pass, boot: u64, store: bool) -> Custody {
        let mesh = self.authority.mesh();
        let warrants = Warrants::new(mesh, WallClock::new(self.now, self.wall()), &[]);
        let signer = Signer { holder: secret.clone(), pass: Some(pass.clone()), mesh };
        Custody::new((secret.public(), boot, store), signer, warrants, self.wall())
    }

    pub(super) fn wall(&self) -> Duration {
        secs(NOW_S.into()) + (self.now - self.start)
    }

    pub(super) fn ring(&self) -> Arc<Ring> {
        let member = |key: &PublicKey| {
            let node = &self.nodes[key];
            let seed = *key.as_bytes().first_chunk().expect("a key is longer");
            RingMember {
                key: *key,
                boot: node.boot,
                seed,
                weight: 1,
                zone: String::new(),
                kinds: Vec::new(),
                live: node.up,
                placed: node.up || node.disk.is_some(),
            }
        };
        Arc::new(Ring::new(self.workers.iter().map(member)))
    }

    /// Gives everybody the present view.
    pub(super) fn view(&mut self) {
        let ring = self.ring();
        for node in self.nodes.values_mut().filter(|node| node.up) {
            node.custody.set_ring(self.now, ring.clone());
        }
        self.drain();
    }

    pub(super) fn keepers(&self, task: TaskId) -> Vec<PublicKey> {
        let mut keepers = keepers::Keepers::default();
        keepers.follow(self.now, self.ring());
        keepers.of(&task)
    }

    /// Kills a node; the others know at once.
    pub(super) fn kill(&mut self, who: PublicKey) {
        self.nodes.get_mut(&who).unwrap().up = false;
        self.running.retain(|(at, _), _| *at != who);
        self.view();
    }

    /// Starts a killed node again, with its disk if it has one.
    pub(super) fn restart(&mut self, who: PublicKey) {
        let node = &self.nodes[&who];
        let (secret, pass, boot, store) =
            (node.secret.clone(), node.pass.clone(), node.boot + 1, node.disk.is_some());
        let mut custody = self.custody(&secret, &pass, boot, store);
        for (task, stored) in self.nodes[&who].disk.clone().unwrap_or_default() {
            custody.restore(self.now, task, stored).unwrap();
        }
        let node = self.nodes.get_mut(&who).unwrap();
        (node.custody, node.boot, node.up) = (custody, boot, true);
        self.view();
    }

    pub(super) fn deposit(&mut self, by: PublicKey, task: TaskId, payload: &[u8]) -> u64 {
        self.deposit_as(by, task, payload, &detached(300))
    }

    pub(super) fn deposit_as(&mut self, by: PublicKey, task: TaskId, payload: &[u8], job: &Detached) -> u64 {
        let (now, payload) = (self.now, Bytes::copy_from_slice(payload));
        let call = self.custody_of(by).deposit(now, task, ("work", b"key", payload), job);
        self.drain();
        call.unwrap()
    }

    pub(super) fn custody_of(&mut self, who: PublicKey) -> &mut Custody {
        &mut self.nodes.get_mut(&who).unwrap().custody
    }

    /// Hands a message over as `from` would.
    pub(super) fn inject(&mut self, from: PublicKey, to: PublicKey, message: &message::Message) {
        let from = self.submitter(from);
        let (now, body) = (self.now, message.encode());
        self.custody_of(to).handle_message(now, &from, &body);
        self.drain();
    }

    fn submitter(&self, who: PublicKey) -> Submitter {
        Submitter::new(who, Some(Standing::of(&self.nodes[&who].pass)))
    }

    /// Waits for the end of a call.
    pub(super) fn end_of(
        &mut self,
        who: PublicKey,
        call: u64,
        limit: Duration,
    ) -> Result<Told, CustodyError> {
        let until = self.now + limit;
        self.drain();
        loop {
            if let Some(ended) = self.nodes.get_mut(&who).unwrap().ended.remove(&call) {
                return ended;
            }
            assert!(self.now < until, "the call has not ended within {limit:?}");
            self.step(until);
        }
    }

    /// Asks until the task has ended, and returns its outcome.
    pub(super) fn outcome(
        &mut self,
        who: PublicKey,
        task: TaskId,
        limit: Duration,
    ) -> Result<Bytes, JobError> {
        let until = self.now + limit;
        loop {
            assert!(self.now < until, "the task has not ended within {limit:?}");
            let now = self.now;
            let call = self.custody_of(who).ask(now, task, None, Duration::ZERO, true).unwrap();
            self.drain();
            match self.end_of(who, call, secs(60)) {
                Ok(Told::Status { outcome: Some(outcome), .. }) => return outcome,
                _ => self.run(ms(500)),
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(until);
        }
    }

    /// Goes on to what happens next, at most until then.
    fn step(&mut self, until: Instant) {
        let timeouts =
            self.nodes.values().filter(|node| node.up).filter_map(|node| node.custody.poll_timeout());
        let next = timeouts.chain(self.queue.keys().next().map(|(at, _)| *at)).min();
        let next = next.unwrap_or(until).clamp(self.now, until);
        // A timer that is due again at once is looked at a millisecond later.
        self.now = if next == self.now { (self.now + ms(1)).min(until) } else { next };
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Happening::Arrives { from, to, body } => {
                    let (from, now) = (self.submitter(from), self.now);
                    if let Some(node) = self.nodes.get_mut(&to).filter(|node| node.up) {
                        node.custody.handle_message(now, &from, &body);
                    }
                }
                Happening::Ends { at, boot, task } => self.job_ends(at, boot, task),
            }
            self.drain();
        }
        let (now, wall) = (self.now, self.wall());
        for node in self.nodes.values_mut().filter(|node| node.up) {
            node.custody.set_unix_now(wall);
            node.custody.handle_timeout(now);
        }
        self.drain();
    }

    fn job_ends(&mut self, at: PublicKey, boot: u64, task: TaskId) {
        if self.nodes[&at].boot != boot {
            return;
        }
        let Some(payload) = self.running.remove(&(at, task)) else { return };
        let runs = self.runs.iter().filter(|(run, _)| *run == task).count();
        let (_, outcome) = (self.behaviour)(&payload, runs);
        let by = outcome.is_ok().then(|| self.workers[0]);
        let now = self.now;
        let done = JobEvent::Done { task, outcome, by, attempts: 1 };
        self.custody_of(at).on_job(now, &done);
    }

    /// Takes what the nodes have to say, and makes it durable first.
    fn drain(&mut self) {
        let keys: Vec<PublicKey> = self.nodes.keys().copied().collect();
        for key in keys {
            let now = self.now;
            let node = self.nodes.get_mut(&key).unwrap();
            if !node.up {
                continue;
            }
            let boot = node.boot;
            loop {
                let changed = node.custody.poll_changed(64);
                if changed.is_empty() {
                    break;
                }
                let Some(disk) = &mut node.disk else { continue };
                for (task, stored) in changed {
                    match stored {
                        None => drop(disk.remove(&task)),
                        Some(Stored { task: None, course }) => {
                            disk.get_mut(&task).expect("it was stored whole first").course = course;
                        }
                        Some(stored) => drop(disk.insert(task, stored)),
                    }
                }
            }
            while let Some((call, outcome)) = node.custody.poll_event() {
                node.ended.insert(call, outcome);
            }
            let mut sent = Vec::new();
            while let Some(message) = node.custody.poll_transmit() {
                sent.push(message);
            }
            let mut orders = Vec::new();
            while let Some(order) = node.custody.poll_order() {
                orders.push(order);
            }
            for (to, body) in sent {
                self.sent_bytes += body.len();
                if draw::below_u64(&mut self.rng, 100) >= self.loss_percent {
                    let delay = ms(1 + self.rng.next_u64() % 20);
                    self.plan(delay, Happening::Arrives { from: key, to, body });
                }
            }
            for order in orders {
                match order {
                    Order::Drive(drive) => {
                        self.runs.push((drive.task, key));
                        let runs = self.runs.iter().filter(|(run, _)| *run == drive.task).count();
                        let (time, _) = (self.behaviour)(&drive.payload, runs);
                        self.running.insert((key, drive.task), drive.payload);
                        self.plan(time, Happening::Ends { at: key, boot, task: drive.task });
                    }
                    Order::Cancel(task) => {
                        self.cancelled.insert((key, task));
                        if self.running.remove(&(key, task)).is_some() {
                            let outcome = Err(JobError::Cancelled);
                            let done = JobEvent::Done { task, outcome, by: None, attempts: 1 };
                            self.custody_of(key).on_job(now, &done);
                            return self.drain();
                        }
                    }
                    Order::Release(task) => {
                        self.released.insert((key, task));
                    }
                    Order::End(task) => {
                        self.ended_runs.insert((key, task));
                    }
                }
            }
        }
    }

    fn plan(&mut self, after: Duration, what: Happening) {
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), what);
    }

    /// The marks of all copies of a task.
    pub(super) fn copies(&self, task: TaskId) -> Vec<(PublicKey, Mark, bool)> {
        let up = self.nodes.iter().filter(|(_, node)| node.up);
        let held = |(key, node): (&PublicKey, &Node)| {
            let mine = node.custody.held().into_iter().find(|(held, ..)| *held == task);
            mine.map(|(_, mark, ended)| (*key, mark, ended))
        };
        up.filter_map(held).collect()
    }

    /// The end that a keeper tells of a task.
    pub(super) fn told_end(&mut self, keeper: PublicKey, task: TaskId) -> Option<Ended> {
        let now = self.now;
        let call = self.custody_of(keeper).ask(now, task, None, Duration::ZERO, false).unwrap();
        self.drain();
        let told = self.end_of(keeper, call, secs(30));
        let Ok(Told::Status { status, .. }) = told else { panic!("{told:?}") };
        status.end
    }

    pub(super) fn stats(&self, who: PublicKey) -> CustodyStats {
        self.nodes[&who].custody.stats()
    }
}

/// A new client's task, deposited; returns the client.
pub(super) fn deposited(world: &mut World, task: TaskId) -> PublicKey {
    let submitter = world.client();
    let call = world.deposit(submitter, task, b"payload");
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    submitter
}

pub(super) fn detached(life_s: u64) -> Detached {
    let options = SubmitOptions { life: secs(life_s), ..SubmitOptions::default() };
    Detached { options, keep: secs(3_600), parent: None }
}

pub(super) fn id(n: u8) -> TaskId {
    TaskId::from_bytes([n; 16])
}
