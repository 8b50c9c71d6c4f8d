//! The datagrams that wait for one client: bounded in bytes, drained fairly over their sources.
//!
//! Each source has its own row (a FIFO). Rows are drained by deficit round-robin (Shreedhar and Varghese,
//! 1995), so a source that sends a lot delays itself. When the queue would exceed its limit, the oldest
//! datagram of the *longest* row is dropped (as in fq_codel, RFC 8290 §4.1.1), so a flood can't displace
//! other sources.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::key::PublicKey;

/// The bytes counted for a datagram beside its own, so that a queue of empty datagrams is bounded too.
pub const ITEM_OVERHEAD_BYTES: usize = 64;

/// The bytes that a row may send before the next row's turn: one of the largest datagrams with its frame, so
/// that each turn sends at least one.
const QUANTUM_BYTES: usize = super::frame::MAX_DATAGRAM_BYTES + 128;

#[derive(Debug, Default)]
struct Row {
    frames: VecDeque<Bytes>,
    bytes: usize,
    deficit: usize,
    /// The source has been told of a drop since the row was last empty.
    told: bool,
}

/// The result of [`FairQueue::push`].
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Queued without a drop.
    Queued,
    /// Datagrams were dropped to make way.
    Dropped {
        /// The number of datagrams.
        count: u64,
        /// The sources that haven't been told of a drop since their row was last empty.
        tell: Vec<PublicKey>,
    },
}

/// A bounded queue for one client.
#[derive(Debug)]
pub struct FairQueue {
    limit_bytes: usize,
    bytes: usize,
    rows: BTreeMap<PublicKey, Row>,
    turns: VecDeque<PublicKey>,
    /// The rows ordered by size: the last one is the longest.
    by_bytes: BTreeSet<(usize, PublicKey)>,
}

impl FairQueue {
    /// An empty queue, limited to `limit_bytes`.
    pub fn new(limit_bytes: usize) -> FairQueue {
        FairQueue {
            limit_bytes,
            bytes: 0,
            rows: BTreeMap::new(),
            turns: VecDeque::new(),
            by_bytes: BTreeSet::new(),
        }
    }

    /// Bytes queued, including [`ITEM_OVERHEAD_BYTES`] for each datagram.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the queue is empty.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "beside `len`"))]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether `source` has no datagram in the queue.
    pub fn is_new(&self, source: &PublicKey) -> bool {
        !self.rows.contains_key(source)
    }

    /// Queues an encoded frame from `source`.
    pub fn push(&mut self, source: PublicKey, frame: Bytes) -> Pushed {
        let cost = frame.len() + ITEM_OVERHEAD_BYTES;
        if cost > self.limit_bytes {
            return Pushed::Dropped { count: 1, tell: Vec::new() };
        }
        let row = self.rows.entry(source).or_insert_with(|| {
            self.turns.push_back(source);
            Row::default()
        });
        self.by_bytes.remove(&(row.bytes, source));
        row.frames.push_back(frame);
        row.bytes += cost;
        self.bytes += cost;
        self.by_bytes.insert((row.bytes, source));
        if self.bytes <= self.limit_bytes {
            return Pushed::Queued;
        }
        let (mut count, mut tell) = (0, Vec::new());
        while self.bytes > self.limit_bytes {
            let Some(&(_, longest)) = self.by_bytes.last() else { break };
            let Some(row) = self.rows.get_mut(&longest) else { break };
            if !std::mem::replace(&mut row.told, true) {
                tell.push(longest);
            }
            self.take_oldest(&longest);
            count += 1;
        }
        Pushed::Dropped { count, tell }
    }

    /// Takes the next frame, if its length is at most `room` bytes.
    pub fn pop(&mut self, room: usize) -> Option<Bytes> {
        loop {
            let source = *self.turns.front()?;
            let row = self.rows.get_mut(&source)?;
            let len = row.frames.front()?.len();
            if len > row.deficit {
                row.deficit += QUANTUM_BYTES;
                // With one row the rotation changes nothing.
                self.turns.rotate_left(1);
                continue;
            }
            if len > room {
                return None;
            }
            row.deficit -= len;
            return self.take_oldest(&source);
        }
    }

