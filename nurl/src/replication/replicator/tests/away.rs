//! Replicas that were away for longer than deletions are remembered.

use super::mesh::{Mesh, add, peer, ring, ring_of};
use crate::replication::crdt::Kind;
use crate::replication::replicator::config::MARKS_KEPT;
use crate::replication::replicator::message::Range;
use crate::replication::replicator::*;

const DELETE: Op = Op::Delete { kind: Kind::Counter };

/// Keys that all of three nodes own.
const GONE: &[u8] = b"\x01gone";
const KEPT: &[u8] = b"\x01kept";
const LATE: &[u8] = b"\x01late";

/// A mesh of so many nodes with stores, that have been there for long.
fn old_mesh(count: u8) -> Mesh {
    let mut mesh = Mesh::new(count);
    mesh.config.durable = true;
    for n in 0..count {
        mesh.restart(n);
    }
    for key in [GONE, KEPT] {
        assert_eq!(mesh.write(0, key, add(2)), Ok(()));
        assert_eq!(mesh.write(count - 1, key, add(3)), Ok(()));
    }
    mesh.run(30);
    mesh.pass(MARKS_KEPT * 11 / 10);
    mesh
}

fn sum(mesh: &mut Mesh, n: u8, key: &[u8]) -> Option<i128> {
    match mesh.read(n, key) {
        ReplicatorEvent::ReadDone { value: None, partial: false, .. } => None,
        ReplicatorEvent::ReadDone { value: Some(Value::Counter(counter)), partial: false, .. } => {
            Some(counter.value())
        }
        other => panic!("{other:?}"),
    }
}

/// Lets node 2 be away for so long, while the others delete one of its objects and change another.
fn absence(mesh: &mut Mesh, time: Duration) {
    mesh.partition(&[2]);
    let now = mesh.now;
    for (n, away) in [(0, &[2][..]), (1, &[2]), (2, &[0, 1])] {
        mesh.node(n).set_ring(now, ring_of([(0, 0), (1, 0), (2, 0)], away));
    }
    assert_eq!(mesh.write(0, GONE, DELETE), Ok(()));
    assert_eq!(mesh.write(1, KEPT, add(1)), Ok(()));
    mesh.pass(time);
}

#[test]
fn what_was_deleted_while_a_replica_was_long_away_stays_gone() {
    for restarts in [false, true] {
        let mut mesh = old_mesh(3);
        // Both are of before its absence, but nobody has heard of the second.
        absence(&mut mesh, MARKS_KEPT * 5 / 4);
        assert!(mesh.node(0).get(GONE).is_none() && mesh.node(2).get(GONE).is_some());
        if restarts {
            mesh.restart(2);
        }
        mesh.cut.clear();
        mesh.set_ring(0..3);
        // It writes before it knows what is left of its own: as another actor, so that it counts in addition.
        let (now, wall) = (mesh.now + TICK, mesh.wall);
        mesh.node(2).handle_timeout(now, wall);
        mesh.update(2, KEPT, &add(20));
        mesh.run(60);
        for n in 0..3 {
            assert_eq!(sum(&mut mesh, n, GONE), None, "{restarts}");
            assert_eq!(sum(&mut mesh, n, KEPT), Some(26), "{restarts}");
        }
        mesh.assert_converged(&ring(0..3));
        let stats = *mesh.node(2).stats();
        assert_eq!((stats.set_aside, stats.discarded), (2, 2), "all owners vouched for what they have");
        assert_eq!(mesh.write(2, KEPT, add(10)), Ok(()));
        assert_eq!(mesh.write(2, GONE, add(3)), Ok(()));
        mesh.restart(2);
        mesh.run(30);
        for n in 0..3 {
            assert_eq!((sum(&mut mesh, n, KEPT), sum(&mut mesh, n, GONE)), (Some(36), Some(3)));
        }
    }
}

