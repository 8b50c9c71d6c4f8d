//! Jobs: `submit(kind, key, payload)`, the key's owner executes, the submitter's handle resolves once.
//!
//! [`Jobs`] is the pure state machine of one node, in all its roles: submitter, router, executor and keeper of
//! outcomes. It promises:
//!
//! - **A handle resolves once**, with a result or an error, at the latest when the task's life ends.
//! - **A task runs at least once** while any live member has its kind. Without consensus it may run twice; that
//!   is counted, and every run has a fencing [`Epoch`](crate::ring::Epoch) for the resource to tell them apart.
//! - **A task that kills its workers is given up** after as many as it may be lost with, see [`SubmitOptions`].
//! - **A task that has an outcome is not run again** by a node that can reach one of the owners of its key.
//!
//! How: attempt *n* goes to the *n*-th live executor of the (kind, key) list. A node runs it if its own view has
//! it among the first *n*+1, else it forwards, at most [`options::MAX_HOPS`] times. The executor answers
//! `Accepted` at once and beats every second. No `Accepted`, three missed beats, a death or a new boot, and the
//! submitter goes to the next executor, with full-jitter back-off, until the life ends. A re-submitted task is
//! run only after the key's owners were asked (1 s) whether they know its outcome. An outcome goes to the
//! submitter and to the owners together; the submitter's acknowledgement drops its bytes, its hash stays.
//!
//! A node that [drains](Jobs::drain) gives its tasks back, and the submitter goes to the next executor at once. A task
//! whose kind members have, but none that is live, waits for one. A submitter that gives no answer to beats is beaten
//! to ever more seldom, and then no more.
//!
//! It refuses: the same id with another payload, outcomes from nodes that are neither on the task's list nor
//! had accepted it, submits in another node's name, kinds without a handler, counters that are absurdly far
//! ahead, and everything over the limits of [`options`].
//!
//! The driver feeds messages, members' changes and handlers' results in, then drains [`Jobs::poll_transmit`],
//! [`Jobs::poll_run`], [`Jobs::poll_cancel`] and [`Jobs::poll_event`], and calls [`Jobs::handle_timeout`] at
//! [`Jobs::poll_timeout`]. Messages to this node itself never leave it.

pub mod backoff;
mod error;
mod event;
mod executor;
mod holders;
mod keeper;
mod listeners;
mod message;
pub mod options;
mod record;
mod shared;
mod submission;
mod submitter;
mod task;
#[cfg(test)]
mod tests;
mod timers;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::error::{JobError, SubmitError};
pub use self::event::{Drained, Event, Gauges, MemberChange, Moved, Run, RunId, Stats, WaitReason};
pub use self::message::MessageError;
pub use self::options::{Config, KindLimits, SubmitOptions};
pub use self::record::{Class, Record, outcome_hash};
pub use self::shared::Placement;
pub use self::submitter::DeadLetter;
pub use self::task::{NotATaskId, Priority, TASK_ID_LEN, TaskId};

use self::executor::Executor;
use self::keeper::Keeper;
use self::message::Message;
use self::shared::{MAX_DOWN, Shared, Timer};
use self::submitter::Submitter;
use self::timers::Timers;
use crate::key::PublicKey;
use crate::ring::TenureBook;
use crate::rt::Rng;

/// The jobs of one node.
pub struct Jobs {
    shared: Shared,
    submitter: Submitter,
    executor: Executor,
    keeper: Keeper,
}

impl Jobs {
    /// A node without a view: it can submit, and waits for [`set_placement`](Jobs::set_placement).
    pub fn new(config: Config, local: PublicKey, boot: u64, _now: Instant, rng: Rng) -> Jobs {
        let tenures = TenureBook::new(local, config.initial_epoch);
        let shared = Shared {
            config: config.sane(),
            local,
            boot,
            rng,
            placement: None,
            timers: Timers::new(),
            tenures,
            down: BTreeSet::new(),
            failed: BTreeSet::new(),
            draining: BTreeMap::new(),
            silent: BTreeMap::new(),
            stats: Stats::default(),
            events: VecDeque::new(),
            to_self: VecDeque::new(),
            outbox: VecDeque::new(),
        };
        Jobs {
            shared,
            submitter: Submitter::default(),
            executor: Executor::default(),
            keeper: Keeper::default(),
        }
    }

    /// The view has changed.
    pub fn set_placement(&mut self, now: Instant, placement: Arc<dyn Placement + Send + Sync>) {
        self.shared.placement = Some(placement.clone());
        let local = self.shared.local;
        let running = self.executor.keys();
        let acts = |key: &[u8]| {
            self.executor.kinds().any(|kind| placement.executors(kind, key).first() == Some(&local))
        };
        self.shared.tenures.retain(|key| running.contains(key) || acts(key));
        self.keeper.on_placement(&mut self.shared, now);
        self.submitter.on_placement(&mut self.shared, now);
        self.settle(now);
    }

    /// A push-pull with the members has completed: from now on an empty list of executors means something.
    pub fn on_view_complete(&mut self, now: Instant) {
        self.submitter.on_view_complete(&mut self.shared, now);
        self.settle(now);
    }

