//! Custody: a log of tasks that outlive their submitter.
//!
//! A *detached* task is deposited with its keepers: the first three live members of its id's preference list. Each has a
//! copy of the task: what is to be done, its submitter's [warrant](super::warrant), and what has become of it. The first
//! keeper is its custodian: it submits the task under its id, on its submitter's account, and notes the outcome. When the
//! custodian dies, the next keeper is it; a keeper with a store goes on after a restart.
//!
//! What it promises:
//! - **A deposit that was confirmed is not lost** while one keeper that has it on its disk comes back, or, of keepers
//!   without a store, one of the two that had it stays alive until others have a copy.
//! - **It ends**: with its outcome, or at its deadline at the latest, once a keeper lives.
//! - **Its end is told when it is safe**: on the disk of the keeper that tells it, or at two keepers. The worker keeps the
//!   outcome until then, so that another custodian finds it. After quiescence all keepers tell the same end. As with
//!   outcomes, two keepers that can't reach each other may come to two ends, of which the higher one stays.
//! - **Whoever knows the id may ask**: for the status, the history, the outcome. Only the submitter, by the key of its
//!   pass, may cancel the task, have its payload for a new try, or see it in a list.
//!
//! Keepers compare marks: one offers the marks of what it has, the other answers with its own, and the first sends a copy
//! where they differ. Copies merge, see `entry`. A keeper believes copies and marks only of members near the id on the
//! ring, now or lately, and only tasks with a valid warrant. All tables and queues are bounded, and what is refused is
//! counted.
//!
//! The driver passes messages, views and the jobs' events to [`Custody`], makes durable what
//! [`poll_changed`](Custody::poll_changed) names, and only then lets messages, [orders](Order) and events out.

mod calls;
mod entry;
mod keeper;
mod keepers;
mod ledger;
mod message;
mod record;
mod shared;
#[cfg(test)]
mod tests;
mod waiters;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::entry::{Mark, Note, Step};
pub use self::message::{Ended, Refusal, TaskStatus};
pub use self::record::{RestoreError, Stored};

use self::calls::{Calls, Question};
use self::entry::Terms;
use self::keeper::Keeper;
use self::keepers::Keepers;
use self::message::{Message, Want};
use self::shared::Shared;
use self::waiters::Asker;
use super::event::JobEvent;
use super::options::{MAX_KEY_LEN, MAX_KIND_LEN, MAX_LIFE, MAX_PAYLOAD_LEN, SubmitOptions};
use super::warrant::{Detached, MAX_KEEP, Named, Warrant, Warrants};
use super::{JobError, MessageError, SubmitError, Submitter, TaskId, digest};
use crate::authority::checker::Standing;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::key::{PublicKey, SecretKey};
use crate::mesh::MeshId;
use crate::ring::Ring;

/// Limit on the tasks of which a keeper has a copy.
pub const MAX_ENTRIES: usize = 65_536;
/// Limit on their bytes: the payloads, and the results.
pub const MAX_ENTRY_BYTES: usize = 256 * 1024 * 1024;
/// One account has at most this part of both.
const MAX_SHARE: usize = 4;
/// The most lines of a task's history.
pub const MAX_HISTORY: usize = 32;
/// The longest text of a line.
const MAX_NOTE_LEN: usize = 128;
/// The most marks in one message.
const MAX_OFFERED: usize = 256;
/// The most tasks in one message of a list: their kinds and keys fill a message of 300 KB.
const MAX_LISTED: usize = 128;
/// The most tasks that a list gives its caller.
pub const MAX_LIST_TOTAL: usize = 16_384;
/// Limit on the askers that wait here.
const MAX_WAITING: usize = 4_096;
/// Limit on this node's own calls under way.
const MAX_CALLS: usize = 4_096;
/// Limit on the tasks that a custodian has submitted at once, so that its own callers have room as well.
const MAX_DRIVEN: usize = 4_096;
/// Limit on their payloads' bytes.
const MAX_DRIVEN_BYTES: usize = 128 * 1024 * 1024;
/// Limit on the messages that wait.
const MAX_OUTBOX: usize = 16_384;
/// Limit on their bytes.
const MAX_OUTBOX_BYTES: usize = 64 * 1024 * 1024;
/// Tasks looked at in one turn, so that a change of the view holds nothing up.
const LOOKS_PER_TURN: usize = 256;

