//! Reads by a node without a complete copy: ask all owners, merge the answers, and repair the owners that lag.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use minicbor::bytes::ByteVec;

use super::message::Message;
use super::{MAX_KEY_BYTES, MAX_READS, Replicator, ReplicatorEvent, UpdateError};
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Value};

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
    pub(super) fn due(&self) -> Instant {
        let nothing = if self.asks { self.value.is_none() } else { self.answers.is_empty() };
        if nothing { self.give_up } else { self.enough }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Stops waiting for nodes other than `owners`.
    pub(super) fn wait_only_for(&mut self, now: Instant, owners: &BTreeSet<PublicKey>) {
        self.waiting.retain(|owner| owners.contains(owner));
        if self.waiting.is_empty() {
            // The next timeout handles the read: it is due now.
            (self.enough, self.give_up) = (now, now);
        }
    }

    fn is_done(&self, now: Instant) -> bool {
        self.waiting.is_empty() || self.due() <= now
    }
}

impl Replicator {
    /// Reads a key. A node that holds it answers from its copy; any other node asks the owners. In both cases the
    /// answer is [`ReplicatorEvent::ReadDone`] or [`ReplicatorEvent::ReadFailed`] with `id`, and includes this node's
    /// own pending write.
    ///
    /// # Errors
    /// [`UpdateError`]; no event follows then.
    pub fn read(&mut self, now: Instant, key: &[u8], id: u64) -> Result<(), UpdateError> {
        if key.len() > MAX_KEY_BYTES {
            return Err(UpdateError::KeyTooLong(key.len()));
        }
        if self.reads.len() >= MAX_READS || self.reads.contains_key(&id) || self.events.len() >= MAX_READS {
            return Err(UpdateError::Full("reads"));
        }
        if let Some(entry) = self.entries.get(key).filter(|entry| entry.hand_off.is_none()) {
            let value = Some(entry.value.clone());
            self.events.push_back(ReplicatorEvent::ReadDone { id, value });
            return Ok(());
        }
        if self.ring.owners(key, self.config.replicas).is_empty() {
            return Err(UpdateError::NoOwners);
        }
        self.ask_owners(now, key, id);
        Ok(())
    }

    /// Asks all other owners.
    pub(super) fn ask_owners(&mut self, now: Instant, key: &[u8], id: u64) {
        let waiting: BTreeSet<PublicKey> = self.other_owners(key).into_iter().collect();
        for owner in &waiting {
            self.send(*owner, &Message::Read { key: key.to_vec().into(), id });
        }
        // A copy under hand-off counts as an additional answer.
        let value = self.entries.get(key).map(|entry| entry.value.clone());
        let reading = Reading {
            key: key.to_vec(),
            waiting,
            answers: BTreeMap::new(),
            value,
            asks: self.asking.is_asking(id),
            enough: now + WAIT,
            give_up: now + GIVE_UP,
        };
        if reading.waiting.is_empty() {
            self.events.push_back(ReplicatorEvent::ReadDone { id, value: reading.value });
        } else {
            self.reads.insert(id, reading);
        }
    }

    pub(super) fn on_read(&mut self, from: PublicKey, key: ByteVec, id: u64) {
        let state = self.entries.get(key.as_slice()).map(|entry| ByteVec::from(entry.value.encode()));
        if state.is_none() && !self.ring.owns(&self.local.key, &key, self.config.replicas) {
            self.refuse(from, key, Some(id));
            return;
        }
        self.send(from, &Message::ReadReply { key, id, state });
    }

    pub(super) fn on_read_reply(
        &mut self,
        now: Instant,
        wall: Duration,
        from: PublicKey,
        key: &[u8],
        id: u64,
        state: Option<&[u8]>,
    ) {
        let Some(reading) = self.reads.get_mut(&id).filter(|reading| reading.key == key) else {
            self.stats.stray += 1;
            return;
        };
        if !reading.waiting.remove(&from) {
            self.stats.stray += 1;
            return;
        }
        match state.map(Value::decode) {
            None => {
                reading.answers.insert(from, None);
            }
            Some(Ok(state)) => {
                let value = reading.value.get_or_insert_with(|| Value::new(state.kind()));
                if value.merge(&state, wall).is_err() {
                    self.stats.bad_states += 1;
                } else {
                    reading.answers.insert(from, Some(state.digest()));
                }
            }
            Some(Err(_)) => self.stats.bad_states += 1,
        }
        if reading.waiting.is_empty() {
            self.finish_read(now, id, wall);
        }
    }

    /// Handles the answer of a node that is an owner in this node's view, but not in its own.
    pub(super) fn read_refused(&mut self, from: PublicKey, id: u64) {
        self.stop_waiting(from, |reading_id| reading_id == id);
    }

    pub(super) fn lose_reader(&mut self, peer: PublicKey) {
        self.stop_waiting(peer, |_| true);
    }

    fn stop_waiting(&mut self, peer: PublicKey, concerns: impl Fn(u64) -> bool) {
        for (id, reading) in &mut self.reads {
            if concerns(*id) && reading.waiting.remove(&peer) && reading.waiting.is_empty() {
                // The next timeout handles the read: it is due now.
                reading.enough = reading.give_up.min(reading.enough);
                reading.give_up = reading.enough;
            }
        }
    }

    pub(super) fn expire_reads(&mut self, now: Instant, wall: Duration) {
        let done: Vec<u64> =
            self.reads.iter().filter(|(_, reading)| reading.is_done(now)).map(|(id, _)| *id).collect();
        for id in done {
            self.finish_read(now, id, wall);
        }
    }

    fn finish_read(&mut self, now: Instant, id: u64, wall: Duration) {
        let Some(mut reading) = self.reads.remove(&id) else { return };
        if self.asking.is_asking(id) {
            let others = self.other_owners(&reading.key);
            let all = others.iter().all(|owner| reading.answers.contains_key(owner));
            let known = all || reading.value.is_some();
            self.asked(now, wall, id, &reading.key, reading.value, known);
            return;
        }
        if reading.answers.is_empty() && reading.value.is_none() {
            self.events.push_back(ReplicatorEvent::ReadFailed { id });
            return;
        }
        if let Some(value) = &reading.value {
            let digest = value.digest();
            let state = value.encode();
            for (owner, _) in reading.answers.iter().filter(|(_, has)| **has != Some(digest)) {
                if self.spend(state.len()) {
                    self.stats.states_sent += 1;
                    let key = reading.key.clone().into();
                    self.send(*owner, &Message::Delta { key, id: None, state: state.clone().into() });
                }
            }
        }
        if let Some(pending) = self.pending.get(&reading.key) {
            let value = reading.value.get_or_insert_with(|| Value::new(pending.value().kind()));
            if value.merge(pending.value(), wall).is_err() {
                self.stats.bad_states += 1;
            }
        }
        self.events.push_back(ReplicatorEvent::ReadDone { id, value: reading.value });
    }
}
