//! A node that drains.

use bytes::Bytes;

use super::super::*;
use super::harness::{View, World, key, ms, secs};

fn drained(world: &World, n: u8) -> Vec<Drained> {
    let events = world.nodes[&key(n)].events.iter();
    let drained = |event: &JobEvent| match event {
        JobEvent::Drained(drained) => Some(*drained),
        _ => None,
    };
    events.filter_map(drained).collect()
}

fn drain(world: &mut World, n: u8, limit: std::time::Duration) {
    let now = world.now;
    world.jobs(n).drain(now, limit);
    world.drain();
}

/// The node and the time since the beginning of each start of a task.
fn starts(world: &World, task: TaskId) -> Vec<(PublicKey, std::time::Duration)> {
    let of_task = world.started.iter().filter(|(id, ..)| *id == task);
    of_task.map(|(_, node, at)| (*node, *at - world.start)).collect()
}

#[test]
fn what_runs_may_end_within_the_limit_and_what_waits_starts_elsewhere_at_once() {
    let mut world = World::new(1, 3);
    world.jobs(1).register("work", KindLimits { concurrency: 1, ..Default::default() });
    world.behaviour = Box::new(|_, payload, _| (secs(4), Ok(Bytes::copy_from_slice(payload))));
    let runs = world.submit(3, b"runs", SubmitOptions::default());
    world.run(secs(1));
    let waits = world.submit(3, b"waits", SubmitOptions::default());
    world.run(secs(1));
    drain(&mut world, 1, secs(8));
    let later = world.submit(3, b"later", SubmitOptions::default());
    world.run(ms(1500));
    assert_eq!(drained(&world, 1), [], "one runs yet");
    world.run(secs(6));
    for (task, payload) in [(runs, &b"runs"[..]), (waits, b"waits"), (later, b"later")] {
        assert_eq!(world.outcomes(3, task), [Ok(Bytes::copy_from_slice(payload))]);
    }
    assert_eq!(world.runs_of(runs), [key(1)]);
    assert_eq!(drained(&world, 1), [Drained { finished: 1, handed_back: 1 }]);
    // Two messages, and the question to the first node whether it has an outcome.
    for task in [waits, later] {
        assert!(matches!(starts(&world, task)[..], [(by, at)] if by == key(2) && at < ms(2200)));
    }
}

#[test]
fn what_runs_beyond_the_limit_is_ended_and_starts_elsewhere_at_once() {
    let mut world = World::new(2, 3);
    world.behaviour =
        Box::new(|by, _, _| (if by == key(1) { secs(3600) } else { secs(1) }, Ok(Bytes::new())));
    let task = world.submit(3, b"x", SubmitOptions { max_losses: 1, ..Default::default() });
    world.run(secs(1));
    drain(&mut world, 1, secs(3));
    world.run(secs(4));
    let starts = starts(&world, task);
    assert_eq!(starts[1].0, key(2));
    assert!(starts[1].1 < ms(4200), "{starts:?}");
    assert_eq!(world.jobs(1).gauges().running, 0);
    assert_eq!(drained(&world, 1), [Drained { finished: 0, handed_back: 1 }]);
    world.kill(1, Some(ms(100)));
    world.run_to_done(3, task, secs(5)).unwrap();
}

#[test]
fn tasks_go_no_more_to_a_node_that_said_that_it_drains_and_wait_when_it_is_the_only_one() {
    let mut world = World::new(3, 2);
    let alone = View { live: [key(1)].into(), ..View::of(&[1, 2]) };
    (1..=2).for_each(|n| world.set_view(n, alone.clone()));
    drain(&mut world, 1, secs(0));
    let options = || SubmitOptions { life: secs(200), ..Default::default() };
    let tasks: Vec<_> = (0..5).map(|n| world.submit(2, &[n], options())).collect();
    world.run(secs(50));
    let refused = world.jobs(1).stats().handed_back;
    assert!((1..=5).contains(&refused), "{refused}");
    let waits = world.nodes[&key(2)].events.iter();
    let waits =
        waits.filter(|event| matches!(event, JobEvent::Waiting { why: WaitReason::Away, .. })).count();
    assert_eq!(waits, 5);
    world.restart(1, ms(100));
    world.run(secs(1));
    (1..=2).for_each(|n| world.set_view(n, alone.clone()));
    for task in tasks {
        world.run_to_done(2, task, secs(5)).unwrap();
    }
}

#[test]
fn a_drain_waits_for_the_acknowledgement_of_an_outcome_but_not_for_ever() {
    let mut world = World::new(4, 3);
    world.behaviour = Box::new(|_, _, _| (secs(1), Ok(Bytes::new())));
    world.submit(3, b"x", SubmitOptions::default());
    world.run(ms(500));
    world.partition(&[1], &[3]);
    drain(&mut world, 1, secs(2));
    world.run(ms(3900));
    assert_eq!(drained(&world, 1), []);
    world.run(ms(200));
    assert_eq!(drained(&world, 1), [Drained { finished: 1, handed_back: 0 }]);
}
