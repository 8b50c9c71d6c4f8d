//! A peer changes its own slots only, unless it is an owner of the key.

use super::mesh::{K, Mesh, R, S, WALL, add, field, insert, peer, remove, replace, ring, set};
use crate::replication::crdt::{Author, Kind, LwwRegister, MultiRegister, OrMap, OrSet, PnCounter};
use crate::replication::replicator::authors::MAX_AUTHOR_SLOTS;
use crate::replication::replicator::*;

/// Whoever attacks; it isn't on the ring.
const OBSERVER: u8 = 200;

fn id(n: u8, incarnation: u64) -> ReplicaId {
    ReplicaId { key: peer(n), incarnation }
}

fn counter(slots: impl IntoIterator<Item = (ReplicaId, u64)>) -> Value {
    let mut counter = PnCounter::default();
    for (id, added) in slots {
        counter.merge(&PnCounter::of(id, added, 0)).unwrap();
    }
    Value::Counter(counter)
}

/// The delta that adds an element as the author's write number `dot`.
fn element(author: ReplicaId, element: &[u8], dot: u64) -> Value {
    Value::Set(OrSet::default().adding(author, element, dot - 1).unwrap())
}

/// The delta that has seen the author's writes up to `dot`, as if it removed them.
fn removal(author: ReplicaId, dot: u64) -> Value {
    let added = OrSet::default().adding(author, b"x", dot - 1).unwrap();
    Value::Set(added.removing(b"x"))
}

impl Mesh {
    /// Sends a state in each of the messages that carry one, from `from` to all nodes.
    fn tell(&mut self, from: u8, key: &[u8], state: &Value) {
        let state = || state.encode().into();
        let messages = [
            Message::Delta { key: key.to_vec().into(), id: None, state: state() },
            Message::Delta { key: key.to_vec().into(), id: Some(7), state: state() },
            Message::Copy { key: key.to_vec().into(), id: 8, state: state() },
            Message::States { items: vec![message::Item { key: key.to_vec().into(), bytes: state() }] },
        ];
        let (now, wall) = (self.now, self.wall);
        for message in messages {
            for node in self.nodes.values_mut() {
                node.handle_message(now, wall, peer(from), &message.encode());
            }
            self.deliver();
        }
    }

    fn foreign(&self) -> u64 {
        self.nodes.values().map(|node| node.stats().foreign).sum()
    }

    /// The copies, sorted, as the owners hold them.
    fn all_copies(&self, key: &[u8]) -> Vec<Vec<u8>> {
        self.copies(key).into_values().collect()
    }
}

#[test]
fn an_observer_raises_no_slot_but_its_own() {
    let mut mesh = Mesh::new(5);
    let owner = mesh.insider(K);
    mesh.update(owner, K, &add(5));
    mesh.run(20);
    let before = mesh.all_copies(K);
    mesh.tell(OBSERVER, K, &counter([(id(owner, 1), u64::MAX)]));
    mesh.tell(OBSERVER, K, &counter((0..4095).map(|n| (id((n % 250) as u8, n), 1))));
    assert_eq!(mesh.all_copies(K), before);
    assert!(mesh.foreign() > 0);
    assert_eq!(mesh.write(owner, K, add(1)), Ok(()), "the owner's slot isn't exhausted");
    mesh.tell(OBSERVER, K, &counter([(id(OBSERVER, 1), 4)]));
    assert_eq!(mesh.counter(K), 10, "its own slot is its own affair");
}

