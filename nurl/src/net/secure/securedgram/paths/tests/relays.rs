//! Relays beside a direct path and beside each other: which one carries the data, and where its answers go.

use super::*;

/// Two peers without a session, at two hubs.
fn two_hubs() -> World {
    let mut world = World::new(1);
    for side in [A, B] {
        world.with(side, |paths, now| paths.set_relays(now, &[hub(1), hub(2)]));
    }
    world
}

#[test]
fn the_receiver_of_a_transfer_answers_where_its_data_comes_from() {
    for phase in 0..10 {
        let mut world = World::direct(phase);
        world.nodes[A].app_every = Some(ms(20));
        world.nodes[B].replies = false;
        world.run(secs(5) + ms(phase * 7));
        world.link.cut = [true; 2];
        let cut = world.now;
        world.run(ms(50));
        // Its acknowledgements were answered by further data, so B has no evidence of its own yet.
        world.nodes[B].replies = true;
        world.run(ms(1_050));
        let mut answers = world.nodes[A].app_received.iter();
        let first = answers.find(|(_, route)| *route == Route::Relay(hub(1)));
        let (at, _) = first.expect("answered while the path is in doubt");
        // A's doubt begins 0.6 s after its first unanswered send; then it is one round trip through the relay.
        assert!(*at - cut <= ms(600 + 20 + 20 + 2 * 30 + 20), "{:?} after the cut", *at - cut);
        let doubts = world.nodes[B].paths.state().reason == PathReason::Suspect;
        assert!(doubts, "B doubts the path before its own answers have shown it");
    }
}

#[test]
fn data_through_a_relay_beside_a_path_that_works_is_no_doubt() {
    let mut world = World::direct(1);
    world.nodes[A].app_every = Some(ms(100));
    world.run(secs(5));
    for _ in 0..50 {
        let fresh = Freshness { newest_on_leg: true, late: false };
        world.with(B, |paths, now| paths.on_authentic(now, Route::Relay(hub(1)), fresh, APP_LEN, true));
        assert_eq!(world.nodes[B].paths.state().reason, PathReason::Direct);
        world.run(ms(100));
    }
}

#[test]
fn the_standby_relay_takes_over_within_2_s() {
    let mut world = two_hubs();
    world.establish();
    world.nodes[A].app_every = Some(ms(100));
    world.run(secs(5));
    let home = world.nodes[A].paths.routes();
    assert_eq!(home.len(), 1);
    let Some(Route::Relay(dead)) = home.first() else { panic!("relayed") };
    world.link.relays_cut.insert(dead);
    world.run(ms(1_100));
    let before = world.nodes[B].app_received.len();
    world.run(ms(900));
    assert!(world.nodes[B].app_received.len() >= before + 8);
    world.run(secs(1));
    let other = if dead == hub(1) { hub(2) } else { hub(1) };
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(other)));
}

#[test]
fn answers_follow_the_data_to_another_relay() {
    let mut world = two_hubs();
    world.link.relays_behind.insert(hub(2), ms(20));
    world.establish();
    world.nodes[A].app_every = Some(ms(20));
    world.nodes[B].replies = false;
    world.run(secs(5));
    world.link.relays_cut.insert(hub(1));
    let cut = world.now;
    world.run(ms(50));
    world.nodes[B].replies = true;
    world.run(secs(2));
    let mut answers = world.nodes[A].app_received.iter();
    let first = answers.find(|(_, route)| *route == Route::Relay(hub(2)));
    let (at, _) = first.expect("an answer through the other hub");
    // A's doubt, after at most a send and a round trip through the dead hub, and a round trip through the other one.
    assert!(*at - cut <= ms(600 + 20 + 60 + 100 + 20), "{:?} after the cut", *at - cut);
}

#[test]
fn answers_that_come_late_have_the_hubs_measured() {
    let mut world = two_hubs();
    world.link.relays_behind.insert(hub(2), ms(20));
    world.establish();
    world.nodes[A].app_every = Some(ms(500));
    world.nodes[B].replies = false;
    world.run(secs(13));
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(hub(1))));
    // B's keepalive answers after 510 ms now, within A's patience of 600 ms.
    world.link.relays_behind.insert(hub(1), ms(100));
    for _ in 0..30 {
        world.run(ms(100));
        assert_ne!(world.nodes[A].paths.state().reason, PathReason::Suspect);
    }
    assert_eq!(world.nodes[A].paths.routes(), Routes::one(Route::Relay(hub(2))));
}

