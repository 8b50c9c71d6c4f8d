//! The choreography of a write: what it asks first, where it is made, and what it waits for.
//!
//! 0. An observer asks a keeper of the key to write in its place, and so does a member for which the value has no
//!    place. A node that leaves makes no write of its own callers any more, but still those that others ask of it.
//! 1. A write that has to see what there is, such as a removal, asks the other owners first where no whole copy shows it
//!    ([`must_observe`](Op::must_observe)). It continues with their answers.
//! 2. The write is made: at a keeper of the key in the state held, elsewhere as a delta for the keepers.
//! 3. It waits until as many keepers have it as are wanted ([`confirm`](super::confirm)), or these are taken to be away. Then
//!    its caller is answered.
//!
//! Other nodes' deltas and observers' operations take the same steps.

use std::time::{Duration, Instant};

use super::Replicator;
use super::asking::Asked;
use super::authors::Judgement;
use super::away::MAX_ASKED_PER_TICK;
use super::calls::{Caller, MAX_WRITES, Wanted};
use super::confirm::{Confirm, Decline, Holding};
use super::error::{UpdateError, UpdateFailure};
use super::event::ReplicatorEvent;
use super::handoff::Acknowledged;
use super::held::Teller;
use super::key::checked_key;
use super::message::{Message, Op};
use super::operations::{OperationId, asked_for};
use super::served::{ANOTHER, Arrival, BUSY, UNHEARD};
use super::shared::Moment;
use super::writes::Made;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::replication::crdt::Object;

impl Replicator {
    /// Changes the object of this name and of the operation's kind. [`ReplicatorEvent::Updated`] with `id` tells how the
    /// update ended, also if it wasn't begun.
    ///
    /// An observer has no replica id: the key's first owner writes in its place.
    pub fn update(
        &mut self,
        now: Instant,
        wall: Duration,
        id: u64,
        name: &[u8],
        (op, confirm): (Op, Confirm),
    ) {
        if let Err(failure) = self.begin_update(Moment { now, wall }, id, name, (op, confirm)) {
            self.shared.events.push(ReplicatorEvent::Updated { id, outcome: Err(failure) });
        }
    }

    fn begin_update(
        &mut self,
        at: Moment,
        id: u64,
        name: &[u8],
        (op, confirm): (Op, Confirm),
    ) -> Result<(), UpdateFailure> {
        let key = checked_key(op.kind(), name)?;
        if self.held.is_leaving() {
            return Err(UpdateFailure::Leaving);
        }
        if self.shared.config.observer {
            self.operate(at.now, id, &key, (op, confirm))?;
        } else {
            self.call(at, &key, Wanted { caller: Caller::Driver(id), op, confirm })?;
        }
        Ok(())
    }

    /// Asks another keeper to make a write in this node's place.
    fn operate(
        &mut self,
        now: Instant,
        id: u64,
        key: &[u8],
        (op, confirm): (Op, Confirm),
    ) -> Result<(), UpdateError> {
        let sh = &mut self.shared;
        let keepers = asked_for(sh, key);
        if keepers.is_empty() {
            return Err(UpdateError::NoOwners);
        }
        if !self.operations.has_room(sh) {
            return Err(UpdateError::Full("operations"));
        }
        self.operations.operate(sh, now, id, keepers, key, (op, confirm));
        Ok(())
    }

    /// Ends a write that wasn't made, for this reason. If only a place for this node in the value is missing, another
    /// keeper, which may have one, makes it.
    fn fail(&mut self, now: Instant, key: &[u8], wanted: Wanted, why: UpdateError) {
        let wants_a_place = match &why {
            UpdateError::Declined(why) => *why == Decline::Writers,
            UpdateError::Value(error) => error.wants_a_place(),
            _ => false,
        };
        let outcome = match wanted.caller {
            Caller::Driver(id) if wants_a_place && !self.shared.other_keepers(key).is_empty() => {
                self.operate(now, id, key, (wanted.op, wanted.confirm))
            }
            _ => Err(why),
        };
        if let Err(error) = outcome {
            wanted.caller.settle(&mut self.shared, &mut self.served, Err(error));
        }
    }

