//! Deleted objects stay gone, and expire alike at all owners.

use super::mesh::{K, Mesh, R, S, add, field, insert, peer, replace, ring, set};
use crate::replication::crdt::{Author, Kind};
use crate::replication::replicator::config::MARKS_KEPT;
use crate::replication::replicator::*;

const M: &[u8] = b"\x04m";
const F: &[u8] = b"\x05f";

/// A key of each kind, and a write to it.
fn writes() -> [(&'static [u8], Kind, Op); 5] {
    let of_field = field(b"f", FieldOp::Add { by: 3 });
    [
        (K, Kind::Counter, add(3)),
        (R, Kind::Register, set(b"v")),
        (S, Kind::Set, insert(b"e")),
        (M, Kind::Multi, replace(b"v")),
        (F, Kind::Map, of_field),
    ]
}

impl Mesh {
    fn shown(&mut self, n: u8, key: &[u8]) -> Option<Value> {
        match self.read(n, key) {
            ReplicatorEvent::ReadDone { value, partial: false, .. } => value,
            other => panic!("{other:?}"),
        }
    }

    fn expire_at(&mut self, n: u8, key: &[u8], kind: Kind, at: Duration) -> Result<(), UpdateError> {
        self.write(n, key, Op::Expire { kind, at_ms: at.as_millis() as u64 })
    }
}

#[test]
fn what_was_deleted_is_gone_for_all_kinds_whoever_deletes_it_and_begins_anew() {
    for by_owner in [true, false] {
        let mut mesh = Mesh::new(6);
        for (key, kind, write) in writes() {
            let (owner, outsider) = (mesh.insider(key), mesh.outsider(key));
            let by = if by_owner { owner } else { outsider };
            assert_eq!(mesh.write(outsider, key, write.clone()), Ok(()));
            assert_eq!(mesh.write(owner, key, write.clone()), Ok(()));
            let before = mesh.shown(outsider, key);
            assert!(before.is_some());
            assert_eq!(mesh.write(by, key, Op::Delete { kind }), Ok(()), "{kind:?}");
            mesh.run(30);
            for n in [owner, outsider] {
                assert_eq!(mesh.shown(n, key), None, "{kind:?}");
            }
            mesh.assert_converged(&ring(0..6));
            // It begins anew: nothing of the earlier life counts.
            assert_eq!(mesh.write(outsider, key, write.clone()), Ok(()));
            mesh.run(30);
            match mesh.shown(owner, key) {
                Some(Value::Counter(counter)) => assert_eq!(counter.value(), 3),
                Some(Value::Map(map)) => assert_eq!(map.counter(b"f"), 3),
                after => assert!(after.is_some(), "{kind:?}"),
            }
            assert_eq!(mesh.write(outsider, b"\x01none", Op::Delete { kind: Kind::Counter }), Ok(()));
            assert!(mesh.holders(b"\x01none").is_empty(), "what isn't there leaves no mark");
        }
    }
}

#[test]
fn what_is_written_at_the_same_time_stays_and_what_was_deleted_does_not_come_back() {
    let mut mesh = Mesh::new(6);
    mesh.config.durable = true;
    for n in 0..6 {
        mesh.restart(n);
    }
    let owners = mesh.owners(K);
    assert_eq!(mesh.write(owners[0], K, add(5)), Ok(()));
    assert_eq!(mesh.write(owners[2], K, add(50)), Ok(()));
    mesh.run(30);
    mesh.partition(&[owners[2]]);
    assert_eq!(mesh.write(owners[0], K, Op::Delete { kind: Kind::Counter }), Ok(()));
    assert_eq!(mesh.write(owners[2], K, add(7)), Ok(()));
    mesh.run(30);
    mesh.cut.clear();
    mesh.run(60);
    assert_eq!(mesh.read_counter(owners[1], K), 7, "without the 50 of before");
    mesh.assert_converged(&ring(0..6));
}

#[test]
fn the_mark_of_a_deletion_is_forgotten_by_all_and_who_wrote_before_counts_anew() {
    let mut mesh = Mesh::new(6);
    let (owner, outsider) = (mesh.insider(K), mesh.outsider(K));
    for n in [owner, outsider] {
        assert_eq!(mesh.write(n, K, add(5)), Ok(()));
    }
    mesh.run(30);
    assert_eq!(mesh.write(owner, K, Op::Delete { kind: Kind::Counter }), Ok(()));
    mesh.run(30);
    assert_eq!(mesh.holders(K).len(), 3, "the marks");
    mesh.pass(MARKS_KEPT * 9 / 10);
    assert_eq!(mesh.holders(K).len(), 3, "they are kept for long");
    mesh.pass(MARKS_KEPT / 5);
    assert_eq!(mesh.holders(K).len(), 0);
    let sent: Vec<u64> = (0..6).map(|n| mesh.node(n).stats().states_sent).collect();
    mesh.run(60);
    assert_eq!((0..6).map(|n| mesh.node(n).stats().states_sent).collect::<Vec<_>>(), sent);
    // Whoever remembers its sums of the first life begins others, and goes on with those after a restart.
    for (n, sum) in [(outsider, 1), (owner, 2), (outsider, 3), (owner, 4)] {
        assert_eq!(mesh.write(n, K, add(1)), Ok(()));
        mesh.run(30);
        assert_eq!(mesh.counter(K), sum);
        mesh.restart(n);
        mesh.run(30);
    }
}

#[test]
fn an_owner_that_still_has_a_forgotten_mark_hides_no_write_of_the_next_life() {
    let mut mesh = Mesh::new(3);
    let owners = mesh.owners(K);
    assert_eq!(mesh.write(owners[0], K, add(5)), Ok(()));
    mesh.run(30);
    assert_eq!(mesh.write(owners[1], K, Op::Delete { kind: Kind::Counter }), Ok(()));
    mesh.run(30);
    mesh.pass(MARKS_KEPT - Duration::from_secs(300));
    // One owner is late.
    let (now, wall) = (mesh.now, mesh.wall + Duration::from_secs(600));
    for n in &owners[..2] {
        mesh.node(*n).handle_timeout(now + TICK * 2, wall);
    }
    assert_eq!(mesh.holders(K), [peer(owners[2])]);
    mesh.update(owners[0], K, &add(1));
    mesh.deliver();
    assert_eq!(mesh.read_counter(owners[2], K), 1);
}

#[test]
fn a_mark_that_was_forgotten_is_not_taken_from_an_owner_that_is_late() {
    let mut mesh = Mesh::new(3);
    let owners = mesh.owners(K);
    assert_eq!(mesh.write(owners[0], K, add(5)), Ok(()));
    assert_eq!(mesh.write(owners[0], K, Op::Delete { kind: Kind::Counter }), Ok(()));
    mesh.run(30);
    let state = mesh.node(owners[1]).held.copies.value(K).unwrap().encode();
    mesh.pass(MARKS_KEPT * 11 / 10);
    assert_eq!(mesh.holders(K).len(), 0);
    mesh.inject(owners[1], owners[0], &Message::Copy { key: K.to_vec().into(), id: 1, state: state.into() });
    assert_eq!(mesh.holders(K).len(), 0);
}

#[test]
fn what_arrives_after_the_time_of_an_object_is_not_deleted_with_it() {
    let mut mesh = Mesh::new(3);
    mesh.config.durable = true;
    mesh.restart(0);
    assert_eq!(mesh.write(0, K, add(5)), Ok(()));
    let at = mesh.wall + Duration::from_secs(30);
    assert_eq!(mesh.expire_at(0, K, Kind::Counter, at), Ok(()));
    mesh.run(20);
    // The write comes between the time and the next look at it.
    (mesh.now, mesh.wall) = (mesh.now + Duration::from_secs(30), at + Duration::from_millis(1));
    mesh.update(0, K, &add(2));
    mesh.deliver();
    mesh.run(20);
    assert_eq!(mesh.counter(K), 2);
}

#[test]
fn more_marks_than_a_node_keeps_are_forgotten_from_the_oldest() {
    let mut mesh = Mesh::new(1);
    mesh.config.max_marks = 3;
    mesh.start(0, 1);
    mesh.set_ring(0..1);
    for n in 0..5u8 {
        assert_eq!(mesh.write(0, &[1, n], add(1)), Ok(()));
        assert_eq!(mesh.write(0, &[1, n], Op::Delete { kind: Kind::Counter }), Ok(()));
        mesh.run(1);
    }
    let left: Vec<Vec<u8>> = mesh.node(0).keys().map(<[u8]>::to_vec).collect();
    assert_eq!(left, [[1, 2], [1, 3], [1, 4]]);
    assert_eq!(mesh.node(0).stats().forgotten, 2);
}

#[test]
fn an_object_expires_everywhere_at_once_and_what_is_written_later_stays() {
    for (key, kind, write) in writes() {
        let mut mesh = Mesh::new(6);
        let (owner, outsider) = (mesh.insider(key), mesh.outsider(key));
        assert_eq!(mesh.write(owner, key, write.clone()), Ok(()));
        let at = mesh.wall + Duration::from_secs(60);
        assert_eq!(mesh.expire_at(outsider, key, kind, at), Ok(()));
        mesh.run(30);
        assert!(mesh.shown(outsider, key).is_some(), "{kind:?}");
        let sent = mesh.state_bytes;
        while mesh.wall < at + Duration::from_secs(2) {
            mesh.run(1);
        }
        assert_eq!(mesh.shown(outsider, key), None, "{kind:?}");
        mesh.run(30);
        assert_eq!(mesh.state_bytes, sent, "each did it for itself");
        mesh.assert_converged(&ring(0..6));
        assert_eq!(mesh.write(outsider, key, write), Ok(()));
        mesh.pass(Duration::from_secs(3600));
        assert!(mesh.shown(owner, key).is_some(), "the next life doesn't expire");
    }
}

#[test]
fn the_last_word_on_an_expiry_counts_and_nothing_expires_that_was_not_written() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(K);
    let (soon, later) = (mesh.wall + Duration::from_secs(60), mesh.wall + Duration::from_secs(600));
    assert_eq!(mesh.expire_at(outsider, K, Kind::Counter, soon), Ok(()));
    assert!(mesh.holders(K).is_empty());
    assert_eq!(mesh.write(outsider, K, add(1)), Ok(()));
    for at in [soon, later] {
        assert_eq!(mesh.expire_at(outsider, K, Kind::Counter, at), Ok(()));
    }
    mesh.run(120);
    assert_eq!(mesh.read_counter(outsider, K), 1);
    mesh.pass(Duration::from_secs(600));
    assert_eq!(mesh.shown(outsider, K), None);
    assert_eq!(mesh.write(outsider, K, add(1)), Ok(()));
    let soon = mesh.wall + Duration::from_secs(60);
    assert_eq!(mesh.expire_at(outsider, K, Kind::Counter, soon), Ok(()));
    assert_eq!(mesh.expire_at(outsider, K, Kind::Counter, Duration::ZERO), Ok(()));
    mesh.pass(Duration::from_secs(600));
    assert_eq!(mesh.read_counter(outsider, K), 1, "never");
    // A time of before the deletion is none of the next life.
    let soon = mesh.wall + Duration::from_secs(60);
    assert_eq!(mesh.expire_at(outsider, K, Kind::Counter, soon), Ok(()));
    assert_eq!(mesh.write(outsider, K, Op::Delete { kind: Kind::Counter }), Ok(()));
    assert_eq!(mesh.write(outsider, K, add(9)), Ok(()));
    mesh.pass(Duration::from_secs(600));
    assert_eq!(mesh.read_counter(outsider, K), 9);
}

