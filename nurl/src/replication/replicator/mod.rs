//! The replicator keeps every key on its owners, and only temporarily anywhere else.
//!
//! # Guarantees
//! - A write is made on the node where it is called, as a delta under this node's replica id. Deltas are idempotent:
//!   a retry repeats the delta, never the operation. Its caller is answered when enough keepers of the key have it
//!   ([`Confirm`]), and it is sent until then. What they acknowledged is kept as long as one of them lives, with its disk if
//!   it has a store.
//! - A key says of which kind its value is. A message with a value of another kind is malformed, at every node, whatever
//!   it holds: no writer decides for others of which kind an object is.
//! - An owner answers a read from its own copy once it has compared it with the other owners', since its process began and
//!   since it became an owner. Before, it asks them; an answer that may lack confirmed writes says so. A removal is made
//!   after such a comparison only.
//! - While an owner is away, the next live member of the key's list stands in: it takes what is written, and hands it back.
//! - Owners of a key that can reach each other converge despite any message loss: they compare digests and exchange
//!   the keys that differ. Equal digests transfer no state.
//! - A node that is no longer an owner hands its copy over, and drops it only after all owners, unchanged for
//!   [`Config::hand_off_hold`], acknowledged it with one digest, and did so once more when they were asked again.
//! - Repair traffic is bounded: the bytes of state per second, the summaries per tick, and every queue have limits.
//!   Dropped messages are counted, and a later round repairs the loss.
//!
//! # How it works
//! Deltas fan out to the *keepers* of a key: its first R owners on the ring, and who stands in for them. Each tick a few
//! peers get a *summary* of the first range of shared keys: one hash; its answer brings the next range. If the hash differs, the peer answers with its digests
//! of the range, and the sender pulls and pushes the states that differ. Reads without a whole copy ask all keepers, merge,
//! and tell owners that lag to compare with the others. An observer sends an operation with an id to one member and retries
//! only there. A node that leaves offers the states that no other owner is known to have.
//!
//! # Parts
//! `Held` is the owner's side: the copies, their summaries, hand-offs and offers. `Writes` is the writer's side:
//! the deltas for other keepers, until enough of them have acknowledged them. `Reads` asks the keepers, and
//! `Asking` has the work that waits for a read. `Operations` and `Served` are the two ends of an observer's
//! write. All of them share `Shared`. The choreography across the parts is in `update`.
//!
//! # Rejected input
//! Values of another kind than their key; states for keys that this node doesn't own in its own view (it answers with
//! that view), bytes that are not canonical, and everything over a limit. A peer changes its own slots only: what others
//! wrote is taken from owners of the key in the views of the last 10 minutes, and from members that stood in for them
//! (`authors`, `history`). What a keeper refuses, it declines with a reason, and the writer's caller hears of it if nobody
//! took the write.

mod apply;
mod asking;
mod authors;
mod away;
mod calls;
mod config;
mod confirm;
mod copies;
mod divide;
mod due;
mod error;
mod event;
mod handoff;
mod held;
mod history;
mod key;
mod leave;
mod list;
mod message;
mod operations;
mod outbox;
mod own;
mod placing;
mod presence;
mod proof;
mod reads;
mod record;
mod seek;
mod served;
mod shared;
mod sync;
#[cfg(test)]
mod tests;
mod told;
mod update;
mod watch;
mod watchers;
mod writes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{
    Config, MAX_ENTRIES, MAX_HELD_BYTES, MAX_KEY_BYTES, MAX_OUTBOX, MAX_OUTBOX_BYTES, MAX_OWN, MAX_PENDING,
    MAX_READS, MAX_SYNCS_PER_TICK, TICK,
};
pub use confirm::{Confirm, Decline};
pub use error::{ReadFailure, UpdateError, UpdateFailure};
pub use event::{ReplicationStats, ReplicatorEvent};
pub use key::state_key;
pub use leave::Unheld;
pub use list::{MAX_NAMES, NamePage, NameQuery};
pub use message::{FieldOp, MAX_MESSAGE_BYTES, Op};
pub use operations::{OperationError, OperationId};
pub use presence::Presence;
pub use watch::MAX_WATCHES;

use self::asking::Asking;
use self::away::Aside;
use self::handoff::Acknowledged;
use self::held::Held;
use self::key::checked_key;
use self::list::Lists;
use self::message::Message;
use self::operations::Operations;
use self::reads::Reads;
use self::record::Record;
use self::served::Served;
use self::shared::{Moment, Shared};
use self::watch::Watches;
use self::watchers::Watchers;
use self::writes::Writes;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::draw;
use crate::replication::crdt::{Kind, Object, Stamp, Value};
use crate::replication::identity::ReplicaId;
use crate::ring::Ring;
use crate::rt::Rng;

