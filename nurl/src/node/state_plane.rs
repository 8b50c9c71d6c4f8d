//! The state plane: ring, jobs and replicated state on a thread of their own.
//!
//! The state plane may wait for the network plane, never the reverse. Handlers run on the pool; this plane only
//! starts them and receives their results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::command::{Course, Departure, NetCommand, Reply, StateCommand, StateInput, StateStats, View};
use super::ending::Cause;
use super::event::{Bus, NodeEvent};
use super::task::TaskEvent;
use super::{Role, log};
use crate::compute::job::{self, Drained, Jobs, RunId, TaskId};
use crate::compute::pool::{Finished, Handlers, Pool, Report};
use crate::error::{Error, StateError};
use crate::key::PublicKey;
use crate::replication::crdt::{CrdtError, Kind, Stamp, Value};
use crate::replication::identity::ReplicaId;
use crate::replication::replicator::{self, Op, OperationId, OperationOutcome, Replicator, UpdateError};
use crate::replication::store::{Store, StoreError};
use crate::ring::{Ring, RingMember};
use crate::rt::sync::{mpsc, watch};
use crate::rt::task::Planes;
use crate::rt::{self, time};
use crate::transport::{Priority, kind};

/// Results and notes of handlers queued for this plane; a full channel makes handlers wait before they end.
const REPORTS: usize = 1_024;

/// Inputs taken in one turn.
const INPUTS_PER_TURN: usize = 256;

/// Concurrent reads of replicated state.
const READS: usize = 1_024;

/// Callers that wait for a first view. Above the limit a call fails.
const JOINING: usize = 1_024;

/// How long a leaving node offers writes that only it has. A healthy owner takes them within a few round trips;
/// container engines kill ten seconds after the stop request, part of which the drain has used.
const HAND_OVER_FOR: Duration = Duration::from_secs(2);

/// Everything that the plane needs from the builder.
pub(super) struct StateParts {
    pub(super) key: PublicKey,
    pub(super) boot: u64,
    pub(super) role: Role,
    pub(super) planes: Planes,
    pub(super) handlers: Handlers,
    pub(super) store: Option<Store>,
    pub(super) commands: mpsc::Receiver<StateCommand>,
    pub(super) inputs: mpsc::Receiver<StateInput>,
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) net: mpsc::WeakSender<NetCommand>,
    pub(super) bus: Bus,
}

/// A reply about state that is not durable yet.
enum Answer {
    /// The outcome of a write.
    Written(Reply<Result<(), Error>>, Result<(), Error>),
    /// The value of a read.
    Read(Reply<Result<Option<Value>, Error>>, Option<Value>),
}

pub(super) struct StatePlane {
    jobs: Jobs,
    pool: Pool,
    reports: mpsc::Receiver<Report>,
    replicator: Replicator,
    store: Option<Store>,
    commands: mpsc::Receiver<StateCommand>,
    inputs: mpsc::Receiver<StateInput>,
    views: watch::Receiver<Arc<View>>,
    net: mpsc::WeakSender<NetCommand>,
    bus: Bus,
    courses: BTreeMap<TaskId, Course>,
    drain: Option<Reply<Result<Drained, Error>>>,
    running: BTreeMap<RunId, (TaskId, String)>,
    /// The members from which `ring` was made, once there was a view.
    members: Option<Vec<RingMember>>,
    ring: Arc<Ring>,
    reads: BTreeMap<u64, Reply<Result<Option<Value>, Error>>>,
    writes: BTreeMap<u64, Writing>,
    /// The id of the last read or write.
    last_call: u64,
    operations: BTreeMap<OperationId, Writing>,
    /// Replies that wait for the store: a caller must not learn of a write that a crash could still undo.
    answers: Vec<Answer>,
    view_complete: bool,
    /// Callers that wait for a complete view.
    joining: Vec<Reply<()>>,
    epoch_told: u64,
    /// Set while leaving: the end of the hand-over time, and the caller that waits for it.
    leaving: Option<(Instant, Reply<Departure>)>,
}

/// A write under way.
struct Writing {
    key: Bytes,
    reply: Reply<Result<(), Error>>,
}

