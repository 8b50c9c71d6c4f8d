//! Peers whose pass was revoked.

use rand_core::SeedableRng;

use super::cluster::key;
use crate::authority::revocation::{Revocations, RevocationsDigest};
use crate::membership::message::{MembershipMessage, MessageBody, TableChunk};
use crate::membership::table::{Fact, MemberProfile, MemberRecord};
use crate::membership::{Detector, DetectorConfig, MembershipEvent, Meta, Roles, State, Via};
use crate::rt::Rng;

fn detector() -> Detector {
    let now = crate::rt::test_now();
    let rng = Rng::from_seed([3; 32]);
    Detector::new(DetectorConfig::default(), key(0), 1, Meta::default(), false, now, rng)
}

fn fact(about: usize, state: State) -> Fact {
    let roles = Roles::WORKER.with(Roles::STORE);
    let meta = Meta::new(roles, Vec::new(), 1, String::new(), String::new()).unwrap();
    let profile = Some(MemberProfile { incarnation: 1, boot: 1, meta });
    Fact {
        key: key(about),
        record: MemberRecord { incarnation: 1, state, profile },
        age_s: 0,
        accusers: Vec::new(),
    }
}

fn tell(detector: &mut Detector, from: usize, facts: Vec<Fact>, revocations: RevocationsDigest) {
    let body = MessageBody::PushPull(TableChunk { id: 7, index: 0, total: 1, revocations });
    let message = MembershipMessage { epoch: 0, observer: false, body, facts, events: Vec::new() };
    detector.handle_message(crate::rt::test_now(), key(from), Via::Reliable, &message.encode());
}

fn events(detector: &mut Detector) -> Vec<MembershipEvent> {
    std::iter::from_fn(|| detector.poll_event()).collect()
}

#[test]
fn who_is_expelled_is_nothing_any_more_whatever_is_told_until_it_shows_another_pass() {
    let mut detector = detector();
    let known = Revocations::default().digest();
    tell(&mut detector, 1, vec![fact(1, State::Alive), fact(2, State::Alive), fact(3, State::Dead)], known);
    assert_eq!((detector.live(), detector.members().count()), (3, 4));
    events(&mut detector);
    for out in [2, 3] {
        detector.expel(key(out));
        detector.expel(key(out));
        assert_eq!(events(&mut detector), [MembershipEvent::Expelled(key(out))], "neither dead nor left");
    }
    assert_eq!((detector.live(), detector.members().count()), (2, 2));
    for state in [State::Alive, State::Suspect, State::Dead, State::Left] {
        tell(&mut detector, 1, vec![fact(2, state)], known);
    }
    tell(&mut detector, 2, vec![fact(2, State::Alive)], known);
    assert_eq!((detector.members().count(), detector.stats().facts_of_outcasts), (2, 4));
    assert_eq!(events(&mut detector), []);
    detector.readmit(&key(2));
    tell(&mut detector, 1, vec![fact(2, State::Alive)], known);
    assert_eq!(detector.live(), 3);
    detector.expel(key(0));
    assert_eq!(detector.live(), 3, "not by itself");
}

#[test]
fn an_exchange_of_tables_shows_that_the_other_knows_other_revocations() {
    let mut detector = detector();
    let differs = MembershipEvent::RevocationsDiffer { peer: key(1) };
    for (theirs, ours, said) in [([0; 32], [1; 32], true), ([1; 32], [1; 32], false)] {
        detector.set_revocations(ours);
        tell(&mut detector, 1, vec![fact(1, State::Alive)], theirs);
        assert_eq!(events(&mut detector).contains(&differs), said);
    }
}
