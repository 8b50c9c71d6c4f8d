//! Maps.

use super::mesh::{Mesh, field, ring};
use crate::replication::crdt::{Kind, OrMap};
use crate::replication::replicator::*;

fn key() -> Vec<u8> {
    state_key(Kind::Map, b"name")
}

fn add(by: i64) -> Op {
    field(b"f", FieldOp::Add { by })
}

fn clear() -> Op {
    field(b"f", FieldOp::Clear)
}

fn read(mesh: &mut Mesh, n: u8) -> OrMap {
    match mesh.read(n, &key()) {
        ReplicatorEvent::ReadDone { value: Some(Value::Map(map)), .. } => map,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_without_a_copy_adds_to_a_field_in_one_slot_and_removes_it() {
    let mut mesh = Mesh::new(6);
    let (outsider, insider) = (mesh.outsider(&key()), mesh.insider(&key()));
    let mut sizes = Vec::new();
    for _ in 0..20 {
        for n in [outsider, insider] {
            assert_eq!(mesh.write(n, &key(), add(3)), Ok(()));
            mesh.run(3);
        }
        sizes.push(mesh.node(insider).get(&key()).unwrap().encode().len());
    }
    assert_eq!(read(&mut mesh, outsider).counter(b"f"), 120);
    assert_eq!(sizes, [sizes[0]; 20], "its additions take no more space");
    assert_eq!(mesh.write(outsider, &key(), clear()), Ok(()));
    mesh.run(20);
    assert_eq!(read(&mut mesh, insider).fields(), []);
    for n in [outsider, insider] {
        assert_eq!(mesh.write(n, &key(), add(1)), Ok(()));
    }
    mesh.run(20);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(read(&mut mesh, outsider).counter(b"f"), 2);
}

#[test]
fn a_removal_on_one_side_leaves_what_the_other_side_has_written_since() {
    let mut mesh = Mesh::new(6);
    for n in [0, 4] {
        assert_eq!(mesh.write(n, &key(), add(10)), Ok(()));
    }
    assert_eq!(mesh.write(4, &key(), field(b"f", FieldOp::Insert { element: b"old".to_vec() })), Ok(()));
    mesh.run(30);
    mesh.partition(&[0, 1, 2]);
    let now = mesh.now;
    for side in [[0, 1, 2], [3, 4, 5]] {
        for n in side {
            mesh.node(n).set_ring(now, ring(side));
        }
    }
    // The new owners of each side ask the old one for its copy.
    mesh.run(30);
    assert_eq!(mesh.write(0, &key(), clear()), Ok(()));
    assert_eq!(mesh.write(4, &key(), add(3)), Ok(()));
    assert_eq!(mesh.write(5, &key(), field(b"f", FieldOp::Insert { element: b"new".to_vec() })), Ok(()));
    mesh.cut.clear();
    mesh.set_ring(0..6);
    mesh.run(400);
    mesh.assert_converged(&ring(0..6));
    for n in 0..6 {
        let map = read(&mut mesh, n);
        assert_eq!(map.counter(b"f"), 3, "read by {n}");
        assert_eq!(map.values(Kind::Set, b"f"), [b"new"], "read by {n}");
    }
}

#[test]
fn what_removes_a_field_of_nothing_does_nothing() {
    let mut mesh = Mesh::new(6);
    for n in 0..6 {
        assert_eq!(mesh.write(n, &key(), clear()), Ok(()));
    }
    assert!(mesh.copies(&key()).is_empty());
}
