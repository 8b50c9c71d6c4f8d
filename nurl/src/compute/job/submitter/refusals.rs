//! What a submitter makes of a refusal: it waits, asks the next node, follows the task, or ends it.

use std::time::Instant;

use super::super::error::JobError;
use super::super::event::Moved;
use super::super::message::{Message, Reason, Refused};
use super::super::options::{MAX_BUSY_STAYS, MAX_HOPS};
use super::super::policy::Needs;
use super::super::replica::Replica;
use super::super::shared::SharedContext;
use super::super::submission::SubmissionPhase;
use super::super::task::TaskId;
use super::{MAX_BUSY_WAIT, Submissions, given, way};
use crate::key::PublicKey;
use crate::kit::draw;

impl Submissions {
    pub(in super::super) fn handle_refused(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        from: PublicKey,
        Refused { task: id, attempt, reason }: Refused,
    ) {
        let Some(task) = self.open.get_mut(&id) else { return };
        task.free.left(from);
        self.free.stir();
        // This holds in every phase: a node that gave the task back isn't lost with it.
        task.holders.released(from);
        // Messages may overtake each other, and a beat that was sent before would be taken for a sign of life: its sender
        // would be waited for until it is silent.
        if matches!(reason, Reason::Failed { .. } | Reason::HandedBack | Reason::Busy { .. }) {
            task.nodes.gave_back(from, attempt);
        }
        // Only answers of the latest attempt count, from its target or from a node that the submit was forwarded to.
        // Such a node is on the list; otherwise its outcome wouldn't be believed either.
        let current = match &task.phase {
            SubmissionPhase::Waiting { target, .. } => Some(*target),
            SubmissionPhase::Accepted { by, .. } => Some(*by),
            SubmissionPhase::Placing { .. } | SubmissionPhase::BackOff { .. } => None,
        };
        let latest = attempt.checked_add(1) == Some(task.tries.attempts);
        let accepted_elsewhere = matches!(task.phase, SubmissionPhase::Accepted { by, .. } if by != from);
        if current.is_none() || (!latest && current != Some(from)) || accepted_elsewhere {
            return;
        }
        if !task.may_speak(shared, from) {
            shared.stats.unexpected += 1;
            return;
        }
        match reason {
            Reason::Busy { retry_after } => {
                shared.stats.busy_seen += 1;
                if task.tries.busy_stays >= MAX_BUSY_STAYS {
                    self.retry(shared, now, id, from, Moved::Busy);
                    return;
                }
                task.tries.busy_stays += 1;
                let hint = retry_after.min(MAX_BUSY_WAIT);
                let until = now + hint + draw::duration(&mut shared.rng, hint);
                task.phase = SubmissionPhase::BackOff { until, stay: Some(from) };
                self.arm(shared, id);
            }
            Reason::UnknownKind => {
                let list = shared.executors(&task.spec.kind, &task.spec.key);
                if task.nodes.lacks_kind(from, &list) {
                    let kind = task.spec.kind.clone();
                    self.end_here(shared, replica, now, id, JobError::UnknownKind(kind));
                } else if !self.end_if_not_allowed(shared, now, id) {
                    self.retry(shared, now, id, from, Moved::Refused);
                }
            }
            Reason::HandedBack => self.handed_back(shared, now, id, from),
            Reason::NotAllowed { needs } if latest && task.has_asked(from) => {
                self.not_allowed(shared, now, id, from, needs);
            }
            // An earlier attempt's, or of one that wasn't asked: it ends nothing.
            Reason::NotAllowed { .. } => shared.stats.unexpected += 1,
            Reason::Misrouted | Reason::Unknown => self.retry(shared, now, id, from, Moved::Refused),
            Reason::Elsewhere { runner } => {
                task.nodes.hear(runner);
                // Who has the task from another submitter of it answers this one's own word alone.
                let (message, len) = match task.known {
                    true => {
                        let reach = usize::try_from(attempt).unwrap_or(usize::MAX);
                        let submit = task.submit(shared, now, id, attempt, reach);
                        (Message::Submit(submit), task.spec.payload.len() as u64)
                    }
                    false => (Message::Fetch { task: id, attempt }, 0),
                };
                // Believed once: if the runner doesn't answer, the next executor runs the task in any case.
                task.force = true;
                given(shared, &task.spec, id, runner);
                let until = now + shared.config.accept_timeout + way(shared, len);
                task.phase = SubmissionPhase::Waiting { target: runner, until };
                self.arm(shared, id);
                shared.send(runner, message);
            }
            Reason::Forwarded { runner } => self.forwarded(shared, now, id, from, runner),
            Reason::Conflict => self.resolve(shared, now, id, Err(JobError::Conflict), Some(from), None),
            Reason::Settled { hash } => {
                self.resolve(shared, now, id, Err(JobError::Settled { hash }), Some(from), None);
            }
            Reason::Failed { error } => self.failed(shared, replica, now, id, from, error),
        }
    }

