//! Reads, and the removals that need one first.

use super::mesh::{K, Mesh, S, add, insert, peer, remove, ring};
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
