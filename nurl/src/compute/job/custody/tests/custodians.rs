//! Custodians: they die, come back, and are two at once.

use std::collections::BTreeMap;

use super::harness::*;
use crate::compute::job::JobError;
use crate::compute::job::custody::*;

fn slow(world: &mut World, time: Duration) {
    world.behaviour = Box::new(move |payload, _| (time, Ok(Bytes::copy_from_slice(payload))));
}

#[test]
fn the_next_keeper_goes_on_when_the_custodian_dies() {
    let mut world = World::new(1, 5, false);
    slow(&mut world, secs(20));
    let asker = deposited(&mut world, id(1));
    world.run(secs(5));
    let keepers = world.keepers(id(1));
    world.kill(keepers[0]);
    assert_eq!(&world.outcome(asker, id(1), secs(60)).unwrap()[..], b"payload");
    assert_eq!(world.runs, [(id(1), keepers[0]), (id(1), keepers[1])]);
    world.run(secs(5));
    assert_eq!(world.copies(id(1)).len(), 3, "a third one keeps it in place of the dead one");
}

#[test]
fn all_keepers_restarted_with_their_disks_go_on_and_those_without_lose_it() {
    for stores in [true, false] {
        let mut world = World::new(2, 3, stores);
        slow(&mut world, secs(20));
        let asker = deposited(&mut world, id(1));
        world.run(secs(5));
        let keepers = world.keepers(id(1));
        keepers.iter().for_each(|keeper| world.kill(*keeper));
        keepers.iter().for_each(|keeper| world.restart(*keeper));
        if stores {
            assert_eq!(&world.outcome(asker, id(1), secs(60)).unwrap()[..], b"payload");
        } else {
            let now = world.now;
            let call = world.custody_of(asker).ask(now, id(1), None, Duration::ZERO, true).unwrap();
            let ended = world.end_of(asker, call, secs(60));
            assert!(matches!(ended, Err(CustodyError::Refused(Refusal::Unknown))), "{ended:?}");
        }
    }
}

#[test]
fn a_restarted_custodian_learns_of_an_end_before_it_submits_again() {
    let mut world = World::new(3, 3, true);
    slow(&mut world, secs(10));
    let asker = deposited(&mut world, id(1));
    world.run(secs(2));
    let first = world.keepers(id(1))[0];
    world.kill(first);
    world.outcome(asker, id(1), secs(60)).unwrap();
    world.restart(first);
    world.run(secs(30));
    assert_eq!(world.runs.len(), 2, "the first one has not submitted it again: {:?}", world.runs);
    assert!(world.copies(id(1)).iter().all(|(_, _, ended)| *ended));
}

#[test]
fn a_worker_keeps_the_outcome_until_it_is_safe_in_the_log() {
    for stores in [true, false] {
        let mut world = World::new(4, 3, stores);
        slow(&mut world, secs(2));
        deposited(&mut world, id(1));
        world.run(secs(1));
        let keepers = world.keepers(id(1));
        // Nobody hears the custodian: what it alone knows may yet be lost.
        world.loss_percent = 100;
        world.run(secs(20));
        assert!(world.copies(id(1)).iter().any(|(key, _, ended)| *key == keepers[0] && *ended));
        assert!(world.released.is_empty());
        world.loss_percent = 0;
        world.run(secs(60));
        assert!(world.released.contains(&(keepers[0], id(1))));
    }
}

#[test]
fn an_end_that_one_keeper_alone_knows_is_not_told() {
    for stores in [true, false] {
        let mut world = World::new(5, 3, stores);
        slow(&mut world, secs(2));
        let asker = deposited(&mut world, id(1));
        world.run(secs(1));
        world.loss_percent = 100;
        world.run(secs(20));
        let first = world.keepers(id(1))[0];
        // Only the asker reaches it.
        let ask = message::Message::Ask {
            call: 9,
            task: id(1),
            seen: None,
            wait_ms: 0,
            want: message::Want::Outcome,
        };
        let before = world.nodes[&first].custody.stats();
        world.inject(asker, first, &ask);
        assert_eq!(world.nodes[&first].custody.stats(), before);
        let told = world.custody_of(first).held();
        assert!(told.iter().any(|(task, _, ended)| *task == id(1) && *ended));
        assert!(world.told_end(first, id(1)).is_none());
        world.loss_percent = 0;
        world.run(secs(60));
        assert!(world.told_end(first, id(1)).is_some());
    }
}