/// Two hubs, the farther one at 40 ms more, with data in both directions so often, on the nearer one.
fn on_the_nearer_hub(every: Duration) -> (World, Routes, Routes) {
    let mut world = two_hubs();
    for side in [A, B] {
        world.nodes[side].app_every = Some(every);
    }
    world.link.relays_behind.insert(hub(2), ms(40));
    world.establish();
    world.run(secs(5));
    let [near, far] = [hub(1), hub(2)].map(|hub| Routes::one(Route::Relay(hub)));
    assert_eq!([A, B].map(|side| world.nodes[side].paths.routes()), [near, near]);
    (world, near, far)
}

/// All data passes, ever later and without a pause, as through a link that is slower than it (seed 175000022 of the scenario
/// `relay-dies`).
#[test]
fn a_relay_whose_queue_grows_is_left_within_4_s() {
    for phase in 0..20 {
        let (mut world, _, far) = on_the_nearer_hub(ms(100));
        world.run(ms(phase * 100));
        let mut waited = 0;
        while [A, B].iter().any(|side| world.nodes[*side].paths.routes() != far) {
            *world.link.relays_behind.entry(hub(1)).or_default() += ms(40);
            world.run(ms(100));
            waited += 100;
            assert!(waited <= 4_000, "phase {phase}");
        }
    }
}

#[test]
fn a_challenge_that_a_relay_loses_moves_nobody() {
    let (mut world, near, _) = on_the_nearer_hub(ms(100));
    for _ in 0..20 {
        // A loss of 300 ms, shorter than what is answered too late.
        world.link.relays_cut.insert(hub(1));
        world.run(ms(300));
        world.link.relays_cut.remove(&hub(1));
        world.run(ms(1_030));
        assert_eq!([A, B].map(|side| world.nodes[side].paths.routes()), [near, near]);
    }
}

#[test]
fn an_outage_of_all_relays_moves_nobody_to_the_farther_one() {
    let (mut world, near, _) = on_the_nearer_hub(ms(100));
    // Both become slow together: it isn't the hub.
    for hub in [hub(1), hub(2)] {
        *world.link.relays_behind.entry(hub).or_default() += ms(350);
    }
    for _ in 0..100 {
        world.run(ms(50));
        assert_eq!([A, B].map(|side| world.nodes[side].paths.routes().first()), [near.first(), near.first()]);
    }
}

#[test]
fn a_relay_that_carries_little_is_not_measured_more_often() {
    let (mut world, ..) = on_the_nearer_hub(ms(100));
    let challenges = |world: &World| world.nodes[A].paths.stats().challenges;
    let measured = |world: &mut World, every: u64| {
        for side in [A, B] {
            world.nodes[side].app_every = Some(ms(every));
        }
        world.run(secs(20));
        let before = challenges(world);
        world.run(secs(40));
        challenges(world) - before
    };
    let (busy, calm) = (measured(&mut world, 100), measured(&mut world, 1_000));
    assert!((18..=60).contains(&busy) && calm <= 12, "{busy} and {calm} challenges in 40 s");
}

#[test]
fn a_late_datagram_is_no_answer_and_gets_none() {
    for late in [false, true] {
        let freshness = Freshness { newest_on_leg: true, late };
        let mut world = World::direct(1);
        world.nodes[A].app_every = Some(ms(100));
        world.run(secs(5));
        world.link.cut = [true; 2];
        world.run(ms(900));
        assert_eq!(world.nodes[A].paths.state().reason, PathReason::Suspect);
        world.with(A, |paths, now| paths.on_authentic(now, Route::Direct(addr(2)), freshness, APP_LEN, true));
        let suspect = world.nodes[A].paths.state().reason == PathReason::Suspect;
        assert_eq!(suspect, late, "a doubt is ended by what is not late");

        let (mut world, ..) = on_the_nearer_hub(secs(60));
        let before = world.nodes[A].paths.stats().answers;
        world.with(A, |paths, now| paths.on_authentic(now, Route::Relay(hub(1)), freshness, APP_LEN, true));
        world.run(secs(1));
        assert_eq!(world.nodes[A].paths.stats().answers - before, u64::from(!late));
    }
}

#[test]
fn what_a_relay_delivers_late_keeps_nobody_there() {
    // Too little for the hub to be measured often.
    let (mut world, near, far) = on_the_nearer_hub(ms(500));
    // A growing queue: half of the datagrams pass, ever later, and there is never a silence.
    let slower = |world: &mut World, times: u64| {
        for _ in 0..times {
            *world.link.relays_behind.entry(hub(1)).or_default() += ms(100);
            world.run(ms(200));
        }
    };
    slower(&mut world, 10);
    assert_eq!([A, B].map(|side| world.nodes[side].paths.routes()), [near, near]);
    // B measures both hubs and switches. Its earlier datagrams, and its answers there, keep arriving at
    // A for ever.
    world.with(B, Paths::on_network_change);
    slower(&mut world, 10);
    assert_eq!([A, B].map(|side| world.nodes[side].paths.routes()), [far, far]);
}
