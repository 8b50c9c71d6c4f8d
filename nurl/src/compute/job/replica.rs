//! The node as a replica of tasks' records: outcomes by task id.
//!
//! An executor keeps the outcomes that it produced, and the key's owners keep copies, for the task's life and a
//! horizon. A repeated submit finds the outcome here and is not run. The submitter's acknowledgement drops the bytes;
//! the hash stays. When the owners change, or one comes back, it gets the records in batches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::{JobEvent, MemberChange};
use super::holdings::{Holding, Holdings};
use super::message::{Beat, Message, RecordCopy};
use super::options::{
    MAX_EARLY_ACKS, MAX_RECORD_BYTES, MAX_RECORDS, MAX_WAITERS, REDELIVER_AFTER, RESYNC_BATCH, RESYNC_SCAN,
    RESYNC_TICK,
};
use super::record::Record;
use super::shared::{SharedContext, Timer};
use super::task::TaskId;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::rt::{Table, bound};

/// Records that end within this time are dropped together, at most this much late: shared times cost less than single
/// ones.
const ENDS_TOGETHER: Duration = Duration::from_secs(1);

/// The hash in an acknowledgement of a process that doesn't know the task.
pub(super) const NOT_KNOWN: [u8; 32] = [0; 32];

/// A submitter that waits for an execution, with its latest count of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) who: PublicKey,
    pub(super) attempt: u32,
}

/// One outcome, and the nodes that it concerns.
#[derive(Debug)]
pub(super) struct KeptRecord {
    pub(super) digest: [u8; 32],
    /// None when the record is settled, as most records are for most of their time.
    owed: Option<Box<Owed>>,
    pub(super) kind: Arc<str>,
    pub(super) key: Box<[u8]>,
    pub(super) until: Instant,
    pub(super) record: Record,
    /// The replicas to which this record was sent in its present form.
    sent_to: FewPeers,
    /// None until it is in the table.
    held_for: Option<Holding>,
}

/// The nodes to which an outcome is owed.
#[derive(Debug, Default)]
struct Owed {
    /// The nodes that may acknowledge it.
    submitters: Vec<PublicKey>,
    /// The nodes that this node has to inform and that haven't acknowledged.
    waiting: Vec<Waiter>,
}

/// A few peers. A tree set's first node reserves space for eleven, and a table has thousands of these sets.
#[derive(Debug, Default)]
struct FewPeers(Vec<PublicKey>);

impl FewPeers {
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

impl KeptRecord {
    fn new(task: &TaskMeta, record: Record, waiting: Vec<Waiter>) -> KeptRecord {
        let mut submitters = task.submitters.clone();
        submitters.truncate(MAX_WAITERS);
        KeptRecord {
            digest: task.digest,
            owed: Some(Box::new(Owed { submitters, waiting })),
            kind: task.kind.as_str().into(),
            key: task.key[..].into(),
            until: task.until,
            record,
            sent_to: FewPeers::default(),
            held_for: None,
        }
    }
}

impl KeptRecord {
    /// Notes that the submitter has its outcome: only the hash is kept, and no acknowledgement is awaited.
    fn settle(&mut self) {
        self.record.outcome = None;
        self.owed = None;
    }

    /// The nodes that may acknowledge it.
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

    /// Removes `who` from the waiting nodes, and returns the number removed.
    fn stop_waiting(&mut self, who: &PublicKey) -> usize {
        let Some(owed) = &mut self.owed else { return 0 };
        let before = owed.waiting.len();
        owed.waiting.retain(|waiter| waiter.who != *who);
        before - owed.waiting.len()
    }

