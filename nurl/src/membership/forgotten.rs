//! Members that are no longer in the table, by the highest incarnation that was known of each.
//!
//! What a member has signed stays signed, so an old word could be told again after the member is forgotten, and would give
//! a place on the ring to somebody who left it. So a word of one who is forgotten counts only above what was known.

use std::collections::{BTreeMap, VecDeque};

use super::table::MAX_MEMBERS;
use crate::key::PublicKey;

/// The most that are remembered: as many as members. Beyond it, the word of the longest forgotten counts again; if nobody
/// answers for it, it is dead after a probe.
pub const MAX_FORGOTTEN: usize = MAX_MEMBERS;

/// The forgotten members.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    highest: BTreeMap<PublicKey, u64>,
    /// Their keys, longest forgotten first.
    order: VecDeque<PublicKey>,
}

impl Forgotten {
    /// A member was forgotten.
    pub(super) fn insert(&mut self, key: PublicKey, incarnation: u64) {
        self.remove(&key);
        if self.order.len() >= MAX_FORGOTTEN
            && let Some(longest) = self.order.pop_front()
        {
            self.highest.remove(&longest);
        }
        self.highest.insert(key, incarnation);
        self.order.push_back(key);
    }

    /// The highest incarnation that was known of one who is forgotten.
    pub(super) fn incarnation(&self, key: &PublicKey) -> Option<u64> {
        self.highest.get(key).copied()
    }

    /// It is a member again.
    pub(super) fn remove(&mut self, key: &PublicKey) {
        if self.highest.remove(key).is_some() {
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(at: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(at as u64).to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    #[test]
    fn the_longest_forgotten_makes_room() {
        let mut forgotten = Forgotten::default();
        (0..MAX_FORGOTTEN).for_each(|at| forgotten.insert(key(at), 1));
        forgotten.insert(key(0), 5);
        forgotten.insert(key(MAX_FORGOTTEN), 7);
        for (at, known) in [(0, Some(5)), (1, None), (2, Some(1)), (MAX_FORGOTTEN, Some(7))] {
            assert_eq!(forgotten.incarnation(&key(at)), known, "{at}");
        }
        forgotten.remove(&key(0));
        assert_eq!(forgotten.incarnation(&key(0)), None);
        assert_eq!((forgotten.highest.len(), forgotten.order.len()), (MAX_FORGOTTEN - 1, MAX_FORGOTTEN - 1));
    }
}
