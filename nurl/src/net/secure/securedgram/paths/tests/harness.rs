//! The test harness: two path machines against each other over an in-memory wire with delay and loss, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::{Rng as _, SeedableRng};

use super::super::config::SEAL_OVERHEAD;
use super::super::{Control, PathConfig, PathEvent, PathEventKind, Paths};
use crate::key::PublicKey;
use crate::net::secure::route::Route;
use crate::net::secure::session::{Freshness, Lateness};
use crate::rt::Rng;

/// The size of a sealed application datagram.
pub(super) const APP_LEN: usize = 200;

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

pub(super) fn hub(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

pub(super) fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 4_000))
}

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Debug)]
struct Packet {
    to: usize,
    source: Route,
    counter: u64,
    len: usize,
    control: Option<Control>,
}

/// The wire's present behaviour; index 0 is A to B, 1 is B to A.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) direct_delay: Duration,
    pub(super) relay_delay: Duration,
    pub(super) cut: [bool; 2],
    /// Direct application datagrams are lost; small control messages pass.
    pub(super) data_dies: bool,
    pub(super) relays_cut: BTreeSet<PublicKey>,
    /// The additional delay of single hubs over `relay_delay`, both ways.
    pub(super) relays_behind: BTreeMap<PublicKey, Duration>,
    pub(super) loss_percent: u64,
    /// An on-path attacker copies every direct datagram of B; its copies, from this address, arrive first.
    /// It forwards to B the datagrams sent to that address.
    pub(super) mirror: Option<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) paths: Paths,
    /// The source that the peer sees.
    pub(super) source: SocketAddr,
    /// The addresses at which it is reached.
    pub(super) reached_at: Vec<SocketAddr>,
    pub(super) app_every: Option<Duration>,
    pub(super) replies: bool,
    /// Behind a filter that admits only datagrams from addresses that the node has sent to (RFC 4787 §5).
    pub(super) filtered: bool,
    opened: BTreeSet<SocketAddr>,
    next_app: Option<Instant>,
    counter: u64,
    seen: BTreeSet<u64>,
    newest: BTreeMap<Option<PublicKey>, u64>,
    lateness: Lateness,
    pub(super) app_received: Vec<(Instant, Route)>,
    pub(super) bytes_to: BTreeMap<Route, usize>,
    pub(super) datagrams: usize,
    pub(super) controls: Vec<(Instant, Route, Control)>,
    pub(super) events: Vec<(Instant, PathEvent)>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) link: Link,
    pub(super) nodes: [Node; 2],
    rng: Rng,
    queue: BTreeMap<(Instant, u64), Packet>,
    sequence: u64,
}

impl World {
    /// Two peers at `addr(1)` and `addr(2)` without any knowledge; 10 ms apart, 30 ms through a relay.
    pub(super) fn new(seed: u64) -> World {
        let now = super::origin();
        let node = |host: u8| Node {
            paths: Paths::new(PathConfig::default(), now, Rng::seed_from_u64(seed * 2 + u64::from(host))),
            source: addr(host),
            reached_at: vec![addr(host)],
            app_every: None,
            replies: true,
            filtered: false,
            opened: BTreeSet::new(),
            next_app: None,
            counter: 0,
            seen: BTreeSet::new(),
            newest: BTreeMap::new(),
            lateness: Lateness::default(),
            app_received: Vec::new(),
            bytes_to: BTreeMap::new(),
            datagrams: 0,
            controls: Vec::new(),
            events: Vec::new(),
        };
        let link = Link {
            direct_delay: ms(10),
            relay_delay: ms(30),
            cut: [false; 2],
            data_dies: false,
            relays_cut: BTreeSet::new(),
            relays_behind: BTreeMap::new(),
            loss_percent: 0,
            mirror: None,
        };
        let rng = Rng::seed_from_u64(seed);
        World { now, link, nodes: [node(1), node(2)], rng, queue: BTreeMap::new(), sequence: 0 }
    }

    /// A world with a relay and a session, in which each node has set its own address.
    pub(super) fn relayed(seed: u64) -> World {
        let mut world = World::new(seed);
        for side in [A, B] {
            let own = [world.nodes[side].source];
            world.with(side, |paths, now| {
                paths.set_relays(now, &[hub(1)]);
                paths.set_local_candidates(now, &own);
            });
        }
        world.establish();
        world
    }

    /// The same as [`relayed`](World::relayed), after a direct path was found.
    pub(super) fn direct(seed: u64) -> World {
        let mut world = World::relayed(seed);
        world.run(Duration::from_secs(6));
        for side in [A, B] {
            assert!(world.nodes[side].paths.state().direct);
        }
        world
    }

    pub(super) fn establish(&mut self) {
        self.with(A, Paths::on_established);
        self.with(B, Paths::on_established);
    }

    pub(super) fn with<T>(&mut self, side: usize, f: impl FnOnce(&mut Paths, Instant) -> T) -> T {
        let done = f(&mut self.nodes[side].paths, self.now);
        self.flush(side);
        done
    }

