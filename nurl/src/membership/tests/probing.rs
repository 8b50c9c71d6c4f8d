//! Probes, helpers, and what this node makes of its own standstill.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::{Cluster, key};
use super::single::{ME, among, events, fact, failed_probe, ms, run, sent, state, tell};
use crate::key::PublicKey;
use crate::membership::detector::MAX_SERVED;
use crate::membership::message::{MembershipMessage, MessageBody, TableChunk};
use crate::membership::{Detector, MembershipEvent, State, Via};

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
fn a_late_ack_through_a_helper_clears_too() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    let (suspect, seq) = failed_probe(&mut detector, &mut now);
    // All three others were asked.
    tell(&mut detector, now, 1 + suspect % 4, MessageBody::Ack { seq }, Vec::new());
    assert_eq!(state(&detector, suspect), State::Alive);
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
fn an_answer_to_a_ping_for_another_clears_here_too_however_late() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    let (suspect, _) = failed_probe(&mut detector, &mut now);
    let asker = 1 + suspect % 4;
    let request = MessageBody::PingReq { seq: 70, target: key(suspect), timeout_ms: 700 };
    tell(&mut detector, now, asker, request, Vec::new());
    let served = sent(&mut detector).into_iter().find_map(|(to, _, message)| match message.body {
        MessageBody::Ping { seq } if to == key(suspect) => Some(seq),
        _ => None,
    });
    let served = served.expect("the suspect is pinged for the other");
    // The asker waits for twice the time that it gave, and hears of the answer no more.
    detector.on_hub_pong(now);
    run(&mut detector, &mut now, ms(1500));
    sent(&mut detector);
    assert_eq!(state(&detector, suspect), State::Suspect);
    tell(&mut detector, now, asker, MessageBody::Ack { seq: served }, Vec::new());
    assert_eq!((state(&detector, suspect), detector.stats().unsolicited_acks), (State::Suspect, 1));
    tell(&mut detector, now, suspect, MessageBody::Ack { seq: served }, Vec::new());
    assert_eq!((state(&detector, suspect), detector.stats().unsolicited_acks), (State::Alive, 1));
    assert!(sent(&mut detector).iter().all(|(.., message)| message.body != MessageBody::Ack { seq: 70 }));
}

#[test]
fn a_suspect_with_which_a_session_comes_up_is_pinged_at_once() {
    let (mut now, mut detector) = among(4);
    detector.on_hub_pong(now);
    let (suspect, seq) = failed_probe(&mut detector, &mut now);
    let pinged = |detector: &mut Detector| {
        sent(detector).into_iter().find_map(|(to, via, message)| match message.body {
            MessageBody::Ping { seq } if to == key(suspect) && via == Via::Datagram => Some(seq),
            _ => None,
        })
    };
    sent(&mut detector);
    detector.on_session_up(now, key(1 + suspect % 4));
    assert_eq!(pinged(&mut detector), None, "the others aren't suspects");
    // No probe of it is under way: there is a new one.
    detector.on_session_up(now, key(suspect));
    let probe = pinged(&mut detector).expect("it is pinged");
    assert_ne!(probe, seq);
    // The direct leg of that probe fails, and then there is a session after all.
    detector.on_session_failed(now, key(suspect));
    run(&mut detector, &mut now, ms(400));
    sent(&mut detector);
    detector.on_session_up(now, key(suspect));
    assert_eq!(pinged(&mut detector), Some(probe), "by the probe that is under way");
    tell(&mut detector, now, suspect, MessageBody::Ack { seq: probe }, Vec::new());
    assert_eq!(state(&detector, suspect), State::Alive);
    detector.on_session_up(now, key(suspect));
    assert_eq!(pinged(&mut detector), None, "it isn't suspected any more");
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

#[test]
fn what_is_told_four_times_is_told_to_four_members() {
    for count in [4, 5, 6, 8] {
        let (mut now, mut detector) = among(count);
        for _ in 0..20 {
            let mut told = BTreeSet::new();
            detector.broadcast(b"told").unwrap();
            for _ in 0..3 {
                run(&mut detector, &mut now, ms(200));
                for (to, _, message) in sent(&mut detector) {
                    match message.body {
                        MessageBody::Ping { seq } => {
                            let answer = (1..=count).find(|of| key(*of) == to).unwrap();
                            tell(&mut detector, now, answer, MessageBody::Ack { seq }, Vec::new());
                        }
                        MessageBody::Gossip if !message.events.is_empty() => {
                            assert!(told.insert(to), "{count}: {} twice", to.short());
                        }
                        _ => {}
                    }
                }
            }
            assert!(told.len() >= 3, "at most one telling rode on a ping");
        }
    }
}

#[test]
fn a_hub_that_answers_ends_isolation_at_once() {
    let (mut now, mut detector) = among(3);
    run(&mut detector, &mut now, Duration::from_secs(15));
    assert!(events(&mut detector).contains(&MembershipEvent::Isolated(true)), "nobody has answered");
    detector.on_hub_pong(now);
    assert!(events(&mut detector).contains(&MembershipEvent::Isolated(false)));
}
