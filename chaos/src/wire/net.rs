//! The map of a world: networks, the boxes between them, and the owner of each address.
//!
//! In the outermost network, the [internet](crate::World::internet), every host has its addresses unless it is
//! placed elsewhere. A further [`Net`] lies behind a [`Middlebox`], which has its own addresses in the network
//! outside. So networks form a tree, and a carrier-grade NAT is a branch of depth two. Two networks may give the
//! same address to different hosts, as homes do.
//!
//! A packet goes up from its sender's network, box by box, until a network has its destination address, and goes
//! down from there through the boxes that represent the address. Each hop between two [`End`]s of one network is a
//! link with its own configuration. Inside a network behind a box links are [ideal](LinkConfig::ideal) unless
//! configured: such a hop costs no draw, and no time except a kernel's. A box decides when the packet reaches it, so
//! a mapping that is made while a packet is in flight lets it in.

use crate::ids::{End, HostId, INTERNET, NetId};
use crate::seed::{Rng, stream};
use crate::wire::link::LinkConfig;
use crate::wire::links::Link;
use crate::wire::middlebox::{Middlebox, Packet, Passage, Verdict};
use crate::world::World;
use crate::world::host::{Host, parse_ip};
use crate::world::sim::{self, Sim};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use std::net::IpAddr;
use std::time::Duration;

/// A network of the running world. A copy refers to the same network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net(pub(crate) NetId);

impl From<Host> for End {
    fn from(host: Host) -> End {
        End::Host(host.id())
    }
}

impl From<Net> for End {
    fn from(net: Net) -> End {
        End::Box(net.0)
    }
}

/// The most nested boxes that a packet may pass: a longer path is a loop, or an unreasonable map.
pub(crate) const MAX_DEPTH: usize = 8;

/// The owner of an address in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A host, on this interface.
    Host(HostId, u8),
    /// The box in front of a network.
    Box(NetId),
}

impl Owner {
    pub(crate) fn end(self) -> End {
        match self {
            Owner::Host(host, _) => End::Host(host),
            Owner::Box(net) => End::Box(net),
        }
    }
}

/// The owner of each address. Every packet looks up an entry; no code iterates over the map.
pub(crate) type Addrs = IndexMap<IpAddr, Owner, FxBuildHasher>;

/// The box between a network and the network outside.
pub(crate) struct Gateway {
    pub(crate) outside: NetId,
    pub(crate) outer: Vec<IpAddr>,
    middlebox: Box<dyn Middlebox>,
    rng: Rng,
    on: bool,
}

/// The direction in which a packet passes a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Out,
    In,
}

impl Gateway {
    pub(crate) fn pass(&mut self, way: Way, now: Duration, packet: &mut Packet) -> Verdict {
        if !self.on {
            return Verdict::Refuse(crate::wire::middlebox::Refusal::Off);
        }
        let mut passage = Passage { now, outer: &self.outer, rng: &mut self.rng };
        match way {
            Way::Out => self.middlebox.outbound(&mut passage, packet),
            Way::In => self.middlebox.inbound(&mut passage, packet),
        }
    }

    pub(crate) fn translates(&self, ip: IpAddr) -> bool {
        self.middlebox.translates(ip)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn describe(&self) -> String {
        self.middlebox.describe()
    }

    pub(crate) fn stream(&self) -> &Rng {
        &self.rng
    }
}

/// A network's state.
pub(crate) struct NetState {
    pub(crate) name: String,
    pub(crate) addrs: Addrs,
    pub(crate) gateway: Option<Gateway>,
    /// The configuration of every link inside that has none of its own.
    pub(crate) links: Link,
}

impl NetState {
    pub(crate) fn internet() -> NetState {
        NetState {
            name: "internet".to_owned(),
            addrs: Addrs::default(),
            gateway: None,
            links: Link::new(LinkConfig::default()),
        }
    }

    /// Whether a host in it has `ip` on its own link. Never in the internet, which isn't a single link.
    pub(crate) fn is_on_link(&self, ip: IpAddr) -> bool {
        self.gateway.is_some() && self.addrs.contains_key(&ip)
    }
}

impl World {
    /// The outermost network.
    pub fn internet(&self) -> Net {
        Net(INTERNET)
    }

    /// The network of that name.
    pub fn find_net(&self, name: &str) -> Option<Net> {
        sim::with(|sim| {
            let at = sim.nets.iter().position(|net| net.name == name)?;
            Some(Net(NetId(at as u32)))
        })
    }

    /// All networks, in the order in which they were made; the internet is the first.
    pub fn nets(&self) -> Vec<Net> {
        sim::with(|sim| (0..sim.nets.len()).map(|at| Net(NetId(at as u32))).collect())
    }
}

impl Net {
    /// Its number, in the order in which networks were made.
    pub fn id(&self) -> NetId {
        self.0
    }

