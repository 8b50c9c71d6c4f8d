//! Limits, and the behaviour at them.

use bytes::Bytes;

use super::super::message::{Beat, Message, RecordCopy};
use super::super::*;
use super::harness::{View, World, key, ms, persist, secs};
use crate::ring::Epoch;
use crate::rt::Rng;
use rand_core::SeedableRng;

#[test]
fn a_full_queue_says_busy_and_the_tasks_run_later_or_elsewhere() {
    let mut world = World::new(1, 3);
    for n in 1..=3 {
        let limits = KindLimits { concurrency: 1, queue: 1, time_limit: None, pure: false };
        world.jobs(n).register("work", limits);
    }
    world.behaviour = Box::new(|_, _, _| (ms(400), Ok(Bytes::new())));
    let tasks: Vec<_> = (0..20u8).map(|n| world.submit(3, &[n], SubmitOptions::default())).collect();
    for task in &tasks {
        world.run_to_done(3, *task, secs(120)).unwrap();
        assert_eq!(world.runs_of(*task).len(), 1);
    }
    assert!(world.jobs(1).stats().busy > 0);
    assert!(world.jobs(3).stats().busy_seen > 0);
    assert!(world.started.iter().any(|(_, node, _)| *node == key(2)), "the second one helps");
    assert!(world.started.iter().filter(|(_, node, _)| *node == key(1)).count() > 5);
}

#[test]
fn a_busy_node_is_left_after_a_few_hints() {
    let mut world = World::new(1, 3);
    world.jobs(1).register("work", KindLimits { concurrency: 1, queue: 0, time_limit: None, pure: false });
    let task = world.submit(3, b"x", SubmitOptions::default());
    world.run_to_done(3, task, secs(30)).unwrap();
    assert_eq!(world.jobs(1).stats().busy, u64::from(options::MAX_BUSY_STAYS) + 1);
    assert_eq!(world.runs_of(task), [key(2)]);
}

#[test]
fn a_low_task_is_before_the_high_ones_that_come_two_minutes_later() {
    let mut world = World::new(1, 1);
    world.behaviour = Box::new(|_, _, _| (secs(5), Ok(Bytes::new())));
    world.jobs(1).register("work", KindLimits { concurrency: 1, ..KindLimits::default() });
    let with = |priority| SubmitOptions { priority, ..Default::default() };
    world.submit(1, b"first", with(Priority::High));
    let low = world.submit(1, b"low", with(Priority::Low));
    let begun = world.now;
    for n in 0..60u8 {
        // Two come while one runs.
        world.submit(1, &[n, 0], with(Priority::High));
        world.submit(1, &[n, 1], with(Priority::High));
        world.run(secs(5));
        if n == 20 {
            assert!(world.runs_of(low).is_empty(), "high ones are first");
        }
    }
    let started = world.started.iter().find(|(task, ..)| *task == low).map(|(.., at)| *at - begun);
    // Those high ones that came in its first two minutes are before it: 49 with the first one, of 5 s each.
    assert!(started.is_some_and(|after| after >= secs(120) && after <= secs(250)), "{started:?}");
}

#[test]
fn handlers_run_within_their_kinds_concurrency_and_the_higher_priority_first() {
    let mut world = World::new(2, 1);
    world.jobs(1).register("work", KindLimits { concurrency: 2, queue: 99, time_limit: None, pure: false });
    world.behaviour = Box::new(|_, _, _| (ms(100), Ok(Bytes::new())));
    let with = |priority| SubmitOptions { priority, ..Default::default() };
    let first: Vec<_> = (0..2u8).map(|n| world.submit(1, &[n], with(Priority::Low))).collect();
    let low = world.submit(1, b"low", with(Priority::Low));
    let normal = world.submit(1, b"normal", with(Priority::Normal));
    let high = world.submit(1, b"high", with(Priority::High));
    assert_eq!(world.started.len(), 2);
    assert_eq!(world.jobs(1).gauges().running, 2);
    world.run(secs(1));
    let order: Vec<_> = world.started.iter().map(|(task, ..)| *task).collect();
    assert_eq!(order, [first[0], first[1], high, normal, low]);
}

#[test]
fn a_cancelled_handler_keeps_its_place_until_it_has_come_back() {
    let rng = Rng::seed_from_u64(1);
    let now = World::new(1, 1).now;
    let mut jobs = Jobs::new(Config::default(), key(1), 1, now, rng);
    jobs.register("work", KindLimits { concurrency: 1, queue: 9, time_limit: None, pure: false });
    jobs.set_placement(now, std::sync::Arc::new(View::of(&[1])));
    persist(&mut jobs);
    let mut submit = || jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    let first = submit();
    submit();
    let run = jobs.poll_run(now).unwrap();
    assert!(jobs.poll_run(now).is_none());
    assert!(jobs.cancel(now, first));
    assert_eq!(jobs.poll_cancel(), Some(run.id));
    assert!(jobs.poll_run(now).is_none(), "the handler is still there");
    jobs.finished(now, run.id, Err(JobError::Cancelled));
    assert!(jobs.poll_run(now).is_some());
}