    /// Begins a caller's write.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then, and the caller isn't told.
    pub(super) fn call(&mut self, at: Moment, key: &[u8], wanted: Wanted) -> Result<(), UpdateError> {
        if self.shared.config.observer {
            return Err(UpdateError::Observer);
        }
        self.shared.check_disk()?;
        let under_way = self.writes.waiting() + self.asking.len();
        // Others' writes leave half of the room to this node's own callers, and aren't counted against these.
        let full = match wanted.caller {
            Caller::Driver(_) => under_way - self.asking.of_others() >= MAX_WRITES,
            Caller::Observer(..) => under_way >= MAX_WRITES / 2,
        };
        if full {
            return Err(UpdateError::Full("writes under way"));
        }
        if !self.shared.met && wanted.op.must_observe(None) {
            return Err(UpdateError::Unknown);
        }
        let copy = self.held.whole(&self.shared, key);
        if wanted.op.only_removes() && copy.is_some_and(|copy| copy.dead_since().is_some()) {
            // Nothing is left of it, and its mark isn't to be kept for longer.
            wanted.caller.settle(&mut self.shared, &mut self.served, Ok(()));
            return Ok(());
        }
        if self.must_ask(key, &wanted.op) {
            return self.ask(at.now, key, Asked::Write(wanted));
        }
        let made = self.make(at, key, (&wanted.op, wanted.confirm), None);
        self.settle_or_wait(at, key, wanted, made);
        Ok(())
    }

    /// Whether this node must ask the other owners before it makes a write.
    fn must_ask(&self, key: &[u8], op: &Op) -> bool {
        if self.shared.other_keepers(key).is_empty() {
            return false;
        }
        op.must_observe(self.held.whole(&self.shared, key).map(Object::value))
    }

    /// Makes a write without asking first.
    pub(super) fn make(
        &mut self,
        at: Moment,
        key: &[u8],
        (op, confirm): (&Op, Confirm),
        observed: Option<&Object>,
    ) -> Result<Made, UpdateError> {
        self.writes.make(&mut self.shared, &mut self.held, at, key, (op, confirm), observed)
    }

    fn settle_or_wait(&mut self, at: Moment, key: &[u8], wanted: Wanted, outcome: Result<Made, UpdateError>) {
        let Replicator { shared, served, writes, .. } = self;
        match outcome {
            Ok(made) => writes.settle_or_wait(shared, served, at, key, wanted, made),
            Err(why) => self.fail(at.now, key, wanted, why),
        }
    }

    // ---- Asking the other owners.

    /// Asks the other owners; [`asked`](Replicator::asked) continues the work.
    fn ask(&mut self, now: Instant, key: &[u8], asked: Asked) -> Result<(), UpdateError> {
        let Replicator { shared, held, reads, asking, .. } = self;
        asking.begin((shared, held, reads), now, key, asked)
    }

    /// Asks the owners about the next objects that are set aside.
    pub(super) fn ask_about_aside(&mut self, now: Instant) {
        if self.shared.is_read_only() {
            return;
        }
        for key in self.aside.next(MAX_ASKED_PER_TICK) {
            let somebody = self.shared.other_keepers(&key).iter().any(|keeper| keeper.live);
            if !somebody || self.ask(now, &key, Asked::Aside).is_err() {
                return;
            }
        }
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
        let (key, sh) = (reading.key().to_vec(), &mut self.shared);
        let partial = reading.is_partial();
        let vouched = reading.is_vouched_for(&sh.local.key);
        let taken = match reading.value() {
            // An owner keeps what the others told, and needn't ask again.
            Some(value) if sh.is_owner(&key) => {
                self.held.take_told(sh, at, &key, value, reading.answered_by())
            }
            _ => Ok(()),
        };
        if reading.asks() {
            if self.asking.is_watch(id) {
                reading.repair(&mut self.shared);
            }
            self.asked(at, id, &key, reading.into_value(), (partial, taken), vouched);
        } else {
            let pending = self.writes.pending(&key);
            reading.finish(sh, at.wall, id, pending, partial);
        }
    }

    /// Continues after the other owners' answers, which may be `partial`, if this node could take them. A removal of what may
    /// be elsewhere proves nothing; a register's new value stands beside those that it hasn't seen.
    fn asked(
        &mut self,
        at: Moment,
        read: u64,
        key: &[u8],
        value: Option<Object>,
        (partial, taken): (bool, Result<(), UpdateError>),
        vouched: Option<bool>,
    ) {
        match self.asking.take(read) {
            None => {}
            Some(Asked::Watch(id)) => {
                let (watches, mut parts) = self.watching();
                watches.on_read(&mut parts, at, id, value.as_ref(), partial);
            }
            Some(Asked::Aside) => {
                self.aside.decide(&mut self.shared, &mut self.held, at, key, vouched);
            }
            Some(Asked::Write(wanted)) => {
                let unknown = partial && wanted.op.only_removes();
                let ready = if unknown { Err(UpdateError::Unknown) } else { taken };
                let op = (&wanted.op, wanted.confirm);
                let outcome = ready.and_then(|()| self.make_asked(at, key, op, value.as_ref()));
                self.settle_or_wait(at, key, wanted, outcome);
            }
            Some(Asked::Delta { key, from, id, state }) if !partial && taken.is_ok() => {
                self.held.on_write(&mut self.shared, at, from, &key, id, &state);
            }
            // The writer sends the delta again.
            Some(Asked::Delta { .. }) => {}
        }
    }

