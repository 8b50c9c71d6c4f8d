//! Free tasks: in time on workers of different speeds, held up by none, run twice only if that does no harm.

use proptest::prelude::*;

use super::super::*;
use super::harness::*;

/// The submitter, which runs nothing itself.
const CLIENT: u8 = 9;
const TASKS: usize = 120;

fn anywhere() -> SubmitOptions {
    SubmitOptions { anywhere: true, ..SubmitOptions::default() }
}

/// Four workers of four lanes, the first of which takes 30 times as long, and the client.
fn uneven(seed: u64, pure: bool) -> World {
    let mut world = World::new(seed, 4);
    for n in 1..=4 {
        world.jobs(n).register("work", KindLimits { pure, ..KindLimits::default() });
    }
    world.boot(key(CLIENT), 1, View::of(&[1, 2, 3, 4]));
    world.behaviour = Box::new(|node, payload, _| {
        let time = if node == key(1) { secs(30) } else { secs(1) };
        (time, Ok(Bytes::copy_from_slice(payload)))
    });
    world
}

fn submit_all(world: &mut World) -> Vec<TaskId> {
    (0..TASKS).map(|n| world.submit(CLIENT, &n.to_le_bytes(), anywhere())).collect()
}

/// Runs until all have ended, and returns how long that took. Each must have its result, once.
fn all_end(world: &mut World, tasks: &[TaskId], within: Duration) -> Duration {
    let begun = world.now;
    world.run_until(within, |world| tasks.iter().all(|task| !world.outcomes(CLIENT, *task).is_empty()));
    for (n, task) in tasks.iter().enumerate() {
        let expected = Bytes::copy_from_slice(&n.to_le_bytes());
        assert_eq!(world.outcomes(CLIENT, *task), [Ok(expected)], "task {n}");
    }
    world.now - begun
}

/// All work divided by the sum of the speeds.
fn ideal() -> Duration {
    secs(TASKS as u64).div_f64(4.0 * (3.0 + 1.0 / 30.0))
}

#[test]
fn a_slow_worker_does_not_hold_up_the_rest() {
    let mut world = uneven(1, true);
    let tasks = submit_all(&mut world);
    let took = all_end(&mut world, &tasks, secs(200));
    assert!(took <= ideal().mul_f64(1.3), "{took:?} instead of {:?}", ideal());
    // The loser of each second run is stopped.
    world.run(secs(3));
    assert_eq!(world.jobs_ref(1).gauges().running, 0);
    let stats = world.jobs_ref(CLIENT).stats();
    assert!(stats.run_once_more > 0 && stats.duplicate_results == 0, "{stats:?}");
}

#[test]
fn a_task_with_effects_is_not_run_twice_though_it_takes_long() {
    let mut world = uneven(1, false);
    let tasks = submit_all(&mut world);
    let took = all_end(&mut world, &tasks, secs(200));
    assert!(took < secs(32), "one task of the slow worker, and nothing behind it: {took:?}");
    assert!(tasks.iter().all(|task| world.runs_of(*task).len() == 1));
    assert_eq!(world.jobs_ref(CLIENT).stats().run_once_more, 0);
}

#[test]
fn a_worker_has_at_most_twice_its_lanes_of_them() {
    let mut world = uneven(1, true);
    let tasks = submit_all(&mut world);
    for _ in 0..80 {
        world.run(ms(100));
        for n in 1..=4 {
            let there = world.jobs_ref(n).gauges().executing;
            assert!(there <= 8, "{there} at {n}");
        }
    }
    all_end(&mut world, &tasks, secs(200));
}

#[test]
fn without_workers_they_wait_and_with_none_of_the_kind_they_end() {
    let mut world = uneven(1, true);
    world.set_view(CLIENT, View::of(&[]));
    let task = world.submit(CLIENT, b"x", anywhere());
    world.set_view(CLIENT, View::of(&[1, 2, 3, 4]));
    assert!(world.run_to_done(CLIENT, task, secs(40)).is_ok());
    world.set_view(CLIENT, View::of(&[]));
    let task = world.submit(CLIENT, b"y", anywhere());
    let ended = world.run_to_done(CLIENT, task, secs(10));
    assert_eq!(ended, Err(JobError::Infeasible("work".into())));
}

#[test]
fn those_that_wait_for_room_can_be_cancelled_and_end_with_their_life() {
    let mut world = uneven(1, true);
    world.behaviour = Box::new(|_, _, _| (secs(1_000), Ok(Bytes::new())));
    let options = SubmitOptions { life: secs(20), ..anywhere() };
    let tasks: Vec<_> = (0..TASKS).map(|n| world.submit(CLIENT, &n.to_le_bytes(), options.clone())).collect();
    world.run(secs(9));
    let now = world.now;
    assert!(world.jobs(CLIENT).cancel(now, tasks[119]));
    world.run(secs(12));
    assert_eq!(world.outcomes(CLIENT, tasks[119]), [Err(JobError::Cancelled)]);
    assert_eq!(world.outcomes(CLIENT, tasks[118]), [Err(JobError::Deadline)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    // A third of the bound is for what loss and death cost: an answer that is missed (1 s), a silence (3.5 s), and the work
    // that was lost.
    #[test]
    fn each_ends_once_and_in_time_under_loss_and_with_a_worker_killed(
        seed in any::<u64>(),
        loss in 0_u64..4,
        killed in 2_u8..=4,
        after in 500_u64..6_000,
    ) {
        let mut world = uneven(seed, true);
        world.loss_percent = loss;
        let tasks = submit_all(&mut world);
        let begun = world.now;
        world.run(ms(after));
        world.kill(killed, Some(secs(2)));
        all_end(&mut world, &tasks, secs(200));
        let took = world.now - begun;
        let survivors = secs(TASKS as u64).div_f64(4.0 * (2.0 + 1.0 / 30.0));
        prop_assert!(took <= survivors.mul_f64(1.3) + secs(6), "{took:?} instead of {survivors:?}");
        world.run(secs(10));
        for task in &tasks {
            prop_assert_eq!(world.outcomes(CLIENT, *task).len(), 1);
        }
    }
}