    /// Tells the node to which the task was forwarded that the task is this node's own: it believes only that.
    fn forwarded(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
        from: PublicKey,
        runner: PublicKey,
    ) {
        let Some(task) = self.open.get_mut(&id) else { return };
        let SubmissionPhase::Waiting { until, .. } = &mut task.phase else {
            shared.stats.unexpected += 1;
            return;
        };
        if task.tries.forwards >= MAX_HOPS {
            self.retry(shared, now, id, from, Moved::Refused);
            return;
        }
        task.tries.forwards += 1;
        task.tries.runner = Some(runner);
        task.nodes.hear(runner);
        given(shared, &task.spec, id, runner);
        // The payload is on its way from the forwarder. If it doesn't arrive, it is the forwarder that fell silent.
        *until = now + shared.config.accept_timeout + way(shared, task.spec.payload.len() as u64);
        let attempt = task.tries.attempts.saturating_sub(1);
        let digest = task.spec.digest;
        self.arm(shared, id);
        shared.send(runner, Message::Claim { task: id, attempt, digest });
    }

    /// Handles the answer of a draining node: the next executor gets the task at once, and this node's other tasks
    /// avoid `from`.
    fn handed_back(&mut self, shared: &mut SharedContext, now: Instant, id: TaskId, from: PublicKey) {
        let Some(task) = self.open.get_mut(&id) else { return };
        shared.stats.hand_backs += 1;
        if !shared.peers.pass_over(now, from) {
            // The draining node can't be remembered, so it would be chosen again.
            self.retry(shared, now, id, from, Moved::HandedBack);
            return;
        }
        task.nodes.last = Some((from, Moved::HandedBack));
        self.place(shared, now, id, None);
    }

    /// Handles an executor's word that its policy doesn't permit the task: the next executor gets it at once, and this one
    /// isn't asked again.
    fn not_allowed(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
        from: PublicKey,
        needs: Needs,
    ) {
        let Some(task) = self.open.get_mut(&id) else { return };
        shared.stats.not_allowed_seen += 1;
        task.nodes.refused_by_policy(from, needs);
        task.nodes.last = Some((from, Moved::NotAllowed));
        if !self.end_if_not_allowed(shared, now, id) {
            self.place(shared, now, id, None);
        }
    }

    /// Ends a task that no live executor permits. Before the view is complete, one that permits it may not be in it yet.
    /// The end is no outcome of the task: another submitter may be permitted.
    pub(super) fn end_if_not_allowed(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
    ) -> bool {
        let Some(task) = self.open.get(&id) else { return false };
        let list = shared.executors(&task.spec.kind, &task.spec.key);
        let Some(needs) = task.nodes.needed(&list).filter(|_| self.complete_at.is_some()) else {
            return false;
        };
        let error = JobError::NotAllowed { kind: task.spec.kind.clone(), needs: needs.to_string() }.bounded();
        self.resolve(shared, now, id, Err(error), None, None);
        true
    }
}