#[test]
fn an_author_has_a_bounded_number_of_slots() {
    let mut mesh = Mesh::new(3);
    let slots = |count: u64| counter((0..count).map(|n| (id(OBSERVER, n), 1)));
    mesh.tell(OBSERVER, K, &slots(MAX_AUTHOR_SLOTS as u64));
    assert_eq!(mesh.counter(K), MAX_AUTHOR_SLOTS as i128);
    mesh.tell(OBSERVER, K, &slots(MAX_AUTHOR_SLOTS as u64 + 1));
    mesh.tell(OBSERVER, K, &counter([(id(OBSERVER, 9999), 1)]));
    assert_eq!(mesh.counter(K), MAX_AUTHOR_SLOTS as i128);
    // Beyond gaps in a set, too.
    for n in 1..=2 * MAX_AUTHOR_SLOTS as u64 {
        mesh.tell(OBSERVER, S, &element(id(OBSERVER, 1), b"x", 2 * n));
    }
    let Some(Value::Set(held)) = mesh.node(0).get(S) else { panic!() };
    assert_eq!(held.context().highest(&id(OBSERVER, 1)), 2 * MAX_AUTHOR_SLOTS as u64);
    assert_eq!(mesh.write(0, S, insert(b"y")), Ok(()));
}

#[test]
fn a_value_of_another_kind_than_its_key_says_changes_nothing_whoever_sends_it() {
    let own = |n: u8, kind: Kind| match kind {
        Kind::Counter => counter([(id(n, 1), 4)]),
        Kind::Register => {
            let mut clock = crate::replication::crdt::Clock::default();
            Value::Register(LwwRegister::default().set(id(n, 1), &mut clock, WALL, b"v").unwrap())
        }
        Kind::Set => element(id(n, 1), b"x", 1),
        Kind::Map => {
            let author = Author { replica: id(n, 1), floor: 0 };
            Value::Map(OrMap::default().adding(author, b"f", 1).unwrap())
        }
        Kind::Multi => Value::Multi(MultiRegister::default().writing(id(n, 1), b"v", 0).unwrap()),
    };
    let op = |kind: Kind| match kind {
        Kind::Counter => add(1),
        Kind::Register => set(b"v"),
        Kind::Set => insert(b"y"),
        Kind::Multi => replace(b"w"),
        Kind::Map => field(b"f", FieldOp::Add { by: 2 }),
    };
    let kinds = Kind::ALL;
    for (of, kind, written) in
        kinds.iter().flat_map(|of| kinds.map(|kind| [(*of, kind, false), (*of, kind, true)])).flatten()
    {
        let mut mesh = Mesh::new(3);
        let key = state_key(of, b"name");
        if written {
            mesh.update(0, &key, &op(of));
            mesh.run(20);
        }
        let before = mesh.all_copies(&key);
        for from in [OBSERVER, 1] {
            mesh.tell(from, &key, &own(from, kind));
            mesh.tell(from, &key, &Value::new(kind));
            let operation = Message::Operation {
                id: [from; 16].into(),
                key: key.clone().into(),
                op: op(kind),
                boot: None,
                confirm: None,
            };
            let (now, wall) = (mesh.now, mesh.wall);
            mesh.node(0).handle_message(now, wall, peer(from), &operation.encode());
            mesh.deliver();
        }
        let changed = mesh.all_copies(&key) != before;
        let malformed: u64 = mesh.nodes.values().map(|node| node.stats().malformed).sum();
        if of == kind {
            assert!(changed && malformed == 0, "the negative control");
        } else {
            // Two senders, each with four messages of each of two states to three nodes, and an operation.
            assert_eq!((changed, malformed), (false, 2 * (2 * 4 * 3 + 1)), "{kind:?} for {of:?}");
        }
    }
}

#[test]
fn a_state_without_content_creates_no_key() {
    let mut mesh = Mesh::new(5);
    for kind in Kind::ALL {
        let key = &state_key(kind, b"name");
        mesh.tell(OBSERVER, key, &Value::new(kind));
        assert!(mesh.copies(key).is_empty());
    }
    assert!(mesh.foreign() > 0);
}

#[test]
fn an_observer_writes_no_register_in_anothers_name() {
    let mut mesh = Mesh::new(5);
    let owner = mesh.insider(R);
    mesh.update(owner, R, &set(b"v"));
    mesh.run(20);
    let before = mesh.all_copies(R);
    let mut clock = crate::replication::crdt::Clock::default();
    for ahead in [1, 5000] {
        let wall = mesh.wall + Duration::from_secs(ahead);
        let forged = LwwRegister::default().set(id(owner, 1), &mut clock, wall, b"forged").unwrap();
        mesh.tell(OBSERVER, R, &Value::Register(forged));
    }
    assert_eq!(mesh.all_copies(R), before);
}

