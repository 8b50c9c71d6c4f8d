//! The submitter: one handle per task, resolved once.
//!
//! A task is *placing* (no live executor), *waiting* (sent, not yet accepted), *accepted* (beating) or in
//! *back-off*. If an attempt ends without an outcome, the next one follows; the end of the life leads to an error. A
//! failed executor is not tried again before every other one was tried. A task that is lost with too many executors,
//! or fails on too many, is a dead letter.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::{JobError, SubmitError};
use super::event::{JobEvent, MemberChange, Moved, WaitReason};
use super::holders::{Holders, VERDICT_WITHIN};
use super::message::{Beat, Message};
use super::nodes::TaskNodes;
use super::options::{
    HORIZON, LOSS_SPREAD, MAX_KEY_LEN, MAX_KIND_LEN, MAX_LIFE, MAX_PAYLOAD_LEN, MAX_RESOLVED,
    MAX_SUBMISSION_BYTES, MAX_SUBMISSIONS, SubmitOptions,
};
use super::pace::Lanes;
use super::record::Record;
use super::replica::{NOT_KNOWN, Replica, TaskMeta};
use super::shared::{SharedContext, Timer};
use super::spec::{TaskSpec, digest};
use super::submission::{AwaitedResult, Submission, SubmissionPhase, Tries};
use super::task::TaskId;
use super::warrant::Warrant;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::backoff::full_jitter;
use crate::kit::draw;
use crate::ring::Epoch;
use crate::rt::{Table, bound};

pub(super) mod free;
mod refusals;

use self::free::{FreeRuns, FreeTasks};

/// The hint of a full submitter: its oldest tasks usually end within seconds.
const SUBMITTER_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The result's transfer time is added to `fetch_after` between two requests for a lost result. It is doubled at most
/// this often: on a slow link each copy delays the one before it.
const MAX_FETCH_DOUBLINGS: u8 = 6;
/// Limit on a `Busy` hint, because the hint comes from another node.
const MAX_BUSY_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Resolved {
    digest: [u8; 32],
    hash: [u8; 32],
    by: Option<PublicKey>,
    /// The nodes that keep the outcome until it is [released](Submissions::release).
    owed: Vec<PublicKey>,
}

#[derive(Debug, Default)]
pub(super) struct Submissions {
    open: BTreeMap<TaskId, Submission>,
    bytes: usize,
    resolved: BTreeMap<TaskId, Resolved>,
    resolved_order: VecDeque<TaskId>,
    complete_at: Option<Instant>,
    free: FreeTasks,
}

impl Submissions {
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// The bytes that the resolved ids occupy.
    pub(super) fn resolved_bytes(&self) -> usize {
        let entry = size_of::<(TaskId, Resolved)>() + size_of::<TaskId>() + 2 * size_of::<(Timer, Instant)>();
        self.resolved.len() * entry
    }

    #[cfg(test)]
    pub(super) fn backs_off(&self, id: TaskId) -> bool {
        self.open.get(&id).is_some_and(|task| matches!(task.phase, SubmissionPhase::BackOff { .. }))
    }

    #[cfg(test)]
    pub(super) fn resolved_len(&self) -> usize {
        self.resolved.len()
    }

