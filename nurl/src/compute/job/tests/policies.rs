//! Who may submit a kind: decided by the worker that is asked, on the word of the submitter's own session.

use bytes::Bytes;

use super::super::message::{Message, Reason, Refused, Submit};
use super::super::policy::{Needs, Policy};
use super::super::spec::digest;
use super::super::*;
use super::harness::{View, World, key, ms, secs};
use crate::authority::account::Account;
use crate::authority::level::Level;

fn needs(policies: &[&str]) -> Needs {
    let mut needs = Needs::default();
    policies.iter().for_each(|text| needs.add(text.parse().unwrap()).unwrap());
    needs
}

fn as_level(n: u8, level: Level) -> Submitter {
    Submitter::for_tests(Account::alone(key(n)), level, "")
}

fn task(n: u8) -> TaskId {
    TaskId::from_bytes([n; 16])
}

fn submit(task: TaskId, submitter: u8, hops: u8) -> Submit {
    Submit {
        task,
        attempt: 0,
        reach: 9,
        hops,
        submitter: key(submitter),
        kind: "work".into(),
        key: Bytes::from_static(b"key"),
        priority: Priority::Normal,
        life: secs(3600),
        ask: false,
        force: false,
        parent: None,
        anywhere: false,
        large: false,
        warrant: None,
        payload: Bytes::from_static(b"x"),
    }
}

fn not_allowed(world: &World, n: u8) -> u64 {
    world.jobs_ref(n).stats().not_allowed
}

fn error(needs: &str) -> Result<Bytes, JobError> {
    Err(JobError::NotAllowed { kind: "work".to_owned(), needs: needs.to_owned() })
}

/// The workers 1 to 3, of which each permits this level, and a submitter (4) at level *submit*.
fn world(levels: [&str; 3]) -> World {
    let mut world = World::new(1, 4);
    world.set_level(4, Level::Submit);
    for n in 1..=4 {
        world.set_view(n, View::of(&[1, 2, 3]));
    }
    for (n, level) in (1..=3).zip(levels) {
        world.jobs(n).allow("work", needs(&[level]));
    }
    world
}

#[test]
fn a_submitter_that_all_refuse_has_a_clear_error_at_once_and_each_was_asked_once() {
    let mut world = world(["member", "alice", "member"]);
    let task = world.submit(4, b"x", SubmitOptions::default());
    let begun = world.now;
    assert_eq!(world.run_to_done(4, task, secs(5)), error("level member or name alice"));
    assert!(world.now - begun < secs(1), "{:?}", world.now - begun);
    world.run(secs(400));
    assert!(world.started.is_empty());
    assert_eq!([1, 2, 3].map(|n| not_allowed(&world, n)), [1, 1, 1]);
    assert_eq!(world.jobs(4).stats().not_allowed_seen, 3);
    // It took no place anywhere, and is no outcome.
    for n in 1..=3 {
        assert_eq!((world.jobs(n).gauges().executing, world.jobs(n).gauges().records), (0, 0));
    }
}

#[test]
fn policies_that_differ_lead_to_the_worker_that_permits_it() {
    let mut world = world(["member", "member", "submit"]);
    let task = world.submit(4, b"x", SubmitOptions::default());
    assert_eq!(world.run_to_done(4, task, secs(2)), Ok(Bytes::from_static(b"x")));
    assert_eq!(world.runs_of(task), [key(3)]);
    assert_eq!(world.jobs(4).stats().silences, 0);
}

#[test]
fn workers_that_refuse_and_workers_without_the_kind_are_all_of_them() {
    for lacks_it in 1..=3 {
        let mut world = world(["submit"; 3]);
        for n in (1..=3).filter(|n| *n != lacks_it) {
            world.jobs(n).register("rare", KindLimits::default());
            world.jobs(n).allow("rare", needs(&["member"]));
        }
        let (now, options) = (world.now, SubmitOptions::default());
        let task = world.jobs(4).submit(now, "rare", b"key", Bytes::new(), options).unwrap();
        let error = JobError::NotAllowed { kind: "rare".to_owned(), needs: "level member".to_owned() };
        assert_eq!(world.run_to_done(4, task, secs(3)), Err(error), "{lacks_it}");
    }
}

