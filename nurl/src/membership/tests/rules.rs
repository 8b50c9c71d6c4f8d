//! One detector, driven directly by the test.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand_core::SeedableRng;

use super::cluster::{Cluster, key, meta};
use crate::key::PublicKey;
use crate::membership::detector::{
    ANSWERERS, MAX_ANSWERS, MAX_REFUTATIONS_PER_SECOND, MAX_SEEN_EVENTS, MAX_SERVED, MAX_TRANSMITS,
    MAX_WAITING_EVENTS,
};
use crate::membership::join::MAX_CONTACTS;
use crate::membership::limit::{answer_limit, told_limit};
use crate::membership::message::{
    MAX_CHUNK_BYTES, MAX_DATAGRAM_BYTES, MAX_EVENT_BYTES, MembershipMessage, MessageBody, TableChunk,
    UserEvent,
};
use crate::membership::profile::tests::said;
use crate::membership::pushpull::MAX_FACTS_PER_SECOND;
use crate::membership::table::{Fact, MemberRecord};
use crate::membership::{
    Detector, DetectorConfig, MembershipError, MembershipEvent, Meta, Notary, State, Via,
};
use crate::net::reach::rendezvous::Contact;
use crate::rt::Rng;

pub(super) const ME: usize = 0;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn new(observer: bool) -> (Instant, Detector) {
    let now = crate::rt::test_now();
    let rng = Rng::from_seed([5; 32]);
    (
        now,
        Detector::new(DetectorConfig::default(), Notary::trusting(key(ME)), 1, meta(""), observer, now, rng),
    )
}

pub(super) fn fact(of: usize, incarnation: u64, state: State) -> Fact {
    let profile = said(incarnation, state == State::Left, of as u64, meta(""));
    let record = MemberRecord { incarnation, state, profile: Some(profile) };
    let accusers = if state == State::Suspect { vec![key(99)] } else { Vec::new() };
    Fact { key: key(of), record, age_s: 0, accusers }
}

pub(super) fn message(body: MessageBody, facts: Vec<Fact>) -> MembershipMessage {
    MembershipMessage { epoch: 0, observer: false, body, facts, events: Vec::new() }
}

pub(super) fn tell(detector: &mut Detector, now: Instant, from: usize, body: MessageBody, facts: Vec<Fact>) {
    let bytes = message(body, facts).encode();
    detector.handle_message(now, key(from), Via::Datagram, &bytes);
}

/// A detector that knows members 1 to `count`.
pub(super) fn among(count: usize) -> (Instant, Detector) {
    let (now, mut detector) = new(false);
    let facts: Vec<Fact> = (1..=count).map(|of| fact(of, 1, State::Alive)).collect();
    // A message holds about 120 of them.
    facts.chunks(100).for_each(|facts| tell(&mut detector, now, 1, MessageBody::Gossip, facts.to_vec()));
    sent(&mut detector);
    events(&mut detector);
    (now, detector)
}

pub(super) fn sent(detector: &mut Detector) -> Vec<(PublicKey, Via, MembershipMessage)> {
    std::iter::from_fn(|| detector.poll_transmit())
        .map(|transmit| (transmit.to, transmit.via, MembershipMessage::decode(&transmit.body).unwrap()))
        .collect()
}

pub(super) fn events(detector: &mut Detector) -> Vec<MembershipEvent> {
    std::iter::from_fn(|| detector.poll_event()).collect()
}

pub(super) fn run(detector: &mut Detector, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while let Some(due) = detector.poll_timeout().filter(|due| *due <= end) {
        *now = due.max(*now);
        detector.handle_timeout(*now);
    }
    *now = end;
}

pub(super) fn state(detector: &Detector, of: usize) -> State {
    detector.member(&key(of)).unwrap().state
}

#[test]
fn a_ping_is_answered_on_its_leg_and_makes_acquaintance() {
    let (now, mut detector) = new(false);
    let bytes = message(MessageBody::Ping { seq: 9 }, Vec::new()).encode();
    detector.handle_message(now, key(1), Via::Reliable, &bytes);
    let sent = sent(&mut detector);
    assert_eq!((sent[0].0, sent[0].1, sent[0].2.body), (key(1), Via::Reliable, MessageBody::Ack { seq: 9 }));
    assert!(matches!(sent[1].2.body, MessageBody::PushPull(TableChunk { index: 0, total: 1, .. })));
    assert_eq!(sent[1].2.facts[0].key, key(ME), "its own word comes first");
}

