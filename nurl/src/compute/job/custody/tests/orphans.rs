//! Runs whose custodian is gone, outcomes that were lost with a disk, and processes that a keeper doesn't know yet.

use super::harness::*;
use crate::compute::job::JobError;
use crate::compute::job::custody::message::{Has, Message};
use crate::compute::job::custody::*;
use crate::compute::job::event::JobEvent;

fn endless(world: &mut World) {
    world.behaviour = Box::new(|_, _| (secs(10_000), Ok(Bytes::new())));
}

/// Tells a worker that the custodian of the task that it runs is gone.
fn orphaned(world: &mut World, worker: PublicKey) {
    let now = world.now;
    let ours = world.custody_of(worker).on_job(now, &JobEvent::Orphaned { task: id(1) });
    assert!(!ours, "it is no task that this node has submitted");
    world.run(secs(20));
}

#[test]
fn a_run_whose_custodian_is_gone_goes_on_while_its_task_is_open_and_ends_when_that_is_cancelled() {
    let mut world = World::new(1, 5, true);
    endless(&mut world);
    let submitter = deposited(&mut world, id(1));
    world.run(secs(1));
    let keepers = world.keepers(id(1));
    let worker = *world.workers.iter().find(|worker| !keepers.contains(worker)).unwrap();
    orphaned(&mut world, worker);
    assert!(world.ended_runs.is_empty(), "the task is open");
    world.kill(keepers[0]);
    let now = world.now;
    let call = world.custody_of(submitter).cancel(now, id(1)).unwrap();
    assert!(matches!(world.end_of(submitter, call, secs(30)), Ok(Told::Done)));
    orphaned(&mut world, worker);
    assert_eq!(world.ended_runs.iter().collect::<Vec<_>>(), [&(worker, id(1))]);
    assert!(world.nodes[&worker].ended.is_empty(), "no caller of that node is told of it");
}

#[test]
fn a_run_of_a_task_that_nobody_knows_goes_on() {
    let mut world = World::new(2, 5, true);
    let worker = world.workers[0];
    orphaned(&mut world, worker);
    assert!(world.ended_runs.is_empty());
}

#[test]
fn a_task_whose_outcome_was_lost_says_so_at_its_deadline() {
    let mut world = World::new(3, 3, false);
    let settled = JobError::Settled { hash: [7; 32] };
    let told = settled.clone();
    world.behaviour = Box::new(move |_, _| (secs(1), Err(told.clone())));
    let asker = deposited(&mut world, id(1));
    world.run(secs(100));
    let keeper = world.keepers(id(1))[0];
    assert!(world.told_end(keeper, id(1)).is_none(), "whoever has it may come back");
    assert_eq!(world.outcome(asker, id(1), secs(300)), Err(settled));
}

#[test]
fn a_process_that_a_keeper_does_not_know_yet_is_asked_as_rarely_as_a_silent_one() {
    let mut world = World::new(4, 3, true);
    endless(&mut world);
    deposited(&mut world, id(1));
    world.run(secs(10));
    let keepers = world.keepers(id(1));
    let mark = world.copies(id(1))[0].1;
    assert!(world.copies(id(1)).iter().all(|(_, other, _)| *other == mark));
    world.loss_percent = 100;
    let (sent, begun) = (world.sent_bytes, world.now);
    let items = vec![Has { task: id(1), mark: Some(mark) }];
    while world.now < begun + secs(2) {
        world.inject(
            keepers[1],
            keepers[0],
            &Message::Held { boot: 77, durable: true, items: items.clone() },
        );
        world.run(ms(50));
    }
    assert!(world.sent_bytes - sent < 200, "{} B", world.sent_bytes - sent);
}
