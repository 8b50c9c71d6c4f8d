//! The choreography of a write: what it asks first, where it is made, and what it waits for.
//!
//! 0. An observer asks the key's first owner to write in its place. A node that leaves makes no write of its own callers any
//!    more, but still those that observers ask of it.
//! 1. An owner without a copy, and the remover of an element that isn't in this node's copy, ask the other owners
//!    first ([`must_ask`](Replicator::must_ask)). The write continues with their answers.
//! 2. The write is made: as an owner in the state held, elsewhere as a delta for the owners.
//! 3. A delta waits until an owner acknowledges it, or the owners are taken to be away. Then its callers are answered.
//!
//! Other nodes' deltas and observers' operations take the same steps.

use std::time::{Duration, Instant};

use super::Replicator;
use super::asking::Asked;
use super::authors::Judgement;
use super::calls::{Caller, MAX_WRITES};
use super::error::{UpdateError, UpdateFailure};
use super::event::ReplicatorEvent;
use super::key::checked_key;
use super::message::{Message, Op};
use super::operations::OperationId;
use super::served::{ANOTHER, Arrival, BUSY};
use super::shared::Moment;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Value};

impl Replicator {
    /// Changes the object of this name and of the operation's kind. [`ReplicatorEvent::Updated`] with `id` tells how the
    /// update ended, also if it wasn't begun.
    ///
    /// An observer has no replica id: the key's first owner writes in its place.
    pub fn update(&mut self, now: Instant, wall: Duration, id: u64, name: &[u8], op: Op) {
        if let Err(failure) = self.begin_update(Moment { now, wall }, id, name, op) {
            self.shared.events.push(ReplicatorEvent::Updated { id, outcome: Err(failure) });
        }
    }

    fn begin_update(&mut self, at: Moment, id: u64, name: &[u8], op: Op) -> Result<(), UpdateFailure> {
        let key = checked_key(op.kind(), name)?;
        if self.held.is_leaving() {
            return Err(UpdateFailure::Leaving);
        }
        if self.shared.config.observer {
            self.operate(at.now, id, &key, op)?;
        } else {
            self.call(at, &key, op, Caller::Driver(id))?;
        }
        Ok(())
    }

    fn operate(&mut self, now: Instant, id: u64, key: &[u8], op: Op) -> Result<(), UpdateError> {
        let ring = &self.shared.ring;
        let owner = *ring.owners(key, 1).first().ok_or(UpdateError::NoOwners)?;
        let boot = ring.member(&owner).map(|member| member.boot);
        self.operations.operate(&mut self.shared, now, id, (owner, boot), key, op)
    }

    /// Begins a caller's write.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then, and the caller isn't told.
    pub(super) fn call(&mut self, at: Moment, key: &[u8], op: Op, caller: Caller) -> Result<(), UpdateError> {
        if self.shared.config.observer {
            return Err(UpdateError::Observer);
        }
        let under_way = self.writes.waiting() + self.asking.len();
        // Others' writes leave half of the room to this node's own callers, and aren't counted against these.
        let full = match caller {
            Caller::Driver(_) => under_way - self.asking.of_others() >= MAX_WRITES,
            Caller::Observer(..) => under_way >= MAX_WRITES / 2,
        };
        if full {
            return Err(UpdateError::Full("writes under way"));
        }
        if self.must_ask(key, &op) {
            return self.ask(at.now, key, Asked::Write { caller, op });
        }
        self.make(at, key, &op, None)?;
        self.settle_or_wait(at.now, key, caller, Ok(()));
        Ok(())
    }

    /// Whether this node must ask the other owners before it makes a write.
    fn must_ask(&self, key: &[u8], op: &Op) -> bool {
        if self.shared.other_owners(key).is_empty() {
            return false;
        }
        let held = self.held.copies.value(key);
        match op {
            // Another owner may have the element, even if this node has a copy: its copy may be behind.
            Op::Remove { element } => !held.is_some_and(|value| has_element(value, element)),
            _ => held.is_none() && self.shared.is_owner(key),
        }
    }

    /// Makes a write without asking first.
    pub(super) fn make(
        &mut self,
        at: Moment,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
    ) -> Result<(), UpdateError> {
        self.writes.make(&mut self.shared, &mut self.held, at, key, op, observed)
    }

    fn settle_or_wait(&mut self, now: Instant, key: &[u8], caller: Caller, outcome: Result<(), UpdateError>) {
        self.writes.settle_or_wait(&mut self.shared, &mut self.served, now, key, caller, outcome);
    }

    // ---- Asking the other owners.

    /// Asks the other owners; [`asked`](Replicator::asked) continues the work.
    fn ask(&mut self, now: Instant, key: &[u8], asked: Asked) -> Result<(), UpdateError> {
        if !self.reads.has_room(asked.is_anothers(), self.asking.of_others()) {
            return Err(UpdateError::Full("reads"));
        }
        let read = self.shared.fresh_id();
        self.asking.insert(read, asked);
        self.reads.ask_owners(&mut self.shared, &self.held.copies, now, key, read, true);
        Ok(())
    }

    /// Like [`ask`](Replicator::ask), for another node's delta. A writer's later delta contains its earlier ones.
    fn ask_for_delta(&mut self, now: Instant, from: PublicKey, key: Vec<u8>, id: u64, state: &[u8]) {
        if !self.asking.has_room(state.len()) {
            self.shared.stats.full += 1;
            return;
        }
        let earlier = self.asking.of_delta(from, &key);
        let delta = Asked::Delta { key: key.clone(), from, id, state: state.to_vec() };
        match earlier {
            Some(read) => {
                self.asking.take(read);
                self.asking.insert(read, delta);
            }
            None if self.ask(now, &key, delta).is_err() => self.shared.stats.full += 1,
            None => {}
        }
    }