#[test]
fn a_replica_that_was_away_for_less_takes_the_deletion_and_sets_nothing_aside() {
    for restarts in [false, true] {
        let mut mesh = old_mesh(3);
        absence(&mut mesh, MARKS_KEPT * 9 / 10);
        if restarts {
            mesh.restart(2);
        }
        mesh.cut.clear();
        mesh.set_ring(0..3);
        mesh.run(60);
        for n in 0..3 {
            assert_eq!((sum(&mut mesh, n, GONE), sum(&mut mesh, n, KEPT)), (None, Some(6)));
        }
        assert_eq!(mesh.node(2).stats().set_aside, 0);
    }
}

#[test]
fn two_that_were_both_away_and_newcomers_discard_nothing() {
    let mut mesh = old_mesh(2);
    mesh.partition(&[0]);
    let now = mesh.now;
    mesh.node(0).set_ring(now, ring_of([(0, 0), (1, 0)], &[1]));
    mesh.node(1).set_ring(now, ring_of([(0, 0), (1, 0)], &[0]));
    assert_eq!(mesh.write(0, LATE, add(7)), Ok(()), "it has a store");
    mesh.pass(MARKS_KEPT * 5 / 4);
    mesh.restart(1);
    // What is set aside outlives processes that meet nobody.
    for _ in 0..2 {
        mesh.restart(0);
        mesh.deliver();
    }
    mesh.cut.clear();
    mesh.set_ring(0..2);
    mesh.run(120);
    for n in 0..2 {
        let sums = [GONE, KEPT, LATE].map(|key| sum(&mut mesh, n, key));
        assert_eq!(sums, [Some(5), Some(5), Some(7)], "{n}");
    }
    assert_eq!(mesh.node(0).stats().discarded, 0);
    // One that was alone for long, and two that are new.
    let mut mesh = Mesh::new(1);
    assert_eq!(mesh.write(0, KEPT, add(5)), Ok(()));
    mesh.start(1, 1);
    mesh.set_ring(0..2);
    mesh.run(30);
    mesh.nodes.remove(&peer(1));
    mesh.set_ring(0..1);
    mesh.pass(MARKS_KEPT * 5 / 4);
    for n in [2, 3] {
        mesh.start(n, 1);
    }
    mesh.set_ring([0, 2, 3]);
    mesh.run(200);
    assert!(mesh.node(0).stats().set_aside > 0);
    for n in [0, 2, 3] {
        assert_eq!(sum(&mut mesh, n, KEPT), Some(5), "{n}");
    }
}

#[test]
fn what_is_set_aside_survives_a_restart_before_it_is_decided() {
    let mut mesh = old_mesh(3);
    absence(&mut mesh, MARKS_KEPT * 5 / 4);
    mesh.restart(2);
    mesh.deliver();
    // It sees the others, and is killed before it has asked about anything.
    let (now, wall) = (mesh.now + TICK * 2, mesh.wall);
    mesh.node(2).set_ring(now, ring(0..3));
    mesh.node(2).handle_timeout(now, wall);
    mesh.deliver();
    assert!(mesh.node(2).presence().seen >= Some(wall));
    mesh.restart(2);
    assert!(mesh.node(2).get(GONE).is_none(), "it isn't trusted now, either");
    mesh.set_ring(0..3);
    mesh.cut.clear();
    mesh.run(60);
    for n in 0..3 {
        assert_eq!((sum(&mut mesh, n, GONE), sum(&mut mesh, n, KEPT)), (None, Some(6)));
    }
}

#[test]
fn one_that_was_cut_off_shows_nothing_to_who_asks_before_it_sees_that_it_is_back() {
    let mut mesh = old_mesh(3);
    absence(&mut mesh, MARKS_KEPT * 5 / 4);
    assert!(mesh.node(2).get(GONE).is_some());
    // A summary of one that sees it already, with nothing in it.
    let range = Range { after: None, upto: None };
    mesh.inject(0, 2, &Message::Summary { range, hash: [0; 16].into(), settling: Some(1), digests: true });
    let told = mesh.sent(2).into_iter().find_map(|(_, message)| match message {
        Message::Digests { items, .. } => Some(items.len()),
        _ => None,
    });
    assert_eq!((told, mesh.node(2).get(GONE).is_some()), (Some(0), false));
}
