//! The whole path machine, against a second one over a simulated wire, and alone against random events.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand_core::SeedableRng;

use super::config::{MAX_QUEUED_CONTROL, MAX_REFLEXIVE};
use super::*;
use harness::{A, APP_LEN, B, World, addr, hub, ms};

mod harness;
mod limits;
mod relays;

/// The cores take the time as an argument; a test needs some first instant.
#[expect(clippy::disallowed_methods, reason = "only differences matter")]
pub(super) fn origin() -> Instant {
    Instant::now()
}

const NEWEST: Freshness = Freshness { newest_on_leg: true, late: false };
const BEHIND: Freshness = Freshness { newest_on_leg: false, late: false };

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn data_flows_through_the_relay_at_once() {
    let mut world = World::relayed(1);
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(hub(1))));
    assert_eq!(world.nodes[A].paths.state().reason, PathReason::Checking);
    world.send_app(A);
    world.run(ms(30));
    assert_eq!(world.nodes[B].app_received.len(), 1);
}

#[test]
fn promotion_starts_by_itself() {
    let mut world = World::relayed(1);
    // Candidates go through the relay, then a challenge and its echo.
    world.run(ms(30 + 20));
    for (side, peer) in [(A, 2), (B, 1)] {
        let state = world.nodes[side].paths.state();
        assert_eq!((state.direct, state.addr, state.reason), (true, Some(addr(peer)), PathReason::Direct));
        assert_eq!((state.rtt, state.settled), (Some(ms(20)), true));
        assert_eq!(world.nodes[side].paths.routes(), Routes::one(Route::Direct(addr(peer))));
        assert_eq!(world.nodes[side].events.len(), 1);
    }
}

#[test]
fn candidates_are_told_until_they_are_acknowledged() {
    let mut world = World::relayed(1);
    world.link.relays_cut.insert(hub(1));
    world.run(secs(60));
    let told = |world: &World| {
        world.nodes[A].controls.iter().filter(|(_, _, c)| matches!(c, Control::Candidates { .. })).count()
    };
    assert!((5..=9).contains(&told(&world)), "{} times with back-off", told(&world));
    world.link.relays_cut.clear();
    world.run(secs(80));
    assert!(world.primary(A).is_some());
    let acknowledged = told(&world);
    world.run(secs(600));
    assert_eq!(told(&world), acknowledged);
}

#[test]
fn a_dead_direct_path_is_demoted_within_1_5_s_of_unanswered_sends() {
    for phase in 0..10 {
        let mut world = World::direct(phase);
        world.nodes[A].app_every = Some(ms(100));
        world.run(secs(10) + ms(phase * 13));
        world.link.cut = [true; 2];
        let cut = world.now;
        world.run(ms(1_100));
        let routes = world.nodes[A].paths.routes();
        assert_eq!(routes.len(), 2, "in doubt both carry it");
        assert_eq!(world.nodes[A].paths.state().reason, PathReason::Suspect);
        world.run(ms(500));
        assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(hub(1))));
        assert_eq!(world.nodes[A].paths.state().reason, PathReason::PathLost);
        let (at, event) = world.nodes[A].events.last().unwrap();
        assert_eq!((event.kind, event.route), (PathEventKind::Demoted, Some(Route::Relay(hub(1)))));
        // The first unanswered send is at most one interval and a round trip after the cut.
        assert!(*at - cut <= ms(1_500 + 100 + 20));
        let delivered = world.nodes[B].app_received.len();
        world.run(secs(1));
        assert!(world.nodes[B].app_received.len() >= delivered + 9, "the relay delivers");
        world.link.cut = [false; 2];
        world.run(secs(35));
        assert_eq!(world.primary(A), Some(addr(2)), "it returns when it answers");
        assert_eq!(world.primary(B), Some(addr(1)));
    }
}

#[test]
fn a_lost_keepalive_alone_never_demotes() {
    let mut world = World::direct(1);
    world.link.cut = [true; 2];
    world.run(secs(600));
    for side in [A, B] {
        assert!(world.nodes[side].paths.state().direct);
        assert_eq!(world.nodes[side].paths.stats().demotions, 0);
    }
}

#[test]
fn a_short_outage_never_demotes() {
    for relay_delay in [30, 5] {
        let mut world = World::direct(1);
        world.link.relay_delay = ms(relay_delay);
        world.nodes[A].app_every = Some(ms(50));
        // Short outages leave no answer missing for long. Long ones raise a doubt, and end before it is
        // resolved.
        for outage in [200, 200, 400, 600, 800, 900].repeat(4) {
            world.link.cut = [true; 2];
            world.run(ms(outage));
            world.link.cut = [false; 2];
            world.run(secs(5));
        }
        assert_eq!(world.nodes[A].paths.stats().demotions, 0, "relay at {relay_delay} ms");
    }
}