#[test]
fn nothing_runs_under_a_counter_that_a_restart_could_forget() {
    let mut now = World::new(1, 1).now;
    let config = Config { initial_epoch: 7, ..Config::default() };
    let mut jobs = Jobs::new(config, key(1), 1, now, Rng::seed_from_u64(1));
    jobs.register("work", KindLimits::default());
    jobs.set_placement(now, std::sync::Arc::new(View::of(&[1])));
    jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    assert!(jobs.poll_run(now).is_none());
    assert_eq!(jobs.stats().busy, 1);
    assert_eq!(jobs.poll_persist(), Some(7 + crate::ring::TENURE_RESERVE));
    assert_eq!(jobs.poll_persist(), None, "asked for once");
    jobs.on_persisted(7 + crate::ring::TENURE_RESERVE);
    let run = loop {
        now = jobs.poll_timeout().expect("it is tried again");
        jobs.handle_timeout(now);
        if let Some(run) = jobs.poll_run(now) {
            break run;
        }
    };
    assert_eq!(run.token, Epoch { counter: 8, owner: key(1) });
}

#[test]
fn what_is_over_a_limit_is_refused_with_the_reason() {
    let mut world = World::new(3, 1);
    let now = world.now;
    let mut submit = |kind: &str, key: &[u8], len: usize, life| {
        let options = SubmitOptions { life, ..Default::default() };
        world.jobs(1).submit(now, kind, key, Bytes::from(vec![0; len]), options)
    };
    let too_long = options::MAX_PAYLOAD_LEN + 1;
    assert_eq!(submit("work", b"", too_long, secs(1)), Err(SubmitError::PayloadTooLarge { len: too_long }));
    assert_eq!(submit("", b"", 0, secs(1)), Err(SubmitError::BadKind));
    assert_eq!(submit(&"k".repeat(65), b"", 0, secs(1)), Err(SubmitError::BadKind));
    assert_eq!(submit("work", &[0; options::MAX_KEY_LEN + 1], 0, secs(1)), Err(SubmitError::BadKey));
    assert_eq!(submit("work", b"", 0, secs(0)), Err(SubmitError::BadLife));
    assert_eq!(submit("work", b"", 0, options::MAX_LIFE + ms(1)), Err(SubmitError::BadLife));
    assert!(submit("work", b"", options::MAX_PAYLOAD_LEN, options::MAX_LIFE).is_ok());
}

#[test]
fn open_tasks_are_bounded_in_number_and_in_bytes() {
    let now = World::new(1, 1).now;
    let mut jobs = Jobs::new(Config::default(), key(1), 1, now, Rng::seed_from_u64(1));
    let big = Bytes::from(vec![0; options::MAX_PAYLOAD_LEN]);
    let mut taken = 0;
    while jobs.submit(now, "work", b"", big.clone(), SubmitOptions::default()).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, options::MAX_SUBMISSION_BYTES / options::MAX_PAYLOAD_LEN);
    assert_eq!(jobs.stats().refused_submits, 1);
    let mut jobs = Jobs::new(Config::default(), key(1), 1, now, Rng::seed_from_u64(1));
    for _ in 0..options::MAX_SUBMISSIONS {
        jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    }
    let refused = jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default());
    assert!(matches!(refused, Err(SubmitError::Busy { .. })));
    // Resolved ids are bounded, too.
    for round in 0..5 {
        let at = now + secs(301 * (round + 1));
        jobs.handle_timeout(at);
        assert_eq!(jobs.gauges().open, 0);
        for _ in 0..options::MAX_SUBMISSIONS {
            jobs.submit(at, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
        }
        while jobs.poll_event().is_some() {}
    }
    assert!(jobs.submitter.resolved_len() <= options::MAX_RESOLVED);
}

#[test]
fn an_executor_is_bounded_in_tasks_and_bytes() {
    let mut world = World::new(1, 2);
    let now = world.now;
    world.behaviour = Box::new(|_, _, _| (secs(3600), Ok(Bytes::new())));
    world
        .jobs(1)
        .register("work", KindLimits { concurrency: 1, queue: usize::MAX, time_limit: None, pure: false });
    let options = SubmitOptions { life: secs(3600), ..Default::default() };
    for _ in 0..options::MAX_EXECUTIONS + 50 {
        world.jobs(1).submit(now, "work", b"", Bytes::new(), options.clone()).unwrap();
    }
    world.drain();
    assert_eq!(world.jobs(1).gauges().executing, options::MAX_EXECUTIONS);
    assert_eq!(world.jobs(1).stats().busy, 50);
    assert_eq!(world.jobs(1).gauges().tenures, 1);
}