    #[expect(clippy::too_many_arguments, reason = "the one entrance of all public calls")]
    pub(super) fn submit(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
        known: bool,
        (kind, key, payload): (&str, &[u8], Bytes),
        options: SubmitOptions,
        warrant: Option<Box<Warrant>>,
    ) -> Result<(), SubmitError> {
        if kind.is_empty() || kind.len() > MAX_KIND_LEN {
            return Err(SubmitError::BadKind);
        }
        if key.len() > MAX_KEY_LEN {
            return Err(SubmitError::BadKey);
        }
        if payload.len() > MAX_PAYLOAD_LEN {
            return Err(SubmitError::PayloadTooLarge { len: payload.len() });
        }
        // The wire counts milliseconds: a shorter life would arrive as zero.
        if options.life < Duration::from_millis(1) || options.life > MAX_LIFE {
            return Err(SubmitError::BadLife);
        }
        let digest = digest(kind, key, &payload);
        let former = self.open.get(&id).map(|task| task.spec.digest);
        if let Some(former) = former.or_else(|| self.resolved.get(&id).map(|task| task.digest)) {
            return if former == digest { Ok(()) } else { Err(SubmitError::Conflict(id)) };
        }
        let full = self.open.len() >= bound(Table::Submissions, MAX_SUBMISSIONS);
        if full || self.bytes + payload.len() > MAX_SUBMISSION_BYTES {
            shared.stats.refused_submits += 1;
            return Err(SubmitError::Busy { retry_after: SUBMITTER_RETRY_AFTER });
        }
        shared.stats.submitted += 1;
        self.bytes += payload.len();
        let (kind, key) = (kind.to_owned(), Bytes::copy_from_slice(key));
        let parent = warrant.as_ref().and_then(|warrant| warrant.parent);
        let task = Submission {
            spec: TaskSpec { kind, key, payload, digest, parent, large: options.large, warrant },
            deadline: now + options.life,
            options,
            known,
            force: false,
            tries: Tries::default(),
            nodes: TaskNodes::default(),
            holders: Holders::default(),
            waits_told: false,
            awaited: AwaitedResult::default(),
            token: None,
            phase: SubmissionPhase::Placing { since: now, told: false },
            free: FreeRuns::default(),
        };
        if task.waits_for_room() {
            self.free.enter(&task.spec.kind, id);
        }
        self.open.insert(id, task);
        self.place(shared, now, id, None);
        Ok(())
    }

    pub(super) fn cancel(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        id: TaskId,
    ) -> bool {
        self.end_here(shared, replica, now, id, JobError::Cancelled)
    }

    // ---- Attempts.

    /// Sends the next attempt, to `stay` if it is still on the list, otherwise to the next executor of the list.
    fn place(&mut self, shared: &mut SharedContext, now: Instant, id: TaskId, stay: Option<PublicKey>) {
        let Some(task) = self.open.get_mut(&id) else { return };
        if stay.is_none() && task.waits_for_room() {
            self.arm(shared, id);
            return;
        }
        if let Some(until) = task.holders.wait(now, task.max_losses()) {
            if !std::mem::replace(&mut task.waits_told, true) {
                shared.event(JobEvent::Waiting { task: id, why: WaitReason::Verdict });
            }
            task.phase = SubmissionPhase::BackOff { until, stay };
            self.arm(shared, id);
            return;
        }
        task.waits_told = false;
        let list = shared.candidates(now, &task.spec.kind, &task.spec.key);
        let mut open = shared.peers.not_silent(now, &task.nodes.may_allow(list.clone()));
        let anywhere = task.options.anywhere;
        if anywhere {
            let kind = task.spec.kind.clone();
            open = self.free.soonest_first(&self.open, now, &kind, &open);
        }
        let Some(task) = self.open.get_mut(&id) else { return };
        let chosen = task.nodes.choose(&open, stay);
        let Some(target) = chosen else {
            if self.end_if_not_allowed(shared, now, id) {
                return;
            }
            let Some(task) = self.open.get_mut(&id) else { return };
            if !matches!(task.phase, SubmissionPhase::Placing { .. }) {
                task.phase = SubmissionPhase::Placing { since: now, told: false };
            }
            self.arm(shared, id);
            return;
        };
        let attempt = task.tries.attempts;
        task.tries.attempts = task.tries.attempts.saturating_add(1);
        task.tries.forwards = 0;
        task.tries.runner = None;
        task.nodes.addressed(target);
        shared.stats.attempts += 1;
        if let Some((from, why)) = task.nodes.last.take()
            && from != target
        {
            shared.event(JobEvent::Reassigned { task: id, from, to: target, why });
        }
        let until = now + shared.config.accept_timeout + way(shared, task.spec.payload.len() as u64);
        task.phase = SubmissionPhase::Waiting { target, until };
        let place = list.iter().position(|member| *member == target).unwrap_or_default();
        let reach = usize::try_from(attempt).unwrap_or(usize::MAX).max(place);
        let submit = task.submit(shared, now, id, attempt, reach);
        given(shared, &task.spec, id, target);
        if anywhere {
            self.free.goes_to(&mut self.open, now, id, target);
        }
        self.arm(shared, id);
        tracing::debug!(target: "nurl::job", task = %id, attempt, to = %target.short(), "an attempt of a task begins");
        shared.send(target, Message::Submit(submit));
    }

