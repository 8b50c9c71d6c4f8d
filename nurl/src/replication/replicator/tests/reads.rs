//! Reads, and the removals that need one first.

use super::mesh::{K, Mesh, S, add, insert, peer, remove, ring, ring_of};
use crate::replication::replicator::*;

#[test]
fn a_read_elsewhere_merges_all_owners_and_repairs_the_one_that_lags() {
    let mut mesh = Mesh::new(6);
    mesh.config.sync_period = Duration::from_secs(100_000);
    for n in 0..6 {
        mesh.start(n, 1);
    }
    mesh.set_ring(0..6);
    let owners = ring(0..6).owners(K, 3);
    let lagging = (0..6).find(|n| peer(*n) == owners[2]).unwrap();
    let writer = (0..6).find(|n| peer(*n) == owners[0]).unwrap();
    mesh.partition(&[lagging]);
    mesh.update(writer, K, &add(4));
    mesh.run(5);
    mesh.cut.clear();
    assert!(mesh.node(lagging).get(K).is_none());
    let outsider = mesh.outsider(K);
    let ReplicatorEvent::ReadDone { value: Some(Value::Counter(counter)), .. } = mesh.read(outsider, K)
    else {
        panic!()
    };
    assert_eq!(counter.value(), 4);
    mesh.assert_converged(&ring(0..6));
    assert!(matches!(mesh.read(writer, K), ReplicatorEvent::ReadDone { value: Some(_), .. }));
    assert!(matches!(
        mesh.read(outsider, b"\x01none"),
        ReplicatorEvent::ReadDone { value: None, .. } | ReplicatorEvent::ReadFailed { .. }
    ));
}

#[test]
fn a_read_with_no_owner_in_reach_fails_and_sees_its_own_write_otherwise() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(K);
    mesh.partition(&[outsider]);
    assert_eq!(mesh.read(outsider, K), ReplicatorEvent::ReadFailed { id: 77, why: ReadFailure::NoAnswer });
    mesh.cut.clear();
    mesh.update(0, K, &add(1));
    mesh.deliver();
    mesh.loss_percent = 100;
    mesh.update(outsider, K, &add(1));
    mesh.deliver();
    mesh.loss_percent = 0;
    let ReplicatorEvent::ReadDone { value: Some(Value::Counter(counter)), .. } = mesh.read(outsider, K)
    else {
        panic!()
    };
    assert_eq!(counter.value(), 2);
}

#[test]
fn a_removal_elsewhere_reads_first_and_then_removes_what_was_read() {
    let mut mesh = Mesh::new(6);
    let (insider, outsider) = (mesh.insider(S), mesh.outsider(S));
    mesh.update(insider, S, &insert(b"x"));
    mesh.update(insider, S, &insert(b"y"));
    mesh.deliver();
    assert_eq!(mesh.write(outsider, S, remove(b"x")), Ok(()));
    mesh.run(3);
    let Some(Value::Set(elements)) = mesh.node(insider).get(S) else { panic!() };
    assert_eq!(elements.iter().collect::<Vec<_>>(), [b"y"]);
}

#[test]
fn a_removal_at_an_owner_that_lost_its_disk_removes_it_everywhere() {
    let mut mesh = Mesh::new(3);
    mesh.update(1, S, &insert(b"x"));
    mesh.run(1);
    mesh.lose_disk(0);
    assert_eq!(mesh.write(0, S, remove(b"x")), Ok(()));
    mesh.run(120);
    mesh.assert_converged(&ring(0..3));
    assert!(matches!(mesh.node(0).get(S), Some(Value::Set(set)) if set.is_empty()));
}

#[test]
fn a_removal_at_an_owner_whose_copy_is_behind_removes_it_everywhere() {
    let mut mesh = Mesh::new(3);
    mesh.update(0, S, &insert(b"old"));
    mesh.run(1);
    mesh.partition(&[0]);
    mesh.update(1, S, &insert(b"x"));
    mesh.run(1);
    mesh.cut.clear();
    assert_eq!(mesh.write(0, S, remove(b"x")), Ok(()));
    mesh.run(120);
    mesh.assert_converged(&ring(0..3));
    assert!(matches!(mesh.node(0).get(S), Some(Value::Set(set)) if set.len() == 1));
}

