//! How much may be sent to the addresses of a peer that aren't proven: three times the bytes that came from the peer, for
//! all of them together.
//!
//! An address that the peer names, or that stands on a copied datagram, may be a victim's. A bound for each address would
//! multiply with the length of the list, so there is one for each peer. What pays is what only the peer could have sent:
//! its handshakes, its sealed frames on any route, and its record at a rendezvous.
//!
//! **What a punch needs.** A challenge has 39 bytes. An address that answers does so after one or two; a silent one is sent
//! six in 3 s, and three more in 21 s. A peer with four addresses has paid for 38 challenges when its list has arrived
//! (a response 405 bytes, a confirm 29, the list 64), for 44 with the first challenge on the relay and its echo, and for
//! 62 in 3 s, while the relay is being measured; its data come in addition. Four silent addresses take 24 in that time.
//! Sixteen take 32 for the first two challenges of each, which go before the third of any; what follows waits for the
//! peer's data.

use super::config::{AMPLIFICATION_LIMIT, MAX_ALLOWANCE_BYTES, RESPONSE_RESERVE_BYTES};

/// The bytes that may still go to unproven addresses of a peer.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    left_bytes: u64,
}

impl Allowance {
    /// `len` authenticated bytes came from the peer, by whatever route.
    pub(super) fn earn(&mut self, len: usize) {
        let earned = AMPLIFICATION_LIMIT * len as u64;
        self.left_bytes = self.left_bytes.saturating_add(earned).min(MAX_ALLOWANCE_BYTES);
    }

    /// Counts `len` bytes to an unproven address.
    pub(super) fn spend(&mut self, len: usize) {
        self.left_bytes = self.left_bytes.saturating_sub(len as u64);
    }

    /// Whether `len` bytes may go to an unproven address, beside the response that the peer's last datagram may demand.
    pub(super) fn covers(&self, len: usize) -> bool {
        self.left_bytes >= (len + RESPONSE_RESERVE_BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_always_covered_by_the_challenge_that_demands_it() {
        let mut allowance = Allowance::default();
        let challenge_len = 39;
        let (mut received, mut sent) = (0, 0);
        for _ in 0..1_000 {
            allowance.earn(challenge_len);
            received += challenge_len;
            while allowance.covers(challenge_len) && sent <= 3 * received {
                allowance.spend(challenge_len);
                sent += challenge_len;
            }
            allowance.spend(RESPONSE_RESERVE_BYTES);
            sent += RESPONSE_RESERVE_BYTES;
            assert!(sent <= 3 * received, "{sent} for {received}");
        }
        assert!(sent + challenge_len + RESPONSE_RESERVE_BYTES >= 3 * received, "and it is used up");
    }

    #[test]
    fn what_is_saved_is_bounded() {
        let mut allowance = Allowance::default();
        allowance.earn(usize::MAX / 4);
        assert!(allowance.covers(MAX_ALLOWANCE_BYTES as usize - RESPONSE_RESERVE_BYTES));
        assert!(!allowance.covers(MAX_ALLOWANCE_BYTES as usize));
    }
}
