//! Objects of one name.

use super::mesh::{Mesh, add, insert, ring, set};
use crate::replication::crdt::Kind;
use crate::replication::replicator::*;

#[test]
fn one_name_is_three_objects_that_are_written_on_two_sides_and_converge_apart() {
    let mut mesh = Mesh::new(6);
    let [counter, register, elements] =
        [Kind::Counter, Kind::Register, Kind::Set].map(|kind| state_key(kind, b"name"));
    mesh.partition(&[0, 1, 2]);
    let now = mesh.now;
    for side in [[0, 1, 2], [3, 4, 5]] {
        for n in side {
            mesh.node(n).set_ring(now, ring(side));
        }
    }
    // Each side makes the first write that it knows of, in another order.
    for (n, order) in [(0, [0, 1, 2]), (3, [2, 0, 1])] {
        for which in order {
            let done = match which {
                0 => mesh.write(n, &counter, add(i64::from(n) + 1)),
                1 => mesh.write(n, &register, set(&[n])),
                _ => mesh.write(n, &elements, insert(&[n])),
            };
            assert_eq!(done, Ok(()));
        }
    }
    mesh.cut.clear();
    mesh.set_ring(0..6);
    mesh.run(400);
    mesh.assert_converged(&ring(0..6));
    for n in 0..6 {
        let mut read = |key: &[u8]| match mesh.read(n, key) {
            ReplicatorEvent::ReadDone { value: Some(value), .. } => value,
            other => panic!("{other:?}"),
        };
        assert!(matches!(read(&counter), Value::Counter(counter) if counter.value() == 5));
        assert!(matches!(read(&register), Value::Register(register) if register.value().is_some()));
        assert!(matches!(read(&elements), Value::Set(set) if set.len() == 2));
    }
}
