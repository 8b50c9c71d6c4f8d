//! Where we can be reached: interfaces, sockets' ports and reflexive addresses, told to peers and to rendezvous.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Transport;
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
            for hub in self.hubs.values_mut() {
                hub.reflexive = None;
                hub.stun_due = hub.addr.map(|_| now);
            }
            self.endpoint.on_network_change(now);
        }
        self.gather(now);
    }

    /// The ports of our sockets, by family.
    pub fn set_ports(&mut self, now: Instant, v4: Option<u16>, v6: Option<u16>) {
        self.ports = (v4, v6);
        self.gather(now);
    }

    /// A hub's name was resolved (or could not be).
    pub fn set_hub_addr(&mut self, now: Instant, hub: PublicKey, addr: Option<SocketAddr>) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.addr = addr.or(state.addr);
            state.stun_due = state.addr.map(|_| now);
        }
        self.gather(now);
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
            for state in self.hubs.values_mut().filter(|state| state.addr == Some(event.server)) {
                learned |= state.reflexive != Some(addr);
                state.reflexive = Some(addr);
            }
        }
        if learned {
            self.gather(now);
        }
        moved
    }

    /// Works out our candidates, and tells peers and rendezvous if they have changed.
    pub(super) fn gather(&mut self, now: Instant) {
        let reflexive: Vec<_> = self.hubs.values().filter_map(|hub| hub.reflexive).collect();
        let list = candidates(&Gathered {
            interfaces: &self.interfaces,
            port_v4: self.ports.0,
            port_v6: self.ports.1,
            hub: self.hubs.values().find_map(|hub| hub.addr),
            reflexive: &reflexive,
        });
        if list == self.candidates {
            return;
        }
        self.candidates = list;
        self.endpoint.set_local_candidates(now, &self.candidates);
        self.publish(now);
    }

    /// Puts our record, sealed, into every hub's rendezvous, if this node has one; the connections keep it there.
    pub(super) fn publish(&mut self, now: Instant) {
        let (Some(generation), Some(due)) = (self.generations.first(), &mut self.record_due) else { return };
        self.record_seq += 1;
        *due = now + RECORD_EVERY;
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
        for state in self.hubs.values_mut() {
            if let (Some(addr), Some(due)) = (state.addr, state.stun_due)
                && now >= due
            {
                // A full table of transactions means that one to this server is under way.
                let _ = self.stun.query(now, addr);
                state.stun_due = Some(now + STUN_EVERY);
            }
        }
        if self.record_due.is_some_and(|due| now >= due) {
            self.publish(now);
        }
    }

    /// A direct path was given up: our reflexive address may be another one by now.
    pub(super) fn on_direct_lost(&mut self, now: Instant) {
        for state in self.hubs.values_mut() {
            let early = |due: Instant| due.checked_sub(STUN_EVERY - STUN_AGAIN).unwrap_or(now).max(now);
            state.stun_due = state.stun_due.map(|due| due.min(early(due)));
        }
    }

    /// When [`refresh_candidates`](Transport::refresh_candidates) has something to do.
    pub(super) fn candidates_due(&self) -> Option<Instant> {
        self.hubs.values().filter_map(|hub| hub.stun_due).chain(self.record_due).min()
    }
}
