//! Writes and deltas that wait until the other owners have sent their states.
//!
//! An owner without a copy doesn't know whether the key is new or its copy is yet to come: the owner may have lost
//! its disk, or have just become an owner. If it took the key for empty, it would acknowledge the removal of an
//! element that other owners hold, and accept a write of another type. So it asks the other owners before the first
//! write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::calls::Caller;
use super::{MAX_READS, Op, Replicator, UpdateError};
use crate::key::PublicKey;
use crate::replication::crdt::Value;

/// Limit on the bytes of other nodes' deltas that wait; the same as for messages to be sent. A delta over the limit
/// is dropped, and its writer sends it again.
const MAX_WAITING_BYTES: usize = super::MAX_OUTBOX_BYTES;

/// The work that continues when the other owners have answered.
#[derive(Debug)]
pub(super) enum Asked {
    /// A write made at this node.
    Write { caller: Caller, op: Op },
    /// Another node's delta.
    Delta { key: Vec<u8>, from: PublicKey, id: u64, state: Vec<u8> },
}

/// The waiting work, by the id of its read.
#[derive(Debug, Default)]
pub(super) struct Asking {
    waiting: BTreeMap<u64, Asked>,
    /// The bytes of the deltas.
    bytes: usize,
}

impl Asking {
    pub(super) fn is_asking(&self, read: u64) -> bool {
        self.waiting.contains_key(&read)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn insert(&mut self, read: u64, asked: Asked) {
        if let Asked::Delta { state, .. } = &asked {
            self.bytes += state.len();
        }
        self.waiting.insert(read, asked);
    }

    fn take(&mut self, read: u64) -> Option<Asked> {
        let asked = self.waiting.remove(&read)?;
        if let Asked::Delta { state, .. } = &asked {
            self.bytes -= state.len();
        }
        Some(asked)
    }

    /// The id of the read that an earlier delta of the same writer and key waits for.
    fn of_delta(&self, from: PublicKey, key: &[u8]) -> Option<u64> {
        let mut waiting = self.waiting.iter();
        let same = |asked: &Asked| matches!(asked, Asked::Delta { key: of, from: by, .. } if of == key && *by == from);
        waiting.find(|(_, asked)| same(asked)).map(|(read, _)| *read)
    }
}

impl Replicator {
    /// The key's owners except this node.
    pub(super) fn other_owners(&self, key: &[u8]) -> Vec<PublicKey> {
        let mut owners = self.ring.owners(key, self.config.replicas);
        owners.retain(|owner| *owner != self.local.key);
        owners
    }

    pub(super) fn is_owner(&self, key: &[u8]) -> bool {
        self.ring.owns(&self.local.key, key, self.config.replicas)
    }

    /// Whether this node must ask the other owners before it makes a write.
    pub(super) fn must_ask(&self, key: &[u8], op: &Op) -> bool {
        if self.other_owners(key).is_empty() {
            return false;
        }
        let held = self.entries.get(key).map(|entry| &entry.value);
        match op {
            // Another owner may have the element, even if this node has a copy: its copy may be behind.
            Op::Remove { element } => !held.is_some_and(|value| has_element(value, element)),
            _ => held.is_none() && self.is_owner(key),
        }
    }

    /// Asks the other owners; [`asked`](Replicator::asked) continues the work.
    pub(super) fn ask(&mut self, now: Instant, key: &[u8], asked: Asked) -> Result<(), UpdateError> {
        if self.reads.len() >= MAX_READS {
            return Err(UpdateError::Full("reads"));
        }
        let read = self.fresh_id();
        self.asking.insert(read, asked);
        self.ask_owners(now, key, read);
        Ok(())
    }

    /// Like [`ask`](Replicator::ask), for another node's delta. A writer's later delta contains its earlier ones.
    pub(super) fn ask_for_delta(
        &mut self,
        now: Instant,
        from: PublicKey,
        key: Vec<u8>,
        id: u64,
        state: &[u8],
    ) {
        if self.asking.bytes + state.len() > MAX_WAITING_BYTES {
            self.stats.full += 1;
            return;
        }
        let earlier = self.asking.of_delta(from, &key);
        let delta = Asked::Delta { key: key.clone(), from, id, state: state.to_vec() };
        match earlier {
            Some(read) => {
                self.asking.take(read);
                self.asking.insert(read, delta);
            }
            None if self.ask(now, &key, delta).is_err() => self.stats.full += 1,
            None => {}
        }
    }

    /// Continues after the other owners' answers. `known` is true if one owner has a state, or all answered that they
    /// have none.
    pub(super) fn asked(
        &mut self,
        now: Instant,
        wall: Duration,
        read: u64,
        key: &[u8],
        value: Option<Value>,
        known: bool,
    ) {
        let Some(asked) = self.asking.take(read) else { return };
        let ready = match (known, &value) {
            (false, _) => Err(UpdateError::Unknown),
            // Without the other owners' state, this node would treat the key as empty.
            (true, Some(value)) if self.is_owner(key) => self.take_told(now, wall, key, value),
            (true, _) => Ok(()),
        };
        match asked {
            Asked::Write { caller, op } => {
                let outcome = ready.and_then(|()| self.update_asked(now, wall, key, &op, value.as_ref()));
                self.settle_or_wait(now, key, caller, outcome);
            }
            Asked::Delta { key, from, id, state } if ready.is_ok() => {
                self.take_delta(now, wall, from, key, id, &state);
            }
            // The writer sends the delta again.
            Asked::Delta { .. } => {}
        }
    }

    fn take_told(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        value: &Value,
    ) -> Result<(), UpdateError> {
        let taken = self.merge(now, wall, key, value, value.encode().len());
        self.stats.bad_states += u64::from(matches!(taken, Err(UpdateError::Value(_))));
        taken.map(|_| ())
    }

    fn update_asked(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        op: &Op,
        observed: Option<&Value>,
    ) -> Result<(), UpdateError> {
        let nothing =
            observed.is_none() && !self.entries.contains_key(key) && !self.pending.contains_key(key);
        if nothing && matches!(op, Op::Remove { .. }) {
            // The key is empty, so the removal has no effect.
            return Ok(());
        }
        self.update(now, wall, key, op, observed)
    }

    /// Adapts to a new view: waiting work waits only for the present other owners, and continues at once if there are
    /// none.
    pub(super) fn ask_present_owners(&mut self, now: Instant) {
        let asking: Vec<u64> =
            self.reads.keys().copied().filter(|read| self.asking.is_asking(*read)).collect();
        for read in asking {
            let Some(key) = self.reads.get(&read).map(|reading| reading.key().to_vec()) else { continue };
            let owners: BTreeSet<PublicKey> = self.other_owners(&key).into_iter().collect();
            if let Some(reading) = self.reads.get_mut(&read) {
                reading.wait_only_for(now, &owners);
            }
        }
    }
}

fn has_element(value: &Value, element: &[u8]) -> bool {
    value.parts().iter().any(|part| matches!(part, Value::Set(set) if set.contains(element)))
}
