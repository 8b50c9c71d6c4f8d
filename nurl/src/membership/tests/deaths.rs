//! Many deaths at once, evidence for this node's own health, and the handling of dead members and observers.

use std::time::{Duration, Instant};

use super::S;
use super::cluster::{Cluster, key};
use super::single::{ME, among, events, fact, message, ms, named, new, run, sent, state, tell};
use crate::membership::detector::MAX_OBSERVERS;
use crate::membership::message::{MessageBody, TableChunk};
use crate::membership::table::Fact;
use crate::membership::{Detector, MembershipEvent, State, Via};

/// Time until all others hold `dead` dead, if they all die now.
fn known_after(cluster: &mut Cluster, dead: &[usize]) -> Duration {
    let since = cluster.elapsed();
    dead.iter().for_each(|at| cluster.nodes[*at].up = false);
    while !cluster.agree(State::Dead, dead) {
        assert!(cluster.elapsed() - since < S(120), "not all hold {dead:?} dead");
        cluster.run(ms(250));
    }
    cluster.elapsed() - since
}

#[test]
fn deaths_at_one_instant_are_known_within_twice_the_time_of_one() {
    for (seed, nodes, share) in [(1, 20, [5, 10]), (2, 20, [5, 16]), (3, 40, [20, 32])] {
        for count in share {
            let mut cluster = Cluster::of(seed, nodes + 1);
            cluster.nodes.iter_mut().for_each(|node| node.hub = true);
            cluster.run(S(10));
            let one = known_after(&mut cluster, &[nodes]);
            let since = cluster.elapsed();
            let dead: Vec<usize> = (nodes - count..nodes).collect();
            let many = known_after(&mut cluster, &dead);
            assert!(many <= 2 * one, "seed {seed}: {count} of {nodes} after {many:?}, one after {one:?}");
            for at in 0..nodes - count {
                let wrong = (0..nodes - count).find(|of| {
                    cluster.saw(
                        at,
                        since,
                        |e| matches!(e, MembershipEvent::Dead(member) if member.key == key(*of)),
                    )
                });
                assert_eq!(wrong, None, "seed {seed}: {at} holds a living one dead");
            }
        }
    }
}

/// Runs without any answers until this node is isolated with `count` suspects and has requested an exchange, which
/// then succeeds. Returns the suspects and the exchange's peer.
fn isolated_and_back(detector: &mut Detector, now: &mut Instant, count: usize) -> (Vec<usize>, usize) {
    let mut requests = Vec::new();
    let suspects = |detector: &Detector| -> Vec<usize> {
        (1..=9).filter(|of| state(detector, *of) == State::Suspect).collect()
    };
    while !detector.is_isolated() || suspects(detector).len() < count || requests.is_empty() {
        run(detector, now, ms(100));
        let exchanges = sent(detector).into_iter().filter_map(|(to, _, message)| match message.body {
            MessageBody::PushPull(chunk) => Some(((1..=9).find(|of| key(*of) == to)?, chunk.id)),
            _ => None,
        });
        requests.extend(exchanges);
    }
    let (suspects, (from, id)) = (suspects(detector), *requests.last().expect("isolation seeks an exchange"));
    tell(
        detector,
        *now,
        from,
        MessageBody::PushPullAck(TableChunk { id, index: 0, total: 1, revocations: [0; 32] }),
        Vec::new(),
    );
    assert!(!detector.is_isolated());
    (suspects, from)
}

/// Found by the scenario `keystone` with seeds 8000028 and 41000005.
#[test]
fn a_verdict_of_isolation_is_taken_back_once_and_then_stands_in_public() {
    let (mut now, mut detector) = among(9);
    let (subjects, _) = isolated_and_back(&mut detector, &mut now, 3);
    assert!(subjects.iter().all(|of| state(&detector, *of) == State::Alive));
    let (again, from) = isolated_and_back(&mut detector, &mut now, 4);
    let stand: Vec<usize> = again.into_iter().filter(|of| subjects.contains(of) && *of != from).collect();
    assert!(stand.len() >= 2);
    assert!(stand.iter().all(|of| state(&detector, *of) == State::Suspect), "{stand:?}");
    run(&mut detector, &mut now, S(1));
    let said = sent(&mut detector).into_iter().flat_map(|(.., message)| message.facts);
    let said: Vec<_> = said.filter(|fact| fact.record.state == State::Suspect).map(|fact| fact.key).collect();
    assert!(stand.iter().all(|of| said.contains(&key(*of))), "not only here");
}

