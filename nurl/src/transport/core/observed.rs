//! Where peers say that they see us.
//!
//! The echo of a challenge names the source that the peer saw. Behind a NAT that maps endpoint-independently all peers
//! see the same address, and then it is worth telling to others (RFC 8445's peer-reflexive candidate, seen from the
//! other end). Behind any other NAT each sees another one, of use to that peer alone, which knows it. So an address is
//! a candidate once two peers agree on it; one peer that lies names nothing but itself.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::key::PublicKey;

/// Peers whose word is kept, the newest: enough to find two that agree, few enough to look through each time.
const MAX_OBSERVERS: usize = 32;

/// Addresses that peers may agree on at one time, the newest: one of each family.
const MAX_AGREED: usize = 2;

/// What peers said, one word each, the newest first.
#[derive(Debug, Default)]
pub(super) struct Observed(VecDeque<(PublicKey, SocketAddr)>);

impl Observed {
    /// A peer's word, in place of the one before.
    pub(super) fn note(&mut self, peer: PublicKey, addr: SocketAddr) {
        self.forget(&peer);
        self.0.push_front((peer, addr));
        self.0.truncate(MAX_OBSERVERS);
    }

    /// Drops a peer's word. Says whether there was one.
    pub(super) fn forget(&mut self, peer: &PublicKey) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| known != peer);
        self.0.len() < before
    }

    /// Our network is another one: what was seen of the old one is worth nothing.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The addresses that two peers at least see us at, the newest first.
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
