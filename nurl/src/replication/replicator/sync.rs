//! Anti-entropy: summaries, digests, pulls and pushes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;

use minicbor::bytes::ByteVec;

use super::message::{Item, Message, Range};
use super::{MAX_SYNCS_PER_TICK, Replicator, TICK};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::replication::crdt::{DIGEST_LEN, Digest};

/// Keys in one summary: a difference costs at most this many digests, at 16 bytes plus the key each.
const MAX_RANGE_KEYS: usize = 512;
/// Keys scanned for one summary, shared or not: bounds the work that one message can cause.
const MAX_SCAN_KEYS: usize = 16_384;
/// Bytes of keys and digests, or of states, in one message. With the overhead of 512 items it stays below 1 MiB.
const MAX_LIST_BYTES: usize = 512 * 1024;
/// Limit on the keys asked for at once.
const MAX_PULL_KEYS: usize = MAX_RANGE_KEYS;

/// Keys and their digests, in key order.
type Shared = Vec<(Vec<u8>, Digest)>;

/// The start of a peer's next summary, and the time at which it is due.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    due: Instant,
    after: Option<Vec<u8>>,
}

impl Replicator {
    /// Begins summaries to a peer that shares keys. The first one comes within a sync period, at a random time.
    pub(super) fn know_peer(&mut self, now: Instant, peer: PublicKey) {
        if peer != self.local.key && !self.syncs.contains_key(&peer) {
            let due = now + draw::duration(&mut self.rng, self.config.sync_period);
            self.syncs.insert(peer, Cursor { due, after: None });
        }
    }

    /// Sends the summaries that are due, the most overdue first.
    pub(super) fn summarise(&mut self, now: Instant) {
        let mut due: Vec<(Instant, PublicKey)> = self
            .syncs
            .iter()
            .filter(|(_, cursor)| cursor.due <= now)
            .map(|(peer, cursor)| (cursor.due, *peer))
            .collect();
        due.sort_unstable();
        for (_, peer) in due.into_iter().take(MAX_SYNCS_PER_TICK) {
            let after = self.syncs.get(&peer).and_then(|cursor| cursor.after.clone());
            let (shared, upto) = self.shared(&peer, after.as_deref(), None, MAX_RANGE_KEYS);
            let hash = hash_of(&shared);
            let range = Range { after: after.map(ByteVec::from), upto: upto.clone().map(ByteVec::from) };
            // The ranges of one round follow each other, one each tick; `sync_period` is the pause between rounds.
            let pause = if upto.is_some() { TICK } else { self.config.sync_period };
            self.syncs.insert(peer, Cursor { due: now + pause, after: upto });
            self.send(peer, &Message::Summary { range, hash: hash.into() });
        }
    }

    pub(super) fn on_summary(&mut self, from: PublicKey, range: Range, hash: Digest) {
        let after = range.after.as_ref().map(|key| key.to_vec());
        let upto = range.upto.as_ref().map(|key| key.to_vec());
        let (shared, cut) = self.shared(&from, after.as_deref(), upto.as_deref(), 2 * MAX_RANGE_KEYS);
        if cut == upto && hash_of(&shared) == hash {
            self.stats.in_sync += 1;
            for (key, _) in shared {
                self.note_spread(&key);
            }
            return;
        }
        self.stats.out_of_sync += 1;
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut end = cut;
        for (key, digest) in shared {
            bytes += key.len() + DIGEST_LEN;
            if bytes > MAX_LIST_BYTES {
                end = items.last().map(|item: &Item| item.key.to_vec());
                break;
            }
            items.push(Item { key: key.into(), bytes: digest.to_vec().into() });
        }
        // A summary of 50 bytes may cause an answer of half a megabyte, so the answer is charged to the repair
        // budget.
        if self.spend(bytes) {
            let range = Range { after: range.after, upto: end.map(ByteVec::from) };
            self.send(from, &Message::Digests { range, items });
        }
    }