#[test]
fn a_suspicion_of_this_node_is_refuted_in_the_very_answer() {
    let (now, mut detector) = among(3);
    tell(&mut detector, now, 1, MessageBody::Ping { seq: 3 }, vec![fact(ME, 4, State::Suspect)]);
    let answer = &sent(&mut detector)[0].2;
    let refutation = answer.facts.iter().find(|fact| fact.key == key(ME)).unwrap();
    assert_eq!((refutation.record.state, refutation.record.incarnation), (State::Alive, 5));
    assert!(events(&mut detector).contains(&MembershipEvent::Refuted { incarnation: 5 }));
    assert_eq!(detector.health(), 1, "whoever is suspected may be the slow one");
}

#[test]
fn who_missed_the_refutation_gets_it_with_every_answer() {
    let (mut now, mut detector) = among(3);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(ME, 4, State::Suspect)]);
    run(&mut detector, &mut now, ms(900));
    let told = sent(&mut detector).into_iter().flat_map(|(.., message)| message.facts);
    assert_eq!(told.filter(|fact| fact.key == key(ME)).count(), 4, "as often as a fact is told");
    let mut word = |stale: Fact| {
        tell(&mut detector, now, 2, MessageBody::Ping { seq: 3 }, vec![stale]);
        let answer =
            sent(&mut detector).into_iter().find(|(.., message)| message.body == MessageBody::Ack { seq: 3 });
        answer.and_then(|(.., message)| message.facts.into_iter().find(|fact| fact.key == key(ME)))
    };
    for state in [State::Suspect, State::Dead] {
        let record = word(fact(ME, 4, state)).expect("the answer has it").record;
        assert_eq!((record.state, record.incarnation), (State::Alive, 5));
    }
    assert_eq!(word(fact(ME, 4, State::Alive)), None, "an old word that does no harm needs no answer");
    assert_eq!((detector.health(), detector.local().incarnation), (1, 5), "it counts once");
}

#[test]
fn a_foreign_process_with_this_key_is_outbid_and_the_duel_is_slow() {
    let (now, mut detector) = among(3);
    let foreign = |incarnation| {
        let mut fact = fact(ME, incarnation, State::Alive);
        fact.record.profile.as_mut().unwrap().said_mut().boot = 666;
        fact
    };
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![foreign(0)]);
    assert_eq!(detector.local().incarnation, 1);
    for _ in 0..100 {
        let next = detector.local().incarnation + 1;
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![foreign(next)]);
    }
    let limit = u64::from(MAX_REFUTATIONS_PER_SECOND);
    assert_eq!(detector.local().incarnation, 1 + 2 * (limit - 1));
    assert_eq!(detector.stats().refutations_limited, 101 - limit);
}

#[test]
fn an_accusation_too_far_ahead_of_the_clock_is_refused_and_counted_also_about_this_node() {
    let (now, mut detector) = among(3);
    let wall = Duration::from_secs(1_800_000_000);
    detector.set_unix_now(wall);
    let (told, answer) = (told_limit(wall), answer_limit(wall));
    let facts = vec![
        fact(1, told + 1, State::Dead),
        fact(1, told + 1, State::Suspect),
        fact(2, answer + 1, State::Alive),
        fact(ME, answer + 1, State::Dead),
    ];
    tell(&mut detector, now, 3, MessageBody::Gossip, facts);
    assert_eq!(detector.stats().incarnations_too_high, 3);
    let incarnations = [1, 2].map(|of| detector.member(&key(of)).unwrap().incarnation);
    assert_eq!(incarnations, [1, answer + 1], "a member itself may raise its own as it likes");
    assert_eq!((state(&detector, 1), detector.local().incarnation), (State::Alive, 0));
}

/// A liar lifts a member's incarnation in steps, each told to another one. The member outbids all of them.
#[test]
fn a_refutation_is_taken_however_far_it_was_lifted_from_its_subject_and_from_others() {
    let (now, mut detector) = among(3);
    let wall = Duration::from_secs(1_800_000_000);
    detector.set_unix_now(wall);
    let told = told_limit(wall);
    for (incarnation, from) in [(1 << 40, 3), (told + 1, 3), (u64::from(u32::MAX) << 29, 2)] {
        tell(&mut detector, now, from, MessageBody::Gossip, vec![fact(2, incarnation, State::Alive)]);
        assert_eq!(detector.member(&key(2)).unwrap().incarnation, incarnation, "said by {from}");
    }
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(ME, told, State::Suspect)]);
    assert_eq!(detector.local().incarnation, told + 1);
}