#[test]
fn two_idle_peers_do_not_bounce_keepalives() {
    let mut world = World::direct(1);
    let before = [A, B].map(|side| world.nodes[side].datagrams);
    world.run(secs(600));
    for side in [A, B] {
        let sent = world.nodes[side].datagrams - before[side];
        assert!((24..=41).contains(&sent), "{sent} datagrams in ten minutes");
        assert_eq!(world.nodes[side].paths.stats().answers, 0);
    }
}

#[test]
fn no_keepalive_is_sent_while_traffic_flows() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(secs(5));
    world.run(secs(600));
    for side in [A, B] {
        assert_eq!(world.nodes[side].paths.stats().keepalives, 0, "side {side}");
    }
    // B's application answers at once. That answer is data too, and A has no data of its own to answer
    // it with.
    assert_eq!(world.nodes[B].paths.stats().answers, 0);
    assert!(world.nodes[A].paths.stats().answers <= 121);
}

#[test]
fn a_path_is_measured_while_data_flows_and_not_for_a_probe_now_and_then() {
    let challenges = |every| {
        let mut world = World::direct(1);
        world.nodes[A].app_every = Some(every);
        world.run(secs(60));
        let sent = |world: &World| {
            world.nodes[A].controls.iter().filter(|(.., c)| matches!(c, Control::Challenge { .. })).count()
        };
        let before = sent(&world);
        world.run(secs(300));
        sent(&world) - before
    };
    // Datagrams count in both directions, and B answers each: 0.8 datagrams a second, and 4.
    assert_eq!(challenges(ms(2_500)), 0);
    let flowing = challenges(ms(500));
    assert!((29..=62).contains(&flowing), "{flowing} challenges in five minutes");
}

#[test]
fn one_way_data_is_answered_and_keeps_its_path() {
    let mut world = World::direct(1);
    world.nodes[B].replies = false;
    world.nodes[A].app_every = Some(ms(20));
    world.run(secs(60));
    assert_eq!(world.nodes[A].events.len(), 1, "promoted, and nothing since");
    let answers = world.nodes[B].paths.stats().answers;
    assert!((200..=260).contains(&answers), "{answers} answers in a minute");
}

#[test]
fn probes_passing_while_data_is_dropped_save_no_path() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(50));
    world.run(secs(5));
    world.link.data_dies = true;
    world.run(ms(2_000));
    assert_eq!(world.nodes[A].paths.state().reason, PathReason::DataLost);
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(hub(1))));
    world.run(secs(14));
    assert_eq!(world.primary(A), None, "its echo alone doesn't let it return at once");
    world.link.data_dies = false;
    world.run(secs(40));
    assert_eq!(world.primary(A), Some(addr(2)));
}

#[test]
fn a_late_packet_never_moves_the_endpoint() {
    let mut world = World::direct(1);
    world.with(A, |paths, now| {
        for _ in 0..100 {
            paths.on_authentic(now, Route::Direct(addr(77)), BEHIND, 1_200, true);
        }
        assert_eq!(paths.routes(), Routes::one(Route::Direct(addr(2))));
        assert_eq!(paths.stats().late_sources, 100);
    });
    world.run(secs(10));
    assert!(!world.nodes[A].bytes_to.contains_key(&Route::Direct(addr(77))));
    // The same after a move, when the old address is known and a datagram from it arrives late.
    world.nodes[B].source = addr(3);
    world.nodes[B].reached_at = vec![addr(3)];
    world.with(B, Paths::on_network_change);
    world.run(ms(200));
    assert_eq!(world.primary(A), Some(addr(3)));
    world.with(A, |paths, now| paths.on_authentic(now, Route::Direct(addr(2)), BEHIND, 1_200, true));
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Direct(addr(3))));
    world.run(secs(10));
    assert_eq!((world.primary(A), world.nodes[A].paths.stats().moves), (Some(addr(3)), 1));
}

