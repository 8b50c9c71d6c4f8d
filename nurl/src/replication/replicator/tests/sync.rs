//! Anti-entropy: owners converge to one state despite loss, partitions and changes of owners.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use proptest::prelude::*;

use super::mesh::{K, Mesh, R, S, WALL, add, insert, peer, ring, set};
use crate::replication::crdt::{CrdtError, Kind, PnCounter};
use crate::replication::replicator::message::{Item, Range};
use crate::replication::replicator::proof::Proof;
use crate::replication::replicator::*;

#[test]
fn a_write_anywhere_reaches_the_owners_and_only_them() {
    let mut mesh = Mesh::new(8);
    for n in 0..8 {
        for key in 0..20u8 {
            mesh.update(n, &[1, key], &add(i64::from(n) + 1));
        }
    }
    mesh.deliver();
    mesh.assert_converged(&ring(0..8));
    assert_eq!(mesh.counter(&[1, 3]), 36);
    assert!(mesh.nodes.values().all(|node| node.pending() == 0), "everything is acknowledged");
}

#[test]
fn owners_converge_after_loss_and_repetition() {
    let mut mesh = Mesh::new(6);
    mesh.loss_percent = 60;
    for round in 0..10u8 {
        for n in 0..6 {
            mesh.update(n, K, &add(1));
            mesh.update(n, R, &set(&[n, round]));
            mesh.update(n, S, &insert(&[n, round]));
        }
        mesh.run(1);
    }
    mesh.loss_percent = 0;
    mesh.run(120);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(mesh.counter(K), 60);
    let holder = mesh.holders(S)[0];
    let Some(Value::Set(elements)) = mesh.nodes[&holder].get(S) else { panic!() };
    assert_eq!(elements.len(), 60);
    assert!(mesh.nodes.values().all(|node| node.pending() == 0));
}

#[test]
fn two_sides_of_a_partition_converge_when_it_heals() {
    let mut mesh = Mesh::new(6);
    mesh.update(0, S, &insert(b"before"));
    mesh.deliver();
    mesh.partition(&[0, 1, 2]);
    for n in 0..6 {
        mesh.update(n, K, &add(1));
        mesh.update(n, S, &insert(&[n]));
    }
    mesh.run(60);
    mesh.cut.clear();
    mesh.run(120);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(mesh.counter(K), 6);
}

#[test]
fn equal_digests_transfer_no_state() {
    let mut mesh = Mesh::new(5);
    for key in 0..200u16 {
        mesh.update(0, &state_key(Kind::Register, &key.to_le_bytes()), &set(&[7; 500]));
    }
    mesh.run(60);
    mesh.state_bytes = 0;
    mesh.messages = 0;
    mesh.run(60);
    assert_eq!(mesh.state_bytes, 0);
    assert!(mesh.messages > 0, "summaries go on");
    assert!(mesh.messages <= 5 * 4 * 7, "one a peer in 10 s: {}", mesh.messages);
    assert!(mesh.nodes.values().all(|node| node.stats().in_sync > 0));
    let (sent, compared) = mesh.nodes.values().fold((0, 0), |(sent, compared), node| {
        let stats = node.stats();
        (sent + stats.summaries, compared + stats.in_sync + stats.out_of_sync)
    });
    assert_eq!(sent, compared, "each summary is compared with what its receiver has");
}

#[test]
fn one_lost_delta_among_many_keys_costs_about_one_range_of_digests() {
    let mut mesh = Mesh::new(3);
    for key in 0..3000u32 {
        mesh.update(0, &state_key(Kind::Counter, &key.to_le_bytes()), &add(1));
        mesh.deliver();
    }
    mesh.run(30);
    mesh.partition(&[0]);
    mesh.update(0, b"\x01lost", &add(1));
    mesh.deliver();
    mesh.cut.clear();
    mesh.state_bytes = 0;
    mesh.run(120);
    mesh.assert_converged(&ring(0..3));
    assert!(mesh.state_bytes < 1000, "only what differs: {}", mesh.state_bytes);
}

