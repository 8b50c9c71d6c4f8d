//! The order of probes: round-robin over a shuffled list (SWIM §4.3).
//!
//! Each member is probed once in a round, so the wait for its probe is bounded. The target after the next is drawn
//! ahead, so that its session can be established in the meantime.

use crate::key::PublicKey;
use crate::kit::draw;
use crate::rt::Rng;

/// The members in the rounds, and the position in the present one.
#[derive(Debug, Default)]
pub struct ProbeRotation {
    order: Vec<PublicKey>,
    at: usize,
    upcoming: Option<PublicKey>,
}

impl ProbeRotation {
    /// Adds a member at a random place of the list, in the current round or the next.
    pub fn add(&mut self, rng: &mut Rng, key: PublicKey) {
        if !self.order.contains(&key) {
            let place = draw::below(rng, self.order.len() + 1);
            self.order.insert(place, key);
            if place < self.at {
                self.at += 1;
            }
        }
    }

    /// Takes a member out of the rounds.
    pub fn remove(&mut self, key: &PublicKey) {
        if let Some(place) = self.order.iter().position(|other| other == key) {
            self.order.remove(place);
            self.at -= usize::from(place < self.at);
        }
    }

    /// The next target and the one after it. `is_target` filters the members that may be probed.
    pub fn next(
        &mut self,
        rng: &mut Rng,
        is_target: impl Fn(&PublicKey) -> bool,
    ) -> (Option<PublicKey>, Option<PublicKey>) {
        let named = self.upcoming.take().filter(&is_target);
        let target = match named {
            Some(key) => Some(key),
            None => self.draw(rng, &is_target),
        };
        self.upcoming = self.draw(rng, &is_target);
        (target, self.upcoming)
    }

    fn draw(&mut self, rng: &mut Rng, is_target: &impl Fn(&PublicKey) -> bool) -> Option<PublicKey> {
        // Two passes: the rest of this round, then a whole new one.
        for _ in 0..2 {
            while let Some(key) = self.order.get(self.at).copied() {
                if is_target(&key) {
                    self.at += 1;
                    return Some(key);
                }
                self.order.remove(self.at);
            }
            self.at = 0;
            draw::shuffle(rng, &mut self.order);
        }
        None
    }

    /// Number of members in the rounds.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no member is in the rounds.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_core::SeedableRng;

    use super::*;

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    #[test]
    fn every_member_is_probed_once_per_round_and_the_next_is_named_ahead() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut rotation = ProbeRotation::default();
        (0..20).for_each(|at| rotation.add(&mut rng, key(at)));
        let mut named = None;
        let mut round = BTreeSet::new();
        for at in 0..200 {
            let (target, upcoming) = rotation.next(&mut rng, |_| true);
            if named.is_some() {
                assert_eq!(target, named);
            }
            named = upcoming;
            round.insert(target);
            if at % 20 == 19 {
                assert_eq!(round.len(), 20);
                round.clear();
            }
        }
    }

    #[test]
    fn who_is_no_target_leaves_the_rounds() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut rotation = ProbeRotation::default();
        (0..4).for_each(|at| rotation.add(&mut rng, key(at)));
        for _ in 0..9 {
            assert_eq!(rotation.next(&mut rng, |at| *at == key(2)).0, Some(key(2)));
        }
        assert_eq!(rotation.len(), 1);
        assert_eq!(rotation.next(&mut rng, |_| false), (None, None));
        assert!(rotation.is_empty());
    }
}
