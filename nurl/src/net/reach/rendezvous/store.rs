//! The hub's side: the records of all namespaces, the connections of their publishers, and the records' expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};

use super::frame::PublishResult;
use super::{Frame, MAX_LIST, MAX_RECORD_BYTES, SealedRecord};
use crate::authority::account::{ClientAccount, Party};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::kit::shares::Shares;
use crate::kit::timers::Timers;
use crate::mesh::Namespace;
use crate::net::reach::relay::ClientId;
use crate::rt::{Point, Rng, buggify};

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
    /// Records that made way for those of another pass.
    pub evicted: u64,
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
    /// The connection that published or refreshed it last, and on whose account it is.
    publisher: ClientId,
    account: ClientAccount,
}

#[derive(Default)]
struct Space {
    records: BTreeMap<PublicKey, Stored>,
    /// The keys whose publisher is connected now; a newcomer would try others in vain. By invitation, and indexed by
    /// position, so that a random sample costs its own size and not the namespace's.
    connected: IndexMap<Party, IndexSet<PublicKey>>,
}

impl Space {
    fn remove(&mut self, key: &PublicKey) -> Option<Stored> {
        self.disconnect(key);
        self.records.remove(key)
    }

    fn disconnect(&mut self, key: &PublicKey) {
        let Some(held) = self.records.get(key) else { return };
        let group = held.account.account.group();
        if let Some(keys) = self.connected.get_mut(&group) {
            keys.swap_remove(key);
            if keys.is_empty() {
                self.connected.swap_remove(&group);
            }
        }
    }

    /// A random sample of those that are connected, in random order, in which each invitation has its share: the same
    /// number as each other one that has as many.
    fn sample(&self, rng: &mut Rng, count: usize) -> Vec<PublicKey> {
        let groups: Vec<usize> = floyd(rng, self.connected.len(), count);
        let mut shares: Vec<(&IndexSet<PublicKey>, usize)> =
            groups.iter().filter_map(|at| Some((self.connected.get_index(*at)?.1, 0))).collect();
        let mut left = count;
        while left > 0 {
            let before = left;
            for (keys, share) in &mut shares {
                if left > 0 && *share < keys.len() {
                    (*share, left) = (*share + 1, left - 1);
                }
            }
            if left == before {
                break;
            }
        }
        let mut chosen = Vec::new();
        for (keys, share) in shares {
            let places =
                if share == keys.len() { (0..share).collect() } else { floyd(rng, keys.len(), share) };
            chosen.extend(places.into_iter().filter_map(|at| keys.get_index(at)));
        }
        // Floyd's order isn't random, and one element may be left out by the caller.
        draw::shuffle(rng, &mut chosen);
        chosen
    }
}

/// The records of all namespaces.
pub struct Records {
    max_records: usize,
    ttl: Duration,
    spaces: BTreeMap<Namespace, Space>,
    /// Who has how many of them.
    shares: Shares<ClientAccount>,
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
            shares: Shares::default(),
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

    /// Handles a frame of the connection `id`, which registered on `account`. Returns the encoded answer, empty if the frame has none. `None`: a client may not send this frame.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        id: ClientId,
        account: ClientAccount,
        frame: Frame<'_>,
    ) -> Option<Bytes> {
        let (namespace, key) = (account.mesh, account.account.key());
        let answer = match frame {
            Frame::Publish { seq, ttl, sealed } => {
                let (seq, result) = self.publish(now, id, account, seq, ttl, sealed);
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
            space.disconnect(&key);
        }
    }

    /// Returns the number that is held now, and the result.
    fn publish(
        &mut self,
        now: Instant,
        id: ClientId,
        account: ClientAccount,
        seq: u64,
        ttl: Duration,
        sealed: &[u8],
    ) -> (u64, PublishResult) {
        let (namespace, key) = (account.mesh, account.account.key());
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
                if !self.make_room(&account) {
                    self.counters.refused_full += 1;
                    return (0, PublishResult::Full);
                }
                self.counters.published += 1;
            }
            _ => self.counters.published += 1,
        }
        let expires = now + ttl.min(self.ttl);
        let stored = Stored { seq, sealed: Bytes::copy_from_slice(sealed), expires, publisher: id, account };
        let space = self.spaces.entry(namespace).or_default();
        let before = space.records.get(&key).map(|held| held.account);
        if before.is_some_and(|before| before.account.group() != account.account.group()) {
            space.disconnect(&key);
        }
        before.into_iter().for_each(|before| self.shares.sub(before, 1));
        space.connected.entry(account.account.group()).or_default().insert(key);
        space.records.insert(key, stored);
        self.shares.add(account, 1);
        self.ends.set((namespace, key), expires);
        (seq, PublishResult::Stored)
    }

    /// Removes the record of `key` at its owner's request, if there is one.
    pub fn withdraw(&mut self, namespace: Namespace, key: PublicKey) {
        self.counters.withdrawn += u64::from(self.remove(namespace, key));
    }

    /// Removes a record. Returns whether there was one.
    fn remove(&mut self, namespace: Namespace, key: PublicKey) -> bool {
        let held = self.spaces.get_mut(&namespace).and_then(|space| space.remove(&key));
        if let Some(held) = &held {
            self.shares.sub(held.account, 1);
            self.ends.clear((namespace, key));
        }
        held.is_some()
    }

    /// Makes room for a record, at the cost of the client that pays; false if that is the newcomer.
    fn make_room(&mut self, newcomer: &ClientAccount) -> bool {
        let payer = self.shares.payer(newcomer, 1);
        let paid = payer.is_some_and(|payer| self.remove(payer.mesh, payer.account.key()));
        self.counters.evicted += u64::from(paid);
        paid
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

    /// A random sample of the connected publishers without the asker.
    fn list(&mut self, now: Instant, namespace: Namespace, asker: PublicKey, max: u16) -> Vec<SealedRecord> {
        self.counters.lists += 1;
        let Some(space) = self.spaces.get(&namespace) else { return Vec::new() };
        let max = if buggify(Point::ListOne) { 1 } else { usize::from(max).min(MAX_LIST) };
        // One more than requested, in case the asker is in the sample.
        let chosen = space.sample(&mut self.rng, max + 1);
        chosen
            .into_iter()
            .filter_map(|key| Some((key, space.records.get(&key)?)))
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
            self.remove(namespace, key);
        }
    }
}