#[test]
fn one_that_permits_it_but_is_silent_is_asked_again_and_those_that_refuse_are_not() {
    let mut world = world(["member", "member", "submit"]);
    world.partition(&[3], &[1, 2, 4]);
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(secs(20));
    assert!(world.outcomes(4, task).is_empty());
    world.cut.clear();
    assert!(world.run_to_done(4, task, secs(30)).is_ok());
    assert_eq!([1, 2].map(|n| not_allowed(&world, n)), [1, 1]);
    // If it dies instead, nobody is left.
    world.partition(&[3], &[1, 2, 4]);
    let task = world.submit(4, b"y", SubmitOptions::default());
    world.run(secs(5));
    world.set_view(4, View::of(&[1, 2]));
    assert_eq!(world.run_to_done(4, task, secs(15)), error("level member"));
}

#[test]
fn before_the_view_is_complete_one_that_permits_it_may_still_come() {
    let mut world = world(["member", "member", "submit"]);
    let now = world.now;
    let mut jobs = Jobs::new(Config::default(), key(4), 2, now, rand_core::SeedableRng::seed_from_u64(1));
    jobs.set_placement(now, std::sync::Arc::new(View::of(&[1, 2])));
    world.nodes.get_mut(&key(4)).unwrap().jobs = jobs;
    let task = world.submit(4, b"x", SubmitOptions::default());
    world.run(secs(2));
    assert!(world.outcomes(4, task).is_empty());
    world.set_view(4, View::of(&[1, 2, 3]));
    assert!(world.run_to_done(4, task, secs(2)).is_ok());
}

#[test]
fn a_worker_is_judged_by_its_own_pass_for_its_own_tasks() {
    for (level, permitted) in [(Level::Worker, true), (Level::Member, false)] {
        let mut world = world(["worker", "worker", "worker"]);
        world.set_level(1, level);
        let task = world.submit(1, b"x", SubmitOptions::default());
        assert_eq!(world.run_to_done(1, task, secs(5)).is_ok(), permitted);
    }
}

#[test]
fn a_task_in_a_members_name_is_judged_by_the_session_that_claims_it() {
    for (level, runs) in [(Level::Submit, 0), (Level::Member, 1)] {
        let mut world = world(["member", "member", "member"]);
        let now = world.now;
        // Worker 2 forwards it; the claim is the submitter's own.
        let claim = Message::Claim { task: task(1), attempt: 0, digest: digest("work", b"key", b"x") };
        let forwarded = Message::Submit(submit(task(1), 4, 1));
        world.jobs(1).handle_message(now, as_level(2, Level::Worker), forwarded.encode());
        world.jobs(1).handle_message(now, as_level(4, level), claim.encode());
        world.run(secs(1));
        assert_eq!(world.runs_of(task(1)).len(), runs, "{level}");
        assert_eq!(not_allowed(&world, 1), 1 - runs as u64);
    }
    // In another's name, its level helps nobody.
    let mut world = world(["member", "member", "member"]);
    let now = world.now;
    for hops in [0, 1] {
        let named = Message::Submit(submit(task(2), 2, hops)).encode();
        world.jobs(1).handle_message(now, as_level(4, Level::Submit), named);
    }
    world.run(secs(10));
    assert!(world.started.is_empty());
}

#[test]
fn one_that_may_not_submit_a_task_joins_none_that_runs() {
    let mut world = world(["member", "member", "member"]);
    world.behaviour = Box::new(|_, payload, _| (secs(60), Ok(Bytes::copy_from_slice(payload))));
    let now = world.now;
    let first = Message::Submit(submit(task(1), 3, 0)).encode();
    world.jobs(1).handle_message(now, as_level(3, Level::Member), first);
    world.run(secs(1));
    assert_eq!(world.runs_of(task(1)), [key(1)]);
    let now = world.now;
    let again = Message::Submit(submit(task(1), 4, 0)).encode();
    let claim = Message::Claim { task: task(1), attempt: 0, digest: digest("work", b"key", b"x") }.encode();
    world.jobs(1).handle_message(now, as_level(4, Level::Submit), again);
    world.jobs(1).handle_message(now, as_level(4, Level::Submit), claim);
    assert_eq!(not_allowed(&world, 1), 2);
    // Its own submitter may ask again, also after it was renewed at a lower level.
    let again = Message::Submit(submit(task(1), 3, 0)).encode();
    world.jobs(1).handle_message(now, as_level(3, Level::Submit), again);
    assert_eq!((not_allowed(&world, 1), world.jobs(1).gauges().running), (2, 1));
}