#[test]
fn a_node_that_lost_its_disk_gets_its_keys_back_and_loses_no_later_write() {
    let mut mesh = Mesh::new(4);
    let key = K;
    let owner = mesh.insider(key);
    mesh.update(owner, key, &add(5));
    mesh.deliver();
    mesh.start(owner, 2);
    mesh.set_ring(0..4);
    mesh.update(owner, key, &add(1));
    mesh.run(30);
    mesh.assert_converged(&ring(0..4));
    assert_eq!(mesh.counter(key), 6, "under its old id the 1 would vanish in the 5");
}

#[test]
fn a_state_for_a_key_that_is_not_ours_is_refused_with_our_view() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(K);
    let mut rogue = Value::new(Kind::Counter);
    rogue
        .merge(&Value::Counter(PnCounter::of(ReplicaId { key: peer(0), incarnation: 1 }, 1, 0)), WALL)
        .unwrap();
    let delta = Message::Delta { key: K.to_vec().into(), id: Some(1), state: rogue.encode().into() }.encode();
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(outsider).handle_message(now, wall, peer(50), &delta);
    assert!(mesh.node(outsider).get(K).is_none());
    let (to, answer) = mesh.node(outsider).poll_transmit().unwrap();
    let Some(Message::Refused { owners, .. }) = Message::decode(&answer) else { panic!() };
    assert_eq!((to, owners.len()), (peer(50), 3));
    // The sender has another view, so its driver gets `ViewDiffers`.
    let mut other = Mesh::new(2);
    let (now, wall) = (other.now, other.wall);
    other.node(0).handle_message(now, wall, peer(1), &answer);
    assert_eq!(other.node(0).poll_event(), Some(ReplicatorEvent::ViewDiffers { peer: peer(1) }));
}

#[test]
fn repair_stays_within_its_budget_and_still_ends() {
    let mut mesh = Mesh::new(3);
    mesh.config.repair_bytes_per_tick = 20_000;
    for n in 0..3 {
        mesh.start(n, 1);
    }
    mesh.set_ring(0..3);
    mesh.partition(&[2]);
    for key in 0..200u8 {
        mesh.update(0, &[2, key], &set(&[1; 1000]));
    }
    mesh.run(20);
    mesh.cut.clear();
    mesh.state_bytes = 0;
    mesh.run(5);
    // Three nodes, five ticks, and one state that may overdraw the budget in each.
    assert!(mesh.state_bytes <= 3 * 6 * (20_000 + 2_000), "{}", mesh.state_bytes);
    mesh.run(300);
    mesh.assert_converged(&ring(0..3));
    assert!(mesh.nodes.values().map(|node| node.stats().throttled).sum::<u64>() > 0);
}

#[test]
fn a_record_restores_what_an_owner_held() {
    let mut mesh = Mesh::new(3);
    mesh.update(0, S, &insert(b"x"));
    mesh.deliver();
    assert!(mesh.changed.contains(&(peer(2), S.to_vec())));
    let record = mesh.node(2).record(S).unwrap();
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.start(2, 1);
    mesh.node(2).restore(now, wall, S, &record).unwrap();
    assert!(matches!(mesh.node(2).get(S), Some(Value::Set(set)) if set.contains(b"x")));
    assert!(mesh.node(2).restore(now, wall, S, b"junk").is_err());
    let other = mesh.node(2).restore(now, wall, b"\x01s", &record);
    assert_eq!(other, Err(UpdateError::Value(CrdtError::WrongKind)));
    assert!(mesh.node(2).get(b"\x01s").is_none());
    assert_eq!(mesh.node(2).record(b"\x03none"), None);
}

