//! Our candidates: interfaces, bound sockets and reflexive addresses, sent to peers and to rendezvous.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{HubState, Transport};
use crate::key::PublicKey;
use crate::net::reach::candidates::{Gathered, candidates, leads_out};
use crate::net::reach::hub_client::HubCommand;
use crate::net::reach::rendezvous::Record;
use crate::net::reach::stun;
use crate::rt::net::Interface;

/// The interval of requests for the reflexive address: under the shortest common NAT timeout (30 s), so the mapping
/// in our candidates stays open.
const STUN_EVERY: Duration = Duration::from_secs(25);

/// While a path is being opened, the reflexive address is requested with each round of hole punching, but not within
/// this time of the last request: many paths may be opened at once, and punches are more frequent than mappings
/// change.
const STUN_AGAIN: Duration = Duration::from_secs(2);

/// The number of early requests allowed in quick succession …
pub(super) const HURRIES: u64 = 6;

/// … and then one per this many seconds: behind a NAT that maps each request to another address, each answer creates
/// new candidates, which cause new punches.
pub(super) const HURRY_SECONDS: u64 = 10;

/// How often our record is sealed again, and how long it is valid: an older record belongs to a node that is gone.
const RECORD_EVERY: Duration = Duration::from_secs(600);
const RECORD_LIFE: Duration = Duration::from_secs(1_200);

impl Transport {
    /// Sets the interfaces of this host, at the start and after each change; `source` returns the address from which
    /// the host writes to another one. Returns whether connections should check their route. The interface of a
    /// container bridge doesn't count.
    ///
    /// A path is in doubt only if an address from which it may have led is gone, or the route to a hub changed, or
    /// the first address after none appeared. An additional address only adds a candidate.
    pub fn set_interfaces(
        &mut self,
        now: Instant,
        interfaces: Vec<Interface>,
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> bool {
        let (before, first) = (ways(&self.interfaces), self.interfaces.is_empty());
        self.interfaces = interfaces;
        let after = ways(&self.interfaces);
        let rerouted = self.reroute(now, source);
        if before == after && !rerouted {
            self.gather(now);
            return false;
        }
        if !first && (rerouted || before.is_empty() || !before.is_subset(&after)) {
            self.observed.clear();
            self.endpoint.on_network_change(now);
        }
        self.gather(now);
        !first
    }

    /// Updates the source address of requests to each hub's STUN server. A reflexive address learned from another
    /// source address is discarded. Returns whether any source changed.
    fn reroute(&mut self, now: Instant, source: impl Fn(IpAddr) -> Option<IpAddr>) -> bool {
        let here = |ip: &IpAddr| self.interfaces.iter().any(|interface| interface.addr == *ip);
        let mut rerouted = false;
        for server in self.hubs.values_mut().flat_map(|hub| &mut hub.servers) {
            // The routing table may be newer than the interface list, whose change is reported later.
            let source = source(server.addr.ip()).filter(here);
            if server.source != source {
                (server.source, server.reflexive, server.asked, server.due) = (source, None, None, now);
                rerouted = true;
            }
        }
        rerouted
    }

    /// Sets the addresses of our sockets, by family.
    pub fn set_bound(&mut self, now: Instant, v4: Option<SocketAddr>, v6: Option<SocketAddr>) {
        self.bound = (v4, v6);
        self.gather(now);
    }

    /// Sets the addresses to which a hub's name resolves, in the resolver's order. If there are none, the known ones
    /// stay. The first address of each family is queried. `source` is the same as in
    /// [`set_interfaces`](Transport::set_interfaces).
    pub fn set_hub_addrs(
        &mut self,
        now: Instant,
        hub: PublicKey,
        found: &[SocketAddr],
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.resolved(now, found);
            for server in &mut state.servers {
                server.source = source(server.addr.ip());
            }
        }
        self.gather(now);
    }

    /// Whether a request to `server` has a socket and an interface to leave by.
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
            let stun::StunOutcome::Reflexive { addr, .. } = event.outcome else { continue };
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

