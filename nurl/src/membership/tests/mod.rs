//! A whole mesh in memory: the rules in combination.

mod bounds;
mod cluster;
mod contacts;
mod deaths;
mod epochs;
mod evidence;
mod hearsay;
mod outcasts;
mod probing;
mod refutations;
mod single;

use std::time::Duration;

use super::{DetectorStats, MembershipEvent, Via};
use crate::membership::State;
use crate::membership::message::{MembershipMessage, MessageBody};
use crate::membership::table::{Fact, MemberRecord};
use cluster::{Cluster, key};

const S: fn(u64) -> Duration = Duration::from_secs;

fn all_but(count: usize, without: usize) -> Vec<usize> {
    (0..count).filter(|at| *at != without).collect()
}

#[test]
fn at_30_percent_loss_a_death_is_learned_by_all_and_nobody_healthy_is_held_dead() {
    for seed in 0..12 {
        let mut cluster = Cluster::of(seed, 8);
        cluster.loss_percent = 30;
        cluster.run(S(60));
        let since = cluster.elapsed();
        cluster.nodes[3].up = false;
        let learned = cluster.run_until(S(60), |c| c.agree(State::Dead, &[3]));
        assert!(learned.is_some(), "seed {seed}: someone doesn't know of the death");
        cluster.run(S(60));
        for at in all_but(8, 3) {
            let wrong = cluster.nodes[at]
                .events
                .iter()
                .find(|(_, event)| matches!(event, MembershipEvent::Dead(member) if member.key != key(3)));
            assert!(wrong.is_none(), "seed {seed}: {at} saw {wrong:?}");
            assert!(cluster.saw(at, since, |e| matches!(e, MembershipEvent::Dead(m) if m.key == key(3))));
        }
    }
}

#[test]
fn without_loss_nobody_is_ever_suspected() {
    let mut cluster = Cluster::of(1, 10);
    cluster.run(S(300));
    for node in &cluster.nodes {
        assert!(
            !node
                .events
                .iter()
                .any(|(_, e)| matches!(e, MembershipEvent::Suspect(_) | MembershipEvent::Dead(_)))
        );
        assert_eq!(node.detector.health(), 0);
        assert_eq!(node.detector.live(), 10);
        assert_eq!(node.detector.stats().probes_failed, 0);
        assert_eq!(node.detector.stats().stalls, 0);
        let pings = node.detector.stats().pings;
        assert!((295..=301).contains(&pings), "one in each second: {pings}");
    }
    let sum = |of: fn(&DetectorStats) -> u64| -> u64 {
        cluster.nodes.iter().map(|node| of(node.detector.stats())).sum()
    };
    let (pings, acks) = (sum(|stats| stats.pings), sum(|stats| stats.acks));
    assert!(acks <= pings && acks + 10 >= pings, "{acks} acks for {pings} pings");
    let (tables, chunks) = (sum(|stats| stats.push_pulls), sum(|stats| stats.chunks));
    assert!(tables > 90 && (2 * tables..2 * tables + 20).contains(&chunks), "{chunks} for {tables} tables");
    assert!(sum(|stats| stats.gossips) > 0, "newcomers are told of");
}

#[test]
fn an_exchange_whose_message_was_lost_is_made_up_for_within_a_second() {
    let mut cluster = Cluster::of(4, 3);
    let asked = |c: &Cluster, since: Duration| {
        let mut sent = c.sent.iter().filter(|(when, from, ..)| *when >= since && *from == 0);
        sent.find(|(.., message)| matches!(message.body, MessageBody::PushPull(_))).map(|(.., to, _)| *to)
    };
    cluster.run(S(1));
    let since = cluster.elapsed();
    cluster.run_until(S(60), |c| asked(c, since).is_some()).expect("it asks once in a period");
    let (now, to) = (cluster.now, asked(&cluster, since).unwrap());
    cluster.nodes[0].detector.on_message_lost(now, key(to));
    cluster.run(S(1) / 1_000);
    let lost = cluster.elapsed();
    cluster.run_until(S(1), |c| asked(c, lost).is_some()).expect("it asks again");
    cluster.run(S(1));
    let (later, now) = (cluster.elapsed(), cluster.now);
    cluster.nodes[0].detector.on_message_lost(now, key(1));
    cluster.run(S(2));
    assert_eq!(asked(&cluster, later), None, "a message that asked for nothing changes nothing");
}

