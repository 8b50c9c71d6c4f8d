//! Former owners and nodes that leave: a copy is dropped only after other nodes hold it.

use super::mesh::{K, Mesh, add, insert, peer, ring, ring_of};
use crate::replication::replicator::*;

#[test]
fn a_former_owner_drops_its_copy_only_after_all_owners_hold_one_digest() {
    let mut mesh = Mesh::new(4);
    for key in 0..40u8 {
        mesh.update(0, &[3, key], &insert(b"x"));
    }
    mesh.run(5);
    for n in 4..8 {
        mesh.start(n, 1);
    }
    mesh.partition(&[4, 5, 6, 7]);
    mesh.set_ring(0..8);
    mesh.run(200);
    let lacking = (0..40u8).filter(|key| mesh.holders(&[3, *key]).len() < 3).count();
    assert_eq!(lacking, 0, "while new owners are out of reach nothing is dropped");
    mesh.cut.clear();
    mesh.run(700);
    mesh.assert_converged(&ring(0..8));
    assert!(mesh.nodes.values().map(|node| node.stats().handed_off).sum::<u64>() > 0);
    for key in 0..40u8 {
        assert_eq!(mesh.holders(&[3, key]).len(), 3);
    }
}

#[test]
fn a_copy_is_held_for_a_minute_after_the_owners_changed() {
    let mut mesh = Mesh::new(4);
    mesh.update(0, K, &add(1));
    mesh.run(5);
    let before = mesh.holders(K);
    let ring4 = ring(0..4);
    let gone = ring4.owners(K, 3)[0];
    let members: Vec<u8> = (0..4).filter(|n| peer(*n) != gone).collect();
    mesh.set_ring(members);
    mesh.run(50);
    assert!(mesh.holders(K).contains(&gone) && before.contains(&gone));
    mesh.run(30);
    assert!(!mesh.holders(K).contains(&gone));
    let Some(n) = (0..4).find(|n| peer(*n) == gone) else { panic!() };
    mesh.update(n, K, &add(1));
    mesh.run(5);
    assert_eq!(mesh.counter(K), 2);
}

#[test]
fn a_former_owners_later_write_goes_on_from_its_own_sum() {
    let mut mesh = Mesh::new(4);
    let owners = ring(0..4).owners(K, 3);
    let n = (0..4).find(|n| peer(*n) == owners[0]).unwrap();
    mesh.update(n, K, &add(10));
    mesh.run(5);
    mesh.set_ring((0..4).filter(|m| *m != n));
    mesh.run(120);
    assert!(mesh.node(n).get(K).is_none());
    mesh.update(n, K, &add(1));
    mesh.run(5);
    assert_eq!(mesh.counter(K), 11);
}

#[test]
fn a_node_that_leaves_offers_what_no_other_owner_is_known_to_have() {
    let mut mesh = Mesh::new(6);
    let (insider, outsider) = (mesh.insider(K), mesh.outsider(K));
    mesh.update(insider, K, &add(1));
    mesh.run(30);
    assert_eq!(mesh.node(insider).unheld(), Unheld::default(), "summaries have shown that others have it");
    mesh.loss_percent = 100;
    mesh.update(insider, K, &add(2));
    mesh.update(outsider, K, &add(4));
    mesh.deliver();
    let now = mesh.now;
    for n in [insider, outsider] {
        assert_eq!(mesh.node(n).unheld(), Unheld { keys: 1, offered: 1 });
        mesh.node(n).leave(now);
    }
    mesh.deliver();
    assert_eq!(mesh.node(insider).unheld().keys, 1, "the first offer was lost");
    mesh.loss_percent = 0;
    mesh.run(1);
    for n in [insider, outsider] {
        assert_eq!(mesh.node(n).unheld(), Unheld::default());
    }
    mesh.nodes.remove(&peer(insider));
    assert_eq!(mesh.counter(K), 7);
}

#[test]
fn a_node_that_leaves_nobody_behind_says_what_is_lost() {
    let mut mesh = Mesh::new(1);
    mesh.update(0, K, &add(1));
    let now = mesh.now;
    mesh.node(0).leave(now);
    assert_eq!(mesh.node(0).unheld(), Unheld { keys: 1, offered: 0 });
}

/// A key's three owners and the next two of its list, of six.
fn list(key: &[u8]) -> Vec<u8> {
    let order = ring(0..6).owners(key, 5).into_iter();
    order.map(|owner| (0..6).find(|n| peer(*n) == owner).unwrap()).collect()
}

