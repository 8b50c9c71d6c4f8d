//! Contacts, announcements, and whom a node asks first.

use std::time::Duration;

use rand_core::SeedableRng;

use super::cluster::{Cluster, key, meta};
use super::single::{ME, among, events, fact, message, named, new, run, sent, tell};
use crate::key::PublicKey;
use crate::membership::detector::{ANSWERERS, MAX_ANSWERS};
use crate::membership::join::MAX_CONTACTS;
use crate::membership::message::{MembershipMessage, MessageBody, TableChunk};
use crate::membership::{Detector, DetectorConfig, MembershipEvent, Notary, State, Via};
use crate::rt::Rng;

#[test]
fn a_peer_whose_pass_permits_no_membership_gets_what_an_observer_gets() {
    let (now, mut detector) = among(2);
    let say = |detector: &mut Detector, body, facts| {
        let lie = MembershipMessage { epoch: 9, ..message(body, facts) };
        detector.handle_message_of_observer(now, key(7), Via::Datagram, &lie.encode());
    };
    let facts = vec![fact(7, 1, State::Alive), fact(1, 2, State::Dead), fact(8, 1, State::Alive)];
    say(&mut detector, MessageBody::Gossip, facts.clone());
    assert!(sent(&mut detector).is_empty(), "no exchange with it");
    say(&mut detector, MessageBody::Ping { seq: 5 }, facts);
    let answers = sent(&mut detector);
    assert!(matches!(answers[0].2.body, MessageBody::Ack { seq: 5 }), "{answers:?}");
    let known: Vec<PublicKey> = detector.members().map(|member| member.key).collect();
    assert_eq!(known.len(), 3, "this node and the two: neither it nor what it made up");
    assert!(detector.members().all(|member| member.state == State::Alive));
    assert_eq!((detector.highest_epoch(), detector.stats().beyond_level), (0, 2));
}

#[test]
fn joining_again_is_no_stall() {
    let (mut now, mut detector) = among(3);
    detector.leave(now);
    run(&mut detector, &mut now, Duration::from_secs(100));
    detector.join(now);
    named(&mut detector, now, [1]);
    run(&mut detector, &mut now, Duration::from_secs(1));
    assert_eq!((detector.stats().stalls, detector.health()), (0, 0));
}

#[test]
fn a_goodbye_is_told_to_three_reliably_since_the_close_after_it_may_overtake_a_datagram() {
    let (now, mut detector) = among(9);
    sent(&mut detector);
    detector.leave(now);
    let mut told = sent(&mut detector);
    assert_eq!(told.len(), 9);
    told.retain(|(_, via, _)| *via == Via::Reliable);
    let is_goodbye = |message: &MembershipMessage| {
        message.facts.iter().any(|fact| fact.key == key(ME) && fact.record.state == State::Left)
    };
    assert!(told.len() == 3 && told.iter().all(|(.., message)| is_goodbye(message)), "{told:?}");
}

#[test]
fn one_that_leaves_before_it_knows_the_members_tells_those_that_it_asked() {
    let (mut now, mut detector) = new(false);
    detector.join(now);
    named(&mut detector, now, [20, 21, 22, 23]);
    run(&mut detector, &mut now, Duration::from_millis(10));
    let asked: Vec<PublicKey> = sent(&mut detector).into_iter().map(|(to, ..)| to).collect();
    // One of them names itself, and the others' tables are on their way.
    tell(&mut detector, now, 20, MessageBody::Gossip, vec![fact(20, 1, State::Alive)]);
    detector.leave(now);
    let mut told = sent(&mut detector);
    assert!(told.iter().all(|(to, ..)| *to == key(20) || asked.contains(to)), "{told:?}");
    told.retain(|(_, via, _)| *via == Via::Reliable);
    assert_eq!(told.len(), 3);
}

