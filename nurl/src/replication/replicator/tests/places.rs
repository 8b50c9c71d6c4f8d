//! Writers without room: a full table of sums, and values without a place for another writer.

use super::mesh::{K, Mesh, S, add, insert, peer, ring};
use crate::replication::crdt::{MAX_COUNTER_SLOTS, PnCounter};
use crate::replication::replicator::authors::{MAX_AUTHOR_SLOTS, OWNERS_SLOTS};
use crate::replication::replicator::*;

/// Counters that `peer(0)` doesn't own.
fn anothers(count: usize) -> Vec<[u8; 2]> {
    let keys = (0..u8::MAX).map(|n| [1, n]);
    keys.filter(|key| !ring(0..6).owns(&peer(0), key, 3)).take(count).collect()
}

#[test]
fn who_has_no_room_for_more_sums_writes_on_under_another_id_and_counts_each_write_once() {
    let mut mesh = Mesh::new(6);
    mesh.config.max_own = 4;
    mesh.start(0, 1);
    mesh.set_ring(0..6);
    let keys = anothers(10);
    for round in 1..=3 {
        for key in &keys {
            mesh.update(0, key, &add(1));
            mesh.deliver();
            assert_eq!(mesh.counter(key), round, "{key:?}");
        }
        assert!(mesh.node(0).writes.sums().len() <= 4);
        // The sums that are on the disk count for the id under which they were written.
        mesh.restart(0);
    }
    assert!(mesh.incarnations[&peer(0)] != 1);
    let records = mesh.disk.keys().filter(|(owner, _)| *owner == peer(0)).count();
    assert_eq!(records, mesh.node(0).writes.sums().len(), "the records of forgotten sums are gone");
}

#[test]
fn a_former_owner_without_room_for_its_sums_drops_its_copies_and_writes_on() {
    let mut mesh = Mesh::new(4);
    mesh.config.max_own = 1;
    mesh.start(0, 1);
    mesh.set_ring(0..4);
    let keys: Vec<[u8; 2]> =
        (0..100u8).map(|n| [1, n]).filter(|key| ring(0..4).owns(&peer(0), key, 3)).take(5).collect();
    for key in &keys {
        mesh.update(0, key, &add(1));
    }
    mesh.run(5);
    mesh.set_ring(1..4);
    mesh.run(200);
    assert_eq!(mesh.node(0).keys().count(), 0);
    assert!(mesh.node(0).stats().renewed > 0);
    for key in &keys {
        assert_eq!(mesh.write(0, key, add(1)), Ok(()));
        assert_eq!(mesh.counter(key), 2);
    }
}

#[test]
fn a_refused_write_is_taken_back_only_under_the_id_under_which_it_was_made() {
    let mut mesh = Mesh::new(6);
    mesh.config.max_own = 1;
    mesh.start(0, 1);
    mesh.set_ring(0..6);
    let keys = anothers(2);
    // The owners refuse the first key's writes of before and after this node took another id.
    mesh.update(0, &keys[0], &add(5));
    mesh.deliver();
    mesh.partition(&[0]);
    mesh.update(0, &keys[0], &add(7));
    mesh.deliver();
    mesh.update(0, &keys[1], &add(1));
    mesh.update(0, &keys[0], &add(100));
    let id = mesh.node(0).shared.last_id();
    mesh.deliver();
    let why = Decline::NoRoom.to_wire();
    for owner in mesh.owners(&keys[0]) {
        mesh.inject(owner, 0, &Message::Declined { key: keys[0].to_vec().into(), id, why });
    }
    mesh.cut.clear();
    assert_eq!(mesh.write(0, &keys[0], add(1000)), Ok(()));
    assert_eq!(mesh.counter(&keys[0]), 1005, "neither the refused 7 nor the 100 counts");
}

/// Fills the counter `K` at all its owners with the slots of so many writers that are gone, of one each.
fn fill(mesh: &mut Mesh, writers: usize) {
    let owners = mesh.owners(K);
    let mut counter = PnCounter::default();
    for n in 0..writers {
        let key = PublicKey::from_bytes(*blake3::hash(&(n as u32).to_le_bytes()).as_bytes());
        counter.merge(&PnCounter::of(ReplicaId { key, incarnation: 1 }, 1, 0)).unwrap();
    }
    let bytes = Value::Counter(counter).encode();
    for to in &owners {
        let from = if *to == owners[0] { owners[1] } else { owners[0] };
        let message = Message::Copy { key: K.to_vec().into(), id: 1, state: bytes.clone().into() };
        mesh.inject(from, *to, &message);
    }
    mesh.deliver();
}

#[test]
fn a_counter_full_of_departed_writers_takes_more_through_its_owners_and_is_exact() {
    let mut mesh = Mesh::new(9);
    let full = MAX_COUNTER_SLOTS - OWNERS_SLOTS;
    fill(&mut mesh, full);
    let owners = mesh.owners(K);
    let others: Vec<u8> = (0..9).filter(|n| !owners.contains(n)).collect();
    assert_eq!(mesh.write(owners[1], K, add(1)), Ok(()));
    let mut sum = full as i128 + 1;
    assert_eq!(mesh.counter(K), sum);
    for round in 1..4 {
        for other in &others {
            assert_eq!(mesh.write(*other, K, add(round)), Ok(()));
            sum += i128::from(round);
            assert_eq!(mesh.counter(K), sum);
        }
    }
    let Some(Value::Counter(counter)) = mesh.node(owners[0]).get(K) else { panic!() };
    let of_owners = counter.places() - full;
    assert!(of_owners <= owners.len(), "the owners wrote");
    // An owner whose own place is missing goes through another one.
    fill(&mut mesh, MAX_COUNTER_SLOTS - of_owners);
    mesh.lose_disk(owners[2]);
    mesh.run(30);
    let Some(Value::Counter(counter)) = mesh.node(owners[2]).get(K) else { panic!() };
    let before = counter.value();
    assert_eq!(counter.places(), MAX_COUNTER_SLOTS, "the last place is taken");
    assert_eq!(mesh.write(owners[2], K, add(1)), Ok(()));
    mesh.run(30);
    assert_eq!(mesh.counter(K), before + 1);
    // And so does who asks an owner without a place: the next one has one.
    mesh.lose_disk(owners[0]);
    mesh.run(30);
    assert_eq!(mesh.write(others[0], K, add(1)), Ok(()));
    mesh.run(30);
    assert_eq!(mesh.counter(K), before + 2);
}

#[test]
fn an_author_with_all_of_its_places_writes_through_an_owner() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(S);
    for n in 0..MAX_AUTHOR_SLOTS as u64 + 3 {
        mesh.start(writer, n);
        let now = mesh.now;
        mesh.node(writer).set_ring(now, ring(0..6));
        assert_eq!(mesh.write(writer, S, insert(&n.to_le_bytes())), Ok(()), "{n}");
    }
    let Some(Value::Set(set)) = mesh.node(mesh.owners(S)[0]).get(S) else { panic!() };
    assert_eq!(set.len(), MAX_AUTHOR_SLOTS + 3);
}
