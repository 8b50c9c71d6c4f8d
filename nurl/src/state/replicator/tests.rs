use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand_core::{Rng as _, SeedableRng};

use super::*;
use crate::ring::RingMember;
use crate::rt::Rng;
use crate::state::crdt::{CrdtError, Kind, OrSet, PnCounter};

const WALL: Duration = Duration::from_secs(1_000_000);

fn peer(n: u8) -> PublicKey {
    PublicKey::from_bytes(*blake3::hash(&[n]).as_bytes())
}

fn ring(members: impl IntoIterator<Item = u8>) -> Arc<Ring> {
    Arc::new(Ring::new(members.into_iter().map(|n| RingMember {
        key: peer(n),
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    })))
}

fn add(by: i64) -> Op {
    Op::Add { by }
}

fn set(value: &[u8]) -> Op {
    Op::Set { value: value.to_vec() }
}

fn insert(element: &[u8]) -> Op {
    Op::Insert { element: element.to_vec() }
}

fn remove(element: &[u8]) -> Op {
    Op::Remove { element: element.to_vec() }
}

/// A mesh in memory: messages arrive in order or are lost, time moves by hand.
struct Mesh {
    nodes: BTreeMap<PublicKey, Replicator>,
    now: Instant,
    wall: Duration,
    rng: Rng,
    loss_percent: u64,
    cut: BTreeSet<(PublicKey, PublicKey)>,
    events: Vec<(PublicKey, Event)>,
    /// The durable records.
    disk: BTreeMap<(PublicKey, Vec<u8>), Vec<u8>>,
    /// Bytes of `Delta` and `States` messages.
    state_bytes: usize,
    messages: usize,
    config: Config,
}

impl Mesh {
    fn new(count: u8) -> Mesh {
        let mut mesh = Mesh {
            nodes: BTreeMap::new(),
            now: crate::rt::time::now() + Duration::from_secs(86_400),
            wall: WALL,
            rng: Rng::from_seed([9; 32]),
            loss_percent: 0,
            cut: BTreeSet::new(),
            events: Vec::new(),
            disk: BTreeMap::new(),
            state_bytes: 0,
            messages: 0,
            config: Config::default(),
        };
        for n in 0..count {
            mesh.start(n, 1);
        }
        mesh.set_ring(0..count);
        mesh
    }

    fn start(&mut self, n: u8, incarnation: u64) {
        let local = ReplicaId { key: peer(n), incarnation };
        let node = Replicator::new(self.config.clone(), local, self.now, Rng::from_seed([n; 32]));
        self.nodes.insert(peer(n), node);
    }

    /// Kills a node and starts it again on its store.
    fn restart(&mut self, n: u8) {
        let ring = self.node(n).ring.clone();
        let (now, wall) = (self.now, self.wall);
        self.start(n, 1);
        let records: Vec<(Vec<u8>, Vec<u8>)> = self
            .disk
            .iter()
            .filter(|((owner, _), _)| *owner == peer(n))
            .map(|((_, key), record)| (key.clone(), record.clone()))
            .collect();
        for (key, record) in records {
            self.node(n).restore(now, wall, &key, &record).unwrap();
        }
        self.node(n).set_ring(now, ring);
    }

    fn set_ring(&mut self, members: impl IntoIterator<Item = u8>) {
        let ring = ring(members);
        for node in self.nodes.values_mut() {
            node.set_ring(self.now, ring.clone());
        }
    }

    fn node(&mut self, n: u8) -> &mut Replicator {
        self.nodes.get_mut(&peer(n)).unwrap()
    }

    fn update(&mut self, n: u8, key: &[u8], op: &Op) {
        let (now, wall) = (self.now, self.wall);
        self.node(n).update(now, wall, key, op, None).unwrap();
    }

    fn partition(&mut self, side: &[u8]) {
        let side: BTreeSet<PublicKey> = side.iter().map(|n| peer(*n)).collect();
        for a in self.nodes.keys() {
            for b in self.nodes.keys() {
                if side.contains(a) != side.contains(b) {
                    self.cut.insert((*a, *b));
                }
            }
        }
    }

