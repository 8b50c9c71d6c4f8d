//! The writer's side: this node's writes to keys that it doesn't own, until an owner has acknowledged them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::apply;
use super::calls::{Caller, Waiter};
use super::error::UpdateError;
use super::held::Held;
use super::leave::MAX_OFFERS;
use super::message::Op;
use super::own::{Own, Sums};
use super::record::Record;
use super::served::Served;
use super::shared::{Moment, Shared};
use crate::replication::crdt::Value;
use crate::rt::{Point, Table, bound, buggify};

/// The first pause before an unacknowledged delta is sent again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest pause, and so the longest time that a returned owner waits for a delta it missed.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Limit on the deltas sent again in one tick, so that a mesh that comes back isn't flooded.
const MAX_RETRIES_PER_TICK: usize = 128;

/// A delta for other nodes that no owner has acknowledged.
#[derive(Debug)]
struct Pending {
    value: Value,
    id: u64,
    next: Instant,
    pause: Duration,
    /// The callers that wait until an owner has the delta.
    waiting: Vec<Waiter>,
}

/// This node's writes: its sums, and the unacknowledged deltas by key.
#[derive(Debug, Default)]
pub(super) struct Writes {
    sums: Sums,
    pending: BTreeMap<Vec<u8>, Pending>,
    /// The callers that wait for an acknowledgement.
    waiting: usize,
}

