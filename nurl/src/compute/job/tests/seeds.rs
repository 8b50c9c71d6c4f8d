//! Many seeds: every handle resolves once despite losses, delays and kills.

use bytes::Bytes;
use rand_core::Rng as _;

use super::super::*;
use super::harness::{World, key, ms, secs};

/// Runs one seed, and returns the events of all nodes for comparison.
fn run(seed: u64) -> String {
    let mut world = World::new(seed, 6);
    let draw = |world: &mut World, n: u64| world.rng.next_u64() % n;
    world.loss_percent = draw(&mut world, 4) * 5;
    world.max_delay = ms(10 + draw(&mut world, 400));
    world.reports_losses = draw(&mut world, 2) == 0;
    world.behaviour = Box::new(|node, payload, times| {
        let time = ms(u64::from(payload[0]) * 40);
        let sick = node == key(2) && times == 0;
        (time, if sick { Err(JobError::retriable("sick")) } else { Ok(Bytes::copy_from_slice(payload)) })
    });
    let mut tasks = Vec::new();
    for n in 0..20u8 {
        let submitter = 4 + (draw(&mut world, 3) as u8);
        let life = secs(60 + draw(&mut world, 60));
        let task = world.submit(submitter, &[n], SubmitOptions { life, ..Default::default() });
        tasks.push((submitter, task, n));
        match draw(&mut world, 12) {
            0 => {
                let n = 1 + draw(&mut world, 3) as u8;
                if draw(&mut world, 2) == 0 {
                    world.restart(n, ms(500));
                } else {
                    world.kill(n, Some(secs(4)));
                }
            }
            1 => {
                let split = 1 + draw(&mut world, 3) as u8;
                world.partition(&(1..=split).collect::<Vec<_>>(), &(split + 1..=6).collect::<Vec<_>>());
            }
            2 => world.cut.clear(),
            _ => {}
        }
        let pause = draw(&mut world, 1500);
        world.run(ms(pause));
    }
    world.cut.clear();
    world.run(secs(150));
    for (submitter, task, n) in tasks {
        let outcomes = world.outcomes(submitter, task);
        assert_eq!(outcomes.len(), 1, "seed {seed}: task {n} has resolved {} times", outcomes.len());
        if let Ok(bytes) = &outcomes[0] {
            assert_eq!(bytes[..], [n], "seed {seed}");
        }
        assert!(outcomes[0].is_ok(), "seed {seed}: task {n}: {:?}", outcomes[0]);
    }
    for node in world.nodes.values().filter(|node| node.up) {
        assert_eq!((node.jobs.gauges().open, node.jobs.gauges().executing), (0, 0), "seed {seed}");
    }
    world.nodes.values().map(|node| format!("{:?}\n{:?}\n", node.events, node.jobs.stats())).collect()
}

#[test]
fn every_handle_resolves_once_with_the_right_result() {
    for seed in 0..150 {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
}
