//! One node and its clients, over a hub that delivers at once.

mod hub;
mod pair;

use rand_core::SeedableRng;

use self::hub::{Heard, Registered};
use super::*;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::key::SecretKey;
use crate::mesh::{Hub, Ticket};
use crate::transport::Limits;

const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// The hub's key is the secret of this number.
const HUB: u64 = 1 << 20;

/// The most rounds of datagrams between two nodes before the exchange must end.
const PASSES: usize = 100_000;

struct World {
    now: Instant,
    ticket: Ticket,
    node: Registered,
    events: Vec<TransportEvent>,
}

fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[9; 32])
}

fn secret(n: u64) -> SecretKey {
    let mut bytes = [7; 32];
    // X25519 clamps some bits of the first and last byte.
    bytes[8..16].copy_from_slice(&n.to_le_bytes());
    SecretKey::from_bytes(bytes)
}

fn transport(ticket: &Ticket, now: Instant, n: u64, limits: Limits) -> Registered {
    let config = TransportConfig {
        key: secret(n),
        credential: Some(authority().mint(secret(n).public(), Level::Worker, UNIX.as_secs() as u32)),
        name: String::new(),
        ticket: ticket.clone(),
        allow: crate::key::AllowList::Anyone,
        boot: n,
        listen: crate::net::reach::listen::Listen::default(),
        limits,
        versions: crate::net::secure::version::Versions::SPOKEN,
        listed: true,
    };
    let unix = UNIX + Duration::from_millis(n);
    let mut seed = n;
    let transport = Transport::new(&config, now, unix, |_| {
        seed += 1 << 32;
        Rng::seed_from_u64(seed)
    });
    Registered::new(now, transport, &secret(HUB))
}

/// Carries the datagrams from `from` to `to` over the hub. Returns whether there were any.
fn relay(now: Instant, from: &mut Registered, to: &mut Registered) -> bool {
    let mut moved = false;
    for heard in from.heard(now) {
        if let Heard::Forward(dst, payload) = heard
            && dst == to.local
        {
            moved = true;
            to.deliver(now, from.local, &[payload]);
        }
    }
    moved
}

impl World {
    /// A node with a table of `peers` entries.
    fn new(peers: usize) -> World {
        let now = crate::rt::time::now();
        let hub = Hub { key: secret(HUB).public(), addr: "hub:1".to_owned() };
        let ticket = Ticket::generate(authority().mesh(), hub, &mut Rng::seed_from_u64(9));
        let node = transport(&ticket, now, 0, Limits { peers });
        World { now, ticket, node, events: Vec::new() }
    }

    fn key(&self) -> PublicKey {
        secret(0).public()
    }

    fn client(&self, n: u64) -> Registered {
        transport(&self.ticket, self.now, n, Limits::default())
    }

    /// Lets the node and a client exchange datagrams for `time`; datagrams to other peers are lost.
    fn run(&mut self, client: &mut Registered, time: Duration) -> Vec<TransportEvent> {
        let until = self.now + time;
        let mut events = Vec::new();
        for _ in 0..PASSES {
            self.node.pump(self.now);
            client.pump(self.now);
            let moved = relay(self.now, &mut self.node, client) | relay(self.now, client, &mut self.node);
            events.extend(std::iter::from_fn(|| client.poll_event()));
            self.events.extend(std::iter::from_fn(|| self.node.poll_event()));
            if moved {
                continue;
            }
            let due = self.node.poll_timeout().into_iter().chain(client.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= until) else {
                self.now = until;
                return events;
            };
            self.now = self.now.max(due);
            self.node.handle_timeout(self.now);
            client.handle_timeout(self.now);
        }
        panic!("they never fall silent");
    }

    /// A client connects, sends `body`, gets it back, and leaves without a close. Returns whether it was answered.
    fn visit(&mut self, n: u64, body: &Bytes) -> bool {
        let mut client = self.client(n);
        client.send_message(self.now, self.key(), Priority::Job, 1, body.clone()).unwrap();
        self.run(&mut client, Duration::from_millis(20));
        let asked = std::mem::take(&mut self.events).into_iter().any(|event| {
            matches!(&event, TransportEvent::Reliable(reliable::ReliableEvent::Message { peer, .. }) if *peer == client.local)
        });
        if asked {
            self.node.send_message(self.now, client.local, Priority::Job, 1, body.clone()).unwrap();
        }
        let answers = self.run(&mut client, Duration::from_millis(100));
        answers
            .iter()
            .any(|event| matches!(event, TransportEvent::Reliable(reliable::ReliableEvent::Message { .. })))
    }

