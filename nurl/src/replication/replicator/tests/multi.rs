//! The multi-value register.

use super::mesh::{Mesh, replace, ring};
use crate::replication::crdt::Kind;
use crate::replication::replicator::*;

fn key() -> Vec<u8> {
    state_key(Kind::Multi, b"name")
}

fn values(mesh: &mut Mesh, n: u8) -> Vec<Vec<u8>> {
    match mesh.read(n, &key()) {
        ReplicatorEvent::ReadDone { value: Some(Value::Multi(register)), .. } => {
            register.values().into_iter().map(<[u8]>::to_vec).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_holds_no_copy_replaces_what_the_owners_hold() {
    let mut mesh = Mesh::new(6);
    let (outsider, insider) = (mesh.outsider(&key()), mesh.insider(&key()));
    for (n, value) in [(insider, b"a"), (outsider, b"b"), (outsider, b"c"), (insider, b"d"), (outsider, b"e")]
    {
        assert_eq!(mesh.write(n, &key(), replace(value)), Ok(()));
        mesh.run(3);
        assert_eq!(values(&mut mesh, outsider), [value], "written by {n}");
    }
}

#[test]
fn two_sides_write_side_by_side_and_the_next_write_replaces_both() {
    let mut mesh = Mesh::new(6);
    assert_eq!(mesh.write(0, &key(), replace(b"before")), Ok(()));
    mesh.run(20);
    mesh.partition(&[0, 1, 2]);
    let now = mesh.now;
    for side in [[0, 1, 2], [3, 4, 5]] {
        for n in side {
            mesh.node(n).set_ring(now, ring(side));
        }
    }
    for (n, value) in [(0, b"left"), (4, b"more")] {
        assert_eq!(mesh.write(n, &key(), replace(value)), Ok(()));
    }
    mesh.cut.clear();
    mesh.set_ring(0..6);
    mesh.run(400);
    mesh.assert_converged(&ring(0..6));
    for n in 0..6 {
        assert_eq!(values(&mut mesh, n), [b"left", b"more"], "read by {n}");
    }
    assert_eq!(mesh.write(3, &key(), replace(b"both")), Ok(()));
    mesh.run(20);
    for n in 0..6 {
        assert_eq!(values(&mut mesh, n), [b"both"], "read by {n}");
    }
}