#[test]
fn an_epoch_too_far_ahead_of_the_clock_is_refused_and_counted() {
    let (now, mut detector) = among(2);
    let wall = Duration::from_secs(1_800_000_000);
    detector.set_unix_now(wall);
    let limit = told_limit(wall);
    let hear = |detector: &mut Detector, epoch, from| {
        let message = MembershipMessage { epoch, ..message(MessageBody::Gossip, Vec::new()) };
        detector.handle_message(now, key(from), Via::Datagram, &message.encode());
        (detector.highest_epoch(), detector.stats().epochs_too_high)
    };
    assert_eq!(hear(&mut detector, limit + 1, 1), (0, 1));
    assert_eq!(hear(&mut detector, u64::MAX, 1), (0, 2));
    assert_eq!(hear(&mut detector, limit, 1), (limit, 2));
    // This node's next tenure is above the limit, and is told.
    detector.note_epoch(limit + 1).unwrap();
    assert!(matches!(
        detector.note_epoch(u64::MAX),
        Err(MembershipError::EpochTooHigh { counter: u64::MAX, .. })
    ));
    detector.note_epoch(7).unwrap();
    assert_eq!(detector.highest_epoch(), limit + 1, "never back");
}

#[test]
fn an_epoch_is_heard_from_members_only() {
    let (now, mut detector) = among(2);
    let mut lie = MembershipMessage { epoch: 9, ..message(MessageBody::Ping { seq: 1 }, Vec::new()) };
    detector.handle_message(now, key(7), Via::Datagram, &lie.encode());
    lie.observer = true;
    for from in [7, 1] {
        detector.handle_message(now, key(from), Via::Datagram, &lie.encode());
    }
    let announcement = MembershipMessage { body: MessageBody::Announce { nonce: 1 }, ..lie };
    detector.handle_announcement(now, key(1), &announcement.encode());
    assert_eq!(detector.highest_epoch(), 0);
    let mut introduced = message(MessageBody::Gossip, vec![fact(7, 1, State::Alive)]);
    introduced.epoch = 9;
    detector.handle_message(now, key(7), Via::Datagram, &introduced.encode());
    assert_eq!(detector.highest_epoch(), 9, "a newcomer that has introduced itself");
}

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
fn a_ping_req_is_served_with_its_target_acked_and_nacked_at_80_percent() {
    let (mut now, mut detector) = among(3);
    let request = MessageBody::PingReq { seq: 70, target: key(2), timeout_ms: 700 };
    let start = now;
    tell(&mut detector, now, 1, request, Vec::new());
    let first = sent(&mut detector);
    let MessageBody::Ping { seq } = first[0].2.body else { panic!("{first:?}") };
    assert_eq!(first[0].0, key(2));
    assert_ne!(seq, 70);
    assert!(events(&mut detector).contains(&MembershipEvent::WantSession { peer: key(2) }));
    run(&mut detector, &mut now, ms(559));
    let nacked = |sent: &[(PublicKey, Via, MembershipMessage)]| {
        sent.iter().any(|(to, _, m)| *to == key(1) && m.body == MessageBody::Nack { seq: 70 })
    };
    assert!(!nacked(&sent(&mut detector)), "before 80 %");
    run(&mut detector, &mut now, ms(1));
    assert_eq!(now, start + ms(560));
    assert!(nacked(&sent(&mut detector)), "at 80 %");
    // A late ack still counts, but only from the target itself.
    tell(&mut detector, now, 3, MessageBody::Ack { seq }, Vec::new());
    assert!(sent(&mut detector).is_empty());
    tell(&mut detector, now, 2, MessageBody::Ack { seq }, Vec::new());
    let back = sent(&mut detector);
    assert_eq!((back[0].0, back[0].2.body), (key(1), MessageBody::Ack { seq: 70 }));
}

#[test]
fn beyond_its_bound_a_helper_says_at_once_that_it_cannot_tell() {
    let (now, mut detector) = among(3);
    for seq in 0..=MAX_SERVED as u64 {
        tell(
            &mut detector,
            now,
            1,
            MessageBody::PingReq { seq, target: key(2), timeout_ms: 700 },
            Vec::new(),
        );
    }
    assert_eq!((detector.stats().served, detector.stats().served_full), (MAX_SERVED as u64, 1));
    let last = sent(&mut detector).pop().unwrap();
    assert_eq!(last.2.body, MessageBody::Nack { seq: MAX_SERVED as u64 });
}

