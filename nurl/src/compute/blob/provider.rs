//! The files that this node gives, and to whom.
//!
//! A file is offered as the payload or the result of a task, and read for the peers to which that task grants it. Requests
//! wait in a short queue for each peer. The queues take turns; of each peer, a window of chunks may be read and not yet
//! delivered, and so of all together. So a peer that asks without taking what comes holds a window of memory, and no more.
//!
//! The caller reads the chunks and checks each against the manifest: a file that somebody changes is never sent as what it
//! was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::WINDOW_BYTES;
use super::manifest::Manifest;
use super::message::{FileId, MAX_ASKED, Message, Refusal};
use crate::key::PublicKey;

/// How often a chunk is read for one peer, on average over a file: losses, and a restart or two of the peer. A new
/// grant, as for another attempt, begins anew.
pub const READS_PER_CHUNK: u64 = 4;

/// The files offered at a time.
pub const MAX_OFFERS: usize = 16_384;

/// The peers that may read one file.
pub const MAX_READERS: usize = 64;

/// The peers with requests that wait.
pub const MAX_ASKING: usize = 256;

/// Bytes that were read and not yet delivered, to all peers together.
pub const MAX_UNDELIVERED_BYTES: u64 = 32 << 20;

/// A chunk to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<S> {
    /// The number to return to [`handle_read`](Provider::handle_read) and [`handle_delivered`](Provider::handle_delivered).
    pub number: u64,
    /// For whom.
    pub to: PublicKey,
    /// Of which file.
    pub file: FileId,
    /// Which chunk.
    pub index: u32,
    /// What the file is made of.
    pub manifest: Manifest,
    /// Where it is.
    pub source: S,
}

/// Counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProviderStats {
    /// Chunks that were sent.
    pub chunks: u64,
    /// Requests for files that aren't offered to the peer.
    pub unknown: u64,
    /// Requests that are over a bound.
    pub too_often: u64,
    /// Chunks that are no longer what they were.
    pub changed: u64,
}

#[derive(Debug)]
struct Offer<S> {
    manifest: Manifest,
    source: S,
    /// The chunks that each may still ask for.
    readers: BTreeMap<PublicKey, u64>,
    /// When it ends.
    until: Instant,
}

#[derive(Debug, Default)]
struct Asking {
    queue: VecDeque<(FileId, u32)>,
    waits: BTreeSet<(FileId, u32)>,
    undelivered: u64,
}

/// See the module. `S` says where a file is.
#[derive(Debug)]
pub struct Provider<S> {
    offers: BTreeMap<FileId, Offer<S>>,
    asking: BTreeMap<PublicKey, Asking>,
    /// The last peer that had its turn.
    turn: Option<PublicKey>,
    /// What is being read or delivered.
    under_way: BTreeMap<u64, (PublicKey, u64)>,
    undelivered: u64,
    next: u64,
    out: VecDeque<(PublicKey, Message)>,
    stats: ProviderStats,
}

impl<S> Default for Provider<S> {
    fn default() -> Provider<S> {
        Provider {
            offers: BTreeMap::new(),
            asking: BTreeMap::new(),
            turn: None,
            under_way: BTreeMap::new(),
            undelivered: 0,
            next: 0,
            out: VecDeque::new(),
            stats: ProviderStats::default(),
        }
    }
}

impl<S: Clone> Provider<S> {
    /// Offers a file until a time. Nobody may read it before a [grant](Provider::grant). False if too many are offered.
    pub fn offer(&mut self, file: FileId, manifest: Manifest, source: S, until: Instant) -> bool {
        if self.offers.len() >= MAX_OFFERS && !self.offers.contains_key(&file) {
            return false;
        }
        self.offers.insert(file, Offer { manifest, source, readers: BTreeMap::new(), until });
        true
    }

    /// Lets a peer read a file that is offered.
    pub fn grant(&mut self, file: FileId, peer: PublicKey) {
        let Some(offer) = self.offers.get_mut(&file) else { return };
        if offer.readers.len() < MAX_READERS || offer.readers.contains_key(&peer) {
            let reads = u64::from(offer.manifest.count()) * READS_PER_CHUNK + MAX_ASKED as u64;
            offer.readers.insert(peer, reads);
        }
    }

    /// Ends an offer; returns where the file is.
    pub fn withdraw(&mut self, file: FileId) -> Option<S> {
        self.offers.remove(&file).map(|offer| offer.source)
    }

    /// Ends an offer that its reader needs no more; returns where the file is.
    pub fn handle_done(&mut self, from: PublicKey, file: FileId) -> Option<S> {
        let may = self.offers.get(&file).is_some_and(|offer| offer.readers.contains_key(&from));
        if may { self.withdraw(file) } else { None }
    }