#[test]
fn deleting_what_is_deleted_keeps_its_mark_no_longer() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, K, add(5)), Ok(()));
    assert_eq!(mesh.write(0, K, Op::Delete { kind: Kind::Counter }), Ok(()));
    mesh.run(30);
    let mark = mesh.node(1).held.copies.value(K).cloned();
    for n in 0..3 {
        assert_eq!(mesh.write(n, K, Op::Delete { kind: Kind::Counter }), Ok(()));
    }
    mesh.run(30);
    assert_eq!(mesh.node(1).held.copies.value(K).cloned(), mark);
}

#[test]
fn a_deletion_by_a_clock_far_ahead_is_refused_whole_and_said() {
    let mut mesh = Mesh::new(6);
    let (owner, outsider) = (mesh.insider(K), mesh.outsider(K));
    assert_eq!(mesh.write(outsider, K, add(1)), Ok(()));
    mesh.run(20);
    let author = Author { replica: ReplicaId { key: peer(outsider), incarnation: 1 }, floor: 0 };
    let wall_ms = (mesh.wall + Duration::from_secs(3600)).as_millis() as u64;
    let copy = Object::from(mesh.node(owner).get(K).unwrap().clone());
    let state = copy.deleting(author, Stamp { wall_ms, logical: 0 }).encode();
    mesh.inject(
        outsider,
        owner,
        &Message::Delta { key: K.to_vec().into(), id: Some(7), state: state.into() },
    );
    let why = Decline::Clock.to_wire();
    let declined = Message::Declined { key: K.to_vec().into(), id: 7, why };
    assert_eq!(mesh.sent(owner), [(peer(outsider), declined)]);
    assert!(!mesh.node(owner).get(K).unwrap().is_empty());
}

