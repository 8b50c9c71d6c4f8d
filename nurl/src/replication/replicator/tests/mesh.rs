//! A mesh of replicators in memory.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::{Rng as _, SeedableRng};

use crate::replication::replicator::key::kind_of;
use crate::replication::replicator::*;
use crate::ring::RingMember;
use crate::rt::Rng;

pub(super) const WALL: Duration = Duration::from_secs(1_000_000);

/// A counter, a register and a set.
pub(super) const K: &[u8] = b"\x01k";
pub(super) const R: &[u8] = b"\x02r";
pub(super) const S: &[u8] = b"\x03s";

pub(super) fn peer(n: u8) -> PublicKey {
    PublicKey::from_bytes(*blake3::hash(&[n]).as_bytes())
}

pub(super) fn ring(members: impl IntoIterator<Item = u8>) -> Arc<Ring> {
    Arc::new(Ring::new(members.into_iter().map(|n| RingMember {
        key: peer(n),
        boot: 0,
        seed: *peer(n).as_bytes().first_chunk().expect("32 bytes"),
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    })))
}

/// A ring of members with their processes' boot ids, of which these are away.
pub(super) fn ring_of(members: impl IntoIterator<Item = (u8, u64)>, away: &[u8]) -> Arc<Ring> {
    let whole = ring(0..=u8::MAX);
    Arc::new(Ring::new(members.into_iter().map(|(n, boot)| {
        let member = whole.member(&peer(n)).expect("all are in it").clone();
        RingMember { boot, live: !away.contains(&n), ..member }
    })))
}

/// A write wanted by the driver.
pub(super) fn wanted(id: u64, op: Op) -> calls::Wanted {
    calls::Wanted { caller: calls::Caller::Driver(id), op, confirm: Confirm::Safe }
}

pub(super) fn add(by: i64) -> Op {
    Op::Add { by }
}

pub(super) fn set(value: &[u8]) -> Op {
    Op::Set { value: value.to_vec() }
}

pub(super) fn insert(element: &[u8]) -> Op {
    Op::Insert { element: element.to_vec() }
}

pub(super) fn remove(element: &[u8]) -> Op {
    Op::Remove { element: element.to_vec() }
}

pub(super) fn replace(value: &[u8]) -> Op {
    Op::Replace { value: value.to_vec() }
}

pub(super) fn field(name: &[u8], op: FieldOp) -> Op {
    Op::Field { name: name.to_vec(), op }
}

/// A mesh in memory: messages arrive in order or are lost, and the test advances the time.
pub(super) struct Mesh {
    pub(super) nodes: BTreeMap<PublicKey, Replicator>,
    pub(super) now: Instant,
    pub(super) wall: Duration,
    pub(super) rng: Rng,
    pub(super) loss_percent: u64,
    pub(super) cut: BTreeSet<(PublicKey, PublicKey)>,
    /// How far the clocks of these are behind.
    pub(super) behind: BTreeMap<PublicKey, Duration>,
    pub(super) events: Vec<(PublicKey, ReplicatorEvent)>,
    /// The changed records, by their holders.
    pub(super) changed: Vec<(PublicKey, Vec<u8>)>,
    /// The durable records.
    pub(super) disk: BTreeMap<(PublicKey, Vec<u8>), Vec<u8>>,
    /// The durable incarnations of those that changed theirs.
    pub(super) incarnations: BTreeMap<PublicKey, u64>,
    pub(super) presence: BTreeMap<PublicKey, Presence>,
    /// Bytes of `Delta` and `States` messages.
    pub(super) state_bytes: usize,
    /// Bytes of the others: what it costs to find what differs.
    pub(super) talk_bytes: usize,
    pub(super) messages: usize,
    pub(super) config: Config,
    started: u32,
}

impl Mesh {
    pub(super) fn new(count: u8) -> Mesh {
        let mut mesh = Mesh {
            nodes: BTreeMap::new(),
            now: crate::rt::time::now() + Duration::from_secs(86_400),
            wall: WALL,
            rng: Rng::from_seed([9; 32]),
            loss_percent: 0,
            cut: BTreeSet::new(),
            behind: BTreeMap::new(),
            events: Vec::new(),
            changed: Vec::new(),
            disk: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            presence: BTreeMap::new(),
            state_bytes: 0,
            talk_bytes: 0,
            messages: 0,
            config: Config::default(),
            started: 0,
        };
        for n in 0..count {
            mesh.start(n, 1);
        }
        mesh.set_ring(0..count);
        mesh
    }

    pub(super) fn start(&mut self, n: u8, incarnation: u64) {
        let local = ReplicaId { key: peer(n), incarnation };
        // No two processes of a node draw the same numbers.
        self.started += 1;
        let mut seed = [n; 32];
        seed[..4].copy_from_slice(&self.started.to_le_bytes());
        let presence = self.presence.get(&peer(n)).copied().unwrap_or_default();
        let config = Config { presence, ..self.config.clone() };
        let node = Replicator::new(config, local, self.now, Rng::from_seed(seed));
        self.nodes.insert(peer(n), node);
    }

