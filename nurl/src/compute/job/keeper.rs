//! The keeper: outcomes by task id.
//!
//! An executor keeps what it produced, and the key's owners keep copies, for the task's life and a horizon. A
//! submit that comes again finds the outcome here and runs nothing. The submitter's acknowledgement drops the
//! bytes; the hash stays. When the owners change, or one comes back, records follow, a batch at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::event::{Event, MemberChange};
use super::message::{Beat, Message, Replica};
use super::options::{
    MAX_EARLY_ACKS, MAX_RECORD_BYTES, MAX_RECORDS, MAX_WAITERS, REDELIVER_AFTER, RESYNC_BATCH, RESYNC_SCAN,
    RESYNC_TICK,
};
use super::record::Record;
use super::shared::{Shared, Timer};
use super::task::TaskId;
use crate::key::PublicKey;

/// A submitter that waits for an execution, with its latest count of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) who: PublicKey,
    pub(super) attempt: u32,
}

/// One outcome and whom it concerns.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) digest: [u8; 32],
    /// Who may acknowledge it.
    pub(super) submitters: Vec<PublicKey>,
    /// Who was to be told by this node and hasn't acknowledged.
    pub(super) waiting: Vec<Waiter>,
    pub(super) kind: Box<str>,
    pub(super) key: Box<[u8]>,
    pub(super) until: Instant,
    pub(super) record: Record,
    /// Replicas that were sent this very record.
    sent_to: Peers,
}

/// A few peers. A set's first node has room for eleven, and a table has thousands of these.
#[derive(Debug, Default)]
struct Peers(Vec<PublicKey>);

impl Peers {
    fn insert(&mut self, peer: PublicKey) -> bool {
        let new = !self.0.contains(&peer);
        if new {
            self.0.reserve_exact(1);
            self.0.push(peer);
        }
        new
    }

    fn remove(&mut self, peer: &PublicKey) -> bool {
        let before = self.0.len();
        self.0.retain(|other| other != peer);
        self.0.len() < before
    }
}

impl Kept {
    pub(super) fn new(task: &Meta, record: Record, waiting: Vec<Waiter>) -> Kept {
        let mut submitters = task.submitters.clone();
        submitters.truncate(MAX_WAITERS);
        Kept {
            digest: task.digest,
            submitters,
            waiting,
            kind: task.kind.as_str().into(),
            key: task.key[..].into(),
            until: task.until,
            record,
            sent_to: Peers::default(),
        }
    }
}

impl Kept {
    /// The submitter has its outcome: only its hash is kept, and nobody has to acknowledge it.
    fn settle(&mut self) {
        self.record.outcome = None;
        self.waiting = Vec::new();
        self.submitters = Vec::new();
    }

    fn bytes(&self) -> usize {
        size_of::<Kept>()
            + (self.submitters.capacity() + self.sent_to.0.capacity()) * size_of::<PublicKey>()
            + self.waiting.capacity() * size_of::<Waiter>()
            + self.kind.len()
            + self.key.len()
    }
}

/// What is known about a task beside its outcome.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub(super) digest: [u8; 32],
    pub(super) submitters: Vec<PublicKey>,
    pub(super) kind: String,
    pub(super) key: Bytes,
    pub(super) until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Keeper {
    table: BTreeMap<TaskId, Kept>,
    bytes: usize,
    /// Records whose replicas may lack them.
    dirty: BTreeSet<TaskId>,
    /// Those of them whose last copy was not delivered.
    undelivered: BTreeSet<TaskId>,
    /// When each goes.
    ends: BTreeSet<(Instant, TaskId)>,
    /// Records with somebody waiting.
    awaited: BTreeSet<TaskId>,
    /// Acknowledgements that overtook their outcome on another path.
    early: VecDeque<(TaskId, PublicKey)>,
}

