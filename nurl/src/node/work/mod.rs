//! The work plane: jobs, ring and replicated state on a thread of their own.
//!
//! The work plane may wait for the network plane, never the reverse. Handlers run on the pool; this plane only
//! starts them and receives their results.
//!
//! This file is the loop. It gives inputs to [`Jobs`] and to the [`Replicator`], and passes on their outputs.
//!
//! The replicator's outputs tell of writes that must be durable first. So they are taken together with the records that
//! changed, and leave when the [`committer`] has made these durable; those that the replicator makes meanwhile stay in it,
//! behind the next batch. So nothing overtakes, and the replicator's own limits bound what gathers: when it is
//! [congested](Replicator::is_congested), the plane takes no further input before the batch is durable. The jobs' outputs
//! don't depend on records, and leave at once.
//!
//! When the disk fails, what waited for it is dropped, and another replicator goes on with what is certainly on the disk, as
//! after a restart: it answers reads, and refuses writes. So nothing is told that a crash could undo. The store is opened again
//! at growing intervals; once that succeeds, a replicator that takes writes goes on with what the store has.

mod batch;
mod calls;
mod committer;
mod detached;
mod durable;
mod inlets;
mod large;
mod leaving;
mod outcome;
mod outputs;
mod parts;
mod placing;
mod recipe;
mod tasks;
#[cfg(all(test, not(feature = "sim")))]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::calls::{Call, Calls};
use self::committer::{Done, Failed};
use self::detached::DetachedCalls;
use self::durable::Durable;
use self::inlets::{Inlets, Wake};
use self::large::LargeTasks;
use self::leaving::Leaving;
use self::outputs::Outputs;
use self::placing::Placing;
use self::tasks::Tasks;
use super::command::{Departure, NetCommand, Reply, WorkCommand, WorkInput, WorkStats};
use super::ending::Cause;
use super::event::{Bus, NodeEvent};
use super::large::LargeStats;
use super::log;
use crate::authority::checker::Standing;
use crate::compute::job::custody::{Custody, Order};
use crate::compute::job::{JobEvent, Jobs};
use crate::compute::pool::{Pool, Report};
use crate::error::Error;
use crate::replication::replicator::Replicator;
use crate::rt::sync::mpsc;
use crate::rt::{self, Cost, Point, buggify, task, time};
use crate::transport::{Priority, kind};

pub(super) use self::parts::WorkParts;

/// What callers of writes are told whose node has opened its store again.
const REOPENED: &str = "it works again";

/// Inputs, and calls, taken in one turn.
const INPUTS_PER_TURN: usize = 256;

/// See the module.
pub(super) struct WorkPlane {
    jobs: Jobs,
    pool: Pool,
    custody: Custody,
    replicator: Replicator,
    durable: Durable,
    /// What leaves when the batch under way is durable.
    waiting: Outputs,
    inlets: Inlets,
    net: mpsc::WeakSender<NetCommand>,
    tasks: Tasks,
    large: LargeTasks,
    large_stats: Arc<LargeStats>,
    bus: Bus,
    calls: Calls,
    detached: DetachedCalls,
    placing: Placing,
    leaving: Leaving,
}

impl WorkPlane {
    /// Runs until the node is shut down or dropped.
    ///
    /// # Errors
    /// [`Cause::Store`].
    pub(super) async fn run(mut self) -> Result<(), Cause> {
        self.adopt_view(time::now());
        let ended = self.turns().await;
        // The store is closed before the callers get their reply, because they may open it again at once.
        self.into_durable().close().await;
        match ended {
            Ok((departure, replies)) => {
                for reply in replies {
                    // An error means that the caller gave up.
                    let _ = reply.send(departure);
                }
                Ok(())
            }
            Err(Error::Store(error)) => Err(Cause::Store(error)),
            // The network plane has ended, and so has the node.
            Err(_) => Ok(()),
        }
    }

    /// Ends all but the committer. Dropping the pool ends running handlers.
    fn into_durable(self) -> Durable {
        self.durable
    }