    fn bytes(&self) -> usize {
        size_of::<KeptRecord>() + self.sent_to.0.capacity() * size_of::<PublicKey>() + self.key.len()
    }
}

/// The data about a task besides its outcome.
#[derive(Debug, Clone)]
pub(super) struct TaskMeta {
    pub(super) digest: [u8; 32],
    pub(super) submitters: Vec<PublicKey>,
    pub(super) kind: String,
    pub(super) key: Bytes,
    pub(super) until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Replica {
    /// Boxed, since a tree leaves a third of its slots empty.
    table: BTreeMap<TaskId, Box<KeptRecord>>,
    /// The kinds of the records, each once.
    kinds: BTreeSet<Arc<str>>,
    /// Who has how much of the table.
    holdings: Holdings,
    /// Records whose replicas may lack them.
    dirty: BTreeSet<TaskId>,
    /// The dirty records whose last copy was not delivered.
    undelivered: BTreeSet<TaskId>,
    /// The times at which records are dropped, each at most [`ENDS_TOGETHER`] after its end.
    ends: BTreeMap<Instant, Vec<TaskId>>,
    /// Records with waiting nodes.
    awaited: BTreeSet<TaskId>,
    /// Acknowledgements that arrived before their outcome, over another path.
    early: VecDeque<(TaskId, PublicKey)>,
}

impl Replica {
    pub(super) fn get(&self, task: &TaskId) -> Option<&KeptRecord> {
        self.table.get(task).map(|kept| &**kept)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.holdings.bytes()
    }

    /// Keeps an outcome on the account of `holder`, or merges it into the kept one. The holder is the peer that told it,
    /// or the submitter of a task that ran here.
    #[expect(clippy::too_many_arguments, reason = "the one entrance of all outcomes")]
    pub(super) fn keep(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        task: TaskId,
        holder: Account,
        meta: &TaskMeta,
        record: Record,
        waiting: Vec<Waiter>,
    ) {
        let mut kept = KeptRecord::new(meta, record, waiting);
        let acknowledged =
            self.early.iter().position(|(early, from)| *early == task && kept.submitters().contains(from));
        if let Some(at) = acknowledged {
            self.early.remove(at);
            if kept.waiting().is_empty() {
                kept.settle();
            }
        }
        if self.table.contains_key(&task) {
            self.join(shared, now, task, kept);
        } else if kept.until <= now || !self.make_room(shared, &holder, 1, kept.record.held_bytes()) {
            shared.stats.records_refused += 1;
            return;
        } else {
            kept.held_for = Some(self.holdings.insert(holder, task, kept.record.held_bytes()));
            self.end_at(kept.until, task);
            kept.kind = self.intern(kept.kind);
            self.table.insert(task, Box::new(kept));
            self.touch(shared, now, task);
            self.arm_ends(shared);
        }
        self.watch(shared, now, task);
    }

    /// Makes room for so many records and bytes of a holder, if need be at the cost of the largest; false if there is none.
    fn make_room(
        &mut self,
        shared: &mut SharedContext,
        holder: &Account,
        records: usize,
        bytes: usize,
    ) -> bool {
        let most = bound(Table::Records, MAX_RECORDS);
        let most_bytes = bound(Table::RecordBytes, MAX_RECORD_BYTES);
        loop {
            let victim = if self.table.len() + records > most {
                self.holdings.oldest_for(holder, records)
            } else if self.holdings.bytes() + bytes > most_bytes {
                let table = &self.table;
                let has_bytes =
                    |task: &TaskId| table.get(task).is_some_and(|kept| kept.record.held_bytes() > 0);
                self.holdings.oldest_with_bytes_for(holder, bytes, has_bytes)
            } else {
                return true;
            };
            let Some(victim) = victim else { return false };
            shared.stats.records_evicted += 1;
            self.remove(victim);
        }
    }

    fn remove(&mut self, task: TaskId) {
        if let Some(kept) = self.table.remove(&task)
            && let Some(held_for) = &kept.held_for
        {
            self.holdings.remove(held_for, task, kept.record.held_bytes());
        }
        self.dirty.remove(&task);
        self.undelivered.remove(&task);
        self.awaited.remove(&task);
    }

    /// The shared copy of this kind's name.
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

