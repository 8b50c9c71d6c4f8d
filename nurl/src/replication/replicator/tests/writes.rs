//! Writes that are acknowledged, refused, or have an unknown outcome.

use super::mesh::{K, Mesh, R, S, add, insert, peer, remove, ring, ring_of, set, wanted};
use crate::replication::replicator::*;

#[test]
fn a_delta_is_kept_until_an_owner_acknowledged_it() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    mesh.partition(&[writer]);
    mesh.update(writer, K, &add(3));
    mesh.run(30);
    assert_eq!(mesh.node(writer).pending(), 1);
    let record = mesh.node(writer).record(K).unwrap();
    // The writer restarts with its store: the delta is still there, and the next write continues from it.
    mesh.start(writer, 1);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).restore(now, wall, K, &record).unwrap();
    mesh.set_ring(0..6);
    mesh.cut.clear();
    mesh.run(70);
    mesh.update(writer, K, &add(4));
    mesh.run(10);
    assert_eq!(mesh.counter(K), 7);
    assert_eq!(mesh.node(writer).pending(), 0);
    mesh.assert_converged(&ring(0..6));
}

#[test]
fn an_acknowledgement_from_a_stranger_ends_nothing() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    mesh.update(writer, K, &add(3));
    let id = mesh.node(writer).shared.last_id();
    let ack =
        Message::Ack { key: K.to_vec().into(), id, digest: [0; 16].into(), boot: 0, durable: false }.encode();
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).handle_message(now, wall, peer(99), &ack);
    assert_eq!((mesh.node(writer).pending(), mesh.node(writer).stats().stray), (1, 1));
}

#[test]
fn each_owner_acknowledges_a_delta_and_none_of_them_is_a_stray() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    mesh.update(writer, K, &add(3));
    mesh.run(1);
    assert_eq!((mesh.node(writer).pending(), mesh.node(writer).stats().stray), (0, 0));
    // Ids of an earlier process, and of none.
    let (last, owner) = (mesh.node(writer).shared.last_id(), mesh.insider(K));
    for (id, strays) in [(last, 0), (last + 1, 1), (0, 2)] {
        let ack =
            Message::Ack { key: K.to_vec().into(), id, digest: [0; 16].into(), boot: 0, durable: false }
                .encode();
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(writer).handle_message(now, wall, peer(owner), &ack);
        assert_eq!(mesh.node(writer).stats().stray, strays, "{id}");
    }
}

#[test]
fn an_owner_that_knows_nothing_of_a_key_removes_nothing_and_says_that_nobody_else_has_its_writes() {
    let mut mesh = Mesh::new(3);
    mesh.update(1, S, &insert(b"x"));
    mesh.run(1);
    mesh.lose_disk(0);
    mesh.partition(&[0]);
    assert_eq!(mesh.write(0, S, remove(b"x")), Err(UpdateError::Unknown));
    assert_eq!(mesh.write(0, S, insert(b"y")), Err(UpdateError::Unconfirmed(vec![peer(0)])));
    assert!(matches!(mesh.read(0, S), ReplicatorEvent::ReadDone { partial: true, .. }));
    // Now node 0 is the only owner.
    mesh.set_ring([0]);
    assert_eq!(mesh.write(0, S, remove(b"x")), Ok(()));
    assert_eq!(mesh.write(0, S, insert(b"z")), Ok(()));
    assert!(matches!(mesh.read(0, S), ReplicatorEvent::ReadDone { partial: false, .. }));
    mesh.cut.clear();
    mesh.set_ring(0..3);
    mesh.run(200);
    mesh.assert_converged(&ring(0..3));
    let Some(Value::Set(set)) = mesh.node(0).get(S) else { panic!() };
    assert_eq!(set.iter().collect::<Vec<_>>(), [b"x", b"y", b"z"]);
}