    /// Ends a read: the work that waits for it continues, or its caller is told.
    pub(super) fn finish_read(&mut self, at: Moment, id: u64) {
        let Some(reading) = self.reads.take(id) else { return };
        let Some(key) = reading.asks_for().map(<[u8]>::to_vec) else {
            let pending = self.writes.pending(reading.key());
            reading.finish(&mut self.shared, at.wall, id, pending);
            return;
        };
        let known = reading.is_conclusive(&self.shared.other_owners(&key));
        self.asked(at, id, &key, reading.into_value(), known);
    }

    /// Continues after the other owners' answers. `known` is true if one owner has a state, or all answered that they
    /// have none.
    fn asked(&mut self, at: Moment, read: u64, key: &[u8], value: Option<Value>, known: bool) {
        let Some(asked) = self.asking.take(read) else { return };
        let ready = match (known, &value) {
            (false, _) => Err(UpdateError::Unknown),
            // Without the other owners' state, this node would treat the key as empty.
            (true, Some(value)) if self.shared.is_owner(key) => {
                self.held.take_told(&mut self.shared, at, key, value)
            }
            (true, _) => Ok(()),
        };
        match asked {
            Asked::Write { caller, op } => {
                let outcome = ready.and_then(|()| self.make_asked(at, key, &op, value.as_ref()));
                self.settle_or_wait(at.now, key, caller, outcome);
            }
            Asked::Delta { key, from, id, state } if ready.is_ok() => {
                self.held.on_copy(&mut self.shared, at, from, key, id, &state);
            }
            // The writer sends the delta again.
            Asked::Delta { .. } => {}
        }
    }

    fn make_asked(
        &mut self,
        at: Moment,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
    ) -> Result<(), UpdateError> {
        let nothing =
            observed.is_none() && !self.held.copies.contains(key) && self.writes.pending(key).is_none();
        if nothing && matches!(op, Op::Remove { .. }) {
            // The key is empty, so the removal has no effect.
            return Ok(());
        }
        self.make(at, key, op, observed)
    }

    // ---- Messages about writes.

    /// Takes a write. With an id it is that of a node that isn't an owner. Then an owner without a copy asks the others
    /// first, and so does one that hasn't seen what the write removes.
    pub(super) fn on_delta(
        &mut self,
        at: Moment,
        from: PublicKey,
        key: Vec<u8>,
        id: Option<u64>,
        state: &[u8],
    ) {
        let sh = &mut self.shared;
        let Some(id) = id else {
            self.held.merge_from(sh, at, from, key, state);
            return;
        };
        if !sh.takes(&key) {
            sh.refuse(from, key.into(), Some(id));
            return;
        }
        let Ok(delta) = Value::decode(state) else {
            sh.stats.bad_states += 1;
            return;
        };
        match self.held.judge(sh, at, &from, &key, &delta) {
            Judgement::Foreign => sh.stats.foreign += 1,
            judgement => {
                let asks = judgement == Judgement::Unseen || !self.held.copies.contains(&key);
                if asks && !sh.other_owners(&key).is_empty() {
                    self.ask_for_delta(at.now, from, key, id, state);
                } else {
                    self.held.on_copy(sh, at, from, key, id, state);
                }
            }
        }
    }

    /// Takes an owner's acknowledgement of a delta, an offer or a hand-off. All owners acknowledge, and the first one may
    /// end the wait: those after it match a request, too.
    pub(super) fn on_ack(&mut self, from: PublicKey, key: &[u8], id: u64, digest: Digest) {
        let known = self.shared.owns(&from, key)
            && (self.writes.acknowledged(&mut self.shared, &mut self.served, key, id)
                || self.held.acknowledged(from, key, id, digest)
                || self.shared.has_given(id));
        self.shared.stats.stray += u64::from(!known);
    }

    /// Makes an observer's write, once: not if another process of this node may have made it.
    pub(super) fn on_operation(
        &mut self,
        at: Moment,
        by: Account,
        (id, boot): (OperationId, Option<u64>),
        key: &[u8],
        op: Op,
    ) {
        let (from, own) = (by.key(), self.shared.config.boot);
        if boot.is_some_and(|asked| asked != own) {
            let reply = Message::OperationReply { id: id.into(), outcome: ANOTHER, boot: Some(own) };
            self.shared.send(from, &reply);
            return;
        }
        match self.served.arrive(at.now, by, id) {
            Arrival::Over(outcome) => {
                let reply = Message::OperationReply { id: id.into(), outcome, boot: None };
                self.shared.send(from, &reply);
            }
            Arrival::Full => {
                self.shared.stats.full += 1;
                let reply = Message::OperationReply { id: id.into(), outcome: BUSY, boot: None };
                self.shared.send(from, &reply);
            }
            Arrival::Repeated => {}
            Arrival::New => {
                if let Err(error) = self.call(at, key, op, Caller::Observer(from, id)) {
                    self.served.settle(&mut self.shared, from, id, Err(error));
                }
            }
        }
    }
}

fn has_element(value: &Value, element: &[u8]) -> bool {
    matches!(value, Value::Set(set) if set.contains(element))
}
