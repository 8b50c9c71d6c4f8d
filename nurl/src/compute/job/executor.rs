//! The executor: takes, forwards or refuses submits; queues and runs tasks, sends beats and reports outcomes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answers::{forward, refuse, tell};
use super::error::JobError;
use super::event::{Drained, JobEvent, Run, RunId};
use super::forwarded::{Claim, Forwarded, Met};
use super::listeners::Listeners;
use super::message::{Known, Message, Reason, Submit};
use super::options::{
    DRAIN_GRACE, HORIZON, KindLimits, MAX_ASKED, MAX_FENCED_RESTARTS, MAX_KIND_LEN, MAX_KINDS,
    MAX_PAYLOAD_LEN, MAX_PROGRESS_LEN, TENURES_AGE,
};
use super::pace::Lanes;
use super::policy::{Needs, Policies};
use super::portions::Portions;
use super::queue::{KindQueue, MAX_RETRY_AFTER, MIN_RETRY_AFTER, Place};
use super::record::Record;
use super::replica::{Replica, TaskMeta, Waiter, add_waiter};
use super::shared::{SharedContext, Timer};
use super::spec::{TaskSpec, digest};
use super::standing::Submitter;
use super::task::{Priority, TaskId};
use super::warrant::Named;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::draw;
use crate::ring::Epoch;
use crate::rt::{Point, buggify};

mod waiting;

/// The pause before a fenced attempt starts again, plus a random time of up to the same length: time for the
/// push-pull.
const FENCED_REST: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum ExecutionPhase {
    /// The other nodes are asked whether they know an outcome.
    Asking(BTreeSet<PublicKey>),
    Queued(Place),
    Running(RunId),
    /// Fenced; starts again after a pause.
    Resting,
}

#[derive(Debug)]
struct Execution {
    spec: TaskSpec,
    /// The first of its submitters, whose share it takes.
    submitter: Submitter,
    account: Account,
    waiters: Vec<Waiter>,
    priority: Priority,
    /// When it came.
    since: Instant,
    deadline: Instant,
    token: Epoch,
    reach: u16,
    force: bool,
    anywhere: bool,
    restarts: u8,
    note: Option<Bytes>,
    /// The custodian that had it run is gone, and no other has asked for it yet: when the log is asked next.
    orphaned: Option<Instant>,
    phase: ExecutionPhase,
}

/// A handler that was started and hasn't ended yet, whether its result is still needed or not.
#[derive(Debug)]
struct Started {
    task: TaskId,
    attempt: u32,
    kind: String,
    account: Account,
    at: Instant,
}

/// A drain under way, or complete.
#[derive(Debug)]
struct Drain {
    /// The time until which runs may end by themselves.
    until: Instant,
    so_far: Drained,
    reported: bool,
}

#[derive(Debug, Default)]
pub(super) struct Executor {
    kinds: BTreeMap<String, KindQueue>,
    tasks: BTreeMap<TaskId, Execution>,
    runs: BTreeMap<RunId, Started>,
    to_cancel: VecDeque<RunId>,
    /// What each submitter has of this node.
    portions: Portions,
    forwarded: Forwarded,
    policies: Policies,
    next_run: u64,
    next_place: u64,
    drain: Option<Drain>,
    listeners: Listeners,
}

/// Whose task a submit is: its sender's, or that of the holder who signed its warrant. None: the warrant doesn't count.
fn by_warrant(
    shared: &mut SharedContext,
    now: Instant,
    sender: Submitter,
    submit: &Submit,
    digest: [u8; 32],
) -> Option<Submitter> {
    let Some(warrant) = &submit.warrant else { return Some(sender) };
    let named = Named { task: submit.task, digest };
    shared.warrants.as_mut()?.check_to_run(now, named, warrant).ok()
}

