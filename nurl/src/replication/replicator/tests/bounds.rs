//! Full tables, and arbitrary bytes as messages.

use minicbor::bytes::ByteVec;
use proptest::prelude::*;

use super::mesh::{K, Mesh, S, add, insert, peer, remove, ring, set};
use crate::replication::crdt::OrSet;
use crate::replication::replicator::*;

#[test]
fn full_tables_are_typed_errors_and_counted() {
    let mut mesh = Mesh::new(3);
    mesh.config.max_entries = 2;
    mesh.config.max_pending = 1;
    mesh.config.durable = true;
    mesh.start(0, 1);
    mesh.set_ring(0..3);
    let (now, wall) = (mesh.now, mesh.wall);
    let node = mesh.node(0);
    node.make(Moment { now, wall }, b"\x01a", (&add(1), Confirm::Safe), None).unwrap();
    node.make(Moment { now, wall }, b"\x01b", (&add(1), Confirm::Safe), None).unwrap();
    assert_eq!(
        node.make(Moment { now, wall }, b"\x01c", (&add(1), Confirm::Safe), None),
        Err(UpdateError::Full("keys held"))
    );
    assert_eq!(node.stats().full, 1);
    node.set_ring(now, ring(1..3));
    node.make(Moment { now, wall }, b"\x01c", (&add(1), Confirm::Safe), None).unwrap();
    assert_eq!(
        node.make(Moment { now, wall }, b"\x01d", (&add(1), Confirm::Safe), None),
        Err(UpdateError::Full("unacknowledged writes"))
    );
    node.update(now, wall, 1, &[0; 1025], (add(1), Confirm::Safe));
    let outcome = Err(UpdateError::KeyTooLong(1025).into());
    assert_eq!(node.poll_event(), Some(ReplicatorEvent::Updated { id: 1, outcome }));
    node.set_ring(now, ring([]));
    assert_eq!(
        node.make(Moment { now, wall }, b"\x01a", (&add(1), Confirm::Safe), None),
        Err(UpdateError::NoOwners)
    );
    for id in 0..MAX_READS as u64 {
        node.set_ring(now, ring(1..3));
        node.begin_read(now, id, b"\x01zz").unwrap();
    }
    assert_eq!(node.begin_read(now, 99_999, b"\x01zz"), Err(UpdateError::Full("reads")));
    while node.shared.outbox.len() < MAX_OUTBOX {
        node.shared.send(peer(1), &Message::Pull { keys: Vec::new() });
    }
    let dropped = node.stats().outbox_dropped;
    node.shared.send(peer(1), &Message::Pull { keys: Vec::new() });
    assert_eq!((node.shared.outbox.len(), node.stats().outbox_dropped), (MAX_OUTBOX, dropped + 1));
}

#[test]
fn operations_are_bounded_at_both_ends() {
    let mut mesh = Mesh::new(2);
    mesh.config.durable = true;
    mesh.restart(1);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.update(1, b"\x01n", &add(1));
    mesh.deliver();
    for id in 0..operations::MAX_OPERATIONS as u64 {
        mesh.operate(0, id, peer(1), K, add(1)).unwrap();
    }
    assert_eq!(mesh.operate(0, 99_999, peer(1), K, add(1)), Err(UpdateError::Full("operations")));
    let member = mesh.node(1);
    let ask_by = |member: &mut Replicator, now, from: u8, n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let message = Message::Operation {
            id: id.into(),
            key: b"\x01n".to_vec().into(),
            op: add(1),
            boot: None,
            confirm: None,
        };
        member.handle_message(now, wall, peer(from), &message.encode());
        while let Some((_, answer)) = member.poll_transmit() {
            if let Some(Message::OperationReply { outcome, .. }) = Message::decode(&answer) {
                return outcome;
            }
        }
        panic!("no answer");
    };
    let ask = |member: &mut Replicator, now, n| ask_by(member, now, 0, n);
    let most = served::MAX_REMEMBERED / 2;
    for n in 0..most as u32 {
        assert_eq!(ask(member, now, n), 0);
    }
    assert_eq!(ask(member, now, u32::MAX), 1, "busy, and nothing was done");
    assert_eq!((member.stats().full, ask_by(member, now, 2, 0)), (1, 0), "another observer has room");
    assert_eq!(ask(member, now, 0), 0, "what is remembered is still answered");
    let later = now + served::REMEMBER;
    member.handle_timeout(later, wall);
    assert_eq!(ask(member, later, u32::MAX), 0);
    let Some(Value::Counter(counter)) = member.get(b"\x01n") else { panic!() };
    assert_eq!(counter.value(), most as i128 + 3);
}

