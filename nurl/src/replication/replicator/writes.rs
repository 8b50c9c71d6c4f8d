//! The writer's side: this node's writes, until as many keepers of the key have them as are wanted.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::apply;
use super::calls::{Waiter, Wanted};
use super::confirm::{Confirm, Holders, Holding};
use super::error::UpdateError;
use super::held::Held;
use super::leave::MAX_OFFERS;
use super::message::Op;
use super::own::{Own, Sums};
use super::record::Record;
use super::served::Served;
use super::shared::{Moment, Shared};
use crate::key::PublicKey;
use crate::replication::crdt::{Kind, Object};
use crate::replication::identity::ReplicaId;
use crate::rt::{Point, Table, bound, buggify};

/// The first pause before an unacknowledged delta is sent again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest pause, and so the longest time that a returned owner waits for a delta it missed.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Limit on the deltas sent again in one tick, so that a mesh that comes back isn't flooded.
const MAX_RETRIES_PER_TICK: usize = 128;

/// The unconfirmed writes to a key, as one delta.
#[derive(Debug)]
struct Pending {
    value: Object,
    /// The id of the newest write in it. Those before have lower ones.
    id: u64,
    next: Instant,
    pause: Duration,
    holders: Holders,
    /// The keepers that refused the delta with its present id.
    declined: BTreeSet<PublicKey>,
    /// This node's sums before the oldest write in it, and the incarnation under which they were written.
    before: (u64, Own),
    /// The callers that wait until enough keepers have their writes.
    waiting: Vec<Waiter>,
}

impl Pending {
    /// Sends the delta to the keepers that aren't known to have all of it.
    fn send(&self, sh: &mut Shared, key: &[u8]) {
        let lacks = |keeper: &PublicKey| !self.holders.has(keeper, self.id);
        sh.fan_out(key, Some(self.id), self.value.encode(), lacks);
    }
}

/// How far a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// Enough keepers have it.
    Confirmed,
    /// It waits for acknowledgements under this id.
    Pending(u64),
}

/// This node's writes: its sums, and the unconfirmed deltas by key.
#[derive(Debug, Default)]
pub(super) struct Writes {
    sums: Sums,
    pending: BTreeMap<Vec<u8>, Pending>,
    /// The callers that wait for acknowledgements.
    waiting: usize,
}

impl Writes {
    /// The number of unconfirmed deltas.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The number of callers that wait for acknowledgements.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The keys of the unconfirmed deltas that no other node is known to have.
    pub(super) fn unheld_keys(&self, sh: &Shared) -> impl Iterator<Item = &Vec<u8>> {
        let local = sh.local.key;
        let unheld = move |pending: &Pending| pending.holders.having(pending.id).all(|(by, _)| *by == local);
        self.pending.iter().filter(move |(_, pending)| unheld(pending)).map(|(key, _)| key)
    }

    /// The key's unconfirmed delta.
    pub(super) fn pending(&self, key: &[u8]) -> Option<&Object> {
        self.pending.get(key).map(|pending| &pending.value)
    }

    /// The sums of the keys that this node wrote and doesn't hold.
    pub(super) fn sums(&mut self) -> &mut Sums {
        &mut self.sums
    }