    fn make_asked(
        &mut self,
        at: Moment,
        key: &[u8],
        (op, confirm): (&Op, Confirm),
        observed: Option<&Object>,
    ) -> Result<Made, UpdateError> {
        let seen = [observed, self.held.copies.value(key), self.writes.pending(key)];
        let nothing = seen.into_iter().flatten().all(|seen| seen.dead_since().is_some());
        if nothing && op.only_removes() {
            // The key is empty, so the removal has no effect.
            return Ok(Made::Confirmed);
        }
        self.make(at, key, (op, confirm), observed)
    }

    // ---- Messages about writes.

    /// Takes a write; with an id it is answered. A keeper that hasn't seen what the write removes asks the others first.
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
            self.held.merge_from(sh, at, (from, Teller::Author), &key, state);
            return;
        };
        if !sh.takes(&key) {
            sh.refuse(from, key.into(), Some(id));
            return;
        }
        if sh.is_read_only() {
            self.held.on_write_without_disk(sh, at.wall, from, &key, id, state);
            return;
        }
        let Ok(delta) = Object::decode(state) else {
            sh.stats.bad_states += 1;
            return;
        };
        match self.held.judge(sh, at, &from, &key, &delta) {
            Judgement::Unseen if !sh.other_owners(&key).is_empty() => {
                self.ask_for_delta(at.now, from, key, id, state);
            }
            _ => self.held.on_write(sh, at, from, &key, id, state),
        }
    }

    /// Takes a keeper's acknowledgement of a delta, an offer or a hand-off. All keepers acknowledge, and the first ones may
    /// end the wait: those after them match a request, too.
    pub(super) fn on_ack(&mut self, from: PublicKey, key: &[u8], id: u64, told: Acknowledged) {
        let Replicator { shared: sh, held, writes, served, .. } = self;
        if !sh.keeps(&from, key) || !sh.has_given(id) {
            sh.stats.stray += 1;
            return;
        }
        let holding = Holding { upto: id, boot: told.boot, durable: told.durable };
        // Who has a copy that was handed over needn't have this node's later writes.
        if !held.acknowledged(sh, from, key, id, told) {
            writes.acknowledged(sh, served, from, key, holding);
        }
    }

    /// Takes a keeper's refusal of a delta.
    pub(super) fn on_declined(&mut self, at: Moment, from: PublicKey, key: &[u8], id: u64, why: u8) {
        let Replicator { shared: sh, writes, .. } = self;
        match Decline::from_wire(why) {
            None => sh.stats.malformed += 1,
            Some(_) if !sh.keeps(&from, key) || !sh.has_given(id) => sh.stats.stray += 1,
            Some(why) => {
                for wanted in writes.declined(sh, at.wall, from, key, id) {
                    self.fail(at.now, key, wanted, UpdateError::Declined(why));
                }
            }
        }
    }

    /// Tells one that wants to write through a member that this one is there. One that leaves makes what it is asked, but those
    /// that stay are better asked.
    pub(super) fn on_inquiry(&mut self, from: PublicKey, id: OperationId) {
        if !self.shared.config.observer && !self.held.is_leaving() {
            let boot = Some(self.shared.config.boot);
            self.shared.send(from, &Message::OperationReply { id: id.into(), outcome: UNHEARD, boot });
        }
    }

    /// Makes an observer's write, once: not if another process of this node may have made it.
    pub(super) fn on_operation(
        &mut self,
        at: Moment,
        by: Account,
        (id, boot): (OperationId, Option<u64>),
        key: &[u8],
        (op, confirm): (Op, Confirm),
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
                let wanted = Wanted { caller: Caller::Observer(from, id), op, confirm };
                if let Err(error) = self.call(at, key, wanted) {
                    self.served.settle(&mut self.shared, from, id, Err(error));
                }
            }
        }
    }
}