    /// Its name.
    pub fn name(&self) -> String {
        sim::with(|sim| sim.net(self.0).name.clone())
    }

    /// The description of its box; `None` for the internet.
    pub fn describe(&self) -> Option<String> {
        sim::with(|sim| sim.net(self.0).gateway.as_ref().map(Gateway::describe))
    }

    /// The network in which its box has its addresses; `None` for the internet.
    pub fn outside(&self) -> Option<Net> {
        sim::with(|sim| sim.net(self.0).gateway.as_ref().map(|gateway| Net(gateway.outside)))
    }

    /// Makes a network behind a box that has the addresses `outer` in this network. A box that only filters has
    /// none.
    ///
    /// # Panics
    /// If there is a network of that name, or one of `outer` is taken or isn't an address.
    pub fn nat(&self, name: &str, outer: &[&str], middlebox: impl Middlebox) -> Net {
        let outer: Vec<IpAddr> = outer.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| {
            assert!(sim.nets.iter().all(|net| net.name != name), "there is a network named {name}");
            let id = NetId(u32::try_from(sim.nets.len()).expect("fewer than 2^32 networks"));
            let what = middlebox.describe();
            sim.setup(None, &format!("network {name} behind {what} at {outer:?} in {}", self.0.0));
            let gateway = Gateway {
                outside: self.0,
                outer,
                middlebox: Box::new(middlebox),
                rng: stream(sim.seed, &format!("box/{name}")),
                on: true,
            };
            sim.box_link_rngs.push(stream(sim.seed, &format!("link/box of {name}")));
            sim.nets.push(NetState {
                name: name.to_owned(),
                addrs: Addrs::default(),
                gateway: Some(gateway),
                links: Link::new(LinkConfig::ideal()),
            });
            sim.trace.net_named(name);
            sim.readdress();
            Net(id)
        })
    }

    /// Makes a host with one interface, `eth0`, in this network.
    ///
    /// # Panics
    /// If there is a host of that name, or `ip` is taken here or isn't an address.
    pub fn host(&self, name: &str, ip: &str) -> Host {
        let host = World::new().host(name);
        host.attach("eth0", *self, &[ip]);
        host
    }

    /// Configures every link inside this network that has no configuration of its own, including the links to its
    /// box.
    pub fn link_default(&self, config: LinkConfig) {
        sim::with(|sim| {
            sim.setup(None, &format!("links of network {} {config:?}", self.0.0));
            sim.net_mut(self.0).links = Link::new(config);
        });
    }

    /// The addresses of its box in the network outside.
    pub fn outer_addrs(&self) -> Vec<IpAddr> {
        sim::with(|sim| sim.net(self.0).gateway.as_ref().map_or(Vec::new(), |gateway| gateway.outer.clone()))
    }

    /// Replaces the outer addresses of its box: the provider has renumbered it. The box keeps its tables.
    ///
    /// # Panics
    /// If this is the internet, or one of `outer` is taken or isn't an address.
    pub fn set_outer_addrs(&self, outer: &[&str]) {
        let outer: Vec<IpAddr> = outer.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| {
            sim.fault(None, &format!("box of {} has {outer:?}", self.0.0));
            sim.gateway(self.0).outer = outer;
            sim.readdress();
        });
    }

    /// Reboots its box, which loses its tables.
    ///
    /// # Panics
    /// If this is the internet.
    pub fn reboot(&self) {
        sim::with(|sim| {
            sim.fault(None, &format!("box of {} reboots", self.0.0));
            sim.gateway(self.0).middlebox.reboot();
        });
    }

    /// Cuts its box's power, or restores it. The box comes back with empty tables.
    ///
    /// # Panics
    /// If this is the internet.
    pub fn set_power(&self, on: bool) {
        sim::with(|sim| {
            sim.fault(None, &format!("box of {} {}", self.0.0, if on { "on" } else { "off" }));
            let gateway = sim.gateway(self.0);
            gateway.on = on;
            gateway.middlebox.reboot();
        });
    }

    /// Replaces its box with another one, which doesn't inherit the tables and has the same outer addresses.
    ///
    /// # Panics
    /// If this is the internet.
    pub fn replace_box(&self, middlebox: impl Middlebox) {
        let old = sim::with(|sim| {
            sim.fault(None, &format!("box of {} becomes {}", self.0.0, middlebox.describe()));
            let old = std::mem::replace(&mut sim.gateway(self.0).middlebox, Box::new(middlebox));
            sim.readdress();
            old
        });
        drop(old);
    }
}

impl Sim {
    pub(crate) fn net(&self, id: NetId) -> &NetState {
        &self.nets[id.0 as usize]
    }

    pub(crate) fn net_mut(&mut self, id: NetId) -> &mut NetState {
        &mut self.nets[id.0 as usize]
    }

    /// The network in which both ends have addresses; the one with the highest number if there are several.
    pub(crate) fn common_net(&self, a: End, b: End) -> Option<NetId> {
        let shared: Vec<NetId> = self.nets_of(b);
        self.nets_of(a).into_iter().filter(|net| shared.contains(net)).max()
    }

