//! One network: the owner of each address in it, and the box between it and the network outside.

use super::link::LinkConfig;
use super::links::Link;
use super::middlebox::{BoxVerdict, Middlebox, Packet, Passage, Refusal};
use crate::ids::{End, HostId, NetId};
use crate::seed::Rng;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use std::net::IpAddr;
use std::time::Duration;

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
pub(crate) enum Crossing {
    Out,
    In,
}

impl Gateway {
    /// A box with the addresses `outer` in `outside`, switched on.
    pub(crate) fn new(
        outside: NetId,
        outer: Vec<IpAddr>,
        middlebox: Box<dyn Middlebox>,
        rng: Rng,
    ) -> Gateway {
        Gateway { outside, outer, middlebox, rng, on: true }
    }

    pub(crate) fn pass(&mut self, crossing: Crossing, now: Duration, packet: &mut Packet) -> BoxVerdict {
        if !self.on {
            return BoxVerdict::Refuse(Refusal::Off);
        }
        let mut passage = Passage { now, outer: &self.outer, rng: &mut self.rng };
        match crossing {
            Crossing::Out => self.middlebox.outbound(&mut passage, packet),
            Crossing::In => self.middlebox.inbound(&mut passage, packet),
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

    /// Cuts its power, or restores it; either way it has lost its tables.
    pub(crate) fn set_power(&mut self, on: bool) {
        self.on = on;
        self.middlebox.reboot();
    }

    pub(crate) fn reboot(&mut self) {
        self.middlebox.reboot();
    }

    /// Replaces the box; returns the old one, so that the caller drops it outside of any borrow.
    pub(crate) fn replace(&mut self, middlebox: Box<dyn Middlebox>) -> Box<dyn Middlebox> {
        std::mem::replace(&mut self.middlebox, middlebox)
    }

    pub(crate) fn stream(&self) -> &Rng {
        &self.rng
    }

    pub(crate) fn stream_mut(&mut self) -> &mut Rng {
        &mut self.rng
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

    pub(crate) fn behind(name: &str, gateway: Gateway) -> NetState {
        NetState {
            name: name.to_owned(),
            addrs: Addrs::default(),
            gateway: Some(gateway),
            links: Link::new(LinkConfig::ideal()),
        }
    }

    /// Whether a host in it has `ip` on its own link. Never in the internet, which isn't a single link.
    pub(crate) fn is_on_link(&self, ip: IpAddr) -> bool {
        self.gateway.is_some() && self.addrs.contains_key(&ip)
    }
}
