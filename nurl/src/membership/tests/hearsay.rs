//! What others say against members: it is checked with its subject, within bounds.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::S;
use super::cluster::{Cluster, key};
use super::single::{ME, among, events, fact, message, ms, new, run, sent, state, tell};
use crate::membership::detector::CLAIM_BURST;
use crate::membership::message::{MembershipMessage, MessageBody};
use crate::membership::table::{Fact, MemberRecord};
use crate::membership::{Detector, MembershipEvent, State, Via};

/// A claim without a profile or accusers.
fn claim(of: usize, incarnation: u64, state: State) -> Fact {
    let record = MemberRecord { incarnation, state, profile: None };
    Fact { key: key(of), record, age_s: 0, accusers: Vec::new() }
}

/// The datagram pings to `of` since the last call: the sequence number, and what the ping says of `of`.
fn pings(detector: &mut Detector, of: usize) -> Vec<(u64, Option<State>)> {
    let pings = sent(detector).into_iter().filter_map(|(to, via, message)| match message.body {
        MessageBody::Ping { seq } if to == key(of) && via == Via::Datagram => {
            Some((seq, message.facts.iter().find(|fact| fact.key == key(of)).map(|fact| fact.record.state)))
        }
        _ => None,
    });
    pings.collect()
}

/// The time until member `of` is shown as `wanted`.
fn shown_after(detector: &mut Detector, now: &mut Instant, of: usize, wanted: State) -> Duration {
    let begun = *now;
    while state(detector, of) != wanted {
        assert!(*now < begun + S(60), "{of} is never {wanted:?}");
        detector.on_hub_pong(*now);
        run(detector, now, ms(100));
    }
    *now - begun
}

#[test]
fn a_told_death_is_checked_with_its_subject_and_its_answer_refutes_it() {
    for observer in [false, true] {
        let (now, mut detector) = new(observer);
        tell(
            &mut detector,
            now,
            1,
            MessageBody::Gossip,
            (1..=5).map(|of| fact(of, 1, State::Alive)).collect(),
        );
        sent(&mut detector);
        events(&mut detector);
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![claim(2, 1, State::Dead)]);
        let [(seq, said)] = pings(&mut detector, 2)[..] else { panic!("one ping at once") };
        assert_eq!(said, Some(State::Dead), "the subject hears what is said of it");
        tell(&mut detector, now, 2, MessageBody::Ack { seq }, Vec::new());
        assert_eq!(state(&detector, 2), State::Alive);
        assert_eq!((detector.stats().claims_checked, detector.stats().claims_refuted), (1, 1));
        let shown = |event: &MembershipEvent| {
            matches!(event, MembershipEvent::Suspect(_) | MembershipEvent::Dead(_) | MembershipEvent::Left(_))
        };
        assert!(!events(&mut detector).iter().any(shown), "it was never shown dead");
        let mut later = now;
        run(&mut detector, &mut later, ms(900));
        let told_on = sent(&mut detector).into_iter().flat_map(|(.., message)| message.facts);
        assert!(told_on.into_iter().all(|fact| fact.key != key(2) || fact.record.state == State::Alive));
    }
}

#[test]
fn a_told_death_of_a_silent_member_is_believed_after_its_probe() {
    for (observer, told, after) in [(false, State::Dead, S(4)..=S(5)), (true, State::Dead, S(1)..=S(2))] {
        let (mut now, mut detector) = new(observer);
        tell(
            &mut detector,
            now,
            1,
            MessageBody::Gossip,
            (1..=9).map(|of| fact(of, 1, State::Alive)).collect(),
        );
        detector.on_hub_pong(now);
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![claim(2, 3, told)]);
        let took = shown_after(&mut detector, &mut now, 2, told);
        assert!(after.contains(&took), "{told:?} after {took:?}, observer {observer}");
        assert_eq!(detector.member(&key(2)).unwrap().incarnation, 3, "what others know has to be outbid");
    }
}

/// Found by the scenario `deaths` with seed 97000066: many had died at once, this node held itself for slow, and for its
/// probe of the last of them it waited 14 s for a session.
#[test]
fn a_told_death_is_checked_soon_even_without_a_session_by_a_node_that_holds_itself_for_slow() {
    let (mut now, mut detector) = among(60);
    let mut pinged = BTreeSet::new();
    while detector.health() < 6 {
        assert!(detector.stats().probes_failed < 99);
        detector.on_hub_pong(now);
        run(&mut detector, &mut now, ms(100));
        pinged.extend(sent(&mut detector).into_iter().map(|(to, ..)| to));
    }
    let of = (2..=60).find(|of| !pinged.contains(&key(*of))).expect("one that isn't under probe");
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![claim(of, 1, State::Dead)]);
    detector.on_session_pending(now, key(of));
    let took = shown_after(&mut detector, &mut now, of, State::Dead);
    // 2 s for the session, then 7 s for the probe, of which the direct pings' 2.1 s are over.
    assert!((S(6)..S(8)).contains(&took), "{took:?}");
}

