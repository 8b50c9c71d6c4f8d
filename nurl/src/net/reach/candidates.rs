//! Our own candidates: the addresses at which peers may try to reach us.
//!
//! The list is a pure function of the driver's input, so a table in a test fixes its order. Best first: the
//! interfaces' own addresses (a peer on the same network needs no NAT), then port-mapped and reflexive ones, of both
//! address families in turn; then the bridges of containers and virtual machines. The list is bounded
//! ([`MAX_CANDIDATES`]), and each group has a share of it: neither twelve bridges nor a host with many addresses
//! displaces the reflexive one.

use std::net::{IpAddr, SocketAddr};

use crate::net::secure::securedgram::paths::MAX_CANDIDATES;
use crate::rt::net::Interface;

/// Slots that interfaces can't take from reflexive addresses: one per family and server, for two hubs.
const REFLEXIVE_SHARE: usize = 4;

/// Interfaces of containers and virtual machines. Their addresses exist on countless other hosts too, and hardly ever
/// lead to ours. VPNs (`tun`, `wg`, `utun`, `tailscale`) are not in the list, because a peer may be on the same VPN.
const BRIDGES: [&str; 12] =
    ["docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "cni", "flannel", "cali", "lxc", "lxd", "podman"];

/// The input of `candidates`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gathered<'a> {
    /// This host's interfaces.
    pub interfaces: &'a [Interface],
    /// Where the v4 socket is bound, if there is one.
    pub v4: Option<SocketAddr>,
    /// Where the v6 socket is bound, if there is one.
    pub v6: Option<SocketAddr>,
    /// The hub in use. Loopback addresses are candidates only if the hub is on loopback: then the whole mesh is on
    /// one machine.
    pub hub: Option<SocketAddr>,
    /// Addresses that a NAT forwards to us on request, then those that STUN servers report, newest first.
    pub reflexive: &'a [SocketAddr],
}

/// The declared order is the order of the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    GlobalV6,
    PrivateV4,
    PublicV4,
    UniqueLocalV6,
    Loopback,
    Bridge,
}

/// Our candidates, best first, without duplicates, at most [`MAX_CANDIDATES`].
pub fn candidates(gathered: &Gathered<'_>) -> Vec<SocketAddr> {
    let loopback = gathered.hub.is_some_and(|hub| hub.ip().to_canonical().is_loopback());
    let mut own: Vec<(Rank, SocketAddr)> = Vec::new();
    for interface in gathered.interfaces {
        let ip = interface.addr.to_canonical();
        // A socket that is bound to one address receives nothing at the others.
        let hears = |bound: &SocketAddr| {
            bound.port() != 0 && (bound.ip().is_unspecified() || bound.ip().to_canonical() == ip)
        };
        let bound = if ip.is_ipv4() { gathered.v4 } else { gathered.v6 };
        let (Some(rank), Some(bound)) = (rank(&interface.name, ip), bound.filter(hears)) else {
            continue;
        };
        if rank != Rank::Loopback || loopback {
            own.push((rank, SocketAddr::new(ip, bound.port())));
        }
    }
    // The sort is stable: within a rank, the order of the interfaces remains.
    own.sort_by_key(|(rank, _)| *rank);
    let reflexive =
        gathered.reflexive.iter().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    let mut outside: Vec<SocketAddr> = Vec::new();
    for addr in reflexive.filter(|addr| addr.port() != 0 && rank("", addr.ip()).is_some()) {
        let known = outside.contains(&addr) || own.iter().any(|(_, known)| *known == addr);
        if !known && (!addr.ip().is_loopback() || loopback) {
            outside.push(addr);
        }
    }
    let reserved = outside.len().min(REFLEXIVE_SHARE);
    let ranked = |bridges: bool| {
        let own = own.iter().filter(move |(rank, _)| (*rank == Rank::Bridge) == bridges);
        own.map(|(_, addr)| *addr).collect::<Vec<_>>()
    };
    let mut list: Vec<SocketAddr> = Vec::with_capacity(MAX_CANDIDATES);
    for addr in in_turn(ranked(false)) {
        add(&mut list, addr, MAX_CANDIDATES - reserved);
    }
    for addr in outside {
        add(&mut list, addr, MAX_CANDIDATES);
    }
    list = in_turn(list);
    for addr in ranked(true) {
        add(&mut list, addr, MAX_CANDIDATES);
    }
    list
}

