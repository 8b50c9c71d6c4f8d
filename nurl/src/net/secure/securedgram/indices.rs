//! The session indices: random numbers by which peers address our sessions and handshakes.

use std::hash::{BuildHasher, Hasher};

use indexmap::IndexMap;
use rand_core::Rng as _;

use super::table::Slot;
use crate::rt::Rng;

/// The slot to which each index leads.
pub(super) struct SessionIndices(IndexMap<u32, Slot, Seeded>);

impl SessionIndices {
    pub(super) fn new(seed: Seeded) -> SessionIndices {
        SessionIndices(IndexMap::with_hasher(seed))
    }

    pub(super) fn slot_of(&self, index: u32) -> Option<Slot> {
        self.0.get(&index).copied()
    }

    /// Draws an index that leads to `slot`: random, so that sessions can't be linked and indices can't be guessed.
    pub(super) fn allocate(&mut self, slot: Slot, rng: &mut Rng) -> u32 {
        loop {
            let index = rng.next_u32();
            if !self.0.contains_key(&index) {
                self.0.insert(index, slot);
                return index;
            }
        }
    }

    pub(super) fn release(&mut self, index: u32) {
        self.0.swap_remove(&index);
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }
}

/// A seeded hash for keys that are nearly random already: one multiplication per eight bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded(pub(super) u64);

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

pub(super) struct Mixer(u64);

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
