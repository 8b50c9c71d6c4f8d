//! Jobs: `submit(kind, key, payload)`, the key's owner executes the task, and the submitter's handle resolves once.
//!
//! [`Jobs`] is the pure state machine of one node, in all its roles: submitter, router, executor and replica of
//! outcomes. Its guarantees:
//!
//! - **A handle resolves once**, with a result or an error, at the latest when the task's life ends.
//! - **A task runs at least once** while any live member has its kind. Without consensus it may run twice. That is
//!   counted, and every run has a fencing [`Epoch`](crate::ring::Epoch), by which a resource can distinguish the
//!   runs.
//! - **A task that kills its workers is given up** after the maximum number of lost workers, see [`SubmitOptions`].
//! - **A task that has an outcome is not run again** by a node that can reach one of the owners of its key.
//!
//! How it works: attempt *n* goes to the *n*-th live executor of the (kind, key) list. A node runs the task if it is
//! among the first *n*+1 in its own view. Otherwise it forwards the task, at most [`options::MAX_HOPS`] times, and tells
//! the submitter where to; the next node waits until the submitter claims the task over its own session. The
//! executor answers `Accepted` at once and sends a beat every second. Without an `Accepted`, after three missed
//! beats, a death or a new boot, the submitter goes to the next executor, with full-jitter back-off, until the life
//! ends. A re-submitted task is run only after the key's owners were asked (1 s) for its outcome. An outcome goes to
//! the submitter and to the owners at the same time. The submitter's acknowledgement drops the outcome's bytes; its
//! hash stays.
//!
//! A [free](SubmitOptions::anywhere) task goes to the worker that is expected to end it first, instead of the first of
//! the list, and waits at the submitter until that one has room.
//!
//! A node that [drains](Jobs::drain) gives its tasks back, and the submitter goes to the next executor at once. A
//! task whose kind only dead or absent members have waits for a live one. A submitter that doesn't answer beats gets
//! them at growing intervals, and finally none.
//!
//! The state machine refuses the same id with another payload, outcomes from nodes that are neither on the task's
//! list nor had accepted it, submits in another node's name, kinds without a handler, counters that are far too high,
//! and everything over the limits of [`options`].
//!
//! The driver passes messages, members' changes and handlers' results to it, then drains [`Jobs::poll_transmit`],
//! [`Jobs::poll_run`], [`Jobs::poll_cancel`] and [`Jobs::poll_event`], and calls [`Jobs::handle_timeout`] at
//! [`Jobs::poll_timeout`]. Messages to this node itself stay inside the state machine.

mod answers;
pub mod custody;
mod error;
mod event;
mod executor;
mod forwarded;
mod holders;
mod holdings;
mod listeners;
mod message;
mod nodes;
pub mod options;
mod pace;
mod peers;
pub mod policy;
mod portions;
mod queue;
mod queues;
mod record;
mod replica;
mod shared;
mod signs;
mod spec;
mod standing;
pub mod store;
mod submission;
mod submitter;
mod task;
#[cfg(test)]
mod tests;
mod told;
pub mod warrant;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::error::{JobError, SubmitError};
pub use self::event::{Drained, Gauges, JobEvent, JobStats, MemberChange, Moved, Run, RunId, WaitReason};
pub use self::message::MessageError;
pub use self::options::{Config, KindLimits, SubmitOptions};
pub use self::record::{Class, Record, outcome_hash};
pub use self::shared::Placement;
pub use self::spec::digest;
pub use self::standing::Submitter;
pub use self::task::{NotATaskId, Priority, TASK_ID_LEN, TaskId};

use self::custody::Drive;
use self::executor::Executor;
use self::forwarded::Claim;
use self::message::Message;
use self::policy::Needs;
use self::replica::Replica;
use self::shared::{SharedContext, Timer};
use self::submitter::Submissions;
use self::warrant::Warrants;
use crate::authority::checker::Standing;
use crate::authority::revocation::Revocation;
use crate::key::PublicKey;
use crate::ring::TenureCounters;
use crate::rt::Rng;

/// The jobs of one node.
pub struct Jobs {
    shared: SharedContext,
    submitter: Submissions,
    executor: Executor,
    replica: Replica,
    /// This node's own standing, for the tasks that it submits to itself.
    standing: Option<Standing>,
}

impl Jobs {
    /// A node without a view. It can submit; its tasks wait for [`set_placement`](Jobs::set_placement).
    pub fn new(config: Config, local: PublicKey, boot: u64, _now: Instant, rng: Rng) -> Jobs {
        let shared = SharedContext::new(config, local, boot, rng);
        Jobs {
            shared,
            submitter: Submissions::default(),
            executor: Executor::default(),
            replica: Replica::default(),
            standing: None,
        }
    }

