//! Anti-entropy: summaries, digests, pulls and pushes.
//!
//! A summary of many keys that differs is answered in parts ([`divide`](super::divide)), so that a difference costs the digests of
//! the few keys around it.
//!
//! A node is *settled* with a peer if the answers to one round of summaries, begun after its process and after the last
//! change of placement, have shown that it holds each key that the peer holds of those that both own. So it knows then of
//! which keys there was nothing, and a copy that a write creates is known to lack nothing of the peer's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use minicbor::bytes::ByteVec;

use super::config::{MAX_SYNCS_PER_TICK, TICK};
use super::copies::Copies;
use super::divide::{self, part_keys};
use super::message::{Item, Message, Range};
use super::proof::Proof;
use super::shared::Shared;
use crate::key::PublicKey;
use crate::kit::draw;
use crate::replication::crdt::{DIGEST_LEN, Digest};
use crate::rt::{Point, buggify};

/// Keys in one summary.
const MAX_RANGE_KEYS: usize = 8192;
/// Digests in one answer, at 16 bytes plus the key each.
const MAX_DIGESTS: usize = 1024;
/// Keys scanned for one summary, shared or not: bounds the work that one message can cause.
const MAX_SCAN_KEYS: usize = 16_384;
/// Bytes of keys and digests, or of states, in one message. With the overhead of 512 items it stays below 1 MiB.
const MAX_LIST_BYTES: usize = 512 * 1024;
/// Limit on the keys asked for at once.
const MAX_PULL_KEYS: usize = MAX_DIGESTS;

/// Keys and their digests, in key order.
pub(super) type SharedKeys = Vec<(Vec<u8>, Digest)>;

/// The start of a peer's next summary, and the time at which it is due.
#[derive(Debug, Clone)]
struct Cursor {
    due: Instant,
    after: Option<Vec<u8>>,
    proof: Proof,
    /// Summaries up to this id were sent under another placement: what is answered to them proves nothing.
    since: u64,
    /// The id of the last summary.
    asked: u64,
}

/// For each peer that shares keys, when its next summary is due, and where in the keys it begins.
#[derive(Debug, Default)]
pub(super) struct Summaries(BTreeMap<PublicKey, Cursor>);

impl Summaries {
    /// Begins summaries to a peer that shares keys. The first one comes within a sync period, at a random time.
    pub(super) fn know_peer(&mut self, sh: &mut Shared, now: Instant, peer: PublicKey) {
        if peer != sh.local.key && !self.0.contains_key(&peer) {
            let due = now + draw::duration(&mut sh.rng, sh.config.sync_period);
            let since = sh.fresh_id();
            let cursor = Cursor { due, after: None, proof: Proof::default(), since, asked: since };
            self.0.insert(peer, cursor);
        }
    }

    /// Adapts to another placement: what was proved says nothing of the keys that a peer owns now.
    pub(super) fn unsettle(&mut self, sh: &mut Shared) {
        let since = sh.fresh_id();
        for cursor in self.0.values_mut() {
            (cursor.after, cursor.proof, cursor.since) = (None, Proof::default(), since);
        }
    }

    /// Whether this node holds every key that the peer held of those that both own.
    pub(super) fn is_settled(&self, peer: &PublicKey) -> bool {
        self.0.get(peer).is_some_and(|cursor| cursor.proof.is_settled())
    }

    /// Takes a peer's answer to the summary `id` of this range: whether this node holds every key that the peer holds in it.
    pub(super) fn answered(&mut self, from: &PublicKey, id: u64, range: &Range, holds_all: bool) {
        if let Some(cursor) = self.0.get_mut(from).filter(|cursor| cursor.since < id) {
            cursor.proof.answered(id, range, holds_all);
        }
    }

    /// Takes a peer's answer in parts to the summary `id` of this range. Of those that differ more is asked, under these ids.
    pub(super) fn divided(
        &mut self,
        from: &PublicKey,
        id: u64,
        range: &Range,
        open: Vec<(u64, Option<Vec<u8>>)>,
    ) {
        if let Some(cursor) = self.0.get_mut(from).filter(|cursor| cursor.since < id) {
            cursor.proof.divided(range, open);
        }
    }

    /// The peers that share keys.
    #[cfg(test)]
    pub(super) fn peers(&self) -> BTreeSet<PublicKey> {
        self.0.keys().copied().collect()
    }

    /// Ends the summaries to all but these peers.
    pub(super) fn retain(&mut self, peers: &BTreeSet<PublicKey>) {
        self.0.retain(|peer, _| peers.contains(peer));
    }

    /// Sends the summaries that are due, the most overdue first.
    pub(super) fn summarise(&mut self, sh: &mut Shared, copies: &mut Copies, now: Instant) {
        let mut due: Vec<(Instant, PublicKey)> = self
            .0
            .iter()
            .filter(|(_, cursor)| cursor.due <= now)
            .map(|(peer, cursor)| (cursor.due, *peer))
            .collect();
        due.sort_unstable();
        for (_, peer) in due.into_iter().take(MAX_SYNCS_PER_TICK) {
            self.send_next(sh, copies, now, peer);
        }
    }