    fn join(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId, other: KeptRecord) {
        let kept = self.table.get_mut(&task).expect("the caller looked");
        if kept.digest != other.digest {
            shared.stats.conflicts += 1;
            return;
        }
        let (ours, theirs) = (&kept.record, &other.record);
        let both_ran = !ours.class.is_submitters() && !theirs.class.is_submitters();
        if both_ran && (ours.token, ours.by) != (theirs.token, theirs.by) {
            shared.stats.duplicate_runs += 1;
            shared.event(JobEvent::Duplicate { task, by: theirs.by });
        }
        let before = kept.record.held_bytes();
        let grows = theirs.held_bytes() > before;
        let most_bytes = bound(Table::RecordBytes, MAX_RECORD_BYTES);
        if grows && self.holdings.bytes() - before + theirs.held_bytes() > most_bytes {
            shared.stats.records_refused += 1;
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
        if let Some(held_for) = &kept.held_for {
            self.holdings.resize(held_for, before, kept.record.held_bytes());
        }
        if changed {
            kept.sent_to = FewPeers::default();
            self.touch(shared, now, task);
        }
    }

    /// Notes that a submitter asks for the outcome again: it is owed until acknowledged.
    pub(super) fn owe(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId, waiter: Waiter) {
        if let Some(kept) = self.table.get_mut(&task) {
            kept.add_submitter(waiter.who);
            add_waiter(&mut kept.owed.get_or_insert_default().waiting, waiter);
            self.watch(shared, now, task);
        }
    }

    /// Notes that the submitter has its outcome: the bytes are dropped, the hash stays. A later process of it, which knows
    /// nothing of the task, says so by [`NOT_KNOWN`]: it gets no beats, and the outcome is kept for whoever asks for the task
    /// again.
    pub(super) fn acknowledge(
        &mut self,
        shared: &mut SharedContext,
        task: TaskId,
        from: PublicKey,
        hash: [u8; 32],
    ) {
        let Some(kept) = self.table.get_mut(&task) else {
            if hash == NOT_KNOWN {
                return;
            }
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
            shared.stats.unexpected += 1;
            return;
        }
        kept.stop_waiting(&from);
        if kept.waiting().is_empty() {
            self.awaited.remove(&task);
            if hash == NOT_KNOWN {
                return;
            }
            if let Some(held_for) = &kept.held_for {
                self.holdings.resize(held_for, kept.record.held_bytes(), 0);
            }
            kept.settle();
        }
    }

    /// Beats for outcomes that are not yet acknowledged.
    pub(super) fn beats(&self) -> impl Iterator<Item = (PublicKey, Beat)> + '_ {
        let kept = self.awaited.iter().filter_map(|task| Some((task, self.table.get(task)?)));
        kept.flat_map(|(task, kept)| {
            let finished = Some(kept.record.held_bytes() as u64);
            kept.waiting()
                .iter()
                .map(move |waiter| (waiter.who, Beat { task: *task, attempt: waiter.attempt, finished }))
        })
    }

    /// Stops sending `peer` the outcomes that it hasn't acknowledged, and returns their number.
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

    /// Takes a copy from another replica, or from a node that made the outcome.
    pub(super) fn handle_copy(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        teller: Account,
        copy: RecordCopy,
    ) {
        let from = teller.key();
        let may = shared.may_tell(now, &from, &copy.kind, &copy.key)
            || (copy.record.class.is_submitters() && copy.submitters.contains(&from));
        if !may || !shared.believe(copy.record.token) {
            shared.stats.forged_records += 1;
            return;
        }
        let meta = TaskMeta {
            digest: copy.digest,
            submitters: copy.submitters,
            kind: copy.kind,
            key: copy.key,
            until: now + copy.keep,
        };
        let theirs = (copy.record.class, copy.record.token, copy.record.hash);
        let is_new = !self.table.contains_key(&copy.task);
        self.keep(shared, now, copy.task, teller, &meta, copy.record, Vec::new());
        let Some(kept) = self.table.get_mut(&copy.task) else { return };
        if kept.digest != meta.digest {
            return;
        }
        if (kept.record.class, kept.record.token, kept.record.hash) == theirs {
            kept.sent_to.insert(from);
            if is_new && from == kept.record.by {
                // The executor sends the outcome to all owners itself.
                self.dirty.remove(&copy.task);
            }
        } else {
            // This node's record ranks higher, so the sender gets it.
            kept.sent_to.remove(&from);
            let message = Message::Replica(copy_of(now, copy.task, kept));
            kept.sent_to.insert(from);
            shared.send(from, message);
        }
    }

    /// Notes that a message to a member was lost: its copies are sent again after a while.
    pub(super) fn on_send_failed(&mut self, shared: &mut SharedContext, now: Instant, peer: PublicKey) {
        for (task, kept) in &mut self.table {
            if kept.sent_to.remove(&peer) {
                self.undelivered.insert(*task);
            }
        }
        if !self.undelivered.is_empty() {
            shared.timers.set_if_idle(Timer::Redeliver, now + REDELIVER_AFTER);
        }
    }