/// Why a call about detached tasks failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustodyError {
    /// This node knows no worker.
    #[error("no worker is in the mesh that could keep the task")]
    NoKeepers,
    /// This node has no pass yet, by which others would know whose task it is.
    #[error("this node has no pass, by which a task is known to be its own")]
    NoPass,
    /// Beyond a limit of tasks.
    #[error("{0}")]
    Task(SubmitError),
    /// The outcome would be kept for too long.
    #[error("an outcome is kept for 7 days at most")]
    BadKeep,
    /// Too many calls are under way.
    #[error("too many calls are under way here: try again")]
    Busy,
    /// All keepers that were asked refuse it.
    #[error("the task's keepers refuse: {0}")]
    Refused(Refusal),
    /// Too few keepers have confirmed the deposit in time.
    #[error(
        "the deposit was not confirmed in time: the task may run or not. Submit it again under the same id, which is \
         safe"
    )]
    Unconfirmed,
    /// It has not ended, or has a result.
    #[error("the task has not failed: only a failed one is tried again")]
    NotFailed,
    /// The time for which a result or a payload is kept is over, or there was no room for it.
    #[error("the task has ended, and its bytes are kept no more")]
    Dropped,
    /// No keeper has answered in time.
    #[error("no keeper of the task has answered in time")]
    NoAnswer,
}

impl CustodyError {
    /// Whether the same question may have another answer later: keepers die, come back, and are found.
    pub fn may_pass(&self) -> bool {
        let unknown = CustodyError::Refused(Refusal::Unknown);
        matches!(self, CustodyError::NoAnswer | CustodyError::NoKeepers | CustodyError::Busy)
            || *self == unknown
    }
}

/// How a call ended well.
#[derive(Debug)]
pub enum Told {
    /// The task is deposited, or will be cancelled.
    Done,
    /// What a keeper tells of a task.
    Status {
        /// The state that this is.
        mark: Mark,
        /// The task.
        status: Box<TaskStatus>,
        /// Its outcome, if that was asked for and is still kept.
        outcome: Option<Result<Bytes, JobError>>,
        /// What is to be done, if that was asked for and is still kept.
        content: Option<Box<Content>>,
    },
    /// The asker's own tasks, by id.
    List {
        /// The tasks.
        tasks: Vec<TaskStatus>,
        /// The workers that have not answered.
        silent: Vec<PublicKey>,
    },
}

/// What is to be done in a task.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Bytes,
    /// Its payload.
    pub payload: Bytes,
    /// Its options, with all of its life.
    pub job: Detached,
}

/// A task to submit for the log.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Its id.
    pub task: TaskId,
    /// Its submitter's word.
    pub warrant: Warrant,
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Bytes,
    /// Its payload.
    pub payload: Bytes,
    /// Its options, with the rest of its life.
    pub options: SubmitOptions,
}

/// What the jobs have to do for the log.
#[derive(Debug, Clone)]
pub enum Order {
    /// Submit this task.
    Drive(Box<Drive>),
    /// Cancel a task that was submitted.
    Cancel(TaskId),
    /// The outcome of this task is safe in the log: its worker needn't keep it.
    Release(TaskId),
    /// This task runs here for a custodian that is gone, and is over: end the run.
    End(TaskId),
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CustodyStats {
    /// Tasks taken into the log from their submitters.
    pub deposited: u64,
    /// Tasks submitted as their custodian.
    pub driven: u64,
    /// Tasks ended as their custodian.
    pub concluded: u64,
    /// Tasks whose time in the log was over.
    pub expired: u64,
    /// Requests and copies refused: no room, no valid warrant, not the submitter's, another task's id.
    pub refused: u64,
    /// Copies of an id that has another content here.
    pub conflicts: u64,
    /// Marks and copies of members that don't keep the task.
    pub forged: u64,
    /// Answers that nobody here waits for.
    pub unexpected: u64,
    /// Messages that are none, or are beyond a limit.
    pub malformed: u64,
    /// Messages of a later version.
    pub unknown_type: u64,
    /// Messages dropped because too many waited.
    pub outbox_dropped: u64,
    /// Ended tasks whose bytes were dropped for want of room.
    pub evicted: u64,
}

/// The present sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CustodyGauges {
    /// Tasks of which this node has a copy.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Tasks that this node has submitted as their custodian.
    pub driving: usize,
    /// This node's own calls under way.
    pub calls: usize,
}

