//! Two endpoints with a relay leg and a direct leg: sessions and paths together.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::super::frames;
use super::super::paths::PathEventKind;
use super::world::World;

/// The interval between application datagrams, each way.
const PACE: Duration = Duration::from_millis(20);

/// The direct leg's one-way delay.
const WAY: Duration = Duration::from_millis(20);

/// A steady stream both ways, and the state to judge it by.
struct Stream {
    world: World,
    direct_is_dead: Rc<Cell<bool>>,
    next: u32,
}

impl Stream {
    /// The hub's leg takes four times as long as the direct one.
    fn new(seed: u64) -> Stream {
        let mut world = World::relayed(seed);
        world.hub_delay_ms = 60;
        let direct_is_dead = Rc::new(Cell::new(false));
        let dead = direct_is_dead.clone();
        world.lose = Box::new(move |packet| dead.get() && packet.source.route.is_direct());
        world.connect(0, 1);
        assert!(world.run_until(Duration::from_secs(1), World::both_open));
        Stream { world, direct_is_dead, next: 0 }
    }

    /// Announces the nodes' addresses to each other over the relay.
    fn gather(&mut self) {
        let now = self.world.now;
        for node in &mut self.world.nodes {
            let addr = node.addr;
            node.endpoint.set_local_candidates(now, &[addr]);
        }
    }

    fn both_direct(&self) -> bool {
        self.world.path_state(0).direct && self.world.path_state(1).direct
    }

    fn both_relayed(&self) -> bool {
        !self.world.path_state(0).direct && !self.world.path_state(1).direct
    }

    fn step(&mut self) {
        let body = self.next.to_le_bytes();
        self.next += 1;
        self.world.send(0, 1, &body).unwrap();
        self.world.send(1, 0, &body).unwrap();
        self.world.run(PACE);
    }

    /// Streams until `done`, for at most `limit`; says how long it took.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&Stream) -> bool) -> Duration {
        let begin = self.world.now;
        while !done(self) {
            assert!(self.world.now - begin <= limit, "after {limit:?}: {:?}", self.world.nodes[0].paths);
            self.step();
        }
        self.world.now - begin
    }

    fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        while self.world.now < end {
            self.step();
        }
    }

    /// The numbers that a node has received, in order of arrival; asserts that none came twice.
    fn received(&self, at: usize) -> Vec<u32> {
        let node = &self.world.nodes[at];
        let numbers: Vec<u32> =
            node.received.iter().map(|(.., body)| u32::from_le_bytes(body[..].try_into().unwrap())).collect();
        let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "a datagram came twice");
        numbers
    }

    /// Asserts that both have received every number from `from` on, once the datagrams under way
    /// have arrived.
    fn all_arrived_since(&mut self, from: u32) {
        self.world.run(Duration::from_millis(200));
        for at in 0..2 {
            let received: BTreeSet<u32> = self.received(at).into_iter().collect();
            let lost: Vec<u32> = (from..self.next).filter(|number| !received.contains(number)).collect();
            assert!(lost.is_empty(), "node {at} misses {lost:?}");
        }
    }
}

#[test]
fn a_peer_is_relayed_at_once_then_direct_then_relayed_when_that_dies_and_direct_again() {
    for seed in 300..310 {
        let mut stream = Stream::new(seed);
        assert!(stream.both_relayed());
        stream.run(Duration::from_millis(200));
        stream.all_arrived_since(0);
        assert!(stream.both_relayed(), "seed {seed}: nothing else is known yet");

        stream.gather();
        stream.run_until(Duration::from_secs(1), Stream::both_direct);
        stream.run(Duration::from_secs(15));
        stream.all_arrived_since(0);
        assert!(stream.both_direct());
        assert!(stream.world.nodes.iter().all(|node| node.paths.len() == 1), "promoted once, and no more");

        // The direct leg fails under load. Copies go over the relay while the leg is in doubt.
        stream.direct_is_dead.set(true);
        let (cut, died) = (stream.next, stream.world.now);
        let arrived = |stream: &Stream| (0..2).all(|at| stream.received(at).iter().any(|n| *n > cut + 1));
        let gap = stream.run_until(Duration::from_millis(1_500), arrived);
        stream.run_until(Duration::from_millis(1_600) - gap, Stream::both_relayed);
        for node in &stream.world.nodes {
            let (at, event) = node.paths.last().unwrap();
            assert_eq!(event.kind, PathEventKind::Demoted);
            assert!(*at - died <= Duration::from_millis(1_500) + WAY + PACE, "{:?}", *at - died);
        }
        let from = stream.next;
        stream.run(Duration::from_secs(3));
        stream.all_arrived_since(from);
        assert!(stream.both_relayed());

        stream.direct_is_dead.set(false);
        let from = stream.next;
        stream.run_until(Duration::from_secs(15), Stream::both_direct);
        stream.run(Duration::from_secs(5));
        stream.all_arrived_since(from);
        assert!(stream.both_direct());
        let frames: Vec<_> =
            stream.world.frames(frames::DATA).into_iter().map(|packet| packet.bytes).collect();
        let distinct: BTreeSet<_> = frames.iter().collect();
        assert!(distinct.len() < frames.len(), "in doubt, copies went by both legs");
        let sessions = stream.world.nodes.iter().map(|node| node.events.len());
        assert_eq!(sessions.max(), Some(1), "the session never noticed");
    }
}

#[test]
fn a_peer_that_says_that_it_moved_is_followed_within_a_round_trip_of_being_heard() {
    let mut stream = Stream::new(320);
    stream.gather();
    stream.run_until(Duration::from_secs(1), Stream::both_direct);
    stream.run(Duration::from_secs(5));
    let new = "198.51.100.7:7777".parse().unwrap();
    let moved = stream.world.now;
    stream.world.nodes[0].addr = new;
    stream.world.nodes[0].endpoint.on_network_change(moved);
    stream.gather();
    let from = stream.next;
    stream.run_until(Duration::from_secs(1), |stream| stream.world.path_state(1).addr == Some(new));
    let (at, event) = *stream.world.nodes[1].paths.last().unwrap();
    assert_eq!(event.kind, PathEventKind::Moved);
    assert!(at - moved <= WAY * 3, "heard after {WAY:?}, followed after {:?}", at - moved);
    stream.run(Duration::from_secs(2));
    assert!(stream.both_direct());
    // Datagrams on their way to the old address are lost with it.
    stream.all_arrived_since(from + 5);
}

#[test]
fn a_peer_whose_nat_moved_it_silently_is_followed_when_the_old_address_stays_silent() {
    let mut stream = Stream::new(321);
    stream.gather();
    stream.run_until(Duration::from_secs(1), Stream::both_direct);
    stream.run(Duration::from_secs(5));
    let new = "198.51.100.7:7777".parse().unwrap();
    stream.world.nodes[0].addr = new;
    let from = stream.next;
    let took =
        stream.run_until(Duration::from_millis(500), |stream| stream.world.path_state(1).addr == Some(new));
    assert!(took >= Duration::from_millis(300), "the old address had its time: {took:?}");
    stream.run(Duration::from_secs(2));
    assert!(stream.both_direct());
    stream.all_arrived_since(from + 5);
}
