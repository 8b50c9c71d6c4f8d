//! The pings under way, by the number that a peer echoes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use crate::rt::Rng;

/// The most pings under way.
pub(super) const PINGS: usize = 256;

/// Pings without an answer yet, each with the reply to its caller.
#[derive(Debug)]
pub(super) struct Pings<R> {
    open: BTreeMap<u64, (Instant, R)>,
    rng: Rng,
}

impl<R> Pings<R> {
    pub(super) fn new(rng: Rng) -> Pings<R> {
        Pings { open: BTreeMap::new(), rng }
    }

    /// A number for the next ping; `None` while too many are under way.
    pub(super) fn next_nonce(&mut self) -> Option<u64> {
        (self.open.len() < PINGS).then(|| self.rng.next_u64())
    }

    /// Notes a ping that was sent.
    pub(super) fn begin(&mut self, now: Instant, nonce: u64, reply: R) {
        self.open.insert(nonce, (now, reply));
    }

    /// The caller that waits for this echo, and the round trip.
    pub(super) fn answered(&mut self, now: Instant, nonce: u64) -> Option<(R, Duration)> {
        let (begun, reply) = self.open.remove(&nonce)?;
        Some((reply, now.saturating_duration_since(begun)))
    }

    /// Drops the pings whose callers gave up.
    pub(super) fn retain(&mut self, waits: impl Fn(&R) -> bool) {
        self.open.retain(|_, (_, reply)| waits(reply));
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn an_echo_answers_its_own_ping_once_and_pings_are_bounded() {
        let start = crate::rt::time::now();
        let mut pings = Pings::new(Rng::from_seed([1; 32]));
        let nonces: Vec<u64> = (0..PINGS)
            .map(|n| {
                let nonce = pings.next_nonce().unwrap();
                pings.begin(start, nonce, n);
                nonce
            })
            .collect();
        assert_eq!(pings.next_nonce(), None);
        let later = start + Duration::from_millis(20);
        assert_eq!(pings.answered(later, nonces[7]), Some((7, Duration::from_millis(20))));
        assert_eq!(pings.answered(later, nonces[7]), None);
        assert!(pings.next_nonce().is_some());
        pings.retain(|n| n % 2 == 0);
        assert_eq!(pings.answered(later, nonces[9]), None);
        assert!(pings.answered(later, nonces[8]).is_some());
    }
}