#[test]
fn a_mesh_of_two_notices_a_death_at_once_with_a_hub_and_in_time_without() {
    for (hub, within) in [(true, 10), (false, 70)] {
        let mut cluster = Cluster::of(2, 2);
        cluster.nodes[0].hub = hub;
        cluster.run(S(20));
        cluster.nodes[1].up = false;
        assert!(cluster.run_until(S(within), |c| c.state(0, 1) == Some(State::Dead)).is_some(), "hub {hub}");
    }
}

#[test]
fn a_suspect_hears_of_it_and_refutes() {
    let mut cluster = Cluster::of(3, 5);
    // Cut off for long enough to be suspected, and back before the suspicion ends.
    cluster.side.insert(2, 1);
    cluster.run_until(S(20), |c| c.state(0, 2) == Some(State::Suspect)).expect("nobody suspects it");
    cluster.side.clear();
    let since = cluster.elapsed();
    cluster.run_until(S(20), |c| c.agree(State::Alive, &[2])).expect("it was not cleared");
    cluster.run(S(40));
    assert!(cluster.agree(State::Alive, &[0, 1, 2, 3, 4]));
    assert!(cluster.saw(
        2,
        since,
        |e| matches!(e, MembershipEvent::Refuted { incarnation } if *incarnation > 0)
    ));
    assert!(!(0..5).any(|at| cluster.saw(at, S(0), |e| matches!(e, MembershipEvent::Dead(_)))));
}

#[test]
fn a_starved_node_takes_nobody_down() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(seed, 8);
        let since = cluster.elapsed();
        for _ in 0..40 {
            // The node is suspended almost always, and handles its messages late, after the timers.
            cluster.pause(0, Duration::from_millis(2900));
            cluster.run(Duration::from_millis(3000));
        }
        cluster.run(S(60));
        for at in 0..8 {
            let wrong =
                |e: &MembershipEvent| matches!(e, MembershipEvent::Dead(member) if member.key != key(0));
            assert!(!cluster.saw(at, since, wrong), "seed {seed}: {at} holds a healthy node dead");
        }
        assert!(cluster.agree(State::Alive, &[0, 1, 2, 3, 4, 5, 6, 7]), "seed {seed}");
        assert!(cluster.nodes[0].detector.stats().stalls > 0);
    }
}

#[test]
fn a_node_cut_off_for_30_seconds_comes_back_without_an_obituary() {
    for seed in 0..12 {
        let mut cluster = Cluster::of(seed, 8);
        cluster.nodes.iter_mut().for_each(|node| node.hub = true);
        cluster.run(S(30));
        cluster.nodes[5].hub = false;
        cluster.nodes[5].detector.on_hub_down(cluster.now, key(99), true);
        cluster.side.insert(5, 1);
        cluster.run(S(30));
        assert!(cluster.nodes[5].detector.is_isolated(), "seed {seed}");
        let since = cluster.elapsed();
        cluster.side.clear();
        cluster.run(S(60));
        let dead = cluster.told(5, since, State::Dead);
        assert!(dead.is_empty(), "seed {seed}: it told of {dead:?}");
        let suspect = cluster.told(5, since, State::Suspect);
        assert!(suspect.is_empty(), "seed {seed}: it accused {suspect:?}");
        for at in all_but(8, 5) {
            assert!(!cluster.saw(at, since, |e| matches!(e, MembershipEvent::Dead(m) if m.key != key(5))));
        }
        assert!(!cluster.nodes[5].detector.is_isolated());
        assert!(cluster.agree(State::Alive, &[0, 1, 2, 3, 4, 5, 6, 7]), "seed {seed}");
        assert!(
            !cluster.saw(5, S(0), |e| matches!(e, MembershipEvent::Dead(_))),
            "before 60 s nothing counts"
        );
    }
}

