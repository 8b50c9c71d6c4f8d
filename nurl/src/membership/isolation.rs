//! Decides whether this node itself is cut off, rather than the peers that don't answer it.
//!
//! A node is *isolated* when more than half of the distinct peers that it probed in the last ten seconds failed on
//! every leg **and** no hub answers its PINGs. Verdicts that it then reaches about others are not gossiped. The first
//! successful push-pull discards them and has their subjects probed again; this happens once per subject, and a
//! verdict reached a second time is published. After a minute, verdicts take effect in this node's own view alone. So
//! a node that was cut off for half a minute comes back without flooding the mesh with false deaths, while in a mesh
//! of two a death is still noticed, whether or not a hub answers.
//!
//! Without any evidence the last finding stands.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::key::PublicKey;

/// The most peers whose last probe is remembered. A window holds ten probes of the rounds and, during mass deaths, up
/// to 32 a second outside them; beyond the limit the oldest is forgotten.
pub const MAX_RESULTS: usize = 256;

/// The evidence, and the current finding.
#[derive(Debug)]
pub struct Isolation {
    window: Duration,
    hub_freshness: Duration,
    results: BTreeMap<PublicKey, (Instant, bool)>,
    hub_pong: Option<Instant>,
    since: Option<Instant>,
}

impl Isolation {
    /// No evidence yet: not isolated.
    pub fn new(window: Duration, hub_freshness: Duration) -> Isolation {
        Isolation { window, hub_freshness, results: BTreeMap::new(), hub_pong: None, since: None }
    }

    /// A probe of `peer` ended.
    pub fn probed(&mut self, now: Instant, peer: PublicKey, answered: bool) {
        let window = self.window;
        self.results.retain(|_, (at, _)| now.saturating_duration_since(*at) <= window);
        if self.results.len() >= MAX_RESULTS && !self.results.contains_key(&peer) {
            let oldest = self.results.iter().min_by_key(|(key, (at, _))| (*at, **key)).map(|(key, _)| *key);
            oldest.map(|key| self.results.remove(&key));
        }
        self.results.insert(peer, (now, answered));
    }

    /// A hub answered.
    pub fn hub_pong(&mut self, now: Instant) {
        self.hub_pong = Some(now);
    }

    /// No hub is connected any more.
    pub fn hub_down(&mut self) {
        self.hub_pong = None;
    }

    /// A whole exchange with a member succeeded, so this node isn't isolated. Earlier failures are discarded; earlier
    /// answers are kept, and the exchange counts as an answer. Otherwise the next probe of a dead member would be the
    /// only evidence, and the node would be isolated again before its verdict could take effect.
    pub fn exchanged(&mut self, now: Instant, peer: PublicKey) -> bool {
        self.results.retain(|_, (_, answered)| *answered);
        self.probed(now, peer, true);
        self.since.take().is_some()
    }

    /// Since when this node has been isolated.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Evaluates the evidence; true if the finding changed.
    pub fn weigh(&mut self, now: Instant) -> bool {
        let fresh = self.results.values().filter(|(at, _)| now.saturating_duration_since(*at) <= self.window);
        let (probed, failed) =
            fresh.fold((0usize, 0usize), |(probed, failed), (_, ok)| (probed + 1, failed + usize::from(!ok)));
        let hub = self.hub_pong.is_some_and(|at| now.saturating_duration_since(at) <= self.hub_freshness);
        let isolated = if hub {
            false
        } else if probed == 0 {
            self.since.is_some()
        } else {
            failed * 2 > probed
        };
        if isolated == self.since.is_some() {
            return false;
        }
        self.since = isolated.then_some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(at: u16) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&at.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn new() -> (Instant, Isolation) {
        (crate::rt::test_now(), Isolation::new(Duration::from_secs(10), Duration::from_secs(10)))
    }

    #[test]
    fn more_than_half_of_distinct_peers_must_fail() {
        let (now, mut isolation) = new();
        isolation.probed(now, key(1), true);
        isolation.probed(now, key(2), false);
        // A second failure of the same peer is no further evidence.
        isolation.probed(now, key(2), false);
        assert!(!isolation.weigh(now), "half is not more than half");
        isolation.probed(now, key(3), false);
        assert!(isolation.weigh(now));
        assert_eq!(isolation.since(), Some(now));
        isolation.probed(now, key(3), true);
        assert!(isolation.weigh(now));
        assert_eq!(isolation.since(), None);
    }

    #[test]
    fn a_hub_that_answers_is_proof_against_isolation_until_it_falls_silent() {
        let (now, mut isolation) = new();
        isolation.hub_pong(now);
        isolation.probed(now, key(1), false);
        assert!(!isolation.weigh(now));
        let later = now + Duration::from_secs(11);
        isolation.probed(later, key(1), false);
        assert!(isolation.weigh(later));
        isolation.hub_pong(later);
        assert!(isolation.weigh(later));
        isolation.hub_down();
        assert!(isolation.weigh(later), "a closed connection needs no waiting");
    }

    #[test]
    fn old_probes_are_no_evidence_and_no_evidence_changes_nothing() {
        let (now, mut isolation) = new();
        isolation.probed(now, key(1), false);
        assert!(isolation.weigh(now));
        let later = now + Duration::from_secs(60);
        assert!(!isolation.weigh(later));
        assert_eq!(isolation.since(), Some(now));
        assert!(isolation.exchanged(later, key(2)));
        assert!(!isolation.exchanged(later, key(2)));
    }

    #[test]
    fn after_an_exchange_a_death_is_no_isolation() {
        let (now, mut isolation) = new();
        isolation.probed(now, key(1), false);
        assert!(isolation.weigh(now));
        isolation.exchanged(now, key(2));
        isolation.probed(now, key(1), false);
        assert!(!isolation.weigh(now), "one is dead, one is not");
    }

    #[test]
    fn the_results_are_bounded() {
        let (now, mut isolation) = new();
        for at in 0..MAX_RESULTS as u16 + 9 {
            isolation.probed(now, key(at), true);
        }
        assert_eq!(isolation.results.len(), MAX_RESULTS);
    }
}
