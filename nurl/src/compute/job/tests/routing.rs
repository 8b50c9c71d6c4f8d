//! The routing of a task: its executor, forwarding, and views that differ.

use bytes::Bytes;

use super::super::message::{Message, Reason, Refused, Submit};
use super::super::*;
use super::harness::{View, World, key, ms, secs};
use crate::ring::Epoch;

#[test]
fn a_task_is_executed_by_the_first_of_the_list_and_its_handle_resolves_once() {
    let mut world = World::new(1, 5);
    let task = world.submit(5, b"hello", SubmitOptions::default());
    assert_eq!(world.run_to_done(5, task, secs(5)), Ok(Bytes::from_static(b"hello")));
    assert_eq!(world.runs_of(task), [key(1)]);
    world.run(secs(60));
    assert_eq!(world.outcomes(5, task).len(), 1);
    assert!(
        matches!(world.nodes[&key(5)].events[0], JobEvent::Accepted { by, token, .. } if by == key(1) && token.owner == key(1))
    );
}

#[test]
fn a_task_of_our_own_never_leaves_the_node() {
    let mut world = World::new(1, 1);
    let task = world.submit(1, b"x", SubmitOptions::default());
    assert_eq!(world.run_to_done(1, task, secs(1)), Ok(Bytes::from_static(b"x")));
    assert_eq!(world.messages, 0);
}

#[test]
fn an_idle_network_is_silent_after_the_last_outcome() {
    let mut world = World::new(1, 5);
    let task = world.submit(5, b"x", SubmitOptions::default());
    world.run_to_done(5, task, secs(5)).unwrap();
    world.run(secs(5));
    let before = world.messages;
    world.run(secs(3600));
    assert_eq!(world.messages, before);
    for node in world.nodes.values() {
        assert_eq!(node.jobs.poll_timeout(), None, "everything is forgotten after the horizon");
        assert_eq!(node.jobs.gauges().records, 0);
    }
}

#[test]
fn the_outcome_is_kept_by_the_owners_and_only_its_hash_after_the_acknowledgement() {
    let mut world = World::new(1, 5);
    let task = world.submit(5, b"hello", SubmitOptions::default());
    world.run_to_done(5, task, secs(5)).unwrap();
    world.run(secs(2));
    for n in 1..=3 {
        let record = world.jobs(n).record(task).unwrap_or_else(|| panic!("owner {n}")).clone();
        assert_eq!(record.hash, outcome_hash(&Ok(Bytes::from_static(b"hello"))));
        assert!(record.is_settled(), "owner {n} still has the bytes");
        assert_eq!(world.jobs(n).gauges().record_bytes, 0);
    }
    assert_eq!(world.jobs(4).record(task), None);
}

#[test]
fn a_node_that_is_not_on_its_own_list_forwards() {
    let mut world = World::new(1, 4);
    // The submitter's view lacks node 1, which comes first in all other views.
    world.set_view(4, View::of(&[2, 3, 4]));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run_to_done(4, task, secs(2)).unwrap();
    assert_eq!(world.runs_of(task), [key(1)]);
    assert_eq!(world.jobs(2).stats().forwarded, 1);
    assert_eq!(world.jobs(4).stats().attempts, 1);
}

#[test]
fn two_views_that_differ_never_bounce_a_task_for_ever() {
    let mut world = World::new(1, 3);
    // Node 1 takes node 2 for responsible, and node 2 takes node 1.
    world.set_view(1, View::of(&[2, 1]));
    world.set_view(2, View::of(&[1, 2]));
    world.set_view(3, View::of(&[1, 2]));
    world.set_view(1, View { placed: vec![key(2), key(1)], ..View::of(&[2]) });
    world.set_view(2, View { placed: vec![key(1), key(2)], ..View::of(&[1]) });
    let options = SubmitOptions { life: secs(20), ..Default::default() };
    let task = world.submit(3, b"x", options);
    assert_eq!(world.run_to_done(3, task, secs(30)), Err(JobError::Deadline));
    let forwards = world.jobs(1).stats().forwarded + world.jobs(2).stats().forwarded;
    let attempts = world.jobs(3).stats().attempts;
    assert!(attempts > 2, "the submitter goes on trying");
    assert!(
        forwards <= attempts * u64::from(options::MAX_HOPS),
        "{forwards} forwards of {attempts} attempts"
    );
}

#[test]
fn a_ring_of_stale_views_is_left_by_the_hop_limit_and_a_later_attempt_is_run() {
    let mut world = World::new(1, 4);
    // Each of 1, 2, 3 puts the next one first and itself second. So attempt 0 circles, and attempt 1 is run.
    world.set_view(1, View::of(&[2, 1]));
    world.set_view(2, View::of(&[3, 2]));
    world.set_view(3, View::of(&[1, 3]));
    world.set_view(4, View::of(&[1, 2, 3]));
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run_to_done(4, task, secs(10)).unwrap();
    assert_eq!(world.runs_of(task).len(), 1);
    let forwarded: u64 = (1..=3).map(|n| world.jobs(n).stats().forwarded).sum();
    assert_eq!(forwarded, u64::from(options::MAX_HOPS));
}

fn submit_message(task: TaskId, submitter: u8, hops: u8, payload: &'static [u8]) -> Message {
    Message::Submit(Submit {
        task,
        attempt: 0,
        reach: 0,
        hops,
        submitter: key(submitter),
        kind: "work".into(),
        key: Bytes::from_static(b"key"),
        priority: Priority::Normal,
        life: secs(60),
        ask: false,
        force: false,
        parent: None,
        anywhere: false,
        large: false,
        warrant: None,
        payload: Bytes::from_static(payload),
    })
}