#[test]
fn a_new_source_gets_at_most_three_times_its_bytes() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(10));
    world.run(secs(1));
    let victim = Route::Direct(addr(66));
    for copied in [60, 1_200] {
        world.with(A, |paths, now| {
            paths.on_authentic(now, victim, NEWEST, copied, true);
            paths.on_control(now, victim, NEWEST, Control::Moved);
        });
        world.run(secs(60));
    }
    let sent = world.nodes[A].bytes_to[&victim];
    assert!((APP_LEN..=3 * 1_260).contains(&sent), "{sent} bytes");
    assert_eq!(world.primary(A), Some(addr(2)));
    assert!(world.nodes[A].paths.stats().amplification_refused > 0);
}

#[test]
fn a_roamed_peer_is_followed_within_a_round_trip() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(20));
    world.run(secs(2));
    world.nodes[B].source = addr(3);
    world.nodes[B].reached_at = vec![addr(3)];
    world.with(B, Paths::on_network_change);
    // MOVED arrives after 10 ms; a round trip is 20 ms.
    world.run(ms(10 + 20));
    assert_eq!(world.primary(A), Some(addr(3)));
    let (_, event) = world.nodes[A].events.last().unwrap();
    assert_eq!((event.kind, event.reason), (PathEventKind::Moved, PathReason::PeerMoved));
    world.run(secs(5));
    assert_eq!(world.nodes[A].paths.routes().len(), 1);
    assert_eq!(world.nodes[B].paths.stats().demotions, 0, "the mover's path stands");
}

#[test]
fn a_mover_is_followed_although_every_direct_moved_is_lost() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(20));
    world.run(secs(2));
    world.nodes[B].source = addr(3);
    world.nodes[B].reached_at = vec![addr(3)];
    world.link.cut[B] = true;
    world.with(B, Paths::on_network_change);
    world.run(ms(50));
    assert_eq!(world.nodes[A].paths.routes().len(), 2, "told through the relay, so in doubt at once");
    world.link.cut[B] = false;
    world.run(ms(700));
    assert_eq!(world.primary(A), Some(addr(3)));
}

#[test]
fn two_filters_are_opened_from_both_sides() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for side in [A, B] {
            world.nodes[side].filtered = true;
            let own = [world.nodes[side].source];
            world.with(side, |paths, now| {
                paths.set_relays(now, &[hub(1)]);
                paths.set_local_candidates(now, &own);
            });
        }
        // One side begins after the other's first checks are over.
        world.with(A, Paths::on_established);
        world.run(ms(seed * 100));
        world.with(B, Paths::on_established);
        world.run(secs(1));
        assert_eq!((world.primary(A), world.primary(B)), (Some(addr(2)), Some(addr(1))), "seed {seed}");
    }
}

#[test]
fn a_mover_that_the_others_filter_keeps_out_is_reached_through_its_candidates() {
    let mut world = World::direct(1);
    world.nodes[A].filtered = true;
    world.nodes[A].app_every = Some(ms(20));
    world.run(secs(2));
    world.nodes[B].source = addr(3);
    world.nodes[B].reached_at = vec![addr(3)];
    world.with(B, |paths, now| {
        paths.on_network_change(now);
        paths.set_local_candidates(now, &[addr(3)]);
    });
    let before = world.nodes[B].app_received.len();
    world.run(ms(500));
    assert_eq!(world.primary(A), Some(addr(3)));
    assert!(world.nodes[B].app_received.len() >= before + 20, "the relay carried copies meanwhile");
    assert_eq!(world.nodes[A].paths.stats().demotions, 0);
}

#[test]
fn a_reserve_takes_over_before_the_relay_has_to() {
    let mut world = World::direct(1);
    world.nodes[B].reached_at = vec![addr(2), addr(4)];
    world.with(A, |paths, now| paths.add_candidates(now, &[addr(4)]));
    world.nodes[A].app_every = Some(ms(20));
    world.run(secs(5));
    world.nodes[B].reached_at = vec![addr(4)];
    world.nodes[B].source = addr(4);
    world.run(ms(1_100));
    assert_eq!((world.primary(A), world.nodes[A].paths.stats().demotions), (Some(addr(4)), 0));
}

#[test]
fn a_rebinding_that_nobody_announced_is_followed_when_the_old_address_stays_silent() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(20));
    world.nodes[B].app_every = Some(ms(20));
    world.run(secs(2));
    world.nodes[B].source = addr(3);
    world.nodes[B].reached_at = vec![addr(3)];
    world.run(ms(200));
    assert_eq!(
        world.nodes[A].paths.routes().iter().collect::<Vec<_>>(),
        [2, 3].map(|n| Route::Direct(addr(n)))
    );
    world.run(ms(150));
    assert_eq!(world.primary(A), Some(addr(3)));
    assert_eq!(world.nodes[A].paths.stats().demotions, 0);
}

