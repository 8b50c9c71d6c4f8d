//! Our candidates: interfaces, bound sockets and reflexive addresses, gathered for peers and for rendezvous.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::observed::Observed;
use super::servers::Servers;
use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::net::reach::candidates::{Gathered, candidates, leads_out};
use crate::net::reach::stun;
use crate::rt::Rng;
use crate::rt::net::Interface;

/// The interval of requests for the reflexive address: under the shortest common NAT timeout (30 s), so the mapping
/// in our candidates stays open.
const STUN_EVERY: Duration = Duration::from_secs(25);

/// While a path is being opened, the reflexive address is requested with each round of hole punching, but not within
/// this time of the last request: many paths may be opened at once, and punches are more frequent than mappings
/// change.
const STUN_AGAIN: Duration = Duration::from_secs(2);

/// The number of early requests allowed in quick succession …
const HURRIES: u64 = 6;

/// … and then one per this many seconds: behind a NAT that maps each request to another address, each answer creates
/// new candidates, which cause new punches.
const HURRY_SECONDS: u64 = 10;

/// A change of the interface list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether paths are in doubt: an address from which one may have led is gone, the route to a hub changed, or the
    /// first address after none appeared. An additional address only adds a candidate.
    pub(super) in_doubt: bool,
    /// Whether connections should check their route.
    pub(super) look: bool,
}

/// The addresses at which this node may be reached, and the sources that name them.
pub(super) struct Gatherer {
    stun: stun::Client,
    servers: Servers,
    observed: Observed,
    interfaces: Vec<Interface>,
    /// Where the sockets are bound, v4 and v6.
    bound: (Option<SocketAddr>, Option<SocketAddr>),
    list: Vec<SocketAddr>,
    /// Token bucket for early requests for the reflexive address, in seconds that each request costs.
    hurries: TokenBucket,
}

impl Gatherer {
    /// A gatherer that knows no address yet.
    pub(super) fn new(now: Instant, rng: Rng) -> Gatherer {
        Gatherer {
            stun: stun::Client::new(rng),
            servers: Servers::default(),
            observed: Observed::default(),
            interfaces: Vec::new(),
            bound: (None, None),
            list: Vec::new(),
            hurries: TokenBucket::new(1, HURRIES * HURRY_SECONDS, now),
        }
    }

    /// The candidates as of the last [`gather`](Gatherer::gather).
    pub(super) fn list(&self) -> &[SocketAddr] {
        &self.list
    }