    /// Kills a node and starts it again on its store.
    pub(super) fn restart(&mut self, n: u8) {
        let (now, ring) = (self.now, self.node(n).shared.ring.clone());
        self.start_on_disk(n);
        self.node(n).set_ring(now, ring);
    }

    /// A node's disk takes no commits any more, or takes them again: another replicator goes on with what is on it.
    pub(super) fn set_disk(&mut self, n: u8, fails: Option<&str>) {
        let (now, earlier) = (self.now, self.nodes.remove(&peer(n)).unwrap());
        self.config.read_only = fails.map(Into::into);
        self.start_on_disk(n);
        self.config.read_only = None;
        self.node(n).take_over(now, earlier);
    }

    fn start_on_disk(&mut self, n: u8) {
        let (now, wall) = (self.now, self.wall_of(&peer(n)));
        self.start(n, self.incarnations.get(&peer(n)).copied().unwrap_or(1));
        let records: Vec<(Vec<u8>, Vec<u8>)> = self
            .disk
            .iter()
            .filter(|((owner, _), _)| *owner == peer(n))
            .map(|((_, key), record)| (key.clone(), record.clone()))
            .collect();
        for (key, record) in records {
            self.node(n).restore(now, wall, &key, &record).unwrap();
        }
    }

    pub(super) fn set_ring(&mut self, members: impl IntoIterator<Item = u8>) {
        self.take_ring(&ring(members));
    }

    pub(super) fn take_ring(&mut self, ring: &Arc<Ring>) {
        for node in self.nodes.values_mut() {
            node.set_ring(self.now, ring.clone());
        }
    }

    /// What the clock of a node shows.
    pub(super) fn wall_of(&self, node: &PublicKey) -> Duration {
        self.wall - self.behind.get(node).copied().unwrap_or_default()
    }

    pub(super) fn node(&mut self, n: u8) -> &mut Replicator {
        self.nodes.get_mut(&peer(n)).unwrap()
    }

    pub(super) fn update(&mut self, n: u8, key: &[u8], op: &Op) {
        let (now, wall) = (self.now, self.wall);
        self.node(n).make(Moment { now, wall }, key, (op, Confirm::Safe), None).unwrap();
    }

    pub(super) fn partition(&mut self, side: &[u8]) {
        let side: BTreeSet<PublicKey> = side.iter().map(|n| peer(*n)).collect();
        for a in self.nodes.keys() {
            for b in self.nodes.keys() {
                if side.contains(a) != side.contains(b) {
                    self.cut.insert((*a, *b));
                }
            }
        }
    }

    pub(super) fn deliver(&mut self) {
        loop {
            let mut batch = Vec::new();
            for (from, node) in &mut self.nodes {
                let changed = std::iter::from_fn(|| node.poll_changed()).flatten().collect::<Vec<_>>();
                let kept = !node.shared.is_read_only();
                for key in changed.into_iter().filter(|_| kept) {
                    match node.record(&key) {
                        Some(record) => self.disk.insert((*from, key.clone()), record),
                        None => self.disk.remove(&(*from, key.clone())),
                    };
                    self.changed.push((*from, key));
                }
                if kept {
                    self.incarnations.insert(*from, node.local().incarnation);
                    self.presence.insert(*from, node.presence());
                }
                while let Some(event) = node.poll_event() {
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
                } else {
                    self.talk_bytes += bytes.len();
                }
                let lost = self.cut.contains(&(from, to)) || self.rng.next_u64() % 100 < self.loss_percent;
                if let Some(node) = self.nodes.get_mut(&to).filter(|_| !lost) {
                    let behind = self.behind.get(&to).copied().unwrap_or_default();
                    node.handle_message(self.now, self.wall - behind, from, &bytes);
                }
            }
        }
    }

    /// A message arrives that no node of the mesh has sent.
    pub(super) fn inject(&mut self, from: u8, to: u8, message: &Message) {
        let (now, wall) = (self.now, self.wall_of(&peer(to)));
        self.node(to).handle_message(now, wall, peer(from), &message.encode());
    }

    /// What a node wants to send, which is lost.
    pub(super) fn sent(&mut self, n: u8) -> Vec<(PublicKey, Message)> {
        let sent = std::iter::from_fn(|| self.node(n).poll_transmit());
        sent.map(|(to, bytes)| (to, Message::decode(&bytes).expect("it is a message"))).collect()
    }