    /// Says that this node has a handler for `kind`, or changes its limits. False if there are too many kinds.
    pub fn register(&mut self, kind: &str, limits: KindLimits) -> bool {
        self.executor.register(kind, limits)
    }

    /// Takes a task under a new id.
    ///
    /// # Errors
    /// As [`SubmitError`] says; nothing was taken then.
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

    /// Takes a task under an id that the caller may have used before, here or through another node. Taking it
    /// twice here is one task; elsewhere, the key's owners are asked for its outcome before it is run.
    ///
    /// # Errors
    /// As [`SubmitError`] says; [`SubmitError::Conflict`] for an id of another kind, key or payload.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: a submission that outlives its caller brings its own id")
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

    /// Resolves the handle with [`JobError::Cancelled`] and stops the run if there is one. False if there is no
    /// such open task.
    pub fn cancel(&mut self, now: Instant, task: TaskId) -> bool {
        let known = self.submitter.cancel(&mut self.shared, &mut self.keeper, now, task);
        self.settle(now);
        known
    }

    /// The tasks given up after too many failures, oldest first.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: the list of dead letters in `Node` and the command")
    )]
    pub fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.submitter.dead_letters()
    }

    /// Makes a new task of a dead letter, linked to it, and takes the letter off the list.
    ///
    /// # Errors
    /// [`SubmitError::NoSuchDeadLetter`], or why the new task was not taken; the letter stays then.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: dead letters are retried from `Node` and the command")
    )]
    pub fn retry_dead_letter(
        &mut self,
        now: Instant,
        task: TaskId,
        options: SubmitOptions,
    ) -> Result<TaskId, SubmitError> {
        let id = self.submitter.retry_dead_letter(&mut self.shared, now, task, options)?;
        self.settle(now);
        Ok(id)
    }

    /// A reliable message of kind *job* has come from `from`.
    pub fn handle_message(&mut self, now: Instant, from: PublicKey, body: Bytes) {
        match Message::decode(&body) {
            Ok(message) => self.dispatch(now, from, message),
            Err(MessageError::UnknownType(_)) => self.shared.stats.unknown_type += 1,
            Err(_) => self.shared.stats.malformed += 1,
        }
        self.settle(now);
    }

    /// The detector's verdict on a member.
    pub fn on_member(&mut self, now: Instant, peer: PublicKey, change: MemberChange) {
        self.shared.draining.remove(&peer);
        self.shared.is_heard(&peer);
        match change {
            MemberChange::Dead | MemberChange::Left => {
                if self.shared.down.len() < MAX_DOWN {
                    self.shared.down.insert(peer);
                }
                self.executor.on_peer_down(&mut self.shared, peer);
            }
            MemberChange::Alive | MemberChange::Restarted => {
                self.shared.down.remove(&peer);
            }
        }
        self.submitter.on_member(&mut self.shared, now, peer, change);
        if change != MemberChange::Alive {
            self.executor.on_submitter_gone(peer);
        }
        self.keeper.on_member(&mut self.shared, now, peer, change);
        self.settle(now);
    }

    /// A message to `peer` was not delivered. A burst of them is dealt with once, at the next
    /// [`handle_timeout`](Jobs::handle_timeout), which is due at once.
    pub fn on_send_failed(&mut self, now: Instant, peer: PublicKey) {
        if self.shared.failed.len() < MAX_DOWN {
            self.shared.failed.insert(peer);
            self.shared.timers.set_if_idle(Timer::Failed, now);
        }
    }

    fn after_failed_sends(&mut self, now: Instant) {
        for peer in std::mem::take(&mut self.shared.failed) {
            self.submitter.on_send_failed(&mut self.shared, now, peer);
            self.executor.on_peer_down(&mut self.shared, peer);
            self.keeper.on_send_failed(&mut self.shared, now, peer);
        }
    }

    /// The next message to send, to another node.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Bytes)> {
        let (to, message) = self.shared.outbox.pop_front()?;
        Some((to, message.encode()))
    }

    /// The next handler to start. Each must come back through [`finished`](Jobs::finished), also when it was
    /// cancelled: it occupies its place until then.
    pub fn poll_run(&mut self, now: Instant) -> Option<Run> {
        self.executor.start(&mut self.shared, now)
    }

    /// The next run to abort.
    pub fn poll_cancel(&mut self) -> Option<RunId> {
        self.executor.poll_cancel()
    }

    /// A handler has ended.
    pub fn finished(&mut self, now: Instant, run: RunId, result: Result<Bytes, JobError>) {
        self.executor.finished(&mut self.shared, &mut self.keeper, now, run, result);
        self.settle(now);
    }

    /// From now on this node takes no task. What is queued goes back to its submitters at once; what runs may come
    /// to its end within `limit`, and goes back then. [`Event::Drained`] tells when nothing is left here: no run, and
    /// no outcome that its submitter hasn't acknowledged, but at most [`options::DRAIN_GRACE`] after the limit.
    /// Called again, the earlier limit counts. There is no way back: a node that drained is shut down.
    pub fn drain(&mut self, now: Instant, limit: Duration) {
        self.executor.drain(&mut self.shared, now, limit);
        self.settle(now);
    }

    /// A handler reports progress; the submitter hears the latest note with the next beat.
    pub fn progress(&mut self, run: RunId, note: Bytes) {
        self.executor.progress(run, note);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.shared.timers.pop_due(now) {
            match timer {
                Timer::Submission(task) => {
                    self.submitter.on_timer(&mut self.shared, &mut self.keeper, now, task);
                }
                Timer::Resolved(task) => self.submitter.forget(task),
                Timer::Execution(task) => {
                    self.executor.on_timer(&mut self.shared, &mut self.keeper, now, task);
                }
                Timer::Records => self.keeper.expire(&mut self.shared, now),
                Timer::Tenures => self.shared.age_tenures(now),
                Timer::Beat => self.executor.beat(&mut self.shared, &mut self.keeper, now),
                Timer::Failed => self.after_failed_sends(now),
                Timer::Drain => self.executor.drain_over(&mut self.shared, now),
                Timer::Redeliver => self.keeper.redeliver(&mut self.shared, now),
                Timer::Resync => self.keeper.resync(&mut self.shared, now),
            }
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Jobs::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shared.timers.next()
    }

    /// The highest epoch counter seen or taken; it travels in every membership message.
    pub fn highest_epoch(&self) -> u64 {
        self.shared.tenures.highest()
    }

    /// The epoch counter to store next, as [`TenureBook::poll_persist`] says: drain it after every call, or
    /// submits are refused as busy when the reserve has run out.
    pub fn poll_persist(&mut self) -> Option<u64> {
        self.shared.tenures.poll_persist()
    }

    /// That counter is durable; without a store, say so at once.
    pub fn on_persisted(&mut self, counter: u64) {
        self.shared.tenures.on_persisted(counter);
    }

    /// Learns a counter from membership or from a resource; one that is too far ahead is refused and counted.
    pub fn note_epoch(&mut self, counter: u64) {
        let believed = self.shared.tenures.note(counter).is_ok();
        self.shared.stats.epoch_refused += u64::from(!believed);
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What is in the tables now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            open: self.submitter.open(),
            executing: self.executor.len(),
            running: self.executor.running(),
            records: self.keeper.len(),
            record_bytes: self.keeper.held_bytes(),
            tenures: self.shared.tenures.len(),
            left_behind_bytes: self.keeper.settled_bytes()
                + self.shared.tenures.bytes()
                + self.submitter.resolved_bytes(),
        }
    }

    /// The kept outcome of a task, if this node has one.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: durable results"))]
    pub fn record(&self, task: TaskId) -> Option<&Record> {
        self.keeper.get(&task).map(|kept| &kept.record)
    }

    /// Handles the messages of this node to itself. They end: each is an answer to one before it.
    fn settle(&mut self, now: Instant) {
        while let Some(message) = self.shared.to_self.pop_front() {
            let local = self.shared.local;
            self.dispatch(now, local, message);
        }
        self.executor.report_drain(&mut self.shared, &self.keeper, now);
    }

    fn dispatch(&mut self, now: Instant, from: PublicKey, message: Message) {
        let Jobs { shared: sh, submitter, executor, keeper } = self;
        executor.heard(now, from);
        sh.is_heard(&from);
        match message {
            Message::Submit(submit) => executor.handle_submit(sh, keeper, now, from, submit),
            Message::Accepted { task, attempt, boot, token } => {
                submitter.handle_accepted(sh, now, from, (task, attempt, boot), token);
            }
            Message::Beats { boot, beats, answer } => {
                if answer && submitter.waits_for(&beats) {
                    sh.send(from, Message::Listening);
                }
                submitter.handle_beats(sh, now, from, boot, &beats);
            }
            Message::Progress { task, attempt, note } => {
                submitter.handle_progress(sh, from, task, attempt, note);
            }
            Message::Refused { task, attempt, reason } => {
                submitter.handle_refused(sh, keeper, now, from, task, attempt, reason);
            }
            Message::Outcome { task, record, .. } => {
                submitter.handle_outcome(sh, now, from, task, record);
            }
            Message::Replica(copy) => {
                let task = copy.task;
                keeper.handle_replica(sh, now, from, copy);
                executor.on_record(sh, keeper, now, task);
            }
            Message::Ack { task, .. } => {
                executor.handle_stop(sh, from, task, None);
                keeper.acknowledge(sh, task, from);
            }
            Message::Fetch { task, attempt } => executor.handle_fetch(sh, keeper, now, from, task, attempt),
            Message::Cancel { task } => executor.handle_stop(sh, from, task, None),
            Message::Withdraw { task, attempt } => {
                executor.handle_stop(sh, from, task, Some(attempt));
            }
            Message::Ask { task, digest } => executor.handle_ask(sh, keeper, from, task, digest),
            Message::Known { task, known } => executor.handle_known(sh, keeper, now, from, task, known),
            // That it has come is all that it says.
            Message::Listening => {}
        }
    }
}