    /// Gives waiting free tasks to workers that have room, and runs the last ones once more where that helps.
    pub(super) fn spread(&mut self, shared: &mut SharedContext, now: Instant) {
        let Some(kinds) = self.free.stirred_kinds() else { return };
        for kind in &kinds {
            while let Some((id, target)) = self.free.next(&self.open, shared, now, kind) {
                self.place(shared, now, id, Some(target));
            }
        }
        while let Some((id, target)) = self.free.to_run_once_more(&self.open, shared, now) {
            if let Some(task) = self.open.get_mut(&id) {
                // Another executor runs the task, which is known.
                task.force = true;
            }
            shared.stats.run_once_more += 1;
            self.place(shared, now, id, Some(target));
        }
    }

    /// Ends the attempt at `from` without an outcome: back off, then go to the next executor.
    fn retry(&mut self, shared: &mut SharedContext, now: Instant, id: TaskId, from: PublicKey, why: Moved) {
        let Some(task) = self.open.get_mut(&id) else { return };
        let delay = full_jitter(
            &mut shared.rng,
            shared.config.backoff_base,
            shared.config.backoff_cap,
            task.tries.retries,
        );
        task.tries.retries = task.tries.retries.saturating_add(1);
        task.tries.busy_stays = 0;
        if why == Moved::Silent {
            shared.peers.fell_silent(now, from);
            task.holders.fell_silent(from, now + VERDICT_WITHIN);
        }
        let suspicions = u32::try_from(task.holders.suspicions().saturating_sub(1)).unwrap_or(u32::MAX);
        let spread = draw::duration(
            &mut shared.rng,
            LOSS_SPREAD.saturating_mul(suspicions).min(shared.config.backoff_cap),
        );
        task.nodes.last = Some((from, why));
        task.phase = SubmissionPhase::BackOff { until: now + delay + spread, stay: None };
        task.free.left(from);
        self.free.stir();
        self.arm(shared, id);
    }

    fn arm(&self, shared: &mut SharedContext, id: TaskId) {
        let Some(task) = self.open.get(&id) else { return };
        let next = match task.phase {
            SubmissionPhase::Placing { since, told } => {
                // A draining executor may be back by then, or may still not have ended.
                let again = shared.peers.first_drained().unwrap_or(task.deadline);
                match self.complete_at {
                    Some(complete) if !told => {
                        (since.max(complete) + shared.config.infeasible_after).min(again)
                    }
                    _ => again,
                }
            }
            SubmissionPhase::Waiting { until, .. } | SubmissionPhase::BackOff { until, .. } => until,
            SubmissionPhase::Accepted { heard, fetch, .. } => {
                let silent = heard + shared.config.silence;
                fetch.map_or(silent, |fetch| fetch.min(silent))
            }
        };
        shared.timers.set(Timer::Submission(id), next.min(task.deadline));
    }

    pub(super) fn on_timer(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        id: TaskId,
    ) {
        let Some(task) = self.open.get_mut(&id) else { return };
        if now >= task.deadline {
            self.end_here(shared, replica, now, id, JobError::Deadline);
            return;
        }
        if task.holders.lost().count() >= task.max_losses() {
            self.lost(shared, replica, now, id);
            return;
        }
        let attempt = task.tries.attempts.saturating_sub(1);
        match &mut task.phase {
            SubmissionPhase::Placing { .. } => self.still_placing(shared, replica, now, id),
            SubmissionPhase::Waiting { target, .. } => {
                let target = *target;
                shared.stats.silences += 1;
                self.retry(shared, now, id, target, Moved::Silent);
            }
            SubmissionPhase::BackOff { stay, .. } => {
                let stay = *stay;
                self.place(shared, now, id, stay);
            }
            SubmissionPhase::Accepted { by, heard, fetch, .. } => {
                let by = *by;
                if now >= *heard + shared.config.silence {
                    shared.stats.silences += 1;
                    self.retry(shared, now, id, by, Moved::Silent);
                    return;
                }
                if fetch.is_some_and(|at| now >= at) {
                    // The result may still be on its way: ask again at growing intervals.
                    task.awaited.fetches = task.awaited.fetches.saturating_add(1);
                    *fetch = Some(now + fetch_delay(shared, task.awaited.len, task.awaited.fetches));
                    shared.stats.fetched += 1;
                    shared.send(by, Message::Fetch { task: id, attempt });
                }
                self.arm(shared, id);
            }
        }
    }