#[test]
fn nobody_seeks_a_session_with_a_key_that_no_member_has() {
    let (now, mut detector) = among(3);
    tell(
        &mut detector,
        now,
        1,
        MessageBody::PingReq { seq: 5, target: key(77), timeout_ms: 700 },
        Vec::new(),
    );
    assert_eq!(sent(&mut detector)[0].2.body, MessageBody::Nack { seq: 5 });
    assert!(events(&mut detector).is_empty());
    assert_eq!(detector.stats().served_unknown, 1);
}

#[test]
fn tables_are_not_sent_without_limit() {
    let (now, mut detector) = among(3);
    // A table of four facts, this node's own among them.
    let (most, mut answered) = (MAX_FACTS_PER_SECOND / 4, 0);
    for id in 0..most as u64 + 68 {
        tell(
            &mut detector,
            now,
            1,
            MessageBody::PushPull(TableChunk { id, index: 0, total: 1, revocations: [0; 32] }),
            Vec::new(),
        );
        answered += sent(&mut detector).len();
    }
    assert_eq!(detector.stats().push_pulls_refused, 68);
    assert_eq!(answered, most);
}

#[test]
fn an_ack_from_one_held_dead_leads_to_an_exchange_and_raises_nobody_by_itself() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    let (suspect, seq) = failed_probe(&mut detector, &mut now);
    tell(&mut detector, now, 1 + suspect % 4, MessageBody::Gossip, vec![fact(suspect, 1, State::Dead)]);
    run(&mut detector, &mut now, Duration::from_secs(4));
    sent(&mut detector);
    tell(&mut detector, now, suspect, MessageBody::Ack { seq }, Vec::new());
    assert_eq!(state(&detector, suspect), State::Dead);
    let sent = sent(&mut detector);
    assert!(sent.iter().any(|(to, _, m)| *to == key(suspect) && matches!(m.body, MessageBody::PushPull(_))));
}

#[test]
fn a_late_ack_through_a_helper_clears_too() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    let (suspect, seq) = failed_probe(&mut detector, &mut now);
    // All three others were asked.
    tell(&mut detector, now, 1 + suspect % 4, MessageBody::Ack { seq }, Vec::new());
    assert_eq!(state(&detector, suspect), State::Alive);
}

#[test]
fn an_accusation_by_a_name_that_nobody_has_shortens_nothing() {
    let dead_after = |accusers: &[usize]| {
        let (now, mut detector) = among(6);
        detector.on_hub_pong(now);
        let mut accusation = fact(2, 1, State::Suspect);
        accusation.accusers = accusers.iter().map(|of| key(*of)).collect();
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![accusation]);
        detector.suspicions.deadline(&key(2)).unwrap() - now
    };
    assert_eq!(dead_after(&[3]), Duration::from_secs(24));
    assert_eq!(dead_after(&[3, 97, 98, 99]), Duration::from_secs(24));
    assert_eq!(dead_after(&[97, 98]), Duration::from_secs(24));
    assert_eq!(dead_after(&[3, 4, 5, 6]), Duration::from_secs(4));
}

/// Contacts from a source other than a hub.
pub(super) fn named(detector: &mut Detector, now: Instant, who: impl IntoIterator<Item = usize>) {
    let contacts: Vec<_> = who.into_iter().map(|of| Contact { key: key(of), opened: true }).collect();
    detector.on_contacts(now, None, &contacts);
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

/// Runs until a probe has failed. Returns its target and its sequence number.
fn failed_probe(detector: &mut Detector, now: &mut Instant) -> (usize, u64) {
    let mut pings = Vec::new();
    for _ in 0..200 {
        run(detector, now, ms(50));
        pings.extend(sent(detector).into_iter().filter_map(|(to, _, message)| match message.body {
            MessageBody::Ping { seq } => Some((to, seq)),
            _ => None,
        }));
        if let Some(suspect) =
            (1..=9).find(|of| detector.member(&key(*of)).is_some_and(|member| member.state == State::Suspect))
        {
            let ping = pings.iter().find(|(to, _)| *to == key(suspect)).unwrap();
            return (suspect, ping.1);
        }
    }
    panic!("nothing failed");
}

#[test]
fn a_late_ack_clears_the_suspicion_and_nobody_elses_does() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    let (suspect, seq) = failed_probe(&mut detector, &mut now);
    assert!(detector.health() > 0);
    events(&mut detector);
    let other = 1 + suspect % 4;
    let stranger = MessageBody::Ack { seq: seq + 1000 };
    tell(&mut detector, now, suspect, stranger, Vec::new());
    tell(&mut detector, now, other, MessageBody::Ack { seq: seq + 1000 }, Vec::new());
    assert_eq!(state(&detector, suspect), State::Suspect);
    tell(&mut detector, now, suspect, MessageBody::Ack { seq }, Vec::new());
    assert_eq!(state(&detector, suspect), State::Alive);
    assert_eq!(detector.stats().late_acks, 1);
    assert!(
        matches!(&events(&mut detector)[..], [MembershipEvent::Alive(member)] if member.key == key(suspect))
    );
    // The cleared suspicion leaves no running timer.
    detector.on_hub_pong(now);
    assert_eq!(state(&detector, suspect), State::Alive);
}