    /// Runs until the node has left; returns the callers that wait for it, and what becomes of its writes.
    ///
    /// # Errors
    /// [`Error::Store`]; any other one means that the network plane has ended.
    async fn turns(&mut self) -> Result<(Departure, Vec<Reply<Departure>>), Error> {
        loop {
            self.pass_on(time::now()).await?;
            let offered = || self.replicator.unheld().offered;
            if !self.durable.is_busy()
                && let Some(replies) = self.leaving.over(time::now(), offered)
            {
                return Ok((self.durable.departure(self.replicator.unheld().keys), replies));
            }
            let wake = if self.is_full() {
                Wake::Disk(self.durable.outcome().await)
            } else {
                let deadline = self.poll_timeout();
                self.inlets.next(self.durable.outcome(), deadline).await.ok_or(Error::Closed)?
            };
            self.jobs.set_unix_now(time::unix_now());
            self.custody.set_unix_now(time::unix_now());
            self.on_wake(time::now(), wake)?;
            let now = time::now();
            self.durable.handle_timeout(now);
            self.jobs.handle_timeout(now);
            self.custody.handle_timeout(now);
            self.replicator.handle_timeout(now, time::unix_now());
        }
    }

    /// Whether the batch under way must be durable before anything else is taken.
    fn is_full(&self) -> bool {
        self.durable.is_busy() && (self.replicator.is_congested() || self.leaving.is_due(time::now()))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.jobs.poll_timeout(),
            self.custody.poll_timeout(),
            self.replicator.poll_timeout(),
            self.leaving.deadline(),
            self.durable.poll_timeout(),
        ];
        if buggify(Point::WorkWakesEarly) {
            return Some(time::now());
        }
        due.into_iter().flatten().min()
    }

    // ---- Inputs.

    fn on_wake(&mut self, now: Instant, wake: Wake) -> Result<(), Error> {
        match wake {
            Wake::Disk(done) => self.on_disk(now, done?),
            Wake::View => self.adopt_view(now),
            Wake::Report(report) => self.on_report(now, report),
            Wake::Input(input) => {
                self.on_input(now, input);
                for _ in 1..INPUTS_PER_TURN {
                    if buggify(Point::OneInput) {
                        break;
                    }
                    let Some(input) = self.inlets.waiting_input() else { break };
                    self.on_input(now, input);
                }
            }
            Wake::Command(command) => {
                self.on_command(now, command);
                // The writes of all callers that wait are made durable by one commit.
                for _ in 1..INPUTS_PER_TURN {
                    if buggify(Point::OneInput) {
                        break;
                    }
                    let Some(command) = self.inlets.waiting_command() else { break };
                    self.on_command(now, command);
                }
            }
            Wake::Deadline => self.end_unread_watches(),
        }
        Ok(())
    }

    fn on_disk(&mut self, now: Instant, done: Done) {
        match done {
            Done::Durable => self.durable.on_durable(&mut self.jobs),
            Done::Failed(failed) => {
                let Failed { why, left, restored } = *failed;
                self.bus.send(&NodeEvent::StoreFailed { reason: why.to_string() });
                self.durable.on_failed(now, why.clone(), left);
                self.jobs.set_counters_kept(false);
                self.waiting = std::mem::take(&mut self.waiting).without_disk();
                self.custody.set_durable(false);
                self.go_on_with(now, *restored, &why);
            }
            Done::StillFails(error) => {
                tracing::debug!(target: "nurl::store", %error, "the store can't be opened again yet");
                self.durable.on_still_fails(now);
            }
            Done::Reopened(replicator) => {
                self.bus.send(&NodeEvent::StoreWorks);
                self.durable.on_reopened(now);
                self.jobs.set_counters_kept(true);
                self.custody.set_durable(true);
                self.go_on_with(now, *replicator, REOPENED);
            }
        }
    }

    /// Goes on with another replicator, which has what is on the disk.
    fn go_on_with(&mut self, now: Instant, replicator: Replicator, why: &str) {
        let earlier = std::mem::replace(&mut self.replicator, replicator);
        self.replicator.take_over(now, earlier);
        self.calls.begin_again(now, &mut self.replicator, why);
    }

    fn adopt_view(&mut self, now: Instant) {
        let view = self.inlets.view();
        self.jobs.note_epoch(view.epoch);
        let news = self.placing.ring_of(&view);
        let completes = self.placing.completes(&view);
        if let Some(ring) = &news {
            self.jobs.set_placement(now, ring.clone());
        }
        // Before, this node would take itself, or the few that it knows, for a key's only owners.
        if self.placing.is_complete() && (completes || news.is_some()) {
            self.replicator.set_ring(now, self.placing.ring());
            self.custody.set_ring(now, self.placing.ring());
        }
        if completes {
            self.jobs.on_view_complete(now);
            self.placing.tell_joined();
        }
    }

    fn on_input(&mut self, now: Instant, input: WorkInput) {
        match input {
            WorkInput::Message { from, kind: kind::JOB, body } => self.jobs.handle_message(now, from, body),
            WorkInput::Message { from, kind: kind::CUSTODY, body } => {
                self.custody.handle_message(now, &from, &body);
            }
            WorkInput::Message { from, body, .. } => {
                rt::cost(Cost::MergedByte, body.len());
                self.replicator.handle_message(now, time::unix_now(), from.account(), &body);
            }
            WorkInput::Issued(pass) => {
                self.jobs.set_standing(Standing::of(&pass));
                self.custody.set_pass(pass.clone());
                self.durable.take_pass(pass);
            }
            WorkInput::Signed(pass) => self.durable.take_signed(pass),
            WorkInput::Revoked(news) => {
                for entry in &news {
                    self.jobs.revoke(entry.clone());
                    self.custody.revoke(now, entry.clone());
                }
                self.durable.take_revocations(news);
            }
            WorkInput::Rotated(record) => self.durable.take_secret(record),
            WorkInput::SendFailed { peer } => {
                self.jobs.on_send_failed(now, peer);
                self.replicator.on_peer_lost(peer);
            }
            WorkInput::Member { peer, change } => self.jobs.on_member(now, peer, change),
        }
    }

    fn on_report(&mut self, now: Instant, report: Report) {
        match report {
            Report::Progress { run, note } => self.jobs.progress(run, note),
            Report::Finished(finished) => {
                self.pool.forget(finished.run);
                self.tasks.finished(&finished);
                self.jobs.finished(now, finished.run, finished.result);
            }
        }
    }

    fn on_command(&mut self, now: Instant, command: WorkCommand) {
        match command {
            WorkCommand::Submit { kind, key, payload, file, options, course, reply } => {
                let (large, ends) = (options.large, now + options.life);
                let taken = self.jobs.submit(now, &kind, &key, payload, options);
                if let Ok(task) = &taken {
                    tracing::debug!(target: "nurl::job", %task, kind, "a task is submitted here");
                    self.tasks.follow(*task, course);
                    if large {
                        self.large.follow(*task, ends, file);
                    }
                }
                let _ = reply.send(taken.map_err(Error::from));
            }
            WorkCommand::Cancel { task, reply } => {
                let _ = reply.send(self.jobs.cancel(now, task));
            }
            WorkCommand::Detached { call, reply } => self.detached.open(now, &mut self.custody, call, reply),
            WorkCommand::HeldTasks { reply } => {
                let _ = reply.send(self.custody.held());
            }
            WorkCommand::NamedTask { name, reply } => {
                let _ = reply.send(self.custody.named_task(&name));
            }
            WorkCommand::Update { name, op, confirm, reply } => {
                let id = self.calls.open(Call::Update(reply));
                self.replicator.update(now, time::unix_now(), id, &name, (op, confirm));
            }
            WorkCommand::Read { kind, name, reply } => {
                let id = self.calls.open(Call::Read(kind, name.clone(), reply));
                self.replicator.read(now, id, kind, &name);
            }
            WorkCommand::List { query, reply } => {
                let id = self.calls.open(Call::List(query.clone(), reply));
                self.replicator.list(now, id, query);
            }
            WorkCommand::Watch { kind, name, reply } => {
                self.end_unread_watches();
                let begun = self.replicator.watch(now, kind, &name);
                let begun = begun.map(|id| self.calls.watch(id, kind, name));
                let _ = reply.send(begun.map_err(outcome::refused));
            }
            WorkCommand::Stats { reply } => {
                let _ = reply.send(self.stats());
            }
            WorkCommand::Held { key, reply } => {
                let _ = reply.send(self.replicator.get(&key).cloned());
            }
            WorkCommand::Drain { limit, reply } => {
                if self.tasks.await_drain(reply) {
                    self.jobs.drain(now, limit);
                }
            }
            WorkCommand::Joined { reply } => self.placing.await_join(reply),
            WorkCommand::Shutdown { reply } => self.leave(now, reply),
            #[cfg(all(test, not(feature = "sim")))]
            WorkCommand::Panic => panic!("a test asked for it"),
        }
    }

    fn end_unread_watches(&mut self) {
        for id in self.calls.unread_watches() {
            self.replicator.unwatch(id);
        }
    }

    fn stats(&self) -> WorkStats {
        WorkStats {
            jobs: self.jobs.stats().clone(),
            jobs_now: self.jobs.gauges(),
            custody: self.custody.stats(),
            custody_now: self.custody.gauges(),
            replication: *self.replicator.stats(),
            disk: self.durable.stats(),
            unacknowledged: self.replicator.pending(),
            tenures: self.jobs.tenure_stats(),
            pool: self.pool.stats().clone(),
            pool_running: self.pool.running(),
            large: self.large_stats.clone(),
        }
    }

    /// Begins to offer the writes that only this node has, and gives running tasks back, so that their submitters
    /// needn't wait for a timeout.
    fn leave(&mut self, now: Instant, reply: Reply<Departure>) {
        if self.leaving.begin(now, reply) {
            self.replicator.leave(now);
            self.jobs.drain(now, Duration::ZERO);
            self.jobs.handle_timeout(now);
        }
    }

    // ---- Outputs.

    /// Passes on the outputs of the parts. An error means that the network plane has ended.
    async fn pass_on(&mut self, now: Instant) -> Result<(), Error> {
        let net = self.net.upgrade().ok_or(Error::Closed)?;
        if let Some(highest) = self.durable.epoch_to_tell(self.jobs.highest_epoch()) {
            net.send(NetCommand::NoteEpoch(highest)).await.map_err(|_| Error::Closed)?;
        }
        if let Some(fails) = self.durable.health_to_tell() {
            net.send(NetCommand::DiskFails(fails)).await.map_err(|_| Error::Closed)?;
        }
        while let Some(run) = self.jobs.poll_run(now) {
            self.tasks.started(&run);
            self.pool.start(run);
        }
        while let Some(run) = self.jobs.poll_cancel() {
            self.pool.cancel(run);
        }
        while let Some(event) = self.jobs.poll_event() {
            self.custody.on_job(now, &event);
            if self.large.on_event(&event)
                && let JobEvent::Done { task, outcome, by, attempts } = event
            {
                log::job_event(&JobEvent::Done { task, outcome: outcome.clone(), by, attempts });
                if let Some(course) = self.tasks.take_course(task) {
                    self.large.deliver(course, task, by, attempts, outcome);
                }
                continue;
            }
            self.tasks.on_event(event);
        }
        self.large.pass_on().await.map_err(|_| Error::Closed)?;
        task::caught_up().await;
        while let Some((to, body)) = self.jobs.poll_transmit() {
            let message = NetCommand::Message { to, priority: Priority::Job, kind: kind::JOB, body };
            net.send(message).await.map_err(|_| Error::Closed)?;
        }
        if self.durable.is_busy() {
            return Ok(());
        }
        let durable = std::mem::take(&mut self.waiting);
        self.tell(&net, durable).await?;
        // A caller or a peer must not learn of a write that a crash could still undo.
        let begun = self.durable.begin(&mut self.jobs, &mut self.custody, &mut self.replicator);
        let outputs = Outputs::of(&mut self.replicator, &mut self.custody);
        if begun {
            self.waiting = outputs;
            return Ok(());
        }
        self.tell(&net, outputs).await
    }

    /// Does what the log needs of the jobs.
    fn obey(&mut self, order: Order) {
        let now = time::now();
        match order {
            Order::Drive(drive) => {
                let task = drive.task;
                if let Err(error) = self.jobs.submit_for(now, *drive) {
                    self.custody.on_drive_failed(now, task, &error);
                }
            }
            Order::Cancel(task) => {
                self.jobs.cancel(now, task);
            }
            Order::Release(task) => self.jobs.release(now, task),
            Order::End(task) => self.jobs.end_for_log(now, task),
        }
    }

    /// Passes on what the replicator and the log tell.
    async fn tell(&mut self, net: &mpsc::Sender<NetCommand>, outputs: Outputs) -> Result<(), Error> {
        for event in outputs.events {
            self.calls.on_event(event);
        }
        for (to, body) in outputs.messages {
            let body = Bytes::from(body);
            let message = NetCommand::Message { to, priority: Priority::State, kind: kind::STATE, body };
            net.send(message).await.map_err(|_| Error::Closed)?;
        }
        for (id, told) in outputs.told {
            self.detached.on_told(id, told);
        }
        for (to, body) in outputs.detached {
            let message = NetCommand::Message { to, priority: Priority::Job, kind: kind::CUSTODY, body };
            net.send(message).await.map_err(|_| Error::Closed)?;
        }
        outputs.orders.into_iter().for_each(|order| self.obey(order));
        Ok(())
    }
}
