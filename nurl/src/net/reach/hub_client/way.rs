//! The two ends of a hub's stream, by which a change of interfaces is judged.

use std::net::IpAddr;

use crate::rt::net::{Interface, TcpStream};

/// The addresses of a stream's two ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    local: IpAddr,
    hub: IpAddr,
}

impl Way {
    /// The ends of a stream.
    pub(super) fn of(stream: &TcpStream) -> Option<Way> {
        let (local, hub) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
        Some(Way { local: local.ip().to_canonical(), hub: hub.ip().to_canonical() })
    }

    /// The hub's end.
    pub(super) fn hub(&self) -> IpAddr {
        self.hub
    }

    /// Whether the local address still exists and traffic to the hub still leaves by its interface. `source` is the
    /// current source address of that traffic. It may be another address of the interface, since temporary addresses
    /// (RFC 8981) take turns.
    pub(super) fn holds(&self, interfaces: &[Interface], source: Option<IpAddr>) -> bool {
        let interface = |ip| interfaces.iter().find(|entry| entry.addr == ip).map(|entry| &entry.name);
        let own = interface(self.local);
        own.is_some() && own == source.and_then(interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_as_long_as_its_address_and_its_interface_do() {
        let interface =
            |(name, addr): &(&str, &str)| Interface { name: (*name).to_owned(), addr: addr.parse().unwrap() };
        let way = Way { local: "192.168.1.2".parse().unwrap(), hub: "192.0.2.1".parse().unwrap() };
        let (wifi, cell) = (("wlan0", "192.168.1.2"), ("wwan0", "100.64.0.9"));
        for (interfaces, source, stays, why) in [
            (vec![wifi], Some("192.168.1.2"), true, "nothing has changed"),
            (vec![wifi, ("docker0", "172.17.0.1")], Some("192.168.1.2"), true, "containers came"),
            (
                vec![wifi, ("wlan0", "192.168.1.77")],
                Some("192.168.1.77"),
                true,
                "another address of its interface",
            ),
            (vec![wifi, cell], Some("100.64.0.9"), false, "the route leads elsewhere"),
            (vec![cell], Some("100.64.0.9"), false, "its address went"),
            (vec![("wlan0", "10.0.0.2")], Some("10.0.0.2"), false, "another wifi"),
            (vec![wifi], None, false, "no route"),
            // The route may be newer than the list, so a change in between must count.
            (vec![], Some("192.168.1.2"), false, "its address went and came"),
        ] {
            let list: Vec<_> = interfaces.iter().map(interface).collect();
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(way.holds(&list, source), stays, "{why}");
        }
    }
}
