//! Replicated state: three owners of every key, an honest member that owns none, and an insider that owns none either.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use minicbor::Encoder;
use nurl::PublicKey;
use nurl::internals::replication::crdt::{
    Author, Clock, Kind, LwwRegister, MultiRegister, Object, OrMap, OrSet, PnCounter, Stamp, Value,
};
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::{
    Config, Confirm, FieldOp, MAX_MESSAGE_BYTES, NamePage, NameQuery, Op, Replicator, ReplicatorEvent,
    UpdateFailure,
};

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{UNIX, key, millis, now, rng, secs};
use crate::parsers::cores::ring;

const OWNERS: [u8; 3] = [1, 2, 3];
const MEMBER: u8 = 4;
const INSIDER: u8 = 5;

/// The keys that honest nodes write: a kind and a name.
const COUNTER: &[u8] = b"\x01object";
const REGISTER: &[u8] = b"\x02object";
const SET: &[u8] = b"\x03object";
const MULTI: &[u8] = b"\x04object";
const MAP: &[u8] = b"\x05object";

/// The nodes; messages arrive at once, in order.
pub(crate) struct Mesh {
    now: Instant,
    wall: Duration,
    nodes: BTreeMap<PublicKey, Replicator>,
    updated: BTreeMap<u64, Result<(), UpdateFailure>>,
    read: BTreeMap<u64, Option<Value>>,
    /// What the watches of honest nodes told last.
    watched: BTreeMap<(PublicKey, u64), Option<Value>>,
    listed: Option<NamePage>,
    calls: u64,
    /// What the insider received.
    told: Vec<Vec<u8>>,
    log: Vec<Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn replica(n: u8) -> ReplicaId {
    ReplicaId { key: key(n), incarnation: 1 }
}

impl Mesh {
    fn new() -> Mesh {
        let now = now();
        let node = |n: u8| {
            let mut node = Replicator::new(Config::default(), replica(n), now, rng(n.into()));
            node.set_ring(now, ring(OWNERS.map(key)));
            (key(n), node)
        };
        Mesh {
            now,
            wall: UNIX,
            nodes: (1..=MEMBER).map(node).collect(),
            updated: BTreeMap::new(),
            read: BTreeMap::new(),
            watched: BTreeMap::new(),
            listed: None,
            calls: 0,
            told: Vec::new(),
            log: Vec::new(),
            durable: BTreeMap::new(),
        }
    }

    fn node(&mut self, n: u8) -> &mut Replicator {
        self.nodes.get_mut(&key(n)).expect("it is a node")
    }