/// The members pinged since the last call, with the sequence numbers.
fn pinged(detector: &mut Detector) -> Vec<(usize, u64)> {
    let pings = sent(detector).into_iter().filter_map(|(to, via, message)| match message.body {
        MessageBody::Ping { seq } if via == Via::Datagram => Some(((1..=99).find(|of| key(*of) == to)?, seq)),
        _ => None,
    });
    pings.collect()
}

/// Runs until members have been asked to help with a probe. Returns its target, its sequence number and the helpers.
fn asked(detector: &mut Detector, now: &mut Instant) -> (usize, u64, Vec<usize>) {
    let number = |key_: crate::key::PublicKey| (1..=99).find(|of| key(*of) == key_).unwrap();
    for _ in 0..200 {
        run(detector, now, ms(50));
        let mut helpers = Vec::new();
        let mut probe = None;
        for (to, _, message) in sent(detector) {
            if let MessageBody::PingReq { seq, target, .. } = message.body {
                probe = Some((number(target), seq));
                helpers.push(number(to));
            }
        }
        if let Some((target, seq)) = probe {
            return (target, seq, helpers);
        }
    }
    panic!("nobody was asked");
}

#[test]
fn a_failed_probe_says_nothing_of_this_node_if_somebody_else_has_answered() {
    for witness in [false, true] {
        let (mut now, mut detector) = among(5);
        detector.on_hub_pong(now);
        let (target, seq, helpers) = asked(&mut detector, &mut now);
        if witness {
            tell(&mut detector, now, helpers[0], MessageBody::Nack { seq }, Vec::new());
        }
        run(&mut detector, &mut now, ms(750));
        assert_eq!(state(&detector, target), State::Suspect);
        assert_eq!(detector.health(), u32::from(!witness), "witness {witness}");
    }
}

/// An exchange with a dead partner fails after 10 s. Another try with the same one would double that.
/// Of many that die at one instant the first are accused before members that are dead themselves.
#[test]
fn who_fails_again_is_accused_again_until_there_are_enough_confirmations() {
    for confirmed in [false, true] {
        let (mut now, mut detector) = among(5);
        let (mut first, mut last) = (None, now);
        let begun = now;
        while now < begun + S(18) {
            run(&mut detector, &mut now, ms(50));
            detector.on_hub_pong(now);
            for (to, _, message) in sent(&mut detector) {
                let from = (1..=5).find(|of| key(*of) == to).expect("a member");
                if from == 2 {
                    continue;
                }
                let accused = |fact: &Fact| {
                    fact.key == key(2)
                        && fact.record.state == State::Suspect
                        && fact.accusers.contains(&key(ME))
                };
                if message.facts.iter().any(accused) {
                    if first.is_none() && confirmed {
                        // All others know, and say so.
                        let mut said = fact(2, 1, State::Suspect);
                        said.accusers = [1, 3, 4].map(key).to_vec();
                        tell(&mut detector, now, from, MessageBody::Gossip, vec![said]);
                    }
                    first.get_or_insert(now);
                    last = now;
                }
                if let MessageBody::Ping { seq } = message.body {
                    tell(&mut detector, now, from, MessageBody::Ack { seq }, Vec::new());
                }
            }
            if state(&detector, 2) == State::Dead {
                break;
            }
        }
        let told_for = last - first.expect("it is accused");
        assert_eq!(told_for > S(4), !confirmed, "told for {told_for:?}, confirmed {confirmed}");
    }
}

#[test]
fn the_partner_of_a_failed_exchange_is_not_the_next_one_unless_there_is_no_other() {
    for (members, other) in [(2, true), (1, false)] {
        for observer in [false, true] {
            let (mut now, mut detector) = new(observer);
            let facts = (1..=members).map(|of| fact(of, 1, State::Alive)).collect();
            tell(&mut detector, now, 1, MessageBody::Gossip, facts);
            let mut partners = Vec::new();
            while partners.len() < 12 {
                run(&mut detector, &mut now, ms(50));
                // The members answer pings, so that they stay live, but no exchange.
                for (to, _, message) in sent(&mut detector) {
                    let from = (1..=members).find(|of| key(*of) == to).expect("a member");
                    match message.body {
                        MessageBody::Ping { seq } => {
                            tell(&mut detector, now, from, MessageBody::Ack { seq }, Vec::new());
                        }
                        MessageBody::PushPull(_) => {
                            detector.on_message_lost(now, to);
                            partners.push(from);
                        }
                        _ => {}
                    }
                }
            }
            let again = partners.windows(2).any(|pair| pair[0] == pair[1]);
            assert_eq!(again, !other, "{members} members, observer {observer}: {partners:?}");
        }
    }
}