/// One node's replication state.
#[derive(Debug)]
pub struct Replicator {
    shared: Shared,
    held: Held,
    writes: Writes,
    reads: Reads,
    lists: Lists,
    watches: Watches,
    /// Other nodes' watches.
    watchers: Watchers,
    /// The writes and deltas that wait for the other owners' states.
    asking: Asking,
    /// The objects that are set aside after a long absence.
    aside: Aside,
    operations: Operations,
    served: Served,
    next_tick: Instant,
}

impl Replicator {
    /// A replicator without keys and without a ring.
    pub fn new(config: Config, local: ReplicaId, now: Instant, mut rng: Rng) -> Replicator {
        // A random offset keeps the ticks of nodes that start together apart.
        let next_tick = now + TICK / 2 + draw::duration(&mut rng, TICK / 2);
        Replicator {
            shared: Shared::new(config, local, rng),
            held: Held::default(),
            writes: Writes::default(),
            reads: Reads::default(),
            lists: Lists::default(),
            watches: Watches::default(),
            watchers: Watchers::default(),
            asking: Asking::default(),
            aside: Aside::default(),
            operations: Operations::default(),
            served: Served::default(),
            next_tick,
        }
    }

    /// The id under which this node writes. It must be kept durably, with the records: a later one replaces it when there
    /// is no room for more of this node's own sums.
    pub fn local(&self) -> ReplicaId {
        self.shared.local
    }