#[test]
fn owners_without_a_memory_make_no_answer_while_the_one_that_has_the_value_is_silent() {
    let mut mesh = Mesh::new(6);
    let order = ring(0..6).owners(K, 6).into_iter();
    let order: Vec<u8> = order.map(|owner| (0..6).find(|n| peer(*n) == owner).unwrap()).collect();
    let [former, silent, forgetful, fresh, outsider, _] = order[..] else { unreachable!() };
    assert_eq!(mesh.write(silent, K, add(5)), Ok(()));
    mesh.run(40);
    mesh.lose_disk(forgetful);
    let after = || (0..6).filter(|n| *n != former);
    mesh.set_ring(after());
    mesh.partition(&[former]);
    mesh.partition(&[silent]);
    for writer in [forgetful, fresh, outsider] {
        assert_eq!(mesh.write(writer, K, add(1)), Ok(()), "two have it");
    }
    for reader in [forgetful, fresh, outsider] {
        assert!(matches!(mesh.read(reader, K), ReplicatorEvent::ReadDone { partial: true, .. }));
    }
    mesh.cut.clear();
    for reader in [forgetful, fresh, outsider] {
        assert_eq!(mesh.read_counter(reader, K), 8);
    }
    mesh.run(400);
    mesh.assert_converged(&ring(after()));
    assert_eq!(mesh.counter(K), 8);
}

#[test]
fn an_owner_without_room_for_what_it_was_told_takes_no_write_over_it() {
    let mut mesh = Mesh::new(4);
    let (full, outsider) = (mesh.insider(S), mesh.outsider(S));
    mesh.update(full, S, &insert(&[0; 1000]));
    mesh.run(40);
    mesh.config.max_held_bytes = 500;
    mesh.lose_disk(full);
    assert_eq!(mesh.write(full, S, remove(&[0; 1000])), Err(UpdateError::Full("keys held")));
    assert_eq!(mesh.write(outsider, S, insert(b"y")), Ok(()), "the others have room");
    mesh.run(40);
    let Some(Value::Set(set)) = mesh.node(mesh.insider(S)).get(S) else { panic!() };
    assert_eq!(set.len(), 1, "it has what fits");
    assert!(
        matches!(mesh.read(full, S), ReplicatorEvent::ReadDone { value: Some(Value::Set(set)), .. } if set.len() == 2)
    );
}

#[test]
fn what_waits_for_other_owners_goes_on_when_there_are_none_any_more() {
    let mut mesh = Mesh::new(3);
    mesh.partition(&[0]);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(0).update(now, wall, 1, b"k", (add(1), Confirm::Safe));
    mesh.run(1);
    mesh.set_ring([0]);
    mesh.run(1);
    assert!(mesh.events.contains(&(peer(0), ReplicatorEvent::Updated { id: 1, outcome: Ok(()) })));
}

#[test]
fn a_write_elsewhere_is_answered_when_an_owner_has_it() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(K);
    assert_eq!(mesh.write(outsider, K, add(1)), Ok(()));
    assert_eq!(mesh.counter(K), 1, "the answer came after it");
    mesh.partition(&[outsider]);
    let begun = mesh.now;
    assert_eq!(mesh.write(outsider, K, add(1)), Err(UpdateError::Unconfirmed(Vec::new())));
    assert!(mesh.now - begun >= Duration::from_secs(5));
    mesh.cut.clear();
    mesh.run(60);
    assert_eq!(mesh.counter(K), 2, "it went on being sent");
    assert_eq!(mesh.node(outsider).writes.waiting(), 0);
}

