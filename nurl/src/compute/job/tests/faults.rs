//! Deaths, silences, partitions and forged messages.

use bytes::Bytes;

use super::super::message::{Beat, Message};
use super::super::*;
use super::harness::{View, World, key, ms, secs};
use crate::ring::Epoch;

#[test]
fn when_the_owner_is_killed_the_next_one_takes_over_in_bounded_time() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        world.reports_losses = false;
        world.behaviour = Box::new(|_, _, _| (secs(3), Ok(Bytes::from_static(b"r"))));
        let task = world.submit(4, b"x", SubmitOptions::default());
        world.run(ms(1500));
        // No failure detector helps: the missed beats must be enough.
        world.kill(1, None);
        world.run_to_done(4, task, secs(20)).unwrap();
        assert_eq!(world.runs_of(task), [key(1), key(2)]);
        let again = world.started[1].2 - world.start;
        // 1.5 s, silence of 3.5 s since the last beat, back-off up to 0.2 s, asking 1 s, delays.
        assert!(again < ms(6400), "seed {seed}: {again:?}");
        let events = &world.nodes[&key(4)].events;
        assert!(events.iter().any(|event| matches!(event,
            JobEvent::Reassigned { from, to, why: Moved::Silent, .. } if *from == key(1) && *to == key(2))));
    }
}

/// When 16 of 20 nodes were killed at once, each task used to wait for a silence of each dead node, and 100 tasks
/// took half a minute.
#[test]
fn a_worker_that_fell_silent_over_one_task_is_passed_over_by_the_others_until_it_is_heard() {
    let mut world = World::new(5, 6);
    world.reports_losses = false;
    world.behaviour = Box::new(|_, _, _| (ms(10), Ok(Bytes::new())));
    (1..=3).for_each(|n| world.kill(n, None));
    let first = world.submit(6, b"a", SubmitOptions::default());
    world.run_to_done(6, first, secs(20)).unwrap();
    assert_eq!(world.runs_of(first), [key(4)]);
    let before = world.now;
    let next = world.submit(6, b"b", SubmitOptions::default());
    world.run_to_done(6, next, secs(1)).unwrap();
    assert_eq!(world.runs_of(next), [key(4)]);
    assert!(world.now - before < ms(500), "{:?}", world.now - before);
    // A new process of the node has been heard.
    world.restart(1, ms(0));
    world.run(secs(1));
    let last = world.submit(6, b"c", SubmitOptions::default());
    world.run_to_done(6, last, secs(1)).unwrap();
    assert_eq!(world.runs_of(last), [key(1)]);
}

#[test]
fn when_all_have_fallen_silent_they_are_asked_all_the_same() {
    let mut world = World::new(6, 3);
    world.reports_losses = false;
    world.partition(&[1, 2], &[3]);
    let task = world.submit(3, b"x", SubmitOptions::default());
    world.run(secs(4));
    world.cut.clear();
    world.run_to_done(3, task, secs(20)).unwrap();
}

#[test]
fn a_death_that_the_detector_sees_needs_no_missed_beats() {
    let mut world = World::new(3, 4);
    world.behaviour = Box::new(|_, _, _| (secs(3), Ok(Bytes::new())));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(500));
    world.kill(1, Some(ms(100)));
    world.run(secs(1));
    assert_eq!(world.runs_of(task).len(), 2);
}

#[test]
fn a_restarted_executor_has_forgotten_its_tasks_and_they_move_on_at_once() {
    let mut world = World::new(3, 4);
    world.behaviour = Box::new(|_, _, _| (secs(3), Ok(Bytes::new())));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(500));
    world.restart(1, ms(100));
    world.run_to_done(4, task, secs(10)).unwrap();
    assert_eq!(world.runs_of(task).len(), 2);
    assert!(world.started[1].2 - world.start < secs(2));
}

#[test]
fn a_retry_does_not_land_on_the_same_sick_node() {
    let mut world = World::new(5, 4);
    world.behaviour = Box::new(|node, _, _| {
        if node == key(1) { (ms(10), Err(JobError::retriable("sick"))) } else { (ms(10), Ok(Bytes::new())) }
    });
    world.max_delay = ms(1);
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(5));
    // A newcomer at the head of the list shifts the failing node to the second place: that of attempt 1.
    for n in 1..=4 {
        world.set_view(n, View::of(&[3, 1, 2, 4]));
    }
    world.run_to_done(4, task, secs(5)).unwrap();
    assert_eq!(world.runs_of(task).iter().filter(|node| **node == key(1)).count(), 1);
}

#[test]
fn a_silently_lost_result_is_fetched_not_computed_again() {
    let mut world = World::new(6, 4);
    world.reports_losses = false;
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(45));
    // The result and its copies are lost, but the later beats arrive.
    world.partition(&[1], &[2, 3, 4]);
    world.run(ms(100));
    world.cut.clear();
    world.run_to_done(4, task, secs(10)).unwrap();
    assert_eq!(world.runs_of(task).len(), 1);
    assert_eq!(world.jobs(4).stats().fetched, 1);
}

