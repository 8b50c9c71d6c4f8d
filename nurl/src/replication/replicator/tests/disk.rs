//! A node whose disk takes no commits.

use super::mesh::{K, Mesh, add, peer, ring};
use crate::replication::replicator::*;

const FULL: Option<&str> = Some("no room");

/// A mesh of members with stores.
fn mesh(count: u8) -> Mesh {
    let mut mesh = Mesh::new(0);
    mesh.config.durable = true;
    for n in 0..count {
        mesh.start(n, 1);
    }
    mesh.set_ring(0..count);
    mesh
}

fn operation(by: i64) -> Message {
    let op = add(by);
    Message::Operation { id: [7; 16].into(), key: K.to_vec().into(), op, boot: Some(0), confirm: None }
}

#[test]
fn what_was_not_on_the_disk_is_gone_and_nobody_hears_of_it() {
    let mut mesh = mesh(3);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    mesh.run(30);
    mesh.update(0, K, &add(10));
    mesh.set_disk(0, FULL);
    mesh.run(60);
    mesh.assert_converged(&ring(0..3));
    assert_eq!(mesh.counter(K), 1);
    // What it gives out next isn't taken for what was never told.
    mesh.set_disk(0, None);
    assert_eq!(mesh.write(0, K, add(100)), Ok(()));
    mesh.run(30);
    mesh.assert_converged(&ring(0..3));
    assert_eq!(mesh.counter(K), 101);
}

#[test]
fn an_owner_whose_disk_fails_declines_what_the_others_confirm_and_has_it_when_the_disk_works() {
    let mut mesh = mesh(6);
    let (writer, owners) = (mesh.outsider(K), mesh.owners(K));
    assert_eq!(mesh.write(writer, K, add(1)), Ok(()));
    mesh.run(30);
    let before = mesh.copies(K)[&peer(owners[0])].clone();
    mesh.set_disk(owners[0], FULL);
    assert_eq!(mesh.write(writer, K, add(10)), Ok(()));
    mesh.run(5);
    assert_eq!((mesh.node(writer).pending(), mesh.node(owners[0]).stats().declined), (0, 1));
    mesh.run(60);
    assert_eq!(mesh.copies(K)[&peer(owners[0])], before, "it holds what is on its disk");
    let stats = mesh.node(owners[0]).stats();
    assert_eq!((stats.declined, stats.not_stored), (1, 0), "nobody sends it what it doesn't take");
    mesh.set_disk(owners[0], None);
    mesh.run(60);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(mesh.counter(K), 11);
}

#[test]
fn a_write_that_is_on_the_disk_is_acknowledged_and_one_that_may_be_there_is_not_declined() {
    for in_doubt in [false, true] {
        let mut mesh = mesh(6);
        let (writer, owners) = (mesh.outsider(K), mesh.owners(K));
        mesh.update(writer, K, &add(1));
        let (id, sent) = (mesh.node(writer).shared.last_id(), mesh.sent(writer));
        let (_, delta) = sent.into_iter().find(|(to, _)| *to == peer(owners[0])).unwrap();
        mesh.inject(writer, owners[0], &delta);
        mesh.partition(&[writer]);
        mesh.deliver();
        mesh.config.in_doubt = in_doubt;
        mesh.set_disk(owners[0], FULL);
        mesh.inject(writer, owners[0], &delta);
        let acked = mesh.sent(owners[0]);
        assert!(
            matches!(acked[..], [(_, Message::Ack { id: of, durable: true, .. })] if of == id),
            "{acked:?}"
        );
        mesh.update(writer, K, &add(1));
        let (_, next) = mesh.sent(writer).pop().unwrap();
        mesh.inject(writer, owners[0], &next);
        assert_eq!(mesh.sent(owners[0]).len(), usize::from(!in_doubt));
    }
}

#[test]
fn a_write_that_no_owners_disk_takes_is_refused_with_the_reason_and_is_nowhere() {
    let mut mesh = mesh(6);
    let (writer, owners) = (mesh.outsider(K), mesh.owners(K));
    assert_eq!(mesh.write(writer, K, add(1)), Ok(()));
    mesh.run(5);
    for owner in &owners {
        mesh.set_disk(*owner, FULL);
    }
    assert_eq!(mesh.write(writer, K, add(10)), Err(UpdateError::Declined(Decline::Disk)));
    assert_eq!(mesh.read_counter(writer, K), 1, "reads go on");
    assert_eq!(mesh.write(owners[0], K, add(10)), Err(UpdateError::Disk("no room".into())));
    for owner in owners {
        mesh.set_disk(owner, None);
    }
    assert_eq!(mesh.write(writer, K, add(100)), Ok(()));
    mesh.run(60);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(mesh.counter(K), 101);
}

#[test]
fn a_read_where_the_disk_fails_has_what_was_confirmed_elsewhere_and_alone_what_is_on_the_disk() {
    let mut mesh = mesh(3);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    mesh.run(60);
    mesh.set_disk(0, FULL);
    mesh.run(60);
    assert_eq!(mesh.write(1, K, add(10)), Ok(()));
    mesh.run(60);
    assert_eq!(mesh.read_counter(0, K), 11);
    mesh.set_ring([0]);
    assert_eq!(mesh.read_counter(0, K), 1);
}

#[test]
fn an_observer_goes_on_to_the_next_member_when_the_first_ones_disk_fails() {
    let mut mesh = mesh(4);
    let (observer, owners) = (mesh.outsider(K), mesh.owners(K));
    mesh.set_disk(owners[0], FULL);
    let now = mesh.now;
    let node = mesh.node(observer);
    let members = owners.iter().take(2).map(|owner| peer(*owner)).collect();
    node.operations.operate(&mut node.shared, now, 5, members, K, (add(1), Confirm::Safe));
    mesh.run(5);
    let outcome =
        |event: &ReplicatorEvent| matches!(event, ReplicatorEvent::Updated { id: 5, outcome: Ok(()) });
    assert!(mesh.events.iter().any(|(_, event)| outcome(event)), "{:?}", mesh.events);
    let member = peer(owners[0]);
    mesh.operate(observer, 6, member, K, add(1)).unwrap();
    mesh.run(5);
    let failed = |event: &ReplicatorEvent| {
        let disk = Err(UpdateFailure::AtMember(OperationError::Disk));
        *event == ReplicatorEvent::Updated { id: 6, outcome: disk }
    };
    assert!(mesh.events.iter().any(|(_, event)| failed(event)), "{:?}", mesh.events);
    assert_eq!(mesh.counter(K), 1);
}

#[test]
fn an_operation_that_was_made_before_the_disk_failed_is_unknown_and_is_not_made_again() {
    let mut mesh = mesh(3);
    mesh.inject(1, 0, &operation(1));
    // Its reply waits for a commit that fails.
    mesh.sent(0);
    mesh.set_disk(0, FULL);
    mesh.set_disk(0, None);
    mesh.inject(1, 0, &operation(1));
    let replies = mesh.sent(0).into_iter().filter_map(|(_, message)| match message {
        Message::OperationReply { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(replies.collect::<Vec<_>>(), [served::UNKNOWN]);
    mesh.run(30);
    assert_eq!(mesh.holders(K), []);
}
