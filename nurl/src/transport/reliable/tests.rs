//! Peers over an in-memory wire with seeded loss, delay, reordering, bandwidth and blackouts.

mod basics;
mod hostile;
mod paths;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::{Rng as _, SeedableRng};

use super::*;
use crate::rt::Rng;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The properties of the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss_percent: u32,
    pub(super) delay: Duration,
    /// Added uniformly between zero and this: reorders datagrams.
    pub(super) jitter: Duration,
    /// Bytes per second of each direction; zero is unlimited.
    pub(super) rate: u64,
    /// How long a datagram may wait for the link before it is dropped.
    pub(super) queue: Duration,
    pub(super) blackout: bool,
    /// Nothing reaches this host.
    pub(super) deaf: Option<usize>,
    /// The percentage of datagrams that arrive 2 s late.
    pub(super) late_percent: u32,
    /// All senders to one host share its link.
    pub(super) shared: bool,
}

impl Default for Weather {
    fn default() -> Weather {
        Weather {
            loss_percent: 0,
            delay: ms(10),
            jitter: ms(0),
            rate: 0,
            queue: ms(200),
            blackout: false,
            deaf: None,
            late_percent: 0,
            shared: false,
        }
    }
}

pub(super) struct Host {
    pub(super) key: PublicKey,
    pub(super) boot: u64,
    pub(super) reliable: Reliable,
    pub(super) events: Vec<(Instant, ReliableEvent)>,
    link_free: Instant,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) begin: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) weather: Weather,
    rng: Rng,
    wire: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sequence: u64,
    /// A hash of all datagrams sent.
    pub(super) trace: blake3::Hasher,
    pub(super) sent: u64,
    pub(super) sent_bytes: usize,
    pub(super) longest: usize,
    /// Datagrams dropped by a full queue.
    pub(super) dropped: u64,
    /// Datagrams that hold these bytes are lost.
    pub(super) censored: Option<&'static [u8]>,
    /// Whether poll_event is called.
    pub(super) taking: bool,
}

pub(super) fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

impl Net {
    /// Hosts with keys 1, 2, … and boots 101, 102, …, all established with each other.
    pub(super) fn new(hosts: u8, seed: u8, config: &ReliableConfig) -> Net {
        let now = crate::rt::time::now();
        let mut rng = Rng::from_seed([seed; 32]);
        let mut net = Net {
            now,
            begin: now,
            hosts: Vec::new(),
            weather: Weather::default(),
            rng: Rng::from_rng(&mut rng),
            wire: BTreeMap::new(),
            sequence: 0,
            trace: blake3::Hasher::new(),
            sent: 0,
            sent_bytes: 0,
            longest: 0,
            dropped: 0,
            censored: None,
            taking: true,
        };
        for n in 0..hosts {
            let (key, boot) = (key(n + 1), 101 + u64::from(n));
            let reliable = Reliable::new(config.clone(), key, boot, now, Rng::from_rng(&mut rng));
            net.hosts.push(Host { key, boot, reliable, events: Vec::new(), link_free: now });
        }
        for a in 0..usize::from(hosts) {
            for b in 0..usize::from(hosts) {
                net.establish(a, b);
            }
        }
        net
    }

    pub(super) fn pair(seed: u8) -> Net {
        Net::new(2, seed, &ReliableConfig::default())
    }

    /// Host `a` learns that its session with `b` is up.
    pub(super) fn establish(&mut self, a: usize, b: usize) {
        if a != b {
            let (key, boot) = (self.hosts[b].key, self.hosts[b].boot);
            self.hosts[a].reliable.on_established(self.now, key, boot);
        }
    }

    /// Host `n` starts anew, with the next boot id.
    pub(super) fn restart(&mut self, n: usize) {
        let rng = Rng::from_rng(&mut self.rng);
        let host = &mut self.hosts[n];
        host.boot += 1_000;
        host.reliable = Reliable::new(ReliableConfig::default(), host.key, host.boot, self.now, rng);
    }

    pub(super) fn send(
        &mut self,
        a: usize,
        b: usize,
        priority: Priority,
        kind: u8,
        body: Vec<u8>,
    ) -> MessageId {
        let to = self.hosts[b].key;
        self.hosts[a].reliable.send(self.now, to, priority, kind, Bytes::from(body)).unwrap()
    }