#[test]
fn what_others_remove_keeps_no_caller_here_from_reading_and_removing() {
    let mut mesh = Mesh::new(3);
    mesh.set_ring(0..3);
    let (now, wall) = (mesh.now, mesh.wall);
    let node = mesh.node(0);
    let mut elements = OrSet::default();
    elements.add(ReplicaId { key: peer(8), incarnation: 1 }, b"x").unwrap();
    let state = Value::Set(elements.removing(b"x")).encode();
    for n in 0..MAX_READS as u64 {
        let key = [&[3][..], &n.to_le_bytes()].concat();
        let delta = Message::Delta { key: key.into(), id: Some(n), state: state.clone().into() };
        node.handle_message(now, wall, peer(9), &delta.encode());
    }
    assert_eq!((node.asking.of_others(), node.stats().full), (MAX_READS / 2, MAX_READS as u64 / 2));
    for n in 0..MAX_READS as u64 {
        node.update(now, wall, n, &n.to_be_bytes(), (remove(b"x"), Confirm::Safe));
    }
    assert_eq!(node.poll_event(), None, "each waits for the other owners");
    node.update(now, wall, MAX_READS as u64, b"one more", (remove(b"x"), Confirm::Safe));
    assert!(matches!(node.poll_event(), Some(ReplicatorEvent::Updated { outcome: Err(_), .. })));
}

#[test]
fn the_bytes_held_are_bounded() {
    let mut mesh = Mesh::new(1);
    mesh.config.max_held_bytes = 10_000;
    mesh.start(0, 1);
    mesh.set_ring(0..1);
    let (now, wall) = (mesh.now, mesh.wall);
    let refused = (0..20u8).find_map(|key| {
        mesh.node(0).make(Moment { now, wall }, &[2, key], (&set(&[0; 1000]), Confirm::Safe), None).err()
    });
    assert_eq!(refused, Some(UpdateError::Full("keys held")));
    assert!(mesh.node(0).held.copies.bytes() <= 10_000);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut mesh = Mesh::new(2);
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(0).handle_message(now, wall, peer(1), &bytes);
        prop_assert!(mesh.node(0).keys().count() <= 1);
    }

    #[test]
    fn a_damaged_message_is_taken_without_a_panic(at: prop::sample::Index, with: u8, which in 0usize..5) {
        let mut mesh = Mesh::new(2);
        let key: ByteVec = S.to_vec().into();
        let mut elements = OrSet::default();
        elements.add(ReplicaId { key: peer(1), incarnation: 1 }, b"x").unwrap();
        let state: ByteVec = Value::Set(elements).encode().into();
        let range = message::Range { after: None, upto: Some(key.clone()) };
        let item = message::Item { key: key.clone(), bytes: state.clone() };
        let messages = [
            Message::Delta { key: key.clone(), id: Some(1), state },
            Message::Summary { range: range.clone(), hash: [1; 16].into(), settling: Some(1), digests: true },
            Message::Digests { range, items: vec![item.clone()], settling: Some(1) },
            Message::States { items: vec![item] },
            Message::Operation { id: [1; 16].into(), key, op: insert(b"x"), boot: None, confirm: None },
        ];
        let mut bytes = messages[which].encode();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(0).handle_message(now, wall, peer(1), &bytes);
        mesh.run(3);
    }
}