#[test]
fn an_owner_that_is_back_gets_the_copy_of_a_former_one_within_seconds() {
    let mut mesh = Mesh::new(6);
    let [former, _, _, back, _] = list(K)[..] else { unreachable!() };
    assert_eq!(mesh.write(former, K, add(7)), Ok(()));
    mesh.run(30);
    let members = || (0..6).filter(move |n| *n != former).map(|n| (n, 0));
    mesh.partition(&[back]);
    mesh.take_ring(&ring_of(members(), &[back]));
    mesh.run(1000);
    assert!(!mesh.holders(K).contains(&peer(back)));
    // The other owners can't reach it yet.
    mesh.cut.retain(|(from, to)| {
        ![(peer(former), peer(back)), (peer(back), peer(former))].contains(&(*from, *to))
    });
    mesh.take_ring(&ring_of(members(), &[]));
    mesh.run(7);
    assert!(mesh.holders(K).contains(&peer(back)));
}

#[test]
fn what_owners_acknowledged_counts_no_more_when_they_are_other_processes() {
    let mut mesh = Mesh::new(6);
    let [former, one, two, three, _] = list(K)[..] else { unreachable!() };
    assert_eq!(mesh.write(former, K, add(7)), Ok(()));
    mesh.run(30);
    let boots = |changed: u64| move |n: u8| (n, if n == former { 0 } else { changed });
    let members = || (0..6).filter(move |n| *n != former);
    mesh.take_ring(&ring_of(members().map(boots(0)), &[]));
    mesh.run(30);
    assert_eq!(
        mesh.holders(K).len(),
        4,
        "the new owner has it too, and the former one holds it for a minute"
    );
    // All three lose what they have, one after the other, before they can tell each other of it.
    mesh.loss_percent = 100;
    mesh.config.boot = 9;
    for n in [one, two, three] {
        mesh.lose_disk(n);
    }
    mesh.take_ring(&ring_of(members().map(boots(9)), &[]));
    mesh.run(40);
    assert_eq!(mesh.holders(K), [peer(former)], "the hold is over, and nobody else has it");
    mesh.loss_percent = 0;
    mesh.run(300);
    assert_eq!((mesh.holders(K).len(), mesh.counter(K)), (3, 7));
    assert!(mesh.node(former).get(K).is_none());
}

#[test]
fn an_owner_that_has_lost_the_copy_since_it_acknowledged_gets_it_again_before_it_is_dropped() {
    let mut mesh = Mesh::new(6);
    let [former, one, two, three, _] = list(K)[..] else { unreachable!() };
    assert_eq!(mesh.write(former, K, add(7)), Ok(()));
    mesh.run(30);
    mesh.set_ring((0..6).filter(|n| *n != former));
    mesh.run(50);
    // The views don't tell that these are other processes.
    mesh.loss_percent = 100;
    for n in [one, two, three] {
        mesh.lose_disk(n);
    }
    mesh.run(1);
    mesh.loss_percent = 0;
    mesh.run(100);
    assert_eq!((mesh.holders(K).len(), mesh.counter(K)), (3, 7));
    assert!(mesh.node(former).get(K).is_none());
}

#[test]
fn others_stand_in_for_owners_that_are_away_and_hand_back_what_was_written() {
    let mut mesh = Mesh::new(6);
    let [one, two, three, fourth, fifth] = list(K)[..] else { unreachable!() };
    let writer = (0..6).find(|n| !list(K).contains(n)).unwrap();
    assert_eq!(mesh.write(one, K, add(1)), Ok(()));
    mesh.run(30);
    let away = [one, two, three];
    mesh.partition(&away);
    mesh.take_ring(&ring_of((0..6).map(|n| (n, 0)), &away));
    assert_eq!(mesh.write(writer, K, add(10)), Ok(()), "two stand in for them");
    let stand_ins: Vec<u8> =
        (0..6).filter(|n| !away.contains(n) && mesh.nodes[&peer(*n)].get(K).is_some()).collect();
    assert_eq!(stand_ins.len(), 3, "the next in the list: {fourth}, {fifth} and the last");
    assert!(matches!(mesh.read(writer, K), ReplicatorEvent::ReadDone { partial: true, .. }));
    // The writer is gone for good when the owners come back.
    mesh.nodes.remove(&peer(writer));
    mesh.cut.clear();
    mesh.take_ring(&ring_of((0..6).map(|n| (n, 0)), &[writer]));
    mesh.run(200);
    let mut owners = away.map(peer);
    owners.sort();
    assert_eq!((mesh.holders(K), mesh.counter(K)), (owners.to_vec(), 11), "and they drop it");
}

