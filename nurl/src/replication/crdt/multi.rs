//! Multi-value register: concurrent writes stay side by side until a write has seen them.
//!
//! A write has a dot, and replaces all writes that its writer has seen, its own earlier ones among them. So of an
//! actor only its last write can be present, and the writes seen are a number for each actor: a dotted version vector
//! set (Almeida, Baquero, Gonçalves, Preguiça, Fonte 2014) of one value an actor. No single dots and no tombstones are
//! left: a replaced write leaves the number of its actor.
//!
//! Each actor's slot is `(seen, value or none)`. Slots are ordered by `seen`; of two with the same number the one
//! without its value is greater (the write was replaced), else the greater value. (An honest writer uses a number once.
//! If one said two things under it, the copies agree all the same, whatever each was told first.) The join takes the
//! greater slot of each actor.
//!
//! Encoding: `n, n × (replica:40, seen ≥ 1, 0 | 1 ‖ length, value)`, ascending by replica.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Reader, put_bytes, put_number, put_replica};
use super::{CrdtError, MAX_ACTORS, MAX_STATE_BYTES, News};
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

/// The longest value of a multi-value register. With it, [`MAX_SIBLINGS`] values fit into a message.
pub const MAX_SIBLING_BYTES: usize = 8 * 1024;

/// The most values side by side. A merge that would leave more is refused; after the next write, which replaces what
/// it has seen, the states merge.
pub const MAX_SIBLINGS: usize = 64;

/// An upper bound of a slot's size without its value's bytes.
const SLOT_BYTES: usize = 40 + 10 + 1 + 2;

const _: () = assert!(MAX_SIBLINGS * MAX_SIBLING_BYTES + MAX_ACTORS * SLOT_BYTES + 4 < MAX_STATE_BYTES);

/// An actor's last write that was seen. The order is the order of the join.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    seen: u64,
    write: Write,
}

/// What is left of the write. Replaced is greater than any value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Write {
    Present(Vec<u8>),
    Replaced,
}

impl Slot {
    fn is_present(&self) -> bool {
        self.write != Write::Replaced
    }
}

/// A register that shows all concurrent writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MultiRegister {
    slots: BTreeMap<ReplicaId, Slot>,
    /// How many slots have a value.
    present: usize,
}

impl MultiRegister {
    /// The delta of a write: its dot is above `floor` and above the replica's highest dot in this state. It replaces all
    /// writes that this state shows, and the replica's own.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`], [`CrdtError::TooManyActors`] or [`CrdtError::Overflow`].
    pub fn writing(&self, replica: ReplicaId, value: &[u8], floor: u64) -> Result<MultiRegister, CrdtError> {
        if value.len() > MAX_SIBLING_BYTES {
            return Err(CrdtError::TooLarge { size: value.len(), limit: MAX_SIBLING_BYTES });
        }
        if self.slots.len() >= MAX_ACTORS && !self.slots.contains_key(&replica) {
            return Err(CrdtError::TooManyActors);
        }
        let seen = self.highest(&replica).max(floor).checked_add(1).ok_or(CrdtError::Overflow)?;
        let mut slots = self.removing().slots;
        slots.insert(replica, Slot { seen, write: Write::Present(value.to_vec()) });
        Ok(MultiRegister { slots, present: 1 })
    }

