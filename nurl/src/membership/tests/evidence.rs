//! What members say is signed, and what nobody signed changes nothing.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand_core::SeedableRng;

use super::single::{events, message, sent};
use crate::authority::invitation::InvitationId;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::authority::pass::{Grant, Pass};
use crate::authority::revocation::{Revocation, Revocations, Subject};
use crate::key::{PublicKey, SecretKey};
use crate::membership::message::{MembershipMessage, MessageBody};
use crate::membership::notary::FORGER_CHECKS;
use crate::membership::profile::{MemberProfile, SignedProfile};
use crate::membership::table::{Fact, MemberRecord};
use crate::membership::{Detector, DetectorConfig, MembershipEvent, Meta, Notary, Roles, State, Via};
use crate::rt::Rng;

pub(super) const ISSUED: u32 = 1_800_000_000;

pub(super) fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[1; 32])
}

/// A member: its key and its pass.
pub(super) struct Someone {
    secret: SecretKey,
    pass: Pass,
}

impl Someone {
    /// Member `n`, by the pass that `authority` signs.
    pub(super) fn by(n: u16, authority: &AuthorityKey, grant: impl FnOnce(Grant) -> Grant) -> Someone {
        let mut secret = [9; 32];
        secret[8..10].copy_from_slice(&n.to_le_bytes());
        let secret = SecretKey::from_bytes(secret);
        let pass = Grant::new(secret.public(), Level::Worker, ISSUED, ISSUED + 1_000);
        Someone { pass: grant(pass).sign(authority).unwrap(), secret }
    }

    pub(super) fn new(n: u16) -> Someone {
        Someone::by(n, &authority(), |grant| grant)
    }

    pub(super) fn key(&self) -> PublicKey {
        self.secret.public()
    }

    /// What it says of itself, signed by it.
    fn says(&self, incarnation: u64, left: bool) -> SignedProfile {
        let meta = Meta::new(Roles::WORKER.with(Roles::STORE), vec!["sum".into()], 9, "1".into()).unwrap();
        let said = MemberProfile { incarnation, left, boot: 1, meta, pass: self.pass.hash() };
        said.sign(&self.secret, &authority().mesh(), &self.pass)
    }

    /// What is told of it in this state, with its word.
    pub(super) fn told(&self, incarnation: u64, state: State) -> Fact {
        let profile = Some(self.says(incarnation, state == State::Left));
        let record = MemberRecord { incarnation, state, profile };
        Fact { key: self.key(), record, age_s: 0, accusers: Vec::new() }
    }

    fn detector(&self, now: Instant) -> Detector {
        let notary = Notary::new(authority().mesh(), self.secret.clone(), Some(self.pass.clone()));
        let rng = Rng::from_seed([4; 32]);
        let config = DetectorConfig::default();
        Detector::new(config, notary, 1, Meta::default(), false, now, rng)
    }
}

/// The node of member 0, that knows members 1 to `count`.
pub(super) fn among(count: u16) -> (Instant, Detector) {
    let now = crate::rt::test_now();
    let mut detector = Someone::new(0).detector(now);
    for n in 1..=count {
        tell(&mut detector, now, &Someone::new(1), vec![Someone::new(n).told(1, State::Alive)]);
    }
    assert_eq!(detector.live(), 1 + usize::from(count), "{:?}", detector.stats());
    events(&mut detector);
    (now, detector)
}

pub(super) fn tell(detector: &mut Detector, now: Instant, from: &Someone, facts: Vec<Fact>) {
    let bytes = message(MessageBody::Gossip, facts).encode();
    detector.handle_message(now, from.key(), Via::Datagram, &bytes);
}

/// The members that a detector knows, and their states.
fn known(detector: &Detector) -> Vec<(PublicKey, State, u64)> {
    detector.members().map(|member| (member.key, member.state, member.incarnation)).collect()
}

