//! Writes, made here or received as deltas, and the durable record of a key.

use std::time::{Duration, Instant};

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::apply::{self, Own};
use super::calls::Waiter;
use super::message::Message;
use super::{Entry, Op, Replicator, UpdateError};
use crate::key::PublicKey;
use crate::replication::crdt::{CrdtError, Digest, Kind, Value};

/// The first pause before an unacknowledged delta is sent again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest pause, and so the longest time that a returned owner waits for a delta it missed.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Limit on the deltas sent again in one tick, so that a mesh that comes back isn't flooded.
const MAX_RETRIES_PER_TICK: usize = 128;

/// A delta for other nodes that no owner has acknowledged.
#[derive(Debug)]
pub(super) struct Pending {
    value: Value,
    id: u64,
    next: Instant,
    pause: Duration,
    /// The callers that wait until an owner has the delta.
    pub(super) waiting: Vec<Waiter>,
}

impl Pending {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn retry_now(&mut self, now: Instant) {
        self.next = now;
        self.pause = RETRY_MIN;
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }
}

/// The part of a key's state that survives a restart.
#[derive(Debug, Encode, Decode)]
struct Record {
    #[n(0)]
    held: Option<ByteVec>,
    #[n(1)]
    pending: Option<ByteVec>,
    #[n(2)]
    added: u64,
    #[n(3)]
    taken: u64,
    #[n(4)]
    dot: u64,
}

impl Replicator {
    /// Writes. On an owner the state has the write at once; elsewhere the delta waits for an owner. A node that isn't
    /// an owner removes only elements that were `observed` by a read, are in its copy, or are in its pending delta.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then.
    pub(super) fn update(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
    ) -> Result<(), UpdateError> {
        let owners = self.ring.owners(key, self.config.replicas);
        if owners.is_empty() {
            return Err(UpdateError::NoOwners);
        }
        if owners.contains(&self.local.key) {
            self.write_as_owner(now, wall, key, op)
        } else {
            self.write_for_owners(now, wall, key, op, observed, &owners)
        }
    }

    fn write_as_owner(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        op: &Op,
    ) -> Result<(), UpdateError> {
        let own = self.own.get(key).copied().unwrap_or_default();
        let empty = Value::new(op.kind());
        let known = self.entries.get(key).map_or(&empty, |entry| &entry.value);
        let delta = apply::delta(op, known, own, self.local, &mut self.clock, wall)?;
        self.commit(now, wall, key, delta)
    }

    fn commit(&mut self, now: Instant, wall: Duration, key: &[u8], delta: Value) -> Result<(), UpdateError> {
        let bytes = delta.encode();
        if self.merge(now, wall, key, &delta, bytes.len())?
            && let Some(entry) = self.entries.get_mut(key)
        {
            entry.unspread();
        }
        self.fan_out(key, None, bytes);
        Ok(())
    }

    fn write_for_owners(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
        owners: &[PublicKey],
    ) -> Result<(), UpdateError> {
        if !self.pending.contains_key(key) && self.pending.len() >= self.config.max_pending {
            return Err(UpdateError::Full("unacknowledged writes"));
        }
        if !self.own.contains_key(key) && self.own.len() >= self.config.max_own {
            return Err(UpdateError::Full("keys written"));
        }
        // The part of the key that this node has seen: the state read, or the copy under hand-off, and its own
        // pending delta.
        let held = self.entries.get(key).map(|entry| &entry.value);
        let mut known = observed.or(held).cloned().unwrap_or_else(|| Value::new(op.kind()));
        if let Some(pending) = self.pending.get(key) {
            let wrong = CrdtError::WrongKind { held: pending.value.kind(), wanted: op.kind() };
            pending.value.part(op.kind()).ok_or(wrong)?;
            known.merge(&pending.value, wall)?;
        }
        let own = self.own.get(key).copied().unwrap_or_default();
        let own = held.map_or(own, |held| own.join(Own::of(held, &self.local)));
        let delta = apply::delta(op, &known, own, self.local, &mut self.clock, wall)?;
        let id = self.fresh_id();
        let mut value = match self.pending.get(key) {
            Some(pending) => pending.value.clone(),
            None => Value::new(op.kind()),
        };
        // The merge uses the writer's own clock, so the writer's own stamp is never parked here.
        value.merge(&delta, wall)?;
        let bytes = value.encode();
        self.own.insert(key.to_vec(), own.join(Own::of(&delta, &self.local)));
        // Callers that wait for an earlier write are answered with this write, which contains it.
        let waiting = self.pending.remove(key).map(|pending| pending.waiting).unwrap_or_default();
        let pending = Pending { value, id, next: now + RETRY_MIN, pause: RETRY_MIN, waiting };
        self.pending.insert(key.to_vec(), pending);
        self.dirty.insert(key.to_vec());
        let message = Message::Delta { key: key.to_vec().into(), id: Some(id), state: bytes.into() };
        for owner in owners {
            self.send(*owner, &message);
        }
        Ok(())
    }