    pub(super) fn on_digests(&mut self, from: PublicKey, range: &Range, items: &[Item]) {
        let after = range.after.as_ref().map(|key| key.to_vec());
        let upto = range.upto.as_ref().map(|key| key.to_vec());
        let (shared, end) = self.shared(&from, after.as_deref(), upto.as_deref(), 4 * MAX_RANGE_KEYS);
        let mut mine: BTreeMap<Vec<u8>, Digest> = shared.into_iter().collect();
        let mut pull = Vec::new();
        let mut push = Vec::new();
        for item in items.iter().take(2 * MAX_RANGE_KEYS) {
            if end.as_deref().is_some_and(|end| item.key.as_slice() > end) {
                break;
            }
            match mine.remove(item.key.as_slice()) {
                Some(digest) if digest[..] == item.bytes[..] => {
                    self.note_spread(&item.key);
                    continue;
                }
                Some(_) => push.push(item.key.to_vec()),
                None => {}
            }
            if pull.len() < MAX_PULL_KEYS
                && self.ring.owns(&self.local.key, &item.key, self.config.replicas)
                && self.ring.owns(&from, &item.key, self.config.replicas)
            {
                pull.push(item.key.clone());
            }
        }
        // The remaining keys are missing at the peer.
        push.extend(mine.into_keys());
        if !pull.is_empty() {
            self.send(from, &Message::Pull { keys: pull });
        }
        self.push_states(from, push);
    }

    pub(super) fn on_pull(&mut self, from: PublicKey, keys: &[ByteVec]) {
        let keys = keys
            .iter()
            .take(MAX_PULL_KEYS)
            .filter(|key| self.entries.get(key.as_slice()).is_some_and(|entry| entry.owners.contains(&from)))
            .map(|key| key.to_vec())
            .collect();
        self.push_states(from, keys);
    }

    /// Sends whole states as far as the budget allows. A later summary finds the remaining ones.
    fn push_states(&mut self, to: PublicKey, keys: Vec<Vec<u8>>) {
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for key in keys {
            let Some(entry) = self.entries.get(&key) else { continue };
            let state = entry.value.encode();
            let size = state.len() + key.len();
            if !self.spend(size) {
                break;
            }
            self.stats.states_sent += 1;
            if bytes > 0 && bytes + size > MAX_LIST_BYTES {
                let full = std::mem::take(&mut items);
                self.send(to, &Message::States { items: full });
                bytes = 0;
            }
            bytes += size;
            items.push(Item { key: key.into(), bytes: state.into() });
        }
        if !items.is_empty() {
            self.send(to, &Message::States { items });
        }
    }

    /// The keys that this node and `peer` both own, with their digests, above `after` and up to `upto`; at most
    /// `limit`. Also the end of the range: `upto`, or the last key scanned if a limit was reached first.
    fn shared(
        &mut self,
        peer: &PublicKey,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: usize,
    ) -> (Shared, Option<Vec<u8>>) {
        let mut keys = Vec::new();
        let mut end = upto.map(<[u8]>::to_vec);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = upto.map_or(Bound::Unbounded, Bound::Included);
        // An empty or reversed range from the network contains no keys.
        if !matches!((after, upto), (Some(after), Some(upto)) if after >= upto) {
            for (scanned, (key, entry)) in self.entries.range::<[u8], _>((from, to)).enumerate() {
                if keys.len() >= limit || scanned >= MAX_SCAN_KEYS {
                    end = keys.last().cloned().or_else(|| Some(key.clone()));
                    break;
                }
                if entry.owners.contains(&self.local.key) && entry.owners.contains(peer) {
                    keys.push(key.clone());
                } else if scanned + 1 == MAX_SCAN_KEYS {
                    end = Some(key.clone());
                    break;
                }
            }
        }
        let shared =
            keys.into_iter().filter_map(|key| self.digest_of(&key).map(|digest| (key, digest))).collect();
        (shared, end)
    }
}

/// A hash over keys and digests, each key with its length as a prefix.
fn hash_of(shared: &[(Vec<u8>, Digest)]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (key, digest) in shared {
        hasher.update(&(key.len() as u32).to_le_bytes());
        hasher.update(key);
        hasher.update(digest);
    }
    let mut hash = [0; DIGEST_LEN];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST_LEN]);
    hash
}
