//! Clients that disappear silently, and the state that they leave behind.

use bytes::Bytes;

use super::super::listeners::MOST_BEATS_TO_THE_DEAF;
use super::super::*;
use super::harness::{World, key, secs};

fn life(seconds: u64) -> SubmitOptions {
    SubmitOptions { life: secs(seconds), ..Default::default() }
}

/// A world in which no transport reports undelivered messages, and whose runs take this many seconds.
fn world(seed: u64, nodes: u8, seconds: u64) -> World {
    let mut world = World::new(seed, nodes);
    world.reports_losses = false;
    world.behaviour = Box::new(move |_, _, _| (secs(seconds), Ok(Bytes::from_static(b"r"))));
    world
}

#[test]
fn a_client_that_was_killed_costs_a_few_beats_and_not_one_a_second_for_its_tasks_life() {
    let mut world = world(1, 3, 3_600);
    let task = world.submit(3, b"x", life(7_200));
    world.run(secs(1));
    world.kill(3, None);
    let before = world.messages_to[&key(3)];
    world.run(secs(3_500));
    let beats = world.messages_to[&key(3)] - before;
    assert!((3..=MOST_BEATS_TO_THE_DEAF).contains(&beats), "{beats}");
    assert_eq!(world.jobs(1).gauges().running, 1, "the task runs on");
    // Its outcome is sent once, and kept by the owners.
    let before = world.messages_to[&key(3)];
    world.run(secs(3_500));
    // The third copy of the outcome goes to the client too, since it is an owner.
    assert!(world.messages_to[&key(3)] - before <= 3);
    assert_eq!(world.jobs(1).stats().outcomes_unheard, 1);
    assert_eq!(world.jobs(2).record(task).map(|record| record.class), Some(Class::Result));
}

#[test]
fn an_outcome_that_a_killed_client_never_acknowledges_is_told_a_few_times() {
    let mut world = world(2, 4, 5);
    world.submit(4, b"x", life(7_200));
    world.run(secs(1));
    world.kill(4, None);
    world.run(secs(7_000));
    let messages = world.messages_to[&key(4)];
    // Besides the beats there are the acceptance and the outcome.
    assert!(messages <= MOST_BEATS_TO_THE_DEAF + 3, "{messages}");
    assert_eq!(world.jobs(1).gauges().running, 0);
    assert_eq!(world.jobs(1).stats().outcomes_unheard, 1);
}

#[test]
fn a_finished_task_leaves_at_most_512_bytes_behind_and_nothing_after_its_horizon() {
    const TASKS: u32 = 500;
    let mut world = world(5, 4, 0);
    for n in 0..TASKS {
        let (now, key) = (world.now, format!("{n:016x}"));
        world.jobs(4).submit(now, "work", key.as_bytes(), Bytes::from_static(b"x"), life(300)).unwrap();
        world.run(secs(1) / 50);
    }
    world.run(secs(5));
    for n in 1..=4 {
        let gauges = world.jobs(n).gauges();
        assert_eq!(gauges.record_bytes, 0);
        let each = gauges.left_behind_bytes / TASKS as usize;
        assert!((100..=512).contains(&each), "{each} bytes at node {n}: {gauges:?}");
    }
    world.run(secs(300) + options::HORIZON);
    for n in 1..=4 {
        assert_eq!(world.jobs(n).gauges(), Gauges::default(), "node {n}");
    }
}

#[test]
fn a_client_that_listens_is_beaten_to_for_as_long_as_the_task_runs() {
    let mut world = world(3, 3, 3_600);
    let task = world.submit(3, b"x", life(7_200));
    assert_eq!(world.run_to_done(3, task, secs(4_000)), Ok(Bytes::from_static(b"r")));
    assert_eq!(world.runs_of(task), [key(1)]);
    assert_eq!(world.jobs(3).stats().silences, 0);
}

#[test]
fn a_client_that_comes_back_after_a_long_silence_has_its_task_again() {
    let mut world = world(4, 1, 1_000);
    let view = world.nodes[&key(1)].view.clone();
    world.boot(key(2), 1, view);
    let task = world.submit(2, b"x", life(7_200));
    world.run(secs(1));
    world.partition(&[1], &[2]);
    world.run(secs(600));
    world.cut.clear();
    assert_eq!(world.run_to_done(2, task, secs(410)), Ok(Bytes::from_static(b"r")));
    assert_eq!(world.runs_of(task).len(), 1);
}