impl StatePlane {
    pub(super) fn new(parts: StateParts) -> Result<StatePlane, Error> {
        let now = time::now();
        let (replica, epoch, clock) = match &parts.store {
            Some(store) => (store.replica_id(parts.key), store.epoch_counter()?, store.clock()?),
            // Without a store all writes of this process are lost at its end, so the replica id is the process's.
            None => (ReplicaId { key: parts.key, incarnation: parts.boot }, 0, Stamp::default()),
        };
        let mut jobs = Jobs::new(
            job::Config { initial_epoch: epoch, ..job::Config::default() },
            parts.key,
            parts.boot,
            now,
            rt::rng("jobs"),
        );
        for (kind, limits) in parts.handlers.kinds() {
            jobs.register(kind, limits.clone());
        }
        let observer = parts.role == Role::Observer;
        let durable = parts.store.is_some();
        let config = replicator::Config { observer, clock, durable, ..replicator::Config::default() };
        let mut replicator = Replicator::new(config, replica, now, rt::rng("replicator"));
        if let Some(store) = &parts.store {
            let (wall, mut refused) = (time::unix_now(), None);
            store.each_state(|key, record| {
                if let Err(error) = replicator.restore(now, wall, key, record) {
                    refused = Some(error);
                }
            })?;
            if let Some(error) = refused {
                return Err(StoreError::Value(error.to_string()).into());
            }
        }
        let (reports_in, reports) = mpsc::channel(REPORTS);
        Ok(StatePlane {
            jobs,
            pool: Pool::new(parts.planes, parts.handlers, reports_in),
            reports,
            replicator,
            store: parts.store,
            commands: parts.commands,
            inputs: parts.inputs,
            views: parts.views,
            net: parts.net,
            bus: parts.bus,
            courses: BTreeMap::new(),
            drain: None,
            running: BTreeMap::new(),
            members: None,
            ring: Arc::default(),
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            last_call: 0,
            operations: BTreeMap::new(),
            answers: Vec::new(),
            view_complete: false,
            joining: Vec::new(),
            epoch_told: 0,
            leaving: None,
        })
    }

