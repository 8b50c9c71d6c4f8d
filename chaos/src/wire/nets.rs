//! The map of a world: networks, the boxes between them, and the owner of each address.
//!
//! In the outermost network, the [internet](crate::World::internet), every host has its addresses unless it is
//! placed elsewhere. A further [`Net`](crate::Net) lies behind a [`Middlebox`](crate::Middlebox), which has its own
//! addresses in the network outside. So networks form a tree, and a carrier-grade NAT is a branch of depth two. Two
//! networks may give the same address to different hosts, as homes do.
//!
//! A packet goes up from its sender's network, box by box, until a network has its destination address, and goes
//! down from there through the boxes that represent the address. Each hop between two [`End`]s of one network is a
//! link with its own configuration. Inside a network behind a box links are
//! [ideal](super::link::LinkConfig::ideal) unless configured: such a hop costs no draw, and no time except a kernel's.
//! A box decides when the packet reaches it, so a mapping that is made while a packet is in flight lets it in.

use super::net::{Gateway, NetState, Owner};
use crate::ids::{End, NetId};
use crate::seed::rekey;
use std::net::IpAddr;

/// The most nested boxes that a packet may pass: a longer path is a loop, or an unreasonable map.
pub(crate) const MAX_DEPTH: usize = 8;

/// An address in a network, with its owner there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) net: NetId,
    pub(crate) ip: IpAddr,
    pub(crate) owner: Owner,
}

/// Addresses that were taken from a host or a box for a while. No other end gets them meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) end: End,
    pub(crate) net: NetId,
    pub(crate) ips: Vec<IpAddr>,
}

/// All networks.
pub(crate) struct Nets {
    nets: Vec<NetState>,
    /// Counts changes of the owners of addresses.
    version: u32,
    reserved: Vec<Reserved>,
}

impl Nets {
    pub(crate) fn new() -> Nets {
        Nets { nets: vec![NetState::internet()], version: 0, reserved: Vec::new() }
    }

    pub(crate) fn get(&self, id: NetId) -> &NetState {
        &self.nets[id.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, id: NetId) -> &mut NetState {
        &mut self.nets[id.0 as usize]
    }

    /// All of them with their numbers, in the order in which they were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NetId, &NetState)> {
        self.nets.iter().enumerate().map(|(at, net)| (NetId(at as u32), net))
    }

    /// The random streams of the boxes go on with another seed.
    pub(crate) fn rekey(&mut self, seed: u64) {
        for net in &mut self.nets {
            if let Some(gateway) = &mut net.gateway {
                rekey(gateway.stream_mut(), seed, &format!("box/{}", net.name));
            }
        }
    }

    /// Adds the network behind a box.
    pub(crate) fn add(&mut self, name: &str, gateway: Gateway) -> NetId {
        let id = NetId(u32::try_from(self.nets.len()).expect("fewer than 2^32 networks"));
        self.nets.push(NetState::behind(name, gateway));
        id
    }

    /// The box of a network that has one.
    pub(crate) fn gateway(&mut self, id: NetId) -> &mut Gateway {
        self.get_mut(id).gateway.as_mut().expect("the internet has no box")
    }

    /// Counts changes of the owners of addresses.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// Replaces the list of addresses that were taken away for a while.
    pub(crate) fn reserve(&mut self, reserved: Vec<Reserved>) {
        self.reserved = reserved;
    }

    /// The networks in which the claimed address is reachable, each with its owner there. A box that doesn't translate
    /// an inner address represents it outside.
    fn stands(&self, claim: Claim) -> Vec<Claim> {
        let mut all = vec![claim];
        let mut inside = claim.net;
        while let Some(gateway) = &self.get(inside).gateway
            && !gateway.translates(claim.ip)
        {
            all.push(Claim { net: gateway.outside, ip: claim.ip, owner: Owner::Box(inside) });
            inside = gateway.outside;
        }
        all
    }

    /// The outer addresses of the boxes.
    fn outer(&self) -> impl Iterator<Item = Claim> {
        let boxes = self.iter().filter_map(|(id, net)| Some((id, net.gateway.as_ref()?)));
        boxes.flat_map(|(id, gateway)| {
            gateway.outer.iter().map(move |ip| Claim { net: gateway.outside, ip: *ip, owner: Owner::Box(id) })
        })
    }

    /// The owner of each address in each network; `interfaces` are the addresses of hosts.
    fn owners(&self, interfaces: &[Claim]) -> Vec<Claim> {
        self.outer().chain(interfaces.iter().copied()).flat_map(|claim| self.stands(claim)).collect()
    }