    /// Computes our candidates, and sends them to peers and rendezvous if they have changed.
    pub(super) fn gather(&mut self, now: Instant) {
        // A server's answer takes precedence over peers' reports.
        let reflexive = self.hubs.values().flat_map(HubState::reflexive);
        let reflexive: Vec<_> = reflexive.chain(self.observed.agreed()).collect();
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

    /// Publishes our sealed record in every hub's rendezvous, if this node has one; the connections keep it there.
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
                // The record's limit on candidates is the same as ours.
                Err(_) => self.stats.hub_dropped += 1,
            }
        }
    }

    /// Requests reflexive addresses and publishes our record, when either is due.
    pub(super) fn refresh_candidates(&mut self, now: Instant) {
        let servers = self.hubs.values().flat_map(|hub| &hub.servers).filter(|server| now >= server.due);
        let due: Vec<_> = servers.map(|server| server.addr).filter(|addr| self.can_ask(*addr)).collect();
        for addr in due {
            // A full table of transactions means that one to this server is in progress.
            let _ = self.stun.query(now, addr);
        }
        for server in self.hubs.values_mut().flat_map(|hub| &mut hub.servers) {
            if now >= server.due {
                (server.asked, server.due) = (Some(now), now + STUN_EVERY);
            }
        }
        if self.record_due.is_some_and(|due| now >= due) {
            self.publish(now);
        }
    }

    /// A path is being opened, or our address may have changed: requests the reflexive address soon.
    pub(super) fn hurry_stun(&mut self, now: Instant) {
        let servers = self.hubs.values_mut().flat_map(|hub| &mut hub.servers);
        let mut late: Vec<_> = servers.filter(|server| server.soon(now, STUN_AGAIN) < server.due).collect();
        if late.is_empty() || !self.hurries.take(now, HURRY_SECONDS) {
            return;
        }
        for server in &mut late {
            server.due = server.soon(now, STUN_AGAIN);
        }
    }

    /// A peer reported our address. An unknown address triggers a STUN request, and becomes a candidate once two
    /// peers report it.
    pub(super) fn on_observed(&mut self, now: Instant, peer: PublicKey, addr: SocketAddr) {
        self.observed.note(peer, addr);
        if !self.candidates.contains(&addr) {
            self.hurry_stun(now);
        }
        self.gather(now);
    }

    /// A peer's session ended: drops its report.
    pub(super) fn forget_observed(&mut self, now: Instant, peer: &PublicKey) {
        if self.observed.forget(peer) {
            self.gather(now);
        }
    }

    /// When [`refresh_candidates`](Transport::refresh_candidates) is due.
    pub(super) fn candidates_due(&self) -> Option<Instant> {
        let servers = self.hubs.values().flat_map(|hub| &hub.servers);
        servers.map(|server| server.due).chain(self.record_due).min()
    }
}

