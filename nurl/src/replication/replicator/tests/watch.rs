//! Watches.

use super::mesh::{K, Mesh, add, ring, ring_of};
use crate::replication::replicator::*;

/// Begins a watch of the counter at `n`.
fn watch(mesh: &mut Mesh, n: u8) -> u64 {
    let now = mesh.now;
    let id = mesh.node(n).watch(now, Kind::Counter, &K[1..]).unwrap();
    mesh.run(1);
    id
}

/// The sums that a watch has told since the last call, and whether each was partial.
fn told(mesh: &mut Mesh, id: u64) -> Vec<(i128, bool)> {
    let mut told = Vec::new();
    mesh.events.retain(|(_, event)| {
        let ReplicatorEvent::Watched { id: of, value, partial } = event else { return true };
        assert_eq!(*of, id);
        let sum = match value {
            Some(Value::Counter(counter)) => counter.value(),
            None => 0,
            other => panic!("{other:?}"),
        };
        told.push((sum, *partial));
        false
    });
    told
}

#[test]
fn a_watch_tells_the_value_and_each_newest_one_at_an_owner_and_elsewhere() {
    let mut mesh = Mesh::new(6);
    let (insider, outsider) = (mesh.insider(K), mesh.outsider(K));
    mesh.write(insider, K, add(1)).unwrap();
    mesh.run(30);
    for n in [insider, outsider] {
        let id = watch(&mut mesh, n);
        let first = told(&mut mesh, id);
        let [(sum, false)] = first[..] else { panic!("{first:?}") };
        for by in 1..4 {
            let writer = (n + 1) % 6;
            mesh.write(writer, K, add(1)).unwrap();
            mesh.run(1);
            assert_eq!(told(&mut mesh, id), [(sum + by, false)]);
        }
        // Nothing new, for long.
        mesh.run(120);
        assert_eq!(told(&mut mesh, id), []);
        mesh.write(n, K, add(1)).unwrap();
        mesh.run(2);
        assert_eq!(told(&mut mesh, id), [(sum + 4, false)]);
        mesh.node(n).unwatch(id);
        mesh.write(insider, K, add(1)).unwrap();
        mesh.run(60);
        assert_eq!(told(&mut mesh, id), []);
    }
    assert!(mesh.nodes.values().all(|node| node.watchers.len() == 0));
}

#[test]
fn a_deleted_object_shows_nothing_and_one_that_begins_anew_something() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(K);
    mesh.write(0, K, add(3)).unwrap();
    let id = watch(&mut mesh, outsider);
    mesh.write(1, K, Op::Delete { kind: Kind::Counter }).unwrap();
    mesh.run(2);
    mesh.write(1, K, add(5)).unwrap();
    mesh.run(2);
    assert_eq!(told(&mut mesh, id), [(3, false), (0, false), (5, false)]);
}

#[test]
fn an_owner_that_lags_takes_nothing_back_and_one_that_is_lost_is_replaced() {
    let mut mesh = Mesh::new(6);
    let owners = mesh.owners(K);
    let watcher = mesh.outsider(K);
    mesh.write(owners[0], K, add(1)).unwrap();
    mesh.run(30);
    let id = watch(&mut mesh, watcher);
    assert_eq!(told(&mut mesh, id), [(1, false)]);
    for lost in &owners {
        // It falls silent; a while later it is taken to be away, and then it is back without what it had.
        mesh.partition(&[*lost]);
        let writer = *owners.iter().find(|owner| *owner != lost).unwrap();
        mesh.write(writer, K, add(1)).unwrap();
        mesh.run(3);
        mesh.take_ring(&ring_of((0..6).map(|n| (n, 0)), &[*lost]));
        mesh.run(10);
        let seen = told(&mut mesh, id);
        assert_eq!(seen.len(), 1, "{seen:?}");
        mesh.lose_disk(*lost);
        mesh.cut.clear();
        mesh.take_ring(&ring(0..6));
        mesh.run(40);
        assert_eq!(told(&mut mesh, id), []);
    }
    mesh.write(owners[1], K, add(1)).unwrap();
    mesh.run(2);
    assert_eq!(told(&mut mesh, id), [(5, false)]);
}

