//! All ways in which a task ends.

use bytes::Bytes;

use super::super::*;
use super::harness::{View, World, key, ms, secs};
use crate::ring::Epoch;

fn life(seconds: u64) -> SubmitOptions {
    SubmitOptions { life: secs(seconds), ..Default::default() }
}

#[test]
fn a_permanent_error_ends_the_task_and_a_retriable_one_moves_on() {
    let mut world = World::new(1, 4);
    world.behaviour = Box::new(|_, payload, times| match payload {
        b"permanent" => (ms(10), Err(JobError::permanent("no"))),
        _ if times < 2 => (ms(10), Err(JobError::retriable("later"))),
        _ => (ms(10), Ok(Bytes::from_static(b"ok"))),
    });
    let permanent = world.submit(4, b"permanent", life(60));
    let retried = world.submit(4, b"retriable", life(60));
    assert_eq!(world.run_to_done(4, permanent, secs(5)), Err(JobError::permanent("no")));
    assert_eq!(world.run_to_done(4, retried, secs(20)), Ok(Bytes::from_static(b"ok")));
    assert_eq!(world.runs_of(permanent), [key(1)]);
    assert_eq!(world.runs_of(retried), [key(1), key(2), key(3)]);
}

#[test]
fn a_beat_that_comes_after_its_attempt_was_given_back_delays_nothing() {
    let mut world = World::new(1, 3);
    world.behaviour = Box::new(|_, _, times| match times {
        0 => (secs(2), Err(JobError::retriable("later"))),
        _ => (ms(10), Ok(Bytes::new())),
    });
    let task = world.submit(3, b"x", life(60));
    world.run_until(secs(5), |world| {
        world.jobs_ref(1).stats().runs == 1 && world.jobs_ref(1).gauges().executing == 0
    });
    world.run_until(secs(1), |world| world.jobs_ref(3).submitter.backs_off(task));
    assert!(world.jobs_ref(3).submitter.backs_off(task));
    let (now, boot) = (world.now, world.nodes[&key(1)].boot);
    let beats = vec![message::Beat { task, attempt: 0, finished: None }];
    let token = Epoch { counter: 1, owner: key(1) };
    for late in [
        Message::Accepted { task, attempt: 0, boot, token, lanes: None },
        Message::Beats { boot, beats, answer: false },
    ] {
        world.jobs(3).dispatch(now, Submitter::alone(key(1)), late);
    }
    assert_eq!(world.run_to_done(3, task, secs(2)), Ok(Bytes::new()));
    assert_eq!(world.jobs(3).stats().silences, 0);
}

#[test]
fn a_task_that_fails_everywhere_is_a_dead_letter() {
    let mut world = World::new(2, 3);
    world.behaviour = Box::new(|_, _, times| match times {
        0..3 => (ms(10), Err(JobError::retriable("disk full"))),
        _ => unreachable!("three failures are the limit"),
    });
    let options = SubmitOptions { max_failures: 3, ..life(60) };
    let task = world.submit(3, b"x", options);
    let outcome = world.run_to_done(3, task, secs(30));
    let Err(JobError::DeadLetter { failures: 3, last }) = outcome else { panic!("{outcome:?}") };
    assert!(last.contains("disk full"));
}

#[test]
fn a_kind_without_a_handler_is_an_error_and_never_an_empty_success() {
    let mut world = World::new(3, 3);
    let now = world.now;
    let task = world.jobs(3).submit(now, "nonsense", b"key", Bytes::new(), SubmitOptions::default()).unwrap();
    assert_eq!(world.run_to_done(3, task, secs(10)), Err(JobError::UnknownKind("nonsense".into())));
    assert!(world.started.is_empty());
}

#[test]
fn a_task_nobody_can_execute_is_infeasible_three_seconds_after_the_view_is_complete() {
    let mut world = World::new(4, 3);
    let mut view = View::of(&[1, 2, 3]);
    for n in 1..=3 {
        view.kinds.insert(key(n), ["work".to_owned()].into());
    }
    world.set_view(3, view.clone());
    let now = world.now;
    let task = world.jobs(3).submit(now, "gpu", b"key", Bytes::new(), SubmitOptions::default()).unwrap();
    assert_eq!(world.run_to_done(3, task, secs(10)), Err(JobError::Infeasible("gpu".into())));
    assert_eq!(world.now - now, secs(3));
}