#[test]
fn a_submit_that_comes_twice_runs_once_and_is_answered_twice() {
    let mut world = World::new(1, 3);
    let task = TaskId::from_bytes([7; 16]);
    let submit = submit_message(task, 2, 0, b"x");
    let mut jobs = world.nodes.remove(&key(1)).unwrap().jobs;
    let now = world.now;
    let answers = |jobs: &mut Jobs| -> Vec<Message> {
        std::iter::from_fn(|| jobs.poll_transmit())
            .filter(|(to, _)| *to == key(2))
            .map(|(_, bytes)| Message::decode(&bytes).unwrap())
            .collect()
    };
    jobs.handle_message(now, Submitter::alone(key(2)), submit.encode());
    let run = jobs.poll_run(now).unwrap();
    assert!(matches!(answers(&mut jobs)[..], [Message::Accepted { attempt: 0, boot: 1, .. }]));
    jobs.handle_message(now, Submitter::alone(key(2)), submit.encode());
    assert!(jobs.poll_run(now).is_none());
    assert!(matches!(answers(&mut jobs)[..], [Message::Accepted { .. }]));
    jobs.finished(now + ms(10), run.id, Ok(Bytes::from_static(b"r")));
    let is_outcome = |m: &Message| matches!(m, Message::Outcome { record, .. } if record.by == key(1));
    assert!(answers(&mut jobs).iter().any(is_outcome));
    jobs.handle_message(now, Submitter::alone(key(2)), submit.encode());
    assert!(jobs.poll_run(now).is_none(), "a finished task is not run again");
    assert!(answers(&mut jobs).iter().any(is_outcome), "its outcome is said again");
    assert_eq!((jobs.stats().runs, jobs.stats().duplicate_submits), (1, 2));
    // After the acknowledgement only the hash is left.
    jobs.handle_message(now, Submitter::alone(key(2)), Message::Ack { task, hash: [1; 32] }.encode());
    jobs.handle_message(now, Submitter::alone(key(2)), submit.encode());
    let answer = answers(&mut jobs);
    assert!(
        matches!(answer[..], [Message::Refused(Refused { reason: Reason::Settled { .. }, .. })]),
        "{answer:?}"
    );
    // The same id with another payload is an error, whatever the state.
    jobs.handle_message(now, Submitter::alone(key(2)), submit_message(task, 2, 0, b"other").encode());
    assert!(matches!(answers(&mut jobs)[..], [Message::Refused(Refused { reason: Reason::Conflict, .. })]));
}

#[test]
fn a_submit_in_anothers_name_is_ignored() {
    let mut world = World::new(1, 3);
    world.inject(3, 1, &submit_message(TaskId::from_bytes([7; 16]), 2, 0, b"x"));
    assert_eq!(world.jobs(1).stats().spoofed, 1);
    assert!(world.started.is_empty());
}

#[test]
fn the_same_id_with_another_payload_is_an_error() {
    let mut world = World::new(1, 3);
    let (now, id) = (world.now, TaskId::from_bytes([9; 16]));
    let mut again = |n: u8, payload: &'static [u8]| {
        let payload = Bytes::from_static(payload);
        let result = world.jobs(n).submit_with_id(now, id, "work", b"key", payload, SubmitOptions::default());
        world.drain();
        result
    };
    assert_eq!(again(3, b"one"), Ok(id));
    assert_eq!(again(3, b"one"), Ok(id));
    assert_eq!(again(3, b"two"), Err(SubmitError::Conflict(id)));
    assert_eq!(world.run_to_done(3, id, secs(5)), Ok(Bytes::from_static(b"one")));
    let (now, payload) = (world.now, Bytes::from_static(b"two"));
    let result = world.jobs(2).submit_with_id(now, id, "work", b"key", payload, SubmitOptions::default());
    assert_eq!(result, Ok(id), "node 2 can't know");
    world.drain();
    assert_eq!(world.run_to_done(2, id, secs(5)), Err(JobError::Conflict));
    assert_eq!(world.runs_of(id).len(), 1);
}

#[test]
fn one_task_submitted_through_two_nodes_runs_once_and_resolves_both_handles() {
    let mut world = World::new(1, 5);
    let (now, id) = (world.now, TaskId::from_bytes([9; 16]));
    for n in [4, 5] {
        let payload = Bytes::from_static(b"p");
        world.jobs(n).submit_with_id(now, id, "work", b"key", payload, SubmitOptions::default()).unwrap();
    }
    assert_eq!(world.run_to_done(4, id, secs(5)), Ok(Bytes::from_static(b"p")));
    assert_eq!(world.run_to_done(5, id, secs(5)), Ok(Bytes::from_static(b"p")));
    assert_eq!(world.runs_of(id).len(), 1);
}

#[test]
fn all_attempts_on_a_key_share_a_token_and_another_node_takes_a_higher_one() {
    let mut world = World::new(1, 3);
    world.behaviour = Box::new(|_, _, _| (secs(2), Ok(Bytes::new())));
    let tokens = |world: &World| -> Vec<Epoch> {
        let token = |event: &JobEvent| match event {
            JobEvent::Accepted { token, .. } => Some(*token),
            _ => None,
        };
        world.nodes[&key(3)].events.iter().filter_map(token).collect()
    };
    world.submit(3, b"a", SubmitOptions::default());
    world.submit(3, b"b", SubmitOptions::default());
    world.run(secs(1));
    assert_eq!(tokens(&world), [Epoch { counter: 1, owner: key(1) }; 2]);
    let highest = world.jobs(1).highest_epoch();
    world.jobs(2).note_epoch(highest);
    world.kill(1, Some(ms(100)));
    world.run(secs(5));
    let tokens = tokens(&world);
    assert_eq!(tokens[2..], [Epoch { counter: 2, owner: key(2) }; 2]);
}