#[test]
fn verdicts_of_isolation_count_locally_after_a_minute_and_fall_with_the_first_exchange() {
    let mut cluster = Cluster::of(4, 4);
    cluster.side.insert(3, 1);
    cluster.run(S(110));
    assert!((0..3).all(|of| cluster.state(3, of) == Some(State::Dead)), "they count for itself");
    assert!(cluster.told(3, S(0), State::Dead).is_empty(), "but it doesn't say so");
    cluster.side.clear();
    cluster.run(S(60));
    assert!(cluster.agree(State::Alive, &[0, 1, 2, 3]));
    assert!(cluster.told(3, S(0), State::Dead).iter().all(|dead| *dead == key(3)));
}

#[test]
fn two_halves_that_held_each_other_dead_find_each_other_again() {
    for (seed, broadcast) in [(1, true), (2, false), (3, false)] {
        let mut cluster = Cluster::of(seed, 8);
        cluster.broadcast = broadcast;
        cluster.nodes.iter_mut().for_each(|node| node.hub = true);
        cluster.run(S(15));
        cluster.side.extend((4..8).map(|at| (at, 1)));
        cluster.run(S(120));
        for (at, of) in [(0, 5), (3, 7), (5, 0), (7, 2)] {
            assert_eq!(cluster.state(at, of), Some(State::Dead), "seed {seed}");
        }
        cluster.side.clear();
        let healed = cluster.run_until(S(60), |c| c.agree(State::Alive, &[0, 1, 2, 3, 4, 5, 6, 7]));
        assert!(healed.is_some(), "seed {seed}: still apart");
    }
}

#[test]
fn leaving_is_not_dying_and_is_forgotten_after_ten_minutes() {
    let mut cluster = Cluster::of(5, 6);
    let now = cluster.now;
    cluster.nodes[2].detector.leave(now);
    cluster.drain(2);
    cluster.run_until(S(5), |c| c.agree(State::Left, &[2])).expect("someone missed the goodbye");
    cluster.run(S(1));
    assert!(cluster.saw(2, S(0), |e| *e == MembershipEvent::Departed));
    cluster.nodes[2].up = false;
    cluster.run(S(300));
    assert!(cluster.agree(State::Left, &[2]));
    assert!(!(0..6).any(|at| {
        cluster.saw(at, S(0), |e| matches!(e, MembershipEvent::Suspect(_) | MembershipEvent::Dead(_)))
    }));
    cluster.run(S(400));
    for at in all_but(6, 2) {
        assert_eq!(cluster.state(at, 2), None, "{at} remembers it");
        assert!(cluster.saw(at, S(0), |e| *e == MembershipEvent::Reclaimed(key(2))));
    }
    assert_eq!(cluster.nodes[0].detector.live(), 5);
}

#[test]
fn who_left_can_join_again_without_a_restart() {
    let mut cluster = Cluster::of(6, 5);
    let now = cluster.now;
    cluster.nodes[4].detector.leave(now);
    cluster.drain(4);
    cluster.run(S(10));
    assert!(cluster.agree(State::Left, &[4]));
    let since = cluster.elapsed();
    cluster.join(4, &[1]);
    let is_back = |c: &Cluster| {
        c.agree(State::Alive, &[0, 1, 2, 3, 4]) && c.saw(4, since, |e| *e == MembershipEvent::Joined)
    };
    cluster.run_until(S(10), is_back).expect("not back");
}

#[test]
fn a_restart_is_an_event_and_the_new_process_outbids_the_old() {
    let mut cluster = Cluster::of(7, 5);
    let since = cluster.elapsed();
    cluster.restart(3, 9999);
    cluster.join(3, &[0]);
    cluster
        .run_until(S(10), |c| {
            all_but(5, 3)
                .iter()
                .filter_map(|at| c.nodes[*at].detector.member(&key(3)))
                .all(|member| member.boot == 9999 && member.incarnation > 0)
        })
        .expect("someone believes in the old process, or it didn't outbid it");
    for at in all_but(5, 3) {
        assert!(cluster.saw(at, since, |e| *e == MembershipEvent::Restarted { peer: key(3), boot: 9999 }));
    }
    cluster.run(S(30));
    assert!(cluster.agree(State::Alive, &[3]));
}