impl Writes {
    /// The number of deltas that no owner has acknowledged.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The number of callers that wait for an acknowledgement.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The keys of the unacknowledged deltas.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.pending.keys()
    }

    /// The key's unacknowledged delta.
    pub(super) fn pending(&self, key: &[u8]) -> Option<&Value> {
        self.pending.get(key).map(|pending| &pending.value)
    }

    /// The sums of the keys that this node wrote and doesn't hold.
    pub(super) fn sums(&mut self) -> &mut Sums {
        &mut self.sums
    }

    /// Makes a write. On an owner the state has it at once; elsewhere the delta waits for an owner. A node that isn't
    /// an owner removes only elements that were `observed` by a read, are in its copy, or are in its pending delta.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then.
    pub(super) fn make(
        &mut self,
        sh: &mut Shared,
        held: &mut Held,
        at: Moment,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
    ) -> Result<(), UpdateError> {
        let owners = sh.owners(key);
        if owners.is_empty() {
            return Err(UpdateError::NoOwners);
        }
        if owners.contains(&sh.local.key) {
            self.make_as_owner(sh, held, at, key, op)
        } else {
            let copy = held.copies.value(key);
            self.make_for_owners(sh, copy, at, key, op, observed)
        }
    }

    fn make_as_owner(
        &self,
        sh: &mut Shared,
        held: &mut Held,
        at: Moment,
        key: &[u8],
        op: &Op,
    ) -> Result<(), UpdateError> {
        let own = self.sums.get(key).unwrap_or_default();
        let empty = Value::new(op.kind());
        let known = held.copies.value(key).unwrap_or(&empty);
        let delta = apply::delta(op, known, own, sh.local, &mut sh.clock, at.wall)?;
        held.commit(sh, at, key, &delta)
    }

    fn make_for_owners(
        &mut self,
        sh: &mut Shared,
        copy: Option<&Value>,
        at: Moment,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
    ) -> Result<(), UpdateError> {
        let most = bound(Table::PendingWrites, sh.config.max_pending);
        if !self.pending.contains_key(key) && self.pending.len() >= most {
            return Err(UpdateError::Full("unacknowledged writes"));
        }
        if !self.sums.has_room(&sh.config, key) {
            return Err(UpdateError::Full("keys written"));
        }
        // The part of the key that this node has seen: the state read, or the copy under hand-off, and its own
        // pending delta.
        let mut known = observed.or(copy).cloned().unwrap_or_else(|| Value::new(op.kind()));
        if let Some(pending) = self.pending(key) {
            known.merge(pending, at.wall)?;
        }
        let own = self.sums.get(key).unwrap_or_default();
        let own = copy.map_or(own, |copy| own.join(Own::of(copy, &sh.local)));
        let delta = apply::delta(op, &known, own, sh.local, &mut sh.clock, at.wall)?;
        let id = sh.fresh_id();
        let mut value = self.pending(key).cloned().unwrap_or_else(|| Value::new(op.kind()));
        // The merge uses the writer's own clock, so the writer's own stamp is never parked here.
        value.merge(&delta, at.wall)?;
        let bytes = value.encode();
        self.sums.join(key, own.join(Own::of(&delta, &sh.local)));
        // Callers that wait for an earlier write are answered with this write, which contains it.
        let waiting = self.pending.remove(key).map(|pending| pending.waiting).unwrap_or_default();
        let pending = Pending { value, id, next: at.now + RETRY_MIN, pause: RETRY_MIN, waiting };
        self.pending.insert(key.to_vec(), pending);
        sh.events.changed(key);
        sh.fan_out(key, Some(id), bytes);
        Ok(())
    }

    /// Answers a caller, or lets it wait until an owner acknowledges the write.
    pub(super) fn settle_or_wait(
        &mut self,
        sh: &mut Shared,
        served: &mut Served,
        now: Instant,
        key: &[u8],
        caller: Caller,
        outcome: Result<(), UpdateError>,
    ) {
        match self.pending.get_mut(key) {
            Some(pending) if outcome.is_ok() => {
                pending.waiting.push(Waiter::new(now, caller));
                self.waiting += 1;
            }
            _ => caller.settle(sh, served, outcome),
        }
    }

    /// Gives the outcome of a delta to all callers that wait for it.
    fn settle(
        &mut self,
        sh: &mut Shared,
        served: &mut Served,
        waiting: Vec<Waiter>,
        outcome: Result<(), UpdateError>,
    ) {
        self.waiting -= waiting.len();
        for waiter in waiting {
            waiter.caller.settle(sh, served, outcome);
        }
    }

    /// Answers the callers whose wait has expired. Their deltas stay pending.
    pub(super) fn expire(&mut self, sh: &mut Shared, served: &mut Served, now: Instant) {
        if self.waiting == 0 {
            return;
        }
        let mut expired = Vec::new();
        for pending in self.pending.values_mut() {
            expired.extend(pending.waiting.extract_if(.., |waiter| waiter.is_due(now)));
        }
        let outcome = if sh.config.durable { Ok(()) } else { Err(UpdateError::Unacknowledged) };
        self.settle(sh, served, expired, outcome);
    }

    /// Whether an owner's acknowledgement belongs to a delta, whose callers are answered then.
    pub(super) fn acknowledged(&mut self, sh: &mut Shared, served: &mut Served, key: &[u8], id: u64) -> bool {
        if self.pending.get(key).is_none_or(|pending| pending.id != id) || buggify(Point::AckLost) {
            return false;
        }
        sh.events.changed(key);
        let waiting = self.pending.remove(key).map(|pending| pending.waiting).unwrap_or_default();
        self.settle(sh, served, waiting, Ok(()));
        true
    }

    /// Makes all deltas due: a new view may have brought an owner back.
    pub(super) fn retry_now(&mut self, now: Instant) {
        for pending in self.pending.values_mut() {
            (pending.next, pending.pause) = (now, RETRY_MIN);
        }
    }

    /// Sends the deltas that are due again.
    pub(super) fn retry(&mut self, sh: &mut Shared, held: &mut Held, served: &mut Served, at: Moment) {
        let due = self.pending.iter().filter(|(_, pending)| pending.next <= at.now);
        let due: Vec<Vec<u8>> = due.map(|(key, _)| key.clone()).take(MAX_RETRIES_PER_TICK).collect();
        for key in due {
            let Some(mut pending) = self.pending.remove(&key) else { continue };
            if take_own(sh, held, at, &key, &pending.value) {
                self.settle(sh, served, pending.waiting, Ok(()));
                sh.events.changed(&key);
                continue;
            }
            sh.fan_out(&key, Some(pending.id), pending.value.encode());
            pending.pause = (pending.pause * 2).min(RETRY_MAX);
            pending.next = at.now + pending.pause;
            self.pending.insert(key, pending);
        }
    }

    /// Sends the deltas of a node that leaves.
    pub(super) fn offer(&self, sh: &mut Shared) {
        for (key, pending) in self.pending.iter().take(MAX_OFFERS) {
            sh.fan_out(key, Some(pending.id), pending.value.encode());
        }
    }

    /// The durable record of a key of which this node holds `copy`.
    pub(super) fn record(&self, key: &[u8], copy: Option<&Value>) -> Option<Record> {
        Record::of(copy, self.pending(key), self.sums.get(key))
    }

    /// Restores the delta and the sums of a record.
    pub(super) fn restore(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        record: &Record,
    ) -> Result<(), UpdateError> {
        if let Some(bytes) = record.pending() {
            if self.pending.len() >= sh.config.max_pending {
                return Err(UpdateError::Full("unacknowledged writes"));
            }
            let id = sh.fresh_id();
            let decoded = Value::decode(bytes)?;
            let mut value = Value::new(decoded.kind());
            value.merge(&decoded, at.wall)?;
            let pending = Pending { value, id, next: at.now, pause: RETRY_MIN, waiting: Vec::new() };
            self.pending.insert(key.to_vec(), pending);
        }
        let own = record.own();
        if own != Own::default() {
            if !self.sums.has_room(&sh.config, key) {
                return Err(UpdateError::Full("keys written"));
            }
            self.sums.join(key, own);
        }
        Ok(())
    }
}

/// Merges this node's own delta, if the node has become an owner and holds the key. Then the delta is part of the
/// state, and repair carries it to the others. Without a copy the other owners have to take the delta. Returns whether it
/// was merged.
fn take_own(sh: &mut Shared, held: &mut Held, at: Moment, key: &[u8], delta: &Value) -> bool {
    let alone = sh.other_owners(key).is_empty();
    sh.is_owner(key) && (alone || held.copies.contains(key)) && held.commit(sh, at, key, delta).is_ok()
}
