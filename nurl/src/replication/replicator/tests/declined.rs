//! Refusals, and whose word ends a write.

use super::mesh::{K, Mesh, S, add, insert, peer, remove, ring};
use crate::replication::replicator::*;

fn declined(id: u64) -> Message {
    Message::Declined { key: K.to_vec().into(), id, why: Decline::NoRoom.to_wire() }
}

fn ack(id: u64) -> Message {
    Message::Ack { key: K.to_vec().into(), id, digest: [0; 16].into(), boot: 0, durable: false }
}

#[test]
fn a_write_is_over_when_all_keepers_have_refused_it_and_no_earlier_one() {
    let mut mesh = Mesh::new(6);
    let (writer, owners) = (mesh.outsider(K), mesh.owners(K));
    mesh.update(writer, K, &add(1));
    let first = mesh.node(writer).shared.last_id();
    mesh.inject(owners[0], writer, &declined(first));
    mesh.inject(owners[1], writer, &declined(first));
    assert_eq!(mesh.node(writer).pending(), 1, "the third one may take it");
    mesh.update(writer, K, &add(1));
    let second = mesh.node(writer).shared.last_id();
    mesh.inject(owners[2], writer, &declined(second));
    assert_eq!(mesh.node(writer).pending(), 1, "the others have refused another write");
    mesh.inject(owners[0], writer, &declined(second));
    mesh.inject(owners[1], writer, &declined(first));
    assert_eq!(mesh.node(writer).pending(), 1, "a late word about the first");
    mesh.inject(owners[1], writer, &declined(second));
    assert_eq!(mesh.node(writer).pending(), 0);
}

#[test]
fn a_write_that_a_keeper_has_is_not_over_when_all_refuse_the_next_one() {
    let mut mesh = Mesh::new(6);
    let (writer, owners) = (mesh.outsider(K), mesh.owners(K));
    mesh.update(writer, K, &add(1));
    let first = mesh.node(writer).shared.last_id();
    mesh.inject(owners[0], writer, &ack(first));
    mesh.update(writer, K, &add(1));
    let second = mesh.node(writer).shared.last_id();
    for owner in &owners {
        mesh.inject(*owner, writer, &declined(second));
    }
    assert_eq!(mesh.node(writer).pending(), 1);
    mesh.deliver();
    assert_eq!((mesh.node(writer).pending(), mesh.counter(K)), (0, 2));
}

#[test]
fn a_removal_is_not_refused_by_an_owner_that_could_not_ask_the_others() {
    let mut mesh = Mesh::new(6);
    let (writer, owners) = (mesh.outsider(S), mesh.owners(S));
    assert_eq!(mesh.write(owners[1], S, insert(b"x")), Ok(()));
    mesh.run(30);
    mesh.lose_disk(owners[0]);
    // The owner that forgot is all that the writer reaches, after it has read.
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).update(now, wall, 88, &S[1..], (remove(b"x"), Confirm::Safe));
    while mesh.node(writer).pending() == 0 {
        let sent = mesh.sent(writer);
        for (to, message) in sent {
            let to = owners.iter().copied().find(|n| peer(*n) == to).unwrap();
            mesh.inject(writer, to, &message);
            for (_, answer) in mesh.sent(to) {
                mesh.inject(to, writer, &answer);
            }
        }
    }
    mesh.partition(&[owners[1], owners[2]]);
    mesh.run(7);
    assert_eq!(mesh.node(owners[0]).stats().declined, 0, "it doesn't know what it is");
    assert_eq!(mesh.node(writer).pending(), 1);
    mesh.cut.clear();
    mesh.run(70);
    mesh.assert_converged(&ring(0..6));
    assert!(matches!(mesh.node(owners[0]).get(S), Some(Value::Set(set)) if set.is_empty()));
}

#[test]
fn a_writer_that_is_the_only_keeper_from_now_on_takes_its_write() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    mesh.partition(&[writer]);
    mesh.update(writer, K, &add(3));
    mesh.run(3);
    mesh.set_ring([writer]);
    mesh.run(3);
    assert_eq!(mesh.node(writer).pending(), 0);
    assert_eq!((mesh.holders(K), mesh.counter(K)), (vec![peer(writer)], 3));
}

#[test]
fn an_owner_with_a_store_tells_the_others_of_its_write_though_it_waits_for_none() {
    let mut mesh = Mesh::new(3);
    mesh.config.durable = true;
    mesh.lose_disk(0);
    mesh.update(0, K, &add(1));
    assert_eq!(mesh.node(0).pending(), 0);
    mesh.deliver();
    assert_eq!(mesh.holders(K).len(), 3);
}