#[test]
fn an_outcome_that_only_a_replica_can_deliver_is_recalled_not_computed_again() {
    let mut world = World::new(7, 5);
    // The owners are 1, 2 and 3, but only 1 and 4 execute.
    let mut view = View::of(&[1, 2, 3, 4, 5]);
    for n in [2, 3, 5] {
        view.kinds.insert(key(n), [].into());
    }
    for n in 1..=5 {
        world.set_view(n, view.clone());
    }
    let task = world.submit(5, b"x", SubmitOptions::default());
    world.run(ms(45));
    // The executor can't reach the submitter any more, but it reaches the owners.
    world.partition(&[1], &[5]);
    world.run_to_done(5, task, secs(20)).unwrap();
    assert_eq!(world.runs_of(task), [key(1)]);
    assert_eq!(world.jobs(4).stats().recalled, 1);
}

#[test]
fn a_task_that_another_node_is_running_is_not_started_a_second_time() {
    let mut world = World::new(8, 4);
    world.reports_losses = false;
    world.behaviour = Box::new(|_, _, _| (secs(8), Ok(Bytes::new())));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(500));
    // Beats are lost for a while; then the second node asks the first one, which still runs the task.
    world.partition(&[1], &[4]);
    world.run(ms(3100));
    world.cut.clear();
    world.run_to_done(4, task, secs(10)).unwrap();
    assert_eq!(world.runs_of(task), [key(1)]);
    assert_eq!(world.jobs(2).stats().elsewhere, 1);
}

#[test]
fn after_a_partition_a_handle_has_resolved_once_duplicates_are_counted_and_replicas_agree() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5);
        world.behaviour = Box::new(|node, _, _| (secs(6), Ok(Bytes::copy_from_slice(node.as_bytes()))));
        let task = world.submit(5, b"x", SubmitOptions::default());
        world.run(secs(1));
        world.partition(&[1, 2], &[3, 4, 5]);
        world.run_to_done(5, task, secs(60)).unwrap();
        world.run(secs(10));
        world.cut.clear();
        for n in 1..=5u8 {
            for m in (1..=5).filter(|m| *m != n) {
                let now = world.now;
                world.jobs(n).on_member(now, key(m), MemberChange::Alive);
            }
        }
        world.run(secs(30));
        assert_eq!(world.outcomes(5, task).len(), 1, "seed {seed}");
        assert!(world.runs_of(task).len() >= 2);
        let records: Vec<_> = (1..=3).map(|n| world.jobs(n).record(task).cloned()).collect();
        assert!(records[0].is_some() && records.iter().all(|record| *record == records[0]), "{records:?}");
        let stats = world.nodes.values().map(|node| node.jobs.stats());
        let duplicates: u64 = stats.map(|stats| stats.duplicate_runs + stats.duplicate_results).sum();
        assert!(duplicates > 0, "seed {seed}");
    }
}

#[test]
fn an_outcome_of_a_member_that_is_not_on_the_list_is_ignored() {
    let mut world = World::new(9, 6);
    world.behaviour = Box::new(|_, _, _| (secs(1), Ok(Bytes::from_static(b"true"))));
    world.set_view(5, View::of(&[1, 2, 3]));
    let task = world.submit(5, b"x", SubmitOptions::default());
    world.run(ms(500));
    let token = Epoch { counter: 9, owner: key(6) };
    let record = Record::new(Ok(Bytes::from_static(b"forged")), token, key(6));
    world.inject(6, 5, &Message::Outcome { task, attempt: 0, record: record.clone() });
    let beat = Beat { task, attempt: 0, finished: Some(6) };
    world.inject(6, 5, &Message::Beats { boot: 1, beats: vec![beat], answer: false });
    assert_eq!(world.jobs(5).stats().forged_outcomes, 1);
    assert_eq!(world.jobs(5).stats().unexpected, 1);
    // A replica's record from such a node is refused, too.
    let copy = message::RecordCopy {
        task,
        digest: spec::digest("work", b"key", b"x"),
        submitters: vec![key(6)],
        kind: "work".into(),
        key: Bytes::from_static(b"key"),
        keep: secs(60),
        record,
    };
    world.set_view(2, View::of(&[1, 2, 3]));
    world.inject(6, 2, &Message::Replica(copy));
    assert_eq!(world.jobs(2).stats().forged_records, 1);
    assert_eq!(world.run_to_done(5, task, secs(5)), Ok(Bytes::from_static(b"true")));
}

