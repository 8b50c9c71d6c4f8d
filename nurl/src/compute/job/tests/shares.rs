//! What a holder of a ticket may do to others' tasks: nothing in another's name, and no more than its share.

use bytes::Bytes;

use super::super::forwarded::{CLAIM_WITHIN, MAX_FORWARDED};
use super::super::message::{Message, RecordCopy, Submit};
use super::super::spec::digest;
use super::super::*;
use super::harness::{View, World, key, ms, secs};
use crate::authority::account::Account;
use crate::authority::level::Level;
use crate::ring::Epoch;

const PAYLOAD: &[u8] = b"x";

fn task(n: u32) -> TaskId {
    let mut id = [0xaa; 16];
    id[..4].copy_from_slice(&n.to_le_bytes());
    TaskId::from_bytes(id)
}

/// A task that was forwarded in the name of `submitter`.
fn forwarded(task: TaskId, submitter: u8) -> Message {
    Message::Submit(Submit {
        task,
        attempt: 0,
        reach: 9,
        hops: 1,
        submitter: key(submitter),
        kind: "work".into(),
        key: Bytes::from_static(b"key"),
        priority: Priority::High,
        life: secs(3600),
        ask: false,
        force: false,
        parent: None,
        anywhere: false,
        large: false,
        warrant: None,
        payload: Bytes::from_static(PAYLOAD),
    })
}

fn claim(task: TaskId, payload: &[u8]) -> Message {
    Message::Claim { task, attempt: 4, digest: digest("work", b"key", payload) }
}

fn peer(account: Account) -> Submitter {
    Submitter::for_tests(account, Level::Worker, "")
}

/// The messages that a node got.
fn got(world: &World, n: u8) -> u64 {
    world.messages_to.get(&key(n)).copied().unwrap_or(0)
}

#[test]
fn a_task_in_anothers_name_runs_nothing_and_nobody_hears_of_it() {
    let mut world = World::new(1, 4);
    world.behaviour = Box::new(|_, _, _| (secs(600), Ok(Bytes::from(vec![0; 1 << 20]))));
    // One victim exists, the others don't.
    for n in 0..100 {
        world.inject(3, 1, &forwarded(task(n), if n == 0 { 2 } else { 100 + n as u8 }));
    }
    world.run(secs(700));
    assert!(world.started.is_empty());
    assert_eq!((world.messages, world.jobs(1).stats().unclaimed), (0, 100));
    assert_eq!(world.jobs(1).gauges().executing, 0);
}

#[test]
fn an_outcome_is_not_sent_to_one_in_whose_name_another_asks() {
    let mut world = World::new(1, 4);
    world.behaviour = Box::new(|_, _, _| (ms(1), Ok(Bytes::from(vec![0; 1 << 20]))));
    let task = task(1);
    world.inject(3, 1, &Message::Submit(Submit { hops: 0, submitter: key(3), ..submit(forwarded(task, 3)) }));
    world.run(ms(500));
    assert_eq!(world.runs_of(task), [key(1)]);
    let before = got(&world, 4);
    for _ in 0..100 {
        world.inject(3, 1, &forwarded(task, 4));
    }
    world.run(secs(60));
    assert_eq!(got(&world, 4), before);
}

