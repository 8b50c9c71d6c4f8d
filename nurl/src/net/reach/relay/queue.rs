//! The datagrams that wait for one client: bounded in bytes, drained fairly over their sources.
//!
//! Each source has its own row (a FIFO). A source has an [account](crate::authority::account): first invitations share
//! what is drained, then the passes of each, then the keys of each pass. Whoever was drained of the fewest bytes since it
//! came is next, and comes with as many as the one that was next (start-time fair queueing, Goyal, Vin and Cheng, 1996).
//! So a source that sends a lot delays itself. When the queue would exceed its limit, the oldest datagram of the *largest*
//! is dropped, chosen likewise (as in fq_codel, RFC 8290 §4.1.1), so a flood can't displace others, however many keys it
//! has.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::authority::account::{Account, Party};
use crate::key::PublicKey;
use crate::kit::shares::Holder as _;
use crate::rt::{Point, buggify};

/// The bytes counted for a datagram beside its own, so that a queue of empty datagrams is bounded too.
pub const ITEM_OVERHEAD_BYTES: usize = 64;

/// The bytes counted for a source with a datagram in the queue: a row and two tallies in maps.
pub const SOURCE_OVERHEAD_BYTES: usize = 640;

/// What a party has in the queue, and what of it was drained.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    bytes: usize,
    drained: u64,
}

#[derive(Debug, Default)]
struct Row {
    frames: VecDeque<Bytes>,
    tally: Tally,
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

/// A bounded queue for one client. It has some hundred sources at most, so that each step looks at all of them.
#[derive(Debug)]
pub struct FairQueue {
    limit_bytes: usize,
    bytes: usize,
    /// By invitation, pass and key; no row is empty.
    rows: BTreeMap<[Party; 3], Row>,
    /// Those of the invitations, and of the passes of each.
    tallies: BTreeMap<(Party, Option<Party>), Tally>,
}

impl FairQueue {
    /// An empty queue, limited to `limit_bytes`.
    pub fn new(limit_bytes: usize) -> FairQueue {
        FairQueue { limit_bytes, bytes: 0, rows: BTreeMap::new(), tallies: BTreeMap::new() }
    }

    /// Bytes queued, including [`ITEM_OVERHEAD_BYTES`] for each datagram and [`SOURCE_OVERHEAD_BYTES`] for each source.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the queue is empty.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "beside `len`"))]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether `source` has no datagram in the queue.
    pub fn is_new(&self, source: &Account) -> bool {
        !self.rows.contains_key(&source.path())
    }

    /// Queues an encoded frame from `source`.
    pub fn push(&mut self, source: Account, frame: Bytes) -> Pushed {
        let cost = frame.len() + ITEM_OVERHEAD_BYTES;
        if cost + SOURCE_OVERHEAD_BYTES > self.limit_bytes {
            return Pushed::Dropped { count: 1, tell: Vec::new() };
        }
        let path = source.path();
        self.arrive(&path);
        if let Some(row) = self.rows.get_mut(&path) {
            row.frames.push_back(frame);
        }
        self.count(&path, cost, 0);
        let (mut count, mut tell) = (0, Vec::new());
        while (self.bytes > self.limit_bytes || buggify(Point::HubDrops))
            && let Some(untold) = self.drop_one()
        {
            tell.extend(untold);
            count += 1;
        }
        if count == 0 { Pushed::Queued } else { Pushed::Dropped { count, tell } }
    }

    /// Drops the oldest datagram of the largest; returns its source, if that wasn't told yet. None: the queue is empty.
    pub fn drop_one(&mut self) -> Option<Option<PublicKey>> {
        let path = self.choose(|tally| usize::MAX - tally.bytes)?;
        let row = self.rows.get_mut(&path)?;
        let untold = !std::mem::replace(&mut row.told, true);
        self.take_oldest(&path);
        Some(untold.then_some(Account::of(&path).key()))
    }

    /// Takes the next frame, if its length is at most `room` bytes.
    pub fn pop(&mut self, room: usize) -> Option<Bytes> {
        let path = self.choose(|tally| tally.drained)?;
        let len = self.rows.get(&path)?.frames.front()?.len();
        if len > room {
            return None;
        }
        let (drained, [group, pass, _]) = ((len + ITEM_OVERHEAD_BYTES) as u64, path);
        for party in [(group, None), (group, Some(pass))] {
            self.tallies.entry(party).or_default().drained += drained;
        }
        self.rows.get_mut(&path)?.tally.drained += drained;
        self.take_oldest(&path)
    }

    /// Drops everything; returns the number of dropped datagrams.
    pub fn clear(&mut self) -> u64 {
        let count = self.rows.values().map(|row| row.frames.len() as u64).sum();
        *self = FairQueue::new(self.limit_bytes);
        count
    }

    /// The passes of an invitation.
    fn passes(&self, group: Party) -> impl Iterator<Item = (Party, &Tally)> {
        let passes = self.tallies.range((group, Some(Party::Nobody))..);
        let passes = passes.take_while(move |((of, _), _)| *of == group);
        passes.filter_map(|((_, pass), tally)| Some(((*pass)?, tally)))
    }

    fn groups(&self) -> impl Iterator<Item = (Party, &Tally)> {
        self.tallies.iter().filter(|((_, pass), _)| pass.is_none()).map(|((group, _), tally)| (*group, tally))
    }