    /// The state that this node holds for a key, as an owner or until the key is handed off.
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.held.copies.value(key).map(Object::value)
    }

    /// The keys held.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.held.copies.keys().map(Vec::as_slice)
    }

    /// The number of deltas that no owner has acknowledged.
    pub fn pending(&self) -> usize {
        self.writes.len()
    }

    /// Counters of the replicator's work, of drops and of refusals.
    pub fn stats(&self) -> &ReplicationStats {
        &self.shared.stats
    }

    /// The greatest stamp given or seen. It must be kept durably.
    pub fn clock_high_water(&self) -> Stamp {
        self.shared.clock.high_water()
    }

    /// When this node was among others. It must be kept durably, see [`Config`].
    pub fn presence(&self) -> Presence {
        self.shared.events.presence_to_store()
    }

    // ---- Calls.

    /// Reads the object of this kind and name. A node that holds it answers from its copy; any other node asks the owners.
    /// In both cases the answer includes this node's own pending write. [`ReplicatorEvent::ReadDone`] or
    /// [`ReplicatorEvent::ReadFailed`] with `id` follows, also if the read wasn't begun.
    pub fn read(&mut self, now: Instant, id: u64, kind: Kind, name: &[u8]) {
        let begun = checked_key(kind, name).and_then(|key| self.begin_read(now, id, &key));
        if let Err(error) = begun {
            self.shared.events.push(ReplicatorEvent::ReadFailed { id, why: error.into() });
        }
    }

    fn begin_read(&mut self, now: Instant, id: u64, key: &[u8]) -> Result<(), UpdateError> {
        let sh = &mut self.shared;
        if !self.reads.has_room(false, self.asking.of_others())
            || self.reads.contains(id)
            || sh.events.waiting() >= MAX_READS
        {
            return Err(UpdateError::Full("reads"));
        }
        if let Some(value) = self.held.whole(sh, key) {
            let value = reads::shown(Some(value.clone()));
            sh.events.push(ReplicatorEvent::ReadDone { id, value, partial: false });
            return Ok(());
        }
        if !sh.met {
            self.reads.await_owners(now, id, key);
            return Ok(());
        }
        if sh.owners(key).is_empty() {
            return Err(UpdateError::NoOwners);
        }
        self.reads.ask_keepers(sh, &self.held, now, key, id, false);
        Ok(())
    }

    /// Gathers a page of names. [`ReplicatorEvent::Listed`] or [`ReplicatorEvent::ReadFailed`] with `id` follows.
    pub fn list(&mut self, now: Instant, id: u64, query: NameQuery) {
        self.lists.begin(&mut self.shared, &self.held.copies, now, id, query);
    }

    /// Watches the object of this kind and name until [`unwatch`](Replicator::unwatch): [`ReplicatorEvent::Watched`] tells its
    /// value, and each newest one, under the id that is returned.
    ///
    /// # Errors
    /// [`UpdateError::Full`], [`UpdateError::KeyTooLong`].
    pub fn watch(&mut self, now: Instant, kind: Kind, name: &[u8]) -> Result<u64, UpdateError> {
        self.watches.begin(&mut self.shared, now, kind, name)
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, id: u64) {
        self.watches.end(&mut self.shared, id);
    }

    fn watching(&mut self) -> (&mut Watches, watch::Parts<'_>) {
        let Replicator { shared: sh, held, writes, reads, asking, watches, .. } = self;
        (watches, watch::Parts { sh, held, writes, reads, asking })
    }

    /// Goes on with the watches here that are due, and with those of changed objects, here and elsewhere.
    fn tend_watches(&mut self, at: Moment) {
        let touched = self.shared.events.touched.take();
        for key in &touched {
            self.watchers.look(&mut self.shared, &mut self.held.copies, key);
        }
        let (watches, mut parts) = self.watching();
        watches.tend(&mut parts, at, &touched);
    }

    // ---- Leaving.

    /// Begins to offer the states that no other node is known to have, until [`unheld`](Replicator::unheld) counts
    /// none.
    pub fn leave(&mut self, now: Instant) {
        self.held.leave(now);
        self.offer_again(now);
    }

    /// Counts the keys that no other node is known to have.
    pub fn unheld(&self) -> Unheld {
        let mut unheld = Unheld::default();
        let mut keys: BTreeSet<&Vec<u8>> = self.held.copies.unspread_keys().collect();
        keys.extend(self.writes.unheld_keys(&self.shared));
        for key in keys {
            unheld.keys += 1;
            unheld.offered += usize::from(!self.shared.other_keepers(key).is_empty());
        }
        unheld
    }

    fn offer_again(&mut self, now: Instant) {
        if self.held.offer_again(&mut self.shared, now) {
            self.writes.offer(&mut self.shared);
        }
    }

    // ---- Durable records.

    /// The next keys whose durable records changed: the driver stores each [`record`](Replicator::record), and
    /// [`clock_high_water`](Replicator::clock_high_water), [`local`](Replicator::local) and [`presence`](Replicator::presence)
    /// with them, in one commit.
    ///
    /// Every driver drains this; one with a store stores them before [`poll_event`](Replicator::poll_event) and
    /// [`poll_transmit`](Replicator::poll_transmit). Then no caller and no peer learns of a write that a crash could
    /// still undo, and after a crash no dot or sum that others have seen is given out again.
    pub fn poll_changed(&mut self) -> Option<Vec<Vec<u8>>> {
        self.shared.events.poll_changed()
    }

    /// The durable record of a key. None: delete the record.
    pub fn record(&self, key: &[u8]) -> Option<Vec<u8>> {
        let copy = self.held.copies.value(key);
        self.writes.record(key, copy, self.aside.get(key)).map(|record| record.encode())
    }

    /// Restores a record after a restart with the same store, before the first ring.
    ///
    /// # Errors
    /// [`CrdtError::NotCanonical`](crate::replication::crdt::CrdtError::NotCanonical) when the record is damaged,
    /// [`CrdtError::WrongKind`](crate::replication::crdt::CrdtError::WrongKind) when its states aren't of the key's kind,
    /// [`UpdateError::Full`] when it doesn't fit.
    pub fn restore(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        record: &[u8],
    ) -> Result<(), UpdateError> {
        let (sh, at) = (&mut self.shared, Moment { now, wall });
        let record = Record::decode(key, record)?;
        if let Some(state) = record.aside() {
            self.aside.insert(key, Object::decode(state)?);
        }
        if sh.was_long_away(wall) {
            return self.aside.restore_old(sh, key, &record);
        }
        if let Some(state) = record.held() {
            self.held.restore(sh, at, key, state)?;
        }
        self.writes.restore(sh, at.now, key, &record)?;
        sh.events.unchanged(key);
        Ok(())
    }

    /// Goes on in place of an earlier replicator of this process, some of whose records couldn't be stored: this one has
    /// what was restored, and nothing of them. It remembers the observers' operations, whose ids are the process's, and
    /// begins no read and no watch anew.
    pub fn take_over(&mut self, now: Instant, earlier: Replicator) {
        let Replicator { shared, held, served, .. } = earlier;
        self.served = served;
        self.served.end_all(&mut self.shared);
        self.shared.stats = shared.stats;
        if shared.met {
            self.shared.history = shared.history;
            self.set_ring(now, shared.ring);
        }
        if held.is_leaving() {
            self.leave(now);
        }
    }

    // ---- Inputs.

    /// Takes the ring of a new view.
    pub fn set_ring(&mut self, now: Instant, ring: Arc<Ring>) {
        let moved = !self.shared.ring.places_as(&ring);
        self.shared.follow(now, ring);
        self.held.follow(&mut self.shared, now, moved);
        self.writes.follow(&mut self.shared, &mut self.served, now);
        self.operations.follow(&self.shared);
        self.reads.follow(&self.shared, now);
        let ring = &self.shared.ring;
        self.lists.wait_only_for(|peer| ring.member(peer).is_some_and(|member| member.live));
        self.watches.follow(&self.shared, now);
        self.watchers.follow(&mut self.shared, &mut self.held.copies);
        for (id, (_, key)) in self.reads.take_early() {
            if let Err(error) = self.begin_read(now, id, &key) {
                self.shared.events.push(ReplicatorEvent::ReadFailed { id, why: error.into() });
            }
        }
    }

    /// Notes that another member is there. After a long absence the copies are set aside.
    fn notice_others(&mut self, wall: Duration) {
        if self.shared.is_read_only() {
            return;
        }
        let Replicator { shared: sh, held, writes, served, aside, .. } = self;
        aside.see(sh, (held, writes, served), wall);
    }

    /// Takes a message from `from`, on whose account it has what it has here. `wall` is the wall clock as time since 1970.
    pub fn handle_message(&mut self, now: Instant, wall: Duration, from: impl Into<Account>, bytes: &[u8]) {
        let by = from.into();
        let from = by.key();
        // After a long absence the first word may come before this node sees that it is back.
        if self.shared.ring.member(&from).is_some() {
            self.notice_others(wall);
        }
        let (sh, at) = (&mut self.shared, Moment { now, wall });
        let Some(message) = Message::decode(bytes) else {
            sh.stats.malformed += 1;
            return;
        };
        match message {
            Message::Delta { key, id, state } => self.on_delta(at, from, key.into(), id, &state),
            Message::Ack { key, id, digest, boot, durable } => {
                self.on_ack(from, &key, id, Acknowledged { digest: digest.into(), boot, durable });
            }
            Message::Declined { key, id, why } => self.on_declined(at, from, &key, id, why),
            Message::Confirm { key, id } => self.held.on_confirm(sh, from, &key, id),
            Message::Refused { key, id, owners } => {
                let ours = sh.owners(&key);
                if !ours.iter().map(PublicKey::as_bytes).eq(owners.iter().map(|owner| &**owner)) {
                    sh.events.differs(from);
                }
                if let Some(id) = id {
                    self.reads.on_refused(from, id);
                    self.watches.on_refused(now, from, id);
                }
            }
            Message::Summary { range, hash, settling, digests } => {
                let asked = (hash.into(), settling, digests);
                sync::on_summary(sh, &mut self.held.copies, from, range, asked);
            }
            Message::Digests { range, items, settling } => {
                let Held { summaries, copies, .. } = &mut self.held;
                sync::on_digests(sh, summaries, copies, from, (&range, settling), &items);
                if let Some(id) = settling {
                    let upto = range.upto.as_ref().map(|key| key.as_slice());
                    summaries.go_on(sh, copies, now, from, (id, upto));
                }
            }
            Message::Divided { range, parts, last, settling } => {
                let Held { summaries, copies, .. } = &mut self.held;
                divide::on_divided(sh, summaries, copies, from, (&range, settling), (&parts, last.into()));
                if let Some(id) = settling {
                    let upto = range.upto.as_ref().map(|key| key.as_slice());
                    summaries.go_on(sh, copies, now, from, (id, upto));
                }
            }
            Message::InSync { range, settling } => {
                let Held { summaries, copies, .. } = &mut self.held;
                summaries.answered(&from, settling, &range, true);
                summaries.go_on(sh, copies, now, from, (settling, None));
            }
            Message::Pull { keys } => sync::on_pull(sh, &self.held.copies, from, &keys),
            Message::States { items } => {
                for item in items {
                    self.held.on_state(sh, at, from, &item.key, &item.bytes);
                }
            }
            Message::List { id, kind, prefix, after, most } => {
                self.lists.on_list(sh, &self.held.copies, by, id, (kind, prefix, after, most));
            }
            Message::Names { id, keys, upto } => self.lists.on_names(sh, from, id, (keys, upto)),
            Message::Watch { key, id, has } => {
                let asked = (key.into(), id, has.map(Into::into));
                self.watchers.on_watch(sh, &mut self.held.copies, now, by, asked);
            }
            Message::Watched { key, id, outcome, state } => {
                let state = state.as_ref().map(|state| state.as_slice());
                let (watches, mut parts) = self.watching();
                watches.on_watched(&mut parts, at, from, (&key, id), (outcome, state));
            }
            Message::Behind { key } => sync::on_behind(sh, &mut self.held.copies, &key),
            Message::Copy { key, id, state } => {
                self.held.on_copy(sh, at, from, &key, id, &state);
            }
            Message::Read { key, id } => self.held.on_read(sh, at, from, key, id),
            Message::ReadReply { key, id, state, remembers, vouches } => {
                let answer = ((state.as_ref().map(|state| state.as_slice()), remembers), vouches);
                if self.reads.on_reply(sh, wall, from, &key, id, answer) {
                    self.finish_read(at, id);
                }
            }
            Message::Operation { id, key, op, boot, confirm } => {
                self.on_operation(at, by, (id.into(), boot), &key, (op, Confirm::from_wire(confirm)));
            }
            Message::Inquiry { id } => self.on_inquiry(from, id.into()),
            Message::OperationReply { id, outcome, boot } => {
                self.operations.on_reply(sh, now, from, id.into(), (outcome, boot));
            }
        }
    }

    /// Tells that a message to this peer failed because the peer restarted or left the mesh.
    pub fn on_peer_lost(&mut self, peer: PublicKey) {
        self.operations.on_peer_lost(&mut self.shared, peer);
        self.reads.on_peer_lost(peer);
        self.lists.wait_only_for(|other| *other != peer);
        self.watches.on_peer_lost(peer);
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Instant, wall: Duration) {
        let at = Moment { now, wall };
        for read in self.reads.done(now) {
            self.finish_read(at, read);
        }
        for (id, key) in self.reads.take_too_early(now) {
            let mut value = self.held.copies.value(&key).cloned();
            if let Some(pending) = self.writes.pending(&key) {
                // Both are of the key's kind; one that doesn't fit is left out, as everywhere.
                let merged = value.get_or_insert_with(|| Object::new(pending.kind())).merge(pending, wall);
                self.shared.stats.bad_states += u64::from(merged.is_err());
            }
            let value = reads::shown(value);
            self.shared.events.push(ReplicatorEvent::ReadDone { id, value, partial: true });
        }
        self.held.place(&mut self.shared, now);
        self.lists.finish(&mut self.shared, now);
        self.operations.retry(&mut self.shared, now);
        self.tend_watches(at);
        self.offer_again(now);
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.ask_about_aside(now);
        if self.shared.sees_others() {
            self.notice_others(wall);
        }
        let Replicator { shared: sh, held, writes, served, lists, watchers, .. } = self;
        sh.outbox.refill(sh.config.repair_bytes_per_tick);
        held.copies.settle_parked(sh, wall);
        writes.retry(sh, held, served, at);
        writes.expire(sh, served, now);
        served.expire(now);
        held.age(sh, writes.sums(), wall);
        held.hand_off(sh, writes.sums(), at);
        held.summarise(sh, now);
        lists.tick();
        watchers.expire(sh, &held.copies, now);
        // What was deleted or settled now.
        self.tend_watches(at);
    }

    /// The time at which [`handle_timeout`](Replicator::handle_timeout) must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.held.next_portion(),
            self.reads.next_deadline(),
            self.held.next_offer(),
            self.lists.next_deadline(),
            self.watches.next_deadline(),
            self.operations.next_deadline(),
        ];
        due.into_iter().flatten().chain([self.next_tick]).min()
    }

    // ---- Outputs.

    /// Whether so much waits for the driver that it should give no further input before it has drained the outputs.
    pub fn is_congested(&self) -> bool {
        self.shared.outbox.is_half_full() || self.shared.events.is_congested()
    }

    /// The next message to send, as a reliable message of at most [`MAX_MESSAGE_BYTES`]. Drain
    /// [`poll_changed`](Replicator::poll_changed) first.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Vec<u8>)> {
        self.shared.outbox.pop()
    }

    /// The next event. Drain [`poll_changed`](Replicator::poll_changed) first.
    pub fn poll_event(&mut self) -> Option<ReplicatorEvent> {
        self.shared.events.poll()
    }
}