    /// Makes a write. A keeper of the key has it at once in its copy; as a delta it waits until enough keepers have it. A node
    /// that isn't a keeper removes only elements that were `observed` by a read, are in its copy, or are in its pending
    /// delta.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then.
    pub(super) fn make(
        &mut self,
        sh: &mut Shared,
        held: &mut Held,
        at: Moment,
        key: &[u8],
        (op, confirm): (&Op, Confirm),
        observed: Option<&Object>,
    ) -> Result<Made, UpdateError> {
        let keepers = sh.keepers(key);
        if keepers.is_empty() && sh.met {
            return Err(UpdateError::NoOwners);
        }
        let (copy, keeps) = (held.copies.value(key), sh.takes(key));
        if !keeps {
            self.sums.make_room(sh, key);
        }
        let actor = self.sums.actor(sh, key, at.wall);
        // The part of the key that this node has seen. Its copy, as a rule, has what it wrote itself.
        let local = &sh.local.key;
        let is_in_copy = self.pending.get(key).is_none_or(|pending| pending.holders.has(local, pending.id));
        let known = match copy {
            Some(copy) if is_in_copy && observed.is_none() => Cow::Borrowed(copy),
            _ => {
                let mut known = observed.or(copy).cloned().unwrap_or_else(|| Object::new(op.kind()));
                for more in [observed.and(copy), self.pending(key)].into_iter().flatten() {
                    known.merge(more, at.wall)?;
                }
                Cow::Owned(known)
            }
        };
        let before = self.sums.get(key).map(|writer| writer.own).unwrap_or_default();
        let before = copy.map_or(before, |copy| before.join(Own::of(copy.value(), &actor)));

        let id = sh.fresh_id();
        let mut holders = Holders::default();
        if keeps {
            holders
                .note(sh.local.key, Holding { upto: id, boot: sh.config.boot, durable: sh.config.durable });
        }
        let waits =
            self.pending.contains_key(key) || !holders.confirm(&keepers, sh.config.replicas, id, confirm);
        let most = bound(Table::PendingWrites, sh.config.max_pending);
        if waits && !self.pending.contains_key(key) && self.pending.len() >= most {
            return Err(UpdateError::Full("unacknowledged writes"));
        }
        let delta = apply::delta(op, &known, before, actor, &mut sh.clock, at.wall)?;
        let bytes = delta.encode();
        if keeps {
            held.commit(sh, at, key, &delta, bytes.len())?;
        }
        if !waits {
            sh.fan_out(key, None, bytes, |_| true);
            return Ok(Made::Confirmed);
        }
        let pending = self.pending.entry(key.to_vec()).or_insert_with(|| Pending {
            value: Object::new(op.kind()),
            id,
            next: at.now,
            pause: RETRY_MIN,
            holders,
            declined: BTreeSet::new(),
            before: (actor.incarnation, before),
            waiting: Vec::new(),
        });
        // The merge uses the writer's own clock, so the writer's own stamp is never parked here.
        if let Err(error) = pending.value.merge(&delta, at.wall) {
            match held.copies.value(key) {
                // Too much for a delta: the copy has all of it.
                Some(copy) if keeps => pending.value = copy.clone(),
                _ => return Err(error.into()),
            }
        }
        if keeps {
            let own = Holding { upto: id, boot: sh.config.boot, durable: sh.config.durable };
            pending.holders.note(sh.local.key, own);
        } else {
            self.sums.join(key, &actor, before.join(Own::of(delta.value(), &actor)), at.wall);
        }
        (pending.id, pending.next, pending.pause) = (id, at.now + RETRY_MIN, RETRY_MIN);
        pending.declined.clear();
        sh.events.changed(key);
        pending.send(sh, key);
        Ok(Made::Pending(id))
    }

    /// Answers a caller, or lets it wait until enough keepers have the write.
    pub(super) fn settle_or_wait(
        &mut self,
        sh: &mut Shared,
        served: &mut Served,
        at: Moment,
        key: &[u8],
        wanted: Wanted,
        made: Made,
    ) {
        match (made, self.pending.get_mut(key)) {
            (Made::Pending(write), Some(pending)) => {
                pending.waiting.push(Waiter::new(at.now, wanted, write));
                self.waiting += 1;
                self.judge(sh, served, key);
            }
            _ => wanted.caller.settle(sh, served, Ok(())),
        }
    }

    /// Answers the callers whose writes enough keepers have, and forgets a delta that is confirmed.
    fn judge(&mut self, sh: &mut Shared, served: &mut Served, key: &[u8]) {
        let (keepers, replicas) = (sh.keepers(key), sh.config.replicas);
        let Some(Pending { id, holders, waiting, .. }) = self.pending.get_mut(key) else { return };
        let confirmed =
            |waiter: &mut Waiter| holders.confirm(&keepers, replicas, waiter.write, waiter.wanted.confirm);
        let done: Vec<Waiter> = waiting.extract_if(.., confirmed).collect();
        if waiting.is_empty() && holders.confirm(&keepers, replicas, *id, Confirm::Safe) {
            self.pending.remove(key);
            sh.events.changed(key);
        }
        self.settle(sh, served, done, &Ok(()));
    }

    fn settle(
        &mut self,
        sh: &mut Shared,
        served: &mut Served,
        waiting: Vec<Waiter>,
        outcome: &Result<(), UpdateError>,
    ) {
        self.waiting -= waiting.len();
        for waiter in waiting {
            waiter.wanted.caller.settle(sh, served, outcome.clone());
        }
    }

    /// Answers the callers whose wait has expired. Their deltas stay pending.
    pub(super) fn expire(&mut self, sh: &mut Shared, served: &mut Served, now: Instant) {
        if self.waiting == 0 {
            return;
        }
        let mut expired = Vec::new();
        for Pending { waiting, holders, .. } in self.pending.values_mut() {
            for waiter in waiting.extract_if(.., |waiter| waiter.is_due(now)) {
                let have = holders.having(waiter.write).map(|(keeper, _)| *keeper).collect();
                expired.push((waiter, UpdateError::Unconfirmed(have)));
            }
        }
        for (waiter, error) in expired {
            self.settle(sh, served, vec![waiter], &Err(error));
        }
    }

    /// Takes a keeper's acknowledgement. Returns whether it belongs to a delta.
    pub(super) fn acknowledged(
        &mut self,
        sh: &mut Shared,
        served: &mut Served,
        from: PublicKey,
        key: &[u8],
        holding: Holding,
    ) -> bool {
        let pending = self.pending.get_mut(key).filter(|pending| holding.upto <= pending.id);
        let Some(pending) = pending else { return false };
        if buggify(Point::AckLost) {
            return false;
        }
        pending.holders.note(from, holding);
        self.judge(sh, served, key);
        true
    }

