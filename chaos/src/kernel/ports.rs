//! The port table of one transport: the socket that has each port of each address.

use super::slab::Key;
use crate::seed::{Rng, below};
use rand_core::Rng as _;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Ephemeral ports: Linux's `ip_local_port_range`.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// The sockets bound to each port; sockets on different addresses may share a port.
#[derive(Debug, Default)]
pub(crate) struct Ports(BTreeMap<u16, Vec<(IpAddr, Key)>>);

/// Whether two addresses are both of IPv4, or both of IPv6.
pub(crate) fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// Whether two sockets can't share a port. A wildcard conflicts with every address of its family, but not with the
/// other family.
fn conflict(a: IpAddr, b: IpAddr) -> bool {
    same_family(a, b) && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Ports {
    /// The socket bound to `addr`, or to its family's wildcard.
    #[inline]
    pub(crate) fn bound(&self, addr: SocketAddr) -> Option<Key> {
        let bound = self.0.get(&addr.port())?;
        bound
            .iter()
            .find(|(ip, _)| *ip == addr.ip() || (ip.is_unspecified() && same_family(*ip, addr.ip())))
            .map(|(_, key)| *key)
    }

    /// Whether binding `addr` would collide.
    fn taken(&self, addr: SocketAddr) -> bool {
        self.0.get(&addr.port()).is_some_and(|bound| bound.iter().any(|(ip, _)| conflict(*ip, addr.ip())))
    }

    /// Resolves port 0 to a free ephemeral port, and refuses a port that is in use. `busy` names further addresses
    /// that no ephemeral port may have.
    pub(crate) fn choose(
        &self,
        mut addr: SocketAddr,
        rng: &mut Rng,
        busy: impl Fn(SocketAddr) -> bool,
    ) -> io::Result<SocketAddr> {
        if addr.port() != 0 {
            if self.taken(addr) {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{addr} is in use")));
            }
            return Ok(addr);
        }
        let first = u64::from(*EPHEMERAL.start());
        let count = u64::from(*EPHEMERAL.end()) - first + 1;
        let begin = below(rng.next_u64(), count);
        for step in 0..count {
            addr.set_port((first + (begin + step) % count) as u16);
            if !self.taken(addr) && !busy(addr) {
                return Ok(addr);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "every ephemeral port is in use"))
    }

    pub(crate) fn insert(&mut self, addr: SocketAddr, key: Key) {
        self.0.entry(addr.port()).or_default().push((addr.ip(), key));
    }

    /// Removes a socket.
    pub(crate) fn release(&mut self, port: u16, key: Key) {
        if let Some(bound) = self.0.get_mut(&port) {
            bound.retain(|(_, other)| *other != key);
            if bound.is_empty() {
                self.0.remove(&port);
            }
        }
    }

    /// Every socket, by port, those of one port in the order of binding.
    pub(crate) fn sockets(&self) -> Vec<Key> {
        self.0.values().flatten().map(|(_, key)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;
    use crate::seed::stream;

    #[test]
    fn a_wildcard_excludes_the_addresses_of_its_family_only() {
        let mut ports = Ports::default();
        let key = Slab::new().insert(());
        let addr = |text: &str| -> SocketAddr { text.parse().unwrap() };
        ports.insert(addr("0.0.0.0:80"), key);
        let choose =
            |ports: &Ports, text: &str| ports.choose(addr(text), &mut stream(1, "port/a"), |_| false);
        assert_eq!(choose(&ports, "10.0.0.1:80").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(choose(&ports, "[::]:80").is_ok());
        assert_eq!(ports.bound(addr("10.0.0.1:80")), Some(key));
        assert_eq!(ports.bound(addr("[::1]:80")), None);
        ports.release(80, key);
        assert!(ports.sockets().is_empty());
    }

    #[test]
    fn port_0_becomes_an_ephemeral_port_that_nothing_uses() {
        let mut ports = Ports::default();
        let any: SocketAddr = "10.0.0.1:0".parse().unwrap();
        let choose = |ports: &Ports, busy: Option<SocketAddr>| {
            ports.choose(any, &mut stream(1, "port/a"), |addr| Some(addr) == busy).unwrap()
        };
        let first = choose(&ports, None);
        assert!(EPHEMERAL.contains(&first.port()));
        assert_ne!(choose(&ports, Some(first)), first, "a connection has it");
        ports.insert(first, Slab::new().insert(()));
        assert_ne!(choose(&ports, None), first, "a socket has it");
    }
}
