//! Members that lie, and passes that end.

use super::entries::*;
use super::harness::*;
use crate::authority::revocation::{Revocation, Subject};
use crate::compute::job::JobError;
use crate::compute::job::custody::message::{Has, Message};
use crate::compute::job::custody::*;

/// A mesh in which some members are far from the id.
fn large(seed: u64) -> World {
    let mut world = World::new(seed, 12, false);
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    // The workers came one after the other: the first ones were near every id for a while.
    world.run(secs(700));
    world
}

#[test]
fn a_member_that_keeps_no_task_can_tell_no_end_and_offer_nothing() {
    let mut world = large(1);
    deposited(&mut world, id(1));
    world.run(secs(2));
    let keeper = world.keepers(id(1))[0];
    let ring = world.ring();
    let stranger = world
        .workers
        .iter()
        .copied()
        .find(|worker| !ring.owns(worker, id(1).as_bytes(), 6))
        .expect("there is one");
    let before = world.copies(id(1));
    let copy = Message::Copy { task: id(1), terms: None, course: forged_end(stranger), body: Bytes::new() };
    world.inject(stranger, keeper, &copy);
    let items = vec![Has { task: id(1), mark: None }];
    world.inject(stranger, keeper, &Message::Offer { items: items.clone() });
    let sent = world.sent_bytes;
    world.inject(stranger, keeper, &Message::Held { boot: 1, durable: true, items });
    assert_eq!(world.stats(keeper).forged, 3);
    assert_eq!(world.sent_bytes, sent, "nobody gets a copy by saying that it lacks it");
    assert_eq!(world.copies(id(1)), before);
}

#[test]
fn a_keeper_gets_one_copy_for_an_offer_however_often_it_says_that_it_lacks_it() {
    let mut world = large(2);
    deposited(&mut world, id(1));
    world.run(secs(2));
    let keepers = world.keepers(id(1));
    let items = vec![Has { task: id(1), mark: None }];
    let sent = world.sent_bytes;
    for _ in 0..10 {
        world.inject(
            keepers[1],
            keepers[0],
            &Message::Held { boot: 1, durable: false, items: items.clone() },
        );
    }
    assert!(world.sent_bytes - sent < 2_000, "{}", world.sent_bytes - sent);
}

#[test]
fn a_task_without_its_submitters_word_is_taken_from_nobody() {
    let mut world = World::new(3, 3, false);
    let (victim, thief) = (world.client(), world.client());
    let keeper = world.keepers(id(1))[0];
    let (terms, payload) = terms_of(&mut world, victim, id(1), b"payload");
    // Another's task, its own task under another id, and a task with another payload.
    let deposit = |task, terms: &Terms, payload: &[u8]| {
        let (terms, payload) = (terms.clone(), Bytes::copy_from_slice(payload));
        Message::Deposit { call: 1, task, terms, payload }
    };
    world.inject(thief, keeper, &deposit(id(1), &terms, &payload));
    world.inject(victim, keeper, &deposit(id(2), &terms, &payload));
    world.inject(victim, keeper, &deposit(id(1), &terms, b"another"));
    let other = Terms {
        kind: "expensive".to_owned(),
        digest: digest("expensive", b"key", b"payload"),
        ..terms.clone()
    };
    world.inject(victim, keeper, &deposit(id(1), &other, &payload));
    let from = world.keepers(id(1))[1];
    let copy =
        Message::Copy { task: id(1), terms: Some(other), course: Default::default(), body: payload.clone() };
    world.inject(from, keeper, &copy);
    assert_eq!((world.stats(keeper).refused, world.copies(id(1)).len()), (5, 0));
    world.inject(victim, keeper, &deposit(id(1), &terms, &payload));
    assert_eq!(world.copies(id(1)).len(), 1);
}

#[test]
fn a_keeper_makes_nobody_elses_task_its_own() {
    let mut world = World::new(7, 3, true);
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    let submitter = deposited(&mut world, id(1));
    world.run(secs(5));
    let keepers = world.keepers(id(1));
    let before = world.copies(id(1));
    // The same content under a warrant of its own, which ends later.
    let (terms, body) = terms_of(&mut world, keepers[1], id(1), b"payload");
    let copy = Message::Copy { task: id(1), terms: Some(terms), course: Default::default(), body };
    world.inject(keepers[1], keepers[0], &copy);
    assert_eq!((world.stats(keepers[0]).conflicts, world.copies(id(1))), (1, before));
    let now = world.now;
    let call = world.custody_of(submitter).cancel(now, id(1)).unwrap();
    assert!(matches!(world.end_of(submitter, call, secs(10)), Ok(Told::Done)));
}

#[test]
fn a_revoked_submitters_tasks_end_and_no_new_ones_are_taken() {
    let mut world = World::new(4, 3, true);
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    let submitter = deposited(&mut world, id(1));
    let asker = world.client();
    world.run(secs(2));
    let entry = Revocation::sign(&world.authority, Subject::Key(submitter), NOW_S, NOW_S);
    for worker in world.workers.clone() {
        let now = world.now;
        world.custody_of(worker).revoke(now, entry.clone());
    }
    let outcome = world.outcome(asker, id(1), secs(10));
    assert!(matches!(outcome, Err(JobError::Failed { retriable: false, .. })), "{outcome:?}");
    assert!(world.cancelled.iter().any(|(_, task)| *task == id(1)), "its run is stopped");
    let call = world.deposit(submitter, id(2), b"payload");
    let ended = world.end_of(submitter, call, secs(20));
    assert!(matches!(ended, Err(CustodyError::Refused(Refusal::BadWarrant))), "{ended:?}");
}

#[test]
fn what_is_no_message_or_is_over_a_limit_is_counted() {
    let mut world = World::new(5, 1, false);
    let (client, keeper) = (world.client(), world.workers[0]);
    let from = Submitter::alone(client);
    let items = vec![Has { task: id(1), mark: None }; MAX_OFFERED + 1];
    let long = Message::Offer { items }.encode();
    let now = world.now;
    for (n, body) in [&b""[..], b"\x80", b"\x82\x01\x80", &long].into_iter().enumerate() {
        world.custody_of(keeper).handle_message(now, &from, &Bytes::copy_from_slice(body));
        assert_eq!(world.stats(keeper).malformed, n as u64 + 1);
    }
    world.custody_of(keeper).handle_message(now, &from, &Bytes::from_static(b"\x82\x17\x80"));
    assert_eq!(world.stats(keeper).unknown_type, 1);
}

#[test]
fn a_list_answer_of_somebody_who_was_not_asked_is_not_believed() {
    let mut world = World::new(6, 3, false);
    let (client, stranger) = (world.client(), world.client());
    let now = world.now;
    let call = world.custody_of(client).list(now).unwrap();
    world.inject(stranger, client, &Message::Listed { call, tasks: Vec::new(), more: false });
    world.inject(stranger, client, &Message::Stored { call, boot: 1, durable: true });
    assert_eq!(world.stats(client).unexpected, 2);
}