#[test]
fn an_on_path_attacker_cannot_keep_the_path() {
    let mut world = World::direct(1);
    for side in [A, B] {
        world.nodes[side].app_every = Some(ms(50));
    }
    world.run(secs(2));
    // The attacker's copies always arrive first, so B's own datagrams only ever arrive as duplicates.
    world.link.mirror = Some(addr(66));
    world.run(secs(120));
    assert_eq!(world.primary(A), Some(addr(2)));
    let stats = *world.nodes[A].paths.stats();
    assert_eq!((stats.moves, stats.demotions), (0, 0));
    // If the attacker cuts the path too, it can hold the path only while it forwards.
    world.nodes[B].reached_at.clear();
    world.run(secs(10));
    assert_eq!(world.primary(A), Some(addr(66)));
    world.nodes[B].reached_at = vec![addr(2)];
    world.link.mirror = None;
    world.run(secs(4));
    assert_eq!(world.primary(A), Some(addr(2)));
}

#[test]
fn flapping_has_hysteresis() {
    let mut world = World::direct(1);
    for side in [A, B] {
        world.nodes[side].app_every = Some(ms(50));
    }
    for _ in 0..60 {
        world.link.cut = [true; 2];
        world.run(secs(4));
        world.link.cut = [false; 2];
        world.run(secs(4));
    }
    let promotions = world.count(A, PathEventKind::Promoted);
    assert!((4..=16).contains(&promotions), "{promotions} promotions in 60 flaps");
    world.run(secs(100));
    assert_eq!(world.primary(A), Some(addr(2)), "a path that is good again is used again");
}

#[test]
fn a_one_way_path_is_not_promoted() {
    let mut world = World::relayed(1);
    world.link.cut = [true, false];
    world.run(secs(300));
    for side in [A, B] {
        let state = world.nodes[side].paths.state();
        assert_eq!((state.direct, state.reason, state.settled), (false, PathReason::NoAnswer, true));
        assert_eq!(world.count(side, PathEventKind::Promoted), 0);
    }
    assert!(world.nodes[A].paths.selection.candidates.get(addr(2)).unwrap().heard.is_some(), "A does hear B");
}

#[test]
fn checks_that_nobody_answers_are_bounded_in_rate() {
    let mut world = World::relayed(1);
    world.link.cut = [true; 2];
    let told: Vec<_> = (100..116).map(addr).collect();
    world.with(B, |paths, now| paths.set_local_candidates(now, &told));
    // What the peer sends pays for the checks of its addresses.
    world.nodes[B].app_every = Some(secs(5));
    world.run(secs(1));
    let quick = |world: &World| {
        world.nodes[A].paths.selection.candidates.iter().filter(|known| known.is_checked()).count()
    };
    assert_eq!(quick(&world), config::MAX_CHECKS_IN_FLIGHT);
    assert!(!world.nodes[A].paths.state().settled);
    world.run(secs(29));
    assert_eq!(world.nodes[A].paths.state().reason, PathReason::NoAnswer);
    let before = world.nodes[A].paths.stats().challenges;
    world.run(secs(600));
    let rate = world.nodes[A].paths.stats().challenges - before;
    assert!(
        (16 * 15..=16 * 26 + 30).contains(&rate),
        "{rate} challenges to 16 silent addresses in ten minutes"
    );
}

