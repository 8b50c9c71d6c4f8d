//! The keeper: outcomes by task id.
//!
//! An executor keeps what it produced, and the key's owners keep copies, for the task's life and a horizon. A
//! submit that comes again finds the outcome here and runs nothing. The submitter's acknowledgement drops the
//! bytes; the hash stays. When the owners change, or one comes back, records follow, a batch at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Records that end within this time go together, up to so much later: one time for many costs less than one each.
const ENDS_TOGETHER: Duration = Duration::from_secs(1);

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
    /// Gone when the record is settled, which most of them are for most of their time.
    owed: Option<Box<Owed>>,
    pub(super) kind: Arc<str>,
    pub(super) key: Box<[u8]>,
    pub(super) until: Instant,
    pub(super) record: Record,
    /// Replicas that were sent this very record.
    sent_to: Peers,
}

/// To whom an outcome is owed.
#[derive(Debug, Default)]
struct Owed {
    /// Who may acknowledge it.
    submitters: Vec<PublicKey>,
    /// Who was to be told by this node and hasn't acknowledged.
    waiting: Vec<Waiter>,
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
    fn new(task: &Meta, record: Record, waiting: Vec<Waiter>) -> Kept {
        let mut submitters = task.submitters.clone();
        submitters.truncate(MAX_WAITERS);
        Kept {
            digest: task.digest,
            owed: Some(Box::new(Owed { submitters, waiting })),
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
        self.owed = None;
    }

    /// Who may acknowledge it.
    pub(super) fn submitters(&self) -> &[PublicKey] {
        self.owed.as_deref().map_or(&[], |owed| &owed.submitters)
    }

    fn waiting(&self) -> &[Waiter] {
        self.owed.as_deref().map_or(&[], |owed| &owed.waiting)
    }

    fn add_submitter(&mut self, submitter: PublicKey) {
        let owed = self.owed.get_or_insert_default();
        if owed.submitters.len() < MAX_WAITERS && !owed.submitters.contains(&submitter) {
            owed.submitters.push(submitter);
        }
    }

    /// Takes one off the list of those who wait; how many there were.
    fn stop_waiting(&mut self, who: &PublicKey) -> usize {
        let Some(owed) = &mut self.owed else { return 0 };
        let before = owed.waiting.len();
        owed.waiting.retain(|waiter| waiter.who != *who);
        before - owed.waiting.len()
    }

    fn bytes(&self) -> usize {
        size_of::<Kept>() + self.sent_to.0.capacity() * size_of::<PublicKey>() + self.key.len()
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
    /// Boxed, since a tree leaves a third of its room empty.
    table: BTreeMap<TaskId, Box<Kept>>,
    /// The kinds of the records, each once.
    kinds: BTreeSet<Arc<str>>,
    bytes: usize,
    /// Records whose replicas may lack them.
    dirty: BTreeSet<TaskId>,
    /// Those of them whose last copy was not delivered.
    undelivered: BTreeSet<TaskId>,
    /// When each goes, at the latest [`ENDS_TOGETHER`] after its end.
    ends: BTreeMap<Instant, Vec<TaskId>>,
    /// Records with somebody waiting.
    awaited: BTreeSet<TaskId>,
    /// Acknowledgements that overtook their outcome on another path.
    early: VecDeque<(TaskId, PublicKey)>,
}

impl Keeper {
    pub(super) fn get(&self, task: &TaskId) -> Option<&Kept> {
        self.table.get(task).map(|kept| &**kept)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps an outcome, or joins it into the one that is there.
    pub(super) fn keep(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        task: TaskId,
        meta: &Meta,
        record: Record,
        waiting: Vec<Waiter>,
    ) {
        let mut kept = Kept::new(meta, record, waiting);
        let acknowledged =
            self.early.iter().position(|(early, from)| *early == task && kept.submitters().contains(from));
        if let Some(at) = acknowledged {
            self.early.remove(at);
            if kept.waiting().is_empty() {
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
            self.end_at(kept.until, task);
            kept.kind = self.intern(kept.kind);
            self.table.insert(task, Box::new(kept));
            self.touch(sh, now, task);
            self.arm_ends(sh);
        }
        self.watch(sh, now, task);
    }

    /// The one copy of this kind.
    fn intern(&mut self, kind: Arc<str>) -> Arc<str> {
        if let Some(known) = self.kinds.get(&kind) {
            return known.clone();
        }
        self.kinds.insert(kind.clone());
        kind
    }

    fn end_at(&mut self, until: Instant, task: TaskId) {
        match self.ends.range_mut(until..=until + ENDS_TOGETHER).next() {
            Some((_, tasks)) => tasks.push(task),
            None => {
                self.ends.insert(until + ENDS_TOGETHER, vec![task]);
            }
        }
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
        for submitter in other.submitters() {
            kept.add_submitter(*submitter);
        }
        for waiter in other.waiting() {
            add_waiter(&mut kept.owed.get_or_insert_default().waiting, *waiter);
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
            kept.add_submitter(waiter.who);
            add_waiter(&mut kept.owed.get_or_insert_default().waiting, waiter);
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
        if !kept.submitters().contains(&from) {
            sh.stats.unexpected += 1;
            return;
        }
        kept.stop_waiting(&from);
        if kept.waiting().is_empty() {
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
            kept.waiting()
                .iter()
                .map(move |waiter| (waiter.who, Beat { task: *task, attempt: waiter.attempt, finished }))
        })
    }

    /// `peer` is told no more of outcomes that it hasn't acknowledged; how many those were.
    pub(super) fn give_up(&mut self, peer: PublicKey) -> u64 {
        let (table, mut unheard) = (&mut self.table, 0);
        self.awaited.retain(|task| {
            let Some(kept) = table.get_mut(task) else { return false };
            unheard += kept.stop_waiting(&peer) as u64;
            !kept.waiting().is_empty()
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
        self.keep(sh, now, copy.task, &meta, copy.record, Vec::new());
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
                kept.stop_waiting(&peer);
                if kept.waiting().is_empty() {
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
        while let Some(first) = self.ends.first_entry()
            && *first.key() <= now
        {
            for task in first.remove() {
                if let Some(kept) = self.table.remove(&task) {
                    self.bytes -= kept.record.held_bytes();
                }
                self.dirty.remove(&task);
                self.undelivered.remove(&task);
                self.awaited.remove(&task);
            }
        }
        self.kinds.retain(|kind| Arc::strong_count(kind) > 1);
        self.arm_ends(sh);
    }

    fn arm_ends(&self, sh: &mut Shared) {
        if let Some((until, _)) = self.ends.first_key_value() {
            sh.timers.set(Timer::Records, *until);
        }
    }

    /// What the settled take, in bytes: their entries and what those own, without the trees' own.
    pub(super) fn settled_bytes(&self) -> usize {
        let settled = self.table.values().filter(|kept| kept.record.is_settled());
        settled.map(|kept| 2 * size_of::<TaskId>() + size_of::<Box<Kept>>() + kept.bytes()).sum()
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
        if self.table.get(&task).is_some_and(|kept| !kept.waiting().is_empty()) {
            self.awaited.insert(task);
            sh.timers.set_if_idle(Timer::Beat, now + sh.config.beat_interval);
        }
    }
}

fn replica(now: Instant, task: TaskId, kept: &Kept) -> Replica {
    Replica {
        task,
        digest: kept.digest,
        submitters: kept.submitters().to_vec(),
        kind: kept.kind.to_string(),
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