#[test]
fn outcomes_are_bounded_and_none_is_evicted() {
    let now = World::new(1, 1).now;
    let mut jobs = Jobs::new(Config::default(), key(1), 1, now, Rng::seed_from_u64(1));
    jobs.set_placement(now, std::sync::Arc::new(View::of(&[1, 2])));
    let token = Epoch { counter: 1, owner: key(2) };
    let mut copy = |n: u32, outcome: Bytes| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let copy = RecordCopy {
            task: TaskId::from_bytes(id),
            digest: [0; 32],
            submitters: vec![key(3)],
            kind: "work".into(),
            key: Bytes::new(),
            keep: secs(60),
            record: Record::new(Ok(outcome), token, key(2)),
        };
        jobs.dispatch(now, Submitter::alone(key(2)), Message::Replica(copy));
        (jobs.replica.len(), jobs.replica.held_bytes(), jobs.stats().records_refused)
    };
    let big = Bytes::from(vec![0; 1 << 24]);
    let fit = options::MAX_RECORD_BYTES >> 24;
    for n in 0..=fit as u32 {
        copy(n, big.clone());
    }
    assert_eq!(copy(0, big.clone()), (fit, options::MAX_RECORD_BYTES, 1));
    for n in 0..options::MAX_RECORDS as u32 {
        copy(1000 + n, Bytes::new());
    }
    let (records, _, refused) = copy(1, big.clone());
    assert_eq!((records, refused), (options::MAX_RECORDS, 1 + fit as u64));
    // A record that is there may not grow beyond it either.
    assert_eq!(copy(1000, big), (records, options::MAX_RECORD_BYTES, refused + 1));
    // The table is empty after their horizon.
    jobs.handle_timeout(now + secs(61));
    assert_eq!((jobs.gauges().records, jobs.gauges().record_bytes), (0, 0));
}

#[test]
fn the_outbox_and_the_notices_are_bounded() {
    let mut world = World::new(1, 3);
    let now = world.now;
    let task = TaskId::from_bytes([1; 16]);
    for _ in 0..options::MAX_OUTBOX + 10 {
        let ask = Message::Ask { task, digest: [0; 32] };
        world.jobs(1).dispatch(now, Submitter::alone(key(2)), ask);
    }
    assert_eq!(world.jobs(1).stats().outbox_dropped, 10);
    let mine = world.jobs(2).submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    let token = Epoch { counter: 1, owner: key(1) };
    let accepted = Message::Accepted { task: mine, attempt: 0, boot: 1, token, lanes: None };
    world.jobs(2).dispatch(now, Submitter::alone(key(1)), accepted);
    for _ in 0..options::MAX_EVENTS + 10 {
        let progress = Message::Progress { task: mine, attempt: 0, note: Bytes::new() };
        world.jobs(2).dispatch(now, Submitter::alone(key(1)), progress);
    }
    assert!(world.jobs(2).stats().events_dropped > 0);
    let record = Record::new(Ok(Bytes::new()), token, key(1));
    world.jobs(2).dispatch(
        now,
        Submitter::alone(key(1)),
        Message::Outcome { task: mine, attempt: 0, record },
    );
    let events = std::iter::from_fn(|| world.jobs(2).poll_event());
    assert!(events.last().is_some_and(|event| matches!(event, JobEvent::Done { .. })), "never dropped");
}

#[test]
fn beats_of_many_tasks_are_few_messages() {
    let mut world = World::new(1, 2);
    world.behaviour = Box::new(|_, _, _| (secs(60), Ok(Bytes::new())));
    world.jobs(1).register("work", KindLimits { concurrency: 2, queue: 2000, time_limit: None, pure: false });
    for n in 0..1000u32 {
        world.submit(2, &n.to_le_bytes(), SubmitOptions::default());
    }
    world.run(ms(500));
    let before = world.messages;
    world.run(secs(10));
    assert!(world.messages - before <= 30, "{} messages", world.messages - before);
    assert_eq!(world.jobs(2).stats().silences, 0, "a long queue is not silence");
}

#[test]
fn bytes_that_are_no_message_are_counted() {
    let mut world = World::new(1, 1);
    let now = world.now;
    for bytes in [&b""[..], &[1], &[1, 255, 255], &[1, 1, 0, 0xff], &[200, 0, 0]] {
        world.jobs(1).handle_message(now, Submitter::alone(key(2)), Bytes::from_static(bytes));
    }
    assert_eq!((world.jobs(1).stats().malformed, world.jobs(1).stats().unknown_type), (4, 1));
}