    /// Takes a request. What isn't granted gets the same answer as what doesn't exist.
    pub fn handle_get(&mut self, from: PublicKey, file: FileId, indexes: &[u32]) {
        let offer = self.offers.get_mut(&file);
        let readable = offer.and_then(|offer| Some((offer.manifest.count(), offer.readers.get_mut(&from)?)));
        let Some((count, reads)) = readable else {
            self.stats.unknown += 1;
            self.refuse(from, file, Refusal::Unknown);
            return;
        };
        let full = self.asking.len() >= MAX_ASKING && !self.asking.contains_key(&from);
        if full {
            // It asks again.
            self.stats.too_often += 1;
            return;
        }
        let asking = self.asking.entry(from).or_default();
        let mut spent = false;
        for index in indexes.iter().filter(|index| **index < count) {
            // A repeated request for what waits already; a queue longer than a window is no honest peer's.
            if asking.waits.contains(&(file, *index)) || asking.queue.len() >= 2 * MAX_ASKED {
                continue;
            }
            if *reads == 0 {
                spent = true;
                break;
            }
            *reads -= 1;
            asking.waits.insert((file, *index));
            asking.queue.push_back((file, *index));
        }
        self.drop_idle(from);
        if spent {
            self.stats.too_often += 1;
            self.refuse(from, file, Refusal::TooOften);
        }
    }

    fn refuse(&mut self, to: PublicKey, file: FileId, why: Refusal) {
        if self.out.len() < MAX_ASKING {
            self.out.push_back((to, Message::Refused { file, why }));
        }
    }

    /// The next chunk to read.
    pub fn poll_read(&mut self) -> Option<Read<S>> {
        loop {
            if self.undelivered >= MAX_UNDELIVERED_BYTES {
                return None;
            }
            let ready = |asking: &Asking| !asking.queue.is_empty() && asking.undelivered < WINDOW_BYTES;
            let after = self.turn.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let next = self.asking.range((after, std::ops::Bound::Unbounded)).chain(&self.asking);
            let (to, _) = next.into_iter().find(|(_, asking)| ready(asking))?;
            let to = *to;
            self.turn = Some(to);
            let asking = self.asking.get_mut(&to)?;
            let (file, index) = asking.queue.pop_front()?;
            asking.waits.remove(&(file, index));
            // The offer may have ended meanwhile.
            let offer = self.offers.get(&file).filter(|offer| offer.readers.contains_key(&to));
            let Some(offer) = offer else {
                self.drop_idle(to);
                continue;
            };
            let (manifest, source) = (offer.manifest.clone(), offer.source.clone());
            let bytes = manifest.place(index).1 as u64;
            asking.undelivered += bytes;
            self.undelivered += bytes;
            let number = self.next;
            self.next += 1;
            self.under_way.insert(number, (to, bytes));
            return Some(Read { number, to, file, index, manifest, source });
        }
    }

    /// Takes what was read: the chunk's bytes, or none if they are no longer what they were. The message to send, whose
    /// end is to be told to [`handle_delivered`](Provider::handle_delivered); none if there is nothing to send.
    pub fn handle_read(&mut self, read: &Read<S>, bytes: Option<Bytes>) -> Option<(PublicKey, Message)> {
        let Read { number, to, file, index, .. } = *read;
        match bytes {
            Some(bytes) => {
                self.stats.chunks += 1;
                Some((to, Message::Chunk { file, index, bytes }))
            }
            None => {
                self.stats.changed += 1;
                self.handle_delivered(number);
                self.refuse(to, file, Refusal::Changed);
                None
            }
        }
    }

    /// Notes that a chunk was delivered, or lost.
    pub fn handle_delivered(&mut self, number: u64) {
        let Some((to, bytes)) = self.under_way.remove(&number) else { return };
        self.undelivered -= bytes;
        if let Some(asking) = self.asking.get_mut(&to) {
            asking.undelivered -= bytes;
        }
        self.drop_idle(to);
    }

    fn drop_idle(&mut self, peer: PublicKey) {
        let idle = |asking: &Asking| asking.queue.is_empty() && asking.undelivered == 0;
        if self.asking.get(&peer).is_some_and(idle) {
            self.asking.remove(&peer);
        }
    }

