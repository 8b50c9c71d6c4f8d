//! Push-pull exchanges of whole tables: a node joins by one, and they repair losses of gossip.
//!
//! An exchange is a request and an answer over the reliable leg, each a run of chunks of at most
//! [`MAX_CHUNK_BYTES`](super::message::MAX_CHUNK_BYTES), so a table never outgrows a message. Each chunk is merged on
//! arrival, since merging is commutative; the answer is complete when all its chunks have arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::message::TableChunk;
use super::per_second::PerSecond;
use crate::key::PublicKey;
use crate::rt::{Point, buggify};

/// The most chunks of a table: all [`MAX_MEMBERS`](super::table::MAX_MEMBERS) with the largest metadata and passes and
/// four accusers each take about 230.
pub const MAX_CHUNKS: u32 = 256;

/// The most exchanges of this node under way. A join that gets no answers starts three a second, each for ten
/// seconds; the rest is for unknown peers that turn up.
pub const MAX_PENDING: usize = 40;

/// Facts per second sent in answers: 32 of the largest tables, which cost 1.6 MiB each. A newcomer without an
/// answer asks another member. A small mesh must not refuse the clients of a busy loop: it answers thousands.
pub const MAX_FACTS_PER_SECOND: usize = 32 * super::table::MAX_MEMBERS;

/// A peer that has sent no part of the answer for this long may be asked again: it may have refused because it was
/// busy, or its process may have been replaced. By then a large table on a slow path has begun to arrive.
pub const ASK_AGAIN: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct PendingExchange {
    peer: PublicKey,
    begun: Instant,
    until: Instant,
    got: BTreeSet<u32>,
}

/// The exchanges under way.
#[derive(Debug, Default)]
pub struct PushPull {
    pending: BTreeMap<u64, PendingExchange>,
    /// The facts sent in answers.
    answered: PerSecond,
}

impl PushPull {
    /// Starts an exchange. False if one with this peer is under way and not overdue, or if too many are under way.
    pub fn start(&mut self, now: Instant, timeout: Duration, id: u64, peer: PublicKey) -> bool {
        let overdue = |pending: &PendingExchange| pending.got.is_empty() && pending.begun + ASK_AGAIN <= now;
        let busy = self.pending.values().any(|pending| pending.peer == peer && !overdue(pending));
        if busy || self.pending.len() >= MAX_PENDING || buggify(Point::ExchangeBusy) {
            return false;
        }
        let pending = PendingExchange { peer, begun: now, until: now + timeout, got: BTreeSet::new() };
        self.pending.insert(id, pending);
        true
    }

    /// A chunk of an answer: `None` if this node didn't ask for it, else whether the answer is complete.
    pub fn answer(&mut self, from: &PublicKey, chunk: TableChunk) -> Option<bool> {
        let pending = self.pending.get_mut(&chunk.id).filter(|pending| pending.peer == *from)?;
        pending.got.insert(chunk.index);
        let complete = pending.got.len() as u32 >= chunk.total;
        if complete {
            self.cancel(from);
        }
        Some(complete)
    }

    /// Ends the exchanges with a peer that can't answer or has no table to give. Returns whether there were any.
    pub fn cancel(&mut self, peer: &PublicKey) -> bool {
        let before = self.pending.len();
        self.pending.retain(|_, pending| pending.peer != *peer);
        self.pending.len() < before
    }

    /// Whether a request may be answered now with a table of `facts` facts.
    pub fn may_answer(&mut self, now: Instant, facts: usize) -> bool {
        self.answered.add(now, facts) <= MAX_FACTS_PER_SECOND && !buggify(Point::TableRefused)
    }

    /// Ends the exchanges that took too long and returns their peers.
    pub fn expire(&mut self, now: Instant) -> Vec<PublicKey> {
        let late = self.pending.extract_if(.., |_, pending| pending.until <= now);
        late.map(|(_, pending)| pending.peer).collect()
    }

    /// When [`expire`](PushPull::expire) next has an exchange to end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.until).min()
    }
}

