//! Last-writer-wins register.
//!
//! Writes are ordered by stamp, then replica id, then value, so two states with equal stamps merge to the same state
//! in either order. A write whose stamp is too far ahead of the merging node's clock is **parked**: it is part of the
//! state (so digests agree), but it isn't shown until the clock reaches its stamp. So a fast clock's writes are
//! neither refused silently nor win for ever.
//!
//! A write without a value takes the value away.
//!
//! Encoding: `0 | 1 ‖ write`, then `n, n × write` parked, all ascending;
//! a write is `wall_ms, logical, replica:40, 0 | 1 ‖ length, bytes`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::clock::{Clock, Stamp};
use super::codec::{Reader, put_bytes, put_number, put_replica};
use super::{CrdtError, MAX_STATE_BYTES};
use crate::replication::identity::ReplicaId;

/// The longest value. It is a fraction of a message, because parked writes are sent along.
pub const MAX_REGISTER_BYTES: usize = 48 * 1024;

/// The most parked writes that a register keeps: those due first, and the greatest, which wins in the end. Keeping both
/// ends of the order is a join like the maximum: the ends of a union are among the ends of its parts. With the current
/// write they fit into a message.
pub const MAX_PARKED: usize = 16;

const _: () = assert!((MAX_PARKED + 1) * (MAX_REGISTER_BYTES + 64) < MAX_STATE_BYTES);

/// One write; its order is the order of the register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Write {
    stamp: Stamp,
    replica: ReplicaId,
    value: Option<Vec<u8>>,
}

/// A register whose last writer wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LwwRegister {
    current: Option<Write>,
    parked: BTreeSet<Write>,
}

impl LwwRegister {
    /// Writes as `replica`, and returns the delta.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`] or [`CrdtError::ClockDrift`]; nothing changed then.
    pub fn set(
        &mut self,
        replica: ReplicaId,
        clock: &mut Clock,
        wall: Duration,
        value: &[u8],
    ) -> Result<LwwRegister, CrdtError> {
        if value.len() > MAX_REGISTER_BYTES {
            return Err(CrdtError::TooLarge { size: value.len(), limit: MAX_REGISTER_BYTES });
        }
        if let Some(current) = &self.current {
            clock.observe(current.stamp, wall);
        }
        let delta = LwwRegister::of(clock.tick(wall)?, replica, Some(value.to_vec()));
        self.merge(&delta, wall);
        Ok(delta)
    }

    /// The delta that takes away what is older than `stamp`.
    pub fn removing(stamp: Stamp, replica: ReplicaId) -> LwwRegister {
        LwwRegister::of(stamp, replica, None)
    }

    fn of(stamp: Stamp, replica: ReplicaId, value: Option<Vec<u8>>) -> LwwRegister {
        LwwRegister { current: Some(Write { stamp, replica, value }), parked: BTreeSet::new() }
    }

    /// Whether no value is shown, and none waits.
    pub fn is_empty(&self) -> bool {
        self.value().is_none() && self.parked.is_empty()
    }

    /// The value shown, if there is one.
    pub fn value(&self) -> Option<&[u8]> {
        self.current.as_ref()?.value.as_deref()
    }

    /// The stamp of the value shown.
    pub fn stamp(&self) -> Option<Stamp> {
        self.current.as_ref().map(|write| write.stamp)
    }

    /// The number of writes that wait for the clock.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Joins another state, as seen by a clock that shows `wall`. Returns whether anything changed.
    pub fn merge(&mut self, other: &LwwRegister, wall: Duration) -> bool {
        // Afterwards the clock has reached none of the parked writes, so none is below a write that it has reached.
        let mut changed = self.settle(wall);
        for write in other.current.iter().chain(&other.parked) {
            if !self.would_take(write) {
                continue;
            }
            changed = true;
            if write.stamp.is_settled(wall) {
                self.current = Some(write.clone());
            } else {
                self.park(write.clone());
            }
        }
        changed
    }

    /// Whether a merge would show or park this write.
    fn would_take(&self, write: &Write) -> bool {
        let is_later = self.current.as_ref().is_none_or(|current| current < write);
        is_later && !self.parked.contains(write) && !self.is_crowded_out(write)
    }

    /// Whether a new write would be neither among the parked ones that are due first nor the greatest.
    fn is_crowded_out(&self, write: &Write) -> bool {
        let mut from_last = self.parked.iter().rev();
        let (last, before) = (from_last.next(), from_last.next());
        self.parked.len() >= MAX_PARKED && last > Some(write) && before < Some(write)
    }

    /// Parks a write that isn't crowded out. If there are too many, the one before the greatest goes.
    fn park(&mut self, write: Write) {
        self.parked.insert(write);
        if self.parked.len() > MAX_PARKED {
            let greatest = self.parked.pop_last();
            self.parked.pop_last();
            self.parked.extend(greatest);
        }
    }

    /// Shows the parked writes that the clock has reached. Returns whether anything changed.
    pub fn settle(&mut self, wall: Duration) -> bool {
        let mut changed = false;
        // If the clock went back, the current write's stamp may exceed its bound. It stays shown, or reads would go
        // back.
        while self.parked.first().is_some_and(|write| write.stamp.is_settled(wall)) {
            let write = self.parked.pop_first();
            self.current = self.current.take().max(write);
            changed = true;
        }
        if let Some(current) = &self.current {
            let before = self.parked.len();
            self.parked.retain(|write| write > current);
            changed |= self.parked.len() != before;
        }
        changed
    }

    /// The writers of those of `other`'s writes that would take part here.
    pub(super) fn news<'a>(&'a self, other: &'a LwwRegister) -> impl Iterator<Item = ReplicaId> + 'a {
        let writes = other.current.iter().chain(&other.parked);
        let fresh = writes.filter(|write| self.would_take(write));
        fresh.map(|write| write.replica)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, u64::from(self.current.is_some()));
        if let Some(write) = &self.current {
            write.encode(out);
        }
        put_number(out, self.parked.len() as u64);
        for write in &self.parked {
            write.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<LwwRegister, CrdtError> {
        let current = match reader.number()? {
            0 => None,
            1 => Some(Write::decode(reader)?),
            _ => return Err(CrdtError::NotCanonical("register")),
        };
        let count = reader.count(MAX_PARKED, CrdtError::NotCanonical("parked writes"))?;
        let mut parked: BTreeSet<Write> = BTreeSet::new();
        for _ in 0..count {
            let write = Write::decode(reader)?;
            if parked.last().or(current.as_ref()).is_some_and(|last| *last >= write) {
                return Err(CrdtError::NotCanonical("parked writes"));
            }
            parked.insert(write);
        }
        Ok(LwwRegister { current, parked })
    }
}

impl Write {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.stamp.wall_ms);
        put_number(out, u64::from(self.stamp.logical));
        put_replica(out, &self.replica);
        put_number(out, u64::from(self.value.is_some()));
        if let Some(value) = &self.value {
            put_bytes(out, value);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Write, CrdtError> {
        let wall_ms = reader.number()?;
        let logical = u32::try_from(reader.number()?).map_err(|_| CrdtError::NotCanonical("stamp"))?;
        let replica = reader.replica()?;
        let value = match reader.number()? {
            0 => None,
            1 => Some(reader.bytes(MAX_REGISTER_BYTES)?.to_vec()),
            _ => return Err(CrdtError::NotCanonical("a write")),
        };
        Ok(Write { stamp: Stamp { wall_ms, logical }, replica, value })
    }
}
