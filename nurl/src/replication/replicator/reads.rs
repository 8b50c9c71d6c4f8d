//! Reads by a node without a complete copy: ask all owners, merge the answers, and repair the owners that lag.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use minicbor::bytes::ByteVec;

use super::config::MAX_READS;
use super::copies::Copies;
use super::error::ReadFailure;
use super::event::ReplicatorEvent;
use super::message::Message;
use super::shared::Shared;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Value};
use crate::rt::{Table, bound};

/// After this time a read ends with the answers that have arrived.
const WAIT: Duration = Duration::from_secs(1);
/// After this time a read without any answer fails.
const GIVE_UP: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Reading {
    key: Vec<u8>,
    waiting: BTreeSet<PublicKey>,
    /// Each owner's digest, or none if it has no copy.
    answers: BTreeMap<PublicKey, Option<Digest>>,
    value: Option<Value>,
    /// Whether a write waits for this read. Then a missing copy at one owner isn't conclusive while another owner,
    /// which may have the value, is silent.
    asks: bool,
    enough: Instant,
    give_up: Instant,
}

impl Reading {
    fn due(&self) -> Instant {
        let nothing = if self.asks { self.value.is_none() } else { self.answers.is_empty() };
        if nothing { self.give_up } else { self.enough }
    }

    /// The key, if a write waits for this read.
    pub(super) fn asks_for(&self) -> Option<&[u8]> {
        self.asks.then_some(self.key.as_slice())
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The merged state of all owners that answered; none if none of them has one.
    pub(super) fn into_value(self) -> Option<Value> {
        self.value
    }

    /// Whether the key's value is known: an owner has a state, or all `owners` answered that they have none.
    pub(super) fn is_conclusive(&self, owners: &[PublicKey]) -> bool {
        self.value.is_some() || owners.iter().all(|owner| self.answers.contains_key(owner))
    }

    /// Stops waiting for nodes other than `owners`.
    fn wait_only_for(&mut self, now: Instant, owners: &BTreeSet<PublicKey>) {
        self.waiting.retain(|owner| owners.contains(owner));
        if self.waiting.is_empty() {
            // The next timeout handles the read: it is due now.
            (self.enough, self.give_up) = (now, now);
        }
    }

    fn is_done(&self, now: Instant) -> bool {
        self.waiting.is_empty() || self.due() <= now
    }

    /// Stops waiting for one node.
    fn stop_waiting(&mut self, peer: PublicKey) {
        if self.waiting.remove(&peer) && self.waiting.is_empty() {
            // The next timeout handles the read: it is due now.
            self.enough = self.give_up.min(self.enough);
            self.give_up = self.enough;
        }
    }

    /// Takes an owner's answer.
    fn answered(&mut self, sh: &mut Shared, wall: Duration, from: PublicKey, state: Option<&[u8]>) {
        match state.map(Value::decode) {
            None => {
                self.answers.insert(from, None);
            }
            Some(Ok(state)) => {
                let value = self.value.get_or_insert_with(|| Value::new(state.kind()));
                if value.merge(&state, wall).is_err() {
                    sh.stats.bad_states += 1;
                } else {
                    self.answers.insert(from, Some(state.digest()));
                }
            }
            Some(Err(_)) => sh.stats.bad_states += 1,
        }
    }

    /// Tells the owners whose answer differs from the merged state to compare theirs. An owner takes others' writes
    /// from owners only, so a reader couldn't send them.
    fn repair(&self, sh: &mut Shared) {
        let Some(digest) = self.value.as_ref().map(Value::digest) else { return };
        for (owner, _) in self.answers.iter().filter(|(_, has)| **has != Some(digest)) {
            sh.send(*owner, &Message::Behind { key: self.key.clone().into() });
        }
    }

    /// Repairs the owners that lag, and tells the caller the value with this node's own `pending` delta.
    pub(super) fn finish(mut self, sh: &mut Shared, wall: Duration, id: u64, pending: Option<&Value>) {
        if self.answers.is_empty() && self.value.is_none() {
            sh.events.push(ReplicatorEvent::ReadFailed { id, why: ReadFailure::NoAnswer });
            return;
        }
        self.repair(sh);
        if let Some(pending) = pending {
            let value = self.value.get_or_insert_with(|| Value::new(pending.kind()));
            if value.merge(pending, wall).is_err() {
                sh.stats.bad_states += 1;
            }
        }
        sh.events.push(ReplicatorEvent::ReadDone { id, value: self.value });
    }
}

/// The reads under way, by id.
#[derive(Debug, Default)]
pub(super) struct Reads(BTreeMap<u64, Reading>);

impl Reads {
    /// Whether another read may begin, of this node's callers or for another node's write, of which `for_others` are under
    /// way. They have half as much room of their own, so that others' new keys keep no caller here from reading.
    pub(super) fn has_room(&self, for_another: bool, for_others: usize) -> bool {
        let most = bound(Table::Reads, MAX_READS);
        if for_another { for_others < most / 2 } else { self.0.len() - for_others < most }
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.0.contains_key(&id)
    }