#[test]
fn writes_under_way_are_bounded_and_all_of_a_key_are_answered_at_once() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(K);
    let (now, wall) = (mesh.now, mesh.wall);
    for id in 0..calls::MAX_WRITES as u64 {
        mesh.node(outsider).call(Moment { now, wall }, K, wanted(id, add(1))).unwrap();
    }
    let refused = mesh.node(outsider).call(Moment { now, wall }, K, wanted(99_999, add(1)));
    assert_eq!(refused, Err(UpdateError::Full("writes under way")));
    mesh.deliver();
    let done = |(_, event): &&(PublicKey, ReplicatorEvent)| {
        matches!(event, ReplicatorEvent::Updated { outcome: Ok(()), .. })
    };
    assert_eq!(mesh.events.iter().filter(done).count(), calls::MAX_WRITES);
    assert_eq!(mesh.counter(K), calls::MAX_WRITES as i128);
}

#[test]
fn an_observers_operation_is_done_once_however_often_it_is_sent() {
    let mut mesh = Mesh::new(4);
    mesh.config.observer = true;
    mesh.start(200, 1);
    mesh.set_ring(0..4);
    let (now, wall) = (mesh.now, mesh.wall);
    assert_eq!(mesh.node(200).call(Moment { now, wall }, K, wanted(1, add(1))), Err(UpdateError::Observer));
    // The answers are lost for a while: the same operation is sent again and again.
    mesh.acquaint(200, 1);
    mesh.cut.insert((peer(1), peer(200)));
    mesh.operate(200, 5, peer(1), K, add(1)).unwrap();
    mesh.run(20);
    mesh.cut.clear();
    mesh.run(5);
    let done = ReplicatorEvent::Updated { id: 5, outcome: Ok(()) };
    assert!(mesh.events.contains(&(peer(200), done)));
    mesh.run(20);
    assert_eq!(mesh.counter(K), 1);
}

#[test]
fn an_operation_is_unknown_when_its_member_is_lost() {
    let mut mesh = Mesh::new(3);
    (1..3).for_each(|member| mesh.acquaint(0, member));
    mesh.partition(&[0]);
    let (lost, silent) = (1, 2);
    mesh.operate(0, lost, peer(1), K, add(1)).unwrap();
    mesh.node(0).on_peer_lost(peer(1));
    mesh.operate(0, silent, peer(2), K, add(1)).unwrap();
    mesh.run(62);
    for id in [lost, silent] {
        let outcome = Err(OperationError::Unknown.into());
        let event = ReplicatorEvent::Updated { id, outcome };
        assert!(mesh.events.contains(&(peer(0), event)));
    }
}

/// A mesh of six with an observer, and the owners of K.
fn observed() -> (Mesh, Vec<u8>) {
    let mut mesh = Mesh::new(6);
    mesh.config.observer = true;
    mesh.start(OBSERVER, 1);
    mesh.config.observer = false;
    mesh.set_ring(0..6);
    let owners = mesh.owners(K);
    (mesh, owners)
}

const OBSERVER: u8 = 200;

#[test]
fn an_observer_writes_through_a_keeper_that_is_there_and_not_through_one_that_has_died() {
    let (mut mesh, owners) = observed();
    for dead in &owners[..2] {
        mesh.nodes.remove(&peer(*dead));
    }
    // It confirms a write alone.
    mesh.config.durable = true;
    mesh.restart(owners[2]);
    let before = mesh.now;
    assert_eq!(mesh.write(OBSERVER, K, add(1)), Ok(()));
    assert!(mesh.now - before <= Duration::from_secs(1), "each dead one costs half a second");
    assert_eq!(mesh.counter(K), 1);
    // The one that was found is asked at once.
    assert_eq!(mesh.write(OBSERVER, K, add(1)), Ok(()));
    assert!(mesh.now - before <= Duration::from_secs(1));
    mesh.run(30);
    assert_eq!(mesh.counter(K), 2);
}