#[test]
fn a_suspect_goes_on_being_probed_and_is_told_in_the_ping() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(2, 1, State::Suspect)]);
    let mut told = 0;
    for _ in 0..100 {
        run(&mut detector, &mut now, ms(100));
        for (to, _, message) in sent(&mut detector) {
            if to == key(2) && matches!(message.body, MessageBody::Ping { .. }) {
                assert!(message.facts.iter().any(|f| f.key == key(2) && f.record.state == State::Suspect));
                told += 1;
            }
        }
    }
    assert!(told > 0);
}

#[test]
fn independent_accusers_shorten_a_suspicion_and_the_same_one_does_not() {
    let dead_after = |accusers: &[usize]| {
        let (mut now, mut detector) = among(6);
        let start = now;
        for accuser in accusers {
            let mut accusation = fact(2, 1, State::Suspect);
            accusation.accusers = vec![key(*accuser)];
            tell(&mut detector, now, 1, MessageBody::Gossip, vec![accusation]);
        }
        while state(&detector, 2) == State::Suspect {
            // The other members answer, so only this suspicion times out.
            run(&mut detector, &mut now, ms(10));
            for (to, _, message) in sent(&mut detector) {
                let from = (1..7).find(|of| key(*of) == to).unwrap();
                if let (MessageBody::Ping { seq }, true) = (message.body, from != 2) {
                    tell(&mut detector, now, from, MessageBody::Ack { seq }, Vec::new());
                }
            }
            assert!(now < start + Duration::from_secs(60));
        }
        now - start
    };
    let (one, same, two) = (dead_after(&[3]), dead_after(&[3, 3, 3]), dead_after(&[3, 4, 5]));
    assert_eq!(one, same);
    assert!(two < one, "{two:?} < {one:?}");
    assert!(dead_after(&[3, 4, 5, 6]) < Duration::from_millis(4100), "k = 3 confirmations: the minimum");
}

#[test]
fn the_next_target_is_named_a_period_ahead() {
    let (mut now, mut detector) = among(5);
    detector.on_hub_pong(now);
    let (mut named, mut checked) = (Vec::new(), 0);
    let mut last = None;
    for _ in 0..400 {
        run(&mut detector, &mut now, ms(25));
        for (to, via, message) in sent(&mut detector) {
            let MessageBody::Ping { seq } = message.body else { continue };
            if via == Via::Datagram && last != Some(seq) {
                if last.is_some() {
                    let at = named.iter().rev().find(|(_, peer)| *peer == to).map(|(at, _)| *at);
                    assert!(now - at.expect("named before") >= ms(900));
                    checked += 1;
                }
                last = Some(seq);
            }
            let from = (1..6).find(|of| key(*of) == to).unwrap();
            tell(&mut detector, now, from, MessageBody::Ack { seq }, Vec::new());
        }
        named.extend(events(&mut detector).into_iter().filter_map(|event| match event {
            MembershipEvent::WantSession { peer } => Some((now, peer)),
            _ => None,
        }));
    }
    assert!(checked >= 8, "{checked}");
}

#[test]
fn a_handshake_that_fails_is_a_failed_probe() {
    let (mut now, mut detector) = among(2);
    detector.on_hub_pong(now);
    let mut target = None;
    while target.is_none() {
        run(&mut detector, &mut now, ms(50));
        target = sent(&mut detector)
            .iter()
            .find(|(_, _, m)| matches!(m.body, MessageBody::Ping { .. }))
            .map(|s| s.0);
    }
    let target = target.unwrap();
    detector.on_session_pending(now, target);
    run(&mut detector, &mut now, ms(500));
    let pinged = sent(&mut detector)
        .into_iter()
        .any(|(to, _, message)| to == target && matches!(message.body, MessageBody::Ping { .. }));
    assert!(!pinged, "the clock waits for the session");
    detector.on_session_failed(now, target);
    run(&mut detector, &mut now, ms(10));
    let legs: Vec<_> = sent(&mut detector).into_iter().map(|(to, via, m)| (to, via, m.body)).collect();
    assert!(legs.iter().any(|(to, via, _)| *to == target && *via == Via::Reliable), "{legs:?}");
    assert!(
        legs.iter()
            .any(|(_, _, body)| matches!(body, MessageBody::PingReq { target: t, .. } if *t == target))
    );
    run(&mut detector, &mut now, ms(700));
    assert_eq!(detector.member(&target).unwrap().state, State::Suspect);
}