/// Up to `take` of the numbers below `total`, each at most once, in no particular order (Floyd's algorithm: one draw for each
/// number chosen).
fn floyd(rng: &mut Rng, total: usize, take: usize) -> Vec<usize> {
    let (mut chosen, mut places) = (Vec::new(), BTreeSet::new());
    for upper in total - take.min(total)..total {
        let place = draw::below(rng, upper + 1);
        let place = if places.insert(place) { place } else { upper };
        places.insert(place);
        chosen.push(place);
    }
    chosen
}

fn seen(now: Instant, key: PublicKey, held: &Stored) -> SealedRecord {
    let ttl = held.expires.saturating_duration_since(now);
    SealedRecord { key, seq: held.seq, ttl, sealed: held.sealed.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::account::Account;
    use crate::net::reach::control::frames::split;
    use rand_core::SeedableRng;

    const HOME: Namespace = Namespace::from_bytes([1; 32]);
    const ELSEWHERE: Namespace = Namespace::from_bytes([2; 32]);
    const TTL: Duration = Duration::from_secs(120);

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn by(n: u8, mesh: Namespace) -> ClientAccount {
        ClientAccount { mesh, account: Account::alone(key(n)) }
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
                self.records.handle_frame(self.now, ClientId(n.into()), by(n, namespace), frame).unwrap();
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
        bench.records.handle_frame(bench.now, ClientId(33), by(3, HOME), again);
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

    /// Publishes a record of pass `pass` of an invitation.
    fn publish_as(bench: &mut Bench, invitation: u8, pass: u16) -> PublicKey {
        let account = Account::for_tests(invitation, pass, pass.into());
        let frame = Frame::Publish { seq: 1, ttl: TTL, sealed: b"a" };
        let client = ClientAccount { mesh: HOME, account };
        bench.records.handle_frame(bench.now, ClientId(pass.into()), client, frame);
        account.key()
    }

    fn is_there(bench: &Bench, key: PublicKey) -> bool {
        bench.records.spaces[&HOME].records.contains_key(&key)
    }

    #[test]
    fn of_all_records_the_invitation_with_most_pays_for_a_newcomers() {
        let mut bench = Bench::new(64);
        let first: Vec<_> = (0..64).map(|pass| publish_as(&mut bench, 1, pass)).collect();
        let refused = publish_as(&mut bench, 1, 64);
        assert!(!is_there(&bench, refused));
        let second: Vec<_> = (100..200).map(|pass| publish_as(&mut bench, 2, pass)).collect();
        let there = |keys: &[PublicKey]| keys.iter().filter(|key| is_there(&bench, **key)).count();
        assert_eq!((there(&first), there(&second), bench.records.len()), (32, 32, 64));
        assert_eq!((bench.records.counters().evicted, bench.records.counters().refused_full), (32, 1 + 68));
        let third = publish_as(&mut bench, 3, 300);
        assert!(is_there(&bench, third));
        bench.records.handle_timeout(bench.now + TTL);
        assert_eq!((bench.records.len(), bench.records.shares.total()), (0, 0));
    }

    #[test]
    fn a_list_gives_each_invitation_its_share() {
        let mut bench = Bench::new(200);
        for pass in 0..90 {
            publish_as(&mut bench, 1, pass);
        }
        let few =
            [publish_as(&mut bench, 2, 100), publish_as(&mut bench, 2, 101), publish_as(&mut bench, 3, 102)];
        bench.publish(7, 1, b"a");
        for _ in 0..20 {
            let records = bench.records.list(bench.now, HOME, key(9), u16::MAX);
            assert_eq!(records.len(), MAX_LIST);
            let listed = |key: &PublicKey| records.iter().any(|record| record.key == *key);
            // One more than fit is drawn.
            assert!(few.iter().chain([&key(7)]).filter(|key| listed(key)).count() >= 3);
        }
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
        assert!(bench.records.handle_frame(bench.now, ClientId(2), by(2, HOME), forged).is_none());
    }
}
