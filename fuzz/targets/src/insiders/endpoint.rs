//! Sessions and paths: two honest endpoints, and an insider that makes its own handshakes and frames, replays what the
//! two send each other, and sends from any address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nurl::PublicKey;
use nurl::internals::authority::credential::SHOWN_BYTES;
use nurl::internals::authority::level::Level;
use nurl::internals::net::secure::noise::Initiator;
use nurl::internals::net::secure::noise::backend::{Backend, StaticKey};
use nurl::internals::net::secure::route::Route;
use nurl::internals::net::secure::securedgram::frames::{
    DATA, INIT, InitPayload, MAC_LEN, RESPONSE, RESPONSE_LEN, RESPONSE_PAYLOAD_LEN,
};
use nurl::internals::net::secure::securedgram::paths::Control;
use nurl::internals::net::secure::securedgram::{
    Endpoint, EndpointConfig, MAX_TRANSMITS, Outgoing, Received, Source, channel, mac,
};
use nurl::internals::net::secure::session::Session;

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{UNIX, UNIX_S, authority, key, millis, now, rng, secret, secs, ticket};

/// The honest ones are 0 and 1; the number of a node's secret key is one more.
const HONEST: usize = 2;
const INSIDER: u8 = 3;

/// The hub, which passes on.
fn hub() -> PublicKey {
    key(200)
}

fn addr(node: usize) -> SocketAddr {
    ([192, 0, 2, node as u8 + 1], 1_000 + node as u16).into()
}

fn insider_addr(n: u16) -> SocketAddr {
    ([198, 51, 100, 3], 2_000 + n % 4).into()
}

/// Addresses of others, which have asked for nothing.
fn victim(draw: &mut Draw<'_>) -> SocketAddr {
    match draw.u8() % 6 {
        0 => ([203, 0, 113, draw.u8()], draw.u16()).into(),
        1 => ([127, 0, 0, 1], draw.u16()).into(),
        2 => ([224, 0, 0, 251], 5_353).into(),
        3 => ([255, 255, 255, 255], 7).into(),
        4 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(draw.u8())], draw.u16()).into(),
        _ => ([10, 0, 0, draw.u8()], draw.u16()).into(),
    }
}

#[derive(Clone)]
struct Packet {
    to: usize,
    source: Source,
    bytes: Vec<u8>,
}

struct World {
    now: Instant,
    nodes: Vec<Endpoint>,
    keys: Vec<PublicKey>,
    wire: BTreeMap<(Instant, u64), Packet>,
    sequence: u64,
    /// What the honest ones sent each other.
    copies: Vec<Packet>,
    /// What arrived at each of them: the sender and the body.
    received: Vec<Vec<(PublicKey, Vec<u8>)>>,
    /// What each honest one sent to the insider.
    told: Vec<(usize, Vec<u8>)>,
    /// Bytes that each honest one received from outside of their own talk, and sent to addresses of nobody.
    taken_bytes: [usize; HONEST],
    victim_bytes: [usize; HONEST],
}

impl World {
    fn new() -> World {
        let now = now();
        let node = |node: usize| {
            let secret = secret(node as u8 + 1);
            let credential = authority().mint(secret.public(), Level::Worker, UNIX_S);
            let ticket = ticket();
            let config = EndpointConfig::new(secret, ticket.mesh, ticket.generations(), node as u64 + 7);
            let config = EndpointConfig { credential: Some(credential), ..config };
            Endpoint::new(config, now, UNIX, rng(node as u64))
        };
        let nodes: Vec<Endpoint> = (0..HONEST).map(node).collect();
        let keys = nodes.iter().map(|node| *node.local()).collect();
        let mut world = World {
            now,
            nodes,
            keys,
            wire: BTreeMap::new(),
            sequence: 0,
            copies: Vec::new(),
            received: vec![Vec::new(); HONEST],
            told: Vec::new(),
            taken_bytes: [0; HONEST],
            victim_bytes: [0; HONEST],
        };
        for (a, b) in [(0, 1), (1, 0)] {
            let other = world.keys[b];
            world.nodes[a].set_relays(now, &other, &[hub()]).expect("there is room");
            world.nodes[a].add_candidates(now, &other, &[addr(b)], None).expect("there is room");
        }
        let other = world.keys[1];
        world.nodes[0].connect(now, &other).expect("there is room");
        world.run(secs(1));
        assert!(world.nodes[0].is_established(&other));
        world
    }

