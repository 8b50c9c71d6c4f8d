//! What is remembered of inits, so that a replay draws no answer: the last that came, and the timestamps of peers that
//! this process has forgotten or has never met.
//!
//! An init whose timestamp isn't newer than all that is known of its sender may be a replay, and an answer to it would tell
//! an outsider where we are. A process that has just started knows nothing of its peers, but a real init is made after
//! that. So the *floor* of a peer without a timestamp is our own start, less [`CLOCKS_DIFFER`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::mac::Mac;
use super::timestamp::{Timestamp, stamp};
use crate::key::PublicKey;

/// How far the clocks of two machines may differ without notice: as far as one may be ahead for replicated state
/// (`replication/crdt/clock.rs`). A peer whose clock is further behind needs a voucher
/// ([`judge`](super::peer)) for its first init after our start.
pub(super) const CLOCKS_DIFFER: Duration = Duration::from_secs(10);

/// The inits remembered. Whoever replays captured ones from one address, each once, is asked for a cookie beyond the
/// budget of 20; with this memory it needs as many different ones, and can't use one of them twice. They take 16 bytes
/// each, and twice that in the index.
pub(super) const MAX_REMEMBERED: usize = 4096;

/// Forgotten peers whose timestamp is kept, at 88 bytes each: as many as a node has peers.
pub(super) const MAX_FORGOTTEN: usize = super::table::MAX_PEERS;

/// See the [module](self).
pub(super) struct InitMemory {
    start: Instant,
    unix_at_start: Duration,
    /// A peer without a timestamp of its own must send a later one.
    floor: Timestamp,
    forgotten: BTreeMap<PublicKey, Timestamp>,
    forgotten_by_time: BTreeSet<(Timestamp, PublicKey)>,
    inits: BTreeSet<Mac>,
    /// Oldest first.
    order: VecDeque<Mac>,
}

impl InitMemory {
    /// Knows nothing. `unix_now` is the wall clock's time at `now`.
    pub(super) fn new(now: Instant, unix_now: Duration) -> InitMemory {
        InitMemory {
            start: now,
            unix_at_start: unix_now,
            floor: stamp(unix_now.saturating_sub(CLOCKS_DIFFER)),
            forgotten: BTreeMap::new(),
            forgotten_by_time: BTreeSet::new(),
            inits: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }

    /// An init with this mac1 has been read.
    pub(super) fn note(&mut self, mac1: Mac) {
        if self.inits.insert(mac1) {
            self.order.push_back(mac1);
        }
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.inits.remove(&oldest);
        }
    }

    /// Whether an init with this mac1 was read lately.
    pub(super) fn knows(&self, mac1: &Mac) -> bool {
        self.inits.contains(mac1)
    }

    /// The timestamp that a peer's next init has to exceed, if the peer isn't known otherwise.
    pub(super) fn floor_of(&self, peer: &PublicKey) -> Timestamp {
        self.forgotten.get(peer).map_or(self.floor, |last| self.floor.max(*last))
    }

    /// The same, for a peer that is known from now on.
    pub(super) fn meet(&mut self, peer: &PublicKey) -> Timestamp {
        let floor = self.floor_of(peer);
        if let Some(last) = self.forgotten.remove(peer) {
            self.forgotten_by_time.remove(&(last, *peer));
        }
        floor
    }

    /// A peer is forgotten; `newest` is the greatest timestamp that it had. When too many are kept, the one with the
    /// smallest timestamp raises the floor of all unknown peers, but never above the present time: many keys with
    /// timestamps of the future would lock everybody else out.
    pub(super) fn forget(&mut self, now: Instant, peer: PublicKey, newest: Timestamp) {
        if newest <= self.floor {
            return;
        }
        self.forgotten.insert(peer, newest);
        self.forgotten_by_time.insert((newest, peer));
        if self.forgotten.len() > MAX_FORGOTTEN
            && let Some((oldest, peer)) = self.forgotten_by_time.pop_first()
        {
            self.forgotten.remove(&peer);
            let unix = self.unix_at_start.saturating_add(now.saturating_duration_since(self.start));
            self.floor = self.floor.max(oldest.min(stamp(unix)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: Duration = Duration::from_secs(1_700_000_000);

    fn key(n: usize) -> PublicKey {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn memory() -> (InitMemory, Instant) {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        (InitMemory::new(now, UNIX), now)
    }

    #[test]
    fn a_peer_that_comes_back_has_to_be_later_than_when_it_was_forgotten() {
        let (mut memory, now) = memory();
        let before = stamp(UNIX - CLOCKS_DIFFER);
        let last = stamp(UNIX + Duration::from_secs(60));
        assert_eq!(memory.floor_of(&key(1)), before);
        memory.forget(now, key(1), last);
        assert_eq!((memory.floor_of(&key(1)), memory.floor_of(&key(2))), (last, before));
        assert_eq!(memory.meet(&key(1)), last);
        assert_eq!(memory.floor_of(&key(1)), before, "now the peer itself has it");
        memory.forget(now, key(3), stamp(UNIX - CLOCKS_DIFFER * 2));
        assert!(memory.forgotten.is_empty(), "the floor says as much");
    }

    #[test]
    fn the_forgotten_are_bounded_and_raise_the_floor_up_to_now_only() {
        let (mut memory, now) = memory();
        for n in 0..=MAX_FORGOTTEN {
            memory.forget(now, key(n), stamp(UNIX + Duration::from_millis(n as u64)));
        }
        assert_eq!(memory.forgotten.len(), MAX_FORGOTTEN);
        assert_eq!(memory.floor_of(&key(0)), stamp(UNIX), "the oldest timestamp holds for all");
        let later = now + Duration::from_secs(100);
        for n in 0..2 * MAX_FORGOTTEN {
            memory.forget(later, key(10_000 + n), stamp(UNIX * 2));
        }
        assert_eq!(memory.floor_of(&key(0)), stamp(UNIX + Duration::from_secs(100)));
        assert_eq!(memory.forgotten.len(), memory.forgotten_by_time.len());
    }

    #[test]
    fn the_inits_are_bounded_and_the_oldest_goes_first() {
        let (mut memory, _) = memory();
        for n in 0..=MAX_REMEMBERED as u128 {
            memory.note(n.to_be_bytes());
            memory.note(n.to_be_bytes());
        }
        assert!(!memory.knows(&0u128.to_be_bytes()) && memory.knows(&1u128.to_be_bytes()));
        assert_eq!((memory.inits.len(), memory.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