    /// Goes on with the round after the answer to its last summary, which was about the keys up to `answered`.
    pub(super) fn go_on(
        &mut self,
        sh: &mut Shared,
        copies: &mut Copies,
        now: Instant,
        from: PublicKey,
        (id, answered): (u64, Option<&[u8]>),
    ) {
        let Some(cursor) = self.0.get_mut(&from).filter(|cursor| cursor.asked == id) else { return };
        if answered.is_some_and(|upto| cursor.after.as_deref().is_none_or(|after| upto < after)) {
            // The peer has more keys in the range than one answer takes.
            cursor.after = answered.map(<[u8]>::to_vec);
        }
        if cursor.after.is_some() {
            self.send_next(sh, copies, now, from);
        }
    }

    /// Sends the summary of a peer's next range.
    fn send_next(&mut self, sh: &mut Shared, copies: &mut Copies, now: Instant, peer: PublicKey) {
        let Some(cursor) = self.0.get_mut(&peer) else { return };
        let (after, id) = (cursor.after.take(), sh.fresh_id());
        let most = if buggify(Point::SummaryOfOne) { 1 } else { MAX_RANGE_KEYS };
        let (shared, upto) = shared_keys(sh, copies, &peer, after.as_deref(), None, most);
        if after.is_none() && !cursor.proof.is_settled() {
            cursor.proof = Proof::default();
        }
        // Each answer brings the next range. If it is lost, a tick does. `sync_period` is the pause between rounds.
        let pause = if upto.is_some() { TICK } else { sh.config.sync_period };
        (cursor.due, cursor.after, cursor.asked) = (now + pause, upto.clone(), id);
        // A match at the end of a round needs no answer, unless it proves something.
        let settling = (upto.is_some() || !cursor.proof.is_settled()).then_some(id);
        let range = Range { after: after.map(ByteVec::from), upto: upto.map(ByteVec::from) };
        sh.send(peer, &Message::Summary { range, hash: hash_of(&shared).into(), settling, digests: false });
    }
}

/// Compares one key with its other owners, because a reader has seen that they differ. It costs a hash for each of them
/// if the reader was wrong, whatever the state's size.
pub(super) fn on_behind(sh: &mut Shared, copies: &mut Copies, key: &[u8]) {
    if !sh.takes(key) {
        return;
    }
    // The range ends at the key and begins after the one held before it.
    let after =
        copies.range(Bound::Unbounded, Bound::Excluded(key)).next_back().map(|(before, _)| before.clone());
    for owner in sh.other_owners(key) {
        let (shared, _) = shared_keys(sh, copies, &owner, after.as_deref(), Some(key), MAX_DIGESTS);
        let range = Range { after: after.clone().map(ByteVec::from), upto: Some(key.to_vec().into()) };
        let hash = hash_of(&shared).into();
        sh.send(owner, &Message::Summary { range, hash, settling: None, digests: true });
    }
}

/// Answers a summary that differs with this node's digests.
pub(super) fn on_summary(
    sh: &mut Shared,
    copies: &mut Copies,
    from: PublicKey,
    range: Range,
    (hash, settling, digests): (Digest, Option<u64>, bool),
) {
    let after = range.after.as_ref().map(|key| key.to_vec());
    let upto = range.upto.as_ref().map(|key| key.to_vec());
    let most = if digests { MAX_DIGESTS } else { 2 * MAX_RANGE_KEYS };
    let (shared, cut) = shared_keys(sh, copies, &from, after.as_deref(), upto.as_deref(), most);
    if cut == upto && hash_of(&shared) == hash {
        sh.stats.in_sync += 1;
        if let Some(settling) = settling {
            sh.stats.in_sync_told += 1;
            sh.send(from, &Message::InSync { range, settling });
        }
        for (key, _) in shared {
            copies.spread(&key);
            copies.compared(sh, &key, &from);
        }
        return;
    }
    sh.stats.out_of_sync += 1;
    if sh.is_read_only() {
        // The peer would send what isn't taken.
        return;
    }
    if !digests && shared.len() > part_keys() {
        divide::answer(sh, from, range, (&shared, cut), settling);
        return;
    }
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut end = cut;
    for (key, digest) in shared {
        bytes += key.len() + DIGEST_LEN;
        if bytes > MAX_LIST_BYTES || (!items.is_empty() && buggify(Point::DigestsCut)) {
            end = items.last().map(|item: &Item| item.key.to_vec());
            break;
        }
        items.push(Item { key: key.into(), bytes: digest.to_vec().into() });
    }
    // A summary of 50 bytes may cause an answer of half a megabyte, so the answer is charged to the repair
    // budget.
    if sh.spend(bytes) {
        let range = Range { after: range.after, upto: end.map(ByteVec::from) };
        sh.send(from, &Message::Digests { range, items, settling });
    }
}