#[test]
fn what_nobody_has_got_fails_as_not_done_or_goes_to_the_keepers_of_a_later_view() {
    for replaced in [false, true] {
        let (mut mesh, owners) = observed();
        for dead in &owners {
            mesh.nodes.remove(&peer(*dead));
        }
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(OBSERVER).update(now, wall, 5, &K[1..], (add(1), Confirm::Safe));
        mesh.run(20);
        mesh.node(OBSERVER).on_peer_lost(peer(owners[0]));
        assert!(mesh.events.is_empty(), "perhaps one comes back");
        if replaced {
            mesh.set_ring((0..6).filter(|n| !owners.contains(n)));
        }
        mesh.run(20);
        let outcome = if replaced { Ok(()) } else { Err(OperationError::Nobody.into()) };
        assert_eq!(mesh.events, [(peer(OBSERVER), ReplicatorEvent::Updated { id: 5, outcome })]);
        mesh.run(60);
        let copies = mesh.holders(K);
        assert_eq!(copies.len(), if replaced { 3 } else { 0 });
    }
}

#[test]
fn an_answer_of_one_that_was_not_called_is_no_answer() {
    let (mut mesh, owners) = observed();
    mesh.partition(&[OBSERVER]);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(OBSERVER).update(now, wall, 5, &K[1..], (add(1), Confirm::Safe));
    let Some((_, Message::Inquiry { id })) = mesh.sent(OBSERVER).pop() else { panic!() };
    let stranger = mesh.outsider(K);
    let reply = |boot| Message::OperationReply { id, outcome: 5, boot };
    mesh.inject(stranger, OBSERVER, &reply(Some(0)));
    mesh.inject(owners[1], OBSERVER, &reply(Some(0)));
    mesh.inject(owners[0], OBSERVER, &reply(None));
    assert_eq!(mesh.sent(OBSERVER), []);
    mesh.inject(owners[0], OBSERVER, &reply(Some(0)));
    assert!(matches!(&mesh.sent(OBSERVER)[..], [(to, Message::Operation { .. })] if *to == peer(owners[0])));
    // It goes to no second one, whoever answers.
    mesh.inject(owners[0], OBSERVER, &reply(Some(0)));
    mesh.run(1);
    mesh.inject(owners[1], OBSERVER, &reply(Some(0)));
    assert_eq!(mesh.sent(OBSERVER), []);
    mesh.inject(owners[1], OBSERVER, &Message::OperationReply { id, outcome: 0, boot: None });
    assert_eq!((mesh.node(OBSERVER).stats().stray, mesh.node(OBSERVER).poll_event()), (6, None));
}

/// Starts a node again on its store, as another process.
fn reboot(mesh: &mut Mesh, n: u8, boot: u64) {
    mesh.config.boot = boot;
    mesh.restart(n);
}

#[test]
fn what_a_process_may_have_done_is_not_done_by_the_next_one_and_its_fate_is_unknown() {
    let mut mesh = Mesh::new(4);
    mesh.config.observer = true;
    mesh.start(200, 1);
    mesh.config.observer = false;
    mesh.set_ring(0..4);
    mesh.acquaint(200, 1);
    mesh.cut.insert((peer(1), peer(200)));
    mesh.operate(200, 5, peer(1), K, add(1)).unwrap();
    mesh.run(3);
    assert_eq!(mesh.counter(K), 1, "it is done, and the answer is lost");
    reboot(&mut mesh, 1, 9);
    mesh.cut.clear();
    mesh.run(3);
    let outcome = Err(OperationError::Unknown.into());
    assert!(mesh.events.contains(&(peer(200), ReplicatorEvent::Updated { id: 5, outcome })));
    mesh.run(20);
    assert_eq!(mesh.counter(K), 1);
}

#[test]
fn what_was_sent_once_and_comes_to_a_new_process_is_done_there() {
    let mut mesh = Mesh::new(3);
    mesh.acquaint(0, 1);
    // It was heard a moment ago, and it is another process now.
    reboot(&mut mesh, 1, 9);
    mesh.operate(0, 5, peer(1), K, add(1)).unwrap();
    mesh.deliver();
    let done = ReplicatorEvent::Updated { id: 5, outcome: Ok(()) };
    assert!(mesh.events.contains(&(peer(0), done)));
    assert_eq!(mesh.counter(K), 1);
}