/// The addresses from which paths to other hosts may lead.
fn ways(interfaces: &[Interface]) -> BTreeSet<IpAddr> {
    interfaces.iter().filter(|interface| leads_out(interface)).map(|interface| interface.addr).collect()
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::key::{AllowList, SecretKey};
    use crate::mesh::{Hub, Ticket};
    use crate::net::reach::listen::Listen;
    use crate::rt::Rng;
    use crate::transport::{Limits, TransportConfig};

    const HUB: [u8; 4] = [192, 0, 2, 1];

    #[expect(clippy::disallowed_methods, reason = "only differences matter")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn list(interfaces: &[(&str, &str)]) -> Vec<Interface> {
        let entry =
            |(name, addr): &(&str, &str)| Interface { name: (*name).to_owned(), addr: addr.parse().unwrap() };
        interfaces.iter().map(entry).collect()
    }

    /// A transport on the interfaces `from`, with one hub that is resolved and not queried yet.
    fn transport(now: Instant, from: &[(&str, &str)], source: &str) -> (Transport, PublicKey) {
        let mut rng = Rng::seed_from_u64(1);
        let hub = SecretKey::generate(&mut rng).public();
        let config = TransportConfig {
            key: SecretKey::generate(&mut rng),
            ticket: Ticket::generate(Hub { key: hub, addr: "hub:4242".to_owned() }, &mut rng),
            allow: AllowList::Anyone,
            boot: 1,
            listed: true,
            listen: Listen::default(),
            limits: Limits::default(),
        };
        let mut transport =
            Transport::new(&config, now, Duration::from_secs(1_000_000), |_| Rng::seed_from_u64(2));
        transport.set_bound(now, Some(([0; 4], 4_000).into()), None);
        let source = |_| source.parse().ok();
        transport.set_interfaces(now, list(from), source);
        transport.set_hub_addrs(now, hub, &[(HUB, 4_242).into()], source);
        (transport, hub)
    }

    /// Lets the hub's STUN server answer every request at `now`. Returns the number of requests.
    fn answer(transport: &mut Transport, now: Instant, mapped: SocketAddr) -> usize {
        transport.handle_timeout(now);
        let mut asked = 0;
        while let Some(request) = transport.stun.poll_transmit(now) {
            let response = stun::answer(&request.contents, mapped).unwrap();
            assert!(transport.stun.handle_datagram(now, request.destination, &response));
            asked += 1;
        }
        transport.pump(now);
        asked
    }

    fn reflexive(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], port))
    }

    #[test]
    fn only_a_way_that_went_takes_the_reflexive_address_with_it() {
        let (wifi, lan) = (("wlan0", "192.168.1.2"), ("eth0", "192.168.1.3"));
        let (docker, cell) = (("docker0", "172.17.0.1"), ("wwan0", "100.64.0.9"));
        let from = "192.168.1.2";
        for (to, source, look, kept, why) in [
            (vec![wifi, lan], from, false, true, "nothing has changed"),
            (vec![wifi, lan, docker], from, false, true, "a bridge comes"),
            (vec![wifi, lan, cell], from, true, true, "an interface comes in addition"),
            (vec![wifi], from, true, true, "an interface goes that led elsewhere"),
            (vec![lan], "192.168.1.3", true, false, "the address goes"),
            (vec![wifi, lan, cell], "100.64.0.9", true, false, "the route leads elsewhere"),
            (vec![lan], from, true, false, "the address has gone and is back already"),
            (vec![], "none", true, false, "there is none any more"),
        ] {
            let now = origin();
            let (mut transport, _) = transport(now, &[wifi, lan], from);
            answer(&mut transport, now, reflexive(1));
            assert!(transport.candidates.contains(&reflexive(1)));
            let later = now + Duration::from_secs(1);
            assert_eq!(transport.set_interfaces(later, list(&to), |_| source.parse().ok()), look, "{why}");
            assert_eq!(transport.candidates.contains(&reflexive(1)), kept, "{why}");
            let asked = answer(&mut transport, later, reflexive(2)) > 0;
            assert_eq!(asked, !kept && !to.is_empty(), "{why}: another one is asked for at once");
        }
    }

    #[test]
    fn the_reflexive_address_is_asked_for_with_each_punch_and_never_in_a_storm() {
        let now = origin();
        let (mut transport, _) = transport(now, &[("wlan0", "192.168.1.2")], "192.168.1.2");
        assert_eq!(answer(&mut transport, now, reflexive(1)), 1);
        let mut asked = Vec::new();
        for tenth in 1..=600 {
            let at = now + Duration::from_millis(100 * tenth);
            transport.hurry_stun(at);
            if answer(&mut transport, at, reflexive(1)) > 0 {
                asked.push(tenth / 10);
            }
        }
        assert_eq!(asked[..6], [2, 4, 6, 8, 10, 12], "while a way is being opened");
        assert!(asked.len() <= 6 + 6 + 1, "a minute of it: {asked:?}");
    }

    #[test]
    fn what_peers_see_is_a_sign_at_once_and_a_candidate_when_two_agree() {
        let now = origin();
        let (mut transport, _) = transport(now, &[("wlan0", "192.168.1.2")], "192.168.1.2");
        answer(&mut transport, now, reflexive(1));
        let (one, other) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let later = now + Duration::from_secs(10);
        transport.on_observed(later, one, reflexive(1));
        assert_eq!(answer(&mut transport, later, reflexive(1)), 0, "the peer says what is known");
        transport.on_observed(later, one, reflexive(2));
        assert!(!transport.candidates.contains(&reflexive(2)));
        transport.on_observed(later, other, reflexive(2));
        assert!(transport.candidates.contains(&reflexive(2)));
        assert_eq!(answer(&mut transport, later, reflexive(1)), 1, "the server is asked again");
        transport.forget_observed(later, &other);
        assert!(!transport.candidates.contains(&reflexive(2)));
    }
}