    /// Puts an honest node's datagram on the wire.
    fn put(&mut self, from: usize, outgoing: Outgoing, bytes: Vec<u8>) {
        let (to, source) = match outgoing.route {
            Route::Direct(to) => {
                let honest = (0..HONEST).find(|node| addr(*node) == to);
                if honest.is_none() && to.ip() != insider_addr(0).ip() {
                    self.victim_bytes[from] += bytes.len();
                    assert!(!to.ip().is_multicast() && !to.ip().is_loopback(), "a datagram to {to}");
                    return;
                }
                (honest, Source::direct(addr(from)))
            }
            Route::Relay(_) => {
                let honest = (0..HONEST).find(|node| Some(self.keys[*node]) == outgoing.relay_dst);
                (honest, Source::relay(hub(), self.keys[from]))
            }
        };
        let Some(to) = to else { return self.told.push((from, bytes)) };
        let packet = Packet { to, source, bytes };
        self.copies.push(packet.clone());
        self.sequence += 1;
        self.wire.insert((self.now + millis(20), self.sequence), packet);
    }

    fn deliver(&mut self, packet: Packet) {
        let mut bytes = packet.bytes;
        let received = self.nodes[packet.to].handle_datagram(self.now, packet.source, &mut bytes);
        if let Some(Received::Data { peer, body, .. }) = received {
            self.received[packet.to].push((peer, bytes[body].to_vec()));
        }
        self.drain();
    }

    /// A datagram of the insider.
    fn inject(&mut self, to: usize, source: Source, bytes: &[u8]) {
        self.taken_bytes[to] += bytes.len();
        self.deliver(Packet { to, source, bytes: bytes.to_vec() });
    }

    fn drain(&mut self) {
        for at in 0..HONEST {
            let mut sent = 0;
            let mut out = Vec::new();
            while let Some(outgoing) = self.nodes[at].poll_transmit(&mut out) {
                sent += 1;
                assert!(sent <= MAX_TRANSMITS + 64, "an endpoint sends without an end");
                self.put(at, outgoing, std::mem::take(&mut out));
            }
            while self.nodes[at].poll_event().is_some() {}
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 200_000, "an endpoint spins");
            self.drain();
            let timer = self.nodes.iter().filter_map(Endpoint::poll_timeout).min();
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= self.now
            {
                let packet = entry.remove();
                self.deliver(packet);
            }
            for node in &mut self.nodes {
                if node.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.handle_timeout(self.now);
                }
            }
        }
    }

    /// Sends data from one honest node to the other; it may be lost.
    fn send(&mut self, from: usize, body: &[u8]) {
        let (peer, mut out) = (self.keys[1 - from], Vec::new());
        if let Ok(routes) = self.nodes[from].seal(self.now, &peer, channel::APPLICATION, body, &mut out) {
            for route in routes.iter() {
                let relay_dst = (!route.is_direct()).then_some(peer);
                self.put(from, Outgoing { peer: Some(peer), route, relay_dst }, out.clone());
            }
        }
        self.drain();
    }
}

/// The insider's handshake with one honest node.
struct Dealings {
    pending: Vec<(u32, Initiator)>,
    session: Option<Session>,
    stamp: u64,
}