#[test]
fn a_watch_goes_on_where_the_owners_are_others_and_under_loss() {
    let mut mesh = Mesh::new(8);
    let id = watch(&mut mesh, 7);
    assert_eq!(told(&mut mesh, id), [(0, false)]);
    let mut sum = 0;
    for turn in 0..6u8 {
        mesh.loss_percent = 30;
        mesh.set_ring((0..8).filter(|n| *n != turn));
        // It is sent on, if too few have it yet.
        let written = mesh.write((turn + 1) % 7, K, add(1));
        assert!(matches!(written, Ok(()) | Err(UpdateError::Unconfirmed(_))), "{written:?}");
        sum += 1;
        mesh.run(20);
        mesh.loss_percent = 0;
        mesh.run(70);
        let seen = told(&mut mesh, id);
        assert!(
            seen.is_sorted_by_key(|(sum, _)| *sum) && seen.last() == Some(&(sum, false)),
            "{turn}: {seen:?}"
        );
    }
}

#[test]
fn a_watch_with_too_few_owners_says_so_and_reads_on_until_there_are_enough() {
    let mut mesh = Mesh::new(6);
    let (owners, watcher) = (mesh.owners(K), mesh.outsider(K));
    mesh.write(owners[0], K, add(1)).unwrap();
    mesh.run(30);
    mesh.partition(&owners[1..]);
    let id = watch(&mut mesh, watcher);
    mesh.run(10);
    assert_eq!(told(&mut mesh, id), [(1, true)]);
    mesh.cut.clear();
    mesh.run(10);
    assert_eq!(told(&mut mesh, id), [(1, false)]);
}

#[test]
fn a_full_table_says_so_and_the_watcher_reads_now_and_then() {
    let mut mesh = Mesh::new(6);
    let (insider, watcher) = (mesh.insider(K), mesh.outsider(K));
    // Another one takes all that it may have, and is refused typed then.
    let strangers: Vec<u8> = (100..140).collect();
    for n in strangers {
        for id in 0..4096 {
            for owner in mesh.owners(K) {
                mesh.inject(n, owner, &Message::Watch { key: K.to_vec().into(), id, has: None });
            }
        }
        let owner = mesh.owners(K)[0];
        if mesh.node(owner).watchers.len() >= 4095 {
            break;
        }
    }
    let owner = mesh.owners(K)[0];
    let refused = mesh.node(owner).stats().full;
    assert!(refused > 0 && mesh.node(owner).watchers.len() <= 4096);
    let refusals = mesh.sent(owner);
    assert!(refusals.iter().any(|(_, message)| matches!(message, Message::Watched { outcome: 2, .. })));
    let id = watch(&mut mesh, watcher);
    assert_eq!(told(&mut mesh, id), [(0, false)]);
    mesh.write(insider, K, add(1)).unwrap();
    mesh.run(5);
    assert_eq!(told(&mut mesh, id), [(1, false)]);
}

#[test]
fn hostile_answers_tell_nothing() {
    let mut mesh = Mesh::new(6);
    let watcher = mesh.outsider(K);
    mesh.write(0, K, add(1)).unwrap();
    let id = watch(&mut mesh, watcher);
    mesh.run(2);
    assert_eq!(told(&mut mesh, id), [(1, false)]);
    let state = Value::Counter(crate::replication::crdt::PnCounter::of(mesh.node(0).local(), 9, 0)).encode();
    let answer = |id, outcome, state: Option<Vec<u8>>| Message::Watched {
        key: K.to_vec().into(),
        id,
        outcome,
        state: state.map(Into::into),
    };
    let stray = mesh.node(watcher).stats().stray;
    for n in (0..6).filter(|n| !mesh.owners(K).contains(n)).chain([9]).collect::<Vec<_>>() {
        mesh.inject(n, watcher, &answer(id, 0, Some(state.clone())));
    }
    mesh.inject(mesh.owners(K)[0], watcher, &answer(id + 1, 0, Some(state.clone())));
    assert!(mesh.node(watcher).stats().stray >= stray + 3);
    mesh.run(1);
    assert_eq!(told(&mut mesh, id), []);
    // Broken ones of a keeper: it reads again.
    for (outcome, state) in [(0, Some(vec![1, 255])), (7, None), (1, None), (2, None), (0, None)] {
        for owner in mesh.owners(K) {
            mesh.inject(owner, watcher, &answer(id, outcome, state.clone()));
        }
        mesh.run(6);
    }
    assert_eq!(told(&mut mesh, id), []);
    mesh.write(0, K, add(1)).unwrap();
    mesh.run(5);
    assert_eq!(told(&mut mesh, id), [(2, false)]);
    for _ in 1..MAX_WATCHES {
        let now = mesh.now;
        mesh.node(watcher).watch(now, Kind::Set, b"s").unwrap();
    }
    let now = mesh.now;
    assert_eq!(mesh.node(watcher).watch(now, Kind::Set, b"s"), Err(UpdateError::Full("watches")));
}