impl Keeper {
    pub(super) fn get(&self, task: &TaskId) -> Option<&Kept> {
        self.table.get(task)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps an outcome, or joins it into the one that is there.
    pub(super) fn keep(&mut self, sh: &mut Shared, now: Instant, task: TaskId, mut kept: Kept) {
        let acknowledged =
            self.early.iter().position(|(early, from)| *early == task && kept.submitters.contains(from));
        if let Some(at) = acknowledged {
            self.early.remove(at);
            if kept.waiting.is_empty() {
                kept.settle();
            }
        }
        if self.table.contains_key(&task) {
            self.join(sh, now, task, kept);
        } else if self.table.len() >= MAX_RECORDS
            || self.bytes + kept.record.held_bytes() > MAX_RECORD_BYTES
            || kept.until <= now
        {
            sh.stats.records_refused += 1;
            return;
        } else {
            self.bytes += kept.record.held_bytes();
            self.ends.insert((kept.until, task));
            self.table.insert(task, kept);
            self.touch(sh, now, task);
            self.arm_ends(sh);
        }
        self.watch(sh, now, task);
    }

    fn join(&mut self, sh: &mut Shared, now: Instant, task: TaskId, other: Kept) {
        let kept = self.table.get_mut(&task).expect("the caller looked");
        if kept.digest != other.digest {
            sh.stats.conflicts += 1;
            return;
        }
        let (ours, theirs) = (&kept.record, &other.record);
        let both_ran = !ours.class.is_submitters() && !theirs.class.is_submitters();
        if both_ran && (ours.token, ours.by) != (theirs.token, theirs.by) {
            sh.stats.duplicate_runs += 1;
            sh.event(Event::Duplicate { task, by: theirs.by });
        }
        let before = kept.record.held_bytes();
        let grows = theirs.held_bytes() > before;
        if grows && self.bytes - before + theirs.held_bytes() > MAX_RECORD_BYTES {
            sh.stats.records_refused += 1;
            return;
        }
        for submitter in other.submitters {
            if kept.submitters.len() < MAX_WAITERS && !kept.submitters.contains(&submitter) {
                kept.submitters.push(submitter);
            }
        }
        for waiter in other.waiting {
            add_waiter(&mut kept.waiting, waiter);
        }
        let changed = kept.record.merge(other.record);
        if kept.record.is_settled() {
            kept.settle();
        }
        self.bytes = self.bytes - before + kept.record.held_bytes();
        if changed {
            kept.sent_to = Peers::default();
            self.touch(sh, now, task);
        }
    }

    /// Somebody asks for the outcome again: it is owed until acknowledged.
    pub(super) fn owe(&mut self, sh: &mut Shared, now: Instant, task: TaskId, waiter: Waiter) {
        if let Some(kept) = self.table.get_mut(&task) {
            if !kept.submitters.contains(&waiter.who) && kept.submitters.len() < MAX_WAITERS {
                kept.submitters.push(waiter.who);
            }
            add_waiter(&mut kept.waiting, waiter);
            self.watch(sh, now, task);
        }
    }

    /// The submitter has its outcome: the bytes go, the hash stays.
    pub(super) fn acknowledge(&mut self, sh: &mut Shared, task: TaskId, from: PublicKey) {
        let Some(kept) = self.table.get_mut(&task) else {
            if self.early.len() >= MAX_EARLY_ACKS {
                self.early.pop_front();
            }
            self.early.push_back((task, from));
            return;
        };
        if kept.record.is_settled() {
            return;
        }
        if !kept.submitters.contains(&from) {
            sh.stats.unexpected += 1;
            return;
        }
        kept.waiting.retain(|waiter| waiter.who != from);
        if kept.waiting.is_empty() {
            self.awaited.remove(&task);
            self.bytes -= kept.record.held_bytes();
            kept.settle();
        }
    }

    /// Signs of life for outcomes that nobody has acknowledged yet.
    pub(super) fn beats(&self) -> impl Iterator<Item = (PublicKey, Beat)> + '_ {
        let kept = self.awaited.iter().filter_map(|task| Some((task, self.table.get(task)?)));
        kept.flat_map(|(task, kept)| {
            let finished = Some(kept.record.held_bytes() as u64);
            kept.waiting
                .iter()
                .map(move |waiter| (waiter.who, Beat { task: *task, attempt: waiter.attempt, finished }))
        })
    }