#[derive(Debug, Clone)]
enum Fault {
    Add { node: u8, key: u8 },
    Run { seconds: u8 },
    Partition { side: u8 },
    Heal,
    Loss { percent: u8 },
    Ring { without: u8 },
    Restart { node: u8 },
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => (0u8..6, 0u8..3).prop_map(|(node, key)| Fault::Add { node, key }),
        3 => (1u8..90).prop_map(|seconds| Fault::Run { seconds }),
        1 => (1u8..63).prop_map(|side| Fault::Partition { side }),
        1 => Just(Fault::Heal),
        1 => (0u8..80).prop_map(|percent| Fault::Loss { percent }),
        2 => (0u8..63).prop_map(|without| Fault::Ring { without }),
        2 => (0u8..6).prop_map(|node| Fault::Restart { node }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_fails_and_moves_no_write_is_lost_or_counted_twice(
        faults in proptest::collection::vec(fault(), 0..40),
    ) {
        let mut mesh = Mesh::new(6);
        let mut expected: BTreeMap<u8, i128> = BTreeMap::new();
        for fault in faults {
            match fault {
                Fault::Add { node, key } => {
                    mesh.update(node, &[1, key], &add(1));
                    mesh.deliver();
                    *expected.entry(key).or_default() += 1;
                }
                Fault::Run { seconds } => mesh.run(u64::from(seconds)),
                Fault::Partition { side } => {
                    let side: Vec<u8> = (0..6).filter(|n| side & (1 << n) != 0).collect();
                    mesh.partition(&side);
                }
                Fault::Heal => mesh.cut.clear(),
                Fault::Loss { percent } => mesh.loss_percent = u64::from(percent),
                Fault::Ring { without } => {
                    let members: Vec<u8> = (0..6).filter(|n| without & (1 << n) == 0).collect();
                    mesh.set_ring(members);
                }
                Fault::Restart { node } => mesh.restart(node),
            }
        }
        mesh.cut.clear();
        mesh.loss_percent = 0;
        mesh.set_ring(0..6);
        mesh.run(1000);
        mesh.assert_converged(&ring(0..6));
        for (key, sum) in expected {
            prop_assert_eq!(mesh.counter(&[1, key]), sum);
        }
        prop_assert!(mesh.nodes.values().all(|node| node.pending() == 0));
    }
}

#[test]
fn an_answer_to_a_summary_of_another_placement_settles_nothing() {
    let mut mesh = Mesh::new(3);
    assert_eq!(mesh.write(0, K, add(1)), Ok(()));
    let settled = |mesh: &mut Mesh| mesh.node(0).held.summaries.is_settled(&peer(1));
    // The summaries are answered, and the answers are under way when the members change.
    let mut late = Vec::new();
    while late.is_empty() {
        mesh.now += Duration::from_millis(500);
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(0).handle_timeout(now, wall);
        for (to, asked) in std::iter::from_fn(|| mesh.node(0).poll_transmit()).collect::<Vec<_>>() {
            if to == peer(1) && matches!(Message::decode(&asked), Some(Message::Summary { .. })) {
                mesh.node(1).handle_message(now, wall, peer(0), &asked);
                late.extend(std::iter::from_fn(|| mesh.node(1).poll_transmit()).map(|(_, answer)| answer));
            }
        }
    }
    mesh.set_ring(0..4);
    let (now, wall) = (mesh.now, mesh.wall);
    for answer in &late {
        mesh.node(0).handle_message(now, wall, peer(1), answer);
    }
    assert!(!settled(&mut mesh));
    mesh.start(3, 1);
    mesh.set_ring(0..4);
    mesh.run(30);
    assert!(settled(&mut mesh), "the next round shows it");
}

#[test]
fn a_round_goes_on_with_each_answer_whatever_the_number_of_keys() {
    let mut mesh = Mesh::new(2);
    // Two ranges.
    let keys: Vec<Vec<u8>> = (0..9_000u32).map(|n| [&[1][..], &n.to_be_bytes()].concat()).collect();
    for part in keys.chunks(1_000) {
        part.iter().for_each(|key| mesh.update(0, key, &add(1)));
        mesh.deliver();
    }
    mesh.cut.insert((peer(0), peer(1)));
    for key in keys.iter().step_by(90) {
        mesh.update(0, key, &add(1));
    }
    mesh.deliver();
    mesh.cut.clear();
    // A round begins every 10 s.
    mesh.run(11);
    mesh.assert_converged(&ring(0..2));
    let summaries = |mesh: &mut Mesh| mesh.node(0).stats().summaries;
    let before = summaries(&mut mesh);
    mesh.run(100);
    let rounds = (summaries(&mut mesh) - before) / 2;
    assert!((9..=11).contains(&rounds), "the pause between rounds stays: {rounds}");
}

/// Two owners of so many keys, of which the first has more in every so manieth.
fn differing(keys: u32, every: usize) -> Mesh {
    let mut mesh = Mesh::new(2);
    let keys: Vec<Vec<u8>> = (0..keys).map(|n| [&[1][..], &n.to_be_bytes()].concat()).collect();
    for part in keys.chunks(1_000) {
        part.iter().for_each(|key| mesh.update(0, key, &add(1)));
        mesh.deliver();
    }
    mesh.run(11);
    mesh.cut.insert((peer(0), peer(1)));
    keys.iter().step_by(every).for_each(|key| mesh.update(0, key, &add(1)));
    mesh.deliver();
    mesh.cut.clear();
    (mesh.talk_bytes, mesh.state_bytes) = (0, 0);
    mesh
}

#[test]
fn a_difference_costs_the_digests_of_the_keys_around_it() {
    let (keys, every) = (9_000, 200);
    let mut mesh = differing(keys, every);
    mesh.run(11);
    mesh.assert_converged(&ring(0..2));
    // A hash for each part; and for each difference 64 digests and a summary.
    let (parts, part) = (keys as usize / 64, 64 * 28 + 100);
    let most = parts * 28 + keys as usize / every * part;
    assert!(mesh.talk_bytes < most, "{} of {most} bytes, {} of states", mesh.talk_bytes, mesh.state_bytes);
    // The digests of all.
    assert!(most < keys as usize * 28 / 2);
}

#[test]
fn who_has_nothing_gets_all_within_a_round_and_is_settled_with_the_next() {
    for (keys, every) in [(9_000, 9_000), (300, 300)] {
        let mut mesh = differing(keys, every);
        mesh.lose_disk(1);
        let now = mesh.now;
        // The repair budget is a mebibyte a second.
        mesh.run(14);
        mesh.assert_converged(&ring(0..2));
        mesh.run(11);
        for (n, other) in [(0, 1), (1, 0)] {
            assert!(mesh.node(n).held.summaries.is_settled(&peer(other)), "{keys} keys, {n}");
        }
        assert!(mesh.now - now <= Duration::from_secs(25));
    }
}

/// The next summary that a node sends to another, of a whole range or of parts that differ; its other messages are lost.
fn next_summary(mesh: &mut Mesh, n: u8, of_parts: bool) -> Option<(Range, Option<u64>, Vec<u8>)> {
    for _ in 0..30 {
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(n).handle_timeout(now, wall);
        for (_, message) in mesh.sent(n) {
            let bytes = message.encode();
            if let Message::Summary { range, settling, digests, .. } = message
                && digests == of_parts
            {
                return Some((range, settling, bytes));
            }
        }
        mesh.now += Duration::from_millis(500);
    }
    None
}

#[test]
fn an_answer_in_parts_settles_nothing_before_the_parts_are_answered_and_equal_parts_are_compared() {
    let mut mesh = differing(1_000, 1_000);
    let key = |n: u32| [&[1][..], &n.to_be_bytes()].concat();
    mesh.restart(1);
    let (_, _, asked) = next_summary(&mut mesh, 1, false).expect("it begins a round");
    let (now, wall) = (mesh.now, mesh.wall);
    let compared = |mesh: &mut Mesh, n| {
        let Replicator { shared: sh, held, .. } = mesh.node(1);
        held.whole(sh, &key(n)).is_some()
    };
    assert!(!compared(&mut mesh, 900));
    mesh.node(0).handle_message(now, wall, peer(1), &asked);
    let [(_, divided @ Message::Divided { .. })] = &mesh.sent(0)[..] else {
        panic!("it is answered in parts")
    };
    mesh.node(1).handle_message(now, wall, peer(0), &divided.encode());
    let [(_, Message::Summary { range, digests: true, .. })] = &mesh.sent(1)[..] else {
        panic!("one part differs")
    };
    assert_eq!((range.after.as_ref(), range.upto.as_deref()), (None, Some(&key(63))));
    assert!(compared(&mut mesh, 900) && !compared(&mut mesh, 0));
    assert!(!mesh.node(1).held.summaries.is_settled(&peer(0)), "a part is open");
}

#[test]
fn a_round_goes_on_behind_an_answer_that_was_cut_short() {
    let mut mesh = differing(1_000, 1_000);
    // It isn't settled, so its questions have ids.
    mesh.restart(1);
    let (range, settling, _) = next_summary(&mut mesh, 1, false).expect("it begins a round");
    assert_eq!(range, Range { after: None, upto: None });
    let upto: Option<ByteVec> = Some(vec![1, 0, 0, 1, 0].into());
    let range = Range { after: None, upto: upto.clone() };
    mesh.inject(0, 1, &Message::Divided { range, parts: Vec::new(), last: [0; 16].into(), settling });
    let next = mesh.sent(1).into_iter().find_map(|(_, message)| match message {
        Message::Summary { range, digests: false, .. } => Some(range),
        _ => None,
    });
    assert_eq!(next, Some(Range { after: upto, upto: None }));
}

#[test]
fn parts_out_of_order_are_malformed_and_a_part_that_is_not_answered_settles_nothing() {
    let mut mesh = differing(1_000, 500);
    let key = |n: u32| -> ByteVec { [&[1][..], &n.to_be_bytes()].concat().into() };
    let (all, part) =
        (Range { after: None, upto: None }, |n| Item { key: key(n), bytes: vec![0; 16].into() });
    for parts in [vec![part(5), part(5)], vec![part(5), part(4)]] {
        let before = mesh.node(0).stats().malformed;
        let range = all.clone();
        mesh.inject(1, 0, &Message::Divided { range, parts, last: [0; 16].into(), settling: Some(1) });
        assert_eq!((mesh.node(0).stats().malformed, mesh.sent(0).len()), (before + 1, 0));
    }
    let mut proof = Proof::default();
    let range = |after, upto| Range { after: Option::map(after, key), upto: Option::map(upto, key) };
    proof.answered(1, &range(None, Some(3)), true);
    proof.divided(&range(Some(3), None), vec![(7, Some(key(5).into())), (8, None)]);
    assert!(!proof.is_settled());
    proof.answered(8, &range(Some(5), None), true);
    assert!(!proof.is_settled(), "one is open");
    let mut short = proof.clone();
    short.answered(7, &range(Some(3), Some(4)), true);
    assert!(!short.is_settled(), "the answer was cut short");
    let mut lacks = proof.clone();
    lacks.answered(7, &range(Some(3), Some(5)), false);
    assert!(!lacks.is_settled());
    proof.answered(7, &range(Some(3), Some(5)), true);
    assert!(proof.is_settled());
}

#[test]
fn a_round_goes_on_without_an_answer_too() {
    let mut mesh = Mesh::new(2);
    for n in 0..9_000u32 {
        mesh.update(0, &[&[1][..], &n.to_be_bytes()].concat(), &add(1));
        if n % 1_000 == 0 {
            mesh.deliver();
        }
    }
    mesh.run(30);
    let before = mesh.node(0).stats().summaries;
    mesh.cut.insert((peer(1), peer(0)));
    mesh.run(30);
    assert!(mesh.node(0).stats().summaries >= before + 4);
}
