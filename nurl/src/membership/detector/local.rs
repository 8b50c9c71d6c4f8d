//! This node as a member: its own record, which only it may raise, and how it answers claims about it.
//!
//! SWIM §4.2: a suspect refutes by an alive fact with a higher incarnation. The same rule ends claims by an earlier
//! process of this key: another boot id, or other metadata, at this incarnation or above.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::authority::level::Level;
use crate::authority::pass::Grant;
use crate::key::PublicKey;
use crate::membership::event::MembershipError;
use crate::membership::limit::{answer_limit, told_limit};
use crate::membership::meta::Meta;
use crate::membership::notary::Notary;
use crate::membership::per_second::PerSecond;
use crate::membership::profile::SignedProfile;
use crate::membership::table::{Fact, Member, MemberRecord, State};

/// Refutations per second. Two processes with one key outbid each other endlessly; the limit keeps that cheap.
pub const MAX_REFUTATIONS_PER_SECOND: u32 = 8;

/// Corrections per second: each answers a message that somebody sent, and is little longer. After a false death in all of
/// the largest mesh, each member is told within a minute.
const MAX_CORRECTIONS_PER_SECOND: usize = 32;

/// How this node answers a claim about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimAnswer {
    /// The claim says nothing wrong, or this node has no say.
    Agreed,
    /// The claim was refuted before: its sender needs the current fact.
    Stale,
    /// The claim's incarnation is above what anybody would believe.
    TooHigh,
    /// This node has left. It says so again, at the claim's incarnation.
    LeftAgain,
    /// The claim is wrong, but there were too many refutations in this second.
    Limited,
    /// The claim is refuted by a higher incarnation. `accused`: it said that this node isn't alive.
    Refuted { accused: bool },
}

/// Where an epoch counter comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EpochSource {
    /// Another member told it.
    Told,
    /// This node took a tenure under it, or a resource returned it. If the mesh was raised to the limit, it may be a
    /// little above what is believed of others.
    Own,
}

/// This node as a member.
#[derive(Debug)]
pub(super) struct LocalMember {
    member: Member,
    observer: bool,
    /// It has left, and the fact of that isn't spread yet.
    departing: bool,
    /// The highest epoch counter known, which each message carries.
    epoch: u64,
    /// The wall clock, as the driver told it last.
    unix_now: Duration,
    refutations: PerSecond,
    corrections: PerSecond,
}

impl LocalMember {
    /// An alive member at incarnation 0, without a pass. An `observer` is no member: it is never gossiped about, probed or
    /// counted.
    pub(super) fn new(key: PublicKey, boot: u64, meta: Meta, observer: bool, now: Instant) -> LocalMember {
        let grant = Arc::new(Grant::new(key, Level::Look, 0, 0));
        LocalMember {
            member: Member { key, state: State::Alive, incarnation: 0, boot, meta, grant, since: now },
            observer,
            departing: false,
            epoch: 0,
            unix_now: Duration::ZERO,
            refutations: PerSecond::default(),
            corrections: PerSecond::default(),
        }
    }

    /// This node, as others should see it.
    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// Its key.
    pub(super) fn key(&self) -> PublicKey {
        self.member.key
    }

    /// Whether it is no member.
    pub(super) fn is_observer(&self) -> bool {
        self.observer
    }

    /// Whether it has left.
    pub(super) fn has_left(&self) -> bool {
        self.member.state == State::Left
    }

    /// Whether it takes part: it probes others and may gossip events.
    pub(super) fn is_member(&self) -> bool {
        !self.observer && !self.has_left()
    }

    /// Its fact about itself, signed; `None` while it has no pass.
    pub(super) fn fact(&self, notary: &mut Notary) -> Option<Fact> {
        let Member { key, state, incarnation, boot, .. } = self.member;
        let profile = notary.sign(incarnation, self.has_left(), boot, &self.member.meta)?;
        let record = MemberRecord { incarnation, state, profile: Some(profile) };
        Some(Fact { key, record, age_s: 0, accusers: Vec::new() })
    }

    /// Its pass says this; `renewed`: what it said with an earlier one is replaced.
    pub(super) fn set_grant(&mut self, grant: Grant, renewed: bool) {
        self.member.grant = Arc::new(grant);
        self.member.incarnation += u64::from(renewed);
    }

    /// It leaves, until [`rejoin`](LocalMember::rejoin).
    pub(super) fn leave(&mut self, now: Instant) {
        self.member.state = State::Left;
        self.member.since = now;
        self.departing = true;
    }

    /// It is a member again, by a higher incarnation than the one at which it left.
    pub(super) fn rejoin(&mut self, now: Instant) {
        self.departing = false;
        self.member.state = State::Alive;
        self.member.since = now;
        self.member.incarnation += 1;
    }

    /// Whether it is leaving, and others may not know yet.
    pub(super) fn is_departing(&self) -> bool {
        self.departing
    }

    /// Enough others know that it has left.
    pub(super) fn departed(&mut self) {
        self.departing = false;
    }

    /// Replaces the metadata. False if they are the same.
    pub(super) fn set_meta(&mut self, meta: Meta) -> bool {
        let differs = self.member.meta != meta;
        if differs {
            self.member.meta = meta;
            self.member.incarnation += 1;
        }
        differs
    }

    /// The highest epoch counter known.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The highest incarnation at which another member's accusation is believed.
    pub(super) fn accusation_limit(&self) -> u64 {
        told_limit(self.unix_now)
    }

    /// Sets the wall clock, which limits epoch counters and incarnations.
    pub(super) fn set_unix_now(&mut self, unix_now: Duration) {
        self.unix_now = unix_now;
    }