#[test]
fn candidates_are_bounded() {
    let mut world = World::direct(1);
    let many: Vec<_> = (10..60).map(addr).collect();
    world.with(A, |paths, now| {
        paths.add_candidates(now, &many);
        for host in 100..250 {
            paths.on_authentic(now, Route::Direct(addr(host)), NEWEST, 100, false);
        }
        let addrs = (60..76).map(addr).collect();
        paths.on_control(now, Route::Relay(hub(1)), NEWEST, Control::Candidates { r#gen: 77, addrs });
        assert_eq!(paths.selection.candidates.iter().count(), MAX_CANDIDATES);
        let seen = paths
            .selection
            .candidates
            .iter()
            .filter(|known| known.origin == candidate::CandidateOrigin::Seen)
            .count();
        assert!(seen <= MAX_REFLEXIVE);
        assert!(paths.stats().candidates_refused > 0);
    });
    assert_eq!(world.primary(A), Some(addr(2)), "what is in use stays");
}

#[test]
fn the_queue_of_control_messages_is_bounded() {
    let mut paths = World::direct(1).nodes.into_iter().next().unwrap().paths;
    let now = origin();
    for n in 0..1_000u64 {
        let data = n.to_le_bytes();
        paths.on_control(now, Route::Relay(hub(1)), NEWEST, Control::Challenge { data });
    }
    assert_eq!(std::iter::from_fn(|| paths.poll_control()).count(), MAX_QUEUED_CONTROL);
    assert_eq!(paths.stats().control_dropped, 1_000 - MAX_QUEUED_CONTROL as u64);
}

#[test]
fn a_peer_learned_only_from_its_challenge_is_direct() {
    // B is behind a NAT that maps its datagrams to A to an address that B doesn't know.
    let mut world = World::relayed(1);
    world.nodes[B].source = addr(50);
    world.nodes[B].reached_at = vec![addr(50)];
    world.run(secs(1));
    assert_eq!(world.primary(A), Some(addr(50)));
    assert_eq!(world.primary(B), Some(addr(1)));
}

#[test]
fn a_challenger_learns_where_the_peer_sees_it_and_only_from_an_echo() {
    let mut world = World::relayed(1);
    world.nodes[B].source = addr(50);
    world.nodes[B].reached_at = vec![addr(50)];
    world.run(secs(1));
    assert_eq!(world.with(A, |paths, _| paths.poll_observed()), Some(addr(1)));
    assert_eq!(world.with(B, |paths, _| paths.poll_observed()), Some(addr(50)));
    world.run(secs(10));
    assert_eq!(world.with(B, |paths, _| paths.poll_observed()), None, "the same again is no news");
    for route in [Route::Direct(addr(50)), Route::Direct(addr(99)), Route::Relay(hub(1))] {
        let observed = world.with(A, |paths, now| {
            paths.on_authentic(now, route, NEWEST, 60, false);
            let data = acknowledgement(77);
            paths.on_control(now, route, NEWEST, Control::Response { data, observed: Some(addr(66)) });
            paths.poll_observed()
        });
        assert_eq!(observed, None, "{route:?} echoed nothing");
    }
    assert!(
        world.nodes[A].controls.iter().all(|(_, route, control)| match control {
            Control::Response { observed, .. } => *observed == route.addr(),
            _ => true,
        }),
        "through a relay there is nothing to see"
    );
}

#[test]
fn each_round_of_punches_is_told_and_slow_checks_are_not() {
    let mut world = World::relayed(1);
    world.link.cut = [true; 2];
    let mut told = Vec::new();
    for second in 0..600 {
        world.run(secs(1));
        if world.with(A, |paths, _| paths.poll_punched()) {
            told.push(second);
        }
    }
    assert_eq!(told, [0, 1, 3, 4, 7, 13, 25]);
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(100));
    world.with(A, |paths, _| paths.poll_punched());
    world.run(secs(60));
    assert!(!world.with(A, |paths, _| paths.poll_punched()), "a path that works is measured, not punched");
    world.link.cut = [true; 2];
    world.run(ms(1_100));
    assert!(world.with(A, |paths, _| paths.poll_punched()), "one in doubt may be lost with our address");
}

#[test]
fn every_relayed_peer_has_its_reason() {
    let mut world = World::new(1);
    let reason = |world: &World| world.nodes[A].paths.state().reason.as_str();
    assert_eq!(reason(&world), "no_relay");
    world.with(A, |paths, now| paths.set_relays(now, &[hub(1)]));
    world.with(B, |paths, now| paths.set_relays(now, &[hub(1)]));
    assert_eq!(reason(&world), "starting");
    world.establish();
    assert_eq!(reason(&world), "checking");
    world.run(secs(4));
    assert_eq!(reason(&world), "no_candidates");
    let state = world.nodes[A].paths.state();
    assert_eq!((state.settled, state.rtt), (true, Some(ms(60))), "the relay was measured");
    world.with(A, |paths, now| paths.add_candidates(now, &[addr(9)]));
    assert_eq!(reason(&world), "checking");
    world.run(secs(5));
    assert_eq!((reason(&world), world.nodes[A].paths.state().settled), ("no_answer", true));
}

#[test]
fn without_a_relay_candidates_are_used_at_once() {
    let mut world = World::new(1);
    world.with(A, |paths, now| paths.add_candidates(now, &[addr(2)]));
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Direct(addr(2))));
    assert!(world.nodes[A].paths.take(&Route::Direct(addr(2)), 1_500));
    assert_eq!(world.nodes[A].paths.state().addr, Some(addr(2)));
    world.establish();
    world.run(ms(30));
    assert_eq!(world.primary(A), Some(addr(2)));
    world.run(ms(30));
    assert_eq!(world.primary(B), Some(addr(1)), "learned from where it came");
    world.nodes[A].app_every = Some(ms(50));
    world.link.cut = [true; 2];
    world.run(secs(10));
    assert_eq!(world.nodes[A].paths.routes().first(), Some(Route::Direct(addr(2))), "nothing else to use");
    world.link.cut = [false; 2];
    world.run(secs(30));
    assert_eq!(world.primary(A), Some(addr(2)));
}