#[test]
fn a_hubs_denial_speaks_for_this_node_and_brings_one_probe_and_no_verdict() {
    let (mut now, mut detector) = among(5);
    detector.on_hub_pong(now);
    let (target, ..) = asked(&mut detector, &mut now);
    let denied = 1 + target % 5;
    detector.on_denied(now, key(900), key(denied));
    assert_eq!(state(&detector, denied), State::Alive);
    let pings = pinged(&mut detector);
    assert!(matches!(&pings[..], [(of, _)] if *of == denied), "at once, beside the one under way: {pings:?}");
    assert!(events(&mut detector).contains(&MembershipEvent::WantSession { peer: key(denied) }));
    tell(&mut detector, now, denied, MessageBody::Ack { seq: pings[0].1 }, Vec::new());
    detector.on_denied(now, key(900), key(denied));
    assert!(pinged(&mut detector).is_empty(), "not again so soon");
    run(&mut detector, &mut now, ms(750));
    assert_eq!((state(&detector, target), state(&detector, denied)), (State::Suspect, State::Alive));
    assert_eq!(detector.health(), 0);
    detector.on_denied(now, key(900), key(77));
    assert!(pinged(&mut detector).iter().all(|(of, _)| *of != 77), "nobody that it knows");
}

/// A silent helper is probed. If it answers, its NACK was missed, and health stays as it was; if it doesn't, it is
/// one of the dead.
#[test]
fn a_silent_helper_is_probed_before_its_nack_counts_as_missed() {
    let (mut now, mut detector) = among(2);
    detector.on_hub_pong(now);
    // Only the silence of a recently heard helper is evidence.
    tell(&mut detector, now, 1, MessageBody::Gossip, Vec::new());
    tell(&mut detector, now, 2, MessageBody::Gossip, Vec::new());
    let (target, _, helpers) = asked(&mut detector, &mut now);
    assert_eq!(helpers.len(), 1);
    run(&mut detector, &mut now, ms(750));
    assert_eq!((state(&detector, target), detector.health()), (State::Suspect, 1));
    let pings = pinged(&mut detector);
    let (_, seq) = *pings.iter().rfind(|(of, _)| *of == helpers[0]).expect("it is probed beside the rounds");
    tell(&mut detector, now, helpers[0], MessageBody::Ack { seq }, Vec::new());
    assert_eq!(detector.health(), 1, "an answered probe and a missed NACK");
}

#[test]
fn a_suspect_of_others_is_probed_at_once() {
    let (now, mut detector) = among(9);
    tell(
        &mut detector,
        now,
        1,
        MessageBody::Gossip,
        vec![fact(2, 1, State::Suspect), fact(3, 1, State::Suspect)],
    );
    let mut targets: Vec<_> = pinged(&mut detector).into_iter().map(|(of, _)| of).collect();
    targets.sort_unstable();
    assert_eq!(targets, [2, 3]);
    assert_eq!(detector.stats().probes_beside, 2);
}

/// Found by the scenario `deaths` with seed 9000003: the suspicion time was already the shortest when this node
/// learned of the suspicion, and the refutation never arrived here.
#[test]
fn a_suspicion_that_needs_no_other_accuser_is_checked_too_when_it_is_news() {
    let (mut now, mut detector) = among(9);
    detector.on_hub_pong(now);
    let mut accusation = fact(2, 1, State::Suspect);
    accusation.accusers = (3..=6).map(key).collect();
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![accusation.clone()]);
    let pings = pinged(&mut detector);
    let (_, seq) = *pings.iter().find(|(of, _)| *of == 2).expect("it is probed at once");
    tell(&mut detector, now, 2, MessageBody::Ack { seq }, Vec::new());
    assert_eq!(state(&detector, 2), State::Alive);
    run(&mut detector, &mut now, ms(100));
    tell(&mut detector, now, 7, MessageBody::Gossip, vec![accusation]);
    assert!(pinged(&mut detector).iter().all(|(of, _)| *of != 2), "it is no news");
}