    /// The networks of an end: those of a host's interfaces, or both sides of a box.
    fn nets_of(&self, end: End) -> Vec<NetId> {
        match end {
            End::Host(host) => self.host(host).nics.iter().map(|nic| nic.net).collect(),
            End::Box(id) => std::iter::once(id)
                .chain(self.net(id).gateway.as_ref().map(|gateway| gateway.outside))
                .collect(),
        }
    }

    fn gateway(&mut self, id: NetId) -> &mut Gateway {
        self.net_mut(id).gateway.as_mut().expect("the internet has no box")
    }

    /// The networks in which `ip` is reachable if `owner` has it in `net`, each with the owner of `ip` there. A box
    /// that doesn't translate an inner address represents it outside.
    fn stands(&self, net: NetId, ip: IpAddr, owner: Owner) -> Vec<(NetId, IpAddr, Owner)> {
        let mut all = vec![(net, ip, owner)];
        let mut inside = net;
        while let Some(gateway) = &self.net(inside).gateway
            && !gateway.translates(ip)
        {
            all.push((gateway.outside, ip, Owner::Box(inside)));
            inside = gateway.outside;
        }
        all
    }

    /// The owner of each address in each network. If `reserved`, addresses of interfaces that are down are included,
    /// because the interfaces have them again when they come up.
    fn owners(&self, reserved: bool) -> Vec<(NetId, IpAddr, Owner)> {
        let mut all = Vec::new();
        for (at, net) in self.nets.iter().enumerate() {
            let Some(gateway) = &net.gateway else { continue };
            for ip in &gateway.outer {
                all.extend(self.stands(gateway.outside, *ip, Owner::Box(NetId(at as u32))));
            }
        }
        for host in &self.hosts {
            for (index, nic) in host.nics.iter().enumerate().filter(|(_, nic)| reserved || nic.up) {
                for ip in &nic.addrs {
                    all.extend(self.stands(nic.net, *ip, Owner::Host(host.id, index as u8)));
                }
            }
        }
        all
    }

    /// Why `who` can't replace its current addresses by `ip` in `net`; `None` if it can. Either `ip` isn't valid for
    /// an interface, or in a network in which it would be reachable another end has it, or will have it when its
    /// interface comes up or when the fault that took it is over.
    pub(crate) fn refuses(&self, net: NetId, ip: IpAddr, who: Owner) -> Option<String> {
        if !fits_an_interface(ip) {
            return Some(format!("{ip} can't be an interface's address"));
        }
        // `who` gives up its current addresses, also where boxes represent them. A box that represents an address of
        // another interface keeps that one.
        let given_up: Vec<(NetId, IpAddr, Owner)> = match who {
            Owner::Host(host, nic) => {
                let nic = &self.host(host).nics[usize::from(nic)];
                nic.addrs.iter().flat_map(|ip| self.stands(nic.net, *ip, who)).collect()
            }
            Owner::Box(id) => self
                .net(id)
                .gateway
                .iter()
                .flat_map(|gateway| {
                    gateway.outer.iter().flat_map(|ip| self.stands(gateway.outside, *ip, who))
                })
                .collect(),
        };
        let mut others = self.owners(true);
        for mine in given_up {
            if let Some(at) = others.iter().position(|other| *other == mine) {
                others.swap_remove(at);
            }
        }
        for (whose, net, ips) in self.faults.taken_away().filter(|(whose, ..)| *whose != who.end()) {
            let owner = match whose {
                End::Host(host) => Owner::Host(host, 0),
                End::Box(id) => Owner::Box(id),
            };
            others.extend(ips.iter().flat_map(|ip| self.stands(net, *ip, owner)));
        }
        let wanted = self.stands(net, ip, who);
        let taken = wanted.iter().find(|(net, ip, owner)| {
            others.iter().any(|(at, other, whose)| at == net && other == ip && whose.end() != owner.end())
        });
        taken.map(|(net, ..)| format!("{ip} is taken in {}", self.net(*net).name))
    }

    /// Rebuilds the address tables from the interfaces and boxes.
    pub(crate) fn readdress(&mut self) {
        let owners = self.owners(false);
        for net in &mut self.nets {
            net.addrs.clear();
        }
        for (net, ip, owner) in owners {
            if matches!(owner, Owner::Host(..)) {
                assert!(fits_an_interface(ip), "{ip} can't be an interface's address");
            }
            let net = self.net_mut(net);
            let taken = net.addrs.insert(ip, owner);
            assert!(
                taken.is_none_or(|other| other.end() == owner.end()),
                "{ip} belongs to another in network {}",
                net.name
            );
        }
        self.addrs_version += 1;
    }
}

/// Whether an interface may have this address: one of a single host, to which others can send.
fn fits_an_interface(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}
