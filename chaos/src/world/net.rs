//! The scenario's handle on a network: the hosts and boxes in it, its links, and the faults of its box.

use super::host::{Host, parse_ip};
use super::sim;
use crate::ids::{End, NetId};
use crate::seed::stream;
use crate::wire::link::LinkConfig;
use crate::wire::links::Link;
use crate::wire::middlebox::Middlebox;
use crate::wire::net::Gateway;
use std::net::IpAddr;

/// A network of the running world. A copy refers to the same network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net(pub(crate) NetId);

impl From<Net> for End {
    fn from(net: Net) -> End {
        End::Box(net.0)
    }
}

impl Net {
    /// Its number, in the order in which networks were made.
    pub fn id(&self) -> NetId {
        self.0
    }

    /// Its name.
    pub fn name(&self) -> String {
        sim::with(|sim| sim.wire.nets.get(self.0).name.clone())
    }

    /// The description of its box; `None` for the internet.
    pub fn describe(&self) -> Option<String> {
        sim::with(|sim| sim.wire.nets.get(self.0).gateway.as_ref().map(Gateway::describe))
    }

    /// The network in which its box has its addresses; `None` for the internet.
    pub fn outside(&self) -> Option<Net> {
        sim::with(|sim| sim.wire.nets.get(self.0).gateway.as_ref().map(|gateway| Net(gateway.outside)))
    }

    /// Makes a network behind a box that has the addresses `outer` in this network. A box that only filters has
    /// none.
    ///
    /// # Panics
    /// If there is a network of that name, or one of `outer` is taken or isn't an address.
    pub fn nat(&self, name: &str, outer: &[&str], middlebox: impl Middlebox) -> Net {
        let outer: Vec<IpAddr> = outer.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| {
            let is_new = sim.wire.nets.iter().all(|(_, net)| net.name != name);
            assert!(is_new, "there is a network named {name}");
            let what = middlebox.describe();
            sim.setup(None, &format!("network {name} behind {what} at {outer:?} in {}", self.0.0));
            let rng = stream(sim.stream_seed, &format!("box/{name}"));
            let id = sim.wire.nets.add(name, Gateway::new(self.0, outer, Box::new(middlebox), rng));
            sim.wire.links.net_named(name);
            sim.record.trace.net_named(name);
            sim.readdress();
            Net(id)
        })
    }

    /// Makes a host with one interface, `eth0`, in this network.
    ///
    /// # Panics
    /// If there is a host of that name, or `ip` is taken here or isn't an address.
    pub fn host(&self, name: &str, ip: &str) -> Host {
        let host = Host::make(name);
        host.attach("eth0", *self, &[ip]);
        host
    }

    /// Configures every link inside this network that has no configuration of its own, including the links to its
    /// box.
    pub fn link_default(&self, config: LinkConfig) {
        sim::with(|sim| {
            sim.setup(None, &format!("links of network {} {config:?}", self.0.0));
            sim.wire.nets.get_mut(self.0).links = Link::new(config);
        });
    }

    /// The addresses of its box in the network outside.
    pub fn outer_addrs(&self) -> Vec<IpAddr> {
        sim::with(|sim| {
            sim.wire.nets.get(self.0).gateway.as_ref().map_or(Vec::new(), |gateway| gateway.outer.clone())
        })
    }

    /// Replaces the outer addresses of its box: the provider has renumbered it. The box keeps its tables.
    ///
    /// # Panics
    /// If this is the internet, or one of `outer` is taken or isn't an address.
    pub fn set_outer_addrs(&self, outer: &[&str]) {
        let outer: Vec<IpAddr> = outer.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| {
            sim.fault(None, &format!("box of {} has {outer:?}", self.0.0));
            sim.wire.nets.gateway(self.0).outer = outer;
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
            sim.wire.nets.gateway(self.0).reboot();
        });
    }

    /// Cuts its box's power, or restores it. The box comes back with empty tables.
    ///
    /// # Panics
    /// If this is the internet.
    pub fn set_power(&self, on: bool) {
        sim::with(|sim| {
            sim.fault(None, &format!("box of {} {}", self.0.0, if on { "on" } else { "off" }));
            sim.wire.nets.gateway(self.0).set_power(on);
        });
    }

    /// Replaces its box with another one, which doesn't inherit the tables and has the same outer addresses.
    ///
    /// # Panics
    /// If this is the internet.
    pub fn replace_box(&self, middlebox: impl Middlebox) {
        let old = sim::with(|sim| {
            sim.fault(None, &format!("box of {} becomes {}", self.0.0, middlebox.describe()));
            let old = sim.wire.nets.gateway(self.0).replace(Box::new(middlebox));
            sim.readdress();
            old
        });
        drop(old);
    }
}
