//! An in-memory driver: endpoints, a wire, a hub that only forwards, and virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::{Rng as _, SeedableRng};

use super::super::*;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::key::PublicKey;
use crate::mesh::{Hub, MeshSecret, Ticket};
use crate::rt::Rng;

pub(super) const UNIX: Duration = Duration::from_secs(1_700_000_000);

pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) config: EndpointConfig,
    pub(super) addr: SocketAddr,
    pub(super) key: PublicKey,
    pub(super) received: Vec<(PublicKey, u8, Vec<u8>)>,
    /// The session events.
    pub(super) events: Vec<SessionEvent>,
    /// The path events.
    pub(super) paths: Vec<(Instant, PathEvent)>,
}

#[derive(Clone)]
pub(super) struct Packet {
    pub(super) to: usize,
    pub(super) source: Source,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) rng: Rng,
    pub(super) loss_percent: u32,
    pub(super) delay_ms: std::ops::Range<u64>,
    /// The hub's additional delay.
    pub(super) hub_delay_ms: u64,
    /// Packets for which this returns true are lost.
    pub(super) lose: Box<dyn FnMut(&Packet) -> bool>,
    /// Every packet that was sent, lost or not.
    pub(super) sent: Vec<(Instant, Packet)>,
    wire: BTreeMap<(Instant, u64), Packet>,
    seq: u64,
}

pub(super) const HUB: PublicKey = PublicKey::from_bytes([0xEE; 32]);

pub(super) fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[78; 32])
}

pub(super) fn ticket() -> Ticket {
    let mut rng = Rng::from_seed([77; 32]);
    let mut ticket = Ticket::generate(authority().mesh(), Hub { key: HUB, addr: "hub:1".into() }, &mut rng);
    ticket.previous = Some(MeshSecret::generate(&mut rng));
    ticket
}