#[test]
fn local_health_stretches_interval_and_timeouts() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    for incarnation in 0..4 {
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(ME, 2 * incarnation, State::Suspect)]);
    }
    assert_eq!(detector.health(), 4);
    let mut pings = Vec::new();
    let start = now;
    while now < start + Duration::from_secs(7) {
        run(&mut detector, &mut now, ms(10));
        for (to, via, message) in sent(&mut detector) {
            if let (MessageBody::Ping { seq }, Via::Datagram) = (message.body, via) {
                pings.push((now, seq, to));
            }
        }
    }
    let first = pings[0].1;
    let of_first: Vec<_> = pings.iter().filter(|ping| ping.1 == first).map(|ping| ping.0).collect();
    assert_eq!(of_first.len(), 3);
    assert!(of_first[1] - of_first[0] >= ms(1490), "5 × 300 ms");
    let second = pings.iter().find(|ping| ping.1 != first).unwrap();
    assert!(second.0 - of_first[0] >= ms(4990), "5 × 1 s");
}

#[test]
fn five_hundred_members_fit_their_messages_and_arrive_whole() {
    let (now, mut detector) = new(false);
    let long = |of: usize| {
        let kinds = (0..4).map(|at| format!("kind-{of}-{at}")).collect();
        Meta::new(crate::membership::Roles::WORKER, kinds, 1, "1.2.3".into()).unwrap()
    };
    for of in 1..=500 {
        let mut fact = fact(of, 1, State::Alive);
        fact.record.profile.as_mut().unwrap().said_mut().meta = long(of);
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact]);
    }
    while detector.poll_transmit().is_some() {}
    let chunk = TableChunk { id: 5, index: 0, total: 1, revocations: [0; 32] };
    tell(&mut detector, now, 1, MessageBody::PushPull(chunk), Vec::new());
    let bodies: Vec<_> = std::iter::from_fn(|| detector.poll_transmit()).collect();
    assert!(bodies.len() > 1);
    assert!(bodies.iter().all(|t| t.body.len() <= MAX_CHUNK_BYTES && t.via == Via::Reliable));
    let mut keys: Vec<_> = bodies
        .iter()
        .flat_map(|t| MembershipMessage::decode(&t.body).unwrap().facts)
        .map(|fact| fact.key)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 501);
    // Datagram bodies never exceed the limit.
    let mut later = now;
    run(&mut detector, &mut later, Duration::from_secs(5));
    let datagrams: Vec<_> = std::iter::from_fn(|| detector.poll_transmit()).collect();
    let pings = datagrams.iter().filter(|t| t.via == Via::Datagram);
    assert!(pings.clone().count() > 10 && pings.clone().all(|t| t.body.len() <= MAX_DATAGRAM_BYTES));
    assert!(pings.map(|t| t.body.len()).max().unwrap() > MAX_DATAGRAM_BYTES - 200, "and they are filled");
}

