//! The hubs' STUN servers, which tell us our reflexive addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::key::PublicKey;

/// A hub's STUN server in one address family.
#[derive(Debug, Clone, Copy)]
pub(super) struct StunServer {
    pub(super) addr: SocketAddr,
    /// The address from which we write to it.
    pub(super) source: Option<IpAddr>,
    /// Our address as the server sees it.
    pub(super) reflexive: Option<SocketAddr>,
    /// The last request's time, from that source address.
    pub(super) asked: Option<Instant>,
    /// The next request's time.
    pub(super) due: Instant,
}

impl StunServer {
    /// When the server may be asked early: `gap` after the last request.
    pub(super) fn soon(&self, now: Instant, gap: Duration) -> Instant {
        self.asked.map_or(now, |asked| now.max(asked + gap))
    }
}

/// The servers of each hub whose name is resolved: one of each family at most, v4 first.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<PublicKey, Vec<StunServer>>);

impl Servers {
    /// All servers, by hub.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StunServer> {
        self.0.values().flatten()
    }

    /// All servers, by hub.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut StunServer> {
        self.0.values_mut().flatten()
    }

    /// Our addresses as the hub sees them, at most one of each family.
    pub(super) fn reflexive(&self, hub: &PublicKey) -> impl Iterator<Item = SocketAddr> + use<'_> {
        self.0.get(hub).into_iter().flatten().filter_map(|server| server.reflexive)
    }

    /// Takes the first address of each family; all are queried at once. A reflexive address stays until the next
    /// answer of its family. An empty result leaves the known servers unchanged. `source` returns the address from
    /// which the host writes to another one.
    pub(super) fn resolved(
        &mut self,
        now: Instant,
        hub: PublicKey,
        found: &[SocketAddr],
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) {
        let servers = self.0.entry(hub).or_default();
        if !found.is_empty() {
            let known = std::mem::take(servers);
            for v4 in [true, false] {
                let canonical =
                    found.iter().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
                let Some(addr) = canonical.into_iter().find(|addr| addr.is_ipv4() == v4) else { continue };
                let known = known.iter().find(|server| server.addr.is_ipv4() == v4);
                let reflexive = known.and_then(|server| server.reflexive);
                servers.push(StunServer { addr, source: None, reflexive, asked: None, due: now });
            }
        }
        for server in servers {
            (server.source, server.due) = (source(server.addr.ip()), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: PublicKey = PublicKey::from_bytes([1; 32]);

    #[test]
    fn one_address_of_each_family_is_asked_and_what_it_said_stays_until_its_next_answer() {
        let now = crate::rt::test_now();
        let addrs =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let mut servers = Servers::default();
        let asked = |servers: &Servers| servers.iter().map(|server| server.addr).collect::<Vec<_>>();
        let mapped = "[::ffff:192.0.2.1]:1";
        for (found, expected) in [
            (addrs(&["[2001:db8::1]:1", mapped, "192.0.2.2:1"]), addrs(&["192.0.2.1:1", "[2001:db8::1]:1"])),
            (addrs(&[]), addrs(&["192.0.2.1:1", "[2001:db8::1]:1"])),
            (addrs(&["192.0.2.9:1"]), addrs(&["192.0.2.9:1"])),
        ] {
            servers.resolved(now, HUB, &found, |_| None);
            assert_eq!(asked(&servers), expected, "{found:?}");
            for server in servers.iter_mut().filter(|server| server.addr.is_ipv4()) {
                server.reflexive.get_or_insert(addrs(&["203.0.113.1:7"])[0]);
            }
            assert_eq!(servers.reflexive(&HUB).collect::<Vec<_>>(), addrs(&["203.0.113.1:7"]));
        }
    }
}
