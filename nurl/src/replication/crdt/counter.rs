//! PN-Counter: a grow-only pair of sums for each writer (Shapiro et al. 2011, specification 7).
//!
//! Encoding: `n, n × (replica:40, added, taken)`, ascending by replica, no slot with both zero.

use std::collections::BTreeMap;

use super::CrdtError;
use super::codec::{Reader, put_number, put_replica};
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

/// The most writers of one counter. At 60 bytes a slot this is 240 KiB, well within a message. A writer that lost its
/// store takes another slot, so this also bounds the number of lost disks over a counter's life.
pub const MAX_COUNTER_SLOTS: usize = 4096;

/// A counter that goes up and down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PnCounter {
    slots: BTreeMap<ReplicaId, (u64, u64)>,
}

impl PnCounter {
    /// The delta with `replica`'s total additions and subtractions.
    pub fn of(replica: ReplicaId, added: u64, taken: u64) -> PnCounter {
        let slots = if (added, taken) == (0, 0) { None } else { Some((replica, (added, taken))) };
        PnCounter { slots: slots.into_iter().collect() }
    }

    /// Adds `by` (subtracts, if negative) as `replica`, and returns the delta.
    ///
    /// # Errors
    /// [`CrdtError::TooManySlots`] or [`CrdtError::Overflow`]; nothing changed then.
    pub fn add(&mut self, replica: ReplicaId, by: i64) -> Result<PnCounter, CrdtError> {
        let (mut added, mut taken) = self.slot(&replica);
        let side = if by >= 0 { &mut added } else { &mut taken };
        *side = side.checked_add(by.unsigned_abs()).ok_or(CrdtError::Overflow)?;
        let delta = PnCounter::of(replica, added, taken);
        self.merge(&delta)?;
        Ok(delta)
    }

    /// The amounts that `replica` has added and subtracted.
    pub fn slot(&self, replica: &ReplicaId) -> (u64, u64) {
        self.slots.get(replica).copied().unwrap_or_default()
    }

    /// The sum.
    pub fn value(&self) -> i128 {
        self.slots.values().map(|(added, taken)| i128::from(*added) - i128::from(*taken)).sum()
    }

    /// Joins another state: the maximum of each part of each slot. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CrdtError::TooManySlots`]; nothing changed then.
    pub fn merge(&mut self, other: &PnCounter) -> Result<bool, CrdtError> {
        let fresh = other.slots.keys().filter(|replica| !self.slots.contains_key(replica)).count();
        if self.slots.len() + fresh > MAX_COUNTER_SLOTS {
            return Err(CrdtError::TooManySlots);
        }
        let mut changed = false;
        for (replica, (added, taken)) in &other.slots {
            let slot = self.slots.entry(*replica).or_default();
            let joined = (slot.0.max(*added), slot.1.max(*taken));
            changed |= *slot != joined;
            *slot = joined;
        }
        Ok(changed)
    }

    /// The writers whose slots `other` would raise here.
    pub(super) fn news<'a>(&'a self, other: &'a PnCounter) -> impl Iterator<Item = ReplicaId> + 'a {
        other.slots.iter().filter_map(|(replica, (added, taken))| {
            let (mine_added, mine_taken) = self.slot(replica);
            (mine_added < *added || mine_taken < *taken).then_some(*replica)
        })
    }

    /// The slots that `author` has here and in `other`, under all its incarnations.
    pub(super) fn slots_with(&self, other: &PnCounter, author: &PublicKey) -> usize {
        let of = |counter: &PnCounter| counter.slots.range(ReplicaId::all_of(author)).count();
        let both = other.slots.range(ReplicaId::all_of(author));
        of(self) + both.filter(|(replica, _)| !self.slots.contains_key(replica)).count()
    }

    /// The number of writers.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.slots.len() as u64);
        for (replica, (added, taken)) in &self.slots {
            put_replica(out, replica);
            put_number(out, *added);
            put_number(out, *taken);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<PnCounter, CrdtError> {
        let count = reader.count(MAX_COUNTER_SLOTS, CrdtError::TooManySlots)?;
        let mut slots = BTreeMap::new();
        for _ in 0..count {
            let replica = reader.replica()?;
            let sums = (reader.number()?, reader.number()?);
            let ascending = slots.last_key_value().is_none_or(|(last, _)| *last < replica);
            if !ascending || sums == (0, 0) {
                return Err(CrdtError::NotCanonical("counter slots"));
            }
            slots.insert(replica, sums);
        }
        Ok(PnCounter { slots })
    }
}