#[test]
fn a_dead_node_that_restarts_comes_back() {
    let mut cluster = Cluster::of(8, 5);
    cluster.nodes[3].up = false;
    cluster.run_until(S(60), |c| c.agree(State::Dead, &[3])).expect("not noticed");
    cluster.restart(3, 77);
    cluster.join(3, &[0]);
    cluster.run_until(S(10), |c| c.agree(State::Alive, &[0, 1, 2, 3, 4])).expect("not back");
}

#[test]
fn an_observer_sees_everyone_and_is_seen_by_nobody() {
    let mut cluster = Cluster::of(9, 4);
    let observer = cluster.add(true);
    cluster.join(observer, &[0]);
    cluster.run(S(120));
    assert!(cluster.saw(observer, S(0), |e| *e == MembershipEvent::Joined));
    assert_eq!(cluster.nodes[observer].detector.members().count(), 4);
    for at in 0..4 {
        assert_eq!(cluster.state(at, observer), None);
        assert_eq!(cluster.nodes[at].detector.live(), 4);
    }
    let named = |facts: &[crate::membership::table::Fact]| facts.iter().any(|fact| fact.key == key(observer));
    assert!(!cluster.sent.iter().any(|(.., message)| named(&message.facts)));
    assert!(!cluster.sent.iter().any(|(_, _, to, message)| {
        *to == observer && matches!(message.body, crate::membership::message::MessageBody::Ping { .. })
    }));
    assert_eq!(cluster.nodes[observer].detector.live(), 4, "nor does it count itself");
}

/// Found by the scenario `swarm` with seed 1011: only an observer had received a death fact that its author
/// retracted.
#[test]
fn an_observer_that_holds_a_member_dead_alone_has_it_refuted() {
    let mut cluster = Cluster::of(9, 4);
    let observer = cluster.add(true);
    cluster.join(observer, &[0]);
    cluster.run(S(60));
    let incarnation = cluster.nodes[observer].detector.member(&key(3)).unwrap().incarnation;
    let record = MemberRecord { incarnation, state: State::Dead, profile: None };
    let obituary = Fact { key: key(3), record, age_s: 0, accusers: Vec::new() };
    let told = MembershipMessage {
        epoch: 0,
        observer: false,
        body: MessageBody::Gossip,
        facts: vec![obituary],
        events: Vec::new(),
    };
    let now = cluster.now;
    // It asks the subject, which doesn't hear it at that time.
    cluster.side.insert(observer, 1);
    cluster.nodes[observer].detector.handle_message(now, key(0), Via::Datagram, &told.encode());
    cluster.drain(observer);
    cluster.run(S(2));
    assert_eq!(cluster.state(observer, 3), Some(State::Dead));
    cluster.side.clear();
    let health = cluster.nodes[3].detector.health();
    cluster
        .run_until(S(120), |c| c.state(c.nodes.len() - 1, 3) == Some(State::Alive))
        .expect("dead for ever");
    assert!(cluster.nodes[observer].detector.member(&key(3)).unwrap().incarnation > incarnation);
    assert_eq!(cluster.nodes[3].detector.health(), health, "nobody has probed it in vain");
}

/// Found by the scenario `laggard`: a refutation by the accused doesn't reach an observer.
#[test]
fn an_observer_asks_before_it_holds_a_suspect_dead() {
    let mut cluster = Cluster::of(9, 4);
    let observer = cluster.add(true);
    cluster.join(observer, &[0]);
    cluster.run(S(60));
    let tell = |cluster: &mut Cluster| {
        let incarnation = cluster.nodes[observer].detector.member(&key(3)).unwrap().incarnation;
        let record = MemberRecord { incarnation, state: State::Suspect, profile: None };
        let accusers = vec![key(0), key(1), key(2)];
        let accusation = Fact { key: key(3), record, age_s: 0, accusers };
        let body = MessageBody::Gossip;
        let told = MembershipMessage {
            epoch: 0,
            observer: false,
            body,
            facts: vec![accusation],
            events: Vec::new(),
        };
        let now = cluster.now;
        cluster.nodes[observer].detector.handle_message(now, key(0), Via::Datagram, &told.encode());
        assert_eq!(cluster.state(observer, 3), Some(State::Suspect));
    };
    tell(&mut cluster);
    let since = cluster.elapsed();
    // No other node has heard of the suspicion, so only the accused can refute it.
    cluster.run_until(S(30), |c| c.state(observer, 3) == Some(State::Alive)).expect("suspect for ever");
    cluster.run(S(60));
    assert!(!cluster.saw(observer, since, |e| matches!(e, MembershipEvent::Dead(_))));
    // A member that is really dead is still held dead: the others report it.
    tell(&mut cluster);
    cluster.nodes[3].up = false;
    cluster.run_until(S(40), |c| c.agree(State::Dead, &[3])).expect("alive for ever");
}