#[test]
fn an_owner_that_came_back_with_nothing_answers_no_read_from_the_one_delta_that_it_got_since() {
    let mut mesh = Mesh::new(3);
    for _ in 0..10 {
        assert_eq!(mesh.write(1, K, add(100)), Ok(()));
    }
    mesh.run(30);
    mesh.lose_disk(0);
    assert_eq!(mesh.write(1, K, add(1)), Ok(()));
    assert!(mesh.node(0).get(K).is_some(), "the delta has come");
    assert_eq!(mesh.read_counter(0, K), 1001);
    // From now on its own copy is enough.
    mesh.partition(&[0]);
    assert_eq!(mesh.read_counter(0, K), 1001);
}

#[test]
fn a_copy_that_was_restored_is_compared_before_it_is_an_answer() {
    let mut mesh = Mesh::new(3);
    mesh.config.durable = true;
    for n in 0..3 {
        mesh.restart(n);
    }
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    mesh.run(30);
    mesh.partition(&[0]);
    assert_eq!(mesh.write(1, K, add(10)), Ok(()));
    mesh.run(1);
    mesh.restart(0);
    mesh.cut.clear();
    assert_eq!(mesh.read_counter(0, K), 11);
}

#[test]
fn who_is_settled_with_the_others_knows_that_a_new_key_is_new() {
    let mut mesh = Mesh::new(3);
    let other = b"\x01other";
    assert_eq!(mesh.write(0, other, add(1)), Ok(()));
    mesh.run(30);
    // One owner is away, with whatever it has on its disk.
    mesh.partition(&[2]);
    mesh.take_ring(&ring_of((0..3).map(|n| (n, 0)), &[2]));
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    for reader in [0, 1] {
        assert_eq!(mesh.read_counter(reader, K), 1, "both know that the third had nothing");
    }
    // Without that knowledge it may be anything.
    mesh.lose_disk(0);
    mesh.lose_disk(1);
    assert_eq!(mesh.write(0, b"\x01next", add(1)), Ok(()));
    assert!(matches!(mesh.read(0, b"\x01next"), ReplicatorEvent::ReadDone { partial: true, .. }));
}

#[test]
fn the_only_owner_of_a_key_knows_that_there_is_nothing() {
    let mut mesh = Mesh::new(1);
    assert_eq!(mesh.read(0, K), ReplicatorEvent::ReadDone { id: 77, value: None, partial: false });
}

#[test]
fn before_a_node_has_met_the_mesh_its_writes_wait_and_its_reads_are_partial() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(1, K, add(10)), Ok(()));
    mesh.start(5, 1);
    assert_eq!(mesh.write(5, K, add(1)), Err(UpdateError::Unconfirmed(Vec::new())));
    assert_eq!(mesh.write(5, S, remove(b"x")), Err(UpdateError::Unknown), "it has seen nothing");
    let ReplicatorEvent::ReadDone { value: Some(Value::Counter(own)), partial: true, .. } = mesh.read(5, K)
    else {
        panic!()
    };
    assert_eq!(own.value(), 1, "it knows its own");
    // What waits goes on when it meets the others.
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(5).read(now, 77, Kind::Counter, &K[1..]);
    mesh.node(5).update(now, wall, 88, &K[1..], (add(2), Confirm::Safe));
    assert_eq!(mesh.node(5).poll_event(), None);
    mesh.set_ring(0..3);
    mesh.run(2);
    assert!(mesh.events.contains(&(peer(5), ReplicatorEvent::Updated { id: 88, outcome: Ok(()) })));
    let read = mesh.events.iter().find_map(|(_, event)| match event {
        ReplicatorEvent::ReadDone { id: 77, value: Some(Value::Counter(sum)), partial } => {
            Some((sum.value(), *partial))
        }
        _ => None,
    });
    assert_eq!((read, mesh.counter(K)), (Some((13, false)), 13));
}

#[test]
fn a_removal_that_waits_for_owners_that_are_none_any_more_goes_on_at_once() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, S, insert(b"x")), Ok(()));
    mesh.run(30);
    mesh.partition(&[0]);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(0).update(now, wall, 88, &S[1..], (remove(b"y"), Confirm::Safe));
    assert_eq!(mesh.node(0).poll_event(), None, "another owner may have it");
    mesh.set_ring([0]);
    mesh.run(1);
    assert!(mesh.events.contains(&(peer(0), ReplicatorEvent::Updated { id: 88, outcome: Ok(()) })));
}

