//! The peers, by key, by session index, and by the init that was answered.
//!
//! Both look-ups are on the datagram path, so they use hash tables, seeded from the core's generator: peers choose
//! their own keys and must not be able to cause collisions. No iteration follows the hasher's order; peers are stored
//! in slots, in the order in which slots were allocated.

use std::collections::BTreeMap;
use std::time::Instant;

use indexmap::IndexMap;
use rand_core::Rng as _;

use super::indices::{Seeded, SessionIndices};
use super::mac::Mac;
use super::peer::{CachedAnswer, MAX_UNCONFIRMED, Peer};
use crate::key::PublicKey;
use crate::rt::Rng;

/// The default limit of known peers. A peer costs about 2 KiB, and up to 24 KiB with three sessions whose replay
/// windows have grown. In a larger mesh, a node keeps sessions with a part of the members.
pub const MAX_PEERS: usize = 4096;

/// A peer's position in the table.
pub(super) type Slot = u32;

/// At most [`EndpointConfig::max_peers`](super::EndpointConfig::max_peers) peers, and what leads to them.
pub(super) struct PeerTable {
    max_peers: usize,
    slots: Vec<Option<Box<Peer>>>,
    free: Vec<Slot>,
    by_key: IndexMap<PublicKey, Slot, Seeded>,
    pub(super) indices: SessionIndices,
    /// The peers by the mac1 of an init whose response they cache.
    answered: BTreeMap<Mac, Slot>,
}

impl PeerTable {
    pub(super) fn new(max_peers: usize, rng: &mut Rng) -> PeerTable {
        let seed = Seeded(rng.next_u64());
        PeerTable {
            max_peers,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: IndexMap::with_hasher(seed),
            indices: SessionIndices::new(seed),
            answered: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.max_peers
    }

    pub(super) fn slot_of(&self, key: &PublicKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Peer> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Peer> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// A peer, and the indices, which its handshakes draw and release.
    pub(super) fn get_with_indices(&mut self, slot: Slot) -> Option<(&mut Peer, &mut SessionIndices)> {
        let peer = self.slots.get_mut(slot as usize)?.as_deref_mut()?;
        Some((peer, &mut self.indices))
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
        for answer in peer.responder.answers() {
            self.answered.remove(&answer.mac1);
        }
        self.by_key.swap_remove(&peer.key);
        self.free.push(slot);
        Some(peer)
    }

    /// Caches the response to an init of this peer; the oldest one is dropped if needed.
    pub(super) fn keep_answer(&mut self, slot: Slot, answer: CachedAnswer) {
        let Some(peer) = self.get_mut(slot) else { return };
        let mac1 = answer.mac1;
        if let Some(dropped) = peer.responder.keep_answer(answer) {
            self.answered.remove(&dropped.mac1);
        }
        debug_assert!(self.answered.len() <= self.max_peers * MAX_UNCONFIRMED);
        self.answered.insert(mac1, slot);
    }

    /// The cached response to an init, and the peer that sent it.
    pub(super) fn answer(&self, now: Instant, mac1: &Mac, init: &[u8]) -> Option<(PublicKey, &[u8])> {
        let peer = self.get(*self.answered.get(mac1)?)?;
        Some((peer.key, peer.responder.answer(now, init)?))
    }
}