    fn deliver(&mut self) {
        loop {
            let mut batch = Vec::new();
            for (from, node) in &mut self.nodes {
                while let Some(event) = node.poll_event() {
                    if let Event::Changed { key } = &event {
                        match node.record(key) {
                            Some(record) => self.disk.insert((*from, key.clone()), record),
                            None => self.disk.remove(&(*from, key.clone())),
                        };
                    }
                    self.events.push((*from, event));
                }
                while let Some((to, bytes)) = node.poll_transmit() {
                    assert!(bytes.len() <= MAX_MESSAGE_BYTES);
                    batch.push((*from, to, bytes));
                }
            }
            if batch.is_empty() {
                return;
            }
            for (from, to, bytes) in batch {
                self.messages += 1;
                if matches!(Message::decode(&bytes), Some(Message::Delta { .. } | Message::States { .. })) {
                    self.state_bytes += bytes.len();
                }
                let lost = self.cut.contains(&(from, to)) || self.rng.next_u64() % 100 < self.loss_percent;
                if let Some(node) = self.nodes.get_mut(&to).filter(|_| !lost) {
                    node.handle_message(self.now, self.wall, from, &bytes);
                }
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.now += Duration::from_millis(500);
            self.wall += Duration::from_millis(500);
            for node in self.nodes.values_mut() {
                node.handle_timeout(self.now, self.wall);
            }
            self.deliver();
        }
    }

    fn holders(&self, key: &[u8]) -> Vec<PublicKey> {
        self.nodes.iter().filter(|(_, node)| node.get(key).is_some()).map(|(peer, _)| *peer).collect()
    }

    /// Asserts that exactly the owners hold each key, with equal bytes.
    fn assert_converged(&self, ring: &Ring) {
        let keys: BTreeSet<Vec<u8>> =
            self.nodes.values().flat_map(|node| node.keys()).map(<[u8]>::to_vec).collect();
        for key in keys {
            let mut owners = ring.owners(&key, 3);
            owners.sort();
            assert_eq!(self.holders(&key), owners, "holders of {key:?}");
            let states: BTreeSet<Vec<u8>> =
                owners.iter().map(|owner| self.nodes[owner].get(&key).unwrap().encode()).collect();
            assert_eq!(states.len(), 1, "states of {key:?}");
        }
    }

    fn counter(&self, key: &[u8]) -> i128 {
        match self.nodes[&self.holders(key)[0]].get(key) {
            Some(Value::Counter(counter)) => counter.value(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads at `n`, and gives what the event says.
    fn read(&mut self, n: u8, key: &[u8]) -> Event {
        let now = self.now;
        self.node(n).read(now, key, 77).unwrap();
        self.deliver();
        self.run(6);
        let at = self.events.iter().position(|(_, event)| {
            matches!(event, Event::ReadDone { id: 77, .. } | Event::ReadFailed { id: 77 })
        });
        self.events.remove(at.unwrap()).1
    }

    /// Writes at `n` as an application does, and gives what the event says.
    fn write(&mut self, n: u8, key: &[u8], op: Op) -> Result<(), UpdateError> {
        let (now, wall) = (self.now, self.wall);
        self.node(n).write(now, wall, key, op, 88)?;
        self.deliver();
        for _ in 0..20 {
            let done =
                self.events.iter().position(|(_, event)| matches!(event, Event::WriteDone { id: 88, .. }));
            if let Some(at) = done {
                let Event::WriteDone { outcome, .. } = self.events.remove(at).1 else { unreachable!() };
                return outcome;
            }
            self.run(1);
        }
        panic!("the write never ends");
    }

    /// Kills a node and starts it again without its store.
    fn lose_disk(&mut self, n: u8) {
        let ring = self.node(n).ring.clone();
        let now = self.now;
        self.disk.retain(|(owner, _), _| *owner != peer(n));
        self.start(n, 2);
        self.node(n).set_ring(now, ring);
    }

    /// Every copy of a key, by its holder.
    fn copies(&self, key: &[u8]) -> BTreeMap<PublicKey, Vec<u8>> {
        let held = self.nodes.iter().filter_map(|(peer, node)| Some((*peer, node.get(key)?.encode())));
        held.collect()
    }

    fn outsider(&self, key: &[u8]) -> u8 {
        let owners = self.nodes.values().next().unwrap().ring.owners(key, 3);
        (0..self.nodes.len() as u8).find(|n| !owners.contains(&peer(*n))).unwrap()
    }

    fn insider(&self, key: &[u8]) -> u8 {
        let owners = self.nodes.values().next().unwrap().ring.owners(key, 3);
        (0..self.nodes.len() as u8).find(|n| owners.contains(&peer(*n))).unwrap()
    }
}

#[test]
fn a_write_anywhere_reaches_the_owners_and_only_them() {
    let mut mesh = Mesh::new(8);
    for n in 0..8 {
        for key in 0..20u8 {
            mesh.update(n, &[key], &add(i64::from(n) + 1));
        }
    }
    mesh.deliver();
    mesh.assert_converged(&ring(0..8));
    assert_eq!(mesh.counter(&[3]), 36);
    assert!(mesh.nodes.values().all(|node| node.pending() == 0), "everything is acknowledged");
}

#[test]
fn owners_converge_after_loss_and_repetition() {
    let mut mesh = Mesh::new(6);
    mesh.loss_percent = 60;
    for round in 0..10u8 {
        for n in 0..6 {
            mesh.update(n, b"counter", &add(1));
            mesh.update(n, b"register", &set(&[n, round]));
            mesh.update(n, b"set", &insert(&[n, round]));
        }
        mesh.run(1);
    }
    mesh.loss_percent = 0;
    mesh.run(120);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(mesh.counter(b"counter"), 60);
    let holder = mesh.holders(b"set")[0];
    let Some(Value::Set(elements)) = mesh.nodes[&holder].get(b"set") else { panic!() };
    assert_eq!(elements.len(), 60);
    assert!(mesh.nodes.values().all(|node| node.pending() == 0));
}

#[test]
fn two_sides_of_a_partition_converge_when_it_heals() {
    let mut mesh = Mesh::new(6);
    mesh.update(0, b"set", &insert(b"before"));
    mesh.deliver();
    mesh.partition(&[0, 1, 2]);
    for n in 0..6 {
        mesh.update(n, b"counter", &add(1));
        mesh.update(n, b"set", &insert(&[n]));
    }
    mesh.run(60);
    mesh.cut.clear();
    mesh.run(120);
    mesh.assert_converged(&ring(0..6));
    assert_eq!(mesh.counter(b"counter"), 6);
}

#[test]
fn equal_digests_transfer_no_state() {
    let mut mesh = Mesh::new(5);
    for key in 0..200u16 {
        mesh.update(0, &key.to_le_bytes(), &set(&[7; 500]));
    }
    mesh.run(60);
    mesh.state_bytes = 0;
    mesh.messages = 0;
    mesh.run(60);
    assert_eq!(mesh.state_bytes, 0);
    assert!(mesh.messages > 0, "summaries go on");
    assert!(mesh.messages <= 5 * 4 * 7, "one a peer in 10 s: {}", mesh.messages);
    assert!(mesh.nodes.values().all(|node| node.stats.in_sync > 0));
}

#[test]
fn one_lost_delta_among_many_keys_costs_about_one_range_of_digests() {
    let mut mesh = Mesh::new(3);
    for key in 0..3000u32 {
        mesh.update(0, &key.to_le_bytes(), &add(1));
        mesh.deliver();
    }
    mesh.run(30);
    mesh.partition(&[0]);
    mesh.update(0, b"lost", &add(1));
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
    let key = b"counter";
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
fn a_delta_is_kept_until_an_owner_acknowledged_it() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(b"k");
    mesh.partition(&[writer]);
    mesh.update(writer, b"k", &add(3));
    mesh.run(30);
    assert_eq!(mesh.node(writer).pending(), 1);
    let record = mesh.node(writer).record(b"k").unwrap();
    // The writer restarts with its store: the delta is still there, and the next write goes on from it.
    mesh.start(writer, 1);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).restore(now, wall, b"k", &record).unwrap();
    mesh.set_ring(0..6);
    mesh.cut.clear();
    mesh.run(70);
    mesh.update(writer, b"k", &add(4));
    mesh.run(10);
    assert_eq!(mesh.counter(b"k"), 7);
    assert_eq!(mesh.node(writer).pending(), 0);
    mesh.assert_converged(&ring(0..6));
}

#[test]
fn an_acknowledgement_from_a_stranger_ends_nothing() {
    let mut mesh = Mesh::new(6);
    let writer = mesh.outsider(b"k");
    mesh.update(writer, b"k", &add(3));
    let id = mesh.node(writer).next_id;
    let ack = Message::Ack { key: b"k".to_vec().into(), id, digest: [0; 16].into() }.encode();
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(writer).handle_message(now, wall, peer(99), &ack);
    assert_eq!((mesh.node(writer).pending(), mesh.node(writer).stats.stray), (1, 1));
}

#[test]
fn a_former_owner_drops_its_copy_only_after_all_owners_hold_one_digest() {
    let mut mesh = Mesh::new(4);
    for key in 0..40u8 {
        mesh.update(0, &[key], &insert(b"x"));
    }
    mesh.run(5);
    for n in 4..8 {
        mesh.start(n, 1);
    }
    mesh.partition(&[4, 5, 6, 7]);
    mesh.set_ring(0..8);
    mesh.run(200);
    let lacking = (0..40u8).filter(|key| mesh.holders(&[*key]).len() < 3).count();
    assert_eq!(lacking, 0, "while new owners are out of reach nothing is dropped");
    mesh.cut.clear();
    mesh.run(700);
    mesh.assert_converged(&ring(0..8));
    assert!(mesh.nodes.values().map(|node| node.stats.handed_off).sum::<u64>() > 0);
    for key in 0..40u8 {
        assert_eq!(mesh.holders(&[key]).len(), 3);
    }
}

#[test]
fn a_copy_is_held_for_a_minute_after_the_owners_changed() {
    let mut mesh = Mesh::new(4);
    mesh.update(0, b"k", &add(1));
    mesh.run(5);
    let before = mesh.holders(b"k");
    let ring4 = ring(0..4);
    let gone = ring4.owners(b"k", 3)[0];
    let members: Vec<u8> = (0..4).filter(|n| peer(*n) != gone).collect();
    mesh.set_ring(members);
    mesh.run(50);
    assert!(mesh.holders(b"k").contains(&gone) && before.contains(&gone));
    mesh.run(30);
    assert!(!mesh.holders(b"k").contains(&gone));
    let Some(n) = (0..4).find(|n| peer(*n) == gone) else { panic!() };
    mesh.update(n, b"k", &add(1));
    mesh.run(5);
    assert_eq!(mesh.counter(b"k"), 2);
}

#[test]
fn a_former_owners_later_write_goes_on_from_its_own_sum() {
    let mut mesh = Mesh::new(4);
    let owners = ring(0..4).owners(b"k", 3);
    let n = (0..4).find(|n| peer(*n) == owners[0]).unwrap();
    mesh.update(n, b"k", &add(10));
    mesh.run(5);
    mesh.set_ring((0..4).filter(|m| *m != n));
    mesh.run(120);
    assert!(mesh.node(n).get(b"k").is_none());
    mesh.update(n, b"k", &add(1));
    mesh.run(5);
    assert_eq!(mesh.counter(b"k"), 11);
}

#[test]
fn a_state_for_a_key_that_is_not_ours_is_refused_with_our_view() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(b"k");
    let mut rogue = Value::new(Kind::Counter);
    rogue
        .merge(&Value::Counter(PnCounter::of(ReplicaId { key: peer(0), incarnation: 1 }, 1, 0)), WALL)
        .unwrap();
    let delta =
        Message::Delta { key: b"k".to_vec().into(), id: Some(1), state: rogue.encode().into() }.encode();
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(outsider).handle_message(now, wall, peer(50), &delta);
    assert!(mesh.node(outsider).get(b"k").is_none());
    let (to, answer) = mesh.node(outsider).poll_transmit().unwrap();
    let Some(Message::Refused { owners, .. }) = Message::decode(&answer) else { panic!() };
    assert_eq!((to, owners.len()), (peer(50), 3));
    // The sender, whose view is another one, is told to look again.
    let mut other = Mesh::new(2);
    let (now, wall) = (other.now, other.wall);
    other.node(0).handle_message(now, wall, peer(1), &answer);
    assert_eq!(other.node(0).poll_event(), Some(Event::ViewDiffers { peer: peer(1) }));
}

#[test]
fn a_read_elsewhere_merges_all_owners_and_repairs_the_one_that_lags() {
    let mut mesh = Mesh::new(6);
    mesh.config.sync_period = Duration::from_secs(100_000);
    for n in 0..6 {
        mesh.start(n, 1);
    }
    mesh.set_ring(0..6);
    let owners = ring(0..6).owners(b"k", 3);
    let lagging = (0..6).find(|n| peer(*n) == owners[2]).unwrap();
    let writer = (0..6).find(|n| peer(*n) == owners[0]).unwrap();
    mesh.partition(&[lagging]);
    mesh.update(writer, b"k", &add(4));
    mesh.run(5);
    mesh.cut.clear();
    assert!(mesh.node(lagging).get(b"k").is_none());
    let outsider = mesh.outsider(b"k");
    let Event::ReadDone { value: Some(Value::Counter(counter)), .. } = mesh.read(outsider, b"k") else {
        panic!()
    };
    assert_eq!(counter.value(), 4);
    mesh.assert_converged(&ring(0..6));
    assert!(matches!(mesh.read(writer, b"k"), Event::ReadDone { value: Some(_), .. }));
    assert!(matches!(
        mesh.read(outsider, b"none"),
        Event::ReadDone { value: None, .. } | Event::ReadFailed { .. }
    ));
}

#[test]
fn a_read_with_no_owner_in_reach_fails_and_sees_its_own_write_otherwise() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(b"k");
    mesh.partition(&[outsider]);
    assert_eq!(mesh.read(outsider, b"k"), Event::ReadFailed { id: 77 });
    mesh.cut.clear();
    mesh.update(0, b"k", &add(1));
    mesh.deliver();
    mesh.loss_percent = 100;
    mesh.update(outsider, b"k", &add(1));
    mesh.deliver();
    mesh.loss_percent = 0;
    let Event::ReadDone { value: Some(Value::Counter(counter)), .. } = mesh.read(outsider, b"k") else {
        panic!()
    };
    assert_eq!(counter.value(), 2);
}

#[test]
fn a_removal_elsewhere_reads_first_and_then_removes_what_was_read() {
    let mut mesh = Mesh::new(6);
    let (insider, outsider) = (mesh.insider(b"s"), mesh.outsider(b"s"));
    mesh.update(insider, b"s", &insert(b"x"));
    mesh.update(insider, b"s", &insert(b"y"));
    mesh.deliver();
    assert_eq!(mesh.write(outsider, b"s", remove(b"x")), Ok(()));
    mesh.run(3);
    let Some(Value::Set(elements)) = mesh.node(insider).get(b"s") else { panic!() };
    assert_eq!(elements.iter().collect::<Vec<_>>(), [b"y"]);
}

#[test]
fn a_removal_at_an_owner_that_lost_its_disk_removes_it_everywhere() {
    let mut mesh = Mesh::new(3);
    mesh.update(1, b"s", &insert(b"x"));
    mesh.run(1);
    mesh.lose_disk(0);
    assert_eq!(mesh.write(0, b"s", remove(b"x")), Ok(()));
    mesh.run(120);
    mesh.assert_converged(&ring(0..3));
    assert!(matches!(mesh.node(0).get(b"s"), Some(Value::Set(set)) if set.is_empty()));
}

#[test]
fn a_removal_at_an_owner_whose_copy_is_behind_removes_it_everywhere() {
    let mut mesh = Mesh::new(3);
    mesh.update(0, b"s", &insert(b"old"));
    mesh.run(1);
    mesh.partition(&[0]);
    mesh.update(1, b"s", &insert(b"x"));
    mesh.run(1);
    mesh.cut.clear();
    assert_eq!(mesh.write(0, b"s", remove(b"x")), Ok(()));
    mesh.run(120);
    mesh.assert_converged(&ring(0..3));
    assert!(matches!(mesh.node(0).get(b"s"), Some(Value::Set(set)) if set.len() == 1));
}

#[test]
fn an_owner_without_a_copy_makes_no_write_before_another_has_told_what_it_has() {
    let mut mesh = Mesh::new(3);
    mesh.update(1, b"s", &insert(b"x"));
    mesh.run(1);
    mesh.lose_disk(0);
    mesh.partition(&[0]);
    for op in [remove(b"x"), insert(b"y"), add(1)] {
        assert_eq!(mesh.write(0, b"s", op), Err(UpdateError::Unknown));
    }
    assert_eq!(mesh.node(0).get(b"s"), None);
    // As the only owner it knows.
    mesh.set_ring([0]);
    assert_eq!(mesh.write(0, b"s", remove(b"x")), Ok(()));
    assert_eq!(mesh.write(0, b"s", insert(b"y")), Ok(()));
    assert!(mesh.node(0).get(b"s").is_some());
}

#[test]
fn an_owner_that_has_nothing_proves_nothing_while_the_one_that_has_the_value_is_silent() {
    let mut mesh = Mesh::new(6);
    let order = ring(0..6).owners(b"k", 6).into_iter();
    let order: Vec<u8> = order.map(|owner| (0..6).find(|n| peer(*n) == owner).unwrap()).collect();
    let [former, silent, forgetful, fresh, outsider, _] = order[..] else { unreachable!() };
    assert_eq!(mesh.write(silent, b"k", add(5)), Ok(()));
    mesh.run(40);
    mesh.lose_disk(forgetful);
    let after = || (0..6).filter(|n| *n != former);
    mesh.set_ring(after());
    mesh.partition(&[former]);
    mesh.partition(&[silent]);
    for (writer, told) in [
        (forgetful, UpdateError::Unknown),
        (fresh, UpdateError::Unknown),
        (outsider, UpdateError::Unacknowledged),
    ] {
        assert_eq!(mesh.write(writer, b"k", set(b"v")), Err(told));
    }
    assert!(mesh.node(forgetful).get(b"k").is_none() && mesh.node(fresh).get(b"k").is_none());
    mesh.cut.clear();
    mesh.run(400);
    mesh.assert_converged(&ring(after()));
    assert_eq!(mesh.counter(b"k"), 5);
    assert_eq!(mesh.nodes.values().map(|node| node.stats.mixed).sum::<u64>(), 0);
}

#[test]
fn an_owner_without_room_for_the_value_that_it_was_told_makes_no_write_over_it() {
    let mut mesh = Mesh::new(4);
    let (full, outsider) = (mesh.insider(b"k"), mesh.outsider(b"k"));
    mesh.update(full, b"k", &insert(&[0; 1000]));
    mesh.run(40);
    mesh.config.max_held_bytes = 500;
    mesh.lose_disk(full);
    for op in [add(1), insert(b"x"), remove(&[0; 1000])] {
        assert_eq!(mesh.write(full, b"k", op), Err(UpdateError::Full("keys held")));
    }
    assert!(matches!(
        mesh.write(outsider, b"k", add(1)),
        Err(UpdateError::Value(CrdtError::WrongKind { .. }))
    ));
    assert_eq!(mesh.write(outsider, b"k", insert(b"y")), Ok(()), "the others have room");
    mesh.run(40);
    assert_eq!(mesh.node(full).get(b"k"), None);
    assert_eq!(mesh.nodes.values().map(|node| node.stats.mixed).sum::<u64>(), 0);
}

#[test]
fn what_waits_for_other_owners_goes_on_when_there_are_none_any_more() {
    let mut mesh = Mesh::new(3);
    mesh.partition(&[0]);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.node(0).write(now, wall, b"k", add(1), 1).unwrap();
    mesh.run(1);
    mesh.set_ring([0]);
    mesh.run(1);
    assert!(mesh.events.contains(&(peer(0), Event::WriteDone { id: 1, outcome: Ok(()) })));
}

#[test]
fn a_write_elsewhere_is_answered_when_an_owner_has_it() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(b"k");
    assert_eq!(mesh.write(outsider, b"k", add(1)), Ok(()));
    assert_eq!(mesh.counter(b"k"), 1, "the answer came after it");
    mesh.partition(&[outsider]);
    let begun = mesh.now;
    assert_eq!(mesh.write(outsider, b"k", add(1)), Err(UpdateError::Unacknowledged));
    assert!(mesh.now - begun >= Duration::from_secs(5));
    mesh.cut.clear();
    mesh.run(60);
    assert_eq!(mesh.counter(b"k"), 2, "it went on being sent");
    // With a store it is safe where it was made.
    mesh.config.durable = true;
    mesh.lose_disk(outsider);
    mesh.partition(&[outsider]);
    assert_eq!(mesh.write(outsider, b"k", add(1)), Ok(()));
    assert_eq!(mesh.node(outsider).waiting_writes, 0);
}