#[test]
fn a_read_does_not_wait_for_owners_that_are_lost() {
    let mut mesh = Mesh::new(6);
    let (reader, owners) = (mesh.outsider(K), mesh.owners(K));
    mesh.partition(&[reader]);
    let now = mesh.now;
    mesh.node(reader).read(now, 77, Kind::Counter, &K[1..]);
    for owner in owners {
        mesh.node(reader).on_peer_lost(peer(owner));
    }
    mesh.run(1);
    let failed = ReplicatorEvent::ReadFailed { id: 77, why: ReadFailure::NoAnswer };
    assert!(mesh.events.contains(&(peer(reader), failed)));
}

#[test]
fn a_read_is_partial_while_a_silent_owner_may_have_confirmed_with_one_that_forgot() {
    let mut mesh = Mesh::new(6);
    let (reader, owners) = (mesh.outsider(K), mesh.owners(K));
    assert_eq!(mesh.write(owners[2], K, add(5)), Ok(()));
    mesh.run(30);
    mesh.partition(&[owners[1]]);
    assert_eq!(mesh.read_counter(reader, K), 5, "two remember");
    mesh.lose_disk(owners[0]);
    assert!(matches!(mesh.read(reader, K), ReplicatorEvent::ReadDone { partial: true, .. }));
}

#[test]
fn deltas_of_all_other_owners_make_no_whole_copy() {
    let mut mesh = Mesh::new(3);
    for (writer, element) in [(1, b"a"), (2, b"b")] {
        assert_eq!(mesh.write(writer, S, insert(element)), Ok(()));
    }
    mesh.run(30);
    mesh.lose_disk(0);
    for (writer, element) in [(1, b"c"), (2, b"d")] {
        assert_eq!(mesh.write(writer, S, insert(element)), Ok(()));
    }
    assert!(matches!(mesh.node(0).get(S), Some(Value::Set(set)) if set.len() == 2));
    let ReplicatorEvent::ReadDone { value: Some(Value::Set(set)), partial: false, .. } = mesh.read(0, S)
    else {
        panic!()
    };
    assert_eq!(set.len(), 4);
}

#[test]
fn a_reader_asks_those_that_stand_in_too() {
    let mut mesh = Mesh::new(8);
    let order = ring(0..8).owners(K, 8).into_iter();
    let order: Vec<u8> = order.map(|member| (0..8).find(|n| peer(*n) == member).unwrap()).collect();
    mesh.partition(&order[..3]);
    mesh.take_ring(&ring_of((0..8).map(|n| (n, 0)), &order[..3]));
    let (writer, reader) = (order[6], order[7]);
    assert_eq!(mesh.write(writer, K, add(5)), Ok(()));
    let ReplicatorEvent::ReadDone { value: Some(Value::Counter(sum)), partial: true, .. } =
        mesh.read(reader, K)
    else {
        panic!()
    };
    assert_eq!(sum.value(), 5);
}

#[test]
fn one_that_says_that_it_is_no_owner_remembers_nothing() {
    let mut mesh = Mesh::new(6);
    let owners: Vec<u8> = (0..6).filter(|n| ring(0..6).owns(&peer(*n), K, 3)).collect();
    let (reader, now) = (mesh.outsider(K), mesh.now);
    assert_eq!(mesh.write(owners[0], K, add(1)), Ok(()));
    mesh.run(30);
    mesh.lose_disk(owners[1]);
    mesh.node(owners[1]).set_ring(now, ring((0..6).filter(|n| *n != owners[1])));
    mesh.partition(&[owners[2]]);
    assert!(matches!(mesh.read(reader, K), ReplicatorEvent::ReadDone { value: Some(_), partial: true, .. }));
}

#[test]
fn a_removal_at_an_owner_that_has_one_of_two_additions_removes_both() {
    let mut mesh = Mesh::new(3);
    mesh.partition(&[2]);
    assert_eq!(mesh.write(1, S, insert(b"x")), Ok(()));
    mesh.lose_disk(0);
    // Now the first addition is at 1 alone, and the second one, which hasn't seen it, comes to 0.
    mesh.cut.clear();
    mesh.partition(&[1]);
    assert_eq!(mesh.write(2, S, insert(b"x")), Ok(()));
    mesh.cut.clear();
    assert_eq!(mesh.write(0, S, remove(b"x")), Ok(()));
    mesh.run(60);
    mesh.assert_converged(&ring(0..3));
    assert!(matches!(mesh.node(1).get(S), Some(Value::Set(set)) if set.is_empty()));
}