    /// Takes the placement of a new view.
    pub fn set_placement(&mut self, now: Instant, placement: Arc<dyn Placement + Send + Sync>) {
        self.shared.follow(now, placement);
        self.shared.tenures.drop_idle();
        self.replica.on_placement(&mut self.shared, now);
        self.submitter.on_placement(&mut self.shared, now);
        self.settle(now);
    }

    /// Notes that a push-pull with the members has completed: from now on a missing executor may make a task
    /// infeasible.
    pub fn on_view_complete(&mut self, now: Instant) {
        self.submitter.on_view_complete(&mut self.shared, now);
        self.settle(now);
    }

    /// Registers a handler of this node for `kind`, or changes its limits. False if there are too many kinds.
    pub fn register(&mut self, kind: &str, limits: KindLimits) -> bool {
        self.executor.register(kind, limits)
    }

    /// Only those whom one of these policies permits may submit tasks of a kind; without them, all may.
    pub fn allow(&mut self, kind: &str, needs: Needs) {
        self.executor.allow(kind, needs);
    }

    /// Takes what this node's own pass says: policies judge its own tasks by it.
    pub fn set_standing(&mut self, standing: Standing) {
        self.standing = Some(standing);
    }

    /// Takes a task under a new id.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was taken then.
    pub fn submit(
        &mut self,
        now: Instant,
        kind: &str,
        key: &[u8],
        payload: Bytes,
        options: SubmitOptions,
    ) -> Result<TaskId, SubmitError> {
        let id = TaskId::random(&mut self.shared.rng);
        self.submitter.submit(&mut self.shared, now, id, false, (kind, key, payload), options, None)?;
        self.settle(now);
        Ok(id)
    }