    /// Our addresses as the hub sees them, at most one of each family.
    pub(super) fn reflexive(&self, hub: &PublicKey) -> impl Iterator<Item = SocketAddr> + use<'_> {
        self.servers.reflexive(hub)
    }

    /// Sets the interfaces of this host; `source` returns the address from which the host writes to another one. The
    /// interface of a container bridge doesn't count.
    pub(super) fn set_interfaces(
        &mut self,
        now: Instant,
        interfaces: Vec<Interface>,
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> Change {
        let (before, first) = (ways(&self.interfaces), self.interfaces.is_empty());
        self.interfaces = interfaces;
        let after = ways(&self.interfaces);
        let rerouted = self.reroute(now, source);
        if before == after && !rerouted {
            return Change { in_doubt: false, look: false };
        }
        let in_doubt = !first && (rerouted || before.is_empty() || !before.is_subset(&after));
        if in_doubt {
            self.observed.clear();
        }
        Change { in_doubt, look: !first }
    }

    /// Updates the source address of requests to each hub's STUN server. A reflexive address learned from another
    /// source address is discarded. Returns whether any source changed.
    fn reroute(&mut self, now: Instant, source: impl Fn(IpAddr) -> Option<IpAddr>) -> bool {
        let here = |ip: &IpAddr| self.interfaces.iter().any(|interface| interface.addr == *ip);
        let mut rerouted = false;
        for server in self.servers.iter_mut() {
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
    pub(super) fn set_bound(&mut self, v4: Option<SocketAddr>, v6: Option<SocketAddr>) {
        self.bound = (v4, v6);
    }

    /// Sets the addresses to which a hub's name resolves, in the resolver's order. If there are none, the known ones
    /// stay. The first address of each family is queried. `source` is the same as in
    /// [`set_interfaces`](Gatherer::set_interfaces).
    pub(super) fn set_hub_addrs(
        &mut self,
        now: Instant,
        hub: PublicKey,
        found: &[SocketAddr],
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) {
        self.servers.resolved(now, hub, found, source);
    }

    /// Computes the candidates. Returns whether they have changed.
    pub(super) fn gather(&mut self) -> bool {
        // A server's answer takes precedence over peers' reports.
        let reflexive = self.servers.iter().filter_map(|server| server.reflexive);
        let reflexive: Vec<_> = reflexive.chain(self.observed.agreed()).collect();
        let list = candidates(&Gathered {
            interfaces: &self.interfaces,
            v4: self.bound.0,
            v6: self.bound.1,
            hub: self.servers.iter().next().map(|server| server.addr),
            reflexive: &reflexive,
        });
        let changed = list != self.list;
        self.list = list;
        changed
    }

    /// A path is being opened, or our address may have changed: requests the reflexive address soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        let servers = self.servers.iter_mut();
        let mut late: Vec<_> = servers.filter(|server| server.soon(now, STUN_AGAIN) < server.due).collect();
        if late.is_empty() || !self.hurries.take(now, HURRY_SECONDS) {
            return;
        }
        for server in &mut late {
            server.due = server.soon(now, STUN_AGAIN);
        }
    }

    /// The host was suspended: every server is asked again.
    pub(super) fn on_suspend(&mut self, now: Instant) {
        for server in self.servers.iter_mut() {
            server.due = now;
        }
    }

    /// A peer reported our address. An unknown address triggers a STUN request, and becomes a candidate once two
    /// peers report it.
    pub(super) fn on_observed(&mut self, now: Instant, peer: PublicKey, addr: SocketAddr) {
        self.observed.note(peer, addr);
        if !self.list.contains(&addr) {
            self.hurry(now);
        }
    }

    /// A peer's session ended: drops its report. Returns whether there was one.
    pub(super) fn forget(&mut self, peer: &PublicKey) -> bool {
        self.observed.forget(peer)
    }

    /// Handles a STUN datagram.
    pub(super) fn handle_datagram(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        self.stun.handle_datagram(now, source, datagram);
    }

    /// The counters of the questions.
    pub(super) fn stats(&self) -> &stun::StunStats {
        self.stun.stats()
    }

    /// The next request to a server.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<stun::Transmit> {
        self.stun.poll_transmit(now)
    }

    /// Takes the servers' answers. Returns whether a reflexive address is new.
    pub(super) fn take_answers(&mut self) -> bool {
        let mut learned = false;
        while let Some(event) = self.stun.poll_event() {
            let stun::StunOutcome::Reflexive { addr, .. } = event.outcome else { continue };
            for server in self.servers.iter_mut().filter(|server| server.addr == event.server) {
                learned |= server.reflexive != Some(addr);
                server.reflexive = Some(addr);
            }
        }
        learned
    }

    /// Requests the reflexive addresses that are due, and gives up requests without an answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let servers = self.servers.iter().filter(|server| now >= server.due);
        let due: Vec<_> = servers.map(|server| server.addr).filter(|addr| self.can_ask(*addr)).collect();
        for addr in due {
            // A full table of transactions means that one to this server is in progress.
            let _ = self.stun.query(now, addr);
        }
        for server in self.servers.iter_mut() {
            if now >= server.due {
                (server.asked, server.due) = (Some(now), now + STUN_EVERY);
            }
        }
        self.stun.handle_timeout(now);
    }

    /// When [`handle_timeout`](Gatherer::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.servers.iter().map(|server| server.due).chain(self.stun.poll_timeout()).min()
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
    use crate::transport::{Limits, Transport, TransportConfig};

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
            ticket: Ticket::generate(
                crate::mesh::MeshId::from_bytes([1; 32]),
                Hub { key: hub, addr: "hub:4242".to_owned() },
                &mut rng,
            ),
            credential: None,
            name: String::new(),
            allow: AllowList::Anyone,
            boot: 1,
            listed: true,
            listen: Listen::default(),
            limits: Limits::default(),
            versions: crate::net::secure::version::Versions::SPOKEN,
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
        while let Some(request) = transport.gatherer.stun.poll_transmit(now) {
            let response = stun::answer(&request.contents, mapped).unwrap();
            assert!(transport.gatherer.stun.handle_datagram(now, request.destination, &response));
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
            assert!(transport.gatherer.list().contains(&reflexive(1)));
            let later = now + Duration::from_secs(1);
            assert_eq!(transport.set_interfaces(later, list(&to), |_| source.parse().ok()), look, "{why}");
            assert_eq!(transport.gatherer.list().contains(&reflexive(1)), kept, "{why}");
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
            transport.gatherer.hurry(at);
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
        let observe = |transport: &mut Transport, now, peer, addr| {
            transport.gatherer.on_observed(now, peer, addr);
            transport.gatherer.gather();
        };
        observe(&mut transport, later, one, reflexive(1));
        assert_eq!(answer(&mut transport, later, reflexive(1)), 0, "the peer says what is known");
        observe(&mut transport, later, one, reflexive(2));
        assert!(!transport.gatherer.list().contains(&reflexive(2)));
        observe(&mut transport, later, other, reflexive(2));
        assert!(transport.gatherer.list().contains(&reflexive(2)));
        assert_eq!(answer(&mut transport, later, reflexive(1)), 1, "the server is asked again");
        assert!(transport.gatherer.forget(&other) && transport.gatherer.gather());
        assert!(!transport.gatherer.list().contains(&reflexive(2)));
    }
}