    /// Sends a delta to all owners except this node.
    pub(super) fn fan_out(&mut self, key: &[u8], id: Option<u64>, bytes: Vec<u8>) {
        let owners = self.ring.owners(key, self.config.replicas);
        let message = Message::Delta { key: key.to_vec().into(), id, state: bytes.into() };
        for owner in owners {
            if owner != self.local.key {
                self.send(owner, &message);
            }
        }
    }

    /// Merges into the held state. The caller has checked that this node owns the key. A state of another type is
    /// kept beside the held one: it comes from another copy, because a write of another type is refused before this
    /// point.
    pub(super) fn merge(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        delta: &Value,
        size: usize,
    ) -> Result<bool, UpdateError> {
        if !self.entries.contains_key(key) {
            let full = self.entries.len() >= self.config.max_entries
                || self.held_bytes + size + key.len() > self.config.max_held_bytes;
            if full {
                self.stats.full += 1;
                return Err(UpdateError::Full("keys held"));
            }
            let mut value = Value::new(delta.kind());
            value.merge(delta, wall)?;
            let owners = self.ring.owners(key, self.config.replicas);
            for peer in &owners {
                self.know_peer(now, *peer);
            }
            self.held_bytes += size;
            let entry =
                Entry { value, owners, digest: None, size, hand_off: None, unspread: false, offered: 0 };
            self.entries.insert(key.to_vec(), entry);
        } else {
            let entry = self.entries.get_mut(key).expect("checked above");
            if self.held_bytes + size > self.config.max_held_bytes {
                self.stats.full += 1;
                return Err(UpdateError::Full("bytes held"));
            }
            let mixes = !entry.value.takes(delta);
            if !entry.value.merge(delta, wall)? {
                return Ok(false);
            }
            self.stats.mixed += u64::from(mixes);
            entry.digest = None;
            entry.size += size;
            self.held_bytes += size;
        }
        let register = self.entries.get_mut(key).and_then(|entry| entry.value.register_mut());
        if let Some(register) = register {
            if let Some(stamp) = register.stamp() {
                self.clock.observe(stamp, wall);
            }
            if register.parked() > 0 && self.parked.insert(key.to_vec()) {
                self.stats.parked += 1;
            }
        }
        self.dirty.insert(key.to_vec());
        Ok(true)
    }

    /// Merges a state that a peer sent, if this node owns the key. Returns the digest after the merge.
    pub(super) fn merge_from(
        &mut self,
        now: Instant,
        wall: Duration,
        from: PublicKey,
        key: Vec<u8>,
        state: &[u8],
    ) -> Option<Digest> {
        if self.config.observer || !self.ring.owns(&self.local.key, &key, self.config.replicas) {
            self.refuse(from, key.into(), None);
            return None;
        }
        let merged = Value::decode(state)
            .map_err(UpdateError::from)
            .and_then(|value| self.merge(now, wall, &key, &value, state.len()));
        match merged {
            Ok(_) => self.digest_of(&key),
            Err(UpdateError::Full(_)) => None,
            Err(_) => {
                self.stats.bad_states += 1;
                None
            }
        }
    }

    pub(super) fn on_delta(
        &mut self,
        now: Instant,
        wall: Duration,
        from: PublicKey,
        key: Vec<u8>,
        id: Option<u64>,
        state: &[u8],
    ) {
        let Some(id) = id else {
            self.merge_from(now, wall, from, key, state);
            return;
        };
        if self.config.observer || !self.is_owner(&key) {
            self.refuse(from, key.into(), Some(id));
        } else if !self.entries.contains_key(&key) && !self.other_owners(&key).is_empty() {
            self.ask_for_delta(now, from, key, id, state);
        } else {
            self.take_delta(now, wall, from, key, id, state);
        }
    }

