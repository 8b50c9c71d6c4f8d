//! Handshakes over wires that lose and reorder.

use std::time::Duration;

use super::world::World;

#[test]
fn handshakes_converge_under_forty_percent_loss_and_reordering() {
    let mut slowest = Duration::ZERO;
    for seed in 0..60 {
        let mut world = World::new(seed, 2);
        world.loss_percent = 40;
        world.delay_ms = 5..(if seed % 3 == 0 { 900 } else { 200 });
        world.connect(0, 1);
        if seed % 2 == 0 {
            world.connect(1, 0);
        }
        assert!(world.run_until(Duration::from_secs(60), World::both_open), "seed {seed}");
        slowest = slowest.max(world.now - world.start);
        world.loss_percent = 0;
        world.delay_ms = 5..50;
        world.run(Duration::from_secs(6));
        world.send(0, 1, b"x").unwrap();
        world.send(1, 0, b"y").unwrap();
        world.run(Duration::from_secs(5));
        assert!(world.both_open(), "seed {seed}");
        world.send(0, 1, b"x").unwrap();
        world.send(1, 0, b"y").unwrap();
        world.run(Duration::from_secs(1));
        let (a, b) = (world.nodes[0].received.last(), world.nodes[1].received.last());
        assert!(a.is_some() && b.is_some(), "seed {seed}");
        assert!(world.same_session(), "seed {seed}");
    }
    assert!(slowest < Duration::from_secs(45), "{slowest:?}");
}

#[test]
fn a_round_trip_longer_than_the_retry_gap_still_ends_in_one_session() {
    // A response comes when one or two later tries were already sent; it must still count.
    for (rtt_ms, limit_ms) in [(300, 700), (600, 1300), (1200, 2600), (3000, 6000)] {
        let mut world = World::new(rtt_ms, 2);
        world.delay_ms = rtt_ms / 2..rtt_ms / 2 + 1;
        world.connect(0, 1);
        assert!(world.run_until(Duration::from_millis(limit_ms), World::both_open), "{rtt_ms}");
        world.run(Duration::from_millis(rtt_ms * 2));
        assert!(world.same_session());
        for node in &world.nodes {
            assert_eq!(node.endpoint.indices().len(), 1, "the other tries left nothing behind");
        }
        world.send(1, 0, b"x").unwrap();
        world.run(Duration::from_millis(rtt_ms));
        assert_eq!(world.nodes[0].received.len(), 1);
    }
}

#[test]
fn a_caller_that_asks_again_and_again_neither_floods_a_slow_path_nor_outruns_the_answers() {
    for rtt_ms in [3_000, 4_500] {
        let mut world = World::new(rtt_ms, 2);
        world.delay_ms = rtt_ms / 2..rtt_ms / 2 + 1;
        let open = (0..100).any(|_| {
            world.connect(0, 1);
            world.run_until(Duration::from_millis(100), World::both_open)
        });
        assert!(open, "{rtt_ms}");
    }
    let mut world = World::new(1, 2);
    world.loss_percent = 100;
    for _ in 0..600 {
        world.connect(0, 1);
        world.run(Duration::from_millis(100));
    }
    let inits = world.nodes[0].endpoint.stats().inits_sent;
    assert!((14..=30).contains(&inits), "{inits} in a minute");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut world = World::new(5, 2);
        world.loss_percent = 30;
        world.connect(0, 1);
        world.connect(1, 0);
        world.run(Duration::from_secs(20));
        world.sent.iter().map(|(at, packet)| (*at - world.start, packet.bytes.clone())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