#[test]
fn beats_for_tasks_that_nobody_knows_cost_nothing() {
    let mut world = World::new(1, 2);
    let beats = (0..options::MAX_BEATS as u32).map(|n| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        Beat { task: TaskId::from_bytes(id), attempt: n, finished: None }
    });
    let before = world.messages;
    world.inject(2, 1, &Message::Beats { boot: 7, beats: beats.collect(), answer: false });
    assert_eq!(world.jobs(1).gauges(), Gauges::default());
    assert_eq!(world.messages, before);
}

#[test]
fn submitters_of_one_task_are_bounded() {
    let mut world = World::new(5, 8);
    world.behaviour = Box::new(|_, _, _| (secs(20), Ok(Bytes::new())));
    let (now, id) = (world.now, TaskId::from_bytes([4; 16]));
    for n in 3..=8 {
        let options = SubmitOptions { life: secs(10), ..Default::default() };
        world.jobs(n).submit_with_id(now, id, "work", b"key", Bytes::new(), options).unwrap();
    }
    world.run(secs(2));
    let accepted = |world: &World, n| {
        world.nodes[&key(n)].events.iter().any(|event| matches!(event, JobEvent::Accepted { .. }))
    };
    assert_eq!((3..=8).filter(|n| accepted(&world, *n)).count(), options::MAX_WAITERS);
}

#[test]
fn registered_kinds_are_bounded() {
    let mut world = World::new(6, 1);
    let mut taken = 1;
    while world.jobs(1).register(&format!("kind {taken}"), KindLimits::default()) {
        taken += 1;
    }
    assert_eq!(taken, options::MAX_KINDS);
    assert!(world.jobs(1).register("work", KindLimits::default()), "known ones may change");
    assert!(!world.jobs(1).register("", KindLimits::default()));
}

#[test]
fn an_acknowledgement_that_overtakes_its_outcome_counts_and_such_are_bounded() {
    let mut world = World::new(7, 3);
    let now = world.now;
    let task = TaskId::from_bytes([5; 16]);
    let copy = |task| {
        Message::Replica(RecordCopy {
            task,
            digest: [0; 32],
            submitters: vec![key(3)],
            kind: "work".into(),
            key: Bytes::new(),
            keep: secs(60),
            record: Record::new(Ok(Bytes::from_static(b"r")), Epoch { counter: 1, owner: key(1) }, key(1)),
        })
    };
    let jobs = world.jobs(2);
    jobs.dispatch(now, Submitter::alone(key(3)), Message::Ack { task, hash: [1; 32] });
    jobs.dispatch(now, Submitter::alone(key(1)), copy(task));
    assert!(jobs.record(task).unwrap().is_settled());
    let other = TaskId::from_bytes([6; 16]);
    jobs.dispatch(now, Submitter::alone(key(3)), Message::Ack { task: other, hash: [1; 32] });
    for n in 0..options::MAX_EARLY_ACKS as u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        jobs.dispatch(
            now,
            Submitter::alone(key(3)),
            Message::Ack { task: TaskId::from_bytes(id), hash: [1; 32] },
        );
    }
    jobs.dispatch(now, Submitter::alone(key(1)), copy(other));
    assert!(!jobs.record(other).unwrap().is_settled(), "the oldest was forgotten");
}

#[test]
fn times_of_zero_do_not_stop_the_clock() {
    let zero = std::time::Duration::ZERO;
    let config = Config {
        accept_timeout: zero,
        beat_interval: zero,
        silence: zero,
        ask_timeout: zero,
        infeasible_after: zero,
        backoff_base: zero,
        backoff_cap: zero,
        fetch_after: zero,
        upload_floor: 0,
        ..Config::default()
    };
    let mut world = World::with(8, 3, config);
    let options = SubmitOptions { life: secs(2), ..Default::default() };
    let task = world.submit(3, b"x", options);
    world.run(secs(3));
    assert_eq!(world.outcomes(3, task).len(), 1);
}

#[test]
fn a_burst_of_failed_sends_is_dealt_with_once() {
    let mut world = World::new(9, 3);
    let now = world.now;
    world.kill(1, None);
    let task = world.submit(3, b"x", SubmitOptions::default());
    for _ in 0..1000 {
        world.jobs(3).on_send_failed(now, key(1));
    }
    assert_eq!(world.jobs(3).poll_timeout(), Some(now));
    world.jobs(3).handle_timeout(now);
    assert_eq!(world.jobs(3).stats().silences, 1);
    world.run_to_done(3, task, secs(5)).unwrap();
}