#[test]
fn a_node_that_was_not_asked_cannot_accept_a_task_and_end_it() {
    let mut world = World::new(9, 6);
    world.behaviour = Box::new(|_, _, _| (secs(1), Ok(Bytes::from_static(b"true"))));
    world.set_view(5, View::of(&[1, 2, 3]));
    let task = world.submit(5, b"x", SubmitOptions::default());
    // Before an answer of the node that was asked, so there is no executor yet.
    let token = Epoch { counter: 1, owner: key(6) };
    world.inject(6, 5, &Message::Accepted { task, attempt: 0, boot: 1, token, lanes: None });
    let record = Record::new(Ok(Bytes::from_static(b"forged")), token, key(6));
    world.inject(6, 5, &Message::Outcome { task, attempt: 0, record });
    assert_eq!(world.run_to_done(5, task, secs(5)), Ok(Bytes::from_static(b"true")));
    let by = |event: &JobEvent| matches!(event, JobEvent::Accepted { by, .. } if *by == key(6));
    assert!(!world.nodes[&key(5)].events.iter().any(by));
    assert_eq!((world.jobs(5).stats().unexpected, world.jobs(5).stats().forged_outcomes), (1, 1));
}

#[test]
fn a_counter_far_ahead_fences_nobody_out() {
    let mut world = World::new(9, 3);
    let task = world.submit(3, b"x", SubmitOptions::default());
    let token = Epoch { counter: u64::MAX, owner: key(2) };
    world.inject(2, 3, &Message::Accepted { task, attempt: 0, boot: 1, token, lanes: None });
    assert_eq!(world.jobs(3).stats().epoch_refused, 1);
    assert!(world.jobs(3).highest_epoch() < 10);
    world.jobs(3).note_epoch(u64::MAX);
    assert_eq!(world.jobs(3).stats().epoch_refused, 2);
    world.run_to_done(3, task, secs(5)).unwrap();
}

#[test]
fn strangers_cannot_cancel_acknowledge_or_fetch() {
    let mut world = World::new(10, 4);
    world.behaviour = Box::new(|_, _, _| (secs(1), Ok(Bytes::from_static(b"r"))));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(200));
    world.inject(3, 1, &Message::Cancel { task });
    world.inject(3, 1, &Message::Ack { task, hash: [0; 32] });
    world.inject(3, 1, &Message::Withdraw { task, attempt: 9 });
    world.inject(3, 1, &Message::Fetch { task, attempt: 9 });
    assert!(world.jobs(1).stats().unexpected >= 3);
    assert_eq!(world.run_to_done(4, task, secs(5)), Ok(Bytes::from_static(b"r")));
    assert_eq!(world.runs_of(task).len(), 1);
}

#[test]
fn a_late_acceptance_is_adopted_and_the_other_node_is_called_off() {
    let mut world = World::new(11, 4);
    world.reports_losses = false;
    world.behaviour = Box::new(|_, _, _| (secs(4), Ok(Bytes::new())));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(ms(10));
    // Slow links: an answer takes up to 3 s, longer than the submitter waits.
    world.max_delay = secs(3);
    world.run(secs(20));
    world.max_delay = ms(20);
    world.run_to_done(4, task, secs(60)).unwrap();
    world.run(secs(30));
    assert_eq!(world.outcomes(4, task).len(), 1);
    for n in 1..=3 {
        assert_eq!(world.jobs(n).gauges().executing, 0, "node {n} goes on in vain");
    }
}

#[test]
fn a_new_owner_gets_the_outcomes_of_its_keys() {
    let mut world = World::new(12, 6);
    let task = world.submit(6, b"x", SubmitOptions::default());
    world.run_to_done(6, task, secs(5)).unwrap();
    world.run(secs(1));
    assert_eq!(world.jobs(5).record(task), None);
    for n in 1..=6 {
        world.set_view(n, View::of(&[5, 1, 2, 3, 4, 6]));
    }
    world.run(secs(1));
    assert_eq!(world.jobs(5).record(task).cloned(), world.jobs(1).record(task).cloned());
    // The submit is repeated at the new owner, which doesn't run it.
    let (now, payload) = (world.now, Bytes::from_static(b"x"));
    world.jobs(4).submit_with_id(now, task, "work", b"key", payload, SubmitOptions::default()).unwrap();
    let again = world.run_to_done(4, task, secs(5));
    assert!(matches!(again, Err(JobError::Settled { .. })), "{again:?}");
    assert_eq!(world.runs_of(task).len(), 1);
}

#[test]
fn a_copy_that_was_not_delivered_is_sent_again() {
    let mut world = World::new(13, 4);
    world.partition(&[1], &[2]);
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run_to_done(4, task, secs(5)).unwrap();
    world.run(secs(2));
    assert_eq!(world.jobs(2).record(task), None);
    world.cut.clear();
    world.run(secs(10));
    assert!(world.jobs(2).record(task).is_some());
}

#[test]
fn a_lost_owner_costs_a_re_submitted_task_one_second_and_no_more() {
    let mut world = World::new(14, 5);
    world.behaviour = Box::new(|_, _, _| (ms(10), Ok(Bytes::new())));
    // Node 1 never answers, and no failure detector has noticed.
    world.reports_losses = false;
    world.kill(1, None);
    let task = world.submit(5, b"x", SubmitOptions::default());
    world.run_to_done(5, task, secs(10)).unwrap();
    // 1 s without an acceptance, back-off up to 0.2 s, 1 s of asking, delays.
    assert!(world.now - world.start < ms(2500));
}