    /// Why `who` can't replace its current addresses by `ip` in `net`; `None` if it can. Either `ip` isn't valid for
    /// an interface, or in a network in which it would be reachable another end has it, or will have it when its
    /// interface comes up or when the fault that took it is over. `interfaces` are the addresses of all interfaces,
    /// also of those that are down, because they have them again when they come up.
    pub(crate) fn refuses(&self, interfaces: &[Claim], net: NetId, ip: IpAddr, who: Owner) -> Option<String> {
        if !fits_an_interface(ip) {
            return Some(format!("{ip} can't be an interface's address"));
        }
        // `who` gives up its current addresses, also where boxes represent them. A box that represents an address of
        // another interface keeps that one.
        let own = self.outer().chain(interfaces.iter().copied()).filter(|claim| claim.owner == who);
        let given_up: Vec<Claim> = own.flat_map(|claim| self.stands(claim)).collect();
        let mut others = self.owners(interfaces);
        for mine in given_up {
            if let Some(at) = others.iter().position(|other| *other == mine) {
                others.swap_remove(at);
            }
        }
        for Reserved { end, net, ips } in self.reserved.iter().filter(|reserved| reserved.end != who.end()) {
            let owner = match *end {
                End::Host(host) => Owner::Host(host, 0),
                End::Box(id) => Owner::Box(id),
            };
            others.extend(ips.iter().flat_map(|ip| self.stands(Claim { net: *net, ip: *ip, owner })));
        }
        let wanted = self.stands(Claim { net, ip, owner: who });
        let taken = wanted.iter().find(|mine| {
            others.iter().any(|other| {
                (other.net, other.ip) == (mine.net, mine.ip) && other.owner.end() != mine.owner.end()
            })
        });
        taken.map(|claim| format!("{ip} is taken in {}", self.get(claim.net).name))
    }

    /// Rebuilds the address tables from the boxes and from `interfaces`, the addresses of interfaces that are up.
    ///
    /// # Panics
    /// If two ends have one address in a network, or an address isn't valid for an interface.
    pub(crate) fn readdress(&mut self, interfaces: &[Claim]) {
        let owners = self.owners(interfaces);
        for net in &mut self.nets {
            net.addrs.clear();
        }
        for Claim { net, ip, owner } in owners {
            if matches!(owner, Owner::Host(..)) {
                assert!(fits_an_interface(ip), "{ip} can't be an interface's address");
            }
            let net = self.get_mut(net);
            let taken = net.addrs.insert(ip, owner);
            assert!(
                taken.is_none_or(|other| other.end() == owner.end()),
                "{ip} belongs to another in network {}",
                net.name
            );
        }
        self.version += 1;
    }
}

/// Whether an interface may have this address: one of a single host, to which others can send.
fn fits_an_interface(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{HostId, INTERNET};
    use crate::seed::stream;
    use crate::wire::middlebox::Modem;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The internet and a home behind a modem, which translates nothing.
    fn nets() -> (Nets, NetId) {
        let mut nets = Nets::new();
        let gateway = Gateway::new(INTERNET, vec![ip("203.0.113.1")], Box::new(Modem), stream(1, "box/home"));
        let home = nets.add("home", gateway);
        (nets, home)
    }

    #[test]
    fn an_inner_address_stands_outside_for_the_box_that_does_not_translate_it() {
        let (mut nets, home) = nets();
        let laptop = Owner::Host(HostId(0), 0);
        nets.readdress(&[Claim { net: home, ip: ip("192.168.1.2"), owner: laptop }]);
        assert_eq!(nets.get(home).addrs.get(&ip("192.168.1.2")), Some(&laptop));
        assert_eq!(nets.get(INTERNET).addrs.get(&ip("192.168.1.2")), Some(&Owner::Box(home)));
        assert_eq!(nets.get(INTERNET).addrs.get(&ip("203.0.113.1")), Some(&Owner::Box(home)));
        assert_eq!(nets.version(), 1);
    }

    #[test]
    fn an_address_is_refused_where_another_has_it_or_will_have_it_again() {
        let (mut nets, home) = nets();
        let (a, b) = (Owner::Host(HostId(0), 0), Owner::Host(HostId(1), 0));
        let all = [Claim { net: home, ip: ip("10.0.0.1"), owner: a }];
        let refused = |nets: &Nets, net, text: &str, who| nets.refuses(&all, net, ip(text), who).is_some();
        nets.reserve(vec![Reserved { end: End::Host(HostId(1)), net: INTERNET, ips: vec![ip("10.0.0.9")] }]);
        for (net, text, who, expected) in [
            (home, "10.0.0.1", a, false),
            (home, "10.0.0.1", b, true),
            (INTERNET, "10.0.0.1", b, true),
            (INTERNET, "10.0.0.9", a, true),
            (INTERNET, "10.0.0.9", b, false),
            (INTERNET, "203.0.113.1", Owner::Box(home), false),
            (INTERNET, "203.0.113.1", a, true),
            (INTERNET, "127.0.0.1", a, true),
        ] {
            assert_eq!(refused(&nets, net, text, who), expected, "{text} for {who:?} in {net:?}");
        }
    }
}