#[test]
fn an_observer_removes_no_element_that_is_yet_to_be_written() {
    let mut mesh = Mesh::new(5);
    let owner = mesh.insider(S);
    mesh.update(owner, S, &insert(b"old"));
    mesh.run(20);
    let before = mesh.all_copies(S);
    mesh.tell(OBSERVER, S, &removal(id(owner, 1), 2));
    mesh.tell(OBSERVER, S, &removal(id(owner, 1), u64::MAX));
    mesh.tell(OBSERVER, S, &element(id(owner, 1), b"forged", 2));
    mesh.run(10);
    assert_eq!(mesh.all_copies(S), before);
    assert_eq!(mesh.write(owner, S, insert(b"new")), Ok(()));
    mesh.run(10);
    let Some(Value::Set(held)) = mesh.node(owner).get(S) else { panic!() };
    assert_eq!(held.iter().collect::<Vec<_>>(), [&b"new"[..], b"old"]);
}

#[test]
fn a_removal_that_overtakes_the_write_that_it_removes_asks_the_other_owners_for_it() {
    let mut mesh = Mesh::new(6);
    let (insider, outsider) = (mesh.insider(S), mesh.outsider(S));
    mesh.update(insider, S, &insert(b"old"));
    mesh.run(20);
    // Only the insider has the element, when the removal arrives at the others.
    mesh.loss_percent = 100;
    mesh.update(insider, S, &insert(b"x"));
    mesh.deliver();
    mesh.loss_percent = 0;
    assert_eq!(mesh.write(outsider, S, remove(b"x")), Ok(()));
    mesh.deliver();
    for owner in ring(0..6).owners(S, 3) {
        let Some(Value::Set(held)) = mesh.nodes[&owner].get(S) else { panic!() };
        assert_eq!(held.iter().collect::<Vec<_>>(), [b"old"]);
        assert_eq!(held.context().highest(&id(insider, 1)), 2, "all have seen it");
    }
}

#[test]
fn a_worker_that_does_not_own_the_key_tells_no_others_writes_even_after_an_absence() {
    let mut mesh = Mesh::new(6);
    let (owner, outsider) = (mesh.insider(K), mesh.outsider(K));
    mesh.update(owner, K, &add(5));
    mesh.run(700);
    let forged = counter([(id(owner, 1), u64::MAX)]);
    mesh.tell(outsider, K, &forged);
    assert_eq!(mesh.counter(K), 5);
    // It was away: what those that stayed wrote, it can't have heard from them.
    mesh.set_ring((0..6).filter(|n| *n != outsider));
    mesh.run(60);
    mesh.set_ring(0..6);
    mesh.tell(outsider, K, &forged);
    assert_eq!(mesh.counter(K), 5);
    // But what another that was away wrote, it hands back.
    let absent = counter([(id(99, 1), 7), (id(outsider, 1), 1)]);
    mesh.tell(outsider, K, &absent);
    assert_eq!(mesh.counter(K), 13);
    mesh.run(700);
    mesh.tell(outsider, K, &counter([(id(98, 1), 7)]));
    assert_eq!(mesh.counter(K), 13, "that time is over");
}

#[test]
fn a_copy_that_is_contained_in_the_held_one_is_acknowledged_whoever_sends_it() {
    let mut mesh = Mesh::new(4);
    let owner = mesh.insider(K);
    mesh.update(owner, K, &add(5));
    mesh.run(20);
    let state = mesh.node(owner).get(K).unwrap().encode();
    let (now, wall) = (mesh.now, mesh.wall);
    let copy = Message::Copy { key: K.to_vec().into(), id: 8, state: state.into() };
    mesh.node(owner).handle_message(now, wall, peer(OBSERVER), &copy.encode());
    let answer = mesh.node(owner).poll_transmit().unwrap();
    assert_eq!(answer.0, peer(OBSERVER));
    assert!(matches!(Message::decode(&answer.1), Some(Message::Ack { id: 8, .. })));
}