    /// The delta of removing all values that this state shows.
    pub fn removing(&self) -> MultiRegister {
        let shown = self.slots.iter().filter(|(_, slot)| slot.is_present());
        let replaced = shown.map(|(actor, slot)| (*actor, Slot { seen: slot.seen, write: Write::Replaced }));
        MultiRegister { slots: replaced.collect(), present: 0 }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The values, ascending; one that several wrote is given once.
    pub fn values(&self) -> BTreeSet<&[u8]> {
        let values = self.slots.values().filter_map(|slot| match &slot.write {
            Write::Present(value) => Some(value.as_slice()),
            Write::Replaced => None,
        });
        values.collect()
    }

    /// The actor's highest dot; 0 if none.
    pub fn highest(&self, actor: &ReplicaId) -> u64 {
        self.slots.get(actor).map_or(0, |slot| slot.seen)
    }

    /// Joins another state or delta. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CrdtError::TooManyActors`] or [`CrdtError::TooManySiblings`]; nothing changed then.
    pub fn merge(&mut self, other: &MultiRegister) -> Result<bool, CrdtError> {
        let taken: Vec<(&ReplicaId, &Slot)> =
            other.slots.iter().filter(|(actor, slot)| self.would_take(actor, slot)).collect();
        let held = || taken.iter().filter_map(|(actor, _)| self.slots.get(actor));
        if self.slots.len() + taken.len() - held().count() > MAX_ACTORS {
            return Err(CrdtError::TooManyActors);
        }
        let gone = held().filter(|slot| slot.is_present()).count();
        let added = taken.iter().filter(|(_, slot)| slot.is_present()).count();
        let present = self.present - gone + added;
        if present > MAX_SIBLINGS {
            return Err(CrdtError::TooManySiblings);
        }
        let changed = !taken.is_empty();
        for (actor, slot) in taken {
            self.slots.insert(*actor, slot.clone());
        }
        self.present = present;
        Ok(changed)
    }

    fn would_take(&self, actor: &ReplicaId, slot: &Slot) -> bool {
        self.slots.get(actor).is_none_or(|held| held < slot)
    }

    /// The writers of `other`'s values that would appear here, and those of unseen writes that it has replaced. To
    /// replace a write that this state shows is no news: everybody may.
    pub(super) fn news<'a>(
        &'a self,
        other: &'a MultiRegister,
    ) -> impl Iterator<Item = (ReplicaId, News)> + 'a {
        let taken = other.slots.iter().filter(|(actor, slot)| self.would_take(actor, slot));
        taken.filter_map(|(actor, slot)| match slot.write {
            Write::Present(_) => Some((*actor, News::Written)),
            Write::Replaced => (self.highest(actor) < slot.seen).then_some((*actor, News::Seen)),
        })
    }

    /// The slots that `author` has here and in `other`, under all its incarnations.
    pub(super) fn slots_with(&self, other: &MultiRegister, author: &PublicKey) -> usize {
        let fresh = other.slots.range(ReplicaId::all_of(author));
        self.slots.range(ReplicaId::all_of(author)).count()
            + fresh.filter(|(actor, _)| !self.slots.contains_key(actor)).count()
    }

    /// The number of writers.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.slots.len() as u64);
        for (actor, slot) in &self.slots {
            put_replica(out, actor);
            put_number(out, slot.seen);
            match &slot.write {
                Write::Replaced => put_number(out, 0),
                Write::Present(value) => {
                    put_number(out, 1);
                    put_bytes(out, value);
                }
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<MultiRegister, CrdtError> {
        const DAMAGED: CrdtError = CrdtError::NotCanonical("slots of a multi-value register");
        let mut register = MultiRegister::default();
        for _ in 0..reader.count(MAX_ACTORS, CrdtError::TooManyActors)? {
            let (actor, seen) = (reader.replica()?, reader.number()?);
            let write = match reader.number()? {
                0 => Write::Replaced,
                1 => Write::Present(reader.bytes(MAX_SIBLING_BYTES)?.to_vec()),
                _ => return Err(DAMAGED),
            };
            if seen == 0 || register.slots.last_key_value().is_some_and(|(last, _)| *last >= actor) {
                return Err(DAMAGED);
            }
            register.present += usize::from(write != Write::Replaced);
            register.slots.insert(actor, Slot { seen, write });
        }
        if register.present > MAX_SIBLINGS {
            return Err(CrdtError::TooManySiblings);
        }
        Ok(register)
    }
}