#[test]
fn an_observers_word_about_others_counts_nothing() {
    let (now, mut detector) = among(3);
    let mut lie =
        message(MessageBody::Ping { seq: 1 }, vec![fact(1, 1, State::Dead), fact(7, 1, State::Alive)]);
    lie.observer = true;
    detector.handle_message(now, key(8), Via::Datagram, &lie.encode());
    assert_eq!(state(&detector, 1), State::Alive);
    assert!(detector.member(&key(7)).is_none() && detector.member(&key(8)).is_none());
    let sent = sent(&mut detector);
    assert_eq!(sent.len(), 1, "an ack, and no exchange begun");
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
fn refused_bytes_are_counted_by_their_kind() {
    let (now, mut detector) = among(2);
    detector.handle_message(now, key(1), Via::Datagram, b"nonsense");
    detector.handle_message(now, key(1), Via::Datagram, &[0x86, 23, 0, 0, 0x80, 0x80, 0x80]);
    detector.handle_message(now, key(1), Via::Reliable, &vec![0; MAX_CHUNK_BYTES + 1]);
    detector.handle_message(now, key(ME), Via::Datagram, &message(MessageBody::Gossip, Vec::new()).encode());
    tell(&mut detector, now, 1, MessageBody::Ack { seq: 3 }, Vec::new());
    tell(&mut detector, now, 1, MessageBody::Nack { seq: 3 }, Vec::new());
    tell(
        &mut detector,
        now,
        1,
        MessageBody::PushPullAck(TableChunk { id: 1, index: 0, total: 1, revocations: [0; 32] }),
        Vec::new(),
    );
    let stats = detector.stats();
    assert_eq!((stats.malformed, stats.unknown_kinds, stats.oversize, stats.from_self), (1, 1, 1, 1));
    assert_eq!((stats.unsolicited_acks, stats.unsolicited_chunks), (2, 1));
}

#[test]
fn user_events_are_bounded_and_typed() {
    let (now, mut detector) = among(2);
    assert_eq!(detector.broadcast(&[0; MAX_EVENT_BYTES + 1]), Err(MembershipError::EventTooLarge(257)));
    let full = (0..1000).find_map(|_| detector.broadcast(&[0; MAX_EVENT_BYTES]).err());
    assert_eq!(full, Some(MembershipError::EventsFull));
    for id in 0..=MAX_SEEN_EVENTS as u64 {
        let mut message = message(MessageBody::Gossip, Vec::new());
        message.events.push(UserEvent { origin: key(2), id, body: Vec::new() });
        for _ in 0..2 {
            detector.handle_message(now, key(1), Via::Datagram, &message.encode());
        }
    }
    let heard = events(&mut detector).iter().filter(|e| matches!(e, MembershipEvent::User { .. })).count();
    assert_eq!(heard, MAX_SEEN_EVENTS + 1, "each once");
    assert_eq!(detector.view.gossip.seen(), MAX_SEEN_EVENTS);
    let (_, mut observer) = new(true);
    assert_eq!(observer.broadcast(b"x"), Err(MembershipError::NotAMember));
}

#[test]
fn what_waits_for_a_driver_that_never_comes_is_bounded() {
    let (now, mut detector) = among(2);
    for seq in 0..MAX_TRANSMITS as u64 + 7 {
        tell(&mut detector, now, 1, MessageBody::Ping { seq }, Vec::new());
    }
    assert_eq!(detector.view.outbox.waiting().0, MAX_TRANSMITS);
    assert_eq!(detector.stats().transmits_dropped, 7);
    for incarnation in 1..=MAX_WAITING_EVENTS as u64 {
        let fact = fact(2, incarnation, if incarnation % 2 == 0 { State::Alive } else { State::Left });
        tell(&mut detector, now, 2, MessageBody::Gossip, vec![fact]);
    }
    tell(&mut detector, now, 2, MessageBody::Gossip, vec![fact(2, MAX_WAITING_EVENTS as u64, State::Left)]);
    assert_eq!(detector.view.outbox.waiting().1, MAX_WAITING_EVENTS);
    assert!(detector.stats().events_dropped > 0);
    assert_eq!(state(&detector, 2), State::Left, "the view is right all the same");
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
fn a_node_that_stood_still_hears_what_waits_before_it_judges() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(2, 1, State::Suspect)]);
    now += Duration::from_secs(40);
    detector.handle_timeout(now);
    assert_eq!(state(&detector, 2), State::Suspect);
    assert_eq!((detector.stats().stalls, detector.health()), (1, 1));
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(2, 2, State::Alive)]);
    assert_eq!(state(&detector, 2), State::Alive);
}

#[test]
fn an_exchange_voids_what_isolation_concluded_and_its_subjects_are_probed_first() {
    let (mut now, mut detector) = among(9);
    let mut requests = Vec::new();
    let suspects = |detector: &Detector| -> Vec<usize> {
        (1..=9).filter(|of| state(detector, *of) == State::Suspect).collect()
    };
    while suspects(&detector).len() < 3 {
        run(&mut detector, &mut now, ms(100));
        requests.extend(sent(&mut detector).into_iter().filter_map(|(to, _, m)| match m.body {
            MessageBody::PushPull(chunk) => Some((to, chunk.id)),
            _ => None,
        }));
    }
    assert!(detector.is_isolated());
    let subjects = suspects(&detector);
    events(&mut detector);
    let (peer, id) = *requests.last().expect("isolation seeks an exchange");
    let from = (1..=9).find(|of| key(*of) == peer).unwrap();
    tell(
        &mut detector,
        now,
        from,
        MessageBody::PushPullAck(TableChunk { id, index: 0, total: 1, revocations: [0; 32] }),
        Vec::new(),
    );
    assert!(suspects(&detector).is_empty() && !detector.is_isolated());
    assert!(events(&mut detector).contains(&MembershipEvent::Isolated(false)));
    // One probe is under way and the next target is fixed already; then the subjects follow.
    let (mut probed, mut last) = (Vec::new(), None);
    while probed.len() < 2 + subjects.len() {
        run(&mut detector, &mut now, ms(100));
        for (to, via, message) in sent(&mut detector) {
            let (MessageBody::Ping { seq }, Via::Datagram) = (message.body, via) else { continue };
            let from = (1..=9).find(|of| key(*of) == to).unwrap();
            if last != Some(seq) {
                probed.push(from);
                last = Some(seq);
            }
            tell(&mut detector, now, from, MessageBody::Ack { seq }, Vec::new());
        }
    }
    assert!(subjects.iter().all(|subject| probed.contains(subject)), "{subjects:?} in {probed:?}");
}