/// An init for a peer, with this payload.
fn init(to: &PublicKey, index: u32, seed: u8, payload: &InitPayload) -> (Vec<u8>, Initiator) {
    let own = StaticKey::new(Backend::DEFAULT, &secret(INSIDER)).expect("a sound key");
    let mut frame = vec![INIT];
    frame.extend_from_slice(&index.to_le_bytes());
    let prologue = ticket().mesh.prologue();
    let payload = payload.encode();
    let started = Initiator::start(&own, to, None, &prologue, [seed | 1; 32], &payload, &mut frame);
    let mac = mac::mac(&ticket().generations()[0].mac1_key(to), &frame);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0; MAC_LEN]);
    (frame, started.expect("a sound key"))
}

/// A well-formed init for peer 1, of somebody who shows no pass.
pub(crate) fn an_init() -> Vec<u8> {
    let payload = InitPayload {
        timestamp: [1; 12],
        boot: 1,
        versions: [2; 2],
        features: 0,
        challenge: [0; 16],
        shown: [0; SHOWN_BYTES],
    };
    init(&secret(1).public(), 7, 9, &payload).0
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut world = World::new();
    let mut dealings = [0, 1].map(|_| Dealings { pending: Vec::new(), session: None, stamp: UNIX.as_secs() });
    let shown = authority().mint(secret(INSIDER).public(), Level::Worker, UNIX_S).show();
    for step in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        let to = draw.below(HONEST);
        match draw.u8() % 8 {
            0 => {
                let limit = draw.of(&[100, 2_000, 30_000]);
                world.run(millis(draw.below(limit) as u64));
            }
            1 => begin(&mut world, &mut dealings[to], &mut draw, (to, step as u32), &shown),
            2 | 3 => {
                let control = control(&mut draw).encode();
                speak(&mut world, &mut dealings[to], &mut draw, to, channel::CONTROL, &control);
            }
            4 => {
                let (channel, body) = (draw.u8() % 10, draw.bytes(64));
                speak(&mut world, &mut dealings[to], &mut draw, to, channel, &body);
            }
            5 | 6 => {
                let mut packet = draw.of(&world.copies);
                packet.to = to;
                if draw.flag() {
                    let at = draw.below(packet.bytes.len());
                    packet.bytes[at] = draw.u8();
                }
                if draw.flag() {
                    packet.bytes.truncate(draw.below(packet.bytes.len()));
                }
                let source = if draw.flag() { packet.source } else { source(&mut draw) };
                world.inject(to, source, &packet.bytes);
            }
            _ => world.send(to, b"data"),
        }
        finish(&mut world, &mut dealings);
        for at in 0..HONEST {
            assert!(world.nodes[at].peers().count() <= HONEST, "one key has one slot");
            // The promise of `paths/reflection.rs`: to addresses that nobody proved, three times what came.
            let (sent, taken) = (world.victim_bytes[at], world.taken_bytes[at]);
            assert!(sent <= 3 * taken, "{sent} bytes to strangers for {taken}");
        }
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let body = [b"honest ".to_vec(), vec![from as u8]].concat();
        let wanted = (world.keys[from], body.clone());
        let arrived = (0..40).any(|_| {
            world.send(from, &body);
            world.run(secs(1));
            world.received[to].contains(&wanted)
        });
        assert!(arrived, "an honest peer is still reached: {:?}", world.nodes[to].stats());
    }
    for received in &world.received {
        let names = |peer: &PublicKey| world.keys.contains(peer) || *peer == secret(INSIDER).public();
        assert!(received.iter().all(|(peer, _)| names(peer)));
        let forged = |(peer, body): &(PublicKey, Vec<u8>)| {
            world.keys.contains(peer) && body != b"data" && !body.starts_with(b"honest ")
        };
        assert!(!received.iter().any(forged), "nobody speaks in an honest one's name");
    }
    true
}

