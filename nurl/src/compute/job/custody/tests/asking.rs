//! Asking: status, waiting, cancelling, a new try, lists; and whose right each is.

use super::harness::*;
use crate::compute::job::custody::*;
use crate::compute::job::event::JobEvent;
use crate::compute::job::{Class, JobError};

fn fails(world: &mut World) {
    world.behaviour =
        Box::new(|_, _| (secs(2), Err(JobError::DeadLetter { failures: 8, last: "no".into() })));
}

#[test]
fn whoever_waits_is_told_when_the_task_changes_and_not_before() {
    let mut world = World::new(1, 3, true);
    world.behaviour = Box::new(|payload, _| (secs(8), Ok(Bytes::copy_from_slice(payload))));
    let asker = deposited(&mut world, id(1));
    world.run(secs(3));
    let now = world.now;
    let call = world.custody_of(asker).ask(now, id(1), None, secs(10), false).unwrap();
    let Ok(Told::Status { mark, status, .. }) = world.end_of(asker, call, secs(1)) else {
        panic!("no status")
    };
    assert!(status.end.is_none());
    assert_eq!(status.history.iter().map(|note| note.step).filter(|step| *step == Step::Taken).count(), 1);
    let (now, begun) = (world.now, world.now);
    let call = world.custody_of(asker).ask(now, id(1), Some(mark), secs(10), false).unwrap();
    let Ok(Told::Status { status, .. }) = world.end_of(asker, call, secs(20)) else { panic!("no status") };
    assert_eq!(status.end.and_then(|end| end.class()), Some(Class::Result));
    let waited = world.now - begun;
    assert!(waited > secs(3) && waited < secs(6), "{waited:?}");
}

#[test]
fn whoever_waits_is_told_what_the_handler_notes() {
    let mut world = World::new(9, 5, false);
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    let asker = deposited(&mut world, id(1));
    world.run(secs(5));
    let (first, mark) = (world.keepers(id(1))[0], world.copies(id(1))[0].1);
    let (now, begun) = (world.now, world.now);
    let call = world.custody_of(asker).ask(now, id(1), Some(mark), secs(10), false).unwrap();
    world.run(ms(50));
    world.run(secs(2));
    let (now, note) = (world.now, Bytes::from_static(b"half of it"));
    let progress = JobEvent::Progress { task: id(1), by: world.workers[0], note };
    assert!(world.custody_of(first).on_job(now, &progress));
    let Ok(Told::Status { status, .. }) = world.end_of(asker, call, secs(20)) else { panic!("no status") };
    assert_eq!(status.progress.as_deref(), Some(&b"half of it"[..]));
    assert!(world.now - begun < secs(3), "{:?}", world.now - begun);
}

#[test]
fn only_its_submitter_cancels_a_task_and_its_custodian_stops_it() {
    let mut world = World::new(2, 5, false);
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    let submitter = deposited(&mut world, id(1));
    let other = world.client();
    world.run(secs(1));
    let now = world.now;
    let call = world.custody_of(other).cancel(now, id(1)).unwrap();
    let ended = world.end_of(other, call, secs(10));
    assert!(matches!(ended, Err(CustodyError::Refused(Refusal::NotYours))), "{ended:?}");
    assert!(world.cancelled.is_empty());
    let call = world.custody_of(submitter).cancel(now, id(1)).unwrap();
    assert!(matches!(world.end_of(submitter, call, secs(10)), Ok(Told::Done)));
    assert_eq!(world.outcome(submitter, id(1), secs(5)), Err(JobError::Cancelled));
    assert_eq!(world.cancelled.iter().next(), Some(&(world.keepers(id(1))[0], id(1))));
}

#[test]
fn a_cancellation_outlives_the_custodian_that_was_asked() {
    let mut world = World::new(3, 5, false);
    world.behaviour = Box::new(|_, _| (secs(200), Ok(Bytes::new())));
    let submitter = deposited(&mut world, id(1));
    world.run(secs(1));
    // The custodian is dead before its jobs stop.
    let keepers = world.keepers(id(1));
    world.nodes.get_mut(&keepers[0]).unwrap().up = false;
    let now = world.now;
    let call = world.custody_of(submitter).cancel(now, id(1)).unwrap();
    assert!(matches!(world.end_of(submitter, call, secs(20)), Ok(Told::Done)));
    world.view();
    assert_eq!(world.outcome(submitter, id(1), secs(30)), Err(JobError::Cancelled));
    assert_eq!(world.runs.len(), 1, "nobody has submitted it again");
}

#[test]
fn only_its_submitter_has_the_content_of_a_failed_task_for_a_new_try() {
    let mut world = World::new(4, 3, true);
    fails(&mut world);
    let submitter = deposited(&mut world, id(1));
    let other = world.client();
    world.run(secs(5));
    let now = world.now;
    let call = world.custody_of(other).ask_terms(now, id(1)).unwrap();
    let ended = world.end_of(other, call, secs(10));
    assert!(matches!(ended, Err(CustodyError::Refused(Refusal::NotYours))), "{ended:?}");
    let call = world.custody_of(submitter).ask_terms(now, id(1)).unwrap();
    let Ok(Told::Status { content: Some(content), status, .. }) = world.end_of(submitter, call, secs(10))
    else {
        panic!("no content")
    };
    assert_eq!(
        (&content.kind[..], &content.key[..], &content.payload[..]),
        ("work", &b"key"[..], &b"payload"[..])
    );
    assert_eq!(status.end.and_then(|end| end.class()), Some(Class::DeadLetter));
    world.behaviour = Box::new(|payload, _| (ms(10), Ok(Bytes::copy_from_slice(payload))));
    let job = Detached { parent: Some(id(1)), ..content.job };
    let call = world.deposit_as(submitter, id(2), &content.payload, &job);
    assert!(matches!(world.end_of(submitter, call, secs(5)), Ok(Told::Done)));
    world.outcome(submitter, id(2), secs(10)).unwrap();
    let now = world.now;
    let call = world.custody_of(other).ask(now, id(2), None, Duration::ZERO, false).unwrap();
    let Ok(Told::Status { status, .. }) = world.end_of(other, call, secs(5)) else { panic!("no status") };
    assert_eq!(status.parent, Some(id(1)), "whoever has the id may see it");
}

#[test]
fn a_list_has_ones_own_tasks_only_and_names_who_did_not_answer() {
    let mut world = World::new(5, 5, false);
    let (one, other) = (world.client(), world.client());
    for n in 0..200 {
        let call = world.deposit(one, id(n), b"payload");
        assert!(matches!(world.end_of(one, call, secs(5)), Ok(Told::Done)));
    }
    let call = world.deposit(other, id(201), b"payload");
    world.end_of(other, call, secs(5)).unwrap();
    world.run(secs(5));
    let now = world.now;
    let call = world.custody_of(one).list(now).unwrap();
    let Ok(Told::List { tasks, silent }) = world.end_of(one, call, secs(5)) else { panic!("no list") };
    assert_eq!(
        tasks.iter().map(|status| status.task).collect::<Vec<_>>(),
        (0..200).map(id).collect::<Vec<_>>()
    );
    assert_eq!(silent, []);
    let dead = world.workers[0];
    world.nodes.get_mut(&dead).unwrap().up = false;
    let now = world.now;
    let call = world.custody_of(other).list(now).unwrap();
    let Ok(Told::List { tasks, silent }) = world.end_of(other, call, secs(5)) else { panic!("no list") };
    assert_eq!((tasks.len(), silent), (1, vec![dead]));
}
