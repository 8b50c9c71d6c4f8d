//! A mesh in memory: virtual time, seeded delay and loss, partitions, pauses. Sessions are always up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use rand_core::{Rng as _, SeedableRng};

use crate::key::PublicKey;
use crate::membership::message::{MAX_CHUNK_BYTES, MAX_DATAGRAM_BYTES, MembershipMessage};
use crate::membership::{
    Detector, DetectorConfig, MembershipEvent, Meta, Notary, Roles, State, Transmit, Via,
};
use crate::net::reach::rendezvous::Contact;
use crate::rt::Rng;

pub(super) fn key(at: usize) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(at as u64 + 1).to_be_bytes());
    PublicKey::from_bytes(bytes)
}

pub(super) fn meta(version: &str) -> Meta {
    Meta::new(Roles::WORKER, vec!["sum".into()], 1, version.into()).unwrap()
}

pub(super) struct Node {
    pub(super) detector: Detector,
    pub(super) events: Vec<(Duration, MembershipEvent)>,
    pub(super) up: bool,
    resumes: Option<Instant>,
    inbox: Vec<(usize, Via, Vec<u8>)>,
    pub(super) hub: bool,
    next_pong: Instant,
}

type Delivery = (Instant, u64, usize, usize, bool, Vec<u8>);

pub(super) struct Cluster {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) loss_percent: u64,
    /// Nodes on different sides of a partition don't hear each other.
    pub(super) side: BTreeMap<usize, u32>,
    /// Every message that was sent: when, from, to, decoded.
    pub(super) sent: Vec<(Duration, usize, usize, MembershipMessage)>,
    pub(super) config: DetectorConfig,
    /// Whether announcements are broadcast.
    pub(super) broadcast: bool,
    wire: BinaryHeap<Reverse<Delivery>>,
    order: u64,
    rng: Rng,
    seed: u8,
}

impl Cluster {
    pub(super) fn new(seed: u8) -> Cluster {
        let now = crate::rt::test_now();
        Cluster {
            start: now,
            now,
            nodes: Vec::new(),
            loss_percent: 0,
            side: BTreeMap::new(),
            sent: Vec::new(),
            config: DetectorConfig::default(),
            broadcast: true,
            wire: BinaryHeap::new(),
            order: 0,
            rng: Rng::from_seed([seed; 32]),
            seed,
        }
    }

    /// Nodes that joined through the first one, and know each other.
    pub(super) fn of(seed: u8, count: usize) -> Cluster {
        let mut cluster = Cluster::new(seed);
        for _ in 0..count {
            cluster.add(false);
        }
        for at in 1..count {
            cluster.join(at, &[0]);
        }
        cluster
            .run_until(Duration::from_secs(20), |c| c.agree(State::Alive, &(0..count).collect::<Vec<_>>()));
        assert!(cluster.agree(State::Alive, &(0..count).collect::<Vec<_>>()), "the mesh didn't form");
        cluster
    }

    fn detector(&self, at: usize, boot: u64, observer: bool) -> Detector {
        let mut seed = [self.seed; 32];
        seed[0] = at as u8;
        seed[8..16].copy_from_slice(&boot.to_le_bytes());
        let rng = Rng::from_seed(seed);
        let (config, notary) = (self.config.clone(), Notary::trusting(key(at)));
        Detector::new(config, notary, boot, meta(""), observer, self.now, rng)
    }

    pub(super) fn add(&mut self, observer: bool) -> usize {
        let at = self.nodes.len();
        let detector = self.detector(at, at as u64 + 1000, observer);
        self.nodes.push(Node {
            detector,
            events: Vec::new(),
            up: true,
            resumes: None,
            inbox: Vec::new(),
            hub: false,
            next_pong: self.now,
        });
        at
    }

    pub(super) fn restart(&mut self, at: usize, boot: u64) {
        self.nodes[at].detector = self.detector(at, boot, false);
        self.nodes[at].up = true;
        self.nodes[at].inbox.clear();
    }

    pub(super) fn join(&mut self, at: usize, contacts: &[usize]) {
        let contacts: Vec<_> = contacts.iter().map(|at| Contact { key: key(*at), opened: true }).collect();
        let now = self.now;
        let detector = &mut self.nodes[at].detector;
        detector.join(now);
        detector.on_contacts(now, None, &contacts);
        self.drain(at);
    }