    /// Drops everything; returns the number of dropped datagrams.
    pub fn clear(&mut self) -> u64 {
        let count = self.rows.values().map(|row| row.frames.len() as u64).sum();
        *self = FairQueue::new(self.limit_bytes);
        count
    }

    fn take_oldest(&mut self, source: &PublicKey) -> Option<Bytes> {
        let row = self.rows.get_mut(source)?;
        let frame = row.frames.pop_front()?;
        let cost = frame.len() + ITEM_OVERHEAD_BYTES;
        self.by_bytes.remove(&(row.bytes, *source));
        row.bytes -= cost;
        self.bytes -= cost;
        if row.frames.is_empty() {
            self.rows.remove(source);
            if self.turns.front() == Some(source) {
                self.turns.pop_front();
            } else {
                self.turns.retain(|turn| turn != source);
            }
        } else {
            self.by_bytes.insert((row.bytes, *source));
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn frame(source: u8, len: usize) -> Bytes {
        Bytes::from(vec![source; len])
    }

    #[test]
    fn one_source_keeps_its_order() {
        let mut queue = FairQueue::new(10_000);
        for n in 0..5u8 {
            assert_eq!(queue.push(source(1), Bytes::from(vec![n; 10])), Pushed::Queued);
        }
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop(100)).map(|frame| frame[0]).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_of_the_source_that_holds_most_and_tells_it_once() {
        let mut queue = FairQueue::new(10 * (1000 + ITEM_OVERHEAD_BYTES));
        assert_eq!(queue.push(source(2), frame(2, 1000)), Pushed::Queued);
        for n in 0..9u8 {
            assert_eq!(queue.push(source(1), Bytes::from(vec![n; 1000])), Pushed::Queued);
        }
        let first = queue.push(source(1), Bytes::from(vec![9; 1000]));
        assert_eq!(first, Pushed::Dropped { count: 1, tell: vec![source(1)] });
        let second = queue.push(source(3), Bytes::from(vec![77; 1000]));
        assert_eq!(second, Pushed::Dropped { count: 1, tell: vec![] });
        let left: Vec<u8> = std::iter::from_fn(|| queue.pop(1 << 20)).map(|frame| frame[0]).collect();
        // 0 and 1 were the oldest datagrams of the flood; the quiet sources lost nothing.
        assert!(!left.contains(&0) && !left.contains(&1));
        assert!(left.contains(&2) && left.contains(&77) && left.contains(&9));
    }

    #[test]
    fn a_flood_delays_itself_and_not_the_quiet_source() {
        let mut queue = FairQueue::new(1 << 20);
        for _ in 0..600 {
            queue.push(source(1), frame(1, 1200));
        }
        queue.push(source(2), frame(2, 1200));
        let place = std::iter::from_fn(|| queue.pop(1 << 20)).position(|frame| frame[0] == 2).unwrap();
        assert!(place * 1200 <= 2 * QUANTUM_BYTES, "{place}");
    }

    #[test]
    fn a_frame_that_finds_no_room_stays_first() {
        let mut queue = FairQueue::new(100_000);
        queue.push(source(1), frame(1, 500));
        assert_eq!(queue.pop(499), None);
        assert_eq!(queue.pop(500).unwrap().len(), 500);
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_nothing_is_lost_uncounted(
            steps in proptest::collection::vec((0u8..5, 0usize..3000, any::<bool>()), 1..200),
        ) {
            const LIMIT: usize = 20_000;
            let mut queue = FairQueue::new(LIMIT);
            let (mut pushed, mut popped, mut dropped) = (0u64, 0u64, 0u64);
            for (from, len, pop) in steps {
                if pop {
                    popped += u64::from(queue.pop(usize::MAX).is_some());
                } else {
                    pushed += 1;
                    if let Pushed::Dropped { count, .. } = queue.push(source(from), frame(from, len)) {
                        dropped += count;
                    }
                }
                prop_assert!(queue.bytes() <= LIMIT);
            }
            while queue.pop(usize::MAX).is_some() {
                popped += 1;
            }
            prop_assert_eq!(queue.bytes(), 0);
            prop_assert_eq!(pushed, popped + dropped);
        }
    }
}