#[test]
fn writes_under_way_are_bounded_and_all_of_a_key_are_answered_at_once() {
    let mut mesh = Mesh::new(6);
    let outsider = mesh.outsider(b"k");
    let (now, wall) = (mesh.now, mesh.wall);
    for id in 0..calls::MAX_WRITES as u64 {
        mesh.node(outsider).write(now, wall, b"k", add(1), id).unwrap();
    }
    let refused = mesh.node(outsider).write(now, wall, b"k", add(1), 99_999);
    assert_eq!(refused, Err(UpdateError::Full("writes under way")));
    mesh.deliver();
    let done = |(_, event): &&(PublicKey, Event)| matches!(event, Event::WriteDone { outcome: Ok(()), .. });
    assert_eq!(mesh.events.iter().filter(done).count(), calls::MAX_WRITES);
    assert_eq!(mesh.counter(b"k"), calls::MAX_WRITES as i128);
}

#[test]
fn sides_that_created_one_key_as_two_types_converge_and_lose_neither() {
    let mut mesh = Mesh::new(4);
    mesh.partition(&[0, 1]);
    let now = mesh.now;
    for side in [[0, 1], [2, 3]] {
        for n in side {
            mesh.node(n).set_ring(now, ring(side));
        }
    }
    assert_eq!(mesh.write(0, b"k", add(5)), Ok(()));
    assert_eq!(mesh.write(2, b"k", insert(b"x")), Ok(()));
    mesh.cut.clear();
    mesh.set_ring(0..4);
    mesh.run(200);
    mesh.assert_converged(&ring(0..4));
    assert!(mesh.nodes.values().map(|node| node.stats.mixed).sum::<u64>() > 0);
    let holder = mesh.insider(b"k");
    let value = mesh.node(holder).get(b"k").unwrap();
    assert!(matches!(value.part(Kind::Counter), Some(Value::Counter(counter)) if counter.value() == 5));
    assert!(matches!(value.part(Kind::Set), Some(Value::Set(set)) if set.contains(b"x")));
    // Both go on being written, and a third type is refused.
    let outsider = mesh.outsider(b"k");
    for n in [holder, outsider] {
        assert_eq!(mesh.write(n, b"k", add(1)), Ok(()));
        assert_eq!(mesh.write(n, b"k", insert(&[n])), Ok(()));
        let refused = mesh.write(n, b"k", set(b"v"));
        assert!(matches!(refused, Err(UpdateError::Value(CrdtError::WrongKind { .. }))), "{refused:?}");
    }
}

