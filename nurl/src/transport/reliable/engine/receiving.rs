//! The receive budget: which peers are read from, and which are paused.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::key::PublicKey;
use crate::transport::Gauge;
use crate::transport::reliable::limits::STALL;

/// The bytes received from all peers, against their budget.
pub(super) struct Receiving {
    /// Bytes received, incomplete or not yet taken.
    bytes: usize,
    budget: usize,
    /// Peers with reading paused because of the budget.
    paused: BTreeSet<PublicKey>,
    /// While the budget is exceeded: the only peer that is read from, and the time of its last progress.
    leader: Option<(PublicKey, Instant)>,
}

impl Receiving {
    pub(super) fn new(budget: usize) -> Receiving {
        Receiving { bytes: 0, budget, paused: BTreeSet::new(), leader: None }
    }

    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.bytes, bound: self.budget }
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes >= self.budget
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Whether a peer may be read from now.
    pub(super) fn may_read(&self, peer: &PublicKey) -> bool {
        !self.is_over() || self.leader.is_some_and(|(leader, _)| leader == *peer)
    }

    /// Pauses a peer. Returns whether it wasn't paused before.
    pub(super) fn pause(&mut self, peer: PublicKey) -> bool {
        self.paused.insert(peer)
    }

    pub(super) fn unpause(&mut self, peer: &PublicKey) {
        self.paused.remove(peer);
    }

    /// A paused peer that may be read from again.
    pub(super) fn resumable(&self) -> Option<PublicKey> {
        self.paused.iter().find(|peer| self.may_read(peer)).copied()
    }

    /// A peer's connection ended.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.paused.remove(peer);
        if self.leader.is_some_and(|(leader, _)| leader == *peer) {
            self.leader = None;
        }
    }

    /// The leader sent something of use.
    pub(super) fn progressed(&mut self, now: Instant, peer: &PublicKey) {
        if let Some((leader, progress)) = &mut self.leader
            && leader == peer
        {
            *progress = now;
        }
    }

    /// While the budget is exceeded, one peer is read from: the smallest key among those with an incomplete message.
    /// Any rule works that selects a peer which can complete its message. `begun` tells whether a peer has one.
    pub(super) fn choose_leader<'a>(
        &mut self,
        now: Instant,
        mut peers: impl Iterator<Item = &'a PublicKey>,
        begun: impl Fn(&PublicKey) -> bool,
    ) {
        if !self.is_over() {
            self.leader = None;
        } else if self.leader.is_none_or(|(leader, _)| !begun(&leader)) {
            self.leader = peers.find(|peer| begun(peer)).map(|leader| (*leader, now));
        }
    }

    /// When [`take_stalled`](Receiving::take_stalled) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.leader.map(|(_, progress)| progress + STALL)
    }

    /// The leader, which is none from now on, if it has made no progress for too long.
    pub(super) fn take_stalled(&mut self, now: Instant) -> Option<PublicKey> {
        self.leader.take_if(|(_, progress)| now >= *progress + STALL).map(|(leader, _)| leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn over_the_budget_one_peer_is_read_from_until_it_stalls() {
        let now = crate::rt::time::now();
        let peers = [key(1), key(2), key(3)];
        let mut receiving = Receiving::new(100);
        receiving.add(99);
        assert!(receiving.may_read(&key(1)));
        receiving.add(1);
        receiving.choose_leader(now, peers.iter(), |peer| *peer != key(1));
        assert!(peers.map(|peer| receiving.may_read(&peer)) == [false, true, false]);
        assert!(receiving.pause(key(3)) && !receiving.pause(key(3)));
        assert_eq!(receiving.resumable(), None);

        let later = now + STALL / 2;
        receiving.progressed(later, &key(3));
        assert_eq!(receiving.poll_timeout(), Some(now + STALL), "only the leader's progress counts");
        receiving.progressed(later, &key(2));
        assert_eq!(receiving.take_stalled(now + STALL), None);
        assert_eq!(receiving.take_stalled(later + STALL), Some(key(2)));
        assert_eq!(receiving.poll_timeout(), None);

        receiving.choose_leader(later, peers.iter(), |peer| *peer == key(3));
        assert_eq!(receiving.resumable(), Some(key(3)));
        receiving.forget(&key(3));
        assert_eq!((receiving.resumable(), receiving.poll_timeout()), (None, None));
        receiving.remove(1);
        receiving.choose_leader(later + Duration::from_secs(1), peers.iter(), |_| true);
        assert!(receiving.poll_timeout().is_none() && receiving.may_read(&key(1)));
    }
}