    /// Continues a task that no executor took for a while. The task ends if no member in this view has its kind.
    fn still_placing(&mut self, shared: &mut SharedContext, replica: &mut Replica, now: Instant, id: TaskId) {
        self.place(shared, now, id, None);
        if self.waits_for_room(shared, now, id) {
            return;
        }
        let after = shared.config.infeasible_after;
        let Some(Submission { spec, phase: SubmissionPhase::Placing { since, told: told @ false }, .. }) =
            self.open.get_mut(&id)
        else {
            return;
        };
        if self.complete_at.is_none_or(|complete| now < complete.max(*since) + after) {
            return;
        }
        if !shared.has_kind(&spec.kind) {
            let kind = spec.kind.clone();
            self.end_here(shared, replica, now, id, JobError::Infeasible(kind));
            return;
        }
        *told = true;
        shared.event(JobEvent::Waiting { task: id, why: WaitReason::Away });
        self.arm(shared, id);
    }

    /// Whether a task has workers, and waits for room with one of them; then it is looked at again later.
    fn waits_for_room(&mut self, shared: &mut SharedContext, now: Instant, id: TaskId) -> bool {
        let Some(task) = self.open.get_mut(&id).filter(|task| task.waits_for_room()) else { return false };
        if shared.candidates(now, &task.spec.kind, &task.spec.key).is_empty() {
            return false;
        }
        task.phase = SubmissionPhase::Placing { since: now, told: false };
        self.free.stir();
        self.arm(shared, id);
        true
    }

    // ---- Answers.

    pub(super) fn handle_accepted(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        from: PublicKey,
        (id, attempt, boot): (TaskId, u32, u64),
        (token, lanes): (Epoch, Option<Lanes>),
    ) {
        if !shared.believe(token) {
            return;
        }
        let Some(task) = self.open.get_mut(&id) else {
            self.not_waiting(shared, from, id, attempt, false);
            return;
        };
        // Whoever has the task was sent it, or was named by one that had been. Nobody else can say that it has it: its word about
        // the outcome would be final.
        if attempt >= task.tries.attempts || !task.nodes.has_heard(&from) {
            shared.stats.unexpected += 1;
            return;
        }
        if task.nodes.has_given_back(&from, attempt) {
            return;
        }
        task.token = task.token.max(Some(token));
        if task.options.anywhere {
            self.free.lanes(&task.spec.kind, from, lanes);
        }
        if self.adopt(shared, now, id, from, (attempt, boot, false)) {
            shared.event(JobEvent::Accepted { task: id, by: from, token });
        }
    }

    /// Takes `from` as the executor, unless another node has the task already. Only one node should run a task, so the
    /// other one is told to stop.
    fn adopt(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
        from: PublicKey,
        (attempt, boot, finished): (u32, u64, bool),
    ) -> bool {
        let Some(task) = self.open.get_mut(&id) else { return false };
        let latest = task.tries.attempts.saturating_sub(1);
        task.holders.has(from, boot);
        let latest_runs =
            matches!(task.phase, SubmissionPhase::Accepted { .. } | SubmissionPhase::Waiting { .. });
        if task.free.runs_beside(from) && latest_runs && !finished {
            return false;
        }
        let withdrawn = match &mut task.phase {
            SubmissionPhase::Accepted { by, boot: known_boot, heard, .. } if *by == from => {
                *heard = now;
                *known_boot = boot;
                self.arm(shared, id);
                return false;
            }
            SubmissionPhase::Accepted { fetch: Some(_), .. } if finished => {
                task.holders.released(from);
                return false;
            }
            // `from` has finished, which is better than the executor that still runs.
            SubmissionPhase::Accepted { by, .. } if finished => Some(*by),
            SubmissionPhase::Accepted { .. } => {
                task.holders.released(from);
                shared.stats.withdrawn += 1;
                shared.send(from, Message::Withdraw { task: id, attempt });
                return false;
            }
            // The submit may have been forwarded, so the answer of the latest attempt may come from another node than
            // its target.
            SubmissionPhase::Waiting { target, .. } => {
                (*target != from && attempt != latest).then_some(*target)
            }
            SubmissionPhase::Placing { .. } | SubmissionPhase::BackOff { .. } => None,
        };
        task.phase = SubmissionPhase::Accepted { by: from, boot, heard: now, fetch: None };
        task.tries.retries = 0;
        task.tries.busy_stays = 0;
        task.nodes.last = None;
        // The acceptance of a second run leaves the first one, which goes on.
        if task.options.anywhere && (task.free.runs_beside(from) || !task.free.runs_twice()) {
            task.free.is_only_at(now, from);
        }
        self.free.stir();
        if let Some(target) = withdrawn {
            task.holders.released(target);
            shared.stats.withdrawn += 1;
            shared.send(target, Message::Withdraw { task: id, attempt: latest });
        }
        self.arm(shared, id);
        true
    }

