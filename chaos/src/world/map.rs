//! The map of a world as text: networks, the boxes in front of them, and the addresses in each network.
//!
//! A network is a line, followed by its indented content: first its hosts, then the networks behind boxes in it,
//! each in the order of creation. A host with interfaces in several networks appears in each of them.

use crate::ids::{INTERNET, NetId};
use crate::kernel::host::{HostState, Nic};
use crate::world::World;
use crate::world::sim::{self, Sim};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Spaces of indentation for the content of a network.
const INDENT: usize = 2;

impl World {
    /// The map of this world, now:
    ///
    /// ```text
    /// internet
    ///   server: eth0 198.51.100.7
    ///   home, behind a cone at 203.0.113.1
    ///     laptop: eth0 192.168.1.2, wlan0 down 192.168.1.3
    ///     nas (no process): eth0 192.168.1.9
    /// ```
    pub fn map(&self) -> String {
        sim::with(|sim| sim.map())
    }
}

impl Sim {
    fn map(&self) -> String {
        let mut out = String::new();
        self.map_net(INTERNET, 0, &mut out);
        for host in self.hosts.iter().filter(|host| host.nics.is_empty()) {
            line(&mut out, 0, &format!("nowhere: {}{}", host.name, state(host)));
        }
        out
    }

    /// Saves the map at the first call, if a reader has requested it.
    pub(crate) fn look(&mut self) {
        if self.wants_map && self.kept_map.is_none() {
            self.kept_map = Some(self.map());
        }
    }

    fn map_net(&self, id: NetId, depth: usize, out: &mut String) {
        let net = self.net(id);
        let behind = net.gateway.as_ref().map(|gateway| {
            let at = if gateway.outer.is_empty() { "" } else { " at " };
            let off = if gateway.is_on() { "" } else { " (off)" };
            format!(", behind {}{off}{at}{}", gateway.describe(), list(&gateway.outer))
        });
        line(out, depth, &(net.name.clone() + &behind.unwrap_or_default()));
        for host in &self.hosts {
            let here: Vec<String> = host.nics.iter().filter(|nic| nic.net == id).map(interface).collect();
            if !here.is_empty() {
                line(out, depth + 1, &format!("{}{}: {}", host.name, state(host), here.join(", ")));
            }
        }
        for (at, other) in self.nets.iter().enumerate() {
            if other.gateway.as_ref().is_some_and(|gateway| gateway.outside == id) {
                self.map_net(NetId(at as u32), depth + 1, out);
            }
        }
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{:indent$}{text}", "", indent = depth * INDENT).expect("a String takes everything");
}

fn list(addrs: &[IpAddr]) -> String {
    addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

fn interface(nic: &Nic) -> String {
    format!("{}{} {}", nic.name, if nic.up { "" } else { " down" }, list(&nic.addrs))
}

/// The state that keeps a host from taking part, if there is one.
fn state(host: &HostState) -> &'static str {
    match host {
        HostState { powered: false, .. } => " (no power)",
        HostState { suspended: true, .. } => " (suspended)",
        HostState { alive: false, .. } => " (no process)",
        HostState { paused: true, .. } => " (paused)",
        HostState { pinned: true, .. } => " (pinned)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::middlebox::Modem;

    #[test]
    fn a_map_shows_networks_boxes_hosts_and_what_is_wrong_with_them() {
        let outcome = crate::lab::run::run(1, |world| async move {
            world.internet().host("server", "198.51.100.7").addr("2001:db8::7");
            let line = world.internet().nat("line", &[], Modem);
            let home = line.nat("home", &["203.0.113.1", "203.0.113.2"], Modem);
            home.host("laptop", "192.168.1.2").nic_addr("cell0", "203.0.113.77").set_nic_up("eth0", false);
            home.host("nas", "192.168.1.9").crash();
            line.host("lamp", "203.0.113.3").power_loss();
            world.host("spare");
            let before = world.map();
            home.set_power(false);
            (before, world.map())
        });
        let (map, later) = outcome.result.unwrap();
        insta::assert_snapshot!(map, @"
        internet
          server: eth0 198.51.100.7 2001:db8::7
          laptop: cell0 203.0.113.77
          line, behind a modem
            lamp (no power): eth0 203.0.113.3
            home, behind a modem at 203.0.113.1 203.0.113.2
              laptop: eth0 down 192.168.1.2
              nas (no process): eth0 192.168.1.9
        nowhere: spare
        ");
        assert_eq!(later, map.replace("a modem at", "a modem (off) at"));
    }
}
