//! Deposits: what confirms them, and that repeating one is safe.

use super::harness::*;
use crate::compute::job::custody::*;

#[test]
fn a_confirmed_task_ends_though_its_submitter_is_gone_at_once_and_anybody_with_the_id_has_its_outcome() {
    let mut world = World::new(1, 5, false);
    let (submitter, asker) = (world.client(), world.client());
    let call = world.deposit(submitter, id(1), b"payload");
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    world.kill(submitter);
    assert_eq!(&world.outcome(asker, id(1), secs(10)).unwrap()[..], b"payload");
    assert_eq!(world.runs, [(id(1), world.keepers(id(1))[0])], "the custodian submitted it once");
    world.run(secs(5));
    let copies = world.copies(id(1));
    assert_eq!(copies.len(), 3, "three keepers have it");
    assert!(copies.iter().all(|(_, mark, ended)| *mark == copies[0].1 && *ended), "{copies:?}");
}

#[test]
fn a_deposit_is_confirmed_by_two_keepers_or_by_one_disk_or_by_all_there_are() {
    // Workers; with disks; how many of the keepers are cut off; whether it is confirmed.
    for (workers, stores, cut, confirmed) in [
        (3, true, 2, true),
        (3, false, 1, true),
        (3, false, 2, false),
        (1, false, 0, true),
        (3, true, 3, false),
    ] {
        let mut world = World::new(2, workers, stores);
        let submitter = world.client();
        for keeper in world.keepers(id(1)).into_iter().take(cut) {
            world.nodes.get_mut(&keeper).unwrap().up = false;
        }
        let call = world.deposit(submitter, id(1), b"payload");
        let ended = world.end_of(submitter, call, secs(20));
        let as_expected = match ended {
            Ok(Told::Done) => confirmed,
            Err(CustodyError::Unconfirmed) => !confirmed,
            other => panic!("{other:?}"),
        };
        assert!(as_expected, "{workers} {stores} {cut}");
    }
}

#[test]
fn what_a_former_process_without_a_disk_has_said_confirms_nothing() {
    let mut world = World::new(3, 2, false);
    let submitter = world.client();
    let [first, second] = world.keepers(id(1))[..] else { panic!("two keepers") };
    world.nodes.get_mut(&second).unwrap().up = false;
    let call = world.deposit(submitter, id(1), b"payload");
    world.run(ms(200));
    // The first one acknowledged it and is another process now; the second one comes back.
    world.nodes.get_mut(&first).unwrap().up = false;
    world.restart(second);
    world.restart(first);
    assert!(matches!(world.end_of(submitter, call, secs(20)), Ok(Told::Done)));
    assert_eq!(world.copies(id(1)).len(), 2);
}

#[test]
fn the_same_id_is_one_task_for_its_submitter_and_a_conflict_for_anything_else() {
    let mut world = World::new(4, 5, true);
    let (submitter, other) = (world.client(), world.client());
    for _ in 0..2 {
        let call = world.deposit(submitter, id(1), b"payload");
        assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
        world.run(secs(2));
    }
    assert_eq!(world.runs.len(), 1);
    for (by, payload) in [(submitter, &b"another"[..]), (other, b"payload")] {
        let call = world.deposit(by, id(1), payload);
        let ended = world.end_of(by, call, secs(20));
        assert!(matches!(ended, Err(CustodyError::Refused(Refusal::Conflict))), "{ended:?}");
    }
}

/// Deposits a task once without the third keeper, and once more, by a later warrant, when that one is there.
fn deposited_twice(world: &mut World) {
    let submitter = world.client();
    let third = world.keepers(id(1))[2];
    world.nodes.get_mut(&third).unwrap().up = false;
    let call = world.deposit(submitter, id(1), b"payload");
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    // It comes back, and knows the task from the second deposit, which was signed later.
    world.run(ms(20));
    world.nodes.get_mut(&third).unwrap().up = true;
    let call = world.deposit(submitter, id(1), b"payload");
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    world.run(secs(60));
}

#[test]
fn keepers_that_were_told_two_warrants_for_one_task_come_to_the_same() {
    let mut world = World::new(8, 5, false);
    deposited_twice(&mut world);
    let copies = world.copies(id(1));
    assert_eq!(copies.len(), 3);
    assert!(copies.iter().all(|(_, mark, ended)| *mark == copies[0].1 && *ended), "{copies:?}");
}

#[test]
fn a_deposit_is_confirmed_by_two_keepers_or_late_by_one_disk() {
    for stores in [true, false] {
        let mut world = World::new(10, 3, stores);
        let submitter = world.client();
        let keepers = world.keepers(id(1));
        // Two of them are dead, and nobody knows it yet.
        keepers[1..].iter().for_each(|keeper| world.nodes.get_mut(keeper).unwrap().up = false);
        let (begun, call) = (world.now, world.deposit(submitter, id(1), b"payload"));
        let ended = world.end_of(submitter, call, secs(20));
        assert!(world.now - begun >= secs(15), "one keeper alone was enough after {:?}", world.now - begun);
        match stores {
            true => assert!(matches!(ended, Ok(Told::Done)), "{ended:?}"),
            false => assert!(matches!(ended, Err(CustodyError::Unconfirmed)), "{ended:?}"),
        }
        world.nodes.get_mut(&keepers[1]).unwrap().up = true;
        let (begun, call) = (world.now, world.deposit(submitter, id(1), b"payload"));
        assert!(matches!(world.end_of(submitter, call, secs(20)), Ok(Told::Done)));
        assert!(world.now - begun < secs(1), "{:?}", world.now - begun);
    }
}