    /// Suspends a node for a time: its timers and messages wait.
    pub(super) fn pause(&mut self, at: usize, time: Duration) {
        self.nodes[at].resumes = Some(self.now + time);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn state(&self, at: usize, of: usize) -> Option<State> {
        self.nodes[at].detector.member(&key(of)).map(|member| member.state)
    }

    /// Whether every other node that is up holds each of `of` in `state`.
    pub(super) fn agree(&self, state: State, of: &[usize]) -> bool {
        let up = (0..self.nodes.len()).filter(|at| self.nodes[*at].up);
        up.into_iter().all(|at| of.iter().all(|of| at == *of || self.state(at, *of) == Some(state)))
    }

    pub(super) fn saw(&self, at: usize, since: Duration, what: impl Fn(&MembershipEvent) -> bool) -> bool {
        self.nodes[at].events.iter().any(|(when, event)| *when >= since && what(event))
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until a condition holds or the time is over; returns the time at which it held.
    pub(super) fn run_until(&mut self, time: Duration, done: impl Fn(&Cluster) -> bool) -> Option<Duration> {
        let end = self.now + time;
        loop {
            if done(self) {
                return Some(self.elapsed());
            }
            let wire = self.wire.peek().map(|Reverse(delivery)| delivery.0);
            let timer = (0..self.nodes.len()).filter_map(|at| self.due(at).map(|due| (due, at))).min();
            let next = [wire, timer.map(|(due, _)| due)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return None;
            };
            self.now = self.now.max(next);
            match timer {
                Some((due, at)) if due == next => self.timeout(at),
                _ => self.deliver(),
            }
        }
    }

    fn due(&self, at: usize) -> Option<Instant> {
        let node = &self.nodes[at];
        if !node.up {
            return None;
        }
        let timer = node.detector.poll_timeout();
        let pong = node.hub.then_some(node.next_pong);
        node.resumes.or([timer, pong].into_iter().flatten().min()).map(|due| due.max(self.now))
    }

    fn timeout(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let resumed = node.resumes.take().is_some();
        if node.hub && node.next_pong <= now {
            node.detector.on_hub_pong(now);
            node.next_pong = now + Duration::from_secs(3);
        }
        // The worst order: timers run before the queued messages.
        node.detector.handle_timeout(now);
        if resumed {
            for (from, via, body) in std::mem::take(&mut node.inbox) {
                node.detector.handle_message(now, key(from), via, &body);
            }
        }
        self.drain(at);
    }

    fn deliver(&mut self) {
        let Some(Reverse((_, _, from, to, reliable, body))) = self.wire.pop() else { return };
        let via = if reliable { Via::Reliable } else { Via::Datagram };
        let now = self.now;
        let node = &mut self.nodes[to];
        if !node.up || self.side.get(&from) != self.side.get(&to) {
            return;
        }
        if node.resumes.is_some() {
            node.inbox.push((from, via, body));
            return;
        }
        node.detector.handle_message(now, key(from), via, &body);
        self.drain(to);
    }

    pub(super) fn drain(&mut self, at: usize) {
        while let Some(Transmit { to, via, body }) = self.nodes[at].detector.poll_transmit() {
            let limit = if via == Via::Datagram { MAX_DATAGRAM_BYTES } else { MAX_CHUNK_BYTES };
            assert!(body.len() <= limit, "{} bytes via {via:?}", body.len());
            let message = MembershipMessage::decode(&body).expect("what is sent can be read");
            let Some(to) = (0..self.nodes.len()).find(|other| key(*other) == to) else { continue };
            self.sent.push((self.elapsed(), at, to, message));
            let lost = self.rng.next_u64() % 100 < self.loss_percent;
            if (lost && via == Via::Datagram) || self.side.get(&at) != self.side.get(&to) {
                continue;
            }
            let delay = Duration::from_micros(5_000 + self.rng.next_u64() % 45_000);
            self.order += 1;
            self.wire.push(Reverse((self.now + delay, self.order, at, to, via == Via::Reliable, body)));
        }
        let mut announce = false;
        while let Some(event) = self.nodes[at].detector.poll_event() {
            announce |= event == MembershipEvent::AnnounceDue;
            let elapsed = self.elapsed();
            self.nodes[at].events.push((elapsed, event));
        }
        if announce && self.broadcast {
            let body = self.nodes[at].detector.announce();
            for to in 0..self.nodes.len() {
                if to != at && self.nodes[to].up && self.side.get(&at) == self.side.get(&to) {
                    let now = self.now;
                    self.nodes[to].detector.handle_announcement(now, key(at), &body);
                }
            }
        }
    }

    /// The subjects of facts in `state` that a node sent since `since`, except about itself.
    pub(super) fn told(&self, at: usize, since: Duration, state: State) -> BTreeSet<PublicKey> {
        let messages = self.sent.iter().filter(|(when, from, ..)| *from == at && *when >= since);
        let facts = messages.flat_map(|(.., message)| &message.facts);
        facts.filter(|fact| fact.record.state == state).map(|fact| fact.key).collect()
    }
}
