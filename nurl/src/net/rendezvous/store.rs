//! The hub's side: the records of all namespaces, who watches them, and their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use rand_core::Rng as _;

use super::frame::{Frame, PublishResult};
use super::{MAX_LIST, MAX_RECORD_BYTES, SealedRecord};
use crate::key::PublicKey;
use crate::mesh::Namespace;
use crate::net::relay::ClientId;
use crate::rt::Rng;

/// What happened at rendezvous, and what it refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// New records and new numbers.
    pub published: u64,
    /// Records published again unchanged.
    pub refreshed: u64,
    /// PUBLISH with an older number, or the same with other bytes.
    pub refused_stale: u64,
    /// PUBLISH over [`MAX_RECORD_BYTES`].
    pub refused_too_large: u64,
    /// PUBLISH without a place left.
    pub refused_full: u64,
    /// Records that ended unrefreshed.
    pub expired: u64,
    /// Records taken back by their owner.
    pub withdrawn: u64,
    /// LOOKUP frames answered with a record.
    pub found: u64,
    /// LOOKUP frames answered with none.
    pub not_found: u64,
    /// LIST frames answered.
    pub lists: u64,
    /// CHANGED and EXPIRED frames pushed.
    pub pushes: u64,
}

struct Stored {
    seq: u64,
    sealed: Bytes,
    expires: Instant,
}

#[derive(Default)]
struct Space {
    /// By position too, so that a random sample costs its own size and not the namespace's.
    records: IndexMap<PublicKey, Stored>,
    watchers: BTreeSet<ClientId>,
}

/// See the module.
pub struct Records {
    max_records: usize,
    ttl: Duration,
    spaces: BTreeMap<Namespace, Space>,
    ends: BTreeSet<(Instant, Namespace, PublicKey)>,
    rng: Rng,
    counters: Counters,
}

/// A frame for some connections.
pub type Push = (Vec<ClientId>, Bytes);

impl Records {
    /// No records yet. They last for at most `ttl`; at most `max_records` of all namespaces together.
    pub fn new(max_records: usize, ttl: Duration, rng: Rng) -> Records {
        Records {
            max_records,
            ttl,
            spaces: BTreeMap::new(),
            ends: BTreeSet::new(),
            rng,
            counters: Counters::default(),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Records held.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Handles a frame of the connection `id`, which proved `key` and registered in `namespace`. Returns what is
    /// to be sent: answers and pushes. `None`: the frame isn't a client's to send.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        id: ClientId,
        namespace: Namespace,
        key: PublicKey,
        frame: Frame<'_>,
    ) -> Option<Vec<Push>> {
        match frame {
            Frame::Publish { seq, ttl, sealed } => {
                Some(self.publish(now, id, namespace, key, seq, ttl, sealed))
            }
            Frame::Withdraw => Some(self.withdraw(namespace, key).into_iter().collect()),
            Frame::Lookup { peer } => Some(vec![(vec![id], self.lookup(now, namespace, peer))]),
            Frame::List { max } => Some(vec![(vec![id], self.list(now, namespace, key, max))]),
            Frame::Watch { on } => {
                let watchers = &mut self.spaces.entry(namespace).or_default().watchers;
                if on {
                    watchers.insert(id)
                } else {
                    watchers.remove(&id)
                };
                Some(Vec::new())
            }
            _ => None,
        }
    }

    /// Forgets a connection as a watcher. Its record stays until it ends by itself: the client may be back.
    pub fn disconnected(&mut self, id: ClientId, namespace: Namespace) {
        if let Some(space) = self.spaces.get_mut(&namespace) {
            space.watchers.remove(&id);
        }
    }

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
    ) -> Vec<Push> {
        let space = self.spaces.entry(namespace).or_default();
        let held = space.records.get_mut(&key);
        let answer = |seq, result| (vec![id], Bytes::from(Frame::Published { seq, result }.to_vec()));
        if sealed.len() > MAX_RECORD_BYTES {
            self.counters.refused_too_large += 1;
            return vec![answer(held.map_or(0, |held| held.seq), PublishResult::TooLarge)];
        }
        let expires = now + ttl.min(self.ttl);
        match held {
            Some(held) if seq < held.seq || (seq == held.seq && sealed != held.sealed) => {
                self.counters.refused_stale += 1;
                vec![answer(held.seq, PublishResult::Stale)]
            }
            Some(held) if seq == held.seq => {
                self.ends.remove(&(held.expires, namespace, key));
                held.expires = expires;
                self.ends.insert((expires, namespace, key));
                self.counters.refreshed += 1;
                vec![answer(seq, PublishResult::Stored)]
            }
            None if self.ends.len() >= self.max_records => {
                self.counters.refused_full += 1;
                vec![answer(0, PublishResult::Full)]
            }
            held => {
                if let Some(held) = held {
                    self.ends.remove(&(held.expires, namespace, key));
                }
                let sealed = Bytes::copy_from_slice(sealed);
                space.records.insert(key, Stored { seq, sealed: sealed.clone(), expires });
                self.ends.insert((expires, namespace, key));
                self.counters.published += 1;
                let changed = Frame::Changed(SealedRecord { key, seq, ttl: expires - now, sealed });
                let mut out = vec![answer(seq, PublishResult::Stored)];
                out.extend(push(space, Some(id), &changed, &mut self.counters));
                out
            }
        }
    }