    pub(super) fn send_app(&mut self, side: usize) {
        let node = &mut self.nodes[side];
        node.counter += 1;
        let counter = node.counter;
        let allowed = node.paths.routes().filter(|route| node.paths.take(route, APP_LEN));
        node.paths.on_sent(self.now, allowed);
        for route in allowed {
            self.transmit(side, route, counter, APP_LEN, None);
        }
        self.flush(side);
    }

    fn flush(&mut self, side: usize) {
        while let Some((route, control)) = self.nodes[side].paths.poll_control() {
            let node = &mut self.nodes[side];
            node.counter += 1;
            let counter = node.counter;
            let len = SEAL_OVERHEAD + control.encoded_len();
            assert_eq!(Control::decode(&control.encode()).as_ref(), Ok(&control));
            node.controls.push((self.now, route, control.clone()));
            self.transmit(side, route, counter, len, Some(control));
        }
        while let Some(event) = self.nodes[side].paths.poll_event() {
            self.nodes[side].events.push((self.now, event));
        }
    }

    fn transmit(&mut self, from: usize, route: Route, counter: u64, len: usize, control: Option<Control>) {
        let to = 1 - from;
        *self.nodes[from].bytes_to.entry(route).or_default() += len;
        self.nodes[from].datagrams += 1;
        let lost = self.rng.next_u64() % 100 < self.link.loss_percent;
        let mut put = |source, delay, control| {
            self.sequence += 1;
            let packet = Packet { to, source, counter, len, control };
            self.queue.insert((self.now + delay, self.sequence), packet);
        };
        match route {
            Route::Relay(hub) => {
                if !self.link.relays_cut.contains(&hub) {
                    let behind = self.link.relays_behind.get(&hub).copied().unwrap_or_default();
                    put(route, self.link.relay_delay + behind, control);
                }
            }
            Route::Direct(dst) => {
                self.nodes[from].opened.insert(dst);
                let handed_on = to == B && self.link.mirror == Some(dst);
                let reached = self.nodes[to].reached_at.contains(&dst) || handed_on;
                let dies = self.link.data_dies && control.is_none();
                if self.link.cut[from] || !reached || dies || lost {
                    return;
                }
                if let Some(mirror) = self.link.mirror.filter(|_| from == B) {
                    put(Route::Direct(mirror), self.link.direct_delay - ms(1), control.clone());
                }
                put(Route::Direct(self.nodes[from].source), self.link.direct_delay, control);
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let (side, now) = (packet.to, self.now);
        let node = &mut self.nodes[side];
        if let Route::Direct(source) = packet.source
            && node.filtered
            && !node.opened.contains(&source)
        {
            return;
        }
        if !node.seen.insert(packet.counter) {
            return;
        }
        let leg = match packet.source {
            Route::Direct(_) => None,
            Route::Relay(hub) => Some(hub),
        };
        let top = node.newest.entry(leg).or_default();
        let newest_on_leg = packet.counter > *top;
        *top = (*top).max(packet.counter);
        let late = node.lateness.arrived(now, packet.counter);
        let freshness = Freshness { newest_on_leg, late };
        let app = packet.control.is_none();
        node.paths.on_authentic(now, packet.source, freshness, packet.len, app);
        if let Some(control) = packet.control {
            node.paths.on_control(now, packet.source, freshness, control);
        } else {
            node.app_received.push((now, packet.source));
        }
        self.flush(side);
        if app && self.nodes[side].replies && self.nodes[side].app_every.is_none() {
            self.send_app(side);
        }
    }

    /// Runs for `duration` of virtual time.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            for node in &mut self.nodes {
                match node.app_every {
                    Some(_) => _ = node.next_app.get_or_insert(self.now),
                    None => node.next_app = None,
                }
            }
            let timers =
                self.nodes.iter().flat_map(|node| [node.paths.poll_timeout(), node.next_app]).flatten();
            let next = timers.chain(self.queue.keys().next().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let packet = entry.remove();
                self.deliver(packet);
            }
            for side in [A, B] {
                if self.nodes[side].next_app.is_some_and(|at| at <= self.now) {
                    self.nodes[side].next_app = self.nodes[side].app_every.map(|every| self.now + every);
                    self.send_app(side);
                }
                if self.nodes[side].paths.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.with(side, Paths::handle_timeout);
                    let next = self.nodes[side].paths.poll_timeout();
                    assert!(next.is_none_or(|at| at > self.now), "a timer that is due has done nothing");
                }
            }
        }
        self.now = end;
    }

    pub(super) fn primary(&self, side: usize) -> Option<SocketAddr> {
        let state = self.nodes[side].paths.state();
        state.addr.filter(|_| state.direct)
    }

    pub(super) fn count(&self, side: usize, kind: PathEventKind) -> usize {
        self.nodes[side].events.iter().filter(|(_, event)| event.kind == kind).count()
    }
}