#[test]
fn an_announcement_is_answered_by_at_most_three_after_a_delay_and_believed_by_nobody() {
    let members = 12;
    let mut answered = 0;
    let (_, mut newcomer) = new(false);
    let body = newcomer.announce();
    for me in 1..=members {
        let now = crate::rt::test_now();
        let rng = Rng::from_seed([me as u8; 32]);
        let mut detector =
            Detector::new(DetectorConfig::default(), Notary::trusting(key(me)), 1, meta(""), false, now, rng);
        let others = (1..=members).filter(|of| *of != me).map(|of| fact(of, 1, State::Alive)).collect();
        let first = if me == 1 { 2 } else { 1 };
        tell(&mut detector, now, first, MessageBody::Gossip, others);
        sent(&mut detector);
        detector.handle_announcement(now, key(40), &body);
        detector.handle_announcement(now, key(40), &body);
        assert!(detector.member(&key(40)).is_none());
        let mut later = now;
        run(&mut detector, &mut later, Duration::from_secs(3));
        let begun = sent(&mut detector).into_iter().filter(|(to, ..)| *to == key(40)).count();
        assert!(begun <= 1);
        answered += begun;
    }
    assert_eq!(answered, ANSWERERS);
}

#[test]
fn announcements_of_known_members_and_too_many_strangers_cost_nothing() {
    let (now, mut detector) = among(2);
    let body = detector.announce();
    detector.handle_announcement(now, key(1), &body);
    detector.handle_announcement(now, key(ME), &body);
    for stranger in 100..100 + MAX_ANSWERS + 5 {
        detector.handle_announcement(now, key(stranger), &body);
    }
    assert_eq!(detector.stats().announcements_dropped, 5);
    detector.handle_announcement(now, key(500), &message(MessageBody::Gossip, Vec::new()).encode());
    assert_eq!(detector.stats().malformed, 1);
}

#[test]
fn contacts_are_bounded_and_the_living_come_first() {
    let (now, mut detector) = among(3);
    named(&mut detector, now, 10..10 + 2 * MAX_CONTACTS);
    assert_eq!(detector.join.opened().count(), MAX_CONTACTS);
    let contacts = detector.contacts();
    assert_eq!(contacts.len(), MAX_CONTACTS);
    assert!(contacts[..3].iter().all(|contact| (1..4).any(|of| key(of) == *contact)));
}

#[test]
fn joining_asks_three_contacts_and_tries_again_until_one_answers() {
    let (mut now, mut detector) = new(false);
    detector.join(now);
    named(&mut detector, now, 1..9);
    assert_eq!(sent(&mut detector).len(), 3);
    assert!(!events(&mut detector).contains(&MembershipEvent::Joined));
    run(&mut detector, &mut now, Duration::from_secs(25));
    let again = sent(&mut detector);
    let (to, _, request) = again.last().unwrap();
    let MessageBody::PushPull(chunk) = request.body else { panic!() };
    let from = (1..9).find(|of| key(*of) == *to).unwrap();
    let answer =
        |index| MessageBody::PushPullAck(TableChunk { id: chunk.id, index, total: 2, revocations: [0; 32] });
    tell(&mut detector, now, from, answer(1), vec![fact(50, 1, State::Alive)]);
    assert!(!events(&mut detector).contains(&MembershipEvent::Joined), "half an answer");
    tell(&mut detector, now, from, answer(0), vec![fact(from, 1, State::Alive)]);
    assert!(events(&mut detector).contains(&MembershipEvent::Joined));
    assert_eq!(detector.live(), 3);
    // A later LIST: only contacts that this node doesn't hold live are asked.
    sent(&mut detector);
    named(&mut detector, now, [60, 50]);
    let asked: Vec<_> = sent(&mut detector).into_iter().map(|(to, ..)| to).collect();
    assert_eq!(asked, [key(60)]);
}

#[test]
fn after_losing_everyone_the_contacts_are_tried_again() {
    let mut cluster = Cluster::of(21, 3);
    cluster.broadcast = false;
    for at in [1, 2] {
        cluster.nodes[at].up = false;
    }
    cluster.nodes[0].hub = true;
    let contact = cluster.add(false);
    cluster.join(0, &[contact]);
    cluster.nodes[contact].up = false;
    cluster.run(Duration::from_secs(200));
    assert_eq!(cluster.nodes[0].detector.live(), 1);
    cluster.nodes[contact].up = true;
    let found = cluster.run_until(Duration::from_secs(60), |c| c.state(0, contact) == Some(State::Alive));
    assert!(found.is_some());
}