#[test]
fn a_type_that_new_owners_took_before_the_former_ones_handed_over_is_kept_beside_theirs() {
    let mut mesh = Mesh::new(8);
    let first = mesh.insider(b"k");
    assert_eq!(mesh.write(first, b"k", add(5)), Ok(()));
    let former = ring(0..8).owners(b"k", 3);
    let after = || (0..8).filter(|n| !former.contains(&peer(*n)));
    mesh.set_ring(after());
    let writer = after().find(|n| ring(after()).owns(&peer(*n), b"k", 3)).unwrap();
    assert_eq!(mesh.write(writer, b"k", insert(b"x")), Ok(()), "no owner has a copy");
    mesh.run(400);
    mesh.assert_converged(&ring(after()));
    let value = mesh.node(writer).get(b"k").unwrap();
    assert!(matches!(value.part(Kind::Counter), Some(Value::Counter(counter)) if counter.value() == 5));
    assert!(matches!(value.part(Kind::Set), Some(Value::Set(set)) if set.contains(b"x")));
    assert!(mesh.nodes.values().map(|node| node.stats.mixed).sum::<u64>() > 0);
}

#[test]
fn a_node_that_leaves_offers_what_no_other_owner_is_known_to_have() {
    let mut mesh = Mesh::new(6);
    let (insider, outsider) = (mesh.insider(b"k"), mesh.outsider(b"k"));
    mesh.update(insider, b"k", &add(1));
    mesh.run(30);
    assert_eq!(mesh.node(insider).unheld(), Unheld::default(), "summaries have shown that others have it");
    mesh.loss_percent = 100;
    mesh.update(insider, b"k", &add(2));
    mesh.update(outsider, b"k", &add(4));
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
    assert_eq!(mesh.counter(b"k"), 7);
}