    /// Runs until the node is shut down or dropped.
    ///
    /// # Errors
    /// [`Cause::Store`].
    pub(super) async fn run(mut self) -> Result<(), Cause> {
        self.adopt_view(time::now());
        loop {
            match self.drain(time::now()).await {
                Ok(()) => {}
                Err(Error::Store(error)) => return Err(Cause::Store(error)),
                // The network plane has ended, and so has the node.
                Err(_) => return Ok(()),
            }
            if let Some(reply) = self.left(time::now()) {
                let departure = self.departure();
                // Dropping the pool ends running handlers. The store is closed before the caller gets its reply,
                // because the caller may open it again at once.
                drop(self);
                // An error means that the caller gave up.
                let _ = reply.send(departure);
                return Ok(());
            }
            let deadline = self.poll_timeout();
            let timer = async {
                match deadline {
                    Some(deadline) => time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            rt::select! {
                changed = self.views.changed() => match changed {
                    Ok(()) => self.adopt_view(time::now()),
                    Err(_) => return Ok(()),
                },
                Some(report) = self.reports.recv() => self.on_report(time::now(), report),
                Some(input) = self.inputs.recv() => self.take_inputs(time::now(), input),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(time::now(), command),
                    None => return Ok(()),
                },
                () = timer => {}
            }
            let now = time::now();
            self.jobs.handle_timeout(now);
            self.replicator.handle_timeout(now, time::unix_now());
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|(until, _)| *until);
        [self.jobs.poll_timeout(), self.replicator.poll_timeout(), leaving].into_iter().flatten().min()
    }

    // ---- Inputs.

    fn adopt_view(&mut self, now: Instant) {
        let view = self.views.borrow_and_update();
        self.jobs.note_epoch(view.epoch);
        // A view may differ in its epoch alone; then the ring stays.
        if self.members.as_ref() != Some(&view.members) {
            self.members = Some(view.members.clone());
            let ring = Arc::new(self.ring.followed_by(view.members.iter().cloned()));
            let placed = view.members.iter().filter(|member| member.placed).count();
            tracing::debug!(target: "nurl::ring", placed, epoch = view.epoch, "the owners of keys are computed anew");
            self.jobs.set_placement(now, ring.clone());
            self.replicator.set_ring(now, ring.clone());
            self.ring = ring;
        }
        if view.complete && !self.view_complete {
            self.view_complete = true;
            self.jobs.on_view_complete(now);
            for reply in self.joining.drain(..) {
                // An error means that the caller gave up.
                let _ = reply.send(());
            }
        }
    }

    fn take_inputs(&mut self, now: Instant, first: StateInput) {
        self.on_input(now, first);
        for _ in 1..INPUTS_PER_TURN {
            let Ok(input) = self.inputs.try_recv() else { break };
            self.on_input(now, input);
        }
    }

    fn on_input(&mut self, now: Instant, input: StateInput) {
        match input {
            StateInput::Message { from, kind: kind::JOB, body } => self.jobs.handle_message(now, from, body),
            StateInput::Message { from, body, .. } => {
                self.replicator.handle_message(now, time::unix_now(), from, &body);
            }
            StateInput::SendFailed { peer } => {
                self.jobs.on_send_failed(now, peer);
                self.replicator.on_peer_lost(peer);
            }
            StateInput::Member { peer, change } => self.jobs.on_member(now, peer, change),
        }
    }

    fn on_report(&mut self, now: Instant, report: Report) {
        match report {
            Report::Progress { run, note } => self.jobs.progress(run, note),
            Report::Finished(Finished { run, result }) => {
                self.pool.forget(run);
                if let Some((task, kind)) = self.running.remove(&run) {
                    let error = result.as_ref().err().map(ToString::to_string);
                    self.bus.send(&NodeEvent::JobFinished { task, kind, error });
                }
                self.jobs.finished(now, run, result);
            }
        }
    }

    fn on_command(&mut self, now: Instant, command: StateCommand) {
        match command {
            StateCommand::Submit { kind, key, payload, options, course, reply } => {
                let taken = self.jobs.submit(now, &kind, &key, payload, options);
                if let Ok(task) = &taken {
                    self.courses.insert(*task, course);
                }
                let _ = reply.send(taken.map_err(Error::from));
            }
            StateCommand::Cancel { task, reply } => {
                let _ = reply.send(self.jobs.cancel(now, task));
            }
            StateCommand::Update { key, op, reply } => self.update(now, op, Writing { key, reply }),
            StateCommand::Read { key, reply } => self.read(now, &key, reply),
            StateCommand::Stats { reply } => {
                let _ = reply.send(StateStats {
                    jobs: self.jobs.stats().clone(),
                    jobs_now: self.jobs.gauges(),
                    replication: *self.replicator.stats(),
                    unacknowledged: self.replicator.pending(),
                });
            }
            StateCommand::Digest { key, reply } => {
                let _ = reply.send(self.replicator.get(&key).map(Value::digest));
            }
            StateCommand::Drain { reply, .. } if self.drain.is_some() => {
                let _ = reply.send(Err(Error::Busy("a drain is under way")));
            }
            StateCommand::Drain { limit, reply } => {
                self.drain = Some(reply);
                self.jobs.drain(now, limit);
            }
            StateCommand::Joined { reply } => self.tell_joined(reply),
            StateCommand::Shutdown { reply } => self.leave(now, reply),
            #[cfg(all(test, not(feature = "sim")))]
            StateCommand::Panic => panic!("a test asked for it"),
        }
    }

    /// An observer has no replica id: the key's first owner writes in its place.
    fn update(&mut self, now: Instant, op: Op, writing: Writing) {
        if self.leaving.is_some() {
            // A later write could miss the offers to the other owners.
            return writing.end(Err(Error::Closed));
        }
        let asked = if self.replicator.is_observer() {
            self.operate(now, op, writing)
        } else {
            self.write(now, op, writing)
        };
        if let Err((error, writing)) = asked {
            let error = refused(error, &writing.key);
            writing.end(Err(error));
        }
    }

    fn write(&mut self, now: Instant, op: Op, writing: Writing) -> Result<(), (UpdateError, Writing)> {
        self.last_call += 1;
        match self.replicator.write(now, time::unix_now(), &writing.key, op, self.last_call) {
            Ok(()) => {
                self.writes.insert(self.last_call, writing);
                Ok(())
            }
            Err(error) => Err((error, writing)),
        }
    }

    fn operate(&mut self, now: Instant, op: Op, writing: Writing) -> Result<(), (UpdateError, Writing)> {
        let asked = match self.ring.owners(&writing.key, 1).first() {
            Some(owner) => self.replicator.operate(now, *owner, &writing.key, op),
            None => Err(UpdateError::NoOwners),
        };
        match asked {
            Ok(id) => {
                self.operations.insert(id, writing);
                Ok(())
            }
            Err(error) => Err((error, writing)),
        }
    }

    fn read(&mut self, now: Instant, key: &[u8], reply: Reply<Result<Option<Value>, Error>>) {
        self.last_call += 1;
        let begun = match self.reads.len() < READS {
            true => self.replicator.read(now, key, self.last_call),
            false => Err(UpdateError::Full("reads")),
        };
        match begun {
            Ok(()) => {
                self.reads.insert(self.last_call, reply);
            }
            Err(error) => {
                // An error means that the caller gave up.
                let _ = reply.send(Err(refused(error, key)));
            }
        }
    }

    // ---- Beginning and end.

    fn tell_joined(&mut self, reply: Reply<()>) {
        self.joining.retain(|reply| !reply.is_closed());
        if self.view_complete {
            // An error means that the caller gave up.
            let _ = reply.send(());
        } else if self.joining.len() < JOINING {
            self.joining.push(reply);
        }
    }

    /// Begins to offer the writes that only this node has.
    fn leave(&mut self, now: Instant, reply: Reply<Departure>) {
        if self.leaving.is_none() {
            self.replicator.leave(now);
            // Give running tasks back, so that their submitters needn't wait for a timeout.
            self.jobs.drain(now, Duration::ZERO);
            self.jobs.handle_timeout(now);
            self.leaving = Some((now + HAND_OVER_FOR, reply));
        }
    }

    /// The caller that waits for this node's end, once the hand-over is complete or its time is up.
    fn left(&mut self, now: Instant) -> Option<Reply<Departure>> {
        let (until, _) = self.leaving.as_ref()?;
        let over = *until <= now || self.replicator.unheld().offered == 0;
        self.leaving.take_if(|_| over).map(|(_, reply)| reply)
    }

    fn departure(&self) -> Departure {
        let keys = self.replicator.unheld().keys;
        match self.store {
            Some(_) => Departure { lost: 0, stored: keys },
            None => Departure { lost: keys, stored: 0 },
        }
    }

    // ---- Outputs.

    /// Passes on all outputs of the parts. An error means that the network plane has ended.
    async fn drain(&mut self, now: Instant) -> Result<(), Error> {
        let net = self.net.upgrade().ok_or(Error::Closed)?;
        self.persist_epoch(&net).await?;
        while let Some(run) = self.jobs.poll_run(now) {
            self.running.insert(run.id, (run.task, run.kind.clone()));
            self.bus.send(&NodeEvent::JobStarted { task: run.task, kind: run.kind.clone() });
            self.pool.start(run);
        }
        while let Some(run) = self.jobs.poll_cancel() {
            self.pool.cancel(run);
        }
        while let Some(event) = self.jobs.poll_event() {
            self.on_job_event(event);
        }
        let mut changed = Vec::new();
        while let Some(event) = self.replicator.poll_event() {
            match event {
                replicator::ReplicatorEvent::Changed { key } => changed.push(key),
                other => self.on_state_event(other),
            }
        }
        self.persist_state(&changed)?;
        for answer in self.answers.drain(..) {
            answer.give();
        }
        while let Some((to, body)) = self.jobs.poll_transmit() {
            let message = NetCommand::Message { to, priority: Priority::Job, kind: kind::JOB, body };
            net.send(message).await.map_err(|_| Error::Closed)?;
        }
        while let Some((to, body)) = self.replicator.poll_transmit() {
            let body = Bytes::from(body);
            let message = NetCommand::Message { to, priority: Priority::State, kind: kind::STATE, body };
            net.send(message).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }

    /// Refills the reserve of durable epoch counters, and tells membership the highest counter taken.
    async fn persist_epoch(&mut self, net: &mpsc::Sender<NetCommand>) -> Result<(), Error> {
        while let Some(counter) = self.jobs.poll_persist() {
            if let Some(store) = &self.store {
                store.set_epoch_counter(counter)?;
            }
            self.jobs.on_persisted(counter);
        }
        let highest = self.jobs.highest_epoch();
        if highest <= self.epoch_told {
            return Ok(());
        }
        self.epoch_told = highest;
        net.send(NetCommand::NoteEpoch(highest)).await.map_err(|_| Error::Closed)
    }

    /// Makes replicated state durable before its acknowledgement is sent, so that no dot or sum is used twice.
    fn persist_state(&mut self, changed: &[Vec<u8>]) -> Result<(), Error> {
        let Some(store) = &self.store else { return Ok(()) };
        if changed.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = changed.iter().map(|key| (key.clone(), self.replicator.record(key))).collect();
        Ok(store.put_state(self.replicator.clock_high_water(), &records)?)
    }

    fn on_job_event(&mut self, event: job::JobEvent) {
        log::job_event(&event);
        match event {
            job::JobEvent::Accepted { task, by, .. } => {
                if let Some(course) = self.courses.get(&task) {
                    // A notice: a slow submitter may miss it.
                    let _ = course.try_send(TaskEvent::Accepted { by });
                }
            }
            job::JobEvent::Done { task, outcome, by, attempts } => {
                let Some(course) = self.courses.remove(&task) else { return };
                let end = TaskEvent::Ended { by, attempts, outcome };
                if let Err(mpsc::error::TrySendError::Full(end)) = course.try_send(end) {
                    // The end must be delivered; it waits in a task of its own.
                    rt::task::spawn(async move {
                        let _ = course.send(end).await;
                    });
                }
            }
            job::JobEvent::Waiting { task, why } => {
                if let Some(course) = self.courses.get(&task) {
                    // A notice: a slow submitter may miss it.
                    let _ = course.try_send(TaskEvent::Waiting { why });
                }
            }
            job::JobEvent::Drained(drained) => {
                if let Some(reply) = self.drain.take() {
                    let _ = reply.send(Ok(drained));
                }
            }
            job::JobEvent::Progress { .. }
            | job::JobEvent::Reassigned { .. }
            | job::JobEvent::Ran { .. }
            | job::JobEvent::Duplicate { .. }
            | job::JobEvent::Fenced { .. } => {}
        }
    }

    fn on_state_event(&mut self, event: replicator::ReplicatorEvent) {
        match event {
            replicator::ReplicatorEvent::ReadDone { id, value } => {
                if let Some(reply) = self.reads.remove(&id) {
                    self.answers.push(Answer::Read(reply, value));
                }
            }
            replicator::ReplicatorEvent::ReadFailed { id } => {
                if let Some(reply) = self.reads.remove(&id) {
                    // An error means that the caller gave up.
                    let _ = reply.send(Err(StateError::NoAnswer.into()));
                }
            }
            replicator::ReplicatorEvent::WriteDone { id, outcome } => {
                if let Some(Writing { key, reply }) = self.writes.remove(&id) {
                    let outcome = outcome.map_err(|error| refused(error, &key));
                    self.answers.push(Answer::Written(reply, outcome));
                }
            }
            replicator::ReplicatorEvent::OperationDone { id, outcome } => {
                if let Some(writing) = self.operations.remove(&id) {
                    let outcome = outcome_of(outcome, &writing.key);
                    writing.end(outcome);
                }
            }
            // Views converge by membership's own push-pull.
            replicator::ReplicatorEvent::ViewDiffers { .. } | replicator::ReplicatorEvent::Changed { .. } => {
            }
        }
    }
}

impl Answer {
    fn give(self) {
        // An error means that the caller gave up.
        let _ = match self {
            Answer::Written(reply, outcome) => reply.send(outcome).is_ok(),
            Answer::Read(reply, value) => reply.send(Ok(value)).is_ok(),
        };
    }
}

impl Writing {
    fn end(self, outcome: Result<(), Error>) {
        // An error means that the caller gave up.
        let _ = self.reply.send(outcome);
    }
}

fn refused(error: UpdateError, key: &[u8]) -> Error {
    match error {
        UpdateError::Value(CrdtError::WrongKind { held, .. }) => other_kind(key, held),
        UpdateError::Unacknowledged => Error::Unacknowledged,
        other => StateError::Write(other).into(),
    }
}

fn outcome_of(outcome: OperationOutcome, key: &[u8]) -> Result<(), Error> {
    let error = match outcome {
        OperationOutcome::Applied => return Ok(()),
        OperationOutcome::OtherKind(held) => return Err(other_kind(key, held)),
        OperationOutcome::Busy => StateError::Busy,
        OperationOutcome::Refused => StateError::Refused,
        OperationOutcome::Unknown => StateError::Unknown,
    };
    Err(error.into())
}

/// The error of a call on a key that holds a value of another kind.
pub(super) fn other_kind(key: &[u8], held: Kind) -> Error {
    Error::OtherKind { key: String::from_utf8_lossy(key).into_owned(), held: held.as_str() }
}

impl job::Placement for Ring {
    fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        Ring::executors(self, kind, key)
    }

    fn owners(&self, key: &[u8], replicas: usize) -> Vec<PublicKey> {
        Ring::owners(self, key, replicas)
    }

    fn has_kind(&self, kind: &str) -> bool {
        Ring::has_kind(self, kind)
    }
}