#[test]
fn without_a_relay_each_candidate_gets_its_turn() {
    let mut world = World::new(1);
    world.with(A, |paths, now| paths.add_candidates(now, &[7, 8, 9, 2].map(addr)));
    let mut tried = std::collections::BTreeSet::new();
    for _ in 0..4 {
        tried.extend(world.nodes[A].paths.routes());
        world.run(secs(1));
    }
    assert_eq!(tried.len(), 4);
    world.run(secs(3_600));
    assert_eq!(world.nodes[A].paths.poll_timeout(), None, "not for ever");
}

#[test]
fn a_faster_relay_beats_a_direct_path_by_a_wide_margin_only() {
    let mut world = World::relayed(1);
    world.link.direct_delay = ms(300);
    world.nodes[A].app_every = Some(ms(100));
    world.run(secs(60));
    let state = world.nodes[A].paths.state();
    assert_eq!((state.direct, state.reason), (false, PathReason::RelayFaster));
    assert!(state.rtt.unwrap() < ms(70));
    world.link.direct_delay = ms(20);
    world.run(secs(1_200));
    assert_eq!(world.primary(A), Some(addr(2)), "and it gives back");
    let mut close = World::relayed(1);
    close.link.direct_delay = ms(60);
    close.nodes[A].app_every = Some(ms(100));
    close.run(secs(120));
    assert_eq!(close.primary(A), Some(addr(2)), "twice the relay's round trip is no reason");
}

#[test]
fn a_slow_path_is_found_and_costs_no_storm_of_challenges() {
    let mut world = World::relayed(1);
    (world.link.direct_delay, world.link.relay_delay) = (ms(450), ms(400));
    world.run(secs(30));
    for side in [A, B] {
        assert!(world.primary(side).is_some());
        let challenges = world.nodes[side].paths.stats().challenges;
        assert!(challenges < 20, "{challenges} challenges");
    }
}

#[test]
fn being_heard_does_not_speed_up_checks_without_bound() {
    let mut world = World::relayed(1);
    world.link.cut = [true; 2];
    world.run(secs(1));
    let before = world.nodes[A].paths.stats().challenges;
    for _ in 0..6_000 {
        world.with(A, |paths, now| paths.on_authentic(now, Route::Direct(addr(2)), NEWEST, 1_000, false));
        world.run(ms(10));
    }
    let challenges = world.nodes[A].paths.stats().challenges - before;
    assert!((60..=100).contains(&challenges), "{challenges} challenges in a minute");
}

#[test]
fn a_named_address_is_answered_whatever_was_sent_there_before() {
    let mut world = World::relayed(1);
    world.link.cut = [true, false];
    world.run(secs(20));
    world.with(A, |paths, now| {
        let (route, data) = (Route::Direct(addr(2)), [7; 8]);
        paths.on_authentic(now, route, NEWEST, 39, false);
        paths.on_control(now, route, NEWEST, Control::Challenge { data });
    });
    let (at, _, _) = world.nodes[A]
        .controls
        .iter()
        .rfind(|(_, _, c)| *c == Control::Response { data: [7; 8], observed: Some(addr(2)) })
        .unwrap();
    assert_eq!(*at, world.now);
}

#[test]
fn a_lossy_path_is_not_given_up_for_its_losses() {
    let mut demotions = 0;
    for seed in 0..10 {
        let mut world = World::direct(seed);
        world.link.loss_percent = 20;
        world.nodes[A].app_every = Some(ms(100));
        world.run(secs(60));
        demotions += world.nodes[A].paths.stats().demotions;
        assert!(world.nodes[A].paths.stats().demotions <= 1, "seed {seed}");
    }
    assert!(demotions <= 2, "{demotions} in ten minutes at 20 % loss each way");
}