#[test]
fn a_node_that_leaves_nobody_behind_says_what_is_lost() {
    let mut mesh = Mesh::new(1);
    mesh.update(0, b"k", &add(1));
    let now = mesh.now;
    mesh.node(0).leave(now);
    assert_eq!(mesh.node(0).unheld(), Unheld { keys: 1, offered: 0 });
}

/// A write of a type, distinct for each `n`.
fn op_of(kind: Kind, n: u8) -> Op {
    match kind {
        Kind::Counter => add(i64::from(n) + 1),
        Kind::Register => set(&[n]),
        Kind::Set => insert(&[n]),
    }
}

fn two_kinds() -> impl Strategy<Value = (Kind, Kind)> {
    let kinds = Just(vec![Kind::Counter, Kind::Register, Kind::Set]).prop_shuffle();
    kinds.prop_map(|kinds| (kinds[0], kinds[1]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_write_of_another_type_is_refused_and_changes_nothing_anywhere(
        (kind, other) in two_kinds(), key in 0u8..20, writers in proptest::collection::vec(0u8..8, 1..5),
        forgetful in proptest::option::of(0u8..7), moves in any::<bool>(), loss in 0u64..40,
    ) {
        let mut mesh = Mesh::new(7);
        mesh.config.observer = true;
        mesh.start(7, 1);
        mesh.config.observer = false;
        mesh.set_ring(0..7);
        let first = mesh.insider(&[key]);
        mesh.write(first, &[key], op_of(kind, 0)).unwrap();
        mesh.run(40);
        if let Some(forgetful) = forgetful {
            mesh.lose_disk(forgetful);
        }
        if moves {
            // The first owner hands its copy over to a node that has none.
            let owner = ring(0..7).owners(&[key], 3)[0];
            mesh.set_ring((0..7).filter(|n| peer(*n) != owner));
        }
        mesh.loss_percent = loss;
        for writer in writers {
            let now = mesh.now;
            if writer == 7 {
                let member = mesh.insider(&[key]);
                let id = mesh.node(7).operate(now, peer(member), &[key], op_of(other, 1)).unwrap();
                mesh.run(62);
                let outcome = mesh.events.iter().find_map(|(_, event)| match event {
                    Event::OperationDone { id: of, outcome } if *of == id => Some(*outcome),
                    _ => None,
                });
                let told = [OperationOutcome::OtherKind(kind), OperationOutcome::Busy, OperationOutcome::Unknown];
                prop_assert!(told.contains(&outcome.unwrap()), "{:?}", outcome);
            } else {
                let refused = mesh.write(writer, &[key], op_of(other, 1));
                let wrong = UpdateError::Value(CrdtError::WrongKind { held: kind, wanted: other });
                let told = [Err(wrong), Err(UpdateError::Unknown), Err(UpdateError::Unacknowledged)];
                prop_assert!(told.contains(&refused), "{:?}", refused);
                prop_assert!(loss > 0 || refused == Err(wrong), "{:?}", refused);
            }
        }
        mesh.loss_percent = 0;
        mesh.run(400);
        let copies = mesh.copies(&[key]);
        prop_assert!(copies.len() >= 3);
        for copy in copies.values() {
            let value = Value::decode(copy).unwrap();
            prop_assert_eq!(value.parts().len(), 1);
            prop_assert_eq!(value.kind(), kind);
        }
        prop_assert_eq!(copies.values().collect::<BTreeSet<_>>().len(), 1, "all copies are the same");
    }
}

#[test]
fn an_observers_operation_is_done_once_however_often_it_is_sent() {
    let mut mesh = Mesh::new(4);
    mesh.config.observer = true;
    mesh.start(200, 1);
    mesh.set_ring(0..4);
    let (now, wall) = (mesh.now, mesh.wall);
    assert_eq!(mesh.node(200).write(now, wall, b"k", add(1), 1), Err(UpdateError::Observer));
    // The answers are lost for a while: the same operation is sent again and again.
    mesh.cut.insert((peer(1), peer(200)));
    let id = mesh.node(200).operate(now, peer(1), b"k", add(1)).unwrap();
    mesh.run(20);
    mesh.cut.clear();
    mesh.run(5);
    let done = Event::OperationDone { id, outcome: OperationOutcome::Applied };
    assert!(mesh.events.contains(&(peer(200), done)));
    mesh.run(20);
    assert_eq!(mesh.counter(b"k"), 1);
}

#[test]
fn an_operation_is_unknown_when_its_member_is_lost() {
    let mut mesh = Mesh::new(3);
    let now = mesh.now;
    mesh.partition(&[0]);
    let lost = mesh.node(0).operate(now, peer(1), b"k", add(1)).unwrap();
    mesh.node(0).on_peer_lost(peer(1));
    let silent = mesh.node(0).operate(now, peer(2), b"k", add(1)).unwrap();
    mesh.run(62);
    for id in [lost, silent] {
        let event = Event::OperationDone { id, outcome: OperationOutcome::Unknown };
        assert!(mesh.events.contains(&(peer(0), event)));
    }
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
        mesh.update(0, &[key], &set(&[1; 1000]));
    }
    mesh.run(20);
    mesh.cut.clear();
    mesh.state_bytes = 0;
    mesh.run(5);
    // Three nodes, five ticks, and one state that may overdraw each.
    assert!(mesh.state_bytes <= 3 * 6 * (20_000 + 2_000), "{}", mesh.state_bytes);
    mesh.run(300);
    mesh.assert_converged(&ring(0..3));
    assert!(mesh.nodes.values().map(|node| node.stats.throttled).sum::<u64>() > 0);
}

#[test]
fn a_write_from_a_fast_clock_is_parked_equally_everywhere_and_shown_in_time() {
    let mut mesh = Mesh::new(3);
    mesh.update(1, b"r", &set(b"now"));
    mesh.deliver();
    let (now, ahead) = (mesh.now, mesh.wall + Duration::from_secs(40));
    mesh.node(0).update(now, ahead, b"r", &set(b"fast"), None).unwrap();
    mesh.run(5);
    let shown = |mesh: &mut Mesh, n| match mesh.node(n).get(b"r") {
        Some(Value::Register(register)) => register.value().map(<[u8]>::to_vec),
        _ => None,
    };
    assert_eq!(shown(&mut mesh, 1), Some(b"now".to_vec()));
    mesh.update(1, b"r", &set(b"later"));
    mesh.run(10);
    assert_eq!(shown(&mut mesh, 1), Some(b"later".to_vec()), "it doesn't win before its time");
    mesh.run(60);
    assert_eq!(shown(&mut mesh, 1), Some(b"fast".to_vec()), "and isn't lost");
    mesh.assert_converged(&ring(0..3));
}

#[test]
fn full_tables_are_typed_errors_and_counted() {
    let mut mesh = Mesh::new(3);
    mesh.config.max_entries = 2;
    mesh.config.max_pending = 1;
    mesh.start(0, 1);
    mesh.set_ring(0..3);
    let (now, wall) = (mesh.now, mesh.wall);
    let node = mesh.node(0);
    node.update(now, wall, b"a", &add(1), None).unwrap();
    node.update(now, wall, b"b", &add(1), None).unwrap();
    assert_eq!(node.update(now, wall, b"c", &add(1), None), Err(UpdateError::Full("keys held")));
    assert_eq!(node.stats.full, 1);
    assert!(matches!(node.update(now, wall, b"a", &set(b"x"), None), Err(UpdateError::Value(_))));
    node.set_ring(now, ring(1..3));
    node.update(now, wall, b"c", &add(1), None).unwrap();
    assert_eq!(node.update(now, wall, b"d", &add(1), None), Err(UpdateError::Full("unacknowledged writes")));
    assert!(matches!(node.write(now, wall, &[0; 1025], add(1), 1), Err(UpdateError::KeyTooLong(1025))));
    node.set_ring(now, ring([]));
    assert_eq!(node.update(now, wall, b"a", &add(1), None), Err(UpdateError::NoOwners));
    for id in 0..MAX_READS as u64 {
        node.set_ring(now, ring(1..3));
        node.read(now, b"zz", id).unwrap();
    }
    assert_eq!(node.read(now, b"zz", 99_999), Err(UpdateError::Full("reads")));
    while node.outbox.len() < MAX_OUTBOX {
        node.send(peer(1), &Message::Pull { keys: Vec::new() });
    }
    let dropped = node.stats.outbox_dropped;
    node.send(peer(1), &Message::Pull { keys: Vec::new() });
    assert_eq!((node.outbox.len(), node.stats.outbox_dropped), (MAX_OUTBOX, dropped + 1));
}

#[test]
fn a_node_that_cannot_remember_its_own_sums_refuses_the_write_and_keeps_its_copies() {
    let mut mesh = Mesh::new(4);
    mesh.config.max_own = 1;
    mesh.start(0, 1);
    mesh.set_ring(0..4);
    let keys: Vec<[u8; 1]> =
        (0..100u8).map(|n| [n]).filter(|key| ring(0..4).owns(&peer(0), key, 3)).take(5).collect();
    for key in &keys {
        mesh.update(0, key, &add(1));
    }
    mesh.run(5);
    mesh.set_ring(1..4);
    mesh.run(200);
    assert_eq!(mesh.node(0).keys().count(), keys.len() - 1, "one was handed off, the others stay");
    assert!(mesh.node(0).stats.hand_off_held > 0);
    let (now, wall) = (mesh.now, mesh.wall);
    let refused = mesh.node(0).update(now, wall, b"another", &add(1), None);
    assert_eq!(refused, Err(UpdateError::Full("keys written")));
}

#[test]
fn operations_are_bounded_at_both_ends() {
    let mut mesh = Mesh::new(2);
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.update(1, b"n", &add(1));
    mesh.deliver();
    for _ in 0..operations::MAX_OPERATIONS {
        mesh.node(0).operate(now, peer(1), b"k", add(1)).unwrap();
    }
    assert_eq!(mesh.node(0).operate(now, peer(1), b"k", add(1)), Err(UpdateError::Full("operations")));
    let member = mesh.node(1);
    let ask = |member: &mut Replicator, now, n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let message = Message::Operation { id: id.into(), key: b"n".to_vec().into(), op: add(1) };
        member.handle_message(now, wall, peer(0), &message.encode());
        while let Some((_, answer)) = member.poll_transmit() {
            if let Some(Message::OperationReply { outcome, .. }) = Message::decode(&answer) {
                return outcome;
            }
        }
        panic!("no answer");
    };
    for n in 0..operations::MAX_REMEMBERED as u32 {
        assert_eq!(ask(member, now, n), 0);
    }
    assert_eq!(ask(member, now, u32::MAX), 1, "busy, and nothing was done");
    assert_eq!(ask(member, now, 0), 0, "what is remembered is still answered");
    let later = now + operations::REMEMBER;
    member.handle_timeout(later, wall);
    assert_eq!(ask(member, later, u32::MAX), 0);
    let Some(Value::Counter(counter)) = member.get(b"n") else { panic!() };
    assert_eq!(counter.value(), operations::MAX_REMEMBERED as i128 + 2);
}