    /// Whether any of these beats is for a task that is open here, or whose outcome is to be kept.
    pub(super) fn waits_for(&self, beats: &[Beat]) -> bool {
        let owes = |task| self.resolved.get(task).is_some_and(|resolved| !resolved.owed.is_empty());
        beats.iter().any(|beat| self.open.contains_key(&beat.task) || owes(&beat.task))
    }

    pub(super) fn handle_beats(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        from: PublicKey,
        boot: u64,
        beats: &[Beat],
    ) {
        self.free.stir_if_placed();
        for beat in beats {
            let id = beat.task;
            let Some(task) = self.open.get_mut(&id) else {
                self.not_waiting(shared, from, id, beat.attempt, beat.finished.is_some());
                continue;
            };
            if !task.nodes.has_heard(&from) || beat.attempt >= task.tries.attempts {
                shared.stats.unexpected += 1;
                continue;
            }
            if task.nodes.has_given_back(&from, beat.attempt) {
                continue;
            }
            if let SubmissionPhase::Accepted { by, boot: known, .. } = &task.phase
                && *by == from
                && *known != boot
            {
                task.holders.replaced(from);
                self.retry(shared, now, id, from, Moved::Gone);
                continue;
            }
            self.adopt(shared, now, id, from, (beat.attempt, boot, beat.finished.is_some()));
            if self.open.get(&id).is_some_and(|task| self.free.lacks_lanes(task, from)) {
                shared.send(from, Message::Fetch { task: id, attempt: beat.attempt });
            }
            if let Some(task) = self.open.get_mut(&id)
                && let SubmissionPhase::Accepted { by, fetch, .. } = &mut task.phase
                && *by == from
                && let Some(len) = beat.finished
                && fetch.is_none()
            {
                // No result is longer, whatever length the node claims.
                task.awaited.len = len.min(MAX_PAYLOAD_LEN as u64);
                *fetch = Some(now + fetch_delay(shared, task.awaited.len, task.awaited.fetches));
                self.arm(shared, id);
            }
        }
    }

    /// Handles the message of a node that has a task without an open handle here.
    fn not_waiting(
        &mut self,
        shared: &mut SharedContext,
        from: PublicKey,
        id: TaskId,
        attempt: u32,
        finished: bool,
    ) {
        match self.resolved.get(&id) {
            Some(resolved) if finished && !resolved.owed.is_empty() => {}
            Some(resolved) if finished => {
                let hash = resolved.hash;
                shared.send(from, Message::Ack { task: id, hash });
            }
            Some(_) => {
                shared.stats.withdrawn += 1;
                shared.send(from, Message::Withdraw { task: id, attempt });
            }
            // The task is from before this node's restart. A running one runs on, and its owners keep the outcome.
            None if finished => shared.send(from, Message::Ack { task: id, hash: NOT_KNOWN }),
            None => shared.stats.unexpected += 1,
        }
    }

    pub(super) fn handle_progress(
        &mut self,
        shared: &mut SharedContext,
        from: PublicKey,
        id: TaskId,
        attempt: u32,
        note: Bytes,
    ) {
        match self.open.get(&id) {
            Some(Submission { phase: SubmissionPhase::Accepted { by, .. }, tries, .. })
                if *by == from && attempt < tries.attempts =>
            {
                shared.event(JobEvent::Progress { task: id, by: from, note });
            }
            _ => shared.stats.unexpected += 1,
        }
    }

    fn failed(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        id: TaskId,
        from: PublicKey,
        error: JobError,
    ) {
        let Some(task) = self.open.get_mut(&id) else { return };
        task.tries.failures += 1;
        if task.tries.failures < task.options.max_failures.max(1) {
            self.retry(shared, now, id, from, Moved::Failed(error));
            return;
        }
        let (failures, last) = (task.tries.failures, error.to_string());
        self.end_here(shared, replica, now, id, JobError::DeadLetter { failures, last });
    }

