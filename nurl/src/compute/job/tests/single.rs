//! One node, driven directly. What a call leads to happens in the same call, and waits for no other event or timer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand_core::SeedableRng;

use super::super::message::{Message, RecordCopy, Submit};
use super::super::*;
use super::harness::{View, World, key, persist, secs};
use crate::key::PublicKey;
use crate::ring::Epoch;
use crate::rt::Rng;

/// Node `of` among workers 1 to `count`, the first of whom executes all.
fn node(of: u8, count: u8) -> (Instant, Jobs) {
    let now = World::new(1, 1).now;
    let mut jobs = Jobs::new(Config::default(), key(of), 1, now, Rng::seed_from_u64(1));
    jobs.register("work", KindLimits::default());
    jobs.set_placement(now, Arc::new(View::of(&(1..=count).collect::<Vec<_>>())));
    persist(&mut jobs);
    (now, jobs)
}

fn said(jobs: &mut Jobs) -> Vec<(PublicKey, Message)> {
    std::iter::from_fn(|| jobs.poll_transmit())
        .map(|(to, bytes)| (to, Message::decode(&bytes).unwrap()))
        .collect()
}

#[test]
fn a_task_of_this_nodes_own_starts_with_the_call_that_submits_it() {
    let (now, mut jobs) = node(1, 1);
    let options = SubmitOptions::default;
    jobs.submit(now, "work", b"", Bytes::new(), options()).unwrap();
    let first = jobs.poll_run(now).expect("submitted");
    let id = TaskId::from_bytes([7; 16]);
    jobs.submit_with_id(now, id, "work", b"", Bytes::new(), options()).unwrap();
    let second = jobs.poll_run(now).expect("submitted with an id");
    assert_eq!(second.task, id);
    assert!(jobs.cancel(now, id));
    assert_eq!(jobs.poll_cancel(), Some(second.id), "cancelled");
    jobs.finished(now, first.id, Ok(Bytes::new()));
    let done = std::iter::from_fn(|| jobs.poll_event());
    assert!(done.into_iter().any(|event| matches!(event, JobEvent::Done { task, .. } if task == first.task)));
}

#[test]
fn an_outcome_goes_to_the_keys_owners_with_the_call_that_records_it() {
    let (now, mut jobs) = node(1, 5);
    jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    let run = jobs.poll_run(now).unwrap();
    said(&mut jobs);
    jobs.finished(now, run.id, Ok(Bytes::new()));
    let told: BTreeSet<_> = said(&mut jobs)
        .into_iter()
        .filter_map(|(to, message)| matches!(message, Message::Replica(_)).then_some(to))
        .collect();
    assert_eq!(told, BTreeSet::from([key(2), key(3)]), "the other owners");
}

/// A task that somebody else submits, by their third attempt.
fn submit(reach: u16, ask: bool) -> Submit {
    Submit {
        task: TaskId::from_bytes([7; 16]),
        attempt: 3,
        reach,
        hops: 0,
        submitter: key(20),
        kind: "work".into(),
        key: Bytes::new(),
        priority: Priority::Normal,
        life: secs(60),
        ask,
        force: false,
        parent: None,
        anywhere: false,
        large: false,
        warrant: None,
        payload: Bytes::new(),
    }
}

fn tell(jobs: &mut Jobs, now: Instant, message: &Message) {
    jobs.handle_message(now, Submitter::alone(key(20)), message.encode());
}

#[test]
fn a_run_for_which_nobody_waits_any_more_is_stopped_with_the_message_that_says_so() {
    let task = TaskId::from_bytes([7; 16]);
    // What is said, and whether the run ends by it.
    for (message, ends) in [
        (Message::Cancel { task }, true),
        (Message::Withdraw { task, attempt: 3 }, true),
        (Message::Withdraw { task, attempt: 4 }, true),
        // It belongs to an attempt that came before.
        (Message::Withdraw { task, attempt: 2 }, false),
        (Message::Cancel { task: TaskId::from_bytes([8; 16]) }, false),
    ] {
        let (now, mut jobs) = node(1, 3);
        tell(&mut jobs, now, &Message::Submit(submit(0, false)));
        let run = jobs.poll_run(now).expect("submitted");
        tell(&mut jobs, now, &message);
        assert_eq!(jobs.poll_cancel(), ends.then_some(run.id), "{message:?}");
        assert_eq!(jobs.gauges().executing, usize::from(!ends), "{message:?}");
    }
}

/// To whom copies of records are sent within a second.
fn copies(jobs: &mut Jobs, now: Instant) -> BTreeSet<PublicKey> {
    while let Some(due) = jobs.poll_timeout().filter(|due| *due <= now + secs(1)) {
        jobs.handle_timeout(due);
    }
    let copies = said(jobs).into_iter().filter(|(_, message)| matches!(message, Message::Replica(_)));
    copies.map(|(to, _)| to).collect()
}

