//! One key that is written as two types.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::mesh::{Mesh, add, insert, peer, ring, set};
use crate::replication::crdt::{CrdtError, Kind};
use crate::replication::replicator::*;

#[test]
fn sides_that_created_one_key_as_two_types_converge_and_lose_neither() {
    let mut mesh = Mesh::new(4);
    mesh.partition(&[0, 1]);
    let now = mesh.now;
    for side in [[0, 1], [2, 3]] {
        for n in side {
            mesh.node(n).set_ring(now, ring(side));
        }
    }
    assert_eq!(mesh.write(0, b"k", add(5)), Ok(()));
    assert_eq!(mesh.write(2, b"k", insert(b"x")), Ok(()));
    mesh.cut.clear();
    mesh.set_ring(0..4);
    mesh.run(200);
    mesh.assert_converged(&ring(0..4));
    assert!(mesh.nodes.values().map(|node| node.stats().mixed).sum::<u64>() > 0);
    let holder = mesh.insider(b"k");
    let value = mesh.node(holder).get(b"k").unwrap();
    assert!(matches!(value.part(Kind::Counter), Some(Value::Counter(counter)) if counter.value() == 5));
    assert!(matches!(value.part(Kind::Set), Some(Value::Set(set)) if set.contains(b"x")));
    // Both types accept further writes, and a third type is refused.
    let outsider = mesh.outsider(b"k");
    for n in [holder, outsider] {
        assert_eq!(mesh.write(n, b"k", add(1)), Ok(()));
        assert_eq!(mesh.write(n, b"k", insert(&[n])), Ok(()));
        let refused = mesh.write(n, b"k", set(b"v"));
        assert!(matches!(refused, Err(UpdateError::Value(CrdtError::WrongKind { .. }))), "{refused:?}");
    }
}

#[test]
fn a_type_that_new_owners_took_before_the_former_ones_handed_over_is_kept_beside_theirs() {
    let mut mesh = Mesh::new(8);
    let first = mesh.insider(b"k");
    assert_eq!(mesh.write(first, b"k", add(5)), Ok(()));
    let former = ring(0..8).owners(b"k", 3);
    let after = || (0..8).filter(|n| !former.contains(&peer(*n)));
    mesh.set_ring(after());
    let writer = after().find(|n| ring(after()).owns(&peer(*n), b"k", 3)).unwrap();
    assert_eq!(mesh.write(writer, b"k", insert(b"x")), Ok(()), "no owner has a copy");
    mesh.run(400);
    mesh.assert_converged(&ring(after()));
    let value = mesh.node(writer).get(b"k").unwrap();
    assert!(matches!(value.part(Kind::Counter), Some(Value::Counter(counter)) if counter.value() == 5));
    assert!(matches!(value.part(Kind::Set), Some(Value::Set(set)) if set.contains(b"x")));
    assert!(mesh.nodes.values().map(|node| node.stats().mixed).sum::<u64>() > 0);
}

/// A write of a type, distinct for each `n`.
fn op_of(kind: Kind, n: u8) -> Op {
    match kind {
        Kind::Counter => add(i64::from(n) + 1),
        Kind::Register => set(&[n]),
        Kind::Set => insert(&[n]),
    }
}

fn two_kinds() -> impl Strategy<Value = (Kind, Kind)> {
    let kinds = Just(vec![Kind::Counter, Kind::Register, Kind::Set]).prop_shuffle();
    kinds.prop_map(|kinds| (kinds[0], kinds[1]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_write_of_another_type_is_refused_and_changes_nothing_anywhere(
        (kind, other) in two_kinds(), key in 0u8..20, writers in proptest::collection::vec(0u8..8, 1..5),
        forgetful in proptest::option::of(0u8..7), moves in any::<bool>(), loss in 0u64..40,
    ) {
        let mut mesh = Mesh::new(7);
        mesh.config.observer = true;
        mesh.start(7, 1);
        mesh.config.observer = false;
        mesh.set_ring(0..7);
        let first = mesh.insider(&[key]);
        mesh.write(first, &[key], op_of(kind, 0)).unwrap();
        mesh.run(40);
        if let Some(forgetful) = forgetful {
            mesh.lose_disk(forgetful);
        }
        if moves {
            // The first owner hands its copy over to a node that has none.
            let owner = ring(0..7).owners(&[key], 3)[0];
            mesh.set_ring((0..7).filter(|n| peer(*n) != owner));
        }
        mesh.loss_percent = loss;
        for (id, writer) in (0u64..).zip(writers) {
            if writer == 7 {
                let member = mesh.insider(&[key]);
                mesh.operate(7, id, peer(member), &[key], op_of(other, 1)).unwrap();
                mesh.run(62);
                let outcome = mesh.events.iter().find_map(|(_, event)| match event {
                    ReplicatorEvent::Updated { id: of, outcome } if *of == id => Some(*outcome),
                    _ => None,
                });
                let told = [OperationError::OtherKind(kind), OperationError::Busy, OperationError::Unknown];
                let told = told.map(|error| Err(UpdateFailure::AtMember(error)));
                prop_assert!(told.contains(&outcome.unwrap()), "{:?}", outcome);
            } else {
                let refused = mesh.write(writer, &[key], op_of(other, 1));
                let wrong = UpdateError::Value(CrdtError::WrongKind { held: kind, wanted: other });
                let told = [Err(wrong), Err(UpdateError::Unknown), Err(UpdateError::Unacknowledged)];
                prop_assert!(told.contains(&refused), "{:?}", refused);
                prop_assert!(loss > 0 || refused == Err(wrong), "{:?}", refused);
            }
        }
        mesh.loss_percent = 0;
        mesh.run(400);
        let copies = mesh.copies(&[key]);
        prop_assert!(copies.len() >= 3);
        for copy in copies.values() {
            let value = Value::decode(copy).unwrap();
            prop_assert_eq!(value.parts().len(), 1);
            prop_assert_eq!(value.kind(), kind);
        }
        prop_assert_eq!(copies.values().collect::<BTreeSet<_>>().len(), 1, "all copies are the same");
    }
}