#[test]
fn a_member_that_always_says_it_is_another_process_is_believed_once() {
    let mut mesh = Mesh::new(2);
    mesh.acquaint(0, 1);
    mesh.operate(0, 5, peer(1), K, add(1)).unwrap();
    for boot in [8, 9] {
        let (_, asked) = mesh.node(0).poll_transmit().expect("it is sent");
        let Some(Message::Operation { id, boot: told, .. }) = Message::decode(&asked) else { panic!() };
        assert_eq!(told, Some(if boot == 8 { 0 } else { 8 }));
        let reply = Message::OperationReply { id, outcome: 4, boot: Some(boot) }.encode();
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(0).handle_message(now, wall, peer(1), &reply);
    }
    let outcome = Err(OperationError::Busy.into());
    assert_eq!(mesh.node(0).poll_event(), Some(ReplicatorEvent::Updated { id: 5, outcome }));
    assert!(mesh.node(0).poll_transmit().is_none());
}

#[test]
fn a_write_from_a_fast_clock_is_parked_equally_everywhere_and_shown_in_time() {
    let mut mesh = Mesh::new(3);
    mesh.update(1, R, &set(b"now"));
    mesh.deliver();
    let (now, ahead) = (mesh.now, mesh.wall + Duration::from_secs(40));
    mesh.node(0).make(Moment { now, wall: ahead }, R, (&set(b"fast"), Confirm::Safe), None).unwrap();
    mesh.run(5);
    let shown = |mesh: &mut Mesh, n| match mesh.node(n).get(R) {
        Some(Value::Register(register)) => register.value().map(<[u8]>::to_vec),
        _ => None,
    };
    assert_eq!(shown(&mut mesh, 1), Some(b"now".to_vec()));
    mesh.update(1, R, &set(b"later"));
    mesh.run(10);
    assert_eq!(shown(&mut mesh, 1), Some(b"later".to_vec()), "it doesn't win before its time");
    mesh.run(60);
    assert_eq!(shown(&mut mesh, 1), Some(b"fast".to_vec()), "and isn't lost");
    mesh.assert_converged(&ring(0..3));
}

#[test]
fn a_write_in_memory_is_told_when_a_second_node_has_it_and_one_on_a_disk_at_once() {
    for (durable, told) in [(false, Err(UpdateError::Unconfirmed(vec![peer(0)]))), (true, Ok(()))] {
        let mut mesh = Mesh::new(3);
        mesh.config.durable = durable;
        mesh.lose_disk(0);
        mesh.partition(&[0]);
        assert_eq!(mesh.write(0, K, add(1)), told);
    }
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    assert!(mesh.holders(K).len() >= 2);
    let mut mesh = Mesh::new(1);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()), "it is all that there is");
}

#[test]
fn as_many_nodes_hold_a_write_as_its_caller_wants() {
    for (confirm, reachable, told) in [
        (Confirm::Nodes(3), 3, true),
        (Confirm::Nodes(3), 2, false),
        (Confirm::Nodes(2), 2, true),
        (Confirm::All, 3, true),
        (Confirm::All, 2, false),
    ] {
        let mut mesh = Mesh::new(3);
        mesh.config.durable = true;
        mesh.lose_disk(0);
        if reachable == 2 {
            mesh.partition(&[2]);
        }
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(0).update(now, wall, 88, &K[1..], (add(1), confirm));
        mesh.run(6);
        let done = ReplicatorEvent::Updated { id: 88, outcome: Ok(()) };
        assert_eq!(mesh.events.contains(&(peer(0), done)), told, "{confirm:?} {reachable}");
        assert!(
            mesh.events.iter().any(|(_, event)| matches!(event, ReplicatorEvent::Updated { id: 88, .. }))
        );
    }
}