#[test]
fn after_a_sleep_nobody_is_accused_before_an_exchange_had_its_time() {
    let (mut now, mut detector) = among(3);
    detector.on_suspend(now);
    let asked =
        sent(&mut detector).iter().filter(|(_, _, m)| matches!(m.body, MessageBody::PushPull(_))).count();
    assert_eq!(asked, 3);
    for _ in 0..9 {
        detector.on_hub_pong(now);
        run(&mut detector, &mut now, Duration::from_secs(1));
    }
    assert!(detector.stats().probes_failed > 0);
    assert!((1..=3).all(|of| state(&detector, of) == State::Alive));
    for _ in 0..20 {
        detector.on_hub_pong(now);
        run(&mut detector, &mut now, Duration::from_secs(1));
    }
    assert!((1..=3).any(|of| state(&detector, of) != State::Alive), "but not for ever");
}

#[test]
fn whoever_was_just_held_dead_is_told_so() {
    let (mut now, mut detector) = among(2);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(2, 1, State::Dead)]);
    run(&mut detector, &mut now, ms(700));
    let told = sent(&mut detector).into_iter().any(|(to, _, message)| {
        to == key(2) && message.facts.iter().any(|f| f.key == key(2) && f.record.state == State::Dead)
    });
    assert!(told);
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

#[test]
fn a_wide_mesh_settles_without_a_false_word() {
    let mut cluster = Cluster::of(22, 40);
    cluster.loss_percent = 10;
    cluster.run(Duration::from_secs(60));
    cluster.nodes[7].up = false;
    let learned = cluster.run_until(Duration::from_secs(60), |c| c.agree(State::Dead, &[7]));
    assert!(learned.is_some());
    for at in 0..40 {
        let wrong = |e: &MembershipEvent| matches!(e, MembershipEvent::Dead(member) if member.key != key(7));
        assert!(!cluster.saw(at, Duration::ZERO, wrong));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_messages_and_time_breaks_the_detector(
        steps in proptest::collection::vec((0u8..9, 0usize..6, 0u64..5, 0u64..4000), 1..60)
    ) {
        let (mut now, mut detector) = new(false);
        for (what, who, number, wait) in steps {
            now += ms(wait);
            let states = [State::Alive, State::Suspect, State::Dead, State::Left];
            let facts = vec![fact(who, number, states[what as usize % 4])];
            match what {
                0 => tell(&mut detector, now, who, MessageBody::Ping { seq: number }, facts),
                1 => tell(&mut detector, now, who, MessageBody::Ack { seq: number }, facts),
                2 => tell(&mut detector, now, who, MessageBody::Gossip, facts),
                3 => {
                    let target = key(number as usize);
                    tell(&mut detector, now, who, MessageBody::PingReq { seq: number, target, timeout_ms: 9 }, facts);
                }
                4 => {
                    detector.join(now);
                    named(&mut detector, now, [who]);
                }
                5 => detector.leave(now),
                6 => detector.on_suspend(now),
                7 => detector.on_hub_pong(now),
                _ => detector.on_session_failed(now, key(who)),
            }
            detector.handle_timeout(now);
            let live = detector.members().filter(|member| member.state.is_live()).count();
            prop_assert_eq!(live, detector.live());
            prop_assert!(detector.poll_timeout().is_none_or(|due| due > now), "it would spin");
            for (_, via, message) in sent(&mut detector) {
                let limit = if via == Via::Datagram { MAX_DATAGRAM_BYTES } else { MAX_CHUNK_BYTES };
                prop_assert!(message.encode().len() <= limit);
            }
            events(&mut detector);
        }
    }
}