#[test]
fn made_up_members_change_no_table() {
    let (now, mut detector) = among(3);
    let before = known(&detector);
    let (liar, elsewhere) = (Someone::new(1), AuthorityKey::from_seed(&[2; 32]));
    for state in [State::Alive, State::Dead, State::Left] {
        // Of another mesh; with the liar's own pass; with a pass below membership.
        let stranger = Someone::by(50, &elsewhere, |grant| grant);
        let borrower = Someone { pass: liar.pass.clone(), ..Someone::new(51) };
        let client = Someone::by(52, &authority(), |grant| Grant { level: Level::Submit, ..grant });
        // A member that has a pass, but somebody else signed what it says.
        let quoted = Someone { secret: liar.secret.clone(), ..Someone::new(53) };
        let mut misquoted = quoted.told(1, state);
        misquoted.key = Someone::new(53).key();
        let facts = [stranger.told(1, state), borrower.told(1, state), client.told(1, state), misquoted];
        tell(&mut detector, now, &liar, facts.to_vec());
        assert_eq!(known(&detector), before, "{state:?}");
    }
    let stats = detector.stats();
    assert_eq!((stats.facts_forged, stats.facts_below_member), (9, 3));
    // Accusations of somebody that nobody knows, without a word of its own.
    for state in [State::Suspect, State::Dead] {
        let mut fact = Someone::new(60).told(1, state);
        fact.record.profile = None;
        tell(&mut detector, now, &liar, vec![fact]);
    }
    assert_eq!((known(&detector), detector.stats().facts_of_unknown), (before, 2));
    assert!(events(&mut detector).is_empty());
}

#[test]
fn a_word_of_a_member_that_was_changed_is_refused() {
    let (now, mut detector) = among(3);
    let before = known(&detector);
    let liar = Someone::new(1);
    let bytes = message(MessageBody::Gossip, vec![Someone::new(2).told(2, State::Alive)]).encode();
    let signed = Someone::new(2).told(2, State::Alive);
    for state in [State::Alive, State::Left] {
        // The incarnation, the goodbye and the boot id are all signed.
        let said = signed.record.profile.as_ref().unwrap().said().clone();
        for changed in [
            MemberProfile { incarnation: 7, left: state == State::Left, ..said.clone() },
            MemberProfile { left: state == State::Left, boot: 3, ..said.clone() },
        ] {
            let incarnation = changed.incarnation;
            let profile = signed.record.profile.as_ref().unwrap();
            let profile = SignedProfile::unchecked(changed, profile.pass(), *profile.signature());
            let record = MemberRecord { incarnation, state, profile: Some(profile) };
            tell(&mut detector, now, &liar, vec![Fact { record, ..signed.clone() }]);
            assert_eq!(known(&detector), before, "{state:?}");
        }
    }
    assert_eq!(detector.stats().facts_forged, 4);
    detector.handle_message(now, liar.key(), Via::Datagram, &bytes);
    assert_eq!(detector.member(&Someone::new(2).key()).unwrap().incarnation, 2, "the true one is taken");
}

#[test]
fn a_flood_of_forged_words_costs_few_checks_and_an_honest_teller_nothing() {
    let (now, mut detector) = among(3);
    let elsewhere = AuthorityKey::from_seed(&[2; 32]);
    let forged: Vec<Fact> =
        (0..64).map(|n| Someone::by(100 + n, &elsewhere, |grant| grant).told(1, State::Alive)).collect();
    for _ in 0..65 {
        tell(&mut detector, now, &Someone::new(1), forged.clone());
    }
    let stats = detector.stats();
    assert_eq!(stats.facts_forged + stats.facts_of_forgers, 65 * 64, "none of 4,160 is believed");
    assert_eq!(stats.facts_forged, FORGER_CHECKS.0, "checks that the teller has caused");
    assert_eq!(detector.live(), 4);
    // What the forger says of itself is checked again as soon as its checks have come back.
    tell(&mut detector, now, &Someone::new(1), vec![Someone::new(1).told(2, State::Alive)]);
    assert_eq!(detector.member(&Someone::new(1).key()).unwrap().incarnation, 1);
    tell(&mut detector, now, &Someone::new(2), vec![Someone::new(1).told(2, State::Alive)]);
    assert_eq!(detector.member(&Someone::new(1).key()).unwrap().incarnation, 2, "another tells it");
    let later = now + Duration::from_secs(1);
    tell(&mut detector, later, &Someone::new(1), vec![Someone::new(1).told(3, State::Alive)]);
    assert_eq!(detector.member(&Someone::new(1).key()).unwrap().incarnation, 3);
}