fn submit(message: Message) -> Submit {
    match message {
        Message::Submit(submit) => submit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claimed_task_is_run_whichever_comes_first_and_only_the_one_that_is_claimed() {
    // The claim after the task, before it, too late, of another payload.
    for (before, after, payload, runs) in [
        (None, Some(secs(4)), PAYLOAD, true),
        (Some(secs(4)), None, PAYLOAD, true),
        (None, Some(CLAIM_WITHIN), PAYLOAD, false),
        (Some(CLAIM_WITHIN), None, PAYLOAD, false),
        (None, Some(secs(1)), b"another", false),
        (Some(secs(1)), None, b"another", false),
    ] {
        let mut world = World::new(1, 3);
        let task = task(1);
        if let Some(before) = before {
            world.inject(2, 1, &claim(task, payload));
            world.run(before);
        }
        world.inject(3, 1, &forwarded(task, 2));
        if let Some(after) = after {
            world.run(after);
            world.inject(2, 1, &claim(task, payload));
        }
        assert_eq!(world.runs_of(task).len(), usize::from(runs), "{before:?} {after:?} {payload:?}");
    }
}

#[test]
fn a_claim_by_another_is_none() {
    let mut world = World::new(1, 4);
    world.inject(3, 1, &forwarded(task(1), 2));
    world.inject(4, 1, &claim(task(1), PAYLOAD));
    world.inject(3, 1, &claim(task(1), PAYLOAD));
    assert!(world.started.is_empty());
}

#[test]
fn a_forwarder_of_many_tasks_does_not_displace_another_ones() {
    let mut world = World::new(1, 4);
    world.inject(2, 1, &forwarded(task(0), 4));
    for n in 1..=3 * MAX_FORWARDED as u32 {
        world.inject(3, 1, &forwarded(task(n), 100));
    }
    world.inject(4, 1, &claim(task(0), PAYLOAD));
    assert_eq!(world.runs_of(task(0)), [key(1)]);
    assert_eq!(world.jobs(1).stats().unclaimed, 2 * MAX_FORWARDED as u64 + 1);
}

/// An outcome of a made-up task.
fn replica(n: u32, by: u8) -> Message {
    Message::Replica(RecordCopy {
        task: task(n),
        digest: [0; 32],
        submitters: vec![key(9)],
        kind: "work".into(),
        key: Bytes::from_static(b"key"),
        keep: secs(3600),
        record: Record::new(Ok(Bytes::new()), Epoch { counter: 1, owner: key(by) }, key(by)),
    })
}

#[test]
fn a_worker_that_tells_many_outcomes_does_not_make_others_tasks_run_twice() {
    let mut world = World::new(1, 5);
    for node in 1..=3 {
        let now = world.now;
        for n in 0..options::MAX_RECORDS as u32 + 500 {
            world.jobs(node).dispatch(now, Submitter::alone(key(5)), replica(n, 5));
        }
        while world.jobs(node).poll_transmit().is_some() {}
    }
    let (now, id) = (world.now, TaskId::from_bytes([9; 16]));
    let again = |world: &mut World, n| {
        let payload = Bytes::from_static(b"p");
        world.jobs(n).submit_with_id(now, id, "work", b"key", payload, SubmitOptions::default()).unwrap();
        world.run(secs(2));
    };
    again(&mut world, 4);
    assert_eq!(world.runs_of(id).len(), 1);
    again(&mut world, 2);
    assert_eq!(world.runs_of(id).len(), 1, "the outcome was kept");
    assert!(world.jobs(1).stats().records_evicted > 0);
    assert_eq!(world.jobs(1).gauges().records, options::MAX_RECORDS);
}

#[test]
fn a_worker_that_neither_owns_the_key_nor_is_asked_for_it_tells_no_outcomes() {
    let mut world = World::new(1, 30);
    world.inject(20, 1, &replica(1, 20));
    assert_eq!((world.jobs(1).gauges().records, world.jobs(1).stats().forged_records), (0, 1));
    for teller in [2, 6, 8] {
        world.inject(teller, 1, &replica(teller.into(), teller));
    }
    assert_eq!(world.jobs(1).gauges().records, 3);
    // A former owner passes its outcomes on, for a while.
    world.set_view(1, View::of(&[20, 21, 22]));
    world.set_view(1, View::of(&(1..=30).collect::<Vec<_>>()));
    world.inject(20, 1, &replica(40, 20));
    assert_eq!(world.jobs(1).gauges().records, 4);
    world.run(secs(601));
    world.inject(20, 1, &replica(41, 20));
    assert_eq!(world.jobs(1).gauges().records, 4);
}

#[test]
fn a_task_starts_within_one_run_beside_3000_sleepers_of_one_submitter() {
    let mut world = World::new(1, 4);
    for n in 1..=4 {
        world.set_view(n, View::of(&[1]));
    }
    world.behaviour =
        Box::new(|_, payload, _| (secs(if payload == b"honest" { 1 } else { 60 }), Ok(Bytes::new())));
    let sleeper = SubmitOptions { life: secs(36_000), priority: Priority::High, ..Default::default() };
    for n in 0..3000u32 {
        world.submit(3, &n.to_le_bytes(), sleeper.clone());
    }
    world.run(secs(130));
    for _ in 0..3 {
        let honest = world.submit(2, b"honest", SubmitOptions::default());
        let begun = world.now;
        world.run_to_done(2, honest, secs(81)).unwrap();
        let (_, _, started) = *world.started.iter().find(|(task, ..)| *task == honest).unwrap();
        assert!(started - begun <= secs(80), "{:?}", started - begun);
    }
    assert!(world.jobs(1).stats().gave_way > 0);
    assert_eq!(world.jobs(1).gauges().running, 4, "alone, the sleepers use everything");
}

/// A slip's task, by its own word.
fn submit_as(world: &mut World, account: Account, number: u32, priority: Priority, payload: &'static [u8]) {
    let base = submit(forwarded(task(number), 1));
    let submitted = Submit {
        hops: 0,
        reach: 0,
        submitter: account.key(),
        life: secs(36_000),
        priority,
        payload: Bytes::from_static(payload),
        ..base
    };
    let now = world.now;
    world.jobs(1).handle_message(now, peer(account), Message::Submit(submitted).encode());
    world.drain();
}

#[test]
fn a_task_starts_within_one_run_beside_3000_sleepers_of_many_slips_of_one_pass() {
    // One handler at a time, and four; another pass of the same invitation, and one of another.
    for (concurrency, honest) in [1, 4].into_iter().flat_map(|n| [(n, (1, 2)), (n, (2, 2))]) {
        let mut world = World::new(1, 2);
        world.set_view(1, View::of(&[1]));
        world.jobs(1).register("work", KindLimits { concurrency, ..KindLimits::default() });
        world.behaviour =
            Box::new(|_, payload, _| (secs(if payload == b"honest" { 1 } else { 60 }), Ok(Bytes::new())));
        for n in 0..3_000 {
            submit_as(&mut world, Account::for_tests(1, 1, n), n, Priority::High, b"sleep");
        }
        world.run(secs(130));
        for round in 0..3u32 {
            // Sleepers go on to come.
            for n in 0..200 {
                let number = 10_000 * (round + 1) + n;
                submit_as(&mut world, Account::for_tests(1, 1, number), number, Priority::High, b"sleep");
            }
            let (number, begun) = (90_000 + round, world.now);
            let account = Account::for_tests(honest.0, honest.1, number);
            submit_as(&mut world, account, number, Priority::Low, b"honest");
            world.run(secs(80));
            let started =
                world.started.iter().find(|(id, ..)| *id == task(number)).map(|(.., at)| *at - begun);
            assert!(started.is_some_and(|after| after <= secs(80)), "{concurrency} {honest:?}: {started:?}");
        }
    }
}

#[test]
fn outcomes_told_by_all_keys_of_one_invitation_push_nobody_elses_out() {
    let mut world = World::new(1, 5);
    let now = world.now;
    let teller = Account::for_tests(2, 9, 9);
    // The honest one is an owner, as those of the first invitation are.
    let dispatch = |world: &mut World, account: Account, n: u32, by: u8| {
        let mut message = replica(n, by);
        if let Message::Replica(copy) = &mut message {
            // A submitter may tell its own task's end.
            copy.record = Record::new(Err(JobError::Deadline), copy.record.token, copy.record.by);
            copy.submitters = vec![account.key()];
        }
        world.jobs(1).dispatch(now, peer(account), message);
        while world.jobs(1).poll_transmit().is_some() {}
    };
    for n in 0..100 {
        dispatch(&mut world, teller, n, 5);
    }
    for n in 100..66_100 {
        dispatch(&mut world, Account::for_tests(1, n as u16 % 64, n), n, 5);
    }
    assert_eq!(world.jobs(1).gauges().records, options::MAX_RECORDS);
    for n in 0..100 {
        assert!(world.jobs(1).record(task(n)).is_some(), "{n}");
    }
    // A newcomer of a third finds room, and so does the second again.
    for (n, account) in [(70_000, Account::for_tests(3, 3, 3)), (70_001, teller)] {
        dispatch(&mut world, account, n, 5);
        assert!(world.jobs(1).record(task(n)).is_some());
    }
}

#[test]
fn a_submitter_that_fills_all_tables_leaves_room_for_others() {
    let mut world = World::new(1, 4);
    for n in 1..=4 {
        world.set_view(n, View::of(&[1]));
    }
    world.jobs(1).register("work", KindLimits { queue: usize::MAX, ..Default::default() });
    world.behaviour = Box::new(|_, _, _| (secs(60), Ok(Bytes::new())));
    let options = SubmitOptions { life: secs(3600), ..Default::default() };
    for n in 0..options::MAX_EXECUTIONS as u32 + 500 {
        world.submit(3, &n.to_le_bytes(), options.clone());
    }
    world.run(secs(1));
    assert_eq!(world.jobs(1).gauges().executing, options::MAX_EXECUTIONS);
    let honest = world.submit(2, b"honest", options);
    world.run(ms(100));
    assert!(
        world.nodes[&key(2)]
            .events
            .iter()
            .any(|event| matches!(event, JobEvent::Accepted { task, .. } if *task == honest))
    );
}