    /// Lets `time` pass for the node without any reachable peer.
    fn alone(&mut self, time: Duration) {
        let mut nobody = self.client(1 << 21);
        self.run(&mut nobody, time);
    }
}

#[test]
fn a_node_serves_any_number_of_clients_one_after_the_other() {
    let mut world = World::new(64);
    let body = Bytes::from_static(b"a job");
    for n in 1..=1_000 {
        assert!(world.visit(n, &body), "client {n}: {:?} {:?}", world.node.stats(), world.node.gauges());
        let gauges = world.node.gauges();
        for (name, gauge) in gauges.named() {
            assert!(gauge.now <= gauge.bound, "client {n}: {} {name}", gauge.now);
        }
    }
    assert_eq!(world.node.stats().refused_peers, 0);
    assert!(world.node.stats().evicted_peers > 800, "{:?}", world.node.stats());
}

#[test]
fn a_client_that_went_leaves_nothing_behind() {
    let mut world = World::new(64);
    for n in 1..=32 {
        assert!(world.visit(n, &Bytes::from(vec![n as u8; 50_000])));
    }
    assert_eq!(world.node.gauges().peers.now, 32);
    world.alone(Duration::from_secs(300));
    let gauges = world.node.gauges();
    let held = [gauges.peers, gauges.sessions, gauges.sending_bytes, gauges.receiving_bytes];
    assert_eq!(held.map(|gauge| gauge.now), [0; 4], "{gauges:?}");
    assert_eq!(world.node.stats().evicted_peers, 0, "they went by themselves");
}

#[test]
fn what_waits_for_a_client_that_went_fails_and_it_is_forgotten() {
    let mut world = World::new(64);
    assert!(world.visit(1, &Bytes::from_static(b"hello")));
    let client = secret(1).public();
    let id = world.node.send_message(world.now, client, Priority::Job, 1, Bytes::from_static(b"result"));
    // The session ends after three minutes, and the next handshake attempt 90 seconds later.
    world.alone(Duration::from_secs(300));
    let failed = reliable::ReliableEvent::Failed {
        peer: client,
        id: id.unwrap(),
        reason: reliable::FailReason::Forgotten,
    };
    let position = |wanted: &dyn Fn(&TransportEvent) -> bool| world.events.iter().position(wanted);
    assert!(
        position(&|event| matches!(event, TransportEvent::Reliable(event) if *event == failed)).is_some()
    );
    assert!(
        position(&|event| matches!(event, TransportEvent::Forgotten { peer } if *peer == client)).is_some()
    );
    assert_eq!(world.node.gauges().peers.now, 0);
}

#[test]
fn a_member_is_never_forgotten_for_its_silence_and_takes_the_place_of_a_stranger() {
    let mut world = World::new(8);
    for n in 1..=8 {
        assert!(world.visit(n, &Bytes::from_static(b"hello")));
    }
    let member = secret(100).public();
    world.node.know(world.now, member);
    assert_eq!((world.node.peers.gauge().now, world.node.stats().evicted_peers), (8, 1));
    world.node.connect(world.now, member).unwrap();
    world.alone(Duration::from_secs(1_000));
    assert_eq!(world.node.peers.keys().collect::<Vec<_>>(), [&member]);
    world.node.dismiss(world.now, &member);
    assert!(world.node.peers.keys().next().is_none(), "it left the mesh");
}

#[test]
fn a_table_full_of_busy_peers_refuses_the_next_one_and_serves_it_later() {
    let mut world = World::new(4);
    for n in 1..=4 {
        assert!(world.visit(n, &Bytes::from_static(b"hello")));
    }
    let last = world.node.connect(world.now, secret(5).public());
    assert_eq!(last, Err(SendError::Refused), "all four were heard just now");
    let mut client = world.client(6);
    client.connect(world.now, world.key()).unwrap();
    world.run(&mut client, Duration::from_millis(100));
    assert!(!client.endpoint.is_established(&world.key()), "it was told that there is no room");
    assert_eq!(world.node.stats().refused_peers, 2);
    world.alone(peers::QUIET);
    assert!(world.visit(6, &Bytes::from_static(b"hello")));
}