#[test]
fn a_goodbye_and_a_high_incarnation_are_believed_of_whoever_signed_them_only() {
    let (now, mut detector) = among(3);
    let told = crate::membership::limit::told_limit(Duration::ZERO);
    // A member may raise itself as high as it likes: nobody else has to follow.
    tell(&mut detector, now, &Someone::new(1), vec![Someone::new(2).told(told + 5, State::Alive)]);
    assert_eq!(detector.member(&Someone::new(2).key()).unwrap().incarnation, told + 5);
    // Its old goodbye says nothing any more.
    tell(&mut detector, now, &Someone::new(1), vec![Someone::new(2).told(4, State::Left)]);
    assert_eq!(detector.member(&Someone::new(2).key()).unwrap().state, State::Alive);
    tell(&mut detector, now, &Someone::new(1), vec![Someone::new(2).told(told + 5, State::Left)]);
    assert_eq!(detector.member(&Someone::new(2).key()).unwrap().state, State::Left);
}

#[test]
fn a_word_in_this_nodes_name_is_refuted_only_if_this_node_said_it() {
    let (now, mut detector) = among(3);
    let me = Someone::new(0);
    let forged = Someone { secret: Someone::new(1).secret, pass: me.pass.clone() };
    for state in [State::Alive, State::Left] {
        let fact = Fact { key: me.key(), ..forged.told(1 << 40, state) };
        tell(&mut detector, now, &Someone::new(1), vec![fact]);
    }
    assert_eq!((detector.local().incarnation, detector.stats().facts_forged), (0, 2));
    // An earlier process of this key said it.
    tell(&mut detector, now, &Someone::new(1), vec![me.told(6, State::Left)]);
    assert_eq!((detector.local().incarnation, detector.local().state), (7, State::Alive));
}

#[test]
fn revoking_an_invitation_or_everybody_ends_members_that_this_node_never_met() {
    let invited = |n: u16| {
        Someone::by(n, &authority(), |grant| Grant { invitation: Some(InvitationId([7; 8])), ..grant })
    };
    for (subject, left) in [(Subject::Invitation(InvitationId([7; 8])), 3), (Subject::All, 1)] {
        let (now, mut detector) = among(2);
        let told: Vec<Fact> = (10..13).map(|n| invited(n).told(1, State::Alive)).collect();
        told.iter().for_each(|fact| tell(&mut detector, now, &Someone::new(1), vec![fact.clone()]));
        assert_eq!(detector.live(), 6);
        let mut revocations = Revocations::default();
        assert!(revocations.merge(Revocation::sign(&authority(), subject, ISSUED, ISSUED)));
        events(&mut detector);
        detector.set_revocations(&revocations);
        let expelled = |event: &MembershipEvent| matches!(event, MembershipEvent::Expelled(_));
        assert_eq!(events(&mut detector).iter().filter(|event| expelled(event)).count(), 6 - left);
        assert_eq!(detector.live(), left);
        told.iter().for_each(|fact| tell(&mut detector, now, &Someone::new(1), vec![fact.clone()]));
        assert_eq!(detector.live(), left, "their passes admit them no more");
        let again = Someone::by(10, &authority(), |grant| Grant { issued: ISSUED + 1, ..grant });
        // It has shown it in a handshake.
        detector.readmit(&again.key());
        tell(&mut detector, now, &again, vec![again.told(2, State::Alive)]);
        assert_eq!(detector.live(), left + 1, "but one of later does");
    }
}

#[test]
fn a_renewed_pass_is_told_at_a_higher_incarnation_and_its_terms_count() {
    let (now, mut detector) = among(2);
    let before = detector.member(&Someone::new(2).key()).unwrap().clone();
    assert_eq!(before.weight(), 1, "it claims 9, and its pass permits 1");
    let renewed = Someone::by(2, &authority(), |grant| Grant { weight: 4, zone: "attic".into(), ..grant });
    tell(&mut detector, now, &Someone::new(1), vec![renewed.told(2, State::Alive)]);
    let member = detector.member(&renewed.key()).unwrap();
    assert_eq!((member.weight(), &*member.grant.zone), (4, "attic"));
    let changed =
        |event: &MembershipEvent| matches!(event, MembershipEvent::MetaChanged(of) if of.grant.weight == 4);
    assert!(events(&mut detector).iter().any(changed));
    // And this node's own.
    sent(&mut detector);
    let own = Someone::by(0, &authority(), |grant| Grant { weight: 2, ..grant });
    detector.set_pass(own.pass.clone());
    assert_eq!((detector.local().incarnation, detector.local().grant.weight), (1, 2));
    detector.set_pass(Someone::new(7).pass);
    assert_eq!(detector.local().grant.weight, 2, "another's pass says nothing of this node");
}