#[test]
fn a_handler_sees_the_submitters_own_standing_wherever_the_task_came_from() {
    let mut world = World::new(1, 2);
    world.set_view(1, View::of(&[1]));
    let now = world.now;
    let slip = Submitter::for_tests(Account::for_tests(1, 2, 3), Level::Submit, "desk");
    let own = Submit { submitter: slip.key(), hops: 1, ..submit(task(1), 4, 1) };
    let mut jobs = world.nodes.remove(&key(1)).unwrap().jobs;
    jobs.handle_message(now, as_level(2, Level::Worker), Message::Submit(own).encode());
    let claim = Message::Claim { task: task(1), attempt: 5, digest: digest("work", b"key", b"x") };
    jobs.handle_message(now, slip.clone(), claim.encode());
    let run = jobs.poll_run(now).unwrap();
    assert_eq!((&run.submitter, run.attempt), (&slip, 5));
    assert_eq!((run.submitter.name(), run.submitter.level()), ("desk", Level::Submit));
    assert_ne!(run.submitter.holder(), run.submitter.key());
    assert!(run.submitter.invitation().is_some());
}

#[test]
fn each_task_is_told_once_by_whom_it_is() {
    let mut world = world(["member", "member", "member"]);
    let now = world.now;
    for (level, id) in [(Level::Submit, 1), (Level::Submit, 1), (Level::Member, 2), (Level::Submit, 3)] {
        world.jobs(1).handle_message(
            now,
            as_level(4, level),
            Message::Submit(submit(task(id), 4, 0)).encode(),
        );
    }
    world.run(ms(10));
    let told = world.nodes[&key(1)].events.iter().filter_map(|event| match event {
        JobEvent::Admitted { task, by, .. } => Some((*task, by.level(), true)),
        JobEvent::NotAllowed { task, by, .. } => Some((*task, by.level(), false)),
        _ => None,
    });
    let expected =
        [(task(1), Level::Submit, false), (task(2), Level::Member, true), (task(3), Level::Submit, false)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(not_allowed(&world, 1), 3);
}

#[test]
fn only_the_one_that_was_asked_refuses_and_only_the_latest_attempt() {
    let mut world = world(["submit", "submit", "submit"]);
    // The first is slow to answer; 2 and 3 know of the task and refuse it unasked.
    world.partition(&[1], &[4]);
    let id = world.submit(4, b"x", SubmitOptions::default());
    let refusal = |attempt| {
        let needs = needs(&["worker"]);
        Message::Refused(Refused { task: id, attempt, reason: Reason::NotAllowed { needs } })
    };
    for n in [2, 3] {
        world.inject(n, 4, &refusal(0));
    }
    assert_eq!(world.jobs(4).stats().unexpected, 2);
    world.run(ms(1_500));
    // The second attempt is with 2: what 1 says of the first is late, and what 2 says of the first isn't of this.
    world.inject(1, 4, &refusal(0));
    world.inject(2, 4, &refusal(0));
    assert_eq!(world.jobs(4).stats().not_allowed_seen, 0);
    assert!(world.run_to_done(4, id, secs(5)).is_ok());
    // Once it is accepted, a refusal is none.
    world.cut.clear();
    world.behaviour = Box::new(|_, payload, _| (secs(3), Ok(Bytes::copy_from_slice(payload))));
    let id = world.submit(4, b"y", SubmitOptions::default());
    world.run(secs(2));
    let by = world.runs_of(id)[0];
    let n = (1..=3).find(|n| key(*n) == by).unwrap();
    let latest = world.nodes[&key(4)].jobs.stats().attempts;
    for attempt in 0..latest as u32 {
        let reason = Reason::NotAllowed { needs: needs(&["worker"]) };
        world.inject(n, 4, &Message::Refused(Refused { task: id, attempt, reason }));
    }
    assert!(world.run_to_done(4, id, secs(10)).is_ok());
    assert_eq!(world.jobs(4).stats().not_allowed_seen, 0);
}

#[test]
fn a_refusal_and_its_error_come_back_from_the_wire() {
    let reason = Reason::NotAllowed { needs: needs(&["member", "alice"]) };
    let refused = Message::Refused(Refused { task: task(1), attempt: 3, reason });
    assert_eq!(Message::decode(&refused.encode()), Ok(refused));
    let error = JobError::NotAllowed { kind: "thumb".to_owned(), needs: "level member".to_owned() };
    let bytes = minicbor::to_vec(&error).unwrap();
    assert_eq!(minicbor::decode::<JobError>(&bytes).unwrap(), error);
    assert_eq!(error.to_string(), "no worker lets you submit `thumb`: needs level member");
    let long = JobError::NotAllowed { kind: "k".repeat(65), needs: String::new() };
    assert!(minicbor::decode::<JobError>(&minicbor::to_vec(&long).unwrap()).is_err());
    assert!(Policy::Level(Level::Member).permits(&as_level(1, Level::Issuer)));
}
