//! The hub's side: the records of all namespaces, the connections of their publishers, and the records' expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexSet;

use super::frame::PublishResult;
use super::{Frame, MAX_LIST, MAX_RECORD_BYTES, SealedRecord};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::kit::timers::Timers;
use crate::mesh::Namespace;
use crate::net::reach::relay::ClientId;
use crate::rt::Rng;

/// Counters of events and refusals at rendezvous.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RendezvousStats {
    /// New records and new numbers.
    pub published: u64,
    /// Records published again unchanged.
    pub refreshed: u64,
    /// PUBLISH with an older number, or with the same number and other bytes.
    pub refused_stale: u64,
    /// PUBLISH over the limit of bytes.
    pub refused_too_large: u64,
    /// PUBLISH beyond the limit of records.
    pub refused_full: u64,
    /// Records that expired.
    pub expired: u64,
    /// Records withdrawn by their owner.
    pub withdrawn: u64,
    /// LOOKUP frames answered with a record.
    pub found: u64,
    /// LOOKUP frames answered with NO_RECORD.
    pub not_found: u64,
    /// LIST frames answered.
    pub lists: u64,
}

struct Stored {
    seq: u64,
    sealed: Bytes,
    expires: Instant,
    /// The connection that published or refreshed it last.
    publisher: ClientId,
}

#[derive(Default)]
struct Space {
    records: BTreeMap<PublicKey, Stored>,
    /// The keys whose publisher is connected now; a newcomer would try others in vain. Indexed by position, so
    /// that a random sample costs its own size and not the namespace's.
    connected: IndexSet<PublicKey>,
}

impl Space {
    fn remove(&mut self, key: &PublicKey) -> Option<Stored> {
        self.connected.swap_remove(key);
        self.records.remove(key)
    }
}

/// The records of all namespaces.
pub struct Records {
    max_records: usize,
    ttl: Duration,
    spaces: BTreeMap<Namespace, Space>,
    ends: Timers<(Namespace, PublicKey)>,
    rng: Rng,
    counters: RendezvousStats,
}

impl Records {
    /// An empty store. Records live for at most `ttl`; at most `max_records` of all namespaces together.
    pub fn new(max_records: usize, ttl: Duration, rng: Rng) -> Records {
        Records {
            max_records,
            ttl,
            spaces: BTreeMap::new(),
            ends: Timers::default(),
            rng,
            counters: RendezvousStats::default(),
        }
    }

    /// The counters.
    pub fn counters(&self) -> &RendezvousStats {
        &self.counters
    }

