//! Reads by a node without a whole copy: ask all keepers of the key, merge the answers, and repair the owners that lag.
//!
//! A read is *partial* if an owner is silent, and more than one of them may have confirmed a write that isn't in the answers:
//! the silent ones, and those that don't remember what they confirmed before they began.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::config::MAX_READS;
use super::copies::MAX_UNKNOWN;
use super::error::ReadFailure;
use super::event::ReplicatorEvent;
use super::held::Held;
use super::message::Message;
use super::shared::Shared;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Object, Value};
use crate::rt::{Table, bound};

/// After this time a read ends with the answers that have arrived, if they are enough.
const WAIT: Duration = Duration::from_secs(1);
/// After this time a read ends with what it has.
const GIVE_UP: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Reading {
    key: Vec<u8>,
    /// Its present owners.
    owners: Vec<PublicKey>,
    /// This node, and those that answered, with whether each remembers what it confirmed before.
    answerers: BTreeMap<PublicKey, bool>,
    /// Those that vouch for what they have, and lack.
    vouchers: BTreeSet<PublicKey>,
    waiting: BTreeSet<PublicKey>,
    /// Each keeper's digest, or none if it has no copy.
    answers: BTreeMap<PublicKey, Option<Digest>>,
    value: Option<Object>,
    /// Whether a write waits for this read.
    asks: bool,
    enough: Instant,
    give_up: Instant,
}

impl Reading {
    fn due(&self) -> Instant {
        if self.is_partial() { self.give_up } else { self.enough }
    }

    /// Whether a write waits for this read.
    pub(super) fn asks(&self) -> bool {
        self.asks
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The merged state of all keepers that answered; none if none of them has one.
    pub(super) fn value(&self) -> Option<&Object> {
        self.value.as_ref()
    }

    pub(super) fn into_value(self) -> Option<Object> {
        self.value
    }

    /// The keepers that answered.
    pub(super) fn answered_by(&self) -> impl Iterator<Item = &PublicKey> {
        self.answers.keys()
    }

    /// Whether confirmed writes may be missing; see the module.
    pub(super) fn is_partial(&self) -> bool {
        let silent = self.owners.iter().any(|owner| !self.answerers.contains_key(owner));
        let knows = |owner: &&PublicKey| self.answerers.get(*owner) == Some(&true);
        let unknown = self.owners.len() - self.owners.iter().filter(knows).count();
        silent && (unknown > MAX_UNKNOWN || unknown == self.owners.len())
    }

    /// Whether one of the other owners vouches for what it has, or lacks; none if none of them does, but some are silent.
    pub(super) fn is_vouched_for(&self, local: &PublicKey) -> Option<bool> {
        let others = || self.owners.iter().filter(|owner| *owner != local);
        if others().any(|owner| self.vouchers.contains(owner)) {
            return Some(true);
        }
        others().all(|owner| self.answerers.contains_key(owner)).then_some(false)
    }

    fn is_done(&self, now: Instant) -> bool {
        self.waiting.is_empty() || self.due() <= now
    }

    /// Stops waiting for nodes of which `keeps` is false.
    fn wait_only_for(&mut self, now: Instant, keeps: impl Fn(&PublicKey) -> bool) {
        self.waiting.retain(keeps);
        if self.waiting.is_empty() {
            // The next timeout handles the read: it is due now.
            (self.enough, self.give_up) = (now, now);
        }
    }

    /// Stops waiting for one node.
    fn stop_waiting(&mut self, peer: PublicKey) {
        if self.waiting.remove(&peer) && self.waiting.is_empty() {
            // The next timeout handles the read: it is due now.
            self.enough = self.give_up.min(self.enough);
            self.give_up = self.enough;
        }
    }

    /// Takes a keeper's answer.
    fn answered(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        from: PublicKey,
        (state, remembers): (Option<&[u8]>, bool),
    ) {
        self.answerers.insert(from, remembers);
        match state.map(Object::decode) {
            None => {
                self.answers.insert(from, None);
            }
            Some(Ok(state)) => {
                let value = self.value.get_or_insert_with(|| Object::new(state.kind()));
                if value.merge(&state, wall).is_err() {
                    self.answerers.remove(&from);
                    sh.stats.bad_states += 1;
                } else {
                    self.answers.insert(from, Some(state.digest()));
                }
            }
            Some(Err(_)) => {
                self.answerers.remove(&from);
                sh.stats.bad_states += 1;
            }
        }
    }

    /// Tells the owners whose answer differs from the merged state to compare theirs. An owner takes others' writes
    /// from owners only, so a reader couldn't send them.
    pub(super) fn repair(&self, sh: &mut Shared) {
        let Some(digest) = self.value.as_ref().map(Object::digest) else { return };
        let lags =
            |(owner, has): &(&PublicKey, &Option<Digest>)| **has != Some(digest) && sh.owns(owner, &self.key);
        let lagging: Vec<PublicKey> = self.answers.iter().filter(lags).map(|(owner, _)| *owner).collect();
        for owner in lagging {
            sh.send(owner, &Message::Behind { key: self.key.clone().into() });
        }
    }

    /// Repairs the owners that lag, and tells the caller the value with this node's own `pending` delta.
    pub(super) fn finish(
        mut self,
        sh: &mut Shared,
        wall: Duration,
        id: u64,
        pending: Option<&Object>,
        partial: bool,
    ) {
        if partial && self.answers.is_empty() && self.value.is_none() {
            sh.events.push(ReplicatorEvent::ReadFailed { id, why: ReadFailure::NoAnswer });
            return;
        }
        self.repair(sh);
        if let Some(pending) = pending {
            let value = self.value.get_or_insert_with(|| Object::new(pending.kind()));
            if value.merge(pending, wall).is_err() {
                sh.stats.bad_states += 1;
            }
        }
        sh.events.push(ReplicatorEvent::ReadDone { id, value: shown(self.value), partial });
    }
}

/// What is told of an object: nothing of one that was deleted.
pub(super) fn shown(object: Option<Object>) -> Option<Value> {
    object.filter(|object| object.dead_since().is_none()).map(Object::into_value)
}

/// The reads under way, by id.
#[derive(Debug, Default)]
pub(super) struct Reads {
    under_way: BTreeMap<u64, Reading>,
    /// Those that wait for the first view, until when, and of which key.
    early: BTreeMap<u64, (Instant, Vec<u8>)>,
}

impl Reads {
    /// Whether another read may begin, of this node's callers or for another node's write, of which `for_others` are under
    /// way. They have half as much room of their own, so that others' new keys keep no caller here from reading.
    pub(super) fn has_room(&self, for_another: bool, for_others: usize) -> bool {
        let most = bound(Table::Reads, MAX_READS);
        if for_another {
            for_others < most / 2
        } else {
            self.under_way.len() + self.early.len() - for_others < most
        }
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.under_way.contains_key(&id) || self.early.contains_key(&id)
    }

