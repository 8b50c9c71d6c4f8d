//! A host's network interfaces, and the choice between them.

use super::ports::same_family;
use crate::ids::{INTERNET, LOOPBACK, NetId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::task::Waker;

/// The most interfaces of one host. The loopback's number is above it.
const MAX_NICS: usize = 64;

/// One network interface.
pub(crate) struct Nic {
    pub(crate) name: String,
    /// The network that it is in.
    pub(crate) net: NetId,
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) up: bool,
}

/// How a packet leaves a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) src: IpAddr,
    pub(crate) nic: u8,
}

/// The interfaces of a host, in the order of creation, without the loopback.
#[derive(Default)]
pub(crate) struct Nics {
    list: Vec<Nic>,
    /// Tasks that wait for a change of the interfaces.
    wakers: Vec<Waker>,
}

fn loopback_of(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

impl Nics {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Nic> {
        self.list.iter()
    }

    /// The interfaces that are up.
    pub(crate) fn up(&self) -> impl Iterator<Item = &Nic> {
        self.list.iter().filter(|nic| nic.up)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Nic> {
        self.list.iter().find(|nic| nic.name == name)
    }

    /// The interface of this number.
    pub(crate) fn get(&self, number: u8) -> &Nic {
        &self.list[usize::from(number)]
    }

    /// The number of the interface named `name`; creates it if it doesn't exist.
    pub(crate) fn number(&mut self, name: &str) -> u8 {
        let at = self.list.iter().position(|nic| nic.name == name).unwrap_or_else(|| {
            assert!(self.list.len() < MAX_NICS, "a host has at most {MAX_NICS} interfaces");
            self.list.push(Nic { name: name.to_owned(), net: INTERNET, addrs: Vec::new(), up: true });
            self.list.len() - 1
        });
        at as u8
    }

    /// The interface named `name`; creates it if it doesn't exist.
    pub(crate) fn named(&mut self, name: &str) -> &mut Nic {
        let number = self.number(name);
        &mut self.list[usize::from(number)]
    }

    /// Whether `ip` is an address of this host now.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.up().any(|nic| nic.addrs.contains(&ip))
    }

    /// Chooses interface and source address towards `dst`. `wanted`, of the same family, is the socket's own address, if
    /// it is bound to one; the packet then leaves by an interface that has this address. The order of interfaces is
    /// their metric, as with a default route on each. An interface takes precedence if `dst` is directly on the link
    /// of its network, as `on_link` tells.
    #[inline]
    pub(crate) fn route(
        &self,
        wanted: Option<IpAddr>,
        dst: IpAddr,
        on_link: impl Fn(NetId) -> bool,
    ) -> Option<Route> {
        if self.has(dst) {
            let src = wanted.unwrap_or(if dst.is_loopback() { loopback_of(dst) } else { dst });
            return Some(Route { src, nic: LOOPBACK });
        }
        let mut candidates =
            self.list.iter().enumerate().filter(|(_, nic)| nic.up).filter_map(|(index, nic)| {
                let src = match wanted {
                    Some(ip) => nic.addrs.iter().find(|addr| **addr == ip),
                    None => nic.addrs.iter().find(|addr| same_family(**addr, dst)),
                };
                src.map(|src| (Route { src: *src, nic: index as u8 }, nic.net))
            });
        let (first, net) = candidates.next()?;
        if on_link(net) {
            return Some(first);
        }
        let nearer = candidates.find(|(_, net)| on_link(*net));
        Some(nearer.map_or(first, |(route, _)| route))
    }

    /// Registers a task to be woken at the next change.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|other| other.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    /// The tasks to be woken after a change.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn of_several_interfaces_the_first_leads_out_unless_another_has_the_destination_on_its_link() {
        let mut nics = Nics::default();
        nics.named("eth0").addrs.push(ip("10.0.0.1"));
        nics.named("wlan0").net = NetId(7);
        nics.named("wlan0").addrs.push(ip("192.168.1.2"));
        let nic = |nics: &Nics, wanted: Option<&str>, on_link: u32| {
            nics.route(wanted.map(ip), ip("10.9.9.9"), |net| net.0 == on_link).unwrap().nic
        };
        assert_eq!(nic(&nics, None, 99), 0);
        assert_eq!(nic(&nics, None, 7), 1);
        assert_eq!(nic(&nics, Some("192.168.1.2"), 99), 1);
        assert_eq!(nic(&nics, Some("10.0.0.1"), 7), 0);
        nics.named("eth0").up = false;
        assert_eq!(nic(&nics, None, 99), 1);
    }
}