#[test]
fn the_silent_take_no_gossip_from_the_living() {
    let (mut now, mut detector) = among(4);
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact(5, 1, State::Dead), fact(3, 5, State::Alive)]);
    sent(&mut detector);
    run(&mut detector, &mut now, ms(900));
    let (mut dead, mut living) = (0, 0);
    for (to, _, message) in sent(&mut detector) {
        if to == key(5) {
            assert!(message.facts.iter().all(|fact| fact.key == key(5)), "but what is said of itself");
            dead += 1;
        } else {
            living += message.facts.iter().filter(|fact| fact.key == key(3)).count();
        }
    }
    assert!(dead > 0 && living > 0);
}

#[test]
fn a_dead_member_that_a_hub_names_is_healed_first() {
    let (mut now, mut detector) = among(1);
    tell(
        &mut detector,
        now,
        1,
        MessageBody::PushPullAck(TableChunk { id: 0, index: 0, total: 1, revocations: [0; 32] }),
        Vec::new(),
    );
    let dead = (2..=40).map(|of| fact(of, 1, State::Dead)).collect();
    tell(&mut detector, now, 1, MessageBody::Gossip, dead);
    named(&mut detector, now, [17]);
    sent(&mut detector);
    // The first healing comes within a push-pull period; no dead member is pinged otherwise.
    let mut healed = Vec::new();
    while healed.is_empty() {
        run(&mut detector, &mut now, ms(500));
        healed = pinged(&mut detector).into_iter().map(|(of, _)| of).filter(|of| *of != 1).collect();
    }
    assert!(healed.iter().all(|of| *of == 17), "{healed:?}");
}

#[test]
fn an_observer_that_a_hub_names_is_asked_once() {
    let mut cluster = Cluster::of(9, 3);
    let observer = cluster.add(true);
    let asked = |cluster: &Cluster, since: Duration| {
        let told = cluster.sent.iter().filter(|(at, _, to, _)| *at >= since && *to == observer);
        told.filter(|(.., message)| matches!(message.body, MessageBody::PushPull(_))).count()
    };
    let begun = cluster.elapsed();
    cluster.join(0, &[observer]);
    cluster.run(S(5));
    assert_eq!(asked(&cluster, begun), 1);
    let later = cluster.elapsed();
    for _ in 0..4 {
        cluster.join(0, &[observer]);
        cluster.run(S(30));
    }
    assert_eq!(asked(&cluster, later), 0);
    assert_eq!(cluster.state(0, observer), None);
}

#[test]
fn observers_are_remembered_within_a_bound_and_one_that_becomes_a_member_is_met() {
    let (now, mut detector) = new(false);
    for at in 1..=MAX_OBSERVERS + 1 {
        let mut look = message(MessageBody::Ping { seq: 1 }, Vec::new());
        look.observer = true;
        detector.handle_message(now, key(at), Via::Datagram, &look.encode());
    }
    tell(&mut detector, now, 500, MessageBody::Gossip, vec![fact(500, 1, State::Alive)]);
    let request = sent(&mut detector).into_iter().find_map(|(_, _, message)| match message.body {
        MessageBody::PushPull(chunk) => Some(chunk.id),
        _ => None,
    });
    assert_eq!(request, None, "it has introduced itself");
    let asked = |detector: &mut Detector, of: usize| {
        named(detector, now, [of]);
        sent(detector).iter().any(|(to, _, m)| *to == key(of) && matches!(m.body, MessageBody::PushPull(_)))
    };
    assert!(!asked(&mut detector, 2) && asked(&mut detector, 1), "the oldest made room");
    tell(&mut detector, now, 2, MessageBody::Gossip, vec![fact(ME, 0, State::Alive)]);
    assert!(asked(&mut detector, 2) || detector.member(&key(2)).is_none());
}

#[test]
fn an_observer_that_came_early_sees_who_came_after_it_within_seconds() {
    let mut cluster = Cluster::of(5, 2);
    let observer = cluster.add(true);
    cluster.join(observer, &[0]);
    cluster.run_until(S(5), |c| c.state(observer, 0) == Some(State::Alive)).expect("it has joined");
    let late = cluster.add(false);
    cluster.join(late, &[0]);
    let seen = cluster.run_until(S(8), |c| c.state(observer, late) == Some(State::Alive));
    assert!(seen.is_some(), "nobody tells an observer, so it has to ask");
}