#[test]
fn without_a_complete_view_an_empty_list_means_nothing() {
    let mut world = World::new(4, 2);
    let rng = <crate::rt::Rng as rand_core::SeedableRng>::seed_from_u64(1);
    let mut jobs = Jobs::new(Config::default(), key(9), 1, world.now, rng);
    let task = jobs.submit(world.now, "work", b"key", Bytes::new(), life(60)).unwrap();
    jobs.handle_timeout(world.now + secs(30));
    assert!(jobs.poll_event().is_none());
    jobs.on_view_complete(world.now + secs(30));
    jobs.handle_timeout(world.now + secs(32));
    assert!(jobs.poll_event().is_none());
    // A worker appears in time.
    jobs.set_placement(world.now + secs(32), std::sync::Arc::new(View::of(&[1])));
    let (to, _) = jobs.poll_transmit().unwrap();
    assert_eq!(to, key(1));
    assert!(jobs.cancel(world.now + secs(32), task));
    assert!(!jobs.cancel(world.now + secs(32), task));
    world.run(ms(1));
}

#[test]
fn a_task_ends_with_its_life_wherever_it_is() {
    let mut world = World::new(5, 4);
    world.behaviour = Box::new(|_, _, _| (secs(3600), Ok(Bytes::new())));
    let task = world.submit(4, b"x", life(5));
    assert_eq!(world.run_to_done(4, task, secs(10)), Err(JobError::Deadline));
    assert_eq!(world.now - world.start, secs(5));
    world.run(secs(2));
    assert_eq!(world.jobs(1).gauges().executing, 0);
    assert_eq!(world.jobs(1).gauges().running, 0);
    for n in 1..=3 {
        assert_eq!(world.jobs(n).record(task).map(|record| record.class), Some(Class::Deadline));
    }
}

#[test]
fn cancelling_resolves_at_once_and_stops_the_run() {
    let mut world = World::new(6, 4);
    world.behaviour = Box::new(|_, _, _| (secs(60), Ok(Bytes::new())));
    let task = world.submit(4, b"x", life(300));
    world.run(secs(1));
    let now = world.now;
    assert!(world.jobs(4).cancel(now, task));
    assert_eq!(world.run_to_done(4, task, secs(1)), Err(JobError::Cancelled));
    world.run(secs(1));
    assert_eq!(world.jobs(1).gauges().running, 0);
    assert_eq!(world.jobs(2).record(task).map(|record| record.class), Some(Class::Cancelled));
    world.run(secs(120));
    assert_eq!(world.outcomes(4, task).len(), 1);
}

#[test]
fn cancelling_between_two_attempts_stops_both_runs() {
    for seed in 0..10 {
        let mut world = World::new(seed, 4);
        world.behaviour = Box::new(|_, _, _| (secs(600), Ok(Bytes::new())));
        let task = world.submit(4, b"x", life(900));
        world.run(secs(1));
        // The first run is cut off from its submitter, which gives the task to the second.
        world.partition(&[1], &[4]);
        world.run_until(secs(10), |world| world.jobs_ref(4).stats().attempts == 2);
        world.run(ms(seed * 3));
        let now = world.now;
        assert!(world.jobs(4).cancel(now, task));
        world.run(secs(1));
        let running: usize = (2..=3).map(|n| world.jobs(n).gauges().running).sum();
        assert_eq!(running, 0, "seed {seed}: at once where it can be reached");
        world.cut.clear();
        world.run(secs(20));
        assert_eq!(world.jobs(1).gauges().running, 0, "seed {seed}: and soon where it can be again");
    }
}