#[test]
fn a_told_death_that_this_node_has_evidence_of_needs_no_second_probe() {
    let (mut now, mut detector) = among(9);
    detector.on_hub_pong(now);
    let mut accusation = fact(2, 1, State::Suspect);
    accusation.accusers = vec![key(3)];
    tell(&mut detector, now, 3, MessageBody::Gossip, vec![accusation]);
    run(&mut detector, &mut now, S(5));
    assert_eq!(state(&detector, 2), State::Suspect, "two accuse it: 14 s");
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![claim(2, 1, State::Dead)]);
    run(&mut detector, &mut now, ms(1));
    assert_eq!(state(&detector, 2), State::Dead);
}

#[test]
fn a_goodbye_is_believed_at_once_whoever_tells_it() {
    for from in [1, 2, 77] {
        let (now, mut detector) = among(3);
        tell(&mut detector, now, from, MessageBody::Gossip, vec![fact(2, 1, State::Left)]);
        assert_eq!((state(&detector, 2), detector.stats().claims_checked), (State::Left, 0));
    }
}

#[test]
fn a_teller_causes_no_more_checks_than_its_share() {
    let (now, mut detector) = among(200);
    let lies = |state| (3..=200).map(|of| claim(of, 1, state)).collect::<Vec<_>>();
    for told in [State::Suspect, State::Dead] {
        tell(&mut detector, now, 1, MessageBody::Gossip, lies(told));
    }
    let stats = detector.stats().clone();
    let caused =
        stats.claims_checked + (3..=200).filter(|of| state(&detector, *of) == State::Suspect).count() as u64;
    assert_eq!(caused, CLAIM_BURST);
    assert!(stats.claims_limited > 0);
    // Another teller has a share of its own, and a claim that waits already costs nothing.
    tell(&mut detector, now, 2, MessageBody::Gossip, lies(State::Dead));
    assert!(detector.stats().claims_checked > stats.claims_checked);
    // The rest of a message counts.
    tell(
        &mut detector,
        now,
        1,
        MessageBody::Gossip,
        vec![claim(7, 1, State::Dead), fact(300, 1, State::Alive)],
    );
    assert_eq!(state(&detector, 300), State::Alive);
}

#[test]
fn nobody_listens_to_an_accuser_that_is_no_live_member() {
    let (now, mut detector) = among(3);
    tell(&mut detector, now, 3, MessageBody::Gossip, vec![fact(3, 1, State::Left)]);
    for from in [3, 77] {
        let claims = [State::Suspect, State::Dead].map(|state| claim(2, 1, state));
        tell(&mut detector, now, from, MessageBody::Gossip, claims.to_vec());
    }
    assert_eq!((state(&detector, 2), detector.stats().claims_of_strangers), (State::Alive, 4));
    assert!(pings(&mut detector, 2).is_empty());
}

/// A liar names this node as an accuser, and enough others that the suspicion is the shortest.
#[test]
fn named_accusers_are_no_evidence_of_this_nodes_own() {
    let (mut now, mut detector) = among(9);
    let mut lie = fact(2, 1, State::Suspect);
    lie.accusers = [ME, 3, 4, 5].map(key).to_vec();
    tell(&mut detector, now, 1, MessageBody::Gossip, vec![lie]);
    let [(seq, _)] = pings(&mut detector, 2)[..] else { panic!("it is probed all the same") };
    tell(&mut detector, now, 2, MessageBody::Ack { seq }, Vec::new());
    for _ in 0..30 {
        detector.on_hub_pong(now);
        // All others answer, so that the rounds accuse nobody.
        run(&mut detector, &mut now, ms(100));
        for (to, _, message) in sent(&mut detector) {
            if let MessageBody::Ping { seq } = message.body {
                let from = (1..=9).find(|of| key(*of) == to).unwrap();
                tell(&mut detector, now, from, MessageBody::Ack { seq }, Vec::new());
            }
        }
    }
    assert_eq!(state(&detector, 2), State::Alive);
}

/// The whole mesh, slandered by one of its members twenty times a second.
#[test]
fn a_slandered_mesh_holds_nobody_dead_or_gone_and_finds_a_true_death() {
    for (count, told) in [(3, State::Dead), (12, State::Dead), (3, State::Suspect), (12, State::Suspect)] {
        let mut cluster = Cluster::of(9, count + 1);
        cluster.nodes.iter_mut().for_each(|node| node.hub = true);
        cluster.run(S(10));
        let observer = cluster.add(true);
        cluster.join(observer, &[0]);
        cluster.run(S(5));
        let since = cluster.elapsed();
        for _ in 0..600 {
            let incarnation = |of: usize| cluster.nodes[of].detector.local().incarnation;
            let lies: Vec<Fact> = (0..count).map(|of| claim(of, incarnation(of), told)).collect();
            let body = MembershipMessage { facts: lies, ..message(MessageBody::Gossip, Vec::new()) }.encode();
            for to in (0..count).chain([observer]) {
                let now = cluster.now;
                cluster.nodes[to].detector.handle_message(now, key(count), Via::Datagram, &body);
                cluster.drain(to);
            }
            cluster.run(ms(50));
        }
        for at in (0..count).chain([observer]) {
            let gone = |e: &MembershipEvent| matches!(e, MembershipEvent::Dead(_) | MembershipEvent::Left(_));
            assert!(!cluster.saw(at, since, gone), "{count}: {at} holds somebody {told:?}");
        }
        cluster.nodes[1].up = false;
        let found = cluster.run_until(S(60), |c| c.agree(State::Dead, &[1]));
        assert!(found.is_some(), "{count}: a true death is found after all lies");
    }
}