/// Asks for the states that differ, and sends this node's.
pub(super) fn on_digests(
    sh: &mut Shared,
    summaries: &mut Summaries,
    copies: &mut Copies,
    from: PublicKey,
    (range, settling): (&Range, Option<u64>),
    items: &[Item],
) {
    let after = range.after.as_ref().map(|key| key.to_vec());
    let upto = range.upto.as_ref().map(|key| key.to_vec());
    let (shared, end) = shared_keys(sh, copies, &from, after.as_deref(), upto.as_deref(), 2 * MAX_DIGESTS);
    let mut mine: BTreeMap<Vec<u8>, Digest> = shared.into_iter().collect();
    let mut pull = Vec::new();
    let mut push = Vec::new();
    let mut holds_all = items.len() <= MAX_DIGESTS;
    for item in items.iter().take(MAX_DIGESTS) {
        if end.as_deref().is_some_and(|end| item.key.as_slice() > end) {
            holds_all = false;
            break;
        }
        holds_all &= copies.contains(&item.key) || !sh.is_owner(&item.key);
        match mine.remove(item.key.as_slice()) {
            Some(digest) if digest[..] == item.bytes[..] => {
                copies.spread(&item.key);
                copies.compared(sh, &item.key, &from);
                continue;
            }
            Some(_) => push.push(item.key.to_vec()),
            None => {}
        }
        if pull.len() < MAX_PULL_KEYS
            && (pull.is_empty() || !buggify(Point::PullOne))
            && sh.is_owner(&item.key)
            && sh.owns(&from, &item.key)
            && !sh.is_read_only()
        {
            pull.push(item.key.clone());
        }
    }
    if let Some(id) = settling {
        summaries.answered(&from, id, range, holds_all);
    }
    // The remaining keys are missing at the peer, which has nothing of them that isn't here.
    for key in mine.into_keys() {
        copies.compared(sh, &key, &from);
        push.push(key);
    }
    if !pull.is_empty() {
        sh.send(from, &Message::Pull { keys: pull });
    }
    push_states(sh, copies, from, push);
}

/// Sends the states that a peer asks for, of the keys that it owns.
pub(super) fn on_pull(sh: &mut Shared, copies: &Copies, from: PublicKey, keys: &[ByteVec]) {
    let keys = keys
        .iter()
        .take(MAX_PULL_KEYS)
        .filter(|key| copies.contains(key) && sh.owns(&from, key))
        .map(|key| key.to_vec())
        .collect();
    push_states(sh, copies, from, keys);
}

/// Sends whole states as far as the budget allows. A later summary finds the remaining ones.
fn push_states(sh: &mut Shared, copies: &Copies, to: PublicKey, keys: Vec<Vec<u8>>) {
    let mut items: Vec<Item> = Vec::new();
    let mut bytes = 0;
    for key in keys {
        let Some(entry) = copies.get(&key) else { continue };
        let state = entry.value().encode();
        let size = state.len() + key.len();
        if !sh.spend(size) {
            break;
        }
        sh.stats.states_sent += 1;
        if bytes > 0 && (bytes + size > MAX_LIST_BYTES || buggify(Point::StatesApart)) {
            let full = std::mem::take(&mut items);
            sh.send(to, &Message::States { items: full });
            bytes = 0;
        }
        bytes += size;
        items.push(Item { key: key.into(), bytes: state.into() });
    }
    if !items.is_empty() {
        sh.send(to, &Message::States { items });
    }
}

/// The keys that this node and `peer` both own, with their digests, above `after` and up to `upto`; at most
/// `limit`. Also the end of the range: `upto`, or the last key scanned if a limit was reached first.
pub(super) fn shared_keys(
    sh: &Shared,
    copies: &mut Copies,
    peer: &PublicKey,
    after: Option<&[u8]>,
    upto: Option<&[u8]>,
    limit: usize,
) -> (SharedKeys, Option<Vec<u8>>) {
    let mut keys = Vec::new();
    let mut end = upto.map(<[u8]>::to_vec);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let to = upto.map_or(Bound::Unbounded, Bound::Included);
    // An empty or reversed range from the network contains no keys.
    if !matches!((after, upto), (Some(after), Some(upto)) if after >= upto) {
        for (scanned, (key, entry)) in copies.range(from, to).enumerate() {
            if keys.len() >= limit || scanned >= MAX_SCAN_KEYS {
                end = keys.last().cloned().or_else(|| Some(key.clone()));
                break;
            }
            let owners = copies.owners(sh, key, entry);
            if owners.contains(&sh.local.key) && owners.contains(peer) {
                keys.push(key.clone());
            } else if scanned + 1 == MAX_SCAN_KEYS {
                end = Some(key.clone());
                break;
            }
        }
    }
    let shared = keys.into_iter().filter_map(|key| copies.digest(&key).map(|digest| (key, digest))).collect();
    (shared, end)
}

/// A hash over keys and digests, each key with its length as a prefix.
pub(super) fn hash_of(shared: &[(Vec<u8>, Digest)]) -> Digest {
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