#[test]
fn the_bytes_held_are_bounded() {
    let mut mesh = Mesh::new(1);
    mesh.config.max_held_bytes = 10_000;
    mesh.start(0, 1);
    mesh.set_ring(0..1);
    let (now, wall) = (mesh.now, mesh.wall);
    let refused =
        (0..20u8).find_map(|key| mesh.node(0).update(now, wall, &[key], &set(&[0; 1000]), None).err());
    assert_eq!(refused, Some(UpdateError::Full("keys held")));
    assert!(mesh.node(0).held_bytes <= 10_000);
}

#[test]
fn a_record_restores_what_an_owner_held() {
    let mut mesh = Mesh::new(3);
    mesh.update(0, b"s", &insert(b"x"));
    mesh.deliver();
    assert!(mesh.events.contains(&(peer(2), Event::Changed { key: b"s".to_vec() })));
    let record = mesh.node(2).record(b"s").unwrap();
    let (now, wall) = (mesh.now, mesh.wall);
    mesh.start(2, 1);
    mesh.node(2).restore(now, wall, b"s", &record).unwrap();
    assert!(matches!(mesh.node(2).get(b"s"), Some(Value::Set(set)) if set.contains(b"x")));
    assert!(mesh.node(2).restore(now, wall, b"s", b"junk").is_err());
    assert_eq!(mesh.node(2).record(b"none"), None);
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
                    mesh.update(node, &[key], &add(1));
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
            prop_assert_eq!(mesh.counter(&[key]), sum);
        }
        prop_assert!(mesh.nodes.values().all(|node| node.pending() == 0));
    }
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
        let key: ByteVec = b"k".to_vec().into();
        let mut elements = OrSet::default();
        elements.add(ReplicaId { key: peer(1), incarnation: 1 }, b"x").unwrap();
        let state: ByteVec = Value::Set(elements).encode().into();
        let range = message::Range { after: None, upto: Some(key.clone()) };
        let item = message::Item { key: key.clone(), bytes: state.clone() };
        let messages = [
            Message::Delta { key: key.clone(), id: Some(1), state },
            Message::Summary { range: range.clone(), hash: [1; 16].into() },
            Message::Digests { range, items: vec![item.clone()] },
            Message::States { items: vec![item] },
            Message::Operation { id: [1; 16].into(), key, op: insert(b"x") },
        ];
        let mut bytes = messages[which].encode();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let (now, wall) = (mesh.now, mesh.wall);
        mesh.node(0).handle_message(now, wall, peer(1), &bytes);
        mesh.run(3);
    }
}
