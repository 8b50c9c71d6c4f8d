//! Two endpoints of different versions: what they speak, and how they tell that there is nothing.

use std::time::Duration;

use super::super::*;
use super::abuse::{direct, init_saying, secret};
use super::world::{World, addr, config};
use crate::net::secure::version::{TOLD_EVERY, Version, Versions};

const SECOND: Duration = Duration::from_secs(1);

/// A world of two nodes that speak these versions, of which the first knows the second one's address.
fn world(seed: u64, a: (u8, u8), b: (u8, u8)) -> World {
    let speaks = |node, (lowest, highest)| EndpointConfig {
        versions: Versions::made_up(lowest, highest),
        ..config(seed, node)
    };
    let mut world = World::strangers(vec![speaks(0, a), speaks(1, b)], seed);
    world.introduce(0);
    world
}

/// How often a node was told that the other one has no version of its own.
fn told(world: &World, at: usize) -> usize {
    let told = |event: &&SessionEvent| matches!(event, SessionEvent::Incompatible { .. });
    world.nodes[at].events.iter().filter(told).count()
}

#[test]
fn a_session_speaks_the_highest_common_version() {
    for (seed, a, b, highest) in
        [(1, (2, 2), (2, 2), 2), (2, (2, 2), (2, 3), 2), (3, (2, 3), (2, 2), 2), (4, (2, 3), (3, 3), 3)]
    {
        let mut world = world(seed, a, b);
        world.connect(0, 1);
        assert!(world.run_until(SECOND, World::both_open), "{a:?} and {b:?}");
        world.run(10 * SECOND);
        for at in [0, 1] {
            let other = world.nodes[1 - at].key;
            let version = world.nodes[at].endpoint.version(&other).unwrap();
            assert_eq!(version.to_string(), highest.to_string());
            let grown = world.stats(at).grown_control > 0;
            assert_eq!(grown, version > Version::FIRST, "the version is what is spoken");
            assert_eq!(world.stats(at).bad_control, 0);
            assert!(world.path_state(at).direct, "{:?}", world.path_state(at));
        }
    }
}

#[test]
fn without_a_common_version_both_are_told_and_neither_keeps_a_session() {
    let mut world = world(11, (2, 2), (3, 3));
    world.connect(0, 1);
    world.run(5 * SECOND);
    let (a, b) = (world.nodes[0].key, world.nodes[1].key);
    assert!(!world.open(0, 1) && !world.open(1, 0));
    assert_eq!(world.nodes[1].endpoint.peers().count(), 0, "a peer without a version takes no slot");
    assert!(world.nodes[1].endpoint.indices().is_empty());
    for (at, peer, theirs) in [(0, b, Versions::made_up(3, 3)), (1, a, Versions::made_up(2, 2))] {
        assert_eq!(world.nodes[at].events[0], SessionEvent::Incompatible { peer, theirs });
        let listed: Vec<_> = world.nodes[at].endpoint.incompatible(world.now).collect();
        assert_eq!(listed, [(peer, theirs)]);
        assert_eq!(world.stats(at).established, 0);
    }
    assert!(world.nodes[0].events.contains(&SessionEvent::HandshakeFailed { peer: b }));
    assert_eq!(world.frames(frames::INIT).len(), 1, "an answer is no silence, and needs no repetition");
}

#[test]
fn an_incompatible_peer_is_told_of_once_a_minute_and_tried_seldom() {
    let mut world = world(12, (2, 2), (3, 3));
    let minutes = 10;
    for _ in 0..minutes * 60 {
        let _ = world.send(0, 1, b"again");
        world.run(SECOND);
    }
    for at in [0, 1] {
        let told = told(&world, at) as u64;
        assert!((minutes - 2..=minutes).contains(&told), "{told} times in {minutes} minutes");
    }
    let inits = world.frames(frames::INIT).len() as u64;
    assert!(inits <= minutes * 6 + 1, "{inits} handshakes");
    assert!(TOLD_EVERY >= Duration::from_secs(60));
}

#[test]
fn an_upgraded_peer_is_met_at_once_and_listed_no_more() {
    let mut world = world(13, (2, 2), (3, 3));
    world.connect(0, 1);
    world.run(5 * SECOND);
    world.nodes[0].config.versions = Versions::made_up(2, 3);
    world.restart(0, super::world::UNIX + 5 * SECOND);
    world.connect(0, 1);
    assert!(world.run_until(SECOND, World::both_open));
    assert_eq!(world.nodes[1].endpoint.incompatible(world.now).count(), 0);
}

#[test]
fn a_copy_of_an_incompatible_init_gets_silence() {
    let mut world = world(14, (2, 2), (3, 3));
    world.connect(0, 1);
    world.run(5 * SECOND);
    let init = world.frames(frames::INIT)[0].bytes.clone();
    let before = world.stats(1).incompatible;
    for source in [Source::direct(addr(0)), direct("203.0.113.66:6666")] {
        assert!(world.inject(1, source, &init).is_empty());
    }
    assert_eq!(world.stats(1).incompatible, before);
}

#[test]
fn a_program_that_says_nothing_speaks_the_first_version_and_no_range_is_none() {
    let source = direct("203.0.113.7:7000");
    for (n, versions, ours, answers) in [
        (1, [0, 0], (2, 2), true),
        (2, [1, 255], (2, 2), true),
        (3, [3, 2], (2, 3), false),
        (4, [0, 255], (2, 2), false),
        (5, [255, 0], (2, 2), false),
        // It would take a response for a session.
        (6, [0, 0], (3, 3), false),
        (7, [255, 255], (2, 2), true),
    ] {
        let mut world = world(20 + n, (2, 2), ours);
        let (_, init) = init_saying(&world, &secret(n), 200, [0; 16], versions);
        let answered = world.inject(1, source, &init).iter().any(|(_, bytes)| bytes[0] == frames::RESPONSE);
        assert_eq!(answered, answers, "{versions:?}");
        let kept = world.nodes[1].endpoint.peers().count();
        assert_eq!(kept, usize::from(n <= 2), "{versions:?}");
        let forged = u64::from((3..=5).contains(&n));
        assert_eq!(world.stats(1).handshake_forged, forged, "{versions:?}");
        assert_eq!(world.stats(1).incompatible, u64::from(n >= 6), "{versions:?}");
    }
}