    fn withdraw(&mut self, namespace: Namespace, key: PublicKey) -> Option<Push> {
        let space = self.spaces.get_mut(&namespace)?;
        let held = space.records.swap_remove(&key)?;
        self.ends.remove(&(held.expires, namespace, key));
        self.counters.withdrawn += 1;
        push(space, None, &Frame::Expired { peer: key }, &mut self.counters)
    }

    fn lookup(&mut self, now: Instant, namespace: Namespace, peer: PublicKey) -> Bytes {
        let held = self.spaces.get(&namespace).and_then(|space| space.records.get(&peer));
        let frame = match held.filter(|held| held.expires > now) {
            Some(held) => {
                self.counters.found += 1;
                Frame::Record(seen(now, peer, held))
            }
            None => {
                self.counters.not_found += 1;
                Frame::NoRecord { peer }
            }
        };
        Bytes::from(frame.to_vec())
    }

    /// A uniform sample without the asker's own record (Floyd's algorithm: one draw for each record chosen).
    fn list(&mut self, now: Instant, namespace: Namespace, asker: PublicKey, max: u16) -> Bytes {
        self.counters.lists += 1;
        let max = usize::from(max).min(MAX_LIST);
        let mut chosen = Vec::new();
        if let Some(space) = self.spaces.get(&namespace) {
            let total = space.records.len();
            // One more than asked for, in case that the asker is among them.
            let take = (max + 1).min(total);
            let mut places = BTreeSet::new();
            for upper in total - take..total {
                let place = below(&mut self.rng, upper as u64 + 1) as usize;
                let place = if places.insert(place) { place } else { upper };
                places.insert(place);
                chosen.push(place);
            }
            // Floyd's order isn't random, and one of them may be left out below.
            for last in (1..chosen.len()).rev() {
                chosen.swap(last, below(&mut self.rng, last as u64 + 1) as usize);
            }
            let records: Vec<SealedRecord> = chosen
                .into_iter()
                .filter_map(|place| space.records.get_index(place))
                .filter(|(key, held)| **key != asker && held.expires > now)
                .take(max)
                .map(|(key, held)| seen(now, *key, held))
                .collect();
            return Bytes::from(Frame::Records(records).to_vec());
        }
        Bytes::from(Frame::Records(Vec::new()).to_vec())
    }

