//! Two transports and a hub between them without delay.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::SeedableRng;

use super::super::*;
use super::authority;
use super::hub::{Heard, Registered};
use crate::authority::level::Level;
use crate::key::{AllowList, SecretKey};
use crate::mesh::{Hub, Ticket};
use crate::net::reach::hub_client::HubEvent;
use crate::net::reach::rendezvous::{Record, SealedRecord};
use crate::transport::{Limits, kind};

struct Pair {
    hub: PublicKey,
    nodes: [Registered; 2],
    tickets: Ticket,
    now: Instant,
}

impl Pair {
    /// Two nodes at one hub. They exchange their datagrams in turns, each turn's datagrams in one batch.
    fn new(seed: u8) -> Pair {
        let now = crate::rt::test_now();
        let mut rng = Rng::from_seed([seed; 32]);
        let hub = SecretKey::from_bytes([7; 32]);
        let named = Hub { key: hub.public(), addr: "hub.example:1".to_owned() };
        let ticket = Ticket::generate(authority().mesh(), named, &mut rng);
        let node = |n: u8, rng: &mut Rng| {
            let key = SecretKey::generate(rng);
            let config = TransportConfig {
                credential: Some(authority().mint(key.public(), Level::Worker, 1_700_000_000)),
                name: String::new(),
                key,
                ticket: ticket.clone(),
                allow: AllowList::Anyone,
                boot: n.into(),
                listed: true,
                limits: Limits::default(),
                versions: crate::net::secure::version::Versions::SPOKEN,
                listen: crate::net::reach::listen::Listen::default(),
            };
            let mut seeds = u8::from(n == 1) * 100;
            let transport = Transport::new(&config, now, Duration::from_secs(1_700_000_000), |_| {
                seeds += 1;
                Rng::from_seed([seeds ^ seed; 32])
            });
            Registered::new(now, transport, &hub)
        };
        let nodes = [node(0, &mut rng), node(1, &mut rng)];
        Pair { hub: hub.public(), nodes, tickets: ticket, now }
    }

    fn key(&self, at: usize) -> PublicKey {
        self.nodes[at].local
    }

    /// Lets both nodes exchange datagrams until none are left, without any time passing.
    fn talk(&mut self) {
        for turn in 0..200 {
            let from = turn % 2;
            self.nodes[from].pump(self.now);
            let src = self.key(from);
            let heard = self.nodes[from].heard(self.now).into_iter();
            let batch: Vec<Vec<u8>> = heard
                .filter_map(|heard| match heard {
                    Heard::Forward(_, payload) => Some(payload),
                    Heard::Lookup(_) => None,
                })
                .collect();
            self.nodes[1 - from].deliver(self.now, src, &batch);
        }
    }
}

/// Regression test: a peer that didn't know yet that the session was up lost the packet behind the confirmation.
#[test]
fn a_first_message_is_acknowledged_without_any_timer_whichever_key_is_the_smaller() {
    let mut smaller = [false; 2];
    for seed in 1..=8 {
        let mut pair = Pair::new(seed);
        let (a, b) = (pair.key(0), pair.key(1));
        smaller[usize::from(a < b)] = true;
        let body = Bytes::from_static(b"first");
        let id =
            pair.nodes[0].send_message(pair.now, b, Priority::Bulk, kind::APPLICATION, body.clone()).unwrap();
        pair.talk();
        let at_b: Vec<TransportEvent> = std::iter::from_fn(|| pair.nodes[1].poll_event()).collect();
        let arrived = |event: &TransportEvent| {
            matches!(event, TransportEvent::Reliable(reliable::ReliableEvent::Message { peer, body: got, .. })
                if *peer == a && *got == body)
        };
        assert!(at_b.iter().any(arrived), "seed {seed}: {at_b:?}");
        let at_a: Vec<TransportEvent> = std::iter::from_fn(|| pair.nodes[0].poll_event()).collect();
        let acked = |event: &TransportEvent| matches!(event, TransportEvent::Reliable(reliable::ReliableEvent::Acked { id: of, .. }) if *of == id);
        assert!(at_a.iter().any(acked), "seed {seed}: {at_a:?}");
        assert!(pair.nodes[0].is_quiet(), "seed {seed}");
    }
    assert_eq!(smaller, [true, true], "both orders of keys were tried");
}