#[test]
fn a_panic_is_permanent_and_a_time_limit_is_not() {
    let mut world = World::new(7, 4);
    for n in 1..=4 {
        let limits = KindLimits { time_limit: Some(secs(2)), ..Default::default() };
        world.jobs(n).register("work", limits);
    }
    world.behaviour = Box::new(|_, payload, times| match payload {
        b"panic" => (ms(10), Err(JobError::Panicked("index out of bounds".into()))),
        _ if times == 0 => (secs(9), Ok(Bytes::new())),
        _ => (secs(1), Ok(Bytes::from_static(b"second"))),
    });
    let panics = world.submit(4, b"panic", life(60));
    let slow = world.submit(4, b"slow", life(60));
    assert_eq!(world.run_to_done(4, panics, secs(5)), Err(JobError::Panicked("index out of bounds".into())));
    assert_eq!(world.run_to_done(4, slow, secs(20)), Ok(Bytes::from_static(b"second")));
    assert_eq!(world.runs_of(slow), [key(1), key(2)]);
}

#[test]
fn a_fenced_run_starts_again_under_a_higher_tenure() {
    let mut world = World::new(8, 3);
    let current = Epoch { counter: 70, owner: key(2) };
    world.behaviour = Box::new(move |_, _, times| match times {
        0 => (ms(10), Err(JobError::Fenced { current })),
        _ => (secs(1), Ok(Bytes::new())),
    });
    let task = world.submit(3, b"x", life(60));
    world.run_to_done(3, task, secs(10)).unwrap();
    assert_eq!(world.runs_of(task), [key(1), key(1)]);
    let record = world.jobs(1).record(task).unwrap();
    assert_eq!(record.token, Epoch { counter: 71, owner: key(1) });
    assert!(world.nodes[&key(1)].events.contains(&JobEvent::Fenced { task, current }));
}

#[test]
fn progress_reaches_the_submitter_with_the_next_beat() {
    let mut world = World::new(9, 3);
    world.behaviour = Box::new(|_, _, _| (secs(5), Ok(Bytes::new())));
    let task = world.submit(3, b"x", life(60));
    world.run(ms(500));
    world.jobs(1).progress(RunId(0), Bytes::from_static(b"10 %"));
    world.jobs(1).progress(RunId(0), Bytes::from_static(b"20 %"));
    world.run(secs(3));
    let notes: Vec<_> = world.nodes[&key(3)]
        .events
        .iter()
        .filter_map(|event| match event {
            JobEvent::Progress { task: id, note, .. } if *id == task => Some(note.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(notes, [Bytes::from_static(b"20 %")]);
}

#[test]
fn a_result_that_fits_no_message_is_an_error() {
    let mut world = World::new(10, 2);
    world.behaviour = Box::new(|_, _, _| (ms(10), Ok(Bytes::from(vec![0; options::MAX_PAYLOAD_LEN + 1]))));
    let task = world.submit(2, b"x", life(60));
    let len = options::MAX_PAYLOAD_LEN as u64 + 1;
    assert_eq!(world.run_to_done(2, task, secs(5)), Err(JobError::TooLarge { len }));
}

#[test]
fn nothing_runs_on_for_a_submitter_whose_pass_was_revoked_and_nothing_waits_for_one_that_ran_it() {
    let mut world = World::new(8, 3);
    world.behaviour = Box::new(|by, _, _| (if by == key(1) { secs(60) } else { secs(1) }, Ok(Bytes::new())));
    let theirs = world.submit(3, b"theirs", SubmitOptions::default());
    let ours = world.submit(2, b"ours", SubmitOptions::default());
    world.run(secs(1));
    assert_eq!(world.jobs(1).gauges().running, 2);
    let now = world.now;
    world.jobs(1).on_member(now, key(3), MemberChange::Revoked);
    world.drain();
    world.run(ms(100));
    assert_eq!(world.jobs(1).gauges().running, 1, "only {ours:?} is left of it and {theirs:?}");
    let now = world.now;
    world.jobs(2).on_member(now, key(1), MemberChange::Revoked);
    world.set_view(2, View::of(&[2, 3]));
    world.drain();
    assert!(world.run_to_done(2, ours, secs(3)).is_ok(), "the next owner runs it at once");
}