#[test]
fn what_a_process_that_is_gone_acknowledged_has_to_be_acknowledged_by_another() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    let owners: Vec<u8> = (0..6).filter(|n| ring(0..6).owns(&peer(*n), K, 3)).collect();
    for owner in &owners[1..] {
        mesh.partition(&[*owner]);
    }
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).update(now, wall, 88, &K[1..], (add(1), Confirm::Safe));
    mesh.deliver();
    assert_eq!(mesh.node(writer).pending(), 1, "one of two has acknowledged");
    mesh.config.boot = 9;
    mesh.lose_disk(owners[0]);
    let boot = |n: u8| (n, if n == owners[0] { 9 } else { 0 });
    mesh.partition(&[owners[0]]);
    mesh.cut.retain(|(from, to)| ![*from, *to].contains(&peer(owners[1])));
    mesh.take_ring(&ring_of((0..6).map(boot), &[]));
    mesh.run(2);
    assert_eq!(mesh.node(writer).pending(), 1, "again one of two");
    mesh.cut.clear();
    mesh.run(3);
    assert_eq!((mesh.node(writer).pending(), mesh.counter(K)), (0, 1));
}

#[test]
fn a_write_that_all_owners_refuse_is_over_and_a_later_one_takes_it_back() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    assert_eq!(mesh.write(writer, K, add(1)), Ok(()));
    mesh.run(30);
    let owners: Vec<u8> = (0..6).filter(|n| ring(0..6).owns(&peer(*n), K, 3)).collect();
    for owner in &owners {
        mesh.node(*owner).shared.config.max_held_bytes = 0;
    }
    for by in [20, -7] {
        assert_eq!(mesh.write(writer, K, add(by)), Err(UpdateError::Declined(Decline::NoRoom)));
        assert_eq!(mesh.node(writer).pending(), 0, "it isn't sent again");
    }
    assert_eq!(mesh.node(owners[0]).stats().declined, 2);
    for owner in &owners {
        mesh.node(*owner).shared.config.max_held_bytes = 10_000;
    }
    assert_eq!(mesh.write(writer, K, add(100)), Ok(()));
    assert_eq!(mesh.counter(K), 101);
}

#[test]
fn callers_are_answered_one_by_one_while_others_go_on_writing_the_key() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(K);
    let (now, wall) = (mesh.now, mesh.wall);
    let mut acks: Vec<(PublicKey, Vec<u8>)> = Vec::new();
    for id in 0..10 {
        mesh.node(writer).update(now, wall, id, &K[1..], (add(1), Confirm::Safe));
        // What owners say of the write before arrives only now.
        for (owner, ack) in std::mem::take(&mut acks) {
            mesh.node(writer).handle_message(now, wall, owner, &ack);
        }
        let done = std::iter::from_fn(|| mesh.node(writer).poll_event()).count();
        assert_eq!(done, usize::from(id > 0), "the caller before");
        let sent: Vec<_> = std::iter::from_fn(|| mesh.node(writer).poll_transmit()).collect();
        for (owner, delta) in sent {
            let node = mesh.nodes.get_mut(&owner).unwrap();
            node.handle_message(now, wall, peer(writer), &delta);
            acks.extend(std::iter::from_fn(|| node.poll_transmit()).map(|(_, ack)| (owner, ack)));
        }
    }
}

#[test]
fn an_element_that_a_node_without_a_copy_adds_again_and_again_takes_no_more_space() {
    let mut mesh = Mesh::new(6);
    let (outsider, owner) = (mesh.outsider(S), mesh.insider(S));
    let mut sizes = Vec::new();
    for _ in 0..30 {
        assert_eq!(mesh.write(outsider, S, insert(b"x")), Ok(()));
        mesh.run(3);
        sizes.push(mesh.node(owner).get(S).unwrap().encode().len());
    }
    assert_eq!(sizes, [sizes[0]; 30]);
    mesh.run(30);
    mesh.assert_converged(&ring(0..6));
}