#[test]
fn a_machine_that_slept_asks_before_it_judges() {
    let mut cluster = Cluster::of(10, 5);
    cluster.nodes.iter_mut().for_each(|node| node.hub = true);
    cluster.run(S(10));
    cluster.pause(1, S(600));
    cluster.run(S(599));
    let since = cluster.elapsed();
    assert!(cluster.agree(State::Dead, &[1]) || cluster.state(0, 1) == Some(State::Dead));
    cluster.run(S(2));
    let now = cluster.now;
    cluster.nodes[1].detector.on_suspend(now);
    cluster.drain(1);
    cluster.run(S(60));
    assert!(cluster.told(1, since, State::Dead).iter().all(|dead| *dead == key(1)));
    assert!(!cluster.saw(1, since, |e| matches!(e, MembershipEvent::Dead(_))));
    assert!(cluster.agree(State::Alive, &[0, 1, 2, 3, 4]));
}

#[test]
fn a_user_event_reaches_everyone_once() {
    let mut cluster = Cluster::of(11, 8);
    cluster.nodes[0].detector.broadcast(b"hello").unwrap();
    cluster.run(S(10));
    for at in 1..8 {
        let heard = cluster.nodes[at].events.iter().filter(
            |(_, e)| matches!(e, MembershipEvent::User { origin, body } if *origin == key(0) && body == b"hello"),
        );
        assert_eq!(heard.count(), 1, "{at}");
    }
    assert!(!cluster.saw(0, S(0), |e| matches!(e, MembershipEvent::User { .. })));
}

#[test]
fn the_highest_epoch_travels_in_every_message() {
    let mut cluster = Cluster::of(12, 5);
    cluster.nodes[2].detector.note_epoch(41).unwrap();
    cluster.run(S(10));
    assert!(cluster.nodes.iter().all(|node| node.detector.highest_epoch() == 41));
}

#[test]
fn changed_metadata_reaches_everyone() {
    let mut cluster = Cluster::of(13, 6);
    let since = cluster.elapsed();
    cluster.nodes[1].detector.set_meta(cluster::meta("east"));
    cluster.run(S(10));
    for at in all_but(6, 1) {
        assert_eq!(cluster.nodes[at].detector.member(&key(1)).unwrap().meta.version(), "east");
        assert!(cluster.saw(at, since, |e| matches!(e, MembershipEvent::MetaChanged(m) if m.key == key(1))));
    }
}

#[test]
fn one_seed_gives_one_course_of_events() {
    let course = || {
        let mut cluster = Cluster::of(14, 6);
        let start = cluster.start;
        cluster.loss_percent = 20;
        cluster.nodes[1].up = false;
        cluster.run(S(60));
        let events: Vec<String> = cluster
            .nodes
            .iter()
            .flat_map(|node| node.events.iter())
            .map(|(at, event)| match event {
                MembershipEvent::Alive(m)
                | MembershipEvent::Suspect(m)
                | MembershipEvent::Dead(m)
                | MembershipEvent::Left(m) => {
                    format!("{at:?} {:?} {:?} {:?}", m.key, m.state, m.since - start)
                }
                other => format!("{at:?} {other:?}"),
            })
            .collect();
        (events, cluster.sent)
    };
    let (one, two) = (course(), course());
    assert_eq!(one.0, two.0);
    assert!(one.1 == two.1);
}