/// Packs encoded facts into chunks of at most `room` bytes each; at least one chunk, even without facts.
pub(crate) fn pack(facts: impl Iterator<Item = Vec<u8>>, room: usize, most: usize) -> Vec<Vec<Vec<u8>>> {
    let most = if buggify(Point::TableInCrumbs) { 1 } else { most };
    let (mut chunks, mut chunk, mut used) = (Vec::new(), Vec::new(), 0);
    for fact in facts {
        if !chunk.is_empty() && (used + fact.len() > room || chunk.len() >= most) {
            chunks.push(std::mem::take(&mut chunk));
            used = 0;
        }
        used += fact.len();
        chunk.push(fact);
    }
    chunks.push(chunk);
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    #[test]
    fn an_answer_is_complete_when_every_chunk_came_in_whatever_order() {
        let now = crate::rt::test_now();
        let mut exchanges = PushPull::default();
        assert!(exchanges.start(now, TIMEOUT, 5, key(1)));
        let chunk = |index| TableChunk { id: 5, index, total: 3, revocations: [0; 32] };
        assert_eq!(exchanges.answer(&key(1), chunk(2)), Some(false));
        assert_eq!(exchanges.answer(&key(1), chunk(2)), Some(false), "a repeated chunk counts once");
        assert_eq!(exchanges.answer(&key(2), chunk(0)), None, "not whom we asked");
        assert_eq!(exchanges.answer(&key(1), chunk(0)), Some(false));
        assert_eq!(exchanges.answer(&key(1), chunk(1)), Some(true));
        assert_eq!(exchanges.answer(&key(1), chunk(1)), None);
    }

    #[test]
    fn exchanges_are_bounded_and_end() {
        let now = crate::rt::test_now();
        let mut exchanges = PushPull::default();
        for at in 0..MAX_PENDING as u8 {
            assert!(exchanges.start(now, TIMEOUT, at.into(), key(at)));
        }
        assert!(!exchanges.start(now, TIMEOUT, 99, key(99)));
        assert_eq!(exchanges.poll_timeout(), Some(now + TIMEOUT));
        assert_eq!(exchanges.expire(now + TIMEOUT).len(), MAX_PENDING);
        assert!(exchanges.start(now, TIMEOUT, 99, key(99)));
        assert!(!exchanges.start(now, TIMEOUT, 100, key(99)), "one with each peer");
    }

    #[test]
    fn a_peer_of_which_nothing_came_is_asked_again_and_either_answer_counts() {
        let now = crate::rt::test_now();
        let mut exchanges = PushPull::default();
        assert!(exchanges.start(now, TIMEOUT, 1, key(1)));
        assert!(!exchanges.start(now + ASK_AGAIN - Duration::from_millis(1), TIMEOUT, 2, key(1)));
        let later = now + ASK_AGAIN;
        assert!(exchanges.start(later, TIMEOUT, 2, key(1)));
        assert_eq!(
            exchanges.answer(&key(1), TableChunk { id: 1, index: 0, total: 2, revocations: [0; 32] }),
            Some(false)
        );
        assert_eq!(
            exchanges.answer(&key(1), TableChunk { id: 1, index: 1, total: 2, revocations: [0; 32] }),
            Some(true)
        );
        assert_eq!(exchanges.poll_timeout(), None, "the other one is answered too");
        assert!(exchanges.start(later, TIMEOUT, 3, key(1)));
        assert_eq!(
            exchanges.answer(&key(1), TableChunk { id: 3, index: 0, total: 2, revocations: [0; 32] }),
            Some(false)
        );
        assert!(!exchanges.start(later + ASK_AGAIN, TIMEOUT, 4, key(1)), "its table is on the way");
    }

    #[test]
    fn answers_are_limited_per_second_by_what_they_cost() {
        let now = crate::rt::test_now();
        let mut exchanges = PushPull::default();
        let largest = crate::membership::table::MAX_MEMBERS;
        let granted = (0..100).filter(|_| exchanges.may_answer(now, largest)).count();
        assert_eq!(granted, 32);
        let later = now + Duration::from_secs(1);
        let granted = (0..10_000).filter(|_| exchanges.may_answer(later, 3)).count();
        assert_eq!(granted, 10_000, "a small table is answered to every client of a busy loop");
    }

    #[test]
    fn chunks_hold_everything_and_none_outgrows_its_room() {
        let facts = (0..100usize).map(|at| vec![0; 1 + at % 7]);
        let chunks = pack(facts, 20, 4);
        assert!(
            chunks.iter().all(|chunk| chunk.len() <= 4 && chunk.iter().map(Vec::len).sum::<usize>() <= 20)
        );
        assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), 100);
        assert_eq!(pack(std::iter::empty(), 20, 4), vec![Vec::<Vec<u8>>::new()]);
    }
}