    /// The time at which the next read ends with the answers that it has.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(Reading::due).min()
    }

    /// The reads that are over.
    pub(super) fn done(&self, now: Instant) -> Vec<u64> {
        self.0.iter().filter(|(_, reading)| reading.is_done(now)).map(|(id, _)| *id).collect()
    }

    /// Removes a read.
    pub(super) fn take(&mut self, id: u64) -> Option<Reading> {
        self.0.remove(&id)
    }

    /// Asks all other owners. `asks` tells that a write waits for the answers.
    pub(super) fn ask_owners(
        &mut self,
        sh: &mut Shared,
        copies: &Copies,
        now: Instant,
        key: &[u8],
        id: u64,
        asks: bool,
    ) {
        let waiting: BTreeSet<PublicKey> = sh.other_owners(key).into_iter().collect();
        for owner in &waiting {
            sh.send(*owner, &Message::Read { key: key.to_vec().into(), id });
        }
        // A copy under hand-off counts as an additional answer.
        let value = copies.value(key).cloned();
        if waiting.is_empty() {
            sh.events.push(ReplicatorEvent::ReadDone { id, value });
            return;
        }
        let (enough, give_up) = (now + WAIT, now + GIVE_UP);
        let answers = BTreeMap::new();
        self.0.insert(id, Reading { key: key.to_vec(), waiting, answers, value, asks, enough, give_up });
    }

    /// Takes an owner's answer. Returns whether all owners have answered.
    pub(super) fn on_reply(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        from: PublicKey,
        key: &[u8],
        id: u64,
        state: Option<&[u8]>,
    ) -> bool {
        let reading = self.0.get_mut(&id).filter(|reading| reading.key == key);
        let Some(reading) = reading.filter(|reading| reading.waiting.contains(&from)) else {
            sh.stats.stray += 1;
            return false;
        };
        reading.waiting.remove(&from);
        reading.answered(sh, wall, from, state);
        reading.waiting.is_empty()
    }

    /// Handles the answer of a node that is an owner in this node's view, but not in its own.
    pub(super) fn on_refused(&mut self, from: PublicKey, id: u64) {
        if let Some(reading) = self.0.get_mut(&id) {
            reading.stop_waiting(from);
        }
    }

    /// Stops waiting for a node that is lost.
    pub(super) fn on_peer_lost(&mut self, peer: PublicKey) {
        for reading in self.0.values_mut() {
            reading.stop_waiting(peer);
        }
    }

    /// Adapts to a new view: waiting writes wait only for the present other owners, and continue at once if there are
    /// none.
    pub(super) fn ask_present_owners(&mut self, sh: &Shared, now: Instant) {
        for reading in self.0.values_mut().filter(|reading| reading.asks) {
            let owners: BTreeSet<PublicKey> = sh.other_owners(&reading.key).into_iter().collect();
            reading.wait_only_for(now, &owners);
        }
    }
}

/// Answers another node's read with this node's state.
pub(super) fn on_read(sh: &mut Shared, copies: &Copies, from: PublicKey, key: ByteVec, id: u64) {
    let state = copies.value(&key).map(|value| ByteVec::from(value.encode()));
    if state.is_none() && !sh.is_owner(&key) {
        sh.refuse(from, key, Some(id));
        return;
    }
    sh.send(from, &Message::ReadReply { key, id, state });
}
