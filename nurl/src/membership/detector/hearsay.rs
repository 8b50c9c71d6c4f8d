//! Hearsay: what others say against a member, until this node has evidence of its own.
//!
//! A peer that says of a member that it is dead may be wrong, or lie. So such a claim about a live member leads to a probe
//! of it, which also tells the subject what is said of it. An answer refutes the claim here. If the probe fails, the claim
//! is evidence beside it: it lets the suspicion run for its shortest time, as if all confirmations were there. An
//! observer, which suspects nobody, believes it. That it has left a member says itself, signed: this is no hearsay.
//!
//! **Bounds.** There is one claim for each subject, the one that says the most. Each teller may cause [`CLAIM_BURST`]
//! checks and suspicions at once, and then [`CLAIMS_PER_SECOND`]; only live members are listened to.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::membership::table::{Fact, MemberRecord, State};

/// Checks and suspicions that one teller may cause at once: half of a mesh of 250 dies, and a neighbour says so in one
/// exchange of tables.
pub const CLAIM_BURST: u64 = 128;

/// Checks and suspicions that one teller may cause each second after its burst. A liar thus costs each node a few probes
/// a second; a truth that is refused is told by others, and found by this node's own rounds.
pub const CLAIMS_PER_SECOND: u64 = 8;

/// A told death that waits for a probe of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) incarnation: u64,
    /// When it was first told.
    pub(super) told: Instant,
}

impl Claim {
    /// The claim about `subject` as a fact.
    pub(super) fn fact(&self, subject: PublicKey) -> Fact {
        let record = MemberRecord { incarnation: self.incarnation, state: State::Dead, profile: None };
        Fact { key: subject, record, age_s: 0, accusers: Vec::new() }
    }
}

/// The claims that wait, and what each teller may still cause.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    /// By subject. A subject is in the table, so they are no more than members.
    claims: BTreeMap<PublicKey, Claim>,
    /// By teller, which is in the table too.
    budgets: BTreeMap<PublicKey, TokenBucket>,
}

impl Hearsay {
    /// Whether `teller` may cause one more check or suspicion.
    pub(super) fn spend(&mut self, now: Instant, teller: PublicKey) -> bool {
        let new = || TokenBucket::new(CLAIMS_PER_SECOND, CLAIM_BURST, now);
        self.budgets.entry(teller).or_insert_with(new).take(now, 1)
    }

    /// Whether a claim about `subject` waits that says as much as this.
    pub(super) fn covers(&self, subject: &PublicKey, incarnation: u64) -> bool {
        self.claims.get(subject).is_some_and(|claim| claim.incarnation >= incarnation)
    }

    /// Keeps a claim that says more than the one before.
    pub(super) fn note(&mut self, now: Instant, subject: PublicKey, incarnation: u64) {
        self.claims.entry(subject).or_insert(Claim { incarnation, told: now }).incarnation = incarnation;
    }

    /// The claim about `subject` that waits.
    pub(super) fn of(&self, subject: &PublicKey) -> Option<&Claim> {
        self.claims.get(subject)
    }

    /// Takes the claim about `subject`: its probe has ended.
    pub(super) fn take(&mut self, subject: &PublicKey) -> Option<Claim> {
        self.claims.remove(subject)
    }

    /// A member is no longer in the table.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.claims.remove(peer);
        self.budgets.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    #[test]
    fn one_claim_waits_for_each_subject_the_one_that_says_most_since_it_was_first_told() {
        let now = crate::rt::test_now();
        let mut hearsay = Hearsay::default();
        hearsay.note(now, key(1), 3);
        for (incarnation, covered) in [(2, true), (3, true), (4, false)] {
            assert_eq!(hearsay.covers(&key(1), incarnation), covered, "at {incarnation}");
        }
        assert!(!hearsay.covers(&key(2), 0));
        hearsay.note(now + Duration::from_secs(1), key(1), 4);
        let claim = Claim { incarnation: 4, told: now };
        assert_eq!((hearsay.take(&key(1)), hearsay.take(&key(1))), (Some(claim), None));
    }

    #[test]
    fn a_teller_causes_no_more_than_its_share_and_takes_nobody_elses() {
        let now = crate::rt::test_now();
        let mut hearsay = Hearsay::default();
        let burst = (0..1_000).filter(|_| hearsay.spend(now, key(1))).count();
        assert_eq!(burst as u64, CLAIM_BURST);
        let later = now + Duration::from_secs(2);
        assert_eq!((0..1_000).filter(|_| hearsay.spend(later, key(1))).count() as u64, 2 * CLAIMS_PER_SECOND);
        assert!(hearsay.spend(now, key(2)));
    }
}