    fn draw(&mut self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.rng.next_u64() % below }
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        for from in 0..self.hosts.len() {
            while let Some((peer, segment)) = self.hosts[from].reliable.poll_transmit(self.now, &mut out) {
                let to = self.hosts.iter().position(|host| host.key == peer).unwrap();
                for datagram in out.chunks(segment.unwrap_or(out.len())) {
                    self.transmit(from, to, datagram);
                }
            }
            while self.taking
                && let Some(event) = self.hosts[from].reliable.poll_event()
            {
                self.hosts[from].events.push((self.now, event));
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, datagram: &[u8]) {
        assert!(datagram.len() <= DATAGRAM_BYTES);
        self.longest = self.longest.max(datagram.len());
        self.sent += 1;
        self.sent_bytes += datagram.len();
        self.trace.update(&(self.now - self.begin).as_nanos().to_le_bytes());
        self.trace.update(datagram);
        let weather = self.weather;
        let lost = self.draw(100) < u64::from(weather.loss_percent);
        let jitter = self.draw(u64::try_from(weather.jitter.as_micros()).unwrap());
        let censored =
            self.censored.is_some_and(|word| datagram.windows(word.len()).any(|part| part == word));
        if lost || censored || weather.blackout || weather.deaf == Some(to) {
            return;
        }
        let mut leaves = self.now;
        if weather.rate != 0 {
            let link = if weather.shared { to } else { from };
            let free = self.hosts[link].link_free.max(self.now);
            if free > self.now + weather.queue {
                self.dropped += 1;
                return;
            }
            leaves = free + Duration::from_nanos(1_000_000_000 / weather.rate.max(1) * datagram.len() as u64);
            self.hosts[link].link_free = leaves;
        }
        let late = weather.late_percent > 0 && self.draw(100) < u64::from(weather.late_percent);
        let at = leaves + weather.delay + Duration::from_micros(jitter) + ms(if late { 2_000 } else { 0 });
        self.sequence += 1;
        self.wire.insert((at, self.sequence), (from, to, datagram.to_vec()));
    }

    /// Takes one step; `false` when nothing is left before `until`.
    pub(super) fn step(&mut self, until: Instant) -> bool {
        self.flush();
        let timers = self.hosts.iter_mut().filter_map(|host| host.reliable.poll_timeout()).min();
        let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = timers.into_iter().chain(arrival).min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now
        {
            let (from, to, datagram) = entry.remove();
            let from = self.hosts[from].key;
            self.hosts[to].reliable.handle_datagram(self.now, from, &datagram);
        }
        for host in &mut self.hosts {
            if host.reliable.poll_timeout().is_some_and(|at| at <= self.now) {
                host.reliable.handle_timeout(self.now);
            }
        }
        true
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.flush();
    }

    /// Runs until the condition holds; fails after `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Net) -> bool) -> Duration {
        let (begin, until) = (self.now, self.now + limit);
        loop {
            self.flush();
            if done(self) {
                return self.now - begin;
            }
            assert!(self.step(until), "not within {limit:?}; {:?}", self.hosts[0].reliable.stats());
        }
    }

    pub(super) fn messages(&self, host: usize) -> Vec<(u8, Bytes)> {
        self.hosts[host]
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                ReliableEvent::Message { kind, body, .. } => Some((*kind, body.clone())),
                _ => None,
            })
            .collect()
    }

    pub(super) fn acked(&self, host: usize) -> Vec<MessageId> {
        self.hosts[host]
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                ReliableEvent::Acked { id, .. } => Some(*id),
                _ => None,
            })
            .collect()
    }

    pub(super) fn failed(&self, host: usize) -> Vec<(MessageId, FailReason)> {
        self.hosts[host]
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                ReliableEvent::Failed { id, reason, .. } => Some((*id, *reason)),
                _ => None,
            })
            .collect()
    }
}

/// A body that differs for each seed.
pub(super) fn body(length: usize, seed: u8) -> Vec<u8> {
    let mut body = vec![0; length];
    Rng::from_seed([seed; 32]).fill_bytes(&mut body);
    body
}