pub(super) fn addr(node: usize) -> SocketAddr {
    ([192, 0, 2, node as u8 + 1], 1000 + node as u16).into()
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test's time")]
pub(super) fn instant() -> Instant {
    Instant::now() + Duration::from_secs(10_000)
}

pub(super) fn config(seed: u64, node: usize) -> EndpointConfig {
    let mut rng = Rng::seed_from_u64(seed * 1000 + node as u64);
    let mut generations = ticket().generations();
    generations.truncate(1);
    let key = SecretKey::generate(&mut rng);
    let credential = Some(authority().mint(key.public(), Level::Worker, UNIX.as_secs() as u32));
    EndpointConfig { credential, ..EndpointConfig::new(key, ticket().mesh, generations, rng.next_u64()) }
}

impl World {
    /// Two nodes that know only the hub, and exchange their addresses over it.
    pub(super) fn relayed(seed: u64) -> World {
        let mut world = World::strangers((0..2).map(|node| config(seed, node)).collect(), seed);
        world.relay(0, 1);
        world
    }

    /// `count` nodes that know each other's addresses.
    pub(super) fn new(seed: u64, count: usize) -> World {
        World::of((0..count).map(|node| config(seed, node)).collect(), seed)
    }

    pub(super) fn of(configs: Vec<EndpointConfig>, seed: u64) -> World {
        let mut world = World::strangers(configs, seed);
        for a in 0..world.nodes.len() {
            world.introduce(a);
        }
        world
    }

    /// Nodes that know nobody.
    pub(super) fn strangers(configs: Vec<EndpointConfig>, seed: u64) -> World {
        let now = instant();
        let node = |(at, config): (usize, EndpointConfig)| {
            let rng = Rng::seed_from_u64(seed * 7919 + at as u64);
            let endpoint = Endpoint::new(config.clone(), now, UNIX, rng);
            let key = *endpoint.local();
            Node { endpoint, config, addr: addr(at), key, received: vec![], events: vec![], paths: vec![] }
        };
        World {
            now,
            start: now,
            nodes: configs.into_iter().enumerate().map(node).collect(),
            rng: Rng::seed_from_u64(seed),
            loss_percent: 0,
            delay_ms: 20..21,
            hub_delay_ms: 0,
            lose: Box::new(|_| false),
            sent: vec![],
            wire: BTreeMap::new(),
            seq: 0,
        }
    }

    /// Gives node `a` the others' addresses.
    pub(super) fn introduce(&mut self, a: usize) {
        for b in (0..self.nodes.len()).filter(|b| *b != a) {
            let (key, addr) = (self.nodes[b].key, self.nodes[b].addr);
            let _ = self.nodes[a].endpoint.add_candidates(self.now, &key, &[addr], None);
        }
    }

    /// Makes both reach each other through the hub only.
    pub(super) fn relay(&mut self, a: usize, b: usize) {
        let (ka, kb) = (self.nodes[a].key, self.nodes[b].key);
        self.nodes[a].endpoint.set_relays(self.now, &kb, &[HUB]).unwrap();
        self.nodes[b].endpoint.set_relays(self.now, &ka, &[HUB]).unwrap();
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let key = self.nodes[b].key;
        self.nodes[a].endpoint.connect(self.now, &key).unwrap();
    }

    /// Replaces a node by a new process with the same key.
    pub(super) fn restart(&mut self, at: usize, unix: Duration) {
        let mut config = self.nodes[at].config.clone();
        config.boot = self.rng.next_u64();
        let rng = Rng::seed_from_u64(self.rng.next_u64());
        self.nodes[at].endpoint = Endpoint::new(config.clone(), self.now, unix, rng);
        self.nodes[at].config = config;
        self.introduce(at);
    }

    /// Seals a datagram on channel 3 and puts it on the wire.
    pub(super) fn send(&mut self, a: usize, b: usize, body: &[u8]) -> Result<(), SealError> {
        let mut out = Vec::new();
        let key = self.nodes[b].key;
        let routes = self.nodes[a].endpoint.seal(self.now, &key, channel::APPLICATION, body, &mut out)?;
        for route in routes.iter() {
            let relay_dst = (!route.is_direct()).then_some(key);
            self.put(a, Outgoing { peer: Some(key), route, relay_dst }, out.clone());
        }
        Ok(())
    }

    fn put(&mut self, from: usize, outgoing: Outgoing, bytes: Vec<u8>) {
        let (to, source) = match outgoing.route {
            Route::Direct(addr) => {
                let to = self.nodes.iter().position(|node| node.addr == addr);
                (to, Source::direct(self.nodes[from].addr))
            }
            Route::Relay(hub) => {
                let to = self.nodes.iter().position(|node| Some(node.key) == outgoing.relay_dst);
                (to, Source::relay(hub, self.nodes[from].key))
            }
        };
        let Some(to) = to else { return };
        let packet = Packet { to, source, bytes };
        self.sent.push((self.now, packet.clone()));
        let lost = self.rng.next_u32() % 100 < self.loss_percent;
        if (self.lose)(&packet) || lost {
            return;
        }
        let span = (self.delay_ms.end - self.delay_ms.start).max(1);
        let hub = if packet.source.route.is_direct() { 0 } else { self.hub_delay_ms };
        let delay = self.delay_ms.start + self.rng.next_u64() % span + hub;
        self.deliver_at(self.now + Duration::from_millis(delay), packet);
    }

    pub(super) fn deliver_at(&mut self, at: Instant, packet: Packet) {
        self.seq += 1;
        self.wire.insert((at, self.seq), packet);
    }

    /// Delivers bytes to a node now, and returns its immediate answers.
    pub(super) fn inject(&mut self, to: usize, source: Source, bytes: &[u8]) -> Vec<(Outgoing, Vec<u8>)> {
        let mut bytes = bytes.to_vec();
        let node = &mut self.nodes[to];
        let received = node.endpoint.handle_datagram(self.now, source, &mut bytes);
        if let Some(Received::Data { peer, channel, body }) = received {
            node.received.push((peer, channel, bytes[body].to_vec()));
        }
        let mut answers = Vec::new();
        loop {
            let mut out = Vec::new();
            match node.endpoint.poll_transmit(&mut out) {
                Some(outgoing) => answers.push((outgoing, out)),
                None => return answers,
            }
        }
    }

    fn drain(&mut self) {
        for at in 0..self.nodes.len() {
            loop {
                let mut out = Vec::new();
                let Some(outgoing) = self.nodes[at].endpoint.poll_transmit(&mut out) else { break };
                self.put(at, outgoing, out);
            }
            let node = &mut self.nodes[at];
            while let Some(event) = node.endpoint.poll_event() {
                match event {
                    SessionEvent::Path { event, .. } => node.paths.push((self.now, event)),
                    SessionEvent::Punched { .. } | SessionEvent::Observed { .. } => {}
                    event => node.events.push(event),
                }
            }
        }
    }

    /// Runs until `done` or for `span`; says whether `done` returned true.
    pub(super) fn run_until(&mut self, span: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + span;
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 1_000_000, "an endpoint spins");
            self.drain();
            if done(self) {
                return true;
            }
            let timer = self.nodes.iter().filter_map(|node| node.endpoint.poll_timeout()).min();
            let packet = self.wire.keys().next().map(|(at, _)| *at);
            let next = timer.into_iter().chain(packet).min().filter(|at| *at <= end);
            let Some(next) = next else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            while let Some(((at, _), _)) = self.wire.first_key_value() {
                if *at > self.now {
                    break;
                }
                let (_, packet) = self.wire.pop_first().unwrap();
                for (outgoing, bytes) in self.inject(packet.to, packet.source, &packet.bytes) {
                    self.put(packet.to, outgoing, bytes);
                }
            }
            for node in &mut self.nodes {
                if node.endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.endpoint.handle_timeout(self.now);
                }
            }
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    pub(super) fn open(&self, a: usize, b: usize) -> bool {
        self.nodes[a].endpoint.is_established(&self.nodes[b].key)
    }

    pub(super) fn both_open(&self) -> bool {
        self.open(0, 1) && self.open(1, 0)
    }

    /// Two nodes with a session begun by node 0.
    pub(super) fn pair(seed: u64) -> World {
        let mut world = World::new(seed, 2);
        world.connect(0, 1);
        assert!(world.run_until(Duration::from_secs(1), World::both_open));
        world
    }

    /// The path counters of a node towards the other one.
    pub(super) fn path_stats(&mut self, at: usize) -> paths::PathStats {
        let other = self.nodes[1 - at].key;
        *self.nodes[at].endpoint.paths(&other).unwrap().stats()
    }

    /// The path state of a node towards the other one.
    pub(super) fn path_state(&self, at: usize) -> paths::PathState {
        self.nodes[at].endpoint.path_state(&self.nodes[1 - at].key).unwrap()
    }

    pub(super) fn stats(&self, at: usize) -> EndpointStats {
        *self.nodes[at].endpoint.stats()
    }

    /// The frames of a kind that were sent, in order.
    pub(super) fn frames(&self, kind: u8) -> Vec<Packet> {
        self.sent
            .iter()
            .filter(|(_, packet)| packet.bytes[0] == kind)
            .map(|(_, packet)| packet.clone())
            .collect()
    }

    /// Whether the current sessions of both sides are the two ends of one session, by their indices.
    pub(super) fn same_session(&mut self) -> bool {
        let (ka, kb) = (self.nodes[0].key, self.nodes[1].key);
        let a = self.nodes[0].endpoint.current_indices(&kb);
        let b = self.nodes[1].endpoint.current_indices(&ka);
        matches!((a, b), (Some((al, ar)), Some((bl, br))) if al == br && ar == bl)
    }
}