    /// Takes a keeper's refusal. When all live ones have refused, nobody has the write: those who wanted it are returned.
    pub(super) fn declined(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        from: PublicKey,
        key: &[u8],
        id: u64,
    ) -> Vec<Wanted> {
        let keepers = sh.keepers(key);
        let Some(pending) = self.pending.get_mut(key).filter(|pending| pending.id == id) else {
            return Vec::new();
        };
        pending.declined.insert(from);
        let refused = keepers.iter().filter(|keeper| keeper.live);
        if !pending.holders.is_empty()
            || !refused.clone().all(|keeper| pending.declined.contains(&keeper.key))
        {
            return Vec::new();
        }
        let Some(pending) = self.pending.remove(key) else { return Vec::new() };
        if let (Kind::Counter, Some(writer)) = (pending.value.kind(), self.sums.get(key)) {
            // The next delta has the sums of all writes, so it takes back what was told to have failed.
            let (own, (of, before)) = (writer.own, pending.before);
            let before = if of == writer.incarnation { before } else { Own::default() };
            let taken = own.taken.saturating_add(own.added.saturating_sub(before.added));
            let added = own.added.saturating_add(own.taken.saturating_sub(before.taken));
            let actor = ReplicaId { incarnation: writer.incarnation, ..sh.local };
            self.sums.join(key, &actor, Own { added, taken, dot: 0 }, wall);
        }
        sh.events.changed(key);
        self.waiting -= pending.waiting.len();
        pending.waiting.into_iter().map(|waiter| waiter.wanted).collect()
    }

    /// Adapts to a new view: what was acknowledged by a process that is gone doesn't count, fewer keepers may be enough, and
    /// one may be back.
    pub(super) fn follow(&mut self, sh: &mut Shared, served: &mut Served, now: Instant) {
        for pending in self.pending.values_mut() {
            pending.holders.follow(sh);
            pending.declined.clear();
            (pending.next, pending.pause) = (now, RETRY_MIN);
        }
        for key in self.pending.keys().cloned().collect::<Vec<_>>() {
            self.judge(sh, served, &key);
        }
    }

    /// Sends the deltas that are due again.
    pub(super) fn retry(&mut self, sh: &mut Shared, held: &mut Held, served: &mut Served, at: Moment) {
        let due = self.pending.iter().filter(|(_, pending)| pending.next <= at.now);
        let due: Vec<Vec<u8>> = due.map(|(key, _)| key.clone()).take(MAX_RETRIES_PER_TICK).collect();
        for key in due {
            let Some(pending) = self.pending.get_mut(&key) else { continue };
            let size = pending.value.encode().len();
            // This node may have become a keeper.
            if sh.takes(&key)
                && !sh.is_read_only()
                && !pending.holders.has(&sh.local.key, pending.id)
                && held.commit(sh, at, &key, &pending.value, size).is_ok()
            {
                let (upto, boot, durable) = (pending.id, sh.config.boot, sh.config.durable);
                pending.holders.note(sh.local.key, Holding { upto, boot, durable });
            }
            pending.send(sh, &key);
            pending.pause = (pending.pause * 2).min(RETRY_MAX);
            pending.next = at.now + pending.pause;
            self.judge(sh, served, &key);
        }
    }

    /// Sends the deltas of a node that leaves.
    pub(super) fn offer(&self, sh: &mut Shared) {
        for (key, pending) in self.pending.iter().take(MAX_OFFERS) {
            pending.send(sh, key);
        }
    }

    /// Gives up all unconfirmed writes, and takes another replica id: nothing of before counts.
    pub(super) fn give_up(&mut self, sh: &mut Shared, served: &mut Served) {
        for (key, pending) in std::mem::take(&mut self.pending) {
            sh.events.changed(&key);
            self.settle(sh, served, pending.waiting, &Err(UpdateError::Unconfirmed(Vec::new())));
        }
        self.sums.forget(sh);
    }

    /// The durable record of a key of which this node holds `copy`.
    pub(super) fn record(&self, key: &[u8], copy: Option<&Object>, aside: Option<&Object>) -> Option<Record> {
        Record::of(copy, self.pending(key), self.sums.get(key), aside)
    }

    /// Restores the delta and the sums of a record.
    pub(super) fn restore(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        key: &[u8],
        record: &Record,
    ) -> Result<(), UpdateError> {
        let writer = record.writer();
        if let Some(bytes) = record.pending() {
            if self.pending.len() >= sh.config.max_pending {
                return Err(UpdateError::Full("unacknowledged writes"));
            }
            let id = sh.fresh_id();
            let pending = Pending {
                value: Object::decode(bytes)?,
                id,
                next: now,
                pause: RETRY_MIN,
                holders: Holders::default(),
                declined: BTreeSet::new(),
                before: writer.map_or_else(Default::default, |writer| (writer.incarnation, writer.own)),
                waiting: Vec::new(),
            };
            self.pending.insert(key.to_vec(), pending);
        }
        if let Some(writer) = writer {
            self.sums.restore(key, writer);
        }
        Ok(())
    }
}