    /// `peer` is told no more of outcomes that it hasn't acknowledged; how many those were.
    pub(super) fn give_up(&mut self, peer: PublicKey) -> u64 {
        let (table, mut unheard) = (&mut self.table, 0);
        self.awaited.retain(|task| {
            let Some(kept) = table.get_mut(task) else { return false };
            let before = kept.waiting.len();
            kept.waiting.retain(|waiter| waiter.who != peer);
            unheard += (before - kept.waiting.len()) as u64;
            !kept.waiting.is_empty()
        });
        unheard
    }

    pub(super) fn owes_anything(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// A copy from another keeper.
    pub(super) fn handle_replica(&mut self, sh: &mut Shared, now: Instant, from: PublicKey, copy: Replica) {
        let owners = sh.owners(&copy.key);
        let may = owners.contains(&from)
            || sh.executors(&copy.kind, &copy.key).contains(&from)
            || (copy.record.class.is_submitters() && copy.submitters.contains(&from));
        if !may || !sh.believe(copy.record.token) {
            sh.stats.forged_records += 1;
            return;
        }
        let meta = Meta {
            digest: copy.digest,
            submitters: copy.submitters,
            kind: copy.kind,
            key: copy.key,
            until: now + copy.keep,
        };
        let theirs = (copy.record.class, copy.record.token, copy.record.hash);
        let is_new = !self.table.contains_key(&copy.task);
        self.keep(sh, now, copy.task, Kept::new(&meta, copy.record, Vec::new()));
        let Some(kept) = self.table.get_mut(&copy.task) else { return };
        if kept.digest != meta.digest {
            return;
        }
        if (kept.record.class, kept.record.token, kept.record.hash) == theirs {
            kept.sent_to.insert(from);
            if is_new && from == kept.record.by {
                // The executor tells all owners itself.
                self.dirty.remove(&copy.task);
            }
        } else {
            // Ours is higher: the sender learns it.
            kept.sent_to.remove(&from);
            let message = Message::Replica(replica(now, copy.task, kept));
            kept.sent_to.insert(from);
            sh.send(from, message);
        }
    }

    /// A message to a member was lost: its copies are sent again after a while.
    pub(super) fn on_send_failed(&mut self, sh: &mut Shared, now: Instant, peer: PublicKey) {
        for (task, kept) in &mut self.table {
            if kept.sent_to.remove(&peer) {
                self.undelivered.insert(*task);
            }
        }
        if !self.undelivered.is_empty() {
            sh.timers.set_if_idle(Timer::Redeliver, now + REDELIVER_AFTER);
        }
    }

    /// Gives undelivered copies another chance.
    pub(super) fn redeliver(&mut self, sh: &mut Shared, now: Instant) {
        self.dirty.append(&mut self.undelivered);
        self.arm(sh, now);
    }

    /// A member's state has changed.
    pub(super) fn on_member(&mut self, sh: &mut Shared, now: Instant, peer: PublicKey, change: MemberChange) {
        let gone = change != MemberChange::Alive;
        let mut touched = Vec::new();
        for (task, kept) in &mut self.table {
            // One that is back may lack everything; one that died may have told only some of the owners.
            if kept.sent_to.remove(&peer) || !gone || kept.record.by == peer {
                touched.push(*task);
            }
            if gone {
                kept.waiting.retain(|waiter| waiter.who != peer);
                if kept.waiting.is_empty() {
                    self.awaited.remove(task);
                }
            }
        }
        for task in touched {
            self.touch(sh, now, task);
        }
    }

    /// The owners may be others now.
    pub(super) fn on_placement(&mut self, sh: &mut Shared, now: Instant) {
        self.dirty.extend(self.table.keys());
        self.arm(sh, now);
    }

    /// Sends one batch of records to the replicas that lack them.
    pub(super) fn resync(&mut self, sh: &mut Shared, now: Instant) {
        let (mut sent, mut seen) = (0, 0);
        while sent < RESYNC_BATCH
            && seen < RESYNC_SCAN
            && let Some(task) = self.dirty.pop_first()
        {
            seen += 1;
            sent += self.replicate(sh, now, task);
        }
        self.arm(sh, now);
    }

    /// Sends a record to the owners that lack it now; how many there were.
    pub(super) fn replicate(&mut self, sh: &mut Shared, now: Instant, task: TaskId) -> usize {
        self.dirty.remove(&task);
        let Some(kept) = self.table.get_mut(&task) else { return 0 };
        let (mut sent, owners) = (0, sh.owners(&kept.key));
        kept.sent_to.0.retain(|peer| owners.contains(peer));
        for owner in owners {
            // One that is down gets it when it is back.
            if owner != sh.local && !sh.down.contains(&owner) && kept.sent_to.insert(owner) {
                sh.send(owner, Message::Replica(replica(now, task, kept)));
                sent += 1;
            }
        }
        sent
    }

    /// Forgets what has been kept for long enough.
    pub(super) fn expire(&mut self, sh: &mut Shared, now: Instant) {
        while let Some((until, task)) = self.ends.first().copied()
            && until <= now
        {
            self.ends.pop_first();
            if let Some(kept) = self.table.remove(&task) {
                self.bytes -= kept.record.held_bytes();
            }
            self.dirty.remove(&task);
            self.undelivered.remove(&task);
            self.awaited.remove(&task);
        }
        self.arm_ends(sh);
    }

    fn arm_ends(&self, sh: &mut Shared) {
        if let Some((until, _)) = self.ends.first() {
            sh.timers.set(Timer::Records, *until);
        }
    }

    /// What the settled take, in bytes: their entries and what those own, without the trees' own.
    pub(super) fn settled_bytes(&self) -> usize {
        let settled = self.table.values().filter(|kept| kept.record.is_settled());
        settled.map(|kept| size_of::<(Instant, TaskId)>() + size_of::<TaskId>() + kept.bytes()).sum()
    }

    fn touch(&mut self, sh: &mut Shared, now: Instant, task: TaskId) {
        self.dirty.insert(task);
        self.arm(sh, now);
    }

    fn arm(&mut self, sh: &mut Shared, now: Instant) {
        if !self.dirty.is_empty() {
            sh.timers.set_if_idle(Timer::Resync, now + RESYNC_TICK);
        }
    }

    fn watch(&mut self, sh: &mut Shared, now: Instant, task: TaskId) {
        if self.table.get(&task).is_some_and(|kept| !kept.waiting.is_empty()) {
            self.awaited.insert(task);
            sh.timers.set_if_idle(Timer::Beat, now + sh.config.beat_interval);
        }
    }
}

fn replica(now: Instant, task: TaskId, kept: &Kept) -> Replica {
    Replica {
        task,
        digest: kept.digest,
        submitters: kept.submitters.clone(),
        kind: kept.kind.clone().into(),
        key: Bytes::copy_from_slice(&kept.key),
        keep: kept.until.saturating_duration_since(now),
        record: kept.record.clone(),
    }
}

/// Adds a waiter or moves its attempt forward; false if there are too many.
pub(super) fn add_waiter(waiters: &mut Vec<Waiter>, waiter: Waiter) -> bool {
    if let Some(known) = waiters.iter_mut().find(|known| known.who == waiter.who) {
        known.attempt = known.attempt.max(waiter.attempt);
        return true;
    }
    if waiters.len() >= MAX_WAITERS {
        return false;
    }
    waiters.push(waiter);
    true
}
