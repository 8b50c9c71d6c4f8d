//! What a member, and others, say of it: accusations, refutations, acquaintance.

use std::time::Duration;

use super::cluster::key;
use super::single::{ME, among, events, fact, failed_probe, message, ms, new, run, sent, state, tell};
use crate::membership::detector::MAX_REFUTATIONS_PER_SECOND;
use crate::membership::limit::{answer_limit, told_limit};
use crate::membership::message::{MessageBody, TableChunk};
use crate::membership::table::Fact;
use crate::membership::{MembershipEvent, State, Via};

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
    assert_eq!(
        told.filter(|fact| fact.key == key(ME)).count(),
        5,
        "the accuser at once, and as often as a fact is told"
    );
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

/// Whoever pings gets it with the ack, and whoever sends a table gets one. All others are told at once.
#[test]
fn who_missed_the_refutation_is_told_whatever_it_says() {
    let (mut now, mut detector) = among(3);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(ME, 4, State::Suspect)]);
    run(&mut detector, &mut now, ms(900));
    sent(&mut detector);
    let mut told = |body: MessageBody| {
        tell(&mut detector, now, 2, body, vec![fact(ME, 4, State::Dead)]);
        let own = |message: &crate::membership::message::MembershipMessage| {
            message.facts.iter().any(|fact| fact.key == key(ME) && fact.record.incarnation == 5)
        };
        sent(&mut detector).iter().filter(|(to, _, message)| *to == key(2) && own(message)).count()
    };
    let request = MessageBody::PingReq { seq: 4, target: key(3), timeout_ms: 500 };
    let bodies = [
        MessageBody::Gossip,
        MessageBody::Ack { seq: 7 },
        MessageBody::Nack { seq: 7 },
        request,
        MessageBody::Ping { seq: 3 },
    ];
    for body in bodies {
        assert_eq!(told(body), 1, "{body:?}");
    }
    let answers: usize = (0..100).map(|_| told(MessageBody::Gossip)).sum();
    assert!((20..=32).contains(&answers), "{answers} answers in a second");
}

/// It may not know of it: gossip about a member goes to the others.
#[test]
fn who_is_suspect_or_held_dead_learns_it_with_the_answer_to_its_ping() {
    for held in [State::Suspect, State::Dead] {
        let (mut now, mut detector) = among(4);
        detector.on_hub_pong(now);
        let (of, _) = failed_probe(&mut detector, &mut now);
        if held == State::Dead {
            tell(&mut detector, now, 1 + of % 4, MessageBody::Gossip, vec![fact(of, 1, State::Dead)]);
            run(&mut detector, &mut now, Duration::from_secs(4));
        }
        assert_eq!(state(&detector, of), held);
        sent(&mut detector);
        let says = |fact: &Fact| fact.key == key(of) && fact.record.state == held;
        tell(&mut detector, now, of, MessageBody::Ping { seq: 3 }, Vec::new());
        let told = sent(&mut detector).into_iter().any(|(to, _, message)| {
            to == key(of) && message.body == MessageBody::Ack { seq: 3 } && message.facts.iter().any(says)
        });
        assert!(told, "{held:?}");
    }
}

#[test]
fn who_is_held_dead_or_to_have_left_is_asked_when_a_session_comes_up() {
    for gone in [State::Dead, State::Left] {
        let (mut now, mut detector) = among(4);
        detector.on_hub_pong(now);
        let of = match gone {
            State::Left => 2,
            _ => failed_probe(&mut detector, &mut now).0,
        };
        let teller = if gone == State::Left { of } else { 1 + of % 4 };
        tell(&mut detector, now, teller, MessageBody::Gossip, vec![fact(of, 1, gone)]);
        run(&mut detector, &mut now, Duration::from_secs(4));
        assert_eq!(state(&detector, of), gone);
        sent(&mut detector);
        detector.on_session_up(now, key(of));
        let sent = sent(&mut detector);
        let says = |fact: &Fact| fact.key == key(of) && fact.record.state == gone;
        let pinged = sent.iter().any(|(to, _, message)| {
            *to == key(of)
                && matches!(message.body, MessageBody::Ping { .. })
                && message.facts.iter().any(says)
        });
        assert!(pinged, "{gone:?}: {sent:?}");
    }
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
fn whoever_was_just_held_dead_is_told_so() {
    let (mut now, mut detector) = among(2);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(2, 1, State::Dead)]);
    run(&mut detector, &mut now, ms(700));
    let told = sent(&mut detector).into_iter().any(|(to, _, message)| {
        to == key(2) && message.facts.iter().any(|f| f.key == key(2) && f.record.state == State::Dead)
    });
    assert!(told);
}