    /// The time at which the next read ends with the answers that it has.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let early = self.early.values().map(|(due, _)| *due);
        self.under_way.values().map(Reading::due).chain(early).min()
    }

    /// The reads that are over.
    pub(super) fn done(&self, now: Instant) -> Vec<u64> {
        self.under_way.iter().filter(|(_, reading)| reading.is_done(now)).map(|(id, _)| *id).collect()
    }

    /// Begins a read before anybody is known who could be asked. It ends with what is here, as a partial one, if nobody
    /// is met in time.
    pub(super) fn await_owners(&mut self, now: Instant, id: u64, key: &[u8]) {
        self.early.insert(id, (now + GIVE_UP, key.to_vec()));
    }

    /// The reads that waited for owners.
    pub(super) fn take_early(&mut self) -> BTreeMap<u64, (Instant, Vec<u8>)> {
        std::mem::take(&mut self.early)
    }

    /// Those of them whose time is up.
    pub(super) fn take_too_early(&mut self, now: Instant) -> Vec<(u64, Vec<u8>)> {
        let over = self.early.extract_if(.., |_, (due, _)| *due <= now);
        over.map(|(id, (_, key))| (id, key)).collect()
    }

    /// Removes a read.
    pub(super) fn take(&mut self, id: u64) -> Option<Reading> {
        self.under_way.remove(&id)
    }

    /// Asks all other keepers of the key that are live; its owners, if none is. `asks` tells that a write waits for the
    /// answers.
    pub(super) fn ask_keepers(
        &mut self,
        sh: &mut Shared,
        held: &Held,
        now: Instant,
        key: &[u8],
        id: u64,
        asks: bool,
    ) {
        let keepers = sh.other_keepers(key);
        let any = keepers.iter().any(|keeper| keeper.live);
        let asked = keepers.iter().filter(|keeper| keeper.live || !any);
        let waiting: BTreeSet<PublicKey> = asked.map(|keeper| keeper.key).collect();
        for keeper in &waiting {
            sh.send(*keeper, &Message::Read { key: key.to_vec().into(), id });
        }
        // A copy that isn't whole counts as an additional answer.
        let value = held.copies.value(key).cloned();
        let (enough, give_up) = if waiting.is_empty() { (now, now) } else { (now + WAIT, now + GIVE_UP) };
        let reading = Reading {
            key: key.to_vec(),
            owners: sh.owners(key),
            answerers: BTreeMap::from([(sh.local.key, held.remembers(sh, key))]),
            vouchers: BTreeSet::new(),
            waiting,
            answers: BTreeMap::new(),
            value,
            asks,
            enough,
            give_up,
        };
        self.under_way.insert(id, reading);
    }

    /// Takes a keeper's answer. Returns whether all have answered.
    pub(super) fn on_reply(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        from: PublicKey,
        key: &[u8],
        id: u64,
        (answer, vouches): ((Option<&[u8]>, bool), bool),
    ) -> bool {
        let reading = self.under_way.get_mut(&id).filter(|reading| reading.key == key);
        let Some(reading) = reading.filter(|reading| reading.waiting.contains(&from)) else {
            sh.stats.stray += 1;
            return false;
        };
        reading.waiting.remove(&from);
        if vouches {
            reading.vouchers.insert(from);
        }
        reading.answered(sh, wall, from, answer);
        reading.waiting.is_empty()
    }

    /// Handles the answer of a node that keeps the key in this node's view, but not in its own. It has no copy.
    pub(super) fn on_refused(&mut self, from: PublicKey, id: u64) {
        if let Some(reading) = self.under_way.get_mut(&id)
            && reading.waiting.contains(&from)
        {
            reading.answers.insert(from, None);
            reading.answerers.insert(from, false);
            reading.stop_waiting(from);
        }
    }

    /// Stops waiting for a node that is lost.
    pub(super) fn on_peer_lost(&mut self, peer: PublicKey) {
        for reading in self.under_way.values_mut() {
            reading.stop_waiting(peer);
        }
    }

    /// Adapts to a new view: waiting writes wait only for the present keepers, and continue at once if there are none.
    pub(super) fn follow(&mut self, sh: &Shared, now: Instant) {
        for reading in self.under_way.values_mut() {
            reading.owners = sh.owners(&reading.key);
            if !reading.asks {
                continue;
            }
            let keepers = sh.other_keepers(&reading.key);
            reading.wait_only_for(now, |peer| keepers.iter().any(|keeper| keeper.key == *peer));
        }
    }
}
