//! Tasks that are lost with their workers, and tasks that wait for a worker.

use bytes::Bytes;

use super::super::*;
use super::harness::{View, World, key, ms, secs};

fn endless() -> Box<super::harness::Behaviour> {
    Box::new(|_, _, _| (secs(3600), Ok(Bytes::new())))
}

fn waits(world: &World, n: u8) -> Vec<WaitReason> {
    let events = world.nodes[&key(n)].events.iter();
    let waiting = |event: &JobEvent| match event {
        JobEvent::Waiting { why, .. } => Some(*why),
        _ => None,
    };
    events.filter_map(waiting).collect()
}

/// Calls `end` with the number of each worker that starts `task`, 0.3 s after the start, for this many seconds.
fn after_each_start(world: &mut World, task: TaskId, seconds: u64, mut end: impl FnMut(&mut World, u8)) {
    let mut ended = 0;
    for _ in 0..seconds * 2 {
        world.run(ms(300));
        let runs = world.runs_of(task);
        if runs.len() > ended {
            ended = runs.len();
            end(world, runs[ended - 1].as_bytes()[0]);
        }
        world.run(ms(200));
    }
}

#[test]
fn a_task_that_kills_its_workers_is_a_dead_letter_after_three_and_a_fourth_never_has_it() {
    // The detector is fast, as slow as silence, and slower than two more attempts.
    for detected in [ms(500), secs(4), secs(25)] {
        let mut world = World::new(1, 6);
        world.behaviour = endless();
        let task = world.submit(6, b"poison", SubmitOptions::default());
        after_each_start(&mut world, task, 90, |world, n| world.kill(n, Some(detected)));
        let names = [1, 2, 3].map(|n| key(n).short()).join(", ");
        let lost = JobError::Lost { workers: 3, names: names.clone() };
        assert_eq!(world.outcomes(6, task), [Err(lost.clone())], "{detected:?}");
        assert_eq!(lost.to_string(), format!("a dead letter: lost with 3 workers: {names}"));
        assert_eq!(world.runs_of(task), [1, 2, 3].map(key));
        assert_eq!(world.jobs(6).record(task).map(|record| record.class), Some(Class::DeadLetter));
        let waited = waits(&world, 6);
        assert!(waited.len() <= 1 && waited.is_empty() <= (detected < secs(25)), "{detected:?}: {waited:?}");
    }
}

#[test]
fn a_worker_that_comes_back_as_another_process_each_time_is_lost_each_time() {
    let mut world = World::new(2, 2);
    world.behaviour = endless();
    // The submitter runs nothing.
    let alone = View { live: [key(1)].into(), ..View::of(&[1, 2]) };
    (1..=2).for_each(|n| world.set_view(n, alone.clone()));
    let options = SubmitOptions { max_losses: 2, ..Default::default() };
    let task = world.submit(2, b"poison", options);
    after_each_start(&mut world, task, 60, |world, n| world.restart(n, ms(700)));
    let names = format!("{0}, {0}", key(1).short());
    assert_eq!(world.outcomes(2, task), [Err(JobError::Lost { workers: 2, names })]);
    assert_eq!(world.runs_of(task).len(), 2);
}

#[test]
fn silence_alone_is_no_loss_however_often() {
    let mut world = World::new(3, 6);
    world.behaviour = endless();
    let task = world.submit(6, b"x", SubmitOptions { life: secs(250), ..Default::default() });
    after_each_start(&mut world, task, 240, |world, n| world.partition(&[n], &[6]));
    assert_eq!(world.outcomes(6, task), []);
    assert!(world.runs_of(task).len() > 3, "{:?}", world.runs_of(task));
    assert_eq!(waits(&world, 6).first(), Some(&WaitReason::Verdict));
}

#[test]
fn a_death_that_is_taken_back_is_no_loss() {
    let mut world = World::new(4, 6);
    world.behaviour = endless();
    let task = world.submit(6, b"x", SubmitOptions { life: secs(100), ..Default::default() });
    after_each_start(&mut world, task, 90, |world, n| {
        world.partition(&[n], &[6]);
        let now = world.now;
        for change in [MemberChange::Dead, MemberChange::Alive] {
            world.jobs(6).on_member(now, key(n), change);
        }
    });
    assert_eq!(world.outcomes(6, task), []);
    assert!(world.runs_of(task).len() > 3, "{:?}", world.runs_of(task));
}

#[test]
fn a_kind_whose_only_worker_is_away_waits_for_it_and_says_so() {
    let mut world = World::new(5, 3);
    let mut view = View::of(&[1, 2, 3]);
    for n in 2..=3 {
        view.kinds.insert(key(n), ["other".to_owned()].into());
    }
    let away = View { live: [key(2), key(3)].into(), ..view.clone() };
    world.set_view(3, away);
    let task = world.submit(3, b"x", SubmitOptions { life: secs(300), ..Default::default() });
    world.run(ms(2900));
    assert_eq!(waits(&world, 3), []);
    world.run(secs(20));
    assert_eq!(waits(&world, 3), [WaitReason::Away], "once");
    (1..=3).for_each(|n| world.set_view(n, view.clone()));
    assert_eq!(world.run_to_done(3, task, secs(5)), Ok(Bytes::from_static(b"x")));
}

#[test]
fn a_kind_whose_worker_stays_away_ends_with_the_tasks_life() {
    let mut world = World::new(6, 2);
    let view = View { live: [key(2)].into(), ..View::of(&[1, 2]) };
    let mut view = view;
    view.kinds.insert(key(2), ["other".to_owned()].into());
    world.set_view(2, view);
    let task = world.submit(2, b"x", SubmitOptions { life: secs(30), ..Default::default() });
    assert_eq!(world.run_to_done(2, task, secs(40)), Err(JobError::Deadline));
}