/// By what this node's own tasks are known to be its own.
pub struct Signer {
    /// The key of the pass's holder.
    pub holder: SecretKey,
    /// The pass; none yet.
    pub pass: Option<Pass>,
    /// The mesh.
    pub mesh: MeshId,
}

/// See the module.
pub struct Custody {
    shared: Shared,
    keeper: Keeper,
    calls: Calls,
    /// The calls about tasks that run here for a custodian that is gone.
    orphans: BTreeMap<u64, TaskId>,
    signer: Signer,
}

impl Custody {
    /// The log of a node, empty. `durable`: what it has is on its disk before its messages leave.
    pub fn new(
        (local, boot, durable): (PublicKey, u64, bool),
        signer: Signer,
        warrants: Warrants,
        wall: Duration,
    ) -> Custody {
        let shared = Shared {
            local,
            boot,
            durable,
            keepers: Keepers::default(),
            warrants,
            wall,
            to_self: VecDeque::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            events: VecDeque::new(),
            orders: VecDeque::new(),
            stats: CustodyStats::default(),
        };
        Custody {
            shared,
            keeper: Keeper::default(),
            calls: Calls::default(),
            orphans: BTreeMap::new(),
            signer,
        }
    }

    /// Takes what an earlier process stored of a task.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(&mut self, now: Instant, task: TaskId, stored: Stored) -> Result<(), RestoreError> {
        let entry = stored.entry()?;
        let standing = entry.terms.warrant.standing_unchecked().ok_or(RestoreError)?;
        if self.keeper.ledger.insert(now, task, entry, standing) {
            self.keeper.ledger.is_stored(&task);
        }
        Ok(())
    }

    /// Sets the wall clock, the time since 1970.
    pub fn set_unix_now(&mut self, wall: Duration) {
        self.shared.wall = wall;
    }

    /// Takes this node's new pass.
    pub fn set_pass(&mut self, pass: Pass) {
        self.signer.pass = Some(pass);
    }

    /// Takes a revocation.
    pub fn revoke(&mut self, now: Instant, entry: Revocation) {
        self.shared.warrants.revoke(entry);
        self.keeper.ledger.look_at_all(now);
    }

    /// Takes the ring of a new view.
    pub fn set_ring(&mut self, now: Instant, ring: Arc<Ring>) {
        if self.shared.keepers.follow(now, ring) {
            self.keeper.on_first_view(now);
        }
        self.keeper.ledger.look_at_all(now);
        self.calls.on_view(now);
    }

    // ---- Calls of this node's own.

    /// Deposits a task, and returns the call's number. Repeated with the same content it is the same task.
    ///
    /// # Errors
    /// [`CustodyError`]; nothing was sent then.
    pub fn deposit(
        &mut self,
        now: Instant,
        task: TaskId,
        (kind, key, payload): (&str, &[u8], Bytes),
        job: &Detached,
    ) -> Result<u64, CustodyError> {
        let life = job.options.life;
        let flaw = if kind.is_empty() || kind.len() > MAX_KIND_LEN {
            Some(SubmitError::BadKind)
        } else if key.len() > MAX_KEY_LEN {
            Some(SubmitError::BadKey)
        } else if payload.len() > MAX_PAYLOAD_LEN {
            Some(SubmitError::PayloadTooLarge { len: payload.len() })
        } else if life < Duration::from_millis(1) || life > MAX_LIFE {
            Some(SubmitError::BadLife)
        } else {
            None
        };
        if let Some(flaw) = flaw {
            return Err(CustodyError::Task(flaw));
        }
        if job.keep > MAX_KEEP {
            return Err(CustodyError::BadKeep);
        }
        let Signer { holder, pass, mesh } = &self.signer;
        let pass = pass.as_ref().filter(|pass| pass.grant().key == holder.public());
        let pass = pass.ok_or(CustodyError::NoPass)?;
        let digest = digest(kind, key, &payload);
        let warrant = Warrant::sign(Named { task, digest }, job, self.shared.wall, (holder, pass, mesh));
        let terms = Terms { warrant, kind: kind.to_owned(), key: Bytes::copy_from_slice(key), digest };
        let call = self.calls.deposit(now, task, terms, payload);
        self.handle_timeout(now);
        call
    }

    /// The id of a task that this node's holder names: the same each time, and nobody else can guess it.
    pub fn named_task(&self, name: &str) -> TaskId {
        let key = blake3::derive_key("nurl 2 names of detached tasks", &self.signer.holder.as_bytes()[..]);
        let hash = blake3::keyed_hash(&key, name.as_bytes());
        TaskId::from_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }

    /// Asks for a task: at once if it is in another state than `seen`, or else when it changes or `wait` is over. With
    /// `outcome`, the outcome is told as well, once there is one.
    ///
    /// # Errors
    /// [`CustodyError::Busy`].
    pub fn ask(
        &mut self,
        now: Instant,
        task: TaskId,
        seen: Option<Mark>,
        wait: Duration,
        outcome: bool,
    ) -> Result<u64, CustodyError> {
        let want = if outcome { Want::Outcome } else { Want::Nothing };
        let call = self.calls.ask(now, task, Question::Status { seen, wait, want });
        self.handle_timeout(now);
        call
    }

    /// Asks for what is to be done in a task of this node's own.
    ///
    /// # Errors
    /// [`CustodyError::Busy`].
    pub fn ask_terms(&mut self, now: Instant, task: TaskId) -> Result<u64, CustodyError> {
        let question = Question::Status { seen: None, wait: Duration::ZERO, want: Want::Terms };
        let call = self.calls.ask(now, task, question);
        self.handle_timeout(now);
        call
    }

    /// Asks a keeper to end a task of this node's own.
    ///
    /// # Errors
    /// [`CustodyError::Busy`].
    pub fn cancel(&mut self, now: Instant, task: TaskId) -> Result<u64, CustodyError> {
        let call = self.calls.ask(now, task, Question::Cancel);
        self.handle_timeout(now);
        call
    }

    /// Asks all live workers for this node's own tasks.
    ///
    /// # Errors
    /// [`CustodyError::Busy`] or [`CustodyError::NoKeepers`].
    pub fn list(&mut self, now: Instant) -> Result<u64, CustodyError> {
        let call = self.calls.list(now, &mut self.shared);
        self.handle_timeout(now);
        call
    }

    // ---- Inputs.

    /// Takes a reliable message of kind *custody*.
    pub fn handle_message(&mut self, now: Instant, from: &Submitter, body: &Bytes) {
        self.dispatch(now, from, body);
        self.handle_timeout(now);
    }

    /// Takes an event of this node's jobs. Returns whether it is of a task that was submitted for the log.
    pub fn on_job(&mut self, now: Instant, event: &JobEvent) -> bool {
        if let JobEvent::Orphaned { task } = event {
            // If there are too many calls, the event comes again.
            if !self.orphans.values().any(|asked| asked == task)
                && let Ok(call) = self.ask(now, *task, None, Duration::ZERO, false)
            {
                self.orphans.insert(call, *task);
            }
            return false;
        }
        let ours = self.keeper.on_job(now, &mut self.shared, event);
        if ours {
            self.handle_timeout(now);
        }
        ours
    }

    /// Notes that the jobs refused a task of an [order](Order::Drive).
    pub fn on_drive_failed(&mut self, now: Instant, task: TaskId, why: &SubmitError) {
        self.keeper.on_drive_failed(now, &mut self.shared, task, why);
        self.handle_timeout(now);
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.calls.handle_timeout(now, &mut self.shared);
        self.keeper.answer_those_who_waited(now, &mut self.shared);
        for _ in 0..LOOKS_PER_TURN {
            let Some(task) = self.keeper.ledger.pop_due(now) else { break };
            self.keeper.look(now, &mut self.shared, task);
        }
        self.keeper.flush(&mut self.shared);
        // Each message of this node to itself answers an earlier one, or a call.
        while let Some(body) = self.shared.to_self.pop_front() {
            let standing = self.signer.pass.as_ref().map(Standing::of);
            let local = Submitter::new(self.shared.local, standing);
            self.dispatch(now, &local, &body);
        }
    }

    /// The time at which [`handle_timeout`](Custody::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.calls.poll_timeout(), self.keeper.poll_timeout()].into_iter().flatten().min()
    }

    // ---- Outputs.

    /// The next message to another node.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Bytes)> {
        let next = self.shared.outbox.pop_front()?;
        self.shared.outbox_bytes -= next.1.len();
        Some(next)
    }

    /// The next order to the jobs.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.shared.orders.pop_front()
    }

    /// The next call that has ended.
    pub fn poll_event(&mut self) -> Option<(u64, Result<Told, CustodyError>)> {
        loop {
            let (call, told) = self.shared.events.pop_front()?;
            let Some(task) = self.orphans.remove(&call) else { return Some((call, told)) };
            if let Ok(Told::Status { status, .. }) = told
                && (status.cancelling || status.end.is_some())
            {
                self.shared.orders.push_back(Order::End(task));
            }
        }
    }

    /// The next tasks whose records changed: each with what is to be stored, or `None` to delete it. Empty: none.
    pub fn poll_changed(&mut self, most: usize) -> Vec<(TaskId, Option<Stored>)> {
        let changed = self.keeper.ledger.take_changed(most);
        let record = |(task, how)| {
            let kept = self.keeper.ledger.get(&task);
            (task, kept.map(|kept| Stored::of(&kept.entry, how)))
        };
        changed.into_iter().map(record).collect()
    }

    /// Forgets which records changed, while there is no disk to store them on.
    pub fn forget_changed(&mut self) {
        self.keeper.ledger.forget_changed();
    }

    /// Whether what this node has is on its disk before its messages leave. When its disk works again, all of it is stored.
    pub fn set_durable(&mut self, durable: bool) {
        self.shared.durable = durable;
        if durable {
            self.keeper.ledger.store_all();
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> CustodyStats {
        CustodyStats { evicted: self.keeper.ledger.evicted, ..self.shared.stats }
    }

    /// The present sizes.
    pub fn gauges(&self) -> CustodyGauges {
        CustodyGauges {
            entries: self.keeper.ledger.len(),
            bytes: self.keeper.ledger.bytes(),
            driving: self.keeper.driving(),
            calls: self.calls.len(),
        }
    }

    /// This node's own copies: the state of each task, and whether it has ended. It asks nobody.
    pub fn held(&self) -> Vec<(TaskId, Mark, bool)> {
        let kept = self.keeper.ledger.iter();
        kept.map(|(task, kept)| (*task, kept.mark, !kept.entry.is_open())).collect()
    }

    fn dispatch(&mut self, now: Instant, by: &Submitter, body: &Bytes) {
        let Custody { shared, keeper, calls, .. } = self;
        let from = by.key();
        let message = match Message::decode(body) {
            Ok(message) => message,
            Err(MessageError::UnknownType(_)) => return shared.stats.unknown_type += 1,
            Err(_) => return shared.stats.malformed += 1,
        };
        match message {
            Message::Deposit { call, task, terms, payload } => {
                keeper.on_deposit(now, shared, by, call, (task, terms, payload));
            }
            Message::Stored { call, boot, durable } => calls.on_stored(shared, from, call, (boot, durable)),
            Message::Refused { call, why } => calls.on_refused(now, shared, from, call, why),
            Message::Offer { items } => keeper.on_offer(now, shared, from, items),
            Message::Held { boot, durable, items } => {
                keeper.on_held(now, shared, from, (boot, durable), items);
            }
            Message::Copy { task, terms, course, body } => {
                keeper.on_copy(now, shared, from, task, (terms, course, body));
            }
            Message::Ask { call, task, seen, wait_ms, want } => {
                let wait = Duration::from_millis(wait_ms.into());
                keeper.on_ask(now, shared, by, (Asker { who: from, call }, task), (seen, want), wait);
            }
            Message::Answer { call, mark, status, record, terms, body } => {
                let terms = terms.map(|terms| (terms, body));
                calls.on_answer(now, shared, from, call, (mark, status), (record, terms));
            }
            Message::Cancel { call, task } => keeper.on_cancel(now, shared, by, call, task),
            Message::List { call, after } => keeper.on_list(shared, by, call, after),
            Message::Listed { call, tasks, more } => calls.on_listed(shared, from, call, (tasks, more)),
        }
    }
}