    fn deliver(&mut self) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 10_000, "the nodes send without an end");
            let mut batch = Vec::new();
            for (from, node) in &mut self.nodes {
                while let Some(keys) = node.poll_changed() {
                    for key in keys {
                        if let Some(record) = node.record(&key) {
                            self.durable.insert(key, record);
                        }
                    }
                }
                while let Some(event) = node.poll_event() {
                    match event {
                        ReplicatorEvent::Updated { id, outcome } => drop(self.updated.insert(id, outcome)),
                        ReplicatorEvent::ReadDone { id, value, .. } => drop(self.read.insert(id, value)),
                        ReplicatorEvent::Watched { id, value, .. } => {
                            drop(self.watched.insert((*from, id), value))
                        }
                        ReplicatorEvent::Listed { page, .. } => self.listed = Some(page),
                        ReplicatorEvent::ReadFailed { .. } | ReplicatorEvent::ViewDiffers { .. } => {}
                    }
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
                let (now, wall) = (self.now, self.wall);
                if to == key(INSIDER) {
                    self.told.push(bytes);
                } else if let Some(node) = self.nodes.get_mut(&to) {
                    node.handle_message(now, wall, from, &bytes);
                    if self.log.len() < 1_000 {
                        self.log.push(bytes);
                    }
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 500 {
            self.now += millis(500);
            self.wall += millis(500);
            let (now, wall) = (self.now, self.wall);
            self.nodes.values_mut().for_each(|node| node.handle_timeout(now, wall));
            self.deliver();
        }
    }

    /// Writes at an honest node, and waits for the answer.
    fn write(&mut self, n: u8, to: &[u8], op: Op) -> Result<(), UpdateFailure> {
        self.calls += 1;
        let (now, wall, id) = (self.now, self.wall, self.calls);
        assert_eq!(to[0], op.kind() as u8);
        self.node(n).update(now, wall, id, &to[1..], (op, Confirm::Safe));
        self.deliver();
        for _ in 0..20 {
            if let Some(outcome) = self.updated.remove(&id) {
                return outcome;
            }
            self.run(secs(1));
        }
        panic!("an honest write has no end");
    }

    /// Reads at an honest node.
    fn read(&mut self, n: u8, of: &[u8]) -> Option<Value> {
        self.calls += 1;
        let (now, id) = (self.now, self.calls);
        let kind = Kind::from_byte(of[0]).expect("it is a key");
        self.node(n).read(now, id, kind, &of[1..]);
        self.deliver();
        for _ in 0..20 {
            if let Some(value) = self.read.remove(&id) {
                return value;
            }
            self.run(secs(1));
        }
        panic!("an honest read has no answer");
    }

    /// Begins to watch the set at an honest node.
    fn watch(&mut self, n: u8) -> u64 {
        let now = self.now;
        let id = self.node(n).watch(now, Kind::Set, &SET[1..]).expect("it has few watches");
        self.run(secs(1));
        id
    }

    /// Lists the sets at an honest node.
    fn list(&mut self, n: u8) -> NamePage {
        let (now, query) =
            (self.now, NameQuery { kind: Some(Kind::Set), prefix: Vec::new(), after: None, most: 5 });
        self.node(n).list(now, 1, query);
        self.deliver();
        for _ in 0..10 {
            if let Some(page) = self.listed.take() {
                return page;
            }
            self.run(secs(1));
        }
        panic!("an honest list has no end");
    }

    /// A message of the insider.
    fn say(&mut self, to: u8, bytes: &[u8]) {
        let (now, wall) = (self.now, self.wall);
        self.node(to).handle_message(now, wall, key(INSIDER), bytes);
        self.deliver();
    }

    fn busy() -> Mesh {
        let mut mesh = Mesh::new();
        for n in 1..=MEMBER {
            mesh.write(n, COUNTER, Op::Add { by: 3 }).expect("it is the first write");
            mesh.write(n, SET, Op::Insert { element: vec![n] }).expect("it is the first write");
            mesh.write(n, REGISTER, Op::Set { value: vec![n; 5] }).expect("it is the first write");
            mesh.write(n, MULTI, Op::Replace { value: vec![n; 4] }).expect("all owners answer");
            let op = FieldOp::Add { by: 3 };
            mesh.write(n, MAP, Op::Field { name: b"f".to_vec(), op }).expect("all owners answer");
        }
        mesh.write(MEMBER, SET, Op::Remove { element: vec![1] }).expect("an honest write");
        mesh
    }

    /// The messages of writes, reads and comparisons.
    pub(crate) fn recorded() -> Vec<Vec<u8>> {
        let mut mesh = Mesh::busy();
        mesh.read(MEMBER, SET);
        mesh.node(1).set_ring(now(), ring([2, 3, 4].map(key)));
        mesh.run(secs(30));
        mesh.log
    }

    /// Durable records of all three types.
    pub(crate) fn records() -> Vec<Vec<u8>> {
        Mesh::busy().durable.into_values().collect()
    }
}

/// The types of messages.
const KINDS: u8 = 22;

/// One message of each type, as the insider writes them.
pub(crate) fn hostile_samples() -> Vec<Vec<u8>> {
    let mesh = Mesh::new();
    (0..KINDS).map(|kind| message(&mut Draw::new(&[kind, 0, 0, 0, 0, 0]), &mesh)).collect()
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut mesh = Mesh::busy();
    let watches = [1, MEMBER].map(|n| (n, mesh.watch(n)));
    // What each honest node has added to the counter.
    let mut added: BTreeMap<u8, u64> = (1..=MEMBER).map(|n| (n, 3)).collect();
    for _ in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        let to = draw.u8() % MEMBER + 1;
        match draw.u8() % 8 {
            0 => mesh.run(millis(500 * draw.below(60) as u64)),
            1 => {
                let done = mesh.write(to, COUNTER, Op::Add { by: 2 });
                assert_eq!(done, Ok(()), "an honest write is made");
                *added.entry(to).or_default() += 2;
            }
            2 if !mesh.told.is_empty() => {
                let bytes = draw.of(&mesh.told);
                mesh.say(to, &bytes);
            }
            _ => {
                let bytes = message(&mut draw, &mesh);
                mesh.say(to, &bytes);
            }
        }
        for node in mesh.nodes.values() {
            assert!(node.keys().count() <= 5 + MAX_STEPS && node.pending() <= 5);
        }
    }
    for n in 1..=MEMBER {
        let element = [b"final ", &[n][..]].concat();
        let done = mesh.write(n, SET, Op::Insert { element: element.clone() });
        assert_eq!(done, Ok(()), "an honest write is made at {n}");
        for reader in [MEMBER, 1] {
            let value = mesh.read(reader, SET);
            let found = matches!(&value, Some(Value::Set(set)) if set.contains(&element));
            assert!(found, "an honest write of {n} is read at {reader}: {value:?}");
        }
    }
    mesh.run(secs(40));
    for (n, watch) in watches {
        let seen = &mesh.watched[&(key(n), watch)];
        let last = [b"final ", &[MEMBER][..]].concat();
        let found = matches!(seen, Some(Value::Set(set)) if set.contains(&last));
        assert!(found, "what was written last is seen by the watch at {n}: {seen:?}");
        let page = mesh.list(n);
        assert!(page.names.contains(&(Kind::Set, SET[1..].to_vec())), "the set is listed at {n}: {page:?}");
    }
    for reader in 1..=MEMBER {
        // The insider may delete it, as any member may: then its owners still know what was written.
        let read = mesh.read(reader, COUNTER);
        let value = read.or_else(|| mesh.nodes[&key(OWNERS[0])].get(COUNTER).cloned());
        let Some(Value::Counter(counter)) = &value else {
            panic!("the counter is lost: {value:?}");
        };
        for (n, sum) in &added {
            assert_eq!(counter.slot(&replica(*n)), (*sum, 0), "what {n} added, at {reader}");
        }
    }
    true
}

type Writer<'a> = Encoder<&'a mut Vec<u8>>;
type Step = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// A message of any type. The layouts are in `docs/protocol.md`.
fn message(draw: &mut Draw<'_>, mesh: &Mesh) -> Vec<u8> {
    let mut bytes = Vec::new();
    fields(draw, mesh, &mut Encoder::new(&mut bytes)).expect("memory takes every byte");
    bytes
}

fn key_of(draw: &mut Draw<'_>) -> &'static [u8] {
    draw.of(&[COUNTER, REGISTER, SET, MULTI, MAP, b"\x01own 1", b"\x03own 2", b"\x02", b"own 3", b""])
}

fn id(draw: &mut Draw<'_>, e: &mut Writer<'_>) -> Step {
    if draw.flag() { e.u64(draw.u64())?.ok() } else { e.null()?.ok() }
}

/// An id of a pending call: they are small, so that some are hit.
fn small(draw: &mut Draw<'_>) -> u64 {
    if draw.flag() { u64::from(draw.u8()) } else { draw.u64() }
}

fn range(draw: &mut Draw<'_>, e: &mut Writer<'_>) -> Step {
    e.array(2)?;
    for _ in 0..2 {
        if draw.flag() {
            e.bytes(key_of(draw))?
        } else {
            e.null()?
        };
    }
    e.ok()
}

fn digest(draw: &mut Draw<'_>, mesh: &Mesh, of: &[u8]) -> [u8; 16] {
    let held = mesh.nodes[&key(1)].get(of).map(Value::digest);
    held.filter(|_| draw.flag()).unwrap_or([draw.u8(); 16])
}

fn items(draw: &mut Draw<'_>, mesh: &Mesh, digests: bool, e: &mut Writer<'_>) -> Step {
    let count = draw.below(4) as u64;
    e.array(count)?;
    for _ in 0..count {
        let of = key_of(draw);
        e.array(2)?.bytes(of)?;
        if digests {
            e.bytes(&digest(draw, mesh, of))?;
        } else {
            e.bytes(&state(draw, mesh, of))?;
        }
    }
    e.ok()
}

fn fields(draw: &mut Draw<'_>, mesh: &Mesh, e: &mut Writer<'_>) -> Step {
    let kind = draw.u8() % KINDS;
    e.array(2)?.u8(kind)?;
    let of = key_of(draw);
    match kind {
        0 => {
            e.array(3)?.bytes(of)?;
            id(draw, e)?;
            e.bytes(&state(draw, mesh, of))?.ok()
        }
        1 => {
            e.array(5)?.bytes(of)?.u64(small(draw))?.bytes(&digest(draw, mesh, of))?;
            e.u64(small(draw))?.bool(draw.flag())?.ok()
        }
        2 => {
            e.array(3)?.bytes(of)?;
            id(draw, e)?;
            let count = draw.below(4) as u64;
            e.array(count)?;
            for _ in 0..count {
                e.bytes(key(draw.u8() % 8).as_bytes())?;
            }
            e.ok()
        }
        3 => {
            e.array(4)?;
            range(draw, e)?;
            e.bytes(&[draw.u8(); 16])?;
            id(draw, e)?;
            e.bool(draw.flag())?.ok()
        }
        4 => {
            e.array(3)?;
            range(draw, e)?;
            items(draw, mesh, true, e)?;
            id(draw, e)
        }
        5 => {
            let count = draw.below(4) as u64;
            e.array(1)?.array(count)?;
            for _ in 0..count {
                e.bytes(key_of(draw))?;
            }
            e.ok()
        }
        6 => {
            e.array(1)?;
            items(draw, mesh, false, e)
        }
        7 => e.array(2)?.bytes(of)?.u64(draw.u64())?.ok(),
        8 => {
            e.array(5)?.bytes(of)?.u64(small(draw))?;
            if draw.flag() {
                e.bytes(&state(draw, mesh, of))?
            } else {
                e.null()?
            };
            e.bool(draw.flag())?.bool(draw.flag())?.ok()
        }
        9 => {
            // A member may add to the counter by a write like anybody's, which isn't what is looked for.
            let of: &[u8] = if of == COUNTER { b"\x01own 1" } else { of };
            e.array(3)?.bytes(&[draw.u8() % 4; 16])?.bytes(of)?;
            // Mostly one that is of the key's kind.
            let (any, element) = (draw.u8(), draw.bytes(20));
            let variant = match of.first() {
                Some(1) if any > 3 => 0,
                Some(2) if any > 3 => 1,
                Some(3) if any > 3 => 2 + any % 2,
                Some(4) if any > 3 => 4,
                Some(5) if any > 3 => 5,
                Some(_) if any > 1 => 6 + any % 2,
                _ => any % 8,
            };
            if variant > 5 {
                let kind = of.first().copied().unwrap_or(draw.u8());
                e.array(2)?.u8(variant)?.array(u64::from(variant) - 5)?.u8(kind)?;
                return if variant == 7 { e.u64(draw.u64())?.ok() } else { e.ok() };
            }
            if variant == 5 {
                // A field's name, and what is done to it.
                let inner = draw.u8() % 7;
                e.array(2)?.u8(5)?.array(2)?.bytes(b"f")?.array(2)?.u8(inner)?;
                return match inner {
                    0 => e.array(1)?.i64(draw.u64() as i64)?.ok(),
                    5 => e.array(0)?.ok(),
                    _ => e.array(1)?.bytes(&element)?.ok(),
                };
            }
            e.array(2)?.u8(variant)?.array(1)?;
            if variant == 0 { e.i64(draw.u64() as i64)?.ok() } else { e.bytes(&element)?.ok() }
        }
        10 => {
            e.array(3)?.bytes(&[draw.u8() % 4; 16])?.u8(draw.u8() % 7)?;
            if draw.flag() { e.u64(small(draw))?.ok() } else { e.null()?.ok() }
        }
        11 => e.array(3)?.bytes(of)?.u64(draw.u64())?.bytes(&state(draw, mesh, of))?.ok(),
        12 => e.array(1)?.bytes(of)?.ok(),
        13 => e.array(3)?.bytes(of)?.u64(small(draw))?.u8(draw.u8() % 6)?.ok(),
        14 => e.array(2)?.bytes(of)?.u64(small(draw))?.ok(),
        16 => {
            e.array(5)?.u64(small(draw))?;
            if draw.flag() {
                e.u8(draw.u8() % 7)?
            } else {
                e.null()?
            };
            e.bytes(of.get(1..).unwrap_or_default())?;
            if draw.flag() {
                e.bytes(key_of(draw))?
            } else {
                e.null()?
            };
            e.u64(small(draw))?.ok()
        }
        17 => {
            let count = draw.below(4) as u64;
            e.array(3)?.u64(small(draw))?.array(count)?;
            for _ in 0..count {
                e.bytes(key_of(draw))?;
            }
            if draw.flag() { e.bytes(of)?.ok() } else { e.null()?.ok() }
        }
        18 => {
            e.array(3)?.bytes(of)?.u64(small(draw))?;
            if draw.flag() { e.bytes(&digest(draw, mesh, of))?.ok() } else { e.null()?.ok() }
        }
        19 => {
            e.array(4)?.bytes(of)?.u64(small(draw))?.u8(draw.u8() % 4)?;
            if draw.flag() { e.bytes(&state(draw, mesh, of))?.ok() } else { e.null()?.ok() }
        }
        20 => e.array(1)?.bytes(&[draw.u8() % 4; 16])?.ok(),
        21 => {
            e.array(4)?;
            range(draw, e)?;
            items(draw, mesh, true, e)?;
            e.bytes(&[draw.u8(); 16])?;
            id(draw, e)
        }
        _ => {
            e.array(2)?;
            range(draw, e)?;
            e.u64(small(draw))?.ok()
        }
    }
}

/// The author of a part of a state: anybody.
fn author(draw: &mut Draw<'_>) -> ReplicaId {
    ReplicaId { key: key(draw.u8() % 6), incarnation: if draw.flag() { 1 } else { draw.u64() } }
}

/// A state, mostly of its key's kind: made up, or what an owner holds, with changes.
fn state(draw: &mut Draw<'_>, mesh: &Mesh, of: &[u8]) -> Vec<u8> {
    let held = mesh.nodes[&key(1)].get(of);
    let kind = of.first().and_then(|byte| Kind::from_byte(*byte)).unwrap_or(Kind::Set);
    let mut value = match (draw.u8() % 8, held) {
        (0 | 1, Some(held)) => held.clone(),
        (2, _) => Value::new(draw.of(&Kind::ALL)),
        _ => Value::new(kind),
    };
    for _ in 0..draw.below(4) {
        let part = match value.kind() {
            Kind::Counter => Value::Counter(PnCounter::of(author(draw), draw.u64(), draw.u64())),
            Kind::Set => {
                let mut set = match &value {
                    Value::Set(set) => set.clone(),
                    _ => OrSet::default(),
                };
                let element = [draw.u8() % 5];
                let delta = if draw.flag() {
                    let floor = draw.u64() >> 1;
                    set.adding(author(draw), &element, floor).unwrap_or_default()
                } else {
                    set.remove(&element)
                };
                Value::Set(delta)
            }
            Kind::Map => {
                let map = match &value {
                    Value::Map(map) => map.clone(),
                    _ => OrMap::default(),
                };
                let (author, name) =
                    (Author { replica: author(draw), floor: draw.u64() >> 1 }, [draw.u8() % 2]);
                let delta = match draw.u8() % 5 {
                    0 => map.inserting(author, &name, b"hostile"),
                    1 => map.replacing(author, &name, b"hostile"),
                    2 => {
                        let wall = Duration::from_millis(draw.u64() >> 8);
                        map.setting(author, &name, &mut Clock::new(Stamp::default()), wall, b"hostile")
                    }
                    3 => Ok(map.removing(author, &name)),
                    _ => map.adding(author, &name, draw.u64() as i64),
                };
                Value::Map(delta.unwrap_or_default())
            }
            Kind::Multi => {
                let register = match &value {
                    Value::Multi(register) => register.clone(),
                    _ => MultiRegister::default(),
                };
                let floor = draw.u64() >> 1;
                Value::Multi(register.writing(author(draw), b"hostile", floor).unwrap_or_default())
            }
            Kind::Register => {
                let mut clock = Clock::new(Stamp::default());
                let wall = Duration::from_millis(draw.u64() >> 8);
                let mut register = LwwRegister::default();
                let _ = register.set(author(draw), &mut clock, wall, b"hostile");
                Value::Register(register)
            }
        };
        let _ = value.merge(&part, mesh.wall);
    }
    let object = marked(draw, value, mesh.wall);
    if draw.flag() {
        let mut bytes = object.encode();
        let at = draw.below(bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << (draw.u8() % 8);
        }
        return bytes;
    }
    object.encode()
}

/// The value, perhaps deleted or with a time: mostly by a clock that others accept.
fn marked(draw: &mut Draw<'_>, value: Value, wall: Duration) -> Object {
    let kind = value.kind();
    let object = Object::from(value);
    let wall_ms = if draw.flag() { wall.as_millis() as u64 } else { draw.u64() };
    let stamp = Stamp { wall_ms, logical: draw.u8().into() };
    match draw.u8() % 6 {
        0 => object.deleting(Author { replica: author(draw), floor: draw.u64() >> 1 }, stamp),
        1 => Object::expiring(kind, stamp, wall_ms.saturating_add(draw.u64() % 60_000)),
        _ => object,
    }
}