#[test]
fn the_better_of_two_direct_paths_is_used_without_taking_turns() {
    let mut world = World::direct(1);
    world.nodes[B].reached_at = vec![addr(2), addr(4)];
    world.with(A, |paths, now| paths.add_candidates(now, &[addr(4)]));
    world.nodes[A].app_every = Some(ms(100));
    world.run(secs(300));
    assert_eq!(world.count(A, PathEventKind::Promoted), 1, "equals don't take turns");
}

#[test]
fn the_keepalive_adapts_to_mappings_that_die_while_idle() {
    let mut world = World::direct(1);
    let first = world.nodes[A].paths.selection.direct.keepalive.interval();
    world.link.cut = [true; 2];
    world.run(secs(60));
    world.nodes[A].app_every = Some(ms(100));
    world.run(secs(3));
    assert!(world.nodes[A].paths.selection.direct.keepalive.interval() < first);
    let mut steady = World::direct(1);
    steady.run(secs(3_600));
    assert!(steady.nodes[A].paths.selection.direct.keepalive.interval() > first);
    assert!(steady.nodes[A].paths.selection.direct.keepalive.interval() <= config::KEEPALIVE_RANGE.1);
}

#[test]
fn losing_the_last_route_is_an_event() {
    let mut world = World::relayed(1);
    world.link.cut = [true; 2];
    world.with(A, |paths, now| paths.set_relays(now, &[]));
    assert!(world.nodes[A].paths.routes().is_empty());
    let (_, event) = world.nodes[A].events.last().unwrap();
    assert_eq!((event.kind, event.route, event.reason), (PathEventKind::Lost, None, PathReason::NoRelay));
}

#[test]
fn a_closed_session_leaves_nothing_running() {
    let mut world = World::direct(1);
    world.with(A, Paths::on_closed);
    assert_eq!(world.nodes[A].paths.poll_timeout(), None);
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(hub(1))));
    world.with(A, Paths::on_established);
    world.run(secs(1));
    assert_eq!(world.primary(A), Some(addr(2)));
}