    /// Ends a task that was lost with the maximum number of workers.
    fn lost(&mut self, shared: &mut SharedContext, replica: &mut Replica, now: Instant, id: TaskId) {
        let Some(task) = self.open.get(&id) else { return };
        let names: Vec<_> = task.holders.lost().map(|who| who.short()).collect();
        let workers = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let error = JobError::Lost { workers, names: names.join(", ") };
        self.end_here(shared, replica, now, id, error);
    }

    pub(super) fn handle_outcome(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        from: PublicKey,
        id: TaskId,
        record: Record,
    ) {
        let Some(task) = self.open.get(&id) else {
            if let Some(resolved) = self.resolved.get(&id) {
                if resolved.by != Some(record.by) && !record.class.is_submitters() {
                    shared.stats.duplicate_results += 1;
                    shared.event(JobEvent::Duplicate { task: id, by: record.by });
                }
                if resolved.owed.is_empty() {
                    let hash = resolved.hash;
                    shared.send(from, Message::Ack { task: id, hash });
                }
            } else {
                shared.stats.unexpected += 1;
            }
            return;
        };
        if !task.may_speak(shared, from) || !shared.believe(record.token) {
            shared.stats.forged_outcomes += 1;
            return;
        }
        match record.outcome {
            Some(outcome) => self.resolve(shared, now, id, *outcome, Some(record.by), Some(from)),
            None => shared.stats.unexpected += 1,
        }
    }

    // ---- Ends.

    /// Ends the task by the submitter's own decision: executors stop, the owners keep the record.
    fn end_here(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        id: TaskId,
        error: JobError,
    ) -> bool {
        let Some(task) = self.open.get(&id) else { return false };
        let local = shared.local;
        let token = task.token.unwrap_or(Epoch { counter: 0, owner: local });
        let kept = (task.tries.attempts > 0).then(|| {
            let meta = TaskMeta {
                digest: task.spec.digest,
                submitters: vec![local],
                kind: task.spec.kind.clone(),
                key: task.spec.key.clone(),
                until: task.deadline + HORIZON,
            };
            (meta, Record::new(Err(error.clone()), token, local))
        });
        // CANCEL goes before REPLICA: an executor that still ran the task would tell the end to its submitter and to the
        // owners, which know it already.
        self.resolve(shared, now, id, Err(error), None, None);
        if let Some((meta, record)) = kept {
            replica.keep(shared, now, id, Account::alone(local), &meta, record, Vec::new());
            replica.replicate(shared, now, id);
        }
        true
    }

    /// Resolves the handle, and informs all nodes that may still have the task, each once. `teller` sent the outcome: a
    /// replica that this view may not know as an owner.
    fn resolve(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
        outcome: Result<Bytes, JobError>,
        by: Option<PublicKey>,
        teller: Option<PublicKey>,
    ) {
        let Some(task) = self.open.remove(&id) else { return };
        self.bytes -= task.spec.payload.len();
        if task.options.anywhere {
            self.free.ended(now, id, &task, by.filter(|_| outcome.is_ok()));
        }
        shared.timers.clear(Timer::Submission(id));
        if outcome.is_ok() {
            shared.stats.results += 1;
        } else {
            shared.stats.errors += 1;
        }
        let hash = super::record::outcome_hash(&outcome);
        let mut told = task.nodes.into_heard();
        let mut owed = Vec::new();
        if by.is_some() {
            told.extend(shared.owners(&task.spec.key).into_iter().chain(teller));
            if task.spec.warrant.is_some() {
                owed = told.into_iter().collect();
            } else {
                told.into_iter().for_each(|peer| shared.send(peer, Message::Ack { task: id, hash }));
            }
        } else {
            for peer in told {
                shared.send(peer, Message::Cancel { task: id });
            }
        }
        self.remember(shared, now, id, Resolved { digest: task.spec.digest, hash, by, owed }, task.deadline);
        shared.event(JobEvent::Done { task: id, outcome, by, attempts: task.tries.attempts });
    }

    /// Lets those that keep the outcome of a task that was submitted for another drop its bytes.
    pub(super) fn release(&mut self, shared: &mut SharedContext, id: TaskId) {
        let Some(resolved) = self.resolved.get_mut(&id) else { return };
        let hash = resolved.hash;
        for peer in std::mem::take(&mut resolved.owed) {
            shared.send(peer, Message::Ack { task: id, hash });
        }
    }