impl Executor {
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn running(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn register(&mut self, kind: &str, limits: KindLimits) -> bool {
        if let Some(known) = self.kinds.get_mut(kind) {
            known.limits = limits;
            return true;
        }
        if kind.is_empty() || kind.len() > MAX_KIND_LEN || self.kinds.len() >= MAX_KINDS {
            return false;
        }
        self.kinds.insert(kind.to_owned(), KindQueue::new(limits));
        true
    }

    pub(super) fn allow(&mut self, kind: &str, needs: Needs) {
        self.policies.set(kind, needs);
    }

    // ---- Submits.

    pub(super) fn handle_submit(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        from: Submitter,
        submit: Submit,
    ) {
        let own = from.key() == submit.submitter;
        if submit.hops == 0 && !own {
            // Only a forwarder sends for another node, and it counts its hop.
            shared.stats.spoofed += 1;
            return;
        }
        let digest = digest(&submit.kind, &submit.key, &submit.payload);
        shared.stats.unclaimed += self.forwarded.expire(now);
        if own {
            let via = from.key();
            self.take_submit(shared, replica, now, (from, via), submit, digest);
        } else {
            let met = self.forwarded.arrived(now, from.account(), submit, digest);
            self.met(shared, replica, now, met);
        }
    }

    /// Takes a submitter's word that a task that was forwarded, or will be, is its own.
    pub(super) fn handle_claim(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        from: Submitter,
        task: TaskId,
        claim: Claim,
    ) {
        shared.stats.unclaimed += self.forwarded.expire(now);
        // A task that runs by a warrant is joined by one: that comes with the task.
        let warranted = self.tasks.get(&task).is_some_and(|execution| execution.spec.warrant.is_some());
        let (submit, digest) = ((task, claim.attempt), claim.digest);
        if warranted || !self.answer_from_memory(shared, replica, now, submit, digest, (&from, from.key())) {
            let met = self.forwarded.claimed(now, from, task, claim);
            self.met(shared, replica, now, met);
        }
    }

    fn met(&mut self, shared: &mut SharedContext, replica: &mut Replica, now: Instant, met: Met) {
        match met {
            Met::Both(submit, digest, submitter, via) => {
                self.take_submit(shared, replica, now, (submitter, via), *submit, digest);
            }
            Met::Waits(dropped) => shared.stats.unclaimed += dropped,
            Met::Differs => shared.stats.spoofed += 1,
        }
        self.arm_forwarded(shared);
    }

    /// Drops the forwarded tasks that nobody claimed in time. Nobody is told: the submitters may not exist.
    pub(super) fn drop_unclaimed(&mut self, shared: &mut SharedContext, now: Instant) {
        shared.stats.unclaimed += self.forwarded.expire(now);
        self.arm_forwarded(shared);
    }

    fn arm_forwarded(&self, shared: &mut SharedContext) {
        match self.forwarded.next_due() {
            Some(due) => shared.timers.set(Timer::Forwarded, due),
            None => shared.timers.clear(Timer::Forwarded),
        }
    }

    /// Takes a submit on its submitter's own word; `via` sent it here.
    fn take_submit(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        (submitter, via): (Submitter, PublicKey),
        submit: Submit,
        digest: [u8; 32],
    ) {
        let waiter = Waiter { who: submit.submitter, attempt: submit.attempt };
        let Some(submitter) = by_warrant(shared, now, submitter, &submit, digest) else {
            shared.stats.bad_warrants += 1;
            refuse(shared, submit.task, waiter, Reason::NotAllowed { needs: Needs::default() });
            return;
        };
        if self.answer_from_memory(
            shared,
            replica,
            now,
            (submit.task, submit.attempt),
            digest,
            (&submitter, waiter.who),
        ) {
            return;
        }
        if self.drain.is_some() {
            shared.stats.handed_back += 1;
            refuse(shared, submit.task, waiter, Reason::HandedBack);
            return;
        }
        let list = shared.executors(&submit.kind, &submit.key);
        let acts = list.iter().take(usize::from(submit.reach) + 1).any(|member| *member == shared.local);
        if !acts {
            forward(shared, via, &list, submit);
            return;
        }
        let Some(kind) = self.kinds.get(&submit.kind) else {
            shared.stats.unknown_kind += 1;
            refuse(shared, submit.task, waiter, Reason::UnknownKind);
            return;
        };
        if self.policies.lacks(&submit.kind, &submitter).is_some() {
            self.refuse_by_policy(shared, submit.task, &submit.kind, &submitter, waiter);
            return;
        }
        let retry_after = kind.retry_after();
        if buggify(Point::Busy) || !self.make_room(shared, &submitter.account(), &submit) {
            shared.stats.busy += 1;
            refuse(shared, submit.task, waiter, Reason::Busy { retry_after });
            return;
        }
        // A counter that isn't durable yet will be in a moment; there are fewer executions than tenures.
        let begun = (!buggify(Point::NoTenure)).then(|| shared.tenures.begin(&submit.key));
        let Some(Ok(token)) = begun else {
            if !shared.counters_kept {
                shared.stats.handed_back += 1;
                refuse(shared, submit.task, waiter, Reason::HandedBack);
                return;
            }
            shared.stats.busy += 1;
            refuse(shared, submit.task, waiter, Reason::Busy { retry_after: MIN_RETRY_AFTER });
            return;
        };
        shared.timers.set_if_idle(Timer::Tenures, now + TENURES_AGE);
        self.accept(shared, now, (submitter, waiter), submit, digest, token);
    }

    /// Tells a submitter what it needs to submit tasks of this kind here.
    fn refuse_by_policy(
        &mut self,
        shared: &mut SharedContext,
        task: TaskId,
        kind: &str,
        submitter: &Submitter,
        waiter: Waiter,
    ) {
        let needs = self.policies.lacks(kind, submitter).cloned().unwrap_or_default();
        shared.stats.not_allowed += 1;
        if self.policies.is_news(task, submitter.key()) {
            shared.event(JobEvent::NotAllowed { task, kind: kind.to_owned(), by: submitter.clone() });
        }
        refuse(shared, task, waiter, Reason::NotAllowed { needs });
    }

    /// Makes room for a task, if need be at the cost of a submitter that has more; false if there is none.
    fn make_room(&mut self, shared: &mut SharedContext, submitter: &Account, submit: &Submit) -> bool {
        let Submit { kind, payload, .. } = submit;
        if let Some(kind) = self.kinds.get(kind).filter(|kind| kind.is_full()) {
            let Some(task) = kind.gives_way_to(submitter) else { return false };
            self.give_way(shared, task);
        }
        let last = |kinds: &BTreeMap<String, KindQueue>, payer: Account| {
            kinds.values().find_map(|kind| kind.last_of(&payer))
        };
        loop {
            let payers = self.portions.payers_for(submitter, payload.len());
            let Some(task) = payers.map(|mut payers| payers.find_map(|payer| last(&self.kinds, payer)))
            else {
                return true;
            };
            let Some(task) = task else { return false };
            self.give_way(shared, task);
        }
    }

    /// Gives a queued task back, since its submitter has more here than others get.
    fn give_way(&mut self, shared: &mut SharedContext, task: TaskId) {
        let Some(execution) = self.remove(shared, task) else { return };
        shared.stats.gave_way += 1;
        let kind = self.kinds.get(&execution.spec.kind);
        let retry_after = kind.map_or(MAX_RETRY_AFTER, KindQueue::retry_after);
        for waiter in execution.waiters {
            refuse(shared, task, waiter, Reason::Busy { retry_after });
        }
    }

    /// Answers a submit of a task that this node has or had. A policy keeps others from joining a task that waits or runs
    /// here.
    fn answer_from_memory(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        (task, attempt): (TaskId, u32),
        digest: [u8; 32],
        (submitter, who): (&Submitter, PublicKey),
    ) -> bool {
        let waiter = Waiter { who, attempt };
        if let Some(kept) = replica.get(&task) {
            shared.stats.duplicate_submits += 1;
            if kept.digest != digest {
                shared.stats.conflicts += 1;
                refuse(shared, task, waiter, Reason::Conflict);
            } else if kept.record.is_settled() {
                refuse(shared, task, waiter, Reason::Settled { hash: kept.record.hash });
            } else {
                tell(shared, task, waiter, &kept.record);
                replica.owe(shared, now, task, waiter);
            }
            return true;
        }
        let Some(execution) = self.tasks.get_mut(&task) else { return false };
        shared.stats.duplicate_submits += 1;
        if execution.spec.digest != digest {
            shared.stats.conflicts += 1;
            refuse(shared, task, waiter, Reason::Conflict);
        } else if execution.waiters.iter().all(|known| known.who != waiter.who)
            && self.policies.lacks(&execution.spec.kind, submitter).is_some()
        {
            let kind = execution.spec.kind.clone();
            self.refuse_by_policy(shared, task, &kind, submitter, waiter);
        } else if add_waiter(&mut execution.waiters, waiter) {
            execution.orphaned = None;
            let (token, boot) = (execution.token, shared.boot);
            let (kind, anywhere) = (execution.spec.kind.clone(), execution.anywhere);
            let lanes = self.lanes(shared, &kind, anywhere);
            let accepted = Message::Accepted { task, attempt: waiter.attempt, boot, token, lanes };
            shared.send(waiter.who, accepted);
        } else {
            refuse(shared, task, waiter, Reason::Busy { retry_after: MAX_RETRY_AFTER });
        }
        true
    }

    /// What the submitter of a task that any worker may run is told of the handler.
    fn lanes(&self, shared: &SharedContext, kind: &str, anywhere: bool) -> Option<Lanes> {
        let limits = &self.kinds.get(kind).filter(|_| anywhere)?.limits;
        let count = limits.concurrency.min(shared.config.concurrency);
        Some(Lanes { count: u16::try_from(count).unwrap_or(u16::MAX), pure: limits.pure })
    }

    fn accept(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        (submitter, waiter): (Submitter, Waiter),
        submit: Submit,
        digest: [u8; 32],
        token: Epoch,
    ) {
        let task = submit.task;
        let boot = shared.boot;
        let lanes = self.lanes(shared, &submit.kind, submit.anywhere);
        shared.send(waiter.who, Message::Accepted { task, attempt: waiter.attempt, boot, token, lanes });
        let asked = if submit.ask { self.ask(shared, &submit, digest) } else { BTreeSet::new() };
        let deadline = now + submit.life;
        let account = submitter.account();
        self.portions.taken(account, submit.payload.len());
        let asks = !asked.is_empty();
        let Submit { kind, key, payload, parent, large, warrant, .. } = submit;
        shared.event(JobEvent::Admitted { task, kind: kind.clone(), by: submitter.clone() });
        let execution = Execution {
            spec: TaskSpec { kind, key, payload, digest, parent, large, warrant },
            submitter,
            account,
            waiters: vec![waiter],
            priority: submit.priority,
            since: now,
            deadline,
            token,
            reach: submit.reach,
            force: submit.force,
            anywhere: submit.anywhere,
            restarts: 0,
            note: None,
            orphaned: None,
            phase: ExecutionPhase::Asking(asked),
        };
        self.tasks.insert(task, execution);
        shared.timers.set_if_idle(Timer::Beat, now + shared.config.beat_interval);
        if asks {
            shared.timers.set(Timer::Execution(task), deadline.min(now + shared.config.ask_timeout));
        } else {
            self.enqueue(shared, task);
        }
    }

    /// Asks the key's owners, and the executors before this one, which may be running the task.
    fn ask(&self, shared: &mut SharedContext, submit: &Submit, digest: [u8; 32]) -> BTreeSet<PublicKey> {
        let mut asked = BTreeSet::new();
        let before = shared.executors(&submit.kind, &submit.key).into_iter().take(usize::from(submit.reach));
        let others: Vec<_> = shared.owners(&submit.key).into_iter().chain(before).collect();
        for other in others {
            if asked.len() < MAX_ASKED
                && other != shared.local
                && !shared.peers.is_down(&other)
                && asked.insert(other)
            {
                shared.send(other, Message::Ask { task: submit.task, digest });
            }
        }
        asked
    }

    // ---- Owners ask each other.

    pub(super) fn handle_ask(
        &mut self,
        shared: &mut SharedContext,
        replica: &Replica,
        from: PublicKey,
        task: TaskId,
        digest: [u8; 32],
    ) {
        let kept = replica.get(&task);
        // A node that still asks doesn't answer that it runs: otherwise two such nodes would wait for each other.
        let runs = matches!(
            self.tasks.get(&task),
            Some(Execution { phase: ExecutionPhase::Queued(_) | ExecutionPhase::Running(_), .. })
        );
        let running = kept.is_none() && runs;
        let record = kept.filter(|kept| kept.digest == digest).map(|kept| kept.record.clone());
        shared.send(from, Message::Known(Known { task, running, record }));
    }

    pub(super) fn handle_known(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        from: PublicKey,
        Known { task, running, record }: Known,
    ) {
        let Some(Execution { phase: ExecutionPhase::Asking(asked), force, .. }) = self.tasks.get_mut(&task)
        else {
            return;
        };
        if !asked.remove(&from) {
            shared.stats.unexpected += 1;
            return;
        }
        let nobody_left = asked.is_empty();
        match record {
            Some(record) => {
                if !shared.believe(record.token) {
                    return;
                }
                shared.stats.recalled += 1;
                self.conclude(shared, replica, now, task, record);
            }
            None if running && !*force => {
                shared.stats.elsewhere += 1;
                let execution = self.remove(shared, task).expect("looked up above");
                for waiter in execution.waiters {
                    refuse(shared, task, waiter, Reason::Elsewhere { runner: from });
                }
            }
            None if nobody_left => self.enqueue(shared, task),
            None => {}
        }
    }

    // ---- Running.

    fn enqueue(&mut self, shared: &mut SharedContext, task: TaskId) {
        let Some(execution) = self.tasks.get_mut(&task) else { return };
        let place = Place::new(execution.since, execution.priority, self.next_place, task);
        self.next_place += 1;
        execution.phase = ExecutionPhase::Queued(place);
        if let Some(kind) = self.kinds.get_mut(&execution.spec.kind) {
            kind.insert(execution.account, place);
        }
        shared.timers.set(Timer::Execution(task), execution.deadline);
    }

    /// The next handler to start: among the kinds with a free place, the next task of the submitter whose turn it is.
    pub(super) fn start(&mut self, shared: &mut SharedContext, now: Instant) -> Option<Run> {
        if self.runs.len() >= shared.config.concurrency {
            return None;
        }
        let next = self.kinds.values().flat_map(KindQueue::next);
        let turn = |(submitter, place): &(&Account, &Place)| {
            (self.portions.turn(submitter, place.priority(now)), **place)
        };
        let (account, place) = next.min_by_key(turn).map(|(account, place)| (*account, *place))?;
        let task = place.task;
        let execution = self.tasks.get_mut(&task).expect("queued tasks are in the table");
        let kind = self.kinds.get_mut(&execution.spec.kind).expect("queued tasks have a kind");
        kind.remove(&account, &place);
        kind.running += 1;
        self.portions.started(account);
        let id = RunId(self.next_run);
        self.next_run += 1;
        execution.phase = ExecutionPhase::Running(id);
        let attempt = execution.waiters.first().map_or(0, |waiter| waiter.attempt);
        let started = Started { task, attempt, kind: execution.spec.kind.clone(), account, at: now };
        self.runs.insert(id, started);
        shared.stats.runs += 1;
        Some(Run {
            id,
            task,
            attempt,
            kind: execution.spec.kind.clone(),
            key: execution.spec.key.clone(),
            payload: execution.spec.payload.clone(),
            submitter: execution.submitter.clone(),
            parent: execution.spec.parent,
            token: execution.token,
            large: execution.spec.large,
            life: execution.deadline,
            time_limit: kind.limits.time_limit,
        })
    }

    pub(super) fn poll_cancel(&mut self) -> Option<RunId> {
        self.to_cancel.pop_front()
    }

    pub(super) fn progress(&mut self, run: RunId, note: Bytes) {
        let task = self.runs.get(&run).map(|started| started.task);
        let execution = task.and_then(|task| self.tasks.get_mut(&task));
        if let Some(execution) = execution
            && matches!(execution.phase, ExecutionPhase::Running(current) if current == run)
        {
            execution.note = Some(note.slice(..note.len().min(MAX_PROGRESS_LEN)));
        }
    }

    pub(super) fn finished(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        run: RunId,
        result: Result<Bytes, JobError>,
    ) {
        let Some(started) = self.runs.remove(&run) else { return };
        let took = now.saturating_duration_since(started.at);
        self.portions.ended(started.account);
        if let Some(kind) = self.kinds.get_mut(&started.kind) {
            kind.ended(took);
        }
        let Started { task, attempt, kind, .. } = started;
        shared.event(JobEvent::Ran { task, attempt, kind, ok: result.is_ok(), took });
        let wanted = self.tasks.get(&task).map(|execution| (&execution.phase, execution.token));
        let Some((ExecutionPhase::Running(current), token)) = wanted else { return };
        if *current != run {
            return;
        }
        if let Some(drain) = &mut self.drain {
            drain.so_far.finished += 1;
        }
        match result {
            Ok(bytes) if bytes.len() > MAX_PAYLOAD_LEN => {
                let error = JobError::TooLarge { len: bytes.len() as u64 };
                self.conclude(shared, replica, now, task, Record::new(Err(error), token, shared.local));
            }
            Err(JobError::Fenced { current }) => self.fenced(shared, now, task, current),
            // The run wasn't cancelled by this node, so the compute plane has ended.
            Err(JobError::Cancelled) => self.hand_back(shared, task),
            Err(error) if error.is_retriable() => self.give_back(shared, task, error),
            outcome => self.conclude(shared, replica, now, task, Record::new(outcome, token, shared.local)),
        }
    }

    /// Handles a fenced run: a resource holds a higher token. The driver does a push-pull; then, if this node still
    /// acts for the key, the attempt starts again under a higher tenure.
    fn fenced(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId, current: Epoch) {
        shared.stats.fenced += 1;
        if self.drain.is_some() {
            // The attempt would start again, but a drain leaves no time.
            self.hand_back(shared, task);
            return;
        }
        let Some(execution) = self.tasks.get_mut(&task) else { return };
        shared.tenures.end(&execution.spec.key, execution.token);
        execution.phase = ExecutionPhase::Resting;
        let believed = shared.tenures.supersede(&execution.spec.key, current).is_ok();
        shared.stats.epoch_refused += u64::from(!believed);
        execution.restarts += 1;
        if !believed || execution.restarts > MAX_FENCED_RESTARTS {
            self.give_back(shared, task, JobError::Fenced { current });
            return;
        }
        let rest = FENCED_REST + draw::duration(&mut shared.rng, FENCED_REST);
        shared.timers.set(Timer::Execution(task), execution.deadline.min(now + rest));
        shared.event(JobEvent::Fenced { task, current });
    }

    fn rested(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId) {
        let Some(execution) = self.tasks.get_mut(&task) else { return };
        let list = shared.executors(&execution.spec.kind, &execution.spec.key);
        if !list.iter().take(usize::from(execution.reach) + 1).any(|member| *member == shared.local) {
            self.give_back(shared, task, JobError::retriable("another node acts for the key now"));
            return;
        }
        match shared.tenures.begin(&execution.spec.key) {
            Ok(token) => {
                execution.token = token;
                self.enqueue(shared, task);
            }
            Err(_) if !shared.counters_kept => self.hand_back(shared, task),
            Err(_) => {
                let again = execution.deadline.min(now + MIN_RETRY_AFTER);
                shared.timers.set(Timer::Execution(task), again);
            }
        }
    }

    pub(super) fn on_timer(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        task: TaskId,
    ) {
        let Some(execution) = self.tasks.get(&task) else { return };
        if now >= execution.deadline {
            let record = Record::new(Err(JobError::Deadline), execution.token, shared.local);
            self.conclude(shared, replica, now, task, record);
            return;
        }
        match execution.phase {
            // Nodes that haven't answered by now can't be reached. At-least-once means to run the task anyway.
            ExecutionPhase::Asking(_) => self.enqueue(shared, task),
            ExecutionPhase::Resting => self.rested(shared, now, task),
            ExecutionPhase::Queued(_) | ExecutionPhase::Running(_) => {}
        }
    }

    // ---- Ends.

    /// Ends the task with an outcome: the waiters and the owners get it, and a run is stopped.
    fn conclude(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        task: TaskId,
        record: Record,
    ) {
        let Some(execution) = self.remove(shared, task) else { return };
        for waiter in &execution.waiters {
            tell(shared, task, *waiter, &record);
        }
        let meta = TaskMeta {
            digest: execution.spec.digest,
            submitters: execution.waiters.iter().map(|waiter| waiter.who).collect(),
            kind: execution.spec.kind,
            key: execution.spec.key,
            until: execution.deadline + HORIZON,
        };
        let waiting = if record.is_settled() { Vec::new() } else { execution.waiters };
        replica.keep(shared, now, task, execution.account, &meta, record, waiting);
        replica.replicate(shared, now, task);
    }

    /// Returns a failed attempt that may succeed elsewhere: no outcome, the submitter decides.
    fn give_back(&mut self, shared: &mut SharedContext, task: TaskId, error: JobError) {
        let Some(execution) = self.remove(shared, task) else { return };
        let error = error.bounded();
        for waiter in execution.waiters {
            refuse(shared, task, waiter, Reason::Failed { error: error.clone() });
        }
    }

    /// Gives the task up for this node's own reasons: it starts elsewhere, and isn't counted as a failure.
    fn hand_back(&mut self, shared: &mut SharedContext, task: TaskId) {
        let Some(execution) = self.remove(shared, task) else { return };
        shared.stats.handed_back += 1;
        if let Some(drain) = &mut self.drain {
            drain.so_far.handed_back += 1;
        }
        for waiter in execution.waiters {
            refuse(shared, task, waiter, Reason::HandedBack);
        }
    }

    // ---- Draining.

    /// Takes no more work, gives back the tasks that don't run, and the remaining ones at `limit`.
    pub(super) fn drain(&mut self, shared: &mut SharedContext, now: Instant, limit: Duration) {
        let until = now + limit;
        let fresh = Drain { until, so_far: Drained::default(), reported: false };
        let drain = self.drain.get_or_insert(fresh);
        drain.until = drain.until.min(until);
        drain.reported = false;
        shared.timers.set(Timer::Drain, drain.until);
        let runs = |execution: &Execution| matches!(execution.phase, ExecutionPhase::Running(_));
        self.hand_back_all(shared, |execution| !runs(execution));
    }

    /// Handles the end of the drain's limit, or of the time for acknowledgements after it.
    pub(super) fn drain_over(&mut self, shared: &mut SharedContext, now: Instant) {
        self.hand_back_all(shared, |_| true);
        if let Some(drain) = &self.drain
            && now < drain.until + DRAIN_GRACE
        {
            shared.timers.set(Timer::Drain, drain.until + DRAIN_GRACE);
        }
    }

    fn hand_back_all(&mut self, shared: &mut SharedContext, which: impl Fn(&Execution) -> bool) {
        let tasks = self.tasks.iter().filter(|(_, execution)| which(execution)).map(|(task, _)| *task);
        for task in tasks.collect::<Vec<_>>() {
            self.hand_back(shared, task);
        }
    }

    /// Reports, once, that the drain is complete.
    pub(super) fn report_drain(&mut self, shared: &mut SharedContext, replica: &Replica, now: Instant) {
        let empty = self.tasks.is_empty() && self.runs.is_empty() && !replica.owes_anything();
        if let Some(drain) = &mut self.drain
            && !drain.reported
            && (empty || now >= drain.until + DRAIN_GRACE)
        {
            drain.reported = true;
            shared.timers.clear(Timer::Drain);
            shared.event(JobEvent::Drained(drain.so_far));
        }
    }

    /// Removes a task from every table; its run, if any, is cancelled.
    fn remove(&mut self, shared: &mut SharedContext, task: TaskId) -> Option<Execution> {
        let execution = self.tasks.remove(&task)?;
        shared.timers.clear(Timer::Execution(task));
        self.portions.gone(execution.account, execution.spec.payload.len());
        match &execution.phase {
            ExecutionPhase::Queued(place) => {
                if let Some(kind) = self.kinds.get_mut(&execution.spec.kind) {
                    kind.remove(&execution.account, place);
                }
            }
            // The run keeps its place until the driver returns it: a handler that ignores its cancellation still
            // occupies it.
            ExecutionPhase::Running(run) if self.runs.contains_key(run) => self.to_cancel.push_back(*run),
            ExecutionPhase::Running(_) | ExecutionPhase::Asking(_) => {}
            ExecutionPhase::Resting => return Some(execution),
        }
        shared.tenures.end(&execution.spec.key, execution.token);
        Some(execution)
    }

    /// Takes a record of this task from another node: a run here is no longer needed.
    pub(super) fn on_record(
        &mut self,
        shared: &mut SharedContext,
        replica: &mut Replica,
        now: Instant,
        task: TaskId,
    ) {
        let (Some(kept), Some(execution)) = (replica.get(&task), self.tasks.get(&task)) else { return };
        if kept.digest == execution.spec.digest {
            if matches!(execution.phase, ExecutionPhase::Running(_)) && !kept.record.class.is_submitters() {
                shared.stats.duplicate_runs += 1;
                shared.event(JobEvent::Duplicate { task, by: kept.record.by });
            }
            let record = kept.record.clone();
            self.conclude(shared, replica, now, task, record);
        }
    }
}