#[test]
fn what_was_acknowledged_before_the_copy_grew_lets_nothing_go() {
    let mut mesh = Mesh::new(6);
    let [one, two, three, stand_in, _] = list(K)[..] else { unreachable!() };
    let away = [one, two, three];
    mesh.take_ring(&ring_of((0..6).map(|n| (n, 0)), &away));
    // The owners are in reach all the same: they answer the first offer late, when there is more already.
    let delta = |mesh: &mut Mesh, by| {
        mesh.update(stand_in, K, &add(by));
        mesh.sent(stand_in);
    };
    delta(&mut mesh, 1);
    let offered = |mesh: &mut Mesh| {
        mesh.now += Duration::from_secs(10);
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(stand_in).handle_timeout(now, wall);
        let sent = mesh.sent(stand_in);
        let asked = sent.iter().any(|(_, message)| matches!(message, Message::Confirm { .. }));
        let id = sent.iter().find_map(|(_, message)| match message {
            Message::Copy { id, .. } => Some(*id),
            _ => None,
        });
        (id, asked)
    };
    let acknowledge = |mesh: &mut Mesh, id| {
        for owner in away {
            let ack =
                Message::Ack { key: K.to_vec().into(), id, digest: [7; 16].into(), boot: 0, durable: false };
            mesh.inject(owner, stand_in, &ack);
        }
    };
    let (Some(first), false) = offered(&mut mesh) else { panic!() };
    delta(&mut mesh, 1);
    acknowledge(&mut mesh, first);
    let again: Vec<_> = (0..9).map(|_| offered(&mut mesh)).collect();
    assert!(again.iter().any(|(id, _)| id.is_some()), "the owners lack what is new");
    assert!(!again.iter().any(|(_, asked)| *asked), "and nobody is asked the last question");
    // What they acknowledged in time counts no more, either.
    acknowledge(&mut mesh, again.iter().rev().find_map(|(id, _)| *id).unwrap());
    delta(&mut mesh, 1);
    assert!((0..9).map(|_| offered(&mut mesh)).all(|(_, asked)| !asked));
}

#[test]
fn who_owns_a_key_no_more_confirms_to_nobody_that_it_has_it() {
    let mut mesh = Mesh::new(6);
    let [former, one, ..] = list(K)[..] else { unreachable!() };
    assert_eq!(mesh.write(former, K, add(7)), Ok(()));
    mesh.run(30);
    mesh.set_ring((0..6).filter(|n| *n != former));
    for (asked, confirms) in [(one, true), (former, false)] {
        mesh.sent(asked);
        mesh.inject(
            if asked == one { former } else { one },
            asked,
            &Message::Confirm { key: K.to_vec().into(), id: 5 },
        );
        let answers = mesh.sent(asked);
        assert_eq!(answers.iter().any(|(_, answer)| matches!(answer, Message::Ack { .. })), confirms);
        assert!(mesh.node(asked).get(K).is_some());
    }
}

#[test]
fn what_a_leaving_node_acknowledged_for_another_is_offered_until_a_second_one_has_it() {
    let mut mesh = Mesh::new(6);
    let (writer, owners) = (mesh.outsider(K), mesh.owners(K));
    mesh.partition(&[owners[1]]);
    mesh.partition(&[owners[2]]);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).update(now, wall, 88, &K[1..], (add(1), Confirm::Nodes(1)));
    mesh.deliver();
    let done = ReplicatorEvent::Updated { id: 88, outcome: Ok(()) };
    assert!(mesh.events.contains(&(peer(writer), done)));
    assert_eq!(mesh.node(owners[0]).unheld(), Unheld { keys: 1, offered: 1 });
    mesh.nodes.remove(&peer(writer));
    mesh.cut.clear();
    let now = mesh.now;
    mesh.node(owners[0]).leave(now);
    mesh.run(1);
    assert_eq!(mesh.node(owners[0]).unheld(), Unheld::default());
    assert!(mesh.holders(K).len() >= 2);
}

#[test]
fn who_has_the_copy_of_a_former_owner_needs_not_have_its_writes() {
    let mut mesh = Mesh::new(6);
    let [former, ..] = list(K)[..] else { unreachable!() };
    assert_eq!(mesh.write(former, K, add(1)), Ok(()));
    mesh.run(30);
    let owners = ring((0..6).filter(|n| *n != former)).owners(K, 3);
    mesh.set_ring((0..6).filter(|n| *n != former));
    let (now, wall) = (mesh.now + TICK, mesh.wall);
    mesh.node(former).update(now, wall, 88, &K[1..], (add(1), Confirm::Safe));
    mesh.node(former).handle_timeout(now, wall);
    let copy = mesh.sent(former).into_iter().find_map(|(_, message)| match message {
        Message::Copy { id, .. } => Some(id),
        _ => None,
    });
    let id = copy.expect("it is handed over");
    mesh.node(former).update(now, wall, 89, &K[1..], (add(1), Confirm::Safe));
    for owner in 0..6 {
        if owners.contains(&peer(owner)) {
            let ack =
                Message::Ack { key: K.to_vec().into(), id, digest: [7; 16].into(), boot: 0, durable: true };
            mesh.inject(owner, former, &ack);
        }
    }
    let ended = std::iter::from_fn(|| mesh.node(former).poll_event()).collect::<Vec<_>>();
    assert!(ended.is_empty(), "{ended:?}");
}