    /// Records held.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the store is empty.
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "beside `len`"))]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Handles a frame of the connection `id`, which proved `key` and registered in `namespace`. Returns the
    /// encoded answer, empty if the frame has none. `None`: a client may not send this frame.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        id: ClientId,
        namespace: Namespace,
        key: PublicKey,
        frame: Frame<'_>,
    ) -> Option<Bytes> {
        let answer = match frame {
            Frame::Publish { seq, ttl, sealed } => {
                let (seq, result) = self.publish(now, id, namespace, key, seq, ttl, sealed);
                Frame::Published { seq, result }
            }
            Frame::Withdraw => {
                self.withdraw(namespace, key);
                return Some(Bytes::new());
            }
            Frame::Lookup { peer } => self.lookup(now, namespace, peer),
            Frame::List { max } => Frame::Records(self.list(now, namespace, key, max)),
            _ => return None,
        };
        Some(Bytes::from(answer.to_vec()))
    }

    /// A connection has ended: LIST no longer names its key, unless another connection has published since.
    /// LOOKUP still finds the record until it ends, since the client may come back.
    pub fn disconnected(&mut self, id: ClientId, namespace: Namespace, key: PublicKey) {
        if let Some(space) = self.spaces.get_mut(&namespace)
            && space.records.get(&key).is_some_and(|held| held.publisher == id)
        {
            space.connected.swap_remove(&key);
        }
    }

    /// Returns the number that is held now, and the result.
    #[allow(clippy::too_many_arguments, reason = "the fields of one frame and where it came from")]
    fn publish(
        &mut self,
        now: Instant,
        id: ClientId,
        namespace: Namespace,
        key: PublicKey,
        seq: u64,
        ttl: Duration,
        sealed: &[u8],
    ) -> (u64, PublishResult) {
        let held = self.spaces.get(&namespace).and_then(|space| space.records.get(&key));
        if sealed.len() > MAX_RECORD_BYTES {
            self.counters.refused_too_large += 1;
            return (held.map_or(0, |held| held.seq), PublishResult::TooLarge);
        }
        match held {
            Some(held) if seq < held.seq || (seq == held.seq && sealed != held.sealed) => {
                self.counters.refused_stale += 1;
                return (held.seq, PublishResult::Stale);
            }
            Some(held) if seq == held.seq => self.counters.refreshed += 1,
            None if self.ends.len() >= self.max_records => {
                self.counters.refused_full += 1;
                return (0, PublishResult::Full);
            }
            _ => self.counters.published += 1,
        }
        let expires = now + ttl.min(self.ttl);
        let stored = Stored { seq, sealed: Bytes::copy_from_slice(sealed), expires, publisher: id };
        let space = self.spaces.entry(namespace).or_default();
        space.connected.insert(key);
        space.records.insert(key, stored);
        self.ends.set((namespace, key), expires);
        (seq, PublishResult::Stored)
    }

    /// Removes the record of `key` at its owner's request, if there is one.
    pub fn withdraw(&mut self, namespace: Namespace, key: PublicKey) {
        let held = self.spaces.get_mut(&namespace).and_then(|space| space.remove(&key));
        if held.is_some() {
            self.ends.clear((namespace, key));
            self.counters.withdrawn += 1;
        }
    }

    fn lookup(&mut self, now: Instant, namespace: Namespace, peer: PublicKey) -> Frame<'static> {
        let held = self.spaces.get(&namespace).and_then(|space| space.records.get(&peer));
        match held.filter(|held| held.expires > now) {
            Some(held) => {
                self.counters.found += 1;
                Frame::Record(seen(now, peer, held))
            }
            None => {
                self.counters.not_found += 1;
                Frame::NoRecord { peer }
            }
        }
    }

    /// A uniform sample of the connected publishers without the asker (Floyd's algorithm: one draw for each
    /// record chosen).
    fn list(&mut self, now: Instant, namespace: Namespace, asker: PublicKey, max: u16) -> Vec<SealedRecord> {
        self.counters.lists += 1;
        let Some(space) = self.spaces.get(&namespace) else { return Vec::new() };
        let max = usize::from(max).min(MAX_LIST);
        let total = space.connected.len();
        // One more than requested, in case the asker is in the sample.
        let take = (max + 1).min(total);
        let (mut chosen, mut places) = (Vec::new(), BTreeSet::new());
        for upper in total - take..total {
            let place = draw::below(&mut self.rng, upper + 1);
            let place = if places.insert(place) { place } else { upper };
            places.insert(place);
            chosen.push(place);
        }
        // Floyd's order isn't random, and one element may be left out below.
        for last in (1..chosen.len()).rev() {
            chosen.swap(last, draw::below(&mut self.rng, last + 1));
        }
        chosen
            .into_iter()
            .filter_map(|place| space.connected.get_index(place))
            .filter_map(|key| Some((*key, space.records.get(key)?)))
            .filter(|(key, held)| *key != asker && held.expires > now)
            .take(max)
            .map(|(key, held)| seen(now, key, held))
            .collect()
    }

    /// When the next record ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.next()
    }

    /// Removes the records that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((namespace, key)) = self.ends.pop_due(now) {
            self.counters.expired += 1;
            if let Some(space) = self.spaces.get_mut(&namespace) {
                space.remove(&key);
            }
        }
    }
}

