//! One file: its bytes in the page cache, and what the disk has of them.
//!
//! The kernel may write a changed sector back at any moment between two syncs, in any order. So a sector that was
//! written several times since the last sync may have any of these versions on the disk, and so may the length.
//! Instead of all versions, `undo` and `durable_len` keep one, replaced by lot at each further change.

use crate::seed::{Rng, below};
use rand_core::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The bytes that a disk writes atomically.
pub(super) const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct Inode {
    /// The content in the page cache.
    pub(super) bytes: Vec<u8>,
    /// A version on the disk of each sector that is dirty or unwritten; zeros if none.
    undo: BTreeMap<usize, Vec<u8>>,
    /// Sectors changed since the last sync.
    dirty: BTreeSet<usize>,
    /// Clean sectors whose content is not on the disk, because a sync failed.
    unwritten: BTreeSet<usize>,
    /// Bits that are flipped on the disk and not yet in the page cache: the byte, and the bit in it.
    flipped: BTreeSet<(usize, u8)>,
    durable_len: usize,
    pub(super) handles: u32,
    /// Whether a handle has locked it.
    pub(super) locked: bool,
}

fn lot(rng: &mut Rng) -> bool {
    rng.next_u32() & 1 == 1
}

impl Inode {
    fn sector(&self, sector: usize) -> Range<usize> {
        let len = self.bytes.len();
        (sector * SECTOR).min(len)..((sector + 1) * SECTOR).min(len)
    }

    /// Marks the sectors of `range` as dirty, and keeps the version of each that is on the disk.
    fn touch(&mut self, range: Range<usize>, rng: &mut Rng) {
        if range.is_empty() {
            return;
        }
        for sector in range.start / SECTOR..=(range.end - 1) / SECTOR {
            let cached = self.sector(sector);
            let was_unwritten = self.unwritten.remove(&sector);
            let is_first = self.dirty.insert(sector);
            if cached.is_empty() || (is_first && was_unwritten) {
                continue;
            }
            if is_first || lot(rng) {
                self.undo.insert(sector, self.bytes[cached].to_vec());
            }
            if is_first {
                let bits = self.flipped.range((sector * SECTOR, 0)..((sector + 1) * SECTOR, 0));
                let bits: Vec<_> = bits.copied().collect();
                for bit in bits {
                    self.flipped.remove(&bit);
                    self.flip_undo(bit);
                }
            }
        }
    }

    /// Notes that the length is about to change.
    fn touch_len(&mut self, rng: &mut Rng) {
        let len = self.bytes.len();
        if self.durable_len != len && lot(rng) {
            self.durable_len = len;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize, rng: &mut Rng) {
        let (old_len, end) = (self.bytes.len(), offset + bytes.len());
        self.touch(offset.min(old_len)..end, rng);
        if end > old_len {
            self.touch_len(rng);
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, len: usize, rng: &mut Rng) {
        let old_len = self.bytes.len();
        if len == old_len {
            return;
        }
        self.touch(old_len.min(len)..old_len.max(len), rng);
        self.touch_len(rng);
        self.bytes.resize(len, 0);
    }

    /// Writes all dirty sectors to the disk. The unwritten ones count as clean, so they are left out.
    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        let unwritten = &self.unwritten;
        self.undo.retain(|sector, _| unwritten.contains(sector));
        self.durable_len = self.bytes.len();
    }

    /// A sync that fails: at least one of the dirty sectors is not on the disk. The kernel marks all of them as clean
    /// nevertheless, so no later sync writes them again.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        let dirty: Vec<usize> = std::mem::take(&mut self.dirty).into_iter().collect();
        let surely = below(rng.next_u64(), dirty.len() as u64) as usize;
        for (at, sector) in dirty.into_iter().enumerate() {
            if lot(rng) || at == surely {
                self.unwritten.insert(sector);
            } else {
                self.undo.remove(&sector);
            }
        }
    }

    /// The number of bits of which the disk has a durable version.
    pub(super) fn durable_bits(&self) -> u64 {
        self.durable_len as u64 * 8
    }

    /// Flips a bit below [`durable_bits`](Inode::durable_bits) on the disk.
    pub(super) fn flip(&mut self, bit: u64) {
        let bit = ((bit / 8) as usize, (bit % 8) as u8);
        let sector = bit.0 / SECTOR;
        if self.dirty.contains(&sector) || self.unwritten.contains(&sector) {
            self.flip_undo(bit);
        } else if !self.flipped.insert(bit) {
            self.flipped.remove(&bit);
        }
    }

    fn flip_undo(&mut self, (at, bit): (usize, u8)) {
        let old = self.undo.get_mut(&(at / SECTOR));
        if let Some(byte) = old.and_then(|old| old.get_mut(at % SECTOR)) {
            *byte ^= 1 << bit;
        }
    }

    /// Drops the clean sectors from the page cache, so that they are read from the disk.
    pub(super) fn drop_cache(&mut self) {
        for (at, bit) in std::mem::take(&mut self.flipped) {
            if let Some(byte) = self.bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// Whether a power loss would change nothing.
    pub(super) fn is_durable(&self) -> bool {
        self.dirty.is_empty() && self.unwritten.is_empty() && self.durable_len == self.bytes.len()
    }

    /// The number of dirty sectors.
    pub(super) fn dirty_sectors(&self) -> u64 {
        self.dirty.len() as u64
    }

    /// Changes the content to the version that the next boot sees. Returns the number of written sectors that were
    /// lost.
    pub(super) fn power_loss(&mut self, rng: &mut Rng) -> u64 {
        self.drop_cache();
        if self.is_durable() {
            return 0;
        }
        let mut lost = 0;
        let old_len = self.bytes.len();
        let len = if old_len != self.durable_len && !lot(rng) { self.durable_len } else { old_len };
        if len > old_len {
            self.bytes.resize(len, 0);
        }
        let dirty = std::mem::take(&mut self.dirty).into_iter().map(|sector| (sector, true));
        let unwritten = std::mem::take(&mut self.unwritten).into_iter().map(|sector| (sector, false));
        for (sector, may_be_written) in dirty.chain(unwritten) {
            let kept = may_be_written && lot(rng);
            // If a truncation didn't reach the disk, the truncated bytes are still there.
            let cut_away = sector * SECTOR >= old_len;
            if kept && !cut_away {
                continue;
            }
            lost += 1;
            let range = self.sector(sector);
            self.bytes[range.clone()].fill(0);
            if let Some(old) = self.undo.get(&sector) {
                let n = old.len().min(range.len());
                self.bytes[range.start..range.start + n].copy_from_slice(&old[..n]);
            }
        }
        self.bytes.truncate(len);
        self.undo.clear();
        self.durable_len = len;
        lost
    }
}
