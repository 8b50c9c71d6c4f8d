//! The peers, by key and by session index.
//!
//! Both look-ups are on the datagram path, so they use hash tables, seeded from the core's generator: peers choose
//! their own keys and must not be able to cause collisions. No iteration follows the hasher's order; peers are stored
//! in slots, in the order in which slots were allocated.

use std::hash::{BuildHasher, Hasher};

use indexmap::IndexMap;
use rand_core::Rng as _;

use super::peer::Peer;
use crate::key::PublicKey;
use crate::rt::Rng;

/// The default limit of known peers. A peer costs about 2 KiB, and up to 24 KiB with three sessions whose replay
/// windows have grown. In a larger mesh, a node keeps sessions with a part of the members.
pub const MAX_PEERS: usize = 4096;

/// A peer's position in the table.
pub(super) type Slot = u32;

/// Peers and the indices that lead to them.
pub(super) struct Table {
    slots: Vec<Option<Box<Peer>>>,
    free: Vec<Slot>,
    by_key: IndexMap<PublicKey, Slot, Seeded>,
    by_index: IndexMap<u32, Slot, Seeded>,
}

impl Table {
    pub(super) fn new(rng: &mut Rng) -> Table {
        let seed = Seeded(rng.next_u64());
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: IndexMap::with_hasher(seed),
            by_index: IndexMap::with_hasher(seed),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn slot_of(&self, key: &PublicKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    pub(super) fn slot_of_index(&self, index: u32) -> Option<Slot> {
        self.by_index.get(&index).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Peer> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Peer> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Peer)> {
        self.slots.iter().zip(0..).filter_map(|(peer, slot)| Some((slot, peer.as_deref()?)))
    }

    /// Adds a peer; the caller has checked that it fits and that its key is new.
    pub(super) fn insert(&mut self, peer: Peer) -> Slot {
        let key = peer.key;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(Box::new(peer));
                slot
            }
            None => {
                self.slots.push(Some(Box::new(peer)));
                (self.slots.len() - 1) as Slot
            }
        };
        self.by_key.insert(key, slot);
        slot
    }

    /// Removes a peer; the caller releases its indices first.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Box<Peer>> {
        let peer = self.slots.get_mut(slot as usize)?.take()?;
        self.by_key.swap_remove(&peer.key);
        self.free.push(slot);
        Some(peer)
    }

    /// Draws an index that leads to `slot`: random, so that sessions can't be linked and indices can't be guessed.
    pub(super) fn allocate_index(&mut self, slot: Slot, rng: &mut Rng) -> u32 {
        loop {
            let index = rng.next_u32();
            if !self.by_index.contains_key(&index) {
                self.by_index.insert(index, slot);
                return index;
            }
        }
    }

    pub(super) fn release_index(&mut self, index: u32) {
        self.by_index.swap_remove(&index);
    }

    #[cfg(test)]
    pub(super) fn indices(&self) -> Vec<u32> {
        self.by_index.keys().copied().collect()
    }
}

/// A seeded hash for keys that are nearly random already: one multiplication per eight bytes.
#[derive(Debug, Clone, Copy)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    fn write_usize(&mut self, _: usize) {
        // The length of a key is always the same.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
