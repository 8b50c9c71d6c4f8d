//! Chooses the address that a hub advertises when the configuration names none.
//!
//! The choice is a pure function of the interfaces and of the host's routes. The source address of the default route
//! comes first, because other hosts see this host under it. The names of interfaces are a weak hint, and their order
//! is arbitrary: alphabetically the container bridges (`br-…`, `docker0`) come before `eth0`, and no other host
//! reaches a hub there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::candidates::is_bridge;
use crate::rt::net::{self, Interface};

/// Destinations for the route look-up: addresses of a root name server (a.root-servers.net). They are on the public
/// internet, so only a default route leads to them. No packet is sent to them.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Why an address was chosen. The declared order is the order of choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The source address of the default route.
    DefaultRoute,
    /// There is no default route; the address belongs to an interface.
    Interface,
    /// Only interfaces of containers and virtual machines have addresses.
    Bridge,
    /// This host has no other address.
    Loopback,
}

impl Why {
    /// The machine-readable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::DefaultRoute => "default-route",
            Why::Interface => "interface",
            Why::Bridge => "bridge",
            Why::Loopback => "loopback",
        }
    }
}

/// An address to advertise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The address.
    pub ip: IpAddr,
    /// The interface that has the address, if one is listed.
    pub interface: Option<String>,
    /// Why the address was chosen.
    pub why: Why,
}

/// The address to advertise for a hub that listens on every address of these families. Among equals v4 comes first:
/// more hosts lack v6 than v4.
pub fn advertise(interfaces: &[Interface], sources: &[IpAddr], v4: bool, v6: bool) -> Choice {
    let listed = |ip: IpAddr| interfaces.iter().find(|interface| interface.addr == ip);
    let routed = sources.iter().map(|ip| Choice {
        ip: *ip,
        interface: listed(*ip).map(|interface| interface.name.clone()),
        why: Why::DefaultRoute,
    });
    let others = interfaces.iter().map(|interface| Choice {
        ip: interface.addr,
        interface: Some(interface.name.clone()),
        why: if is_bridge(&interface.name) { Why::Bridge } else { Why::Interface },
    });
    let usable = |choice: &Choice| {
        let family = if choice.ip.is_ipv4() { v4 } else { v6 };
        family && is_usable(choice.ip)
    };
    let best = routed.chain(others).filter(usable).min_by_key(|choice| (choice.why, choice.ip.is_ipv6()));
    let loopback = if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    best.unwrap_or(Choice { ip: loopback, interface: None, why: Why::Loopback })
}

/// The source addresses of this host's default routes, at most one of each family.
pub fn default_sources() -> Vec<IpAddr> {
    // A family without a route has no source address.
    ANYWHERE.iter().filter_map(|remote| net::source_towards(*remote).ok()).collect()
}

/// Whether another host may reach the address: loopback, link-local, unspecified and multicast addresses are
/// excluded.
fn is_usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorts the interfaces, as the shim does.
    fn chosen(interfaces: &str, sources: &str, families: &str) -> String {
        let mut interfaces: Vec<_> = interfaces
            .split_whitespace()
            .map(|entry| {
                let (name, addr) = entry.split_once('=').unwrap();
                Interface { name: name.to_owned(), addr: addr.parse().unwrap() }
            })
            .collect();
        interfaces.sort();
        let sources: Vec<_> = sources.split_whitespace().map(|addr| addr.parse().unwrap()).collect();
        let choice = advertise(&interfaces, &sources, families.contains('4'), families.contains('6'));
        let interface = choice.interface.unwrap_or_else(|| "-".to_owned());
        format!("{} {interface} {}", choice.ip, choice.why.as_str())
    }

    #[test]
    fn the_default_route_decides_and_bridges_come_last() {
        let lo = "lo=127.0.0.1 lo=::1";
        for (what, interfaces, sources, families, expected) in [
            ("one network", "eth0=192.0.2.7", "192.0.2.7", "46", "192.0.2.7 eth0 default-route"),
            (
                "a developer's machine",
                "br-5f3a=172.18.0.1 docker0=172.17.0.1 wlp2s0=192.168.1.20",
                "192.168.1.20",
                "46",
                "192.168.1.20 wlp2s0 default-route",
            ),
            (
                "virtual machines",
                "enp3s0=10.0.0.5 virbr0=192.168.122.1 vmnet8=172.16.8.1",
                "10.0.0.5",
                "4",
                "10.0.0.5 enp3s0 default-route",
            ),
            (
                "a cluster's node",
                "cni0=10.42.0.1 eth0=10.1.2.3 flannel.1=10.42.0.0 veth12=169.254.1.1",
                "10.1.2.3",
                "46",
                "10.1.2.3 eth0 default-route",
            ),
            (
                "a management network before the one that leads out",
                "eth0=10.9.9.9 eth1=203.0.113.7",
                "203.0.113.7",
                "46",
                "203.0.113.7 eth1 default-route",
            ),
            ("in a container", "eth0=172.17.0.2", "172.17.0.2", "46", "172.17.0.2 eth0 default-route"),
            (
                "a bridge that is this host's own way out",
                "br0=192.168.1.2 docker0=172.17.0.1",
                "192.168.1.2",
                "46",
                "192.168.1.2 br0 default-route",
            ),
            (
                "both families",
                "docker0=172.17.0.1 eth0=192.0.2.7 eth0=2001:db8::7",
                "192.0.2.7 2001:db8::7",
                "46",
                "192.0.2.7 eth0 default-route",
            ),
            (
                "both families, listened on in one",
                "eth0=192.0.2.7 eth0=2001:db8::7",
                "192.0.2.7 2001:db8::7",
                "6",
                "2001:db8::7 eth0 default-route",
            ),
            (
                "v6 alone leads out",
                "docker0=172.17.0.1 eth0=2001:db8::7",
                "2001:db8::7",
                "46",
                "2001:db8::7 eth0 default-route",
            ),
            (
                "no route out",
                "br-5f3a=172.18.0.1 docker0=172.17.0.1 eth0=192.168.5.5",
                "",
                "46",
                "192.168.5.5 eth0 interface",
            ),
            (
                "nothing but bridges",
                "docker0=172.17.0.1 veth1=169.254.7.7",
                "",
                "46",
                "172.17.0.1 docker0 bridge",
            ),
            ("nothing", "", "", "46", "127.0.0.1 - loopback"),
            ("nothing in v6", "eth0=192.0.2.7", "192.0.2.7", "6", "::1 - loopback"),
            ("a route by an interface that isn't listed", "", "192.0.2.9", "4", "192.0.2.9 - default-route"),
        ] {
            assert_eq!(chosen(&format!("{lo} {interfaces}"), sources, families), expected, "{what}");
        }
    }
}