#[test]
fn an_owner_that_is_back_gets_the_copies_again_and_an_executors_death_sends_them_to_the_others() {
    let (now, mut jobs) = node(1, 3);
    tell(&mut jobs, now, &Message::Submit(submit(0, false)));
    let run = jobs.poll_run(now).expect("submitted");
    jobs.finished(now, run.id, Ok(Bytes::new()));
    let copy = said(&mut jobs).into_iter().find(|(_, message)| matches!(message, Message::Replica(_)));
    let (_, copy) = copy.expect("to the owners");
    assert_eq!(copies(&mut jobs, now), BTreeSet::new(), "both have it");
    jobs.on_member(now, key(3), MemberChange::Dead);
    assert_eq!(copies(&mut jobs, now), BTreeSet::new(), "the other one has it still");
    jobs.on_member(now, key(3), MemberChange::Alive);
    assert_eq!(copies(&mut jobs, now), BTreeSet::from([key(3)]), "it may lack all");
    // Another owner has it from the executor, which may have told it to nobody else.
    let (now, mut other) = node(2, 3);
    other.handle_message(now, Submitter::alone(key(1)), copy.encode());
    assert_eq!(copies(&mut other, now), BTreeSet::new());
    other.on_member(now, key(1), MemberChange::Dead);
    assert!(copies(&mut other, now).contains(&key(3)));
}

#[test]
fn an_owner_that_is_back_gets_all_copies_in_batches() {
    let (mut now, mut jobs) = node(1, 3);
    let count = 2 * options::RESYNC_BATCH + 1;
    let token = Epoch { counter: 1, owner: key(2) };
    for n in 0..count as u128 {
        let copy = RecordCopy {
            task: TaskId::from_bytes(n.to_le_bytes()),
            digest: [0; 32],
            submitters: vec![key(20)],
            kind: "work".into(),
            key: Bytes::new(),
            keep: secs(60),
            record: Record::new(Ok(Bytes::new()), token, key(2)),
        };
        jobs.handle_message(now, Submitter::alone(key(2)), Message::Replica(copy).encode());
    }
    said(&mut jobs);
    jobs.on_member(now, key(3), MemberChange::Alive);
    let mut batches = Vec::new();
    while let Some(due) = jobs.poll_timeout().filter(|due| *due <= now + secs(1)) {
        now = due;
        jobs.handle_timeout(now);
        let copies = said(&mut jobs)
            .into_iter()
            .filter(|(to, message)| *to == key(3) && matches!(message, Message::Replica(_)));
        batches.push(copies.count());
    }
    batches.retain(|copies| *copies > 0);
    assert_eq!(batches, [options::RESYNC_BATCH, options::RESYNC_BATCH, 1]);
}

#[test]
fn an_outcome_that_is_said_again_is_no_second_run_and_anothers_is() {
    let (now, mut jobs) = node(4, 3);
    let task = jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    let token = |owner| Epoch { counter: 1, owner: key(owner) };
    let accepted = Message::Accepted { task, attempt: 0, boot: 1, token: token(1), lanes: None };
    jobs.handle_message(now, Submitter::alone(key(1)), accepted.encode());
    for (by, second_runs) in [(1, 0), (1, 0), (2, 1)] {
        let record = Record::new(Ok(Bytes::new()), token(by), key(by));
        let outcome = Message::Outcome { task, attempt: 0, record };
        jobs.handle_message(now, Submitter::alone(key(by)), outcome.encode());
        let said = said(&mut jobs);
        let acks =
            said.iter().filter(|(to, message)| *to == key(by) && matches!(message, Message::Ack { .. }));
        assert_eq!(acks.count(), 1, "by {by}");
        assert_eq!(jobs.stats().duplicate_results, second_runs, "by {by}");
    }
}

#[test]
fn an_executor_is_told_to_stop_before_it_gets_the_copy_that_it_would_pass_on() {
    let (now, mut jobs) = node(4, 3);
    let task = jobs.submit(now, "work", b"", Bytes::new(), SubmitOptions::default()).unwrap();
    let token = Epoch { counter: 1, owner: key(1) };
    let accepted = Message::Accepted { task, attempt: 0, boot: 1, token, lanes: None };
    jobs.handle_message(now, Submitter::alone(key(1)), accepted.encode());
    said(&mut jobs);
    assert!(jobs.cancel(now, task));
    let told: Vec<_> = said(&mut jobs).into_iter().filter(|(to, _)| *to == key(1)).collect();
    assert!(matches!(&told[..], [(_, Message::Cancel { .. }), (_, Message::Replica(_))]), "{told:?}");
}

#[test]
fn those_who_may_have_run_a_task_are_asked_up_to_eight() {
    for (reach, asked) in [(0, 2), (2, 2), (5, 5), (7, 7), (8, 8), (13, 8)] {
        // The last one within its reach: all before it may have had it, and the owners.
        let (now, mut jobs) = node(reach as u8 + 1, 14);
        tell(&mut jobs, now, &Message::Submit(submit(reach, true)));
        let asks = said(&mut jobs).into_iter().filter(|(_, message)| matches!(message, Message::Ask { .. }));
        assert_eq!(asks.count(), asked, "reach {reach}");
    }
}