#[test]
fn two_custodians_at_once_come_to_one_end_that_every_keeper_tells() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5, false);
        world.loss_percent = 20;
        world.behaviour = Box::new(|_, run| (secs(3 + run as u64), Ok(Bytes::from(format!("run {run}")))));
        let submitter = world.client();
        let call = world.deposit(submitter, id(1), b"payload");
        assert!(matches!(world.end_of(submitter, call, secs(20)), Ok(Told::Done)));
        world.run(secs(1));
        let first = world.keepers(id(1))[0];
        // The others take the first one for dead; it goes on, and is back in their view later.
        world.nodes.get_mut(&first).unwrap().up = false;
        let ring = world.ring();
        world.nodes.get_mut(&first).unwrap().up = true;
        for key in world.workers.clone().into_iter().filter(|key| *key != first) {
            let now = world.now;
            world.custody_of(key).set_ring(now, ring.clone());
        }
        world.run(secs(2));
        world.view();
        world.run(secs(120));
        let copies = world.copies(id(1));
        assert!(
            copies.len() >= 3 && copies.iter().all(|(_, mark, ended)| *ended && *mark == copies[0].1),
            "{copies:?}"
        );
        let asked: Vec<_> = (0..3).map(|_| world.outcome(submitter, id(1), secs(90))).collect();
        assert!(asked.windows(2).all(|pair| pair[0] == pair[1]), "{asked:?}");
        assert!(world.runs.len() <= 2, "{:?}", world.runs);
    }
}

#[test]
fn a_task_ends_at_its_deadline_though_its_jobs_say_nothing() {
    let mut world = World::new(6, 3, true);
    slow(&mut world, secs(10_000));
    let submitter = world.client();
    let call = world.deposit_as(submitter, id(1), b"payload", &detached(60));
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    assert_eq!(world.outcome(submitter, id(1), secs(70)), Err(JobError::Deadline));
}

#[test]
fn an_outcome_is_kept_for_its_time_and_its_state_until_no_copy_can_bring_it_back() {
    let mut world = World::new(7, 3, true);
    let submitter = world.client();
    let job = Detached { keep: secs(60), ..detached(300) };
    let call = world.deposit_as(submitter, id(1), b"payload", &job);
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    world.outcome(submitter, id(1), secs(10)).unwrap();
    world.run(secs(65));
    let bytes = |world: &World| world.nodes.values().map(|node| node.custody.gauges().bytes).sum::<usize>();
    assert_eq!((bytes(&world), world.copies(id(1)).len()), (0, 3), "the bytes are gone, the state is not");
    world.run(secs(900));
    assert_eq!(world.copies(id(1)), []);
    assert!(world.nodes.values().all(|node| node.disk.as_ref().is_none_or(BTreeMap::is_empty)));
}

#[test]
fn a_member_that_keeps_a_task_no_more_hands_it_over_and_drops_it() {
    let mut world = World::new(8, 3, false);
    slow(&mut world, secs(100));
    deposited(&mut world, id(1));
    for _ in 0..6 {
        let key = world.add(crate::authority::level::Level::Worker, false);
        world.workers.push(key);
        world.view();
        world.run(secs(5));
    }
    world.run(secs(60));
    let (keepers, holders) = (world.keepers(id(1)), world.copies(id(1)));
    assert!(keepers.iter().all(|keeper| holders.iter().any(|(key, ..)| key == keeper)), "{holders:?}");
    world.run(secs(90));
    assert_eq!(world.copies(id(1)).len(), 3);
}
