//! Reliable messages: two honest peers, and an insider with connections of its own that garbles what it sends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nurl::internals::transport::reliable::{
    CONNECTION_WINDOW_BYTES, DATAGRAM_BYTES, Priority, RECEIVE_BUDGET_BYTES, Reliable, ReliableConfig,
    ReliableEvent,
};
use rand_core::SeedableRng as _;

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{key, millis, now, rng, secs};

/// The insider's place among the peers.
const INSIDER: usize = 2;

/// Peers with sessions to each other; each datagram takes 10 ms.
pub(crate) struct Net {
    now: Instant,
    peers: Vec<Reliable>,
    wire: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sequence: u64,
    arrived: Vec<Vec<Bytes>>,
    /// Whom the datagrams of the first 200 ms went to, and their bytes.
    sent: Vec<(usize, Vec<u8>)>,
}

impl Net {
    pub(crate) fn new(count: u8) -> Net {
        let now = now();
        let mut seeds = rng(5);
        let peer = |n: u8| {
            let rng = nurl::rt::Rng::from_rng(&mut seeds);
            Reliable::new(ReliableConfig::default(), key(n + 1), 100 + u64::from(n), now, rng)
        };
        let peers: Vec<Reliable> = (0..count).map(peer).collect();
        let arrived = vec![Vec::new(); peers.len()];
        let mut net = Net { now, peers, wire: BTreeMap::new(), sequence: 0, arrived, sent: Vec::new() };
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                net.peers[usize::from(a)].on_established(now, key(b + 1), 100 + u64::from(b));
            }
        }
        net
    }

    fn send(&mut self, from: usize, to: usize, body: Bytes) -> bool {
        let to = key(to as u8 + 1);
        self.peers[from].send(self.now, to, Priority::Job, 4, body).is_ok()
    }

    /// A datagram of peer `from` for peer `to`, now.
    pub(crate) fn inject(&mut self, from: usize, to: usize, datagram: &[u8]) {
        self.peers[to].handle_datagram(self.now, key(from as u8 + 1), datagram);
    }

    /// Datagrams that some peer couldn't read.
    pub(crate) fn garbage(&self) -> u64 {
        self.peers.iter().map(|peer| peer.stats().garbage).sum()
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        for from in 0..self.peers.len() {
            while let Some((peer, segment)) = self.peers[from].poll_transmit(self.now, &mut out) {
                let to = usize::from(peer.as_bytes()[0]) - 1;
                for datagram in out.chunks(segment.unwrap_or(out.len()).max(1)) {
                    assert!(datagram.len() <= DATAGRAM_BYTES);
                    if self.sent.len() < 256 {
                        self.sent.push((to, datagram.to_vec()));
                    }
                    self.sequence += 1;
                    self.wire.insert((self.now + millis(10), self.sequence), (from, to, datagram.to_vec()));
                }
            }
            while let Some(event) = self.peers[from].poll_event() {
                if let ReliableEvent::Message { body, .. } = event {
                    self.arrived[from].push(body);
                }
            }
        }
    }

    /// Runs for this time, or until the condition holds.
    fn run_until(&mut self, time: Duration, done: impl Fn(&Net) -> bool) -> bool {
        let end = self.now + time;
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 200_000, "a peer spins");
            self.flush();
            if done(self) {
                return true;
            }
            let timer = self.peers.iter_mut().filter_map(Reliable::poll_timeout).min();
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= self.now
            {
                let (from, to, datagram) = entry.remove();
                self.inject(from, to, &datagram);
            }
            for peer in &mut self.peers {
                if peer.poll_timeout().is_some_and(|at| at <= self.now) {
                    peer.handle_timeout(self.now);
                }
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// The datagrams by which two peers send each other a message.
    pub(crate) fn recorded() -> Vec<(usize, Vec<u8>)> {
        let mut net = Net::new(2);
        net.send(0, 1, vec![7; 300].into());
        net.send(1, 0, vec![8; 300].into());
        net.run(millis(200));
        net.sent
    }
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut net = Net::new(3);
    for steps in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        let to = draw.below(2);
        match draw.u8() % 8 {
            0 => drop(net.send(INSIDER, to, vec![steps as u8; draw.below(40_000)].into())),
            1 => {
                let garbage = draw.bytes(200);
                net.inject(INSIDER, to, &garbage);
            }
            2..=4 => garble(&mut net, &mut draw, to),
            5 => {
                // A new process of the insider: the honest ones are told by the session.
                let boot = draw.u64();
                net.peers[to].on_established(net.now, key(INSIDER as u8 + 1), boot);
            }
            6 => drop(net.send(to, INSIDER, vec![1; draw.below(10_000)].into())),
            _ => net.run(millis(draw.below(3_000) as u64)),
        }
        let held = net.peers[to].receiving().now;
        assert!(held <= 4 * CONNECTION_WINDOW_BYTES as usize, "{held} bytes are held");
        assert!(held <= RECEIVE_BUDGET_BYTES);
    }
    let wanted = Bytes::from_static(b"an honest message");
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(net.send(from, to, wanted.clone()), "there is room");
        let arrived = net.run_until(secs(20), |net| net.arrived[to].contains(&wanted));
        assert!(arrived, "an honest message arrives: {:?}", net.peers[to].stats());
    }
    true
}

/// One of the insider's own datagrams again, with changes: its packets carry no seal of QUIC's.
fn garble(net: &mut Net, draw: &mut Draw<'_>, to: usize) {
    net.flush();
    let own: Vec<&Vec<u8>> =
        net.wire.values().filter(|(from, ..)| *from == INSIDER).map(|(.., datagram)| datagram).collect();
    let mut datagram = match own.get(draw.below(own.len().max(1))) {
        Some(datagram) => (*datagram).clone(),
        None => draw.bytes(64).to_vec(),
    };
    for _ in 0..draw.below(4) {
        let at = draw.below(datagram.len().max(1));
        if let Some(byte) = datagram.get_mut(at) {
            *byte = draw.u8();
        }
    }
    if draw.flag() {
        datagram.extend_from_slice(&draw.bytes(64));
    }
    if draw.flag() && datagram.len() > 9 {
        // A packet number that wasn't used yet, so that the frames are read.
        datagram[9] = datagram[9].wrapping_add(draw.u8());
    }
    net.inject(INSIDER, to, &datagram);
}