    /// The rows of a pass, by their keys.
    fn keys(&self, group: Party, pass: Party) -> impl Iterator<Item = (Party, &Tally)> {
        let rows = self.rows.range([group, pass, Party::Nobody]..);
        let rows = rows.take_while(move |([of, by, _], _)| (*of, *by) == (group, pass));
        rows.map(|([.., key], row)| (*key, &row.tally))
    }

    /// The row with the least of something: of the invitations, then of its passes, then of the keys of that.
    fn choose<N: Ord>(&self, of: impl Fn(&Tally) -> N) -> Option<[Party; 3]> {
        let (group, _) = self.groups().min_by_key(|(_, tally)| of(tally))?;
        let (pass, _) = self.passes(group).min_by_key(|(_, tally)| of(tally))?;
        let (key, _) = self.keys(group, pass).min_by_key(|(_, tally)| of(tally))?;
        Some([group, pass, key])
    }

    /// Makes the tallies and the row of a source, if it has none. What is new begins as the one that is next.
    fn arrive(&mut self, path: &[Party; 3]) {
        let [group, pass, _] = *path;
        if self.rows.contains_key(path) {
            return;
        }
        let begin = |drained: Option<u64>| Tally { bytes: 0, drained: drained.unwrap_or(0) };
        let least = self.groups().map(|(_, tally)| tally.drained).min();
        self.tallies.entry((group, None)).or_insert(begin(least));
        let least = self.passes(group).map(|(_, tally)| tally.drained).min();
        self.tallies.entry((group, Some(pass))).or_insert(begin(least));
        let least = self.keys(group, pass).map(|(_, tally)| tally.drained).min();
        self.rows.insert(*path, Row { tally: begin(least), ..Row::default() });
        self.count(path, SOURCE_OVERHEAD_BYTES, 0);
    }

    fn count(&mut self, path: &[Party; 3], more: usize, less: usize) {
        let [group, pass, _] = *path;
        self.bytes = self.bytes + more - less;
        for party in [(group, None), (group, Some(pass))] {
            if let Some(tally) = self.tallies.get_mut(&party) {
                tally.bytes = tally.bytes + more - less;
                if tally.bytes == 0 {
                    self.tallies.remove(&party);
                }
            }
        }
        if let Some(row) = self.rows.get_mut(path) {
            row.tally.bytes = row.tally.bytes + more - less;
        }
    }

    fn take_oldest(&mut self, path: &[Party; 3]) -> Option<Bytes> {
        let row = self.rows.get_mut(path)?;
        let frame = row.frames.pop_front()?;
        let is_empty = row.frames.is_empty();
        let source = if is_empty { SOURCE_OVERHEAD_BYTES } else { 0 };
        self.count(path, 0, frame.len() + ITEM_OVERHEAD_BYTES + source);
        if is_empty {
            self.rows.remove(path);
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(n: u8) -> Account {
        Account::alone(PublicKey::from_bytes([n; 32]))
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
        let mut queue = FairQueue::new(10 * (1000 + ITEM_OVERHEAD_BYTES) + 2 * SOURCE_OVERHEAD_BYTES);
        assert_eq!(queue.push(source(2), frame(2, 1000)), Pushed::Queued);
        for n in 0..9u8 {
            assert_eq!(queue.push(source(1), Bytes::from(vec![n; 1000])), Pushed::Queued);
        }
        let first = queue.push(source(1), Bytes::from(vec![9; 1000]));
        assert_eq!(first, Pushed::Dropped { count: 1, tell: vec![source(1).key()] });
        let second = queue.push(source(3), Bytes::from(vec![77; 1000]));
        assert_eq!(second, Pushed::Dropped { count: 2, tell: vec![] }, "a row counts, too");
        let left: Vec<u8> = std::iter::from_fn(|| queue.pop(1 << 20)).map(|frame| frame[0]).collect();
        // These were the oldest datagrams of the flood; the quiet sources lost nothing.
        assert!(!left.contains(&0) && !left.contains(&1) && left.iter().filter(|n| **n == 2).count() == 1);
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
        assert!(place <= 1, "{place}");
    }

    #[test]
    fn the_slips_of_one_pass_are_drained_and_dropped_as_one_beside_another_ones() {
        // Of another invitation, and of another pass of the same one.
        for honest in [Account::for_tests(2, 2, 0), Account::for_tests(1, 2, 0)] {
            let mut queue = FairQueue::new(256 << 10);
            let mut kept = 0;
            for key in 1..1_000 {
                queue.push(Account::for_tests(1, 1, key), frame(1, 1200));
                if key % 10 == 0 {
                    queue.push(honest, frame(2, 1200));
                    kept += 1;
                }
            }
            let drained: Vec<u8> = std::iter::from_fn(|| queue.pop(1 << 20)).map(|frame| frame[0]).collect();
            assert_eq!(
                drained.iter().filter(|by| **by == 2).count(),
                kept,
                "it has less than the slips have"
            );
            let half = drained.iter().take(100).filter(|by| **by == 2).count();
            assert!((49..=51).contains(&half), "{half} of the first hundred");
        }
    }

    #[test]
    fn many_sources_of_little_take_the_memory_that_is_counted() {
        let mut queue = FairQueue::new(256 << 10);
        for key in 0..10_000 {
            queue.push(Account::for_tests(1, 1, key), Bytes::new());
        }
        assert!(queue.rows.len() <= (256 << 10) / (SOURCE_OVERHEAD_BYTES + ITEM_OVERHEAD_BYTES));
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