    /// Records an epoch counter.
    ///
    /// # Errors
    /// [`MembershipError::EpochTooHigh`]; the counter is ignored.
    pub(super) fn note_epoch(&mut self, counter: u64, by: EpochSource) -> Result<(), MembershipError> {
        let limit = match by {
            EpochSource::Told => told_limit(self.unix_now),
            EpochSource::Own => answer_limit(self.unix_now),
        };
        if counter > limit {
            return Err(MembershipError::EpochTooHigh { counter, limit });
        }
        self.epoch = self.epoch.max(counter);
        Ok(())
    }

    /// Whether one more member may be told, now and by itself, that what it holds of this node is wrong.
    pub(super) fn may_correct(&mut self, now: Instant) -> bool {
        self.corrections.add(now, 1) <= MAX_CORRECTIONS_PER_SECOND
    }

    /// Weighs a claim about this node, and raises the incarnation if that is the answer. A profile in it is one that this
    /// node has signed.
    pub(super) fn answer(&mut self, now: Instant, claim: &MemberRecord) -> ClaimAnswer {
        if self.observer {
            return ClaimAnswer::Agreed;
        }
        let accused = claim.state != State::Alive;
        if claim.incarnation < self.member.incarnation {
            return if accused { ClaimAnswer::Stale } else { ClaimAnswer::Agreed };
        }
        // Others believe such a claim only if their clock is ahead by more than a day; and they take this node's own word
        // whatever its incarnation is.
        if claim.incarnation > answer_limit(self.unix_now) {
            return ClaimAnswer::TooHigh;
        }
        if self.has_left() {
            // The claim is true in that this node isn't alive, but no higher incarnation may contradict that it left.
            if claim.state == State::Left || claim.incarnation == self.member.incarnation {
                return ClaimAnswer::Agreed;
            }
            self.member.incarnation = claim.incarnation;
            return ClaimAnswer::LeftAgain;
        }
        let Member { incarnation, boot, meta, .. } = &self.member;
        let foreign = claim.profile.as_ref().map(SignedProfile::said).is_some_and(|said| {
            let own = said.incarnation == *incarnation && said.boot == *boot && said.meta == *meta;
            said.incarnation >= *incarnation && !own
        });
        if !foreign && !accused {
            return ClaimAnswer::Agreed;
        }
        if self.refutations.add(now, 1) > MAX_REFUTATIONS_PER_SECOND as usize {
            return ClaimAnswer::Limited;
        }
        self.member.incarnation = claim.incarnation.max(self.member.incarnation) + 1;
        ClaimAnswer::Refuted { accused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::meta::Roles;
    use crate::membership::profile::tests::said;

    fn meta(weight: u16) -> Meta {
        Meta::new(Roles::WORKER, Vec::new(), weight, String::new()).unwrap()
    }

    /// This node at incarnation 5, with boot id 7.
    fn at_five(observer: bool, now: Instant) -> LocalMember {
        let mut local = LocalMember::new(PublicKey::from_bytes([1; 32]), 7, meta(0), observer, now);
        (1..=5).for_each(|weight| assert!(local.set_meta(meta(weight))));
        local
    }

    fn claim(incarnation: u64, state: State, boot: Option<u64>) -> MemberRecord {
        let profile = boot.map(|boot| said(incarnation, state == State::Left, boot, meta(5)));
        MemberRecord { incarnation, state, profile }
    }

    #[test]
    fn only_a_wrong_claim_at_this_incarnation_or_above_is_refuted() {
        let now = crate::rt::test_now();
        let (accused, foreign) =
            (ClaimAnswer::Refuted { accused: true }, ClaimAnswer::Refuted { accused: false });
        let highest = answer_limit(Duration::ZERO);
        for (incarnation, state, boot, answer, then) in [
            (4, State::Alive, Some(7), ClaimAnswer::Agreed, 5),
            (4, State::Suspect, None, ClaimAnswer::Stale, 5),
            (5, State::Alive, Some(7), ClaimAnswer::Agreed, 5),
            (5, State::Alive, Some(8), foreign, 6),
            (9, State::Alive, Some(7), foreign, 10),
            (5, State::Suspect, None, accused, 6),
            (5, State::Dead, Some(7), accused, 6),
            (9, State::Left, None, accused, 10),
            (highest, State::Dead, None, accused, highest + 1),
            (highest + 1, State::Dead, None, ClaimAnswer::TooHigh, 5),
        ] {
            let mut local = at_five(false, now);
            let text = format!("{state:?} at {incarnation} of boot {boot:?}");
            assert_eq!(local.answer(now, &claim(incarnation, state, boot)), answer, "{text}");
            assert_eq!(local.member().incarnation, then, "{text}");
        }
    }

    #[test]
    fn a_node_that_left_says_so_at_the_highest_incarnation_and_an_observer_says_nothing() {
        let now = crate::rt::test_now();
        for (incarnation, state, answer, then) in [
            (4, State::Dead, ClaimAnswer::Stale, 5),
            (5, State::Suspect, ClaimAnswer::Agreed, 5),
            (8, State::Suspect, ClaimAnswer::LeftAgain, 8),
            (8, State::Left, ClaimAnswer::Agreed, 5),
        ] {
            let mut local = at_five(false, now);
            local.leave(now);
            assert_eq!(local.answer(now, &claim(incarnation, state, None)), answer);
            assert_eq!((local.member().incarnation, local.has_left()), (then, true));
            local.rejoin(now);
            assert_eq!((local.member().incarnation, local.is_member()), (then + 1, true));
        }
        let mut observer = at_five(true, now);
        assert_eq!(observer.answer(now, &claim(9, State::Dead, None)), ClaimAnswer::Agreed);
        assert!(!observer.is_member());
    }
}