    /// Takes a task under an id that the caller may have used before, here or through another node. Repeated here, it
    /// is still one task. Repeated elsewhere, the key's owners are asked for its outcome before it is run.
    ///
    /// # Errors
    /// [`SubmitError`]; [`SubmitError::Conflict`] for an id of another kind, key or payload.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn submit_with_id(
        &mut self,
        now: Instant,
        id: TaskId,
        kind: &str,
        key: &[u8],
        payload: Bytes,
        options: SubmitOptions,
    ) -> Result<TaskId, SubmitError> {
        self.submitter.submit(&mut self.shared, now, id, true, (kind, key, payload), options, None)?;
        self.settle(now);
        Ok(id)
    }

    /// Resolves the handle with [`JobError::Cancelled`] and stops the run, if any. False if the task is not open.
    pub fn cancel(&mut self, now: Instant, task: TaskId) -> bool {
        let known = self.submitter.cancel(&mut self.shared, &mut self.replica, now, task);
        self.settle(now);
        known
    }

    /// Takes a task of the log of detached tasks, as its custodian. Its policy, its share and its limits are those of the
    /// holder who signed its warrant. The nodes that have its outcome keep it until it is [released](Jobs::release).
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_for(&mut self, now: Instant, drive: Drive) -> Result<(), SubmitError> {
        let Drive { task, warrant, kind, key, payload, options } = drive;
        let job = (kind.as_str(), &key[..], payload);
        self.submitter.submit(&mut self.shared, now, task, true, job, options, Some(Box::new(warrant)))?;
        self.settle(now);
        Ok(())
    }

    /// Notes that the outcome of a task of the log is safe there.
    pub fn release(&mut self, now: Instant, task: TaskId) {
        self.submitter.release(&mut self.shared, task);
        self.settle(now);
    }

    /// Ends a task that runs here for the log, which says that it is over.
    pub fn end_for_log(&mut self, now: Instant, task: TaskId) {
        self.executor.end_for_log(&mut self.shared, task);
        self.settle(now);
    }

    /// Believes warrants of this mesh; none are believed before.
    pub fn set_warrants(&mut self, warrants: Warrants) {
        self.shared.warrants = Some(warrants);
    }

    /// Takes a revocation: warrants of what it revokes count no more.
    pub fn revoke(&mut self, entry: Revocation) {
        if let Some(warrants) = &mut self.shared.warrants {
            warrants.revoke(entry);
        }
    }

    /// Takes a reliable message of kind *job*. What it takes of this node's tables is booked on the account of its sender,
    /// and what it submits is judged by the sender's standing.
    pub fn handle_message(&mut self, now: Instant, from: Submitter, body: Bytes) {
        match Message::decode(&body) {
            Ok(message) => self.dispatch(now, from, message),
            Err(MessageError::UnknownType(_)) => self.shared.stats.unknown_type += 1,
            Err(_) => self.shared.stats.malformed += 1,
        }
        self.settle(now);
    }

    /// Takes the failure detector's verdict on a member.
    pub fn on_member(&mut self, now: Instant, peer: PublicKey, change: MemberChange) {
        let down = matches!(change, MemberChange::Dead | MemberChange::Left | MemberChange::Revoked);
        self.shared.peers.changed(peer, down);
        if down {
            self.executor.on_peer_down(&mut self.shared, peer);
        }
        self.submitter.on_member(&mut self.shared, now, peer, change);
        if change == MemberChange::Revoked {
            self.executor.drop_submitter(&mut self.shared, peer);
        } else if change != MemberChange::Alive {
            self.executor.on_submitter_gone(now, peer);
        }
        self.replica.on_member(&mut self.shared, now, peer, change);
        self.settle(now);
    }

    /// Notes that a message to `peer` was not delivered. The next [`handle_timeout`](Jobs::handle_timeout), which is
    /// due at once, handles a burst of such failures together.
    pub fn on_send_failed(&mut self, now: Instant, peer: PublicKey) {
        if self.shared.peers.send_failed(peer) {
            self.shared.timers.set_if_idle(Timer::Failed, now);
        }
    }

    fn after_failed_sends(&mut self, now: Instant) {
        for peer in self.shared.peers.take_failed() {
            self.submitter.on_send_failed(&mut self.shared, now, peer);
            self.executor.on_send_failed(&mut self.shared, now, peer);
            self.replica.on_send_failed(&mut self.shared, now, peer);
        }
    }

    /// The next message to send to another node.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Bytes)> {
        let (to, message) = self.shared.queues.next_message()?;
        Some((to, message.encode()))
    }

    /// The next handler to start. Each run must be returned through [`finished`](Jobs::finished), also when it was
    /// cancelled: it occupies its place until then.
    pub fn poll_run(&mut self, now: Instant) -> Option<Run> {
        self.executor.start(&mut self.shared, now)
    }

    /// The next run to abort.
    pub fn poll_cancel(&mut self) -> Option<RunId> {
        self.executor.poll_cancel()
    }

    /// Takes the result of a handler.
    pub fn finished(&mut self, now: Instant, run: RunId, result: Result<Bytes, JobError>) {
        self.executor.finished(&mut self.shared, &mut self.replica, now, run, result);
        self.settle(now);
    }

    /// Stops taking tasks. Queued tasks go back to their submitters at once. Running tasks may end within `limit` and
    /// go back after it. [`JobEvent::Drained`] follows when this node has no run left and no outcome that its submitter
    /// hasn't acknowledged, but at most [`options::DRAIN_GRACE`] after the limit. If it is called again, the earlier
    /// limit counts. A drain can't be undone: a drained node is shut down.
    pub fn drain(&mut self, now: Instant, limit: Duration) {
        self.executor.drain(&mut self.shared, now, limit);
        self.settle(now);
    }

    /// Takes a handler's progress note. The submitter gets the latest note with the next beat.
    pub fn progress(&mut self, run: RunId, note: Bytes) {
        self.executor.progress(run, note);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<JobEvent> {
        self.shared.queues.next_event()
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.shared.timers.pop_due(now) {
            match timer {
                Timer::Submission(task) => {
                    self.submitter.on_timer(&mut self.shared, &mut self.replica, now, task);
                }
                Timer::Resolved(task) => self.submitter.forget(task),
                Timer::Execution(task) => {
                    self.executor.on_timer(&mut self.shared, &mut self.replica, now, task);
                }
                Timer::Records => self.replica.expire(&mut self.shared, now),
                Timer::Tenures => self.shared.age_tenures(now),
                Timer::Beat => self.executor.beat(&mut self.shared, &mut self.replica, now),
                Timer::Failed => self.after_failed_sends(now),
                Timer::Drain => self.executor.drain_over(&mut self.shared, now),
                Timer::Forwarded => self.executor.drop_unclaimed(&mut self.shared, now),
                Timer::Redeliver => self.replica.redeliver(&mut self.shared, now),
                Timer::Resync => self.replica.resync(&mut self.shared, now),
            }
        }
        self.settle(now);
    }

    /// The time at which [`handle_timeout`](Jobs::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shared.timers.next()
    }

    /// The highest epoch counter seen or used; it is sent in every membership message.
    pub fn highest_epoch(&self) -> u64 {
        self.shared.tenures.highest()
    }

    /// The epoch counter to store next, see [`TenureBook::poll_persist`](crate::ring::TenureBook::poll_persist). Drain
    /// it after every call, or submits are refused as busy when the reserve is used up.
    pub fn poll_persist(&mut self) -> Option<u64> {
        self.shared.tenures.poll_persist()
    }

    /// Notes that this counter is durable. Without a store, call it at once.
    pub fn on_persisted(&mut self, counter: u64) {
        self.shared.tenures.on_persisted(counter);
    }

    /// Tells whether the driver's disk takes epoch counters. While it doesn't, tasks that need a new one are handed back, so
    /// that they run elsewhere.
    pub fn set_counters_kept(&mut self, kept: bool) {
        self.shared.counters_kept = kept;
    }

    /// Sets the wall clock, the time since 1970: it limits the epoch counters that are believed.
    pub fn set_unix_now(&mut self, unix_now: Duration) {
        self.shared.tenures.set_unix_now(unix_now);
    }

    /// Learns a counter from membership. A counter that is too far ahead is refused and counted.
    pub fn note_epoch(&mut self, counter: u64) {
        let believed = self.shared.tenures.note(counter).is_ok();
        self.shared.stats.epoch_refused += u64::from(!believed);
    }

    /// Counters since the start.
    pub fn stats(&self) -> &JobStats {
        &self.shared.stats
    }

    /// Counters of the tenures.
    pub fn tenure_stats(&self) -> TenureCounters {
        self.shared.tenures.counters
    }

    /// The present sizes of the tables.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            open: self.submitter.open(),
            executing: self.executor.len(),
            running: self.executor.running(),
            records: self.replica.len(),
            record_bytes: self.replica.held_bytes(),
            tenures: self.shared.tenures.len(),
            left_behind_bytes: self.replica.settled_bytes()
                + self.shared.tenures.bytes()
                + self.submitter.resolved_bytes(),
        }
    }

    /// The kept outcome of a task, if this node has one.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: durable results"))]
    pub fn record(&self, task: TaskId) -> Option<&Record> {
        self.replica.get(&task).map(|kept| &kept.record)
    }

    /// Places the free tasks that can go on, and handles the messages of this node to itself. The loop ends because each message answers an earlier one.
    fn settle(&mut self, now: Instant) {
        loop {
            self.submitter.spread(&mut self.shared, now);
            let Some(message) = self.shared.queues.next_to_self() else { break };
            let local = Submitter::new(self.shared.local, self.standing.clone());
            self.dispatch(now, local, message);
        }
        self.executor.report_drain(&mut self.shared, &self.replica, now);
    }

    fn dispatch(&mut self, now: Instant, by: Submitter, message: Message) {
        let Jobs { shared, submitter, executor, replica, .. } = self;
        let from = by.key();
        executor.heard(now, from);
        shared.peers.heard(&from);
        match message {
            Message::Submit(submit) => executor.handle_submit(shared, replica, now, by, submit),
            Message::Accepted { task, attempt, boot, token, lanes } => {
                submitter.handle_accepted(shared, now, from, (task, attempt, boot), (token, lanes));
            }
            Message::Beats { boot, beats, answer } => {
                if answer && submitter.waits_for(&beats) {
                    shared.send(from, Message::Listening {});
                }
                submitter.handle_beats(shared, now, from, boot, &beats);
            }
            Message::Progress { task, attempt, note } => {
                submitter.handle_progress(shared, from, task, attempt, note);
            }
            Message::Refused(refused) => submitter.handle_refused(shared, replica, now, from, refused),
            Message::Outcome { task, record, .. } => {
                submitter.handle_outcome(shared, now, from, task, record);
            }
            Message::Replica(copy) => {
                let task = copy.task;
                replica.handle_copy(shared, now, by.account(), copy);
                executor.on_record(shared, replica, now, task);
            }
            Message::Ack { task, hash } => {
                executor.handle_stop(shared, from, task, None);
                replica.acknowledge(shared, task, from, hash);
            }
            Message::Fetch { task, attempt } => {
                executor.handle_fetch(shared, replica, now, from, task, attempt)
            }
            Message::Cancel { task } => executor.handle_stop(shared, from, task, None),
            Message::Withdraw { task, attempt } => {
                executor.handle_stop(shared, from, task, Some(attempt));
            }
            Message::Ask { task, digest } => executor.handle_ask(shared, replica, from, task, digest),
            Message::Claim { task, attempt, digest } => {
                executor.handle_claim(shared, replica, now, by, task, Claim { attempt, digest });
            }
            Message::Known(known) => executor.handle_known(shared, replica, now, from, known),
            // Its arrival is its only content.
            Message::Listening {} => {}
        }
    }
}
