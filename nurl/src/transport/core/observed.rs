//! Our addresses as peers observe them.
//!
//! The echo of a challenge contains the source address that the peer saw. Behind a NAT with endpoint-independent
//! mapping all peers see the same address, which other peers can then use (RFC 8445's peer-reflexive candidate, seen
//! from the other end). Behind any other NAT each peer sees another address, which only that peer can use and already
//! knows. So an address becomes a candidate once two peers report it; a single false report adds none.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::key::PublicKey;

/// Reports kept, the newest: enough to find two that agree, few enough to scan each time.
const MAX_OBSERVERS: usize = 32;

/// Agreed addresses kept at one time, the newest: one of each family.
const MAX_AGREED: usize = 2;

/// The reports, one per peer, the newest first.
#[derive(Debug, Default)]
pub(super) struct Observed(VecDeque<(PublicKey, SocketAddr)>);

impl Observed {
    /// Records a peer's report in place of its previous one.
    pub(super) fn note(&mut self, peer: PublicKey, addr: SocketAddr) {
        self.forget(&peer);
        self.0.push_front((peer, addr));
        self.0.truncate(MAX_OBSERVERS);
    }

    /// Drops a peer's report. Returns whether there was one.
    pub(super) fn forget(&mut self, peer: &PublicKey) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| known != peer);
        self.0.len() < before
    }

    /// Drops all reports: our network changed, so they are obsolete.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The addresses that at least two peers report, the newest first.
    pub(super) fn agreed(&self) -> Vec<SocketAddr> {
        let mut agreed: Vec<SocketAddr> = Vec::with_capacity(MAX_AGREED);
        for (at, (_, addr)) in self.0.iter().enumerate() {
            let again = self.0.iter().skip(at + 1).any(|(_, other)| other == addr);
            if again && !agreed.contains(addr) && agreed.len() < MAX_AGREED {
                agreed.push(*addr);
            }
        }
        agreed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], port))
    }

    #[test]
    fn one_peer_alone_names_no_candidate_however_often_it_speaks() {
        let mut observed = Observed::default();
        for port in [1, 1, 2, 1] {
            observed.note(peer(1), addr(port));
            assert_eq!(observed.agreed(), []);
        }
    }

    #[test]
    fn two_that_agree_do_until_one_of_them_says_otherwise_or_leaves() {
        let mut observed = Observed::default();
        observed.note(peer(1), addr(1));
        observed.note(peer(2), addr(1));
        assert_eq!(observed.agreed(), [addr(1)]);
        observed.note(peer(2), addr(2));
        assert_eq!(observed.agreed(), []);
        observed.note(peer(1), addr(2));
        assert_eq!(observed.agreed(), [addr(2)]);
        assert!(observed.forget(&peer(1)) && !observed.forget(&peer(1)));
        assert_eq!(observed.agreed(), []);
    }

    #[test]
    fn words_and_addresses_are_bounded_and_the_newest_are_kept() {
        let mut observed = Observed::default();
        for n in 0..=u8::MAX {
            observed.note(peer(n), addr(u16::from(n / 2)));
        }
        assert_eq!(observed.0.len(), MAX_OBSERVERS);
        assert_eq!(observed.agreed(), [addr(127), addr(126)]);
    }
}
