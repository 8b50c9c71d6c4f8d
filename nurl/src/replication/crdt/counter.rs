//! PN-Counter: grow-only sums for each writer (Shapiro et al. 2011, specification 7), and what is removed of them.
//!
//! A slot has what its writer added and took, and the part of both that was removed: when the counter was deleted, what its
//! remover had seen. All of it only grows, so slots join by the maximum; a concurrent addition counts alone.
//!
//! Encoding: `n, n × (replica:40, added, taken, removed of added, removed of taken)`, ascending by replica, no slot of
//! zeros.

use super::codec::{Reader, put_number, put_replica};
use super::sums::Sums;
use super::{CrdtError, News};
use crate::key::PublicKey;
use crate::kit::small_map::SmallMap;
use crate::replication::identity::ReplicaId;

/// The most writers of one counter. At 80 bytes a slot this is 320 KiB, well within a message. A writer that lost its
/// store takes another slot, so this also bounds the number of lost disks over a counter's life.
pub const MAX_COUNTER_SLOTS: usize = 4096;

/// A counter that goes up and down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PnCounter {
    slots: SmallMap<ReplicaId, Sums>,
}

impl PnCounter {
    /// The delta with `replica`'s total additions and subtractions.
    pub fn of(replica: ReplicaId, added: u64, taken: u64) -> PnCounter {
        let sums = Sums { added, taken, ..Sums::default() };
        let slot = (sums != Sums::default()).then_some((replica, sums));
        PnCounter { slots: slot.into_iter().collect() }
    }

    /// The delta that removes all that this state counts.
    pub fn removing(&self) -> PnCounter {
        let counted = self.slots.iter().filter(|(_, sums)| !sums.is_removed());
        PnCounter { slots: counted.map(|(replica, sums)| (*replica, sums.removal())).collect() }
    }

    /// Whether nothing counts.
    pub fn is_empty(&self) -> bool {
        self.slots.values().all(Sums::is_removed)
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
        self.slots.get(replica).map_or((0, 0), |sums| (sums.added, sums.taken))
    }

    /// The sum.
    pub fn value(&self) -> i128 {
        self.slots.values().map(Sums::value).sum()
    }

    /// Joins another state: the maximum of each part of each slot. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CrdtError::TooManySlots`]; nothing changed then.
    pub fn merge(&mut self, other: &PnCounter) -> Result<bool, CrdtError> {
        let fresh = other.slots.keys().filter(|replica| !self.slots.contains_key(replica)).count();
        if self.slots.count() + fresh > MAX_COUNTER_SLOTS {
            return Err(CrdtError::TooManySlots);
        }
        let mut changed = false;
        for (replica, sums) in other.slots.iter() {
            let slot = self.slots.or_default(*replica);
            let joined = slot.join(sums);
            changed |= *slot != joined;
            *slot = joined;
        }
        Ok(changed)
    }

    /// What `other` would change here: whose slots, and in what way.
    pub(super) fn news<'a>(&'a self, other: &'a PnCounter) -> impl Iterator<Item = (ReplicaId, News)> + 'a {
        other.slots.iter().filter_map(|(replica, sums)| {
            let held = self.slots.get(replica).copied().unwrap_or_default();
            Some((*replica, held.join(sums).news_beside(&held)?))
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
        self.slots.count()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.slots.count() as u64);
        for (replica, sums) in self.slots.iter() {
            put_replica(out, replica);
            sums.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<PnCounter, CrdtError> {
        let count = reader.count(MAX_COUNTER_SLOTS, CrdtError::TooManySlots)?;
        let mut slots = SmallMap::default();
        for _ in 0..count {
            let replica = reader.replica()?;
            let sums = Sums::decode(reader)?;
            if slots.keys().next_back().is_some_and(|last| *last >= replica) {
                return Err(CrdtError::NotCanonical("counter slots"));
            }
            *slots.or_default(replica) = sums;
        }
        Ok(PnCounter { slots })
    }
}