/// A source of the insider's datagrams: its own addresses, anybody's, or the hub under its own key.
fn source(draw: &mut Draw<'_>) -> Source {
    match draw.u8() % 5 {
        0 => Source::direct(addr(draw.below(HONEST))),
        // No system delivers a datagram that claims to come from loopback, a group or everybody.
        1 => Source::direct(([203, 0, 113, draw.u8()], 1 + draw.u16() % 1_000).into()),
        2 => Source::relay(hub(), secret(INSIDER).public()),
        _ => Source::direct(insider_addr(draw.u16())),
    }
}

/// Sends an init, sound or not.
fn begin(
    world: &mut World,
    dealings: &mut Dealings,
    draw: &mut Draw<'_>,
    (to, index): (usize, u32),
    shown: &[u8; SHOWN_BYTES],
) {
    dealings.stamp += u64::from(draw.u8() % 4);
    let mut timestamp = [0; 12];
    let stamp = if draw.one_in(8) { draw.u64() } else { dealings.stamp };
    timestamp[..8].copy_from_slice(&stamp.to_be_bytes());
    let mut payload = InitPayload {
        timestamp,
        boot: u64::from(draw.u8() % 4),
        versions: draw.of(&[[0, 0], [2, 2], [2, 3], [3, 3], [3, 2], [0, 255], [1, 255]]),
        features: draw.u16(),
        challenge: [0; 16],
        shown: *shown,
    };
    if draw.one_in(8) {
        payload.shown[draw.below(SHOWN_BYTES)] ^= 1 << (draw.u8() % 8);
    }
    let (frame, noise) = init(&world.keys[to], index, draw.u8(), &payload);
    dealings.pending.push((index, noise));
    let source = source(draw);
    world.inject(to, source, &frame);
}

/// Takes the responses that came.
fn finish(world: &mut World, dealings: &mut [Dealings; HONEST]) {
    for (from, bytes) in std::mem::take(&mut world.told) {
        if bytes.len() != RESPONSE_LEN || bytes[0] != RESPONSE {
            continue;
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (theirs, ours) = (number(1), number(5));
        let dealings = &mut dealings[from];
        let Some((_, noise)) = dealings.pending.iter_mut().find(|(index, _)| *index == ours) else {
            continue;
        };
        let mut payload = [0; RESPONSE_PAYLOAD_LEN];
        let message = &bytes[9..RESPONSE_LEN - 2 * MAC_LEN];
        if let Ok((_, keys)) = noise.read_response(&ticket().generations()[0].psk, message, &mut payload) {
            dealings.session = Some(Session::new(&keys, ours, theirs, true, world.now));
        }
    }
}

/// Seals a body for an honest node, if there is a session.
fn speak(
    world: &mut World,
    dealings: &mut Dealings,
    draw: &mut Draw<'_>,
    to: usize,
    channel: u8,
    body: &[u8],
) {
    let mut frame = Vec::new();
    let source = source(draw);
    let sealed =
        dealings.session.as_mut().map(|session| session.seal(world.now, &[channel], body, &mut frame));
    if !matches!(sealed, Some(Ok(()))) {
        // Without a session, a frame for some index.
        frame = [&[DATA][..], &draw.u32().to_le_bytes(), &draw.u64().to_le_bytes(), body, &[0; 16]].concat();
    }
    world.inject(to, source, &frame);
}

fn control(draw: &mut Draw<'_>) -> Control {
    match draw.u8() % 8 {
        0 => Control::Challenge { data: [draw.u8(); 8] },
        1 => Control::Response { data: draw.array(), observed: draw.flag().then(|| victim(draw)) },
        2 => Control::Keepalive,
        3 => Control::Moved,
        4 => Control::Close,
        _ => {
            let count = draw.below(17);
            let one = |draw: &mut Draw<'_>| match draw.u8() % 4 {
                0 => addr(draw.below(HONEST)),
                1 => insider_addr(draw.u16()),
                _ => victim(draw),
            };
            Control::Candidates { r#gen: draw.u32(), addrs: (0..count).map(|_| one(draw)).collect() }
        }
    }
}