/// Whether a path to another host may lead over an interface. Loopback is excluded, and so are container bridges,
/// which come and go all the time.
pub(crate) fn leads_out(interface: &Interface) -> bool {
    !matches!(
        rank(&interface.name, interface.addr.to_canonical()),
        None | Some(Rank::Loopback | Rank::Bridge)
    )
}

fn add(list: &mut Vec<SocketAddr>, addr: SocketAddr, limit: usize) {
    if list.len() < limit && !list.contains(&addr) {
        list.push(addr);
    }
}

/// Alternates between the families, each in its order, beginning with the family of the first address (RFC 8421).
/// Peers try few addresses at a time, so many IPv6 addresses would delay the IPv4 ones, and many peers can use only
/// those.
fn in_turn(list: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let length = list.len();
    let v6_first = list.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = list.into_iter().partition(|addr| addr.is_ipv6() == v6_first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut merged = Vec::with_capacity(length);
    while merged.len() < length {
        merged.extend(one.next());
        merged.extend(other.next());
    }
    merged
}

/// Whether the name of an interface marks it as one of containers or virtual machines.
pub(crate) fn is_bridge(interface: &str) -> bool {
    BRIDGES.iter().any(|prefix| interface.starts_with(prefix))
}

/// The rank of an address; `None` if no other host can use it.
fn rank(interface: &str, ip: IpAddr) -> Option<Rank> {
    let usable = match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast(),
        // A link-local address needs a scope, which other hosts can't know (RFC 4007 §6).
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    if !usable || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() {
        return Some(Rank::Loopback);
    }
    if is_bridge(interface) {
        return Some(Rank::Bridge);
    }
    Some(match ip {
        IpAddr::V4(v4) if v4.is_private() => Rank::PrivateV4,
        IpAddr::V4(_) => Rank::PublicV4,
        IpAddr::V6(v6) if v6.is_unique_local() => Rank::UniqueLocalV6,
        IpAddr::V6(_) => Rank::GlobalV6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(interfaces: &[(&str, &str)], hub: &str, reflexive: &[&str]) -> Vec<String> {
        let interfaces: Vec<_> = interfaces
            .iter()
            .map(|(name, addr)| Interface { name: (*name).to_owned(), addr: addr.parse().unwrap() })
            .collect();
        let reflexive: Vec<_> = reflexive.iter().map(|addr| addr.parse().unwrap()).collect();
        let gathered = Gathered {
            interfaces: &interfaces,
            v4: Some(([0; 4], 4).into()),
            v6: Some(([0; 16], 6).into()),
            hub: hub.parse().ok(),
            reflexive: &reflexive,
        };
        candidates(&gathered).iter().map(ToString::to_string).collect()
    }

    const HUB: &str = "198.51.100.1:443";

    #[test]
    fn the_order_is_own_then_reflexive_then_bridges() {
        for (interfaces, hub, reflexive, expected) in [
            (vec![], HUB, vec![], vec![]),
            (vec![("lo", "127.0.0.1"), ("lo", "::1")], HUB, vec![], vec![]),
            (vec![("lo", "127.0.0.1"), ("lo", "::1")], "127.0.0.1:9", vec![], vec!["127.0.0.1:4", "[::1]:6"]),
            (vec![("lo", "127.0.0.1")], "[::ffff:127.0.0.1]:9", vec![], vec!["127.0.0.1:4"]),
            (
                vec![
                    ("docker0", "172.17.0.1"),
                    ("eth0", "192.168.1.2"),
                    ("eth0", "2001:db8::2"),
                    ("eth0", "fd00::2"),
                    ("eth0", "fe80::2"),
                    ("lo", "127.0.0.1"),
                    ("wg0", "10.9.0.2"),
                ],
                HUB,
                vec!["203.0.113.7:5000"],
                vec![
                    "[2001:db8::2]:6",
                    "192.168.1.2:4",
                    "[fd00::2]:6",
                    "10.9.0.2:4",
                    "203.0.113.7:5000",
                    "172.17.0.1:4",
                ],
            ),
            (
                vec![("eth0", "203.0.113.7"), ("eth0", "203.0.113.7")],
                HUB,
                vec!["203.0.113.7:4", "203.0.113.7:4", "203.0.113.7:77"],
                vec!["203.0.113.7:4", "203.0.113.7:77"],
            ),
            (
                vec![("eth0", "169.254.3.3"), ("eth0", "0.0.0.0")],
                HUB,
                vec!["0.0.0.0:1", "203.0.113.7:0"],
                vec![],
            ),
        ] {
            assert_eq!(list(&interfaces, hub, &reflexive), expected);
        }
    }

    #[test]
    fn twelve_bridges_never_bury_the_useful_address() {
        let names: Vec<_> =
            (0..12).map(|n| (format!("br-{n:012x}"), format!("172.{}.0.1", 18 + n))).collect();
        let mut interfaces: Vec<_> =
            names.iter().map(|(name, addr)| (name.as_str(), addr.as_str())).collect();
        interfaces.extend([("docker0", "172.17.0.1"), ("veth12", "10.0.3.1"), ("virbr0", "192.168.122.1")]);
        interfaces.push(("wlan0", "192.168.1.2"));
        let list = list(&interfaces, HUB, &["203.0.113.7:5000"]);
        assert_eq!(list[..2], ["192.168.1.2:4", "203.0.113.7:5000"]);
        assert_eq!(list.len(), MAX_CANDIDATES);
    }

    #[test]
    fn a_host_full_of_addresses_keeps_room_for_the_reflexive_ones() {
        let addrs: Vec<_> = (1..=40).map(|n| format!("10.0.0.{n}")).collect();
        let interfaces: Vec<_> = addrs.iter().map(|addr| ("eth0", addr.as_str())).collect();
        let reflexive: Vec<_> = (1..=9).map(|n| format!("203.0.113.7:{n}")).collect();
        let reflexive: Vec<_> = reflexive.iter().map(String::as_str).collect();
        let list = list(&interfaces, HUB, &reflexive);
        assert_eq!(list.len(), MAX_CANDIDATES);
        assert_eq!(list.iter().filter(|addr| addr.starts_with("203")).count(), REFLEXIVE_SHARE);
        assert_eq!(list[0], "10.0.0.1:4");
    }

    #[test]
    fn a_host_full_of_one_family_tells_the_other_early() {
        let addrs: Vec<_> = (1..=14).map(|n| format!("2001:db8::{n:x}")).collect();
        let mut interfaces: Vec<_> = addrs.iter().map(|addr| ("eth0", addr.as_str())).collect();
        interfaces.push(("eth0", "192.168.1.2"));
        let list = list(&interfaces, HUB, &["203.0.113.7:5000"]);
        assert_eq!(list[..4], ["[2001:db8::1]:6", "192.168.1.2:4", "[2001:db8::2]:6", "203.0.113.7:5000"]);
        assert_eq!(list.len(), MAX_CANDIDATES);
    }

    #[test]
    fn a_family_without_a_socket_has_no_candidates() {
        let interfaces = ["192.168.1.2", "2001:db8::2"]
            .map(|addr| Interface { name: "eth0".to_owned(), addr: addr.parse().unwrap() });
        let any: SocketAddr = ([0; 4], 4).into();
        let mut gathered = Gathered { interfaces: &interfaces, v4: Some(any), ..Gathered::default() };
        assert_eq!(candidates(&gathered), ["192.168.1.2:4".parse().unwrap()]);
        (gathered.v4, gathered.v6) = (Some(([0; 4], 0).into()), Some(([0; 16], 6).into()));
        assert_eq!(candidates(&gathered), ["[2001:db8::2]:6".parse().unwrap()]);
    }

    #[test]
    fn a_socket_that_is_bound_to_one_address_has_no_other_candidate() {
        let interfaces = ["127.0.0.1", "192.168.1.2", "10.0.0.2", "2001:db8::2", "2001:db8::3"]
            .map(|addr| Interface { name: "eth0".to_owned(), addr: addr.parse().unwrap() });
        for (v4, v6, hub, expected) in [
            ("127.0.0.1:4", None, HUB, vec![]),
            ("127.0.0.1:4", None, "127.0.0.1:9", vec!["127.0.0.1:4"]),
            ("10.0.0.2:4", None, HUB, vec!["10.0.0.2:4"]),
            ("10.0.0.2:4", None, "127.0.0.1:9", vec!["10.0.0.2:4"]),
            ("10.0.0.9:4", Some("[2001:db8::3]:6"), HUB, vec!["[2001:db8::3]:6"]),
        ] {
            let gathered = Gathered {
                interfaces: &interfaces,
                v4: v4.parse().ok(),
                v6: v6.and_then(|addr| addr.parse().ok()),
                hub: hub.parse().ok(),
                reflexive: &[],
            };
            let list: Vec<_> = candidates(&gathered).iter().map(ToString::to_string).collect();
            assert_eq!(list, expected, "{v4} {v6:?} {hub}");
        }
    }
}