fn seen(now: Instant, key: PublicKey, held: &Stored) -> SealedRecord {
    let ttl = held.expires.saturating_duration_since(now);
    SealedRecord { key, seq: held.seq, ttl, sealed: held.sealed.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::reach::control::frames::split;
    use rand_core::SeedableRng;

    const HOME: Namespace = Namespace::from_bytes([1; 32]);
    const ELSEWHERE: Namespace = Namespace::from_bytes([2; 32]);
    const TTL: Duration = Duration::from_secs(120);

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    struct Bench {
        records: Records,
        now: Instant,
    }

    impl Bench {
        fn new(max: usize) -> Bench {
            let rng = Rng::from_seed([4; 32]);
            Bench { records: Records::new(max, TTL, rng), now: crate::rt::time::now() }
        }

        /// The answer as text; connection and key have the same number.
        fn send(&mut self, n: u8, namespace: Namespace, frame: Frame<'_>) -> String {
            let bytes =
                self.records.handle_frame(self.now, ClientId(n.into()), namespace, key(n), frame).unwrap();
            let Some(frame) = split(&bytes).next() else { return String::new() };
            let (kind, body) = frame.unwrap();
            match Frame::decode(kind, body).unwrap().unwrap() {
                Frame::Published { seq, result } => format!("{result:?} {seq}"),
                Frame::Record(record) => format!("{} of {}", record.seq, record.key.as_bytes()[0]),
                Frame::NoRecord { .. } => "none".into(),
                Frame::Records(records) => {
                    let mut keys: Vec<u8> = records.iter().map(|record| record.key.as_bytes()[0]).collect();
                    keys.sort_unstable();
                    format!("{keys:?}")
                }
                other => panic!("{other:?}"),
            }
        }

        fn publish(&mut self, n: u8, seq: u64, sealed: &[u8]) -> String {
            self.send(n, HOME, Frame::Publish { seq, ttl: TTL, sealed })
        }

        fn list(&mut self, n: u8) -> String {
            self.send(n, HOME, Frame::List { max: u16::MAX })
        }
    }

    #[test]
    fn a_record_is_found_by_others_of_its_namespace_only() {
        let mut bench = Bench::new(10);
        assert_eq!(bench.publish(1, 5, b"a"), "Stored 5");
        assert_eq!(bench.send(2, HOME, Frame::Lookup { peer: key(1) }), "5 of 1");
        assert_eq!(bench.send(2, ELSEWHERE, Frame::Lookup { peer: key(1) }), "none");
        assert_eq!(bench.send(2, ELSEWHERE, Frame::List { max: 9 }), "[]");
    }

    #[test]
    fn a_number_never_goes_back_and_never_names_two_contents() {
        let mut bench = Bench::new(10);
        bench.publish(1, 5, b"a");
        assert_eq!(bench.publish(1, 4, b"older"), "Stale 5");
        assert_eq!(bench.publish(1, 5, b"other"), "Stale 5");
        assert_eq!(bench.publish(1, 5, b"a"), "Stored 5");
        assert_eq!(bench.publish(1, 6, b"b"), "Stored 6");
        assert_eq!(bench.records.counters().refused_stale, 2);
        assert_eq!(bench.records.counters().refreshed, 1);
        assert_eq!(bench.records.len(), 1);
    }

    #[test]
    fn a_record_ends_unless_it_is_refreshed() {
        let mut bench = Bench::new(10);
        bench.publish(1, 5, b"a");
        bench.now += TTL / 3;
        bench.publish(1, 5, b"a");
        bench.now += TTL - Duration::from_secs(1);
        bench.records.handle_timeout(bench.now);
        assert_eq!(bench.send(2, HOME, Frame::Lookup { peer: key(1) }), "5 of 1");
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.records.poll_timeout(), Some(bench.now));
        assert_eq!(bench.send(2, HOME, Frame::Lookup { peer: key(1) }), "none");
        bench.records.handle_timeout(bench.now);
        assert!(bench.records.is_empty());
        assert_eq!(bench.list(2), "[]");
    }

    #[test]
    fn a_client_asks_for_no_longer_life_than_the_hub_gives() {
        let mut bench = Bench::new(10);
        bench.send(1, HOME, Frame::Publish { seq: 1, ttl: Duration::from_secs(60_000), sealed: b"" });
        assert_eq!(bench.records.poll_timeout(), Some(bench.now + TTL));
    }

    #[test]
    fn a_list_names_only_those_whose_publisher_is_connected_now() {
        let mut bench = Bench::new(10);
        for n in 1..=3 {
            bench.publish(n, 1, b"a");
        }
        assert_eq!(bench.list(9), "[1, 2, 3]");
        bench.records.disconnected(ClientId(2), HOME, key(2));
        assert_eq!(bench.list(9), "[1, 3]");
        assert_eq!(bench.send(9, HOME, Frame::Lookup { peer: key(2) }), "1 of 2", "it may be back");
        // Key 3 comes back over another connection, and only then its old connection ends.
        let again = Frame::Publish { seq: 1, ttl: TTL, sealed: b"a" };
        bench.records.handle_frame(bench.now, ClientId(33), HOME, key(3), again);
        bench.records.disconnected(ClientId(3), HOME, key(3));
        assert_eq!(bench.list(9), "[1, 3]");
        bench.records.disconnected(ClientId(33), HOME, key(3));
        assert_eq!(bench.list(9), "[1]");
        bench.publish(2, 1, b"a");
        assert_eq!(bench.list(9), "[1, 2]");
        bench.send(1, HOME, Frame::Withdraw);
        assert_eq!(bench.list(9), "[2]");
        assert_eq!(bench.records.len(), 2);
    }

    #[test]
    fn records_and_their_sizes_are_bounded() {
        let mut bench = Bench::new(2);
        bench.publish(1, 1, b"a");
        bench.publish(2, 1, b"a");
        assert_eq!(bench.publish(3, 1, b"a"), "Full 0");
        assert_eq!(bench.publish(1, 2, &[0; MAX_RECORD_BYTES + 1]), "TooLarge 1");
        assert_eq!(bench.publish(1, 2, &[0; MAX_RECORD_BYTES]), "Stored 2");
        assert_eq!(bench.records.len(), 2);
    }

    #[test]
    fn a_list_is_a_bounded_sample_without_the_asker_and_reaches_everyone_in_time() {
        let mut bench = Bench::new(200);
        for n in 1..=100 {
            bench.publish(n, 1, b"a");
        }
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let records = bench.records.list(bench.now, HOME, key(1), u16::MAX);
            assert_eq!(records.len(), MAX_LIST);
            let keys: BTreeSet<_> = records.iter().map(|record| record.key).collect();
            assert_eq!(keys.len(), MAX_LIST);
            seen.extend(keys);
        }
        assert_eq!(seen.len(), 99);
        assert!(!seen.contains(&key(1)));
    }

    #[test]
    fn a_frame_that_only_a_hub_sends_is_refused_from_a_client() {
        let mut bench = Bench::new(2);
        let forged = Frame::NoRecord { peer: key(1) };
        assert!(bench.records.handle_frame(bench.now, ClientId(2), HOME, key(2), forged).is_none());
    }
}