#[test]
fn an_owner_whose_clock_is_an_hour_behind_answers_as_the_others_do() {
    let mut mesh = Mesh::new(6);
    let owners = mesh.owners(K);
    let (late, writer) = (owners[2], owners[0]);
    mesh.behind.insert(peer(late), Duration::from_secs(3600));
    assert_eq!(mesh.write(writer, K, add(5)), Ok(()));
    assert_eq!(mesh.write(writer, K, Op::Delete { kind: Kind::Counter }), Ok(()));
    assert_eq!(mesh.write(writer, K, add(2)), Ok(()));
    let soon = mesh.wall + Duration::from_secs(7200);
    assert_eq!(mesh.expire_at(writer, K, Kind::Counter, soon), Ok(()));
    mesh.run(60);
    assert_eq!(mesh.read_counter(late, K), 2);
    assert_eq!(mesh.write(late, K, add(1)), Ok(()));
    mesh.run(60);
    for owner in owners {
        assert_eq!(mesh.read_counter(owner, K), 3);
    }
    assert!(mesh.node(late).held.copies.value(K).unwrap().expires().is_none());
    // A new copy, too, has all that there is, though it never equals the others'.
    mesh.lose_disk(late);
    mesh.run(60);
    let Replicator { shared: sh, held, .. } = mesh.node(late);
    assert!(held.whole(sh, K).is_some());
    // Its clock is set right.
    mesh.behind.clear();
    mesh.run(60);
    assert_eq!(mesh.node(late).held.copies.value(K).unwrap().expires(), Some(soon));
    assert_eq!(mesh.copies(K).values().collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn a_clock_that_is_set_back_by_a_restart_hides_nothing_that_was_there() {
    let mut mesh = Mesh::new(6);
    let (owner, outsider) = (mesh.insider(K), mesh.outsider(K));
    let soon = mesh.wall + Duration::from_secs(7200);
    mesh.partition(&[outsider]);
    for node in [owner, outsider] {
        let (now, wall) = (mesh.now, mesh.wall);
        let expires = Op::Expire { kind: Kind::Counter, at_ms: soon.as_millis() as u64 };
        for (id, (key, op)) in [(K, add(4)), (K, expires), (R, set(b"v"))].into_iter().enumerate() {
            mesh.node(node).update(now, wall, id as u64, &key[1..], (op, Confirm::Safe));
        }
    }
    mesh.deliver();
    let before = [(K, owner), (K, outsider), (R, outsider)]
        .map(|(key, n)| mesh.disk.get(&(peer(n), key.to_vec())).cloned());
    assert!(before.iter().all(Option::is_some));
    for n in [owner, outsider] {
        mesh.behind.insert(peer(n), Duration::from_secs(3600));
        mesh.restart(n);
    }
    assert_eq!(mesh.node(owner).held.copies.value(K).unwrap().expires(), Some(soon));
    let records = [(K, owner), (K, outsider), (R, outsider)].map(|(key, n)| mesh.node(n).record(key));
    assert_eq!(records, before);
}