#[test]
fn a_known_pass_with_a_bad_signature_is_not_passed_on() {
    let (now, mut detector) = among(2);
    let member = Someone::new(2);
    // Member 2 itself says something new, and shows its pass with another signature.
    let said = member.says(2, false);
    let mut pass = member.pass.as_bytes().to_vec();
    *pass.last_mut().unwrap() ^= 1;
    let profile = SignedProfile::unchecked(said.said().clone(), &pass, *said.signature());
    let record = MemberRecord { incarnation: 2, state: State::Alive, profile: Some(profile) };
    let fact = Fact { key: member.key(), record, age_s: 0, accusers: Vec::new() };
    tell(&mut detector, now, &member, vec![fact]);
    detector.handle_timeout(now + Duration::from_secs(2));
    let told: Vec<Fact> = sent(&mut detector)
        .into_iter()
        .flat_map(|(.., message): (_, _, MembershipMessage)| message.facts)
        .collect();
    let of = told.iter().filter(|fact| fact.key == member.key() && fact.record.incarnation == 2);
    let passes: Vec<&[u8]> = of.filter_map(|fact| Some(fact.record.profile.as_ref()?.pass())).collect();
    assert!(!passes.is_empty() && passes.iter().all(|told| *told == member.pass.as_bytes()), "{passes:?}");
}

#[test]
fn an_old_word_of_a_forgotten_member_gives_it_no_place_and_it_can_return() {
    let (now, mut detector) = among(3);
    let (one, gone) = (Someone::new(1), Someone::new(3));
    tell(&mut detector, now, &gone, vec![gone.told(5, State::Left)]);
    let (mut later, day) = (now, Duration::from_secs(24 * 3600));
    super::single::run(&mut detector, &mut later, day);
    assert!(detector.member(&gone.key()).is_none(), "it is forgotten");
    sent(&mut detector);
    for (state, by) in [(State::Alive, &one), (State::Dead, &one), (State::Left, &one), (State::Alive, &gone)]
    {
        tell(&mut detector, later, by, vec![gone.told(5, state)]);
        assert!(detector.member(&gone.key()).is_none(), "{state:?}");
    }
    assert_eq!(detector.stats().facts_of_forgotten, 4);
    // It has returned without a memory, and is told what it has to outbid.
    let told = sent(&mut detector).into_iter().filter(|(to, ..)| *to == gone.key());
    let told: Vec<Fact> =
        told.flat_map(|(.., message)| message.facts).filter(|f| f.key == gone.key()).collect();
    assert_eq!((told[0].record.incarnation, told[0].record.state), (5, State::Dead));
    tell(&mut detector, later, &one, vec![gone.told(6, State::Alive)]);
    assert_eq!(detector.member(&gone.key()).unwrap().state, State::Alive);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn two_nodes_that_heard_the_same_words_in_any_order_hold_the_same_members(order in Just(()).prop_perturb(
        |(), mut rng| {
            let mut order: Vec<usize> = (0..24).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, rng.random_range(0..=at));
            }
            order
        }
    )) {
        let facts: Vec<Fact> = (1..7)
            .flat_map(|n| {
                let one = Someone::new(n);
                let renewed = Someone::by(n, &authority(), |grant| Grant { weight: 3, ..grant });
                [one.told(1, State::Alive), renewed.told(2, State::Alive), renewed.told(2, State::Dead),
                    renewed.told(2 + u64::from(n % 2), State::Alive)]
            })
            .collect();
        let now = crate::rt::test_now();
        let hear = |order: &mut dyn Iterator<Item = usize>| {
            let mut detector = Someone::new(0).detector(now);
            // The word of its first teller makes it a member that is listened to.
            tell(&mut detector, now, &Someone::new(1), vec![Someone::new(1).told(1, State::Alive)]);
            order.for_each(|at| tell(&mut detector, now, &Someone::new(1), vec![facts[at].clone()]));
            detector.members().map(|member| (member.key, member.incarnation, member.weight())).collect::<Vec<_>>()
        };
        prop_assert_eq!(hear(&mut order.into_iter()), hear(&mut (0..24)));
    }
}