#[test]
fn a_list_says_of_each_whether_the_mesh_has_sealed_its_record() {
    let mut pair = Pair::new(1);
    let mut rng = Rng::from_seed([9; 32]);
    let hub = Hub { key: pair.hub, addr: "hub.example:1".to_owned() };
    let other = Ticket::generate(authority().mesh(), hub, &mut rng);
    let expires = Duration::from_secs(1_700_000_600);
    let record = Record { candidates: Vec::new(), home: None, capabilities: 0, expires };
    let peers = [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])];
    let records = [&pair.tickets, &other].into_iter().zip(peers).map(|(ticket, key)| {
        let sealed = record.seal(&ticket.generations()[0], &key, 5, &mut rng).unwrap();
        SealedRecord { key, seq: 5, ttl: Duration::from_secs(60), sealed: Bytes::from(sealed) }
    });
    let records = records.collect();
    pair.nodes[0].on_hub_event(pair.now, pair.hub, HubEvent::Records(records));
    let contacts = std::iter::from_fn(|| pair.nodes[0].poll_event()).find_map(|event| match event {
        TransportEvent::Contacts { contacts, .. } => Some(contacts),
        _ => None,
    });
    let opened: Vec<_> = contacts.unwrap().iter().map(|contact| (contact.key, contact.opened)).collect();
    assert_eq!(opened, [(peers[0], true), (peers[1], false)]);
}

#[test]
fn a_stranger_is_looked_up_once_and_tried_where_its_record_says() {
    let mut pair = Pair::new(2);
    let (a, b) = (0, pair.key(1));
    pair.nodes[a].heard(pair.now);
    pair.nodes[a].look_up(b);
    assert_eq!(pair.nodes[a].heard(pair.now), [Heard::Lookup(b)]);
    pair.nodes[a].connect(pair.now, b).unwrap();
    pair.nodes[a].look_up(b);
    assert!(!pair.nodes[a].heard(pair.now).contains(&Heard::Lookup(b)), "it is known here by now");

    // The hub's connection ends: the record's candidate is the only route.
    pair.nodes[a].end(pair.now);
    let candidates = vec!["192.0.2.9:4000".parse().unwrap()];
    let expires = Duration::from_secs(1_700_000_600);
    let record = Record { candidates, home: None, capabilities: 0, expires };
    let generation = &pair.tickets.generations()[0];
    let sealed = record.seal(generation, &b, 5, &mut Rng::from_seed([3; 32])).unwrap();
    let found = SealedRecord { key: b, seq: 5, ttl: Duration::from_secs(60), sealed: Bytes::from(sealed) };
    pair.nodes[a].on_hub_event(pair.now, pair.hub, HubEvent::Record(found));
    pair.nodes[a].pump(pair.now);
    let sent = pair.nodes[a].outbox().front().map(|batch| batch.destination);
    assert_eq!(sent, Some("192.0.2.9:4000".parse().unwrap()));
}

#[test]
fn a_groups_key_is_given_to_live_members_or_to_the_list_and_to_no_other_peer_with_a_session() {
    let mut pair = Pair::new(1);
    let (a, b) = (pair.key(0), pair.key(1));
    let only = |key| AllowList::Only([key].into());
    let asked = |pair: &mut Pair| {
        let before = *pair.nodes[0].group_stats();
        pair.now += Duration::from_secs(1);
        // It forgets its earlier request.
        pair.nodes[1].leave_group("choir");
        pair.nodes[1].join_group("choir", AllowList::Anyone).unwrap();
        let now = pair.now;
        pair.nodes[1].groups.pull(now, "choir", a).unwrap();
        pair.talk();
        let after = pair.nodes[0].group_stats();
        (after.requests_answered - before.requests_answered, after.requests_refused - before.requests_refused)
    };
    pair.nodes[1].connect(pair.now, a).unwrap();
    pair.talk();
    pair.nodes[0].join_group("choir", AllowList::Anyone).unwrap();
    assert_eq!(asked(&mut pair), (0, 1), "a ticket is enough for a session");
    pair.nodes[0].know(pair.now, b);
    assert_eq!(asked(&mut pair), (1, 0));
    pair.nodes[0].presume_dead(&b);
    assert_eq!(asked(&mut pair), (0, 1));
    pair.nodes[0].know(pair.now, b);
    pair.nodes[0].join_group("choir", only(a)).unwrap();
    assert_eq!(asked(&mut pair), (0, 1));
    pair.nodes[0].dismiss(pair.now, &b);
    pair.nodes[0].join_group("choir", only(b)).unwrap();
    assert_eq!(asked(&mut pair), (1, 0));
}