    /// Marks undelivered copies to be sent again.
    pub(super) fn redeliver(&mut self, shared: &mut SharedContext, now: Instant) {
        self.dirty.append(&mut self.undelivered);
        self.arm(shared, now);
    }

    /// Takes a change of a member's state.
    pub(super) fn on_member(
        &mut self,
        shared: &mut SharedContext,
        now: Instant,
        peer: PublicKey,
        change: MemberChange,
    ) {
        let gone = change != MemberChange::Alive;
        let mut touched = Vec::new();
        for (task, kept) in &mut self.table {
            // A returned member may lack all records; a dead one may have informed only some of the owners.
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
            self.touch(shared, now, task);
        }
    }

    /// Takes a new placement, in which owners may have changed.
    pub(super) fn on_placement(&mut self, shared: &mut SharedContext, now: Instant) {
        self.dirty.extend(self.table.keys());
        self.arm(shared, now);
    }

    /// Sends one batch of records to the replicas that lack them.
    pub(super) fn resync(&mut self, shared: &mut SharedContext, now: Instant) {
        let (mut sent, mut seen) = (0, 0);
        while sent < RESYNC_BATCH
            && seen < RESYNC_SCAN
            && let Some(task) = self.dirty.pop_first()
        {
            seen += 1;
            sent += self.replicate(shared, now, task);
        }
        self.arm(shared, now);
    }

    /// Sends a record to the owners that lack it, and returns their number.
    pub(super) fn replicate(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId) -> usize {
        self.dirty.remove(&task);
        let Some(kept) = self.table.get_mut(&task) else { return 0 };
        let (mut sent, owners) = (0, shared.owners(&kept.key));
        kept.sent_to.0.retain(|peer| owners.contains(peer));
        for owner in owners {
            // An owner that is down gets the record when it is back.
            if owner != shared.local && !shared.peers.is_down(&owner) && kept.sent_to.insert(owner) {
                shared.send(owner, Message::Replica(copy_of(now, task, kept)));
                sent += 1;
            }
        }
        sent
    }

    /// Forgets the records whose time is over.
    pub(super) fn expire(&mut self, shared: &mut SharedContext, now: Instant) {
        while let Some(first) = self.ends.first_entry()
            && *first.key() <= now
        {
            for task in first.remove() {
                // A record that was displaced may be back under the same id, for longer.
                if self.table.get(&task).is_none_or(|kept| kept.until <= now) {
                    self.remove(task);
                }
            }
        }
        self.kinds.retain(|kind| Arc::strong_count(kind) > 1);
        self.arm_ends(shared);
    }

    fn arm_ends(&self, shared: &mut SharedContext) {
        if let Some((until, _)) = self.ends.first_key_value() {
            shared.timers.set(Timer::Records, *until);
        }
    }

    /// The bytes of settled records: their entries and the data that those own, without the trees' overhead.
    pub(super) fn settled_bytes(&self) -> usize {
        let settled = self.table.values().filter(|kept| kept.record.is_settled());
        settled.map(|kept| 3 * size_of::<TaskId>() + 8 + size_of::<Box<KeptRecord>>() + kept.bytes()).sum()
    }

    fn touch(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId) {
        self.dirty.insert(task);
        self.arm(shared, now);
    }

    fn arm(&mut self, shared: &mut SharedContext, now: Instant) {
        if !self.dirty.is_empty() {
            shared.timers.set_if_idle(Timer::Resync, now + RESYNC_TICK);
        }
    }

    fn watch(&mut self, shared: &mut SharedContext, now: Instant, task: TaskId) {
        if self.table.get(&task).is_some_and(|kept| !kept.waiting().is_empty()) {
            self.awaited.insert(task);
            shared.timers.set_if_idle(Timer::Beat, now + shared.config.beat_interval);
        }
    }
}

fn copy_of(now: Instant, task: TaskId, kept: &KeptRecord) -> RecordCopy {
    RecordCopy {
        task,
        digest: kept.digest,
        submitters: kept.submitters().to_vec(),
        kind: kept.kind.to_string(),
        key: Bytes::copy_from_slice(&kept.key),
        keep: kept.until.saturating_duration_since(now),
        record: kept.record.clone(),
    }
}

/// Adds a waiter or updates its attempt; false if there are too many.
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