    /// Takes the write of a node that isn't an owner, or refuses it because of the key's type.
    pub(super) fn take_delta(
        &mut self,
        now: Instant,
        wall: Duration,
        from: PublicKey,
        key: Vec<u8>,
        id: u64,
        state: &[u8],
    ) {
        let Ok(delta) = Value::decode(state) else {
            self.stats.bad_states += 1;
            return;
        };
        let held = self.entries.get(&key).map(|entry| &entry.value);
        if let Some(held) = held.filter(|held| !held.takes(&delta)) {
            let held = held.kind() as u8;
            self.stats.other_kind += 1;
            self.send(from, &Message::OtherKind { key: key.into(), id, held });
            return;
        }
        self.on_copy(now, wall, from, key, id, state);
    }

    /// Takes a copy and acknowledges it.
    pub(super) fn on_copy(
        &mut self,
        now: Instant,
        wall: Duration,
        from: PublicKey,
        key: Vec<u8>,
        id: u64,
        state: &[u8],
    ) {
        if self.config.observer || !self.is_owner(&key) {
            self.refuse(from, key.into(), Some(id));
            return;
        }
        if let Some(digest) = self.merge_from(now, wall, from, key.clone(), state) {
            // The sender may rely on this node alone from now on, and may leave.
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.unspread();
            }
            self.send(from, &Message::Ack { key: key.into(), id, digest: digest.into() });
        }
    }

    pub(super) fn on_ack(&mut self, from: PublicKey, key: &[u8], id: u64, digest: Digest) {
        if !self.ring.owns(&from, key, self.config.replicas) {
            self.stats.stray += 1;
            return;
        }
        if let Some(pending) = self.take_pending(key, id) {
            self.settle_pending(pending, Ok(()));
            return;
        }
        let offered = self.offer_acknowledged(key, id);
        if !self.hand_off_acknowledged(from, key, id, digest) && !offered {
            self.stats.stray += 1;
        }
    }

    /// Gives up a write that an owner has refused: it changed nothing there.
    pub(super) fn on_other_kind(&mut self, from: PublicKey, key: &[u8], id: u64, held: u8) {
        let owner = self.ring.owns(&from, key, self.config.replicas);
        let Some((held, pending)) = Kind::from_byte(held)
            .filter(|_| owner)
            .and_then(|held| Some((held, self.take_pending(key, id)?)))
        else {
            self.stats.stray += 1;
            return;
        };
        let wanted = pending.value.kind();
        self.settle_pending(pending, Err(CrdtError::WrongKind { held, wanted }.into()));
    }

    /// Removes the pending delta with this id.
    fn take_pending(&mut self, key: &[u8], id: u64) -> Option<Pending> {
        self.pending.get(key).filter(|pending| pending.id == id)?;
        self.dirty.insert(key.to_vec());
        self.pending.remove(key)
    }

    pub(super) fn on_refused(
        &mut self,
        from: PublicKey,
        key: &[u8],
        id: Option<u64>,
        owners: &[ByteArray<32>],
    ) {
        let ours = self.ring.owners(key, self.config.replicas);
        if !ours.iter().map(PublicKey::as_bytes).eq(owners.iter().map(|owner| &**owner)) {
            self.differing.insert(from);
        }
        if let Some(id) = id {
            self.read_refused(from, id);
        }
    }

    pub(super) fn retry_pending(&mut self, now: Instant, wall: Duration) {
        let due: Vec<Vec<u8>> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.next <= now)
            .map(|(key, _)| key.clone())
            .take(MAX_RETRIES_PER_TICK)
            .collect();
        for key in due {
            let Some(mut pending) = self.pending.remove(&key) else { continue };
            if let Some(outcome) = self.take_own(now, wall, &key, &pending.value) {
                self.settle_pending(pending, outcome);
                self.dirty.insert(key);
                continue;
            }
            self.fan_out(&key, Some(pending.id), pending.value.encode());
            pending.pause = (pending.pause * 2).min(RETRY_MAX);
            pending.next = now + pending.pause;
            self.pending.insert(key, pending);
        }
    }

    /// Merges this node's own delta, if the node has become an owner and holds the key. Then the delta is part of the
    /// state, and repair carries it to the others. Without a copy the other owners have to take the delta.
    fn take_own(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        delta: &Value,
    ) -> Option<Result<(), UpdateError>> {
        let held = self.entries.get(key).map(|entry| &entry.value);
        if !self.is_owner(key) || (held.is_none() && !self.other_owners(key).is_empty()) {
            return None;
        }
        if let Some(held) = held.filter(|held| !held.takes(delta)) {
            self.stats.other_kind += 1;
            return Some(Err(CrdtError::WrongKind { held: held.kind(), wanted: delta.kind() }.into()));
        }
        self.commit(now, wall, key, delta.clone()).is_ok().then_some(Ok(()))
    }

    pub(super) fn settle_parked(&mut self, wall: Duration) {
        let keys: Vec<Vec<u8>> = self.parked.iter().cloned().collect();
        for key in keys {
            let entry = self.entries.get_mut(&key);
            let Some((register, digest)) =
                entry.and_then(|entry| Some((entry.value.register_mut()?, &mut entry.digest)))
            else {
                self.parked.remove(&key);
                continue;
            };
            if register.settle(wall) {
                *digest = None;
                self.dirty.insert(key.clone());
            }
            if register.parked() == 0 {
                self.parked.remove(&key);
            }
        }
    }

    pub(super) fn digest_of(&mut self, key: &[u8]) -> Option<Digest> {
        let entry = self.entries.get_mut(key)?;
        if entry.digest.is_none() {
            let bytes = entry.value.encode();
            self.held_bytes = self.held_bytes - entry.size + bytes.len();
            entry.size = bytes.len();
            entry.digest = Some(Value::digest_of(&bytes));
        }
        entry.digest
    }

    /// The durable record of a key, to be stored on [`ReplicatorEvent::Changed`](super::ReplicatorEvent::Changed).
    /// None: delete the record.
    pub fn record(&self, key: &[u8]) -> Option<Vec<u8>> {
        let held = self.entries.get(key).map(|entry| ByteVec::from(entry.value.encode()));
        let pending = self.pending.get(key).map(|pending| ByteVec::from(pending.value.encode()));
        let own = self.own.get(key);
        if held.is_none() && pending.is_none() && own.is_none() {
            return None;
        }
        let Own { added, taken, dot } = own.copied().unwrap_or_default();
        let record = Record { held, pending, added, taken, dot };
        Some(minicbor::to_vec(record).expect("a Vec takes every write"))
    }

    /// Restores a record after a restart with the same store, before the first ring.
    ///
    /// # Errors
    /// [`CrdtError::NotCanonical`] when the record is damaged, [`UpdateError::Full`] when it doesn't fit.
    pub fn restore(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        record: &[u8],
    ) -> Result<(), UpdateError> {
        let damaged = CrdtError::NotCanonical("record");
        let record: Record = minicbor::decode(record).map_err(|_| damaged)?;
        if let Some(held) = &record.held {
            self.merge(now, wall, key, &Value::decode(held)?, held.len())?;
        }
        if let Some(bytes) = &record.pending {
            if self.pending.len() >= self.config.max_pending {
                return Err(UpdateError::Full("unacknowledged writes"));
            }
            let id = self.fresh_id();
            let decoded = Value::decode(bytes)?;
            let mut value = Value::new(decoded.kind());
            value.merge(&decoded, wall)?;
            let pending = Pending { value, id, next: now, pause: RETRY_MIN, waiting: Vec::new() };
            self.pending.insert(key.to_vec(), pending);
        }
        let own = Own { added: record.added, taken: record.taken, dot: record.dot };
        if own != Own::default() {
            if self.own.len() >= self.config.max_own {
                return Err(UpdateError::Full("keys written"));
            }
            self.own.insert(key.to_vec(), own);
        }
        self.dirty.remove(key);
        Ok(())
    }

    /// Drops a copy, and remembers this node's own writes to it.
    pub(super) fn drop_entry(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.entries.get(key) else { return false };
        let own = Own::of(&entry.value, &self.local);
        if own != Own::default() {
            let kept = self.own.get(key).copied();
            if kept.is_none() && self.own.len() >= self.config.max_own {
                self.stats.hand_off_held += 1;
                return false;
            }
            self.own.insert(key.to_vec(), own.join(kept.unwrap_or_default()));
        }
        self.held_bytes -= entry.size;
        self.entries.remove(key);
        self.parked.remove(key);
        self.dirty.insert(key.to_vec());
        true
    }
}