    fn remember(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        id: TaskId,
        resolved: Resolved,
        deadline: Instant,
    ) {
        self.resolved.insert(id, resolved);
        self.resolved_order.push_back(id);
        shared.timers.set(Timer::Resolved(id), deadline.max(now) + HORIZON);
        while self.resolved_order.len() > MAX_RESOLVED {
            let Some(oldest) = self.resolved_order.pop_front() else { break };
            self.resolved.remove(&oldest);
            shared.timers.clear(Timer::Resolved(oldest));
        }
    }

    pub(super) fn forget(&mut self, id: TaskId) {
        self.resolved.remove(&id);
        // Lives differ, so the order of ends is not the order of horizons. Other entries are removed when they get to
        // the front.
        while self.resolved_order.front().is_some_and(|front| !self.resolved.contains_key(front)) {
            self.resolved_order.pop_front();
        }
    }

    // ---- Members come and go.

    pub(super) fn on_placement(&mut self, shared: &mut SharedContext, now: Instant) {
        self.free.stir();
        let placing = |task: &Submission| matches!(task.phase, SubmissionPhase::Placing { .. });
        let waiting: Vec<_> = self.open.iter().filter(|(_, task)| placing(task)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.place(shared, now, id, None);
        }
    }

    pub(super) fn on_view_complete(&mut self, shared: &mut SharedContext, now: Instant) {
        if self.complete_at.is_none() {
            self.complete_at = Some(now);
            let open: Vec<_> = self.open.keys().copied().collect();
            for id in open {
                self.arm(shared, id);
            }
        }
    }

    /// Takes a member's change. A dead, departed or rebooted member has lost its tasks; an alive one clears its
    /// verdicts.
    pub(super) fn on_member(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        peer: PublicKey,
        change: MemberChange,
    ) {
        for (id, task) in &mut self.open {
            match change {
                MemberChange::Dead => task.holders.died(peer),
                MemberChange::Restarted => task.holders.replaced(peer),
                MemberChange::Left | MemberChange::Revoked => task.holders.released(peer),
                MemberChange::Alive => task.holders.lives(peer),
            }
            let waits = task.waits_told && task.holders.wait(now, task.max_losses()).is_none();
            if waits || task.holders.lost().count() >= task.max_losses() {
                shared.timers.set(Timer::Submission(*id), now);
            }
        }
        self.free.stir();
        if change == MemberChange::Alive {
            return;
        }
        for id in self.at(peer, true) {
            shared.stats.silences += 1;
            self.retry(shared, now, id, peer, Moved::Gone);
        }
    }

    /// Handles an undelivered message: an accepted attempt still has its beats as a sign of life, another attempt has
    /// none.
    pub(super) fn on_send_failed(&mut self, shared: &mut SharedContext, now: Instant, peer: PublicKey) {
        for id in self.at(peer, false) {
            shared.stats.silences += 1;
            self.retry(shared, now, id, peer, Moved::Silent);
        }
    }

    fn at(&self, peer: PublicKey, accepted: bool) -> Vec<TaskId> {
        let there = |task: &Submission| match task.phase {
            SubmissionPhase::Waiting { target, .. } => target == peer,
            SubmissionPhase::Accepted { by, .. } => accepted && by == peer,
            SubmissionPhase::Placing { .. } | SubmissionPhase::BackOff { .. } => false,
        };
        self.open.iter().filter(|(_, task)| there(task)).map(|(id, _)| *id).collect()
    }
}

/// Tells of a node to which a task is given whose payload may be a file: the node may have the file.
fn given(shared: &mut SharedContext, spec: &TaskSpec, task: TaskId, to: PublicKey) {
    if spec.large {
        shared.event(JobEvent::Given { task, to });
    }
}

/// The transfer time allowed for this many bytes.
fn way(shared: &SharedContext, len: u64) -> Duration {
    Duration::from_millis(len * 1000 / shared.config.upload_floor.max(1))
}

/// The time before a result of this length is asked for again.
fn fetch_delay(shared: &SharedContext, len: u64, fetches: u8) -> Duration {
    shared.config.fetch_after + way(shared, len) * (1 << fetches.min(MAX_FETCH_DOUBLINGS))
}
