//! Datagrams that wait for a session.
//!
//! A send to a peer without a session starts a handshake, and its datagram is kept here, so that the first
//! messages of a conversation aren't lost. Datagrams are unreliable, so the queue is short: it keeps the
//! newest ones, for about the time of a handshake, and counts those that it drops.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Gauge;
use crate::key::PublicKey;

/// Datagrams kept for one peer: a burst of probes and gossip, not a bulk transfer.
pub(super) const PER_PEER: usize = 32;

/// Peers with waiting datagrams at one time: a node contacts its peers one by one or a few at once.
pub(super) const PEERS: usize = 256;

/// Older datagrams are dropped when the session comes up: their sender has timed out by then.
pub(super) const KEEP: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Entry {
    since: Instant,
    channel: u8,
    body: Bytes,
}

/// The queues, by peer.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    peers: BTreeMap<PublicKey, VecDeque<Entry>>,
    /// Datagrams dropped because a queue was full, or because they waited too long.
    pub(crate) dropped: u64,
}

impl Waiting {
    /// Keeps a datagram until [`take`](Waiting::take). In a full queue the oldest one is dropped.
    pub(crate) fn push(&mut self, now: Instant, peer: PublicKey, channel: u8, body: Bytes) {
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS {
            self.dropped += 1;
            return;
        }
        let queue = self.peers.entry(peer).or_default();
        if queue.len() >= PER_PEER {
            queue.pop_front();
            self.dropped += 1;
        }
        queue.push_back(Entry { since: now, channel, body });
    }

    /// The datagrams that waited for `peer` and haven't expired, oldest first.
    pub(crate) fn take(&mut self, now: Instant, peer: &PublicKey) -> Vec<(u8, Bytes)> {
        let queue = self.peers.remove(peer).unwrap_or_default();
        let all = queue.len();
        let fresh: Vec<_> = queue
            .into_iter()
            .filter(|entry| now.saturating_duration_since(entry.since) <= KEEP)
            .map(|entry| (entry.channel, entry.body))
            .collect();
        self.dropped += (all - fresh.len()) as u64;
        fresh
    }

    /// The number of peers with waiting datagrams, and the length of the longest queue.
    pub(crate) fn gauges(&self) -> (Gauge, Gauge) {
        let longest = self.peers.values().map(VecDeque::len).max().unwrap_or(0);
        (Gauge { now: self.peers.len(), bound: PEERS }, Gauge { now: longest, bound: PER_PEER })
    }

    /// The peers with waiting datagrams.
    pub(crate) fn peers(&self) -> Vec<PublicKey> {
        self.peers.keys().copied().collect()
    }

    /// Whether datagrams wait for a peer.
    pub(crate) fn holds(&self, peer: &PublicKey) -> bool {
        self.peers.contains_key(peer)
    }

    /// Drops the datagrams for an unreachable peer.
    pub(crate) fn forget(&mut self, peer: &PublicKey) {
        if let Some(queue) = self.peers.remove(peer) {
            self.dropped += queue.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    fn peer(n: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        PublicKey::from_bytes(bytes)
    }

    #[test]
    fn a_full_queue_keeps_the_newest_and_counts_the_rest() {
        let (now, mut waiting) = (now(), Waiting::default());
        for n in 0..PER_PEER + 3 {
            waiting.push(now, peer(1), 3, Bytes::from(vec![n as u8]));
        }
        let full = |bound| Gauge { now: bound, bound };
        assert_eq!(waiting.gauges(), (Gauge { now: 1, bound: PEERS }, full(PER_PEER)));
        let taken = waiting.take(now, &peer(1));
        assert_eq!((taken.len(), taken[0].1[0], waiting.dropped), (PER_PEER, 3, 3));
        assert!(waiting.take(now, &peer(1)).is_empty());
    }

    #[test]
    fn peers_are_bounded() {
        let (now, mut waiting) = (now(), Waiting::default());
        for n in 0..=PEERS {
            waiting.push(now, peer(n), 3, Bytes::new());
        }
        assert_eq!((waiting.peers.len(), waiting.dropped), (PEERS, 1));
        waiting.forget(&peer(0));
        assert_eq!((waiting.peers.len(), waiting.dropped), (PEERS - 1, 2));
    }

    #[test]
    fn what_waited_too_long_is_dropped() {
        let (now, mut waiting) = (now(), Waiting::default());
        waiting.push(now, peer(1), 3, Bytes::from_static(b"old"));
        waiting.push(now + KEEP, peer(1), 3, Bytes::from_static(b"new"));
        let taken = waiting.take(now + KEEP + Duration::from_millis(1), &peer(1));
        assert_eq!(taken, [(3, Bytes::from_static(b"new"))]);
        assert_eq!(waiting.dropped, 1);
    }
}
