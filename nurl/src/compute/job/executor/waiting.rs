//! Who waits for the tasks that this node executes: submitters that stop, ask, come and go, and the beats that they get.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::answers::{refuse, tell};
use super::super::event::JobEvent;
use super::super::listeners::Turn;
use super::super::message::{Beat, Message, Reason};
use super::super::replica::{Replica, Waiter, add_waiter};
use super::super::shared::{SharedContext, Timer};
use super::super::signs::Signs;
use super::super::task::TaskId;
use super::{ExecutionPhase, Executor};
use crate::key::PublicKey;

/// How often it is asked whether a task is still wanted whose custodian is gone.
const ORPHAN_ASKS: Duration = Duration::from_secs(5);

impl Executor {
    /// Removes a waiter. The submitter no longer waits (it has an outcome, or it cancels), or not for this attempt.
    /// The execution ends with the last waiter. A task of the log of detached tasks has one custodian after the other:
    /// if one says that it is over, it is over for those before it too, of which some may be dead.
    pub(in super::super) fn handle_stop(
        &mut self,
        shared: &mut SharedContext,
        from: PublicKey,
        task: TaskId,
        attempt: Option<u32>,
    ) {
        let Some(execution) = self.tasks.get_mut(&task) else { return };
        let before = execution.waiters.len();
        execution
            .waiters
            .retain(|waiter| waiter.who != from || attempt.is_some_and(|attempt| attempt < waiter.attempt));
        let over = attempt.is_none() && execution.spec.warrant.is_some();
        if execution.waiters.len() == before {
            shared.stats.unexpected += 1;
        } else if execution.waiters.is_empty() || over {
            self.remove(shared, task);
        }
    }

    /// Answers a submitter that asks for the task's outcome or state.
    pub(in super::super) fn handle_fetch(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        from: PublicKey,
        task: TaskId,
        attempt: u32,
    ) {
        let waiter = Waiter { who: from, attempt };
        if let Some(kept) = replica.get(&task) {
            if kept.record.is_settled() {
                refuse(shared, task, waiter, Reason::Settled { hash: kept.record.hash });
            } else if !kept.submitters().contains(&from) {
                shared.stats.unexpected += 1;
            } else {
                tell(shared, task, waiter, &kept.record);
                replica.owe(shared, now, task, waiter);
            }
        } else if let Some(execution) = self.tasks.get_mut(&task) {
            if execution.waiters.iter().any(|known| known.who == from) {
                add_waiter(&mut execution.waiters, waiter);
                let (token, boot) = (execution.token, shared.boot);
                let (kind, anywhere) = (execution.spec.kind.clone(), execution.anywhere);
                let lanes = self.lanes(shared, &kind, anywhere);
                shared.send(from, Message::Accepted { task, attempt, boot, token, lanes });
            } else {
                shared.stats.unexpected += 1;
            }
        } else {
            refuse(shared, task, waiter, Reason::Unknown);
        }
    }

    // ---- Members come and go.

    /// Notes that a node that was asked won't answer.
    pub(in super::super) fn on_peer_down(&mut self, shared: &mut SharedContext, peer: PublicKey) {
        let mut answered = Vec::new();
        for (task, execution) in &mut self.tasks {
            if let ExecutionPhase::Asking(asked) = &mut execution.phase
                && asked.remove(&peer)
                && asked.is_empty()
            {
                answered.push(*task);
            }
        }
        for task in answered {
            self.enqueue(shared, task);
        }
    }

    /// Notes that a submitter is gone. Its tasks run on, because the owners keep the outcome, but it gets no beats.
    /// One waiter stays in the list, so that a submitter may acknowledge. A task of the log whose custodian is gone has
    /// to be asked about there: it may have been cancelled meanwhile, and nobody else knows of this run.
    pub(in super::super) fn on_submitter_gone(&mut self, now: Instant, peer: PublicKey) {
        for execution in self.tasks.values_mut() {
            if execution.waiters.len() > 1 {
                execution.waiters.retain(|waiter| waiter.who != peer);
            } else if execution.spec.warrant.is_some()
                && execution.waiters.iter().any(|waiter| waiter.who == peer)
            {
                execution.orphaned = Some(now);
            }
        }
    }

    /// Ends a task that the log says is over.
    pub(in super::super) fn end_for_log(&mut self, shared: &mut SharedContext, task: TaskId) {
        if self.tasks.get(&task).is_some_and(|execution| execution.spec.warrant.is_some()) {
            self.remove(shared, task);
        }
    }

    /// Ends the tasks that only this submitter waits for, running ones too: nothing is done for it any more.
    pub(in super::super) fn drop_submitter(&mut self, shared: &mut SharedContext, peer: PublicKey) {
        let mut over = Vec::new();
        for (task, execution) in &mut self.tasks {
            execution.waiters.retain(|waiter| waiter.who != peer);
            if execution.waiters.is_empty() {
                over.push(*task);
            }
        }
        for task in over {
            self.remove(shared, task);
        }
    }

    /// Notes that a message came from `peer`.
    pub(in super::super) fn heard(&mut self, now: Instant, peer: PublicKey) {
        self.listeners.heard(now, peer);
    }

    /// Notes that a message to `peer` was not delivered.
    pub(in super::super) fn on_send_failed(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        peer: PublicKey,
    ) {
        self.listeners.unreached(now, peer);
        self.on_peer_down(shared, peer);
    }

    /// Sends beats to every submitter, and sets the tick for the next ones.
    pub(in super::super) fn beat(&mut self, shared: &mut SharedContext, replica: &mut Replica, now: Instant) {
        let mut by_submitter: BTreeMap<PublicKey, Signs> = BTreeMap::new();
        for (task, execution) in &mut self.tasks {
            let note = execution.note.take();
            if let Some(ask) = execution.orphaned.as_mut().filter(|ask| **ask <= now) {
                *ask = now + ORPHAN_ASKS;
                shared.event(JobEvent::Orphaned { task: *task });
            }
            for waiter in execution.waiters.iter().filter(|waiter| !shared.peers.is_down(&waiter.who)) {
                let signs = by_submitter.entry(waiter.who).or_default();
                signs.beats.push(Beat { task: *task, attempt: waiter.attempt, finished: None });
                signs.notes.extend(note.clone().map(|note| (*task, waiter.attempt, note)));
            }
        }
        for (who, beat) in replica.beats() {
            by_submitter.entry(who).or_default().beats.push(beat);
        }
        self.listeners.retain(|peer| by_submitter.contains_key(peer));
        for (who, signs) in by_submitter {
            // This node always hears its own beats.
            let turn = if who == shared.local { Turn::Beat } else { self.listeners.turn(now, who) };
            match turn {
                Turn::Ask | Turn::Beat => signs.send(shared, who, turn == Turn::Ask),
                Turn::Skip => {}
                Turn::Deaf => shared.stats.outcomes_unheard += replica.give_up(who),
            }
        }
        if !self.tasks.is_empty() || replica.owes_anything() {
            shared.timers.set(Timer::Beat, now + shared.config.beat_interval);
        }
    }
}
