//! The difference between two rings.

use super::snapshot::Ring;
use crate::key::PublicKey;

/// An arc of the ring whose owners changed: positions above `after` (exclusive) up to `upto` (inclusive). It
/// wraps when `after >= upto`; with `after == upto` it is the whole ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The position before the arc's first one.
    pub after: u64,
    /// The arc's last position.
    pub upto: u64,
    /// The owners in the old ring, in preference order.
    pub from: Vec<PublicKey>,
    /// The owners in the new ring, in preference order.
    pub to: Vec<PublicKey>,
}

impl Moved {
    /// Whether the arc covers `position`.
    pub fn covers(&self, position: u64) -> bool {
        // Distances clockwise from the arc's start, where 0 means once around.
        let length = self.upto.wrapping_sub(self.after).wrapping_sub(1);
        position.wrapping_sub(self.after).wrapping_sub(1) <= length
    }

    /// The members that owned the arc and no longer do.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: moves of keys as an event")
    )]
    pub fn losers(&self) -> impl Iterator<Item = &PublicKey> {
        self.from.iter().filter(|member| !self.to.contains(member))
    }

    /// The members that own the arc now and didn't before.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: moves of keys as an event")
    )]
    pub fn heirs(&self) -> impl Iterator<Item = &PublicKey> {
        self.to.iter().filter(|member| !self.from.contains(member))
    }
}

/// Every arc whose first `replicas` owners differ between two rings, including a mere change of their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The arcs, clockwise and disjoint; adjacent arcs with the same change are merged.
    pub arcs: Vec<Moved>,
}

impl Diff {
    /// The change at `position`, if there is one.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: moves of keys as an event")
    )]
    pub fn at(&self, position: u64) -> Option<&Moved> {
        self.arcs.iter().find(|arc| arc.covers(position))
    }

    /// How much of the ring changed, in parts of 2⁶⁴.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: moves of keys as an event")
    )]
    pub fn share(&self) -> u128 {
        self.arcs.iter().map(|arc| u128::from(arc.upto.wrapping_sub(arc.after).wrapping_sub(1)) + 1).sum()
    }
}

impl Diff {
    /// The difference between two rings. Costs a lookup in each for each point of both.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: moves of keys as an event")
    )]
    pub fn between(old: &Ring, new: &Ring, replicas: usize) -> Diff {
        let mut ends: Vec<u64> = old.points.iter().chain(new.points.iter()).map(|(at, _)| *at).collect();
        ends.sort_unstable();
        ends.dedup();
        let mut arcs: Vec<Moved> = Vec::new();
        let mut after = ends.last().copied().unwrap_or(0);
        for upto in ends {
            let from = old.owners_at(upto, replicas);
            let to = new.owners_at(upto, replicas);
            if from != to {
                match arcs.last_mut() {
                    Some(last) if last.upto == after && last.from == from && last.to == to => {
                        last.upto = upto
                    }
                    _ => arcs.push(Moved { after, upto, from, to }),
                }
            }
            after = upto;
        }
        Diff { arcs }
    }
}