    /// The next answer to send.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Message)> {
        self.out.pop_front()
    }

    /// Ends what is over; returns where those files are.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<S> {
        let over: Vec<FileId> =
            self.offers.iter().filter(|(_, offer)| now >= offer.until).map(|(file, _)| *file).collect();
        over.into_iter().filter_map(|file| self.withdraw(file)).collect()
    }

    /// When [`handle_timeout`](Provider::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.offers.values().map(|offer| offer.until).min()
    }

    /// Counters.
    pub fn stats(&self) -> ProviderStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::manifest::tests::{of_bytes, some_bytes};
    use super::super::message::Side;
    use super::*;
    use crate::compute::job::TaskId;
    use crate::rt::test_now;

    const FILE: FileId = FileId { task: TaskId::from_bytes([1; 16]), side: Side::Payload };
    const CHUNK: u64 = 64 << 10;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn offered(chunks: usize) -> Provider<&'static str> {
        let mut provider = Provider::default();
        let manifest = of_bytes(&some_bytes(chunks * CHUNK as usize));
        assert!(provider.offer(FILE, manifest, "there", test_now() + Duration::from_secs(60)));
        provider
    }

    fn reads(provider: &mut Provider<&'static str>) -> Vec<(PublicKey, u32)> {
        std::iter::from_fn(|| provider.poll_read()).map(|read| (read.to, read.index)).collect()
    }

    #[test]
    fn a_peer_to_which_the_task_was_not_given_reads_nothing_and_learns_nothing() {
        let mut provider = offered(2);
        provider.grant(FILE, peer(1));
        provider.handle_get(peer(2), FILE, &[0]);
        let nowhere = FileId { task: TaskId::from_bytes([9; 16]), side: Side::Payload };
        provider.handle_get(peer(2), nowhere, &[0]);
        provider.handle_get(peer(1), FileId { side: Side::Result, ..FILE }, &[0]);
        assert_eq!(reads(&mut provider), []);
        let answers: Vec<_> = std::iter::from_fn(|| provider.poll_transmit()).collect();
        assert!(
            answers
                .iter()
                .all(|(_, answer)| matches!(answer, Message::Refused { why: Refusal::Unknown, .. }))
        );
        assert_eq!((answers.len(), provider.stats().unknown), (3, 3));
        provider.handle_get(peer(1), FILE, &[1, 0, 7]);
        assert_eq!(reads(&mut provider), [(peer(1), 1), (peer(1), 0)]);
    }

    #[test]
    fn a_peer_that_takes_nothing_has_a_window_read_and_the_others_have_their_turns() {
        let mut provider = offered(200);
        provider.grant(FILE, peer(1));
        provider.grant(FILE, peer(2));
        let all: Vec<u32> = (0..200).collect();
        for asked in all.chunks(MAX_ASKED) {
            provider.handle_get(peer(1), FILE, asked);
        }
        provider.handle_get(peer(2), FILE, &[5, 6]);
        let turns = reads(&mut provider);
        assert_eq!(turns[..4], [(peer(1), 0), (peer(2), 5), (peer(1), 1), (peer(2), 6)]);
        let of_first = turns.iter().filter(|(to, _)| *to == peer(1)).count() as u64;
        assert_eq!(of_first, WINDOW_BYTES / CHUNK);
        provider.handle_delivered(0);
        assert_eq!(reads(&mut provider).len(), 1);
    }

    #[test]
    fn a_peer_that_asks_for_ever_is_not_read_for_for_ever() {
        let mut provider = offered(1);
        provider.grant(FILE, peer(1));
        let mut read = 0;
        for _ in 0..1_000 {
            provider.handle_get(peer(1), FILE, &[0, 0]);
            while let Some(next) = provider.poll_read() {
                read += 1;
                provider.handle_delivered(next.number);
            }
        }
        assert_eq!(read, READS_PER_CHUNK + MAX_ASKED as u64);
        let answer = provider.poll_transmit().unwrap().1;
        assert_eq!(answer, Message::Refused { file: FILE, why: Refusal::TooOften });
        provider.grant(FILE, peer(1));
        provider.handle_get(peer(1), FILE, &[0]);
        assert_eq!(reads(&mut provider).len(), 1, "another attempt begins anew");
    }

    #[test]
    fn all_peers_together_have_a_bound() {
        let mut provider = offered(64);
        let all: Vec<u32> = (0..64).collect();
        for n in 0..20 {
            provider.grant(FILE, peer(n));
            provider.handle_get(peer(n), FILE, &all);
        }
        assert_eq!(reads(&mut provider).len() as u64, MAX_UNDELIVERED_BYTES / CHUNK);
    }

    #[test]
    fn an_offer_ends_by_its_readers_word_or_its_time_and_then_nothing_is_read() {
        let mut provider = offered(2);
        provider.grant(FILE, peer(1));
        provider.handle_get(peer(1), FILE, &[0]);
        assert_eq!(provider.handle_done(peer(2), FILE), None);
        assert_eq!(provider.handle_done(peer(1), FILE), Some("there"));
        assert_eq!(reads(&mut provider), []);
        let mut provider = offered(2);
        let due = provider.poll_timeout().unwrap();
        assert_eq!(provider.handle_timeout(due), ["there"]);
        assert_eq!(provider.poll_timeout(), None);
    }

    #[test]
    fn a_chunk_that_changed_is_not_sent() {
        let mut provider = offered(2);
        provider.grant(FILE, peer(1));
        provider.handle_get(peer(1), FILE, &[0, 1]);
        let read = provider.poll_read().unwrap();
        assert_eq!(provider.handle_read(&read, None), None);
        assert_eq!(
            provider.poll_transmit().unwrap().1,
            Message::Refused { file: FILE, why: Refusal::Changed }
        );
        let read = provider.poll_read().unwrap();
        let sent = provider.handle_read(&read, Some(Bytes::from_static(b"x"))).unwrap();
        assert!(matches!(sent, (to, Message::Chunk { index: 1, .. }) if to == peer(1)));
    }
}
