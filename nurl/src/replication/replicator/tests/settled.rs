//! What a node knows of the keys that it doesn't hold, and of those that it holds in part.

use super::mesh::{K, Mesh, add, peer, ring_of};
use crate::replication::replicator::copies::Copies;
use crate::replication::replicator::message::{Item, Range};
use crate::replication::replicator::sync::Summaries;
use crate::replication::replicator::*;

#[test]
fn a_node_is_settled_by_the_answers_to_a_whole_round() {
    // The answers: after which key, up to which, and whether this node holds all; whether that settles.
    type Row<'a> = (&'a [(&'a str, &'a str, bool)], bool);
    let table: &[Row] = &[
        (&[], false),
        (&[("", "", true)], true),
        (&[("", "", false)], false),
        (&[("", "b", true)], false),
        (&[("b", "", true)], false),
        (&[("", "b", true), ("b", "", true)], true),
        (&[("", "b", true), ("c", "", true)], false),
        (&[("", "b", false), ("b", "", true)], false),
        (&[("", "b", true), ("b", "", false)], false),
        (&[("", "", false), ("", "", true)], false),
    ];
    for (answers, settles) in table {
        let mut mesh = Mesh::new(1);
        let (now, other) = (mesh.now, peer(1));
        let mut summaries = Summaries::default();
        summaries.know_peer(&mut mesh.node(0).shared, now, other);
        let end = |key: &str| (!key.is_empty()).then(|| key.as_bytes().to_vec().into());
        for (after, upto, holds_all) in *answers {
            summaries.answered(&other, u64::MAX, &Range { after: end(after), upto: end(upto) }, *holds_all);
        }
        assert_eq!(summaries.is_settled(&other), *settles, "{answers:?}");
        assert!(!summaries.is_settled(&peer(2)), "another one");
        summaries.unsettle(&mut mesh.node(0).shared);
        assert!(!summaries.is_settled(&other), "it may own other keys now");
    }
}

#[test]
fn who_lacked_a_key_is_settled_by_the_next_round() {
    let mut mesh = Mesh::new(1);
    let (now, other, all) = (mesh.now, peer(1), Range { after: None, upto: None });
    let (mut summaries, mut copies) = (Summaries::default(), Copies::default());
    let sh = &mut mesh.node(0).shared;
    summaries.know_peer(sh, now, other);
    summaries.answered(&other, u64::MAX, &all, false);
    summaries.summarise(sh, &mut copies, now + sh.config.sync_period);
    summaries.answered(&other, u64::MAX, &all, true);
    assert!(summaries.is_settled(&other));
}

#[test]
fn a_node_remembers_that_there_is_nothing_once_it_is_settled_with_all_other_owners() {
    let mut mesh = Mesh::new(3);
    let now = mesh.now;
    let Replicator { shared: sh, held, .. } = mesh.node(0);
    for (other, remembers) in [(1, false), (2, true)] {
        held.summaries.know_peer(sh, now, peer(other));
        held.summaries.answered(&peer(other), u64::MAX, &Range { after: None, upto: None }, true);
        assert_eq!(held.remembers(sh, K), remembers, "{other}");
    }
}

#[test]
fn who_lost_its_copies_gets_them_and_is_settled_again() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    mesh.run(30);
    mesh.lose_disk(2);
    mesh.run(60);
    for other in [0, 1] {
        assert!(mesh.node(2).held.summaries.is_settled(&peer(other)));
    }
}

#[test]
fn what_an_earlier_process_left_on_the_disk_is_remembered() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, K, add(7)), Ok(()));
    mesh.run(30);
    // Two come back on their disks, and the third is away: nothing confirmed can be missing.
    mesh.partition(&[2]);
    for n in [0, 1] {
        mesh.restart(n);
        let Replicator { shared: sh, held, .. } = mesh.node(n);
        assert!(held.remembers(sh, K));
    }
    assert_eq!(mesh.read_counter(0, K), 7);
}

#[test]
fn a_copy_that_differs_was_not_compared() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(1, K, add(100)), Ok(()));
    mesh.run(30);
    mesh.lose_disk(0);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.update(0, K, &add(1));
    // The others say that they have something else, and which digest theirs has after this node's write.
    let id = mesh.node(0).shared.last_id();
    for other in [1, 2] {
        let item = Item { key: K.to_vec().into(), bytes: vec![7; 16].into() };
        let digests = Message::Digests {
            range: Range { after: None, upto: None },
            items: vec![item],
            settling: Some(id),
        };
        mesh.inject(other, 0, &digests);
        let ack =
            Message::Ack { key: K.to_vec().into(), id, digest: [7; 16].into(), boot: 0, durable: false };
        mesh.inject(other, 0, &ack);
    }
    mesh.sent(0);
    mesh.node(0).read(now, 77, Kind::Counter, &K[1..]);
    mesh.node(0).handle_timeout(now, wall);
    let asks = mesh.sent(0);
    let asked = asks.iter().filter(|(_, message)| matches!(message, Message::Read { .. })).count();
    assert_eq!(asked, 2, "its own copy is no answer");
}

#[test]
fn owners_that_were_asked_for_a_key_that_they_have_not_learn_that_there_is_nothing() {
    let mut mesh = Mesh::new(6);
    let (reader, owners) = (mesh.outsider(K), mesh.owners(K));
    mesh.partition(&[owners[0]]);
    mesh.take_ring(&ring_of((0..6).map(|n| (n, 0)), &[owners[0]]));
    let partial =
        |read: ReplicatorEvent| matches!(read, ReplicatorEvent::ReadDone { value: None, partial: true, .. });
    assert!(partial(mesh.read(reader, K)), "the silent one may have it");
    mesh.cut.clear();
    mesh.run(30);
    mesh.partition(&[owners[0]]);
    assert!(!partial(mesh.read(reader, K)), "the others know that it hasn't");
}

#[test]
fn another_placement_unsettles_and_an_absence_does_not() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    mesh.run(30);
    let settled = |mesh: &mut Mesh| mesh.node(0).held.summaries.is_settled(&peer(1));
    mesh.take_ring(&ring_of((0..3).map(|n| (n, 0)), &[2]));
    assert!(settled(&mut mesh));
    mesh.set_ring(0..4);
    assert!(!settled(&mut mesh));
}