    pub(super) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.now += Duration::from_millis(500);
            self.wall += Duration::from_millis(500);
            for (peer, node) in &mut self.nodes {
                let behind = self.behind.get(peer).copied().unwrap_or_default();
                node.handle_timeout(self.now, self.wall - behind);
            }
            self.deliver();
        }
    }

    pub(super) fn holders(&self, key: &[u8]) -> Vec<PublicKey> {
        self.nodes.iter().filter(|(_, node)| node.get(key).is_some()).map(|(peer, _)| *peer).collect()
    }

    /// Asserts that exactly the owners hold each key, with equal bytes.
    pub(super) fn assert_converged(&self, ring: &Ring) {
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

    pub(super) fn counter(&self, key: &[u8]) -> i128 {
        match self.nodes[&self.holders(key)[0]].get(key) {
            Some(Value::Counter(counter)) => counter.value(),
            other => panic!("{other:?}"),
        }
    }

    /// Lets this much time pass, with a look at it now and then.
    pub(super) fn pass(&mut self, time: Duration) {
        for _ in 0..100 {
            self.now += time / 100;
            self.wall += time / 100;
            self.run(2);
        }
    }

    /// Reads at `n`, and returns the event's content.
    pub(super) fn read(&mut self, n: u8, key: &[u8]) -> ReplicatorEvent {
        let now = self.now;
        self.node(n).read(now, 77, kind_of(key).unwrap(), &key[1..]);
        self.deliver();
        self.run(6);
        let at = self.events.iter().position(|(_, event)| {
            matches!(
                event,
                ReplicatorEvent::ReadDone { id: 77, .. } | ReplicatorEvent::ReadFailed { id: 77, .. }
            )
        });
        self.events.remove(at.unwrap()).1
    }

    /// Reads a counter at `n`, from enough owners.
    pub(super) fn read_counter(&mut self, n: u8, key: &[u8]) -> i128 {
        match self.read(n, key) {
            ReplicatorEvent::ReadDone { value: Some(Value::Counter(counter)), partial: false, .. } => {
                counter.value()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Writes at `n` as an application does, and returns the event's outcome.
    pub(super) fn write(&mut self, n: u8, key: &[u8], op: Op) -> Result<(), UpdateError> {
        let (now, wall) = (self.now, self.wall_of(&peer(n)));
        assert_eq!(kind_of(key), Some(op.kind()));
        self.node(n).update(now, wall, 88, &key[1..], (op, Confirm::Safe));
        self.deliver();
        for _ in 0..20 {
            let done = self
                .events
                .iter()
                .position(|(_, event)| matches!(event, ReplicatorEvent::Updated { id: 88, .. }));
            if let Some(at) = done {
                let ReplicatorEvent::Updated { outcome, .. } = self.events.remove(at).1 else {
                    unreachable!()
                };
                return outcome.map_err(|failure| match failure {
                    UpdateFailure::Here(error) => error,
                    other => panic!("{other}"),
                });
            }
            self.run(1);
        }
        panic!("the write never ends");
    }

    /// Writes at `n` as an observer does, through `member`.
    pub(super) fn operate(
        &mut self,
        n: u8,
        id: u64,
        member: PublicKey,
        key: &[u8],
        op: Op,
    ) -> Result<(), UpdateError> {
        let now = self.now;
        let node = self.node(n);
        if !node.operations.has_room(&node.shared) {
            return Err(UpdateError::Full("operations"));
        }
        node.operations.operate(&mut node.shared, now, id, vec![member], key, (op, Confirm::Safe));
        Ok(())
    }

    /// Lets `n` hear of a member as it does by a write through it.
    pub(super) fn acquaint(&mut self, n: u8, member: u8) {
        self.operate(n, 99, peer(member), b"\x01another", add(1)).unwrap();
        self.deliver();
        let done = (peer(n), ReplicatorEvent::Updated { id: 99, outcome: Ok(()) });
        assert_eq!(self.events.pop(), Some(done));
    }

    /// Kills a node and starts it again without its store.
    pub(super) fn lose_disk(&mut self, n: u8) {
        let ring = self.node(n).shared.ring.clone();
        let now = self.now;
        self.disk.retain(|(owner, _), _| *owner != peer(n));
        self.incarnations.remove(&peer(n));
        self.presence.remove(&peer(n));
        self.start(n, 2);
        self.node(n).set_ring(now, ring);
    }

    /// Every copy of a key, by its holder.
    pub(super) fn copies(&self, key: &[u8]) -> BTreeMap<PublicKey, Vec<u8>> {
        let held = self.nodes.iter().filter_map(|(peer, node)| Some((*peer, node.get(key)?.encode())));
        held.collect()
    }

    pub(super) fn outsider(&self, key: &[u8]) -> u8 {
        let owners = self.nodes.values().next().unwrap().shared.ring.owners(key, 3);
        (0..self.nodes.len() as u8).find(|n| !owners.contains(&peer(*n))).unwrap()
    }

    /// A key's owners, in their order.
    pub(super) fn owners(&self, key: &[u8]) -> Vec<u8> {
        let owners = self.nodes.values().next().unwrap().shared.ring.owners(key, 3).into_iter();
        owners.map(|owner| (0..self.nodes.len() as u8).find(|n| peer(*n) == owner).unwrap()).collect()
    }

    pub(super) fn insider(&self, key: &[u8]) -> u8 {
        let owners = self.nodes.values().next().unwrap().shared.ring.owners(key, 3);
        (0..self.nodes.len() as u8).find(|n| owners.contains(&peer(*n))).unwrap()
    }
}