    /// When the next record ends.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.first().map(|(at, ..)| *at)
    }

    /// Ends the records whose time is over; returns the pushes to those who watch.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Push> {
        let mut out = Vec::new();
        while let Some(&(at, namespace, key)) = self.ends.first()
            && at <= now
        {
            self.ends.pop_first();
            self.counters.expired += 1;
            let Some(space) = self.spaces.get_mut(&namespace) else { continue };
            space.records.swap_remove(&key);
            out.extend(push(space, None, &Frame::Expired { peer: key }, &mut self.counters));
        }
        out
    }
}

fn seen(now: Instant, key: PublicKey, held: &Stored) -> SealedRecord {
    let ttl = held.expires.saturating_duration_since(now);
    SealedRecord { key, seq: held.seq, ttl, sealed: held.sealed.clone() }
}

fn push(space: &Space, except: Option<ClientId>, frame: &Frame<'_>, counters: &mut Counters) -> Option<Push> {
    let to: Vec<ClientId> = space.watchers.iter().copied().filter(|id| Some(*id) != except).collect();
    counters.pushes += to.len() as u64;
    (!to.is_empty()).then(|| (to, Bytes::from(frame.to_vec())))
}

/// A uniform number below `bound` (which isn't 0), by multiplication (Lemire, 2019; the bias of 2^-64 times
/// `bound` is accepted).
fn below(rng: &mut Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::control::frames::split;
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

        /// (connection, frame) for everything that is to be sent; connection and key have the same number.
        fn send(&mut self, n: u8, namespace: Namespace, frame: Frame<'_>) -> Vec<(u64, String)> {
            let id = ClientId(n.into());
            let pushes = self.records.handle_frame(self.now, id, namespace, key(n), frame).unwrap();
            texts(pushes)
        }

        fn publish(&mut self, n: u8, seq: u64, sealed: &[u8]) -> Vec<(u64, String)> {
            self.send(n, HOME, Frame::Publish { seq, ttl: TTL, sealed })
        }
    }

    fn texts(pushes: Vec<Push>) -> Vec<(u64, String)> {
        let mut out = Vec::new();
        for (to, bytes) in pushes {
            let (kind, body) = split(&bytes).next().unwrap().unwrap();
            let text = match Frame::decode(kind, body).unwrap().unwrap() {
                Frame::Published { seq, result } => format!("{result:?} {seq}"),
                Frame::Record(record) => format!("{} of {}", record.seq, record.key.as_bytes()[0]),
                Frame::Changed(record) => format!("changed {} of {}", record.seq, record.key.as_bytes()[0]),
                Frame::NoRecord { .. } => "none".into(),
                Frame::Expired { peer } => format!("expired {}", peer.as_bytes()[0]),
                Frame::Records(records) => format!("{} records", records.len()),
                other => panic!("{other:?}"),
            };
            out.extend(to.into_iter().map(|id| (id.0, text.clone())));
        }
        out
    }

    fn say(id: u64, text: &str) -> (u64, String) {
        (id, text.to_owned())
    }

    #[test]
    fn a_record_is_found_by_others_of_its_namespace_only() {
        let mut bench = Bench::new(10);
        assert_eq!(bench.publish(1, 5, b"a"), [say(1, "Stored 5")]);
        assert_eq!(bench.send(2, HOME, Frame::Lookup { peer: key(1) }), [say(2, "5 of 1")]);
        assert_eq!(bench.send(2, ELSEWHERE, Frame::Lookup { peer: key(1) }), [say(2, "none")]);
        assert_eq!(bench.send(2, ELSEWHERE, Frame::List { max: 9 }), [say(2, "0 records")]);
    }

    #[test]
    fn a_number_never_goes_back_and_never_names_two_contents() {
        let mut bench = Bench::new(10);
        bench.publish(1, 5, b"a");
        assert_eq!(bench.publish(1, 4, b"older"), [say(1, "Stale 5")]);
        assert_eq!(bench.publish(1, 5, b"other"), [say(1, "Stale 5")]);
        assert_eq!(bench.publish(1, 5, b"a"), [say(1, "Stored 5")]);
        assert_eq!(bench.publish(1, 6, b"b"), [say(1, "Stored 6")]);
        assert_eq!(bench.records.counters().refused_stale, 2);
        assert_eq!(bench.records.counters().refreshed, 1);
        assert_eq!(bench.records.len(), 1);
    }

    #[test]
    fn a_record_ends_unless_it_is_refreshed() {
        let mut bench = Bench::new(10);
        bench.send(2, HOME, Frame::Watch { on: true });
        bench.publish(1, 5, b"a");
        bench.now += TTL / 3;
        bench.publish(1, 5, b"a");
        bench.now += TTL - Duration::from_secs(1);
        assert_eq!(texts(bench.records.handle_timeout(bench.now)), []);
        assert_eq!(bench.send(2, HOME, Frame::Lookup { peer: key(1) }), [say(2, "5 of 1")]);
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.records.poll_timeout(), Some(bench.now));
        assert_eq!(bench.send(2, HOME, Frame::Lookup { peer: key(1) }), [say(2, "none")]);
        assert_eq!(texts(bench.records.handle_timeout(bench.now)), [say(2, "expired 1")]);
        assert!(bench.records.is_empty());
    }

    #[test]
    fn a_client_asks_for_no_longer_life_than_the_hub_gives() {
        let mut bench = Bench::new(10);
        bench.send(1, HOME, Frame::Publish { seq: 1, ttl: Duration::from_secs(60_000), sealed: b"" });
        assert_eq!(bench.records.poll_timeout(), Some(bench.now + TTL));
    }

    #[test]
    fn watchers_hear_changes_but_not_refreshes_and_not_their_own() {
        let mut bench = Bench::new(10);
        bench.send(1, HOME, Frame::Watch { on: true });
        bench.send(2, HOME, Frame::Watch { on: true });
        bench.send(3, ELSEWHERE, Frame::Watch { on: true });
        assert_eq!(bench.publish(1, 5, b"a"), [say(1, "Stored 5"), say(2, "changed 5 of 1")]);
        assert_eq!(bench.publish(1, 5, b"a"), [say(1, "Stored 5")]);
        bench.send(2, HOME, Frame::Watch { on: false });
        assert_eq!(bench.publish(1, 6, b"b"), [say(1, "Stored 6")]);
        bench.send(2, HOME, Frame::Watch { on: true });
        assert_eq!(bench.send(1, HOME, Frame::Withdraw), [say(1, "expired 1"), say(2, "expired 1")]);
        bench.records.disconnected(ClientId(2), HOME);
        assert_eq!(bench.publish(1, 7, b"c"), [say(1, "Stored 7")]);
    }

    #[test]
    fn records_and_their_sizes_are_bounded() {
        let mut bench = Bench::new(2);
        bench.publish(1, 1, b"a");
        bench.publish(2, 1, b"a");
        assert_eq!(bench.publish(3, 1, b"a"), [say(3, "Full 0")]);
        assert_eq!(bench.publish(1, 2, &[0; MAX_RECORD_BYTES + 1]), [say(1, "TooLarge 1")]);
        assert_eq!(bench.publish(1, 2, &[0; MAX_RECORD_BYTES]), [say(1, "Stored 2")]);
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
            let id = ClientId(1);
            let frame = Frame::List { max: u16::MAX };
            let pushes = bench.records.handle_frame(bench.now, id, HOME, key(1), frame).unwrap();
            let (kind, body) = split(&pushes[0].1).next().unwrap().unwrap();
            let Ok(Some(Frame::Records(records))) = Frame::decode(kind, body) else { panic!("a list") };
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
        let forged = Frame::Expired { peer: key(1) };
        assert!(bench.records.handle_frame(bench.now, ClientId(2), HOME, key(2), forged).is_none());
    }
}