#[test]
fn a_restarted_peer_may_begin_its_generations_anew() {
    let mut world = World::direct(1);
    world.with(B, |paths, now| paths.set_local_candidates(now, &[addr(2), addr(3)]));
    world.run(secs(1));
    let tell = |world: &mut World, r#gen: u32, host: u8| {
        world.with(A, |paths, now| {
            let told = Control::Candidates { r#gen, addrs: vec![addr(host)] };
            paths.on_control(now, Route::Relay(hub(1)), NEWEST, told);
            paths.selection.candidates.get(addr(host)).is_some()
        })
    };
    assert!(!tell(&mut world, 1, 40), "an older list that comes late");
    assert_eq!(world.nodes[A].paths.stats().stale_candidates, 1);
    world.with(A, Paths::on_established);
    assert!(tell(&mut world, 1, 40));
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let run = || {
        let mut world = World::relayed(7);
        let start = world.now;
        world.link.loss_percent = 10;
        world.nodes[A].app_every = Some(ms(70));
        world.run(secs(120));
        let log = world.nodes.iter().flat_map(|node| &node.controls);
        log.map(|(at, route, control)| (*at - start, *route, control.encode())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

/// Whether a route leads to an address that our side hasn't named: [`Step::Add`] names those from 100 on.
fn is_others(route: &Route) -> bool {
    route.addr().is_some_and(|known| (0..100).map(addr).any(|other| other == known))
}

fn any_route() -> impl Strategy<Value = Route> {
    prop_oneof![(0u8..40).prop_map(|n| Route::Direct(addr(n))), (0u8..3).prop_map(|n| Route::Relay(hub(n)))]
}

fn any_control() -> impl Strategy<Value = Control> {
    prop_oneof![
        any::<[u8; 8]>().prop_map(|data| Control::Challenge { data }),
        any::<[u8; 8]>().prop_map(|data| Control::Response { data, observed: None }),
        Just(Control::Keepalive),
        (0u32..5, proptest::collection::vec(0u8..40, 0..20)).prop_map(|(r#gen, hosts)| Control::Candidates {
            r#gen,
            addrs: hosts.into_iter().map(addr).collect()
        }),
        Just(Control::Moved),
        Just(Control::Close),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Relays(u8),
    Local(u8),
    Add(u8),
    Established,
    Closed,
    Authentic(Route, Freshness, usize, bool),
    Control(Route, Freshness, Control),
    Echo(usize),
    Sent(bool),
    NetworkChange,
    Wait(u64),
}

fn any_freshness() -> impl Strategy<Value = Freshness> {
    (any::<bool>(), any::<bool>()).prop_map(|(newest_on_leg, late)| Freshness { newest_on_leg, late })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0u8..3).prop_map(Step::Relays),
        1 => (0u8..20).prop_map(Step::Local),
        1 => (0u8..40).prop_map(Step::Add),
        1 => Just(Step::Established),
        1 => Just(Step::Closed),
        5 => (any_route(), any_freshness(), 0usize..1_500, any::<bool>())
            .prop_map(|(route, freshness, len, app)| Step::Authentic(route, freshness, len, app)),
        5 => (any_route(), any_freshness(), any_control()).prop_map(|(r, f, c)| Step::Control(r, f, c)),
        8 => (0usize..8).prop_map(Step::Echo),
        5 => any::<bool>().prop_map(Step::Sent),
        1 => Just(Step::NetworkChange),
        8 => (0u64..5_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_the_bounds(seed in any::<u64>(), steps in proptest::collection::vec(any_step(), 0..120)) {
        let mut now = origin();
        let mut paths = Paths::new(PathConfig::default(), now, crate::rt::Rng::seed_from_u64(seed));
        let mut open: Vec<(Route, [u8; 8])> = Vec::new();
        // Bytes of the peer, and bytes to addresses that only the peer has named or shown and that haven't echoed.
        let (mut received, mut sent) = (0, 0);
        let mut echoed = std::collections::BTreeSet::<Route>::new();
        for step in steps {
            match step {
                Step::Relays(n) => paths.set_relays(now, &[hub(n), hub(n + 1)][..usize::from(n)]),
                Step::Local(n) => paths.set_local_candidates(now, &(0..n).map(addr).collect::<Vec<_>>()),
                Step::Add(n) => paths.add_candidates(now, &[addr(n + 100)]),
                Step::Established => {
                    received += config::HANDSHAKE_BYTES;
                    paths.on_established(now);
                }
                Step::Closed => paths.on_closed(now),
                Step::Authentic(route, freshness, len, app) => {
                    received += len;
                    paths.on_authentic(now, route, freshness, len, app);
                }
                Step::Control(route, freshness, control) => {
                    let len = config::SEAL_OVERHEAD + control.encoded_len();
                    received += len;
                    paths.on_authentic(now, route, freshness, len, false);
                    paths.on_control(now, route, freshness, control);
                }
                Step::Echo(index) => {
                    if !open.is_empty() {
                        let (route, data) = open.remove(index % open.len());
                        received += 39;
                        echoed.insert(route);
                        paths.on_authentic(now, route, NEWEST, 39, false);
                        paths.on_control(now, route, NEWEST, Control::Response { data, observed: None });
                    }
                }
                Step::Sent(app) => {
                    let routes = paths.routes().filter(|route| paths.take(route, 300));
                    sent += 300 * routes.iter().filter(|to| is_others(to) && !echoed.contains(to)).count();
                    if app {
                        paths.on_sent(now, routes);
                    }
                }
                Step::NetworkChange => paths.on_network_change(now),
                Step::Wait(wait) => {
                    let until = now + ms(wait);
                    while let Some(at) = paths.poll_timeout().filter(|at| *at <= until) {
                        now = now.max(at);
                        paths.handle_timeout(now);
                        prop_assert!(paths.poll_timeout().is_none_or(|at| at > now));
                    }
                    now = until;
                }
            }
            prop_assert!(paths.selection.candidates.iter().count() <= MAX_CANDIDATES);
            prop_assert!(paths.outbox.queued_control() <= MAX_QUEUED_CONTROL);
            while let Some((route, control)) = paths.poll_control() {
                if is_others(&route) && !echoed.contains(&route) {
                    sent += config::SEAL_OVERHEAD + control.encoded_len();
                }
                if let Control::Challenge { data } = control {
                    open.push((route, data));
                }
            }
            prop_assert!(sent <= 3 * received, "{} bytes for {}", sent, received);
            while paths.poll_event().is_some() {}
            let state = paths.state();
            if let (true, Some(addr)) = (state.direct, state.addr) {
                prop_assert!(paths.selection.candidates.get(addr).is_some_and(|known| known.is_proven()));
                let proven = |route: Route| route == Route::Direct(addr) || matches!(route, Route::Relay(_));
                prop_assert!(paths.routes().iter().any(proven));
            }
            if !paths.selection.relays.is_empty() {
                prop_assert!(!paths.routes().is_empty(), "reachability is never zero");
            }
        }
    }
}
