//! Where we can be reached: interfaces, bound sockets and reflexive addresses, told to peers and to rendezvous.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{HubState, Transport};
use crate::key::PublicKey;
use crate::net::candidates::{Gathered, candidates};
use crate::net::hub_client::HubCommand;
use crate::net::rendezvous::Record;
use crate::net::stun;
use crate::rt::net::Interface;

/// How often the reflexive address is asked for again: under the shortest common NAT timeout (30 s), so that
/// the mapping which candidates name stays open.
const STUN_EVERY: Duration = Duration::from_secs(25);

/// A direct path that was lost may have been lost with our mapping, so the reflexive address is asked for at once,
/// but no sooner than this after the last time: many paths may be lost together, and again and again.
const STUN_AGAIN: Duration = Duration::from_secs(5);

/// How often our record is sealed anew, and how long one may be believed: a reader that finds an older one
/// found the trace of a node that is gone.
const RECORD_EVERY: Duration = Duration::from_secs(600);
const RECORD_LIFE: Duration = Duration::from_secs(1_200);

impl Transport {
    /// The interfaces of this host, at the start and whenever they change.
    pub fn set_interfaces(&mut self, now: Instant, interfaces: Vec<Interface>) {
        let changed = !self.interfaces.is_empty() && self.interfaces != interfaces;
        self.interfaces = interfaces;
        if changed {
            for server in self.hubs.values_mut().flat_map(|hub| &mut hub.servers) {
                server.reflexive = None;
                server.due = now;
            }
            self.endpoint.on_network_change(now);
        }
        self.gather(now);
    }

    /// Where our sockets are bound, by family.
    pub fn set_bound(&mut self, now: Instant, v4: Option<SocketAddr>, v6: Option<SocketAddr>) {
        self.bound = (v4, v6);
        self.gather(now);
    }

    /// What a hub's name stands for, as the resolver orders it; nothing if it could not be resolved, and then what
    /// was known holds. Of each family the first address is asked.
    pub fn set_hub_addrs(&mut self, now: Instant, hub: PublicKey, found: &[SocketAddr]) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.resolved(now, found);
        }
        self.gather(now);
    }

    /// Whether a request to `server` has a socket to leave by, and an interface.
    fn can_ask(&self, server: SocketAddr) -> bool {
        let (ip, (v4, v6)) = (server.ip(), self.bound);
        let leads_there = |interface: &Interface| {
            interface.addr.is_ipv4() == ip.is_ipv4() && interface.addr.is_loopback() == ip.is_loopback()
        };
        let bound = if ip.is_ipv4() { v4 } else { v6 };
        let sends =
            |bound: SocketAddr| bound.ip().is_unspecified() || bound.ip().is_loopback() == ip.is_loopback();
        bound.is_some_and(sends) && self.interfaces.iter().any(leads_there)
    }

    pub(super) fn pump_stun(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(request) = self.stun.poll_transmit(now) {
            self.outbox.push(request.destination, &request.contents);
            moved = true;
        }
        let mut learned = false;
        while let Some(event) = self.stun.poll_event() {
            let stun::Outcome::Reflexive { addr, .. } = event.outcome else { continue };
            let servers = self.hubs.values_mut().flat_map(|hub| &mut hub.servers);
            for server in servers.filter(|server| server.addr == event.server) {
                learned |= server.reflexive != Some(addr);
                server.reflexive = Some(addr);
            }
        }
        if learned {
            self.gather(now);
        }
        moved
    }

    /// Works out our candidates, and tells peers and rendezvous if they have changed.
    pub(super) fn gather(&mut self, now: Instant) {
        let reflexive: Vec<_> = self.hubs.values().flat_map(HubState::reflexive).collect();
        let list = candidates(&Gathered {
            interfaces: &self.interfaces,
            v4: self.bound.0,
            v6: self.bound.1,
            hub: self.hubs.values().find_map(|hub| hub.servers.first()).map(|server| server.addr),
            reflexive: &reflexive,
        });
        if list == self.candidates {
            return;
        }
        self.candidates = list;
        self.endpoint.set_local_candidates(now, &self.candidates);
        self.publish(now);
    }

    /// Puts our record, sealed, into every hub's rendezvous; the connections keep it there.
    pub(super) fn publish(&mut self, now: Instant) {
        let Some(generation) = self.generations.first() else { return };
        self.record_seq += 1;
        self.record_due = now + RECORD_EVERY;
        let (base, unix_base) = self.unix_base;
        let expires = unix_base + now.saturating_duration_since(base) + RECORD_LIFE;
        for (hub, state) in &mut self.hubs {
            let record =
                Record { candidates: self.candidates.clone(), home: Some(*hub), capabilities: 0, expires };
            match record.seal(generation, &self.local, self.record_seq, &mut self.rng) {
                Ok(sealed) => {
                    let sealed = Bytes::from(sealed);
                    let order = HubCommand::Publish { seq: self.record_seq, sealed };
                    self.stats.hub_dropped += u64::from(state.push(order));
                }
                // Candidates are bounded by the same number.
                Err(_) => self.stats.hub_dropped += 1,
            }
        }
    }

    /// Asks for reflexive addresses and publishes, when either is due.
    pub(super) fn refresh_candidates(&mut self, now: Instant) {
        let servers = self.hubs.values().flat_map(|hub| &hub.servers).filter(|server| now >= server.due);
        let due: Vec<_> = servers.map(|server| server.addr).filter(|addr| self.can_ask(*addr)).collect();
        for addr in due {
            // A full table of transactions means that one to this server is under way.
            let _ = self.stun.query(now, addr);
        }
        for server in self.hubs.values_mut().flat_map(|hub| &mut hub.servers) {
            if now >= server.due {
                server.due = now + STUN_EVERY;
            }
        }
        if now >= self.record_due {
            self.publish(now);
        }
    }

    /// A direct path was given up: our reflexive address may be another one by now.
    pub(super) fn on_direct_lost(&mut self, now: Instant) {
        for server in self.hubs.values_mut().flat_map(|hub| &mut hub.servers) {
            let early = server.due.checked_sub(STUN_EVERY - STUN_AGAIN).unwrap_or(now).max(now);
            server.due = server.due.min(early);
        }
    }

    /// When [`refresh_candidates`](Transport::refresh_candidates) has something to do.
    pub(super) fn candidates_due(&self) -> Option<Instant> {
        let servers = self.hubs.values().flat_map(|hub| &hub.servers);
        servers.map(|server| server.due).chain([self.record_due]).min()
    }
}