#[test]
fn a_newer_warrant_is_on_the_disk_of_a_keeper_that_had_an_older_one() {
    let mut world = World::new(9, 3, true);
    world.behaviour = Box::new(|_, _| (secs(1_000), Ok(Bytes::new())));
    deposited_twice(&mut world);
    let before = world.copies(id(1));
    assert!(before.iter().all(|(_, mark, _)| *mark == before[0].1), "{before:?}");
    world.loss_percent = 100;
    for keeper in world.workers.clone() {
        world.kill(keeper);
        world.restart(keeper);
        let after = world.copies(id(1)).into_iter().find(|(key, ..)| *key == keeper);
        assert_eq!(after.map(|(_, mark, _)| mark), Some(before[0].1));
    }
}

#[test]
fn a_name_is_one_id_for_its_holder_and_another_for_everybody_else() {
    let mut world = World::new(5, 1, false);
    let (one, other) = (world.client(), world.client());
    let of_one = world.custody_of(one).named_task("nightly");
    assert_eq!(world.custody_of(one).named_task("nightly"), of_one);
    assert_ne!(world.custody_of(one).named_task("weekly"), of_one);
    assert_ne!(world.custody_of(other).named_task("nightly"), of_one);
}

#[test]
fn what_is_over_a_limit_is_refused_before_anything_is_sent() {
    let mut world = World::new(6, 1, false);
    let client = world.client();
    let (now, payload) = (world.now, Bytes::new());
    let custody = world.custody_of(client);
    let mut deposit = |kind: &str, key: &[u8], job: &Detached| {
        custody.deposit(now, id(1), (kind, key, payload.clone()), job).unwrap_err()
    };
    assert_eq!(deposit("", b"", &detached(1)), CustodyError::Task(SubmitError::BadKind));
    assert_eq!(deposit("work", &[0; MAX_KEY_LEN + 1], &detached(1)), CustodyError::Task(SubmitError::BadKey));
    assert_eq!(deposit("work", b"", &detached(86_401)), CustodyError::Task(SubmitError::BadLife));
    let kept = Detached { keep: MAX_KEEP + secs(1), ..detached(1) };
    assert_eq!(deposit("work", b"", &kept), CustodyError::BadKeep);
    assert_eq!(world.sent_bytes, 0);
}

#[test]
fn one_account_fills_a_quarter_of_the_log_and_the_oldest_ended_bytes_give_way() {
    let mut world = World::new(7, 1, true);
    let (hog, other) = (world.client(), world.client());
    let big = vec![7; 8 << 20];
    let most = MAX_ENTRY_BYTES / MAX_SHARE / big.len();
    for n in 0..most + 1 {
        let call = world.deposit(hog, id(n as u8), &big);
        assert!(matches!(world.end_of(hog, call, secs(30)), Ok(Told::Done)), "{n}");
        world.run(secs(1));
    }
    let keeper = world.workers[0];
    assert_eq!(world.stats(keeper).evicted, 1);
    assert!(world.nodes[&keeper].custody.gauges().bytes <= MAX_ENTRY_BYTES / MAX_SHARE);
    // The tasks that run now are open, and give way to nobody.
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    let mut refused = false;
    for n in 100..100 + most as u8 + 1 {
        let call = world.deposit(hog, id(n), &big);
        refused |= matches!(world.end_of(hog, call, secs(90)), Err(CustodyError::Refused(Refusal::Full)));
    }
    assert!(refused);
    let call = world.deposit(other, id(99), &big);
    assert!(matches!(world.end_of(other, call, secs(30)), Ok(Told::Done)), "another account has its room");
}

#[test]
fn a_keeper_whose_disk_fails_confirms_as_a_memory_and_stores_all_when_it_works_again() {
    let mut world = World::new(4, 3, true);
    let submitter = world.client();
    let keepers = world.keepers(id(1));
    world.nodes.get_mut(&keepers[1]).unwrap().up = false;
    world.nodes.get_mut(&keepers[2]).unwrap().up = false;
    world.custody_of(keepers[0]).set_durable(false);
    let call = world.deposit(submitter, id(1), b"payload");
    assert!(matches!(world.end_of(submitter, call, secs(20)), Err(CustodyError::Unconfirmed)));
    let custody = world.custody_of(keepers[0]);
    custody.forget_changed();
    assert!(custody.poll_changed(9).is_empty());
    custody.set_durable(true);
    let stored: Vec<TaskId> = custody.poll_changed(9).into_iter().map(|(task, _)| task).collect();
    assert_eq!(stored, [id(1)]);
}
