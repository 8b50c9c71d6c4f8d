//! The address of each host in each network.
//!
//! Addresses are assigned in order: hubs in 192.0.2.0/24, nodes on the internet in 198.18.0.0/15, boxes in
//! 203.0.113.0/24 (in 100.64.0.0/16 behind another box), and within every network behind a box 192.168.1.10 and up,
//! so that networks share addresses.

use std::collections::BTreeMap;

use chaos::net::Net;

/// The addresses that were assigned so far.
#[derive(Default)]
pub(crate) struct Addresses {
    /// How many hosts began in each network.
    residents: BTreeMap<Net, usize>,
    /// How many moves led to a network where the host had not been.
    roamers: usize,
    /// By host name and network.
    assigned: BTreeMap<(String, Net), String>,
}

impl Addresses {
    /// The address of a host in a network: always the same one. A host that moves in gets an address that no
    /// other host has in any network, so that it can detect the move.
    pub(crate) fn assign(&mut self, name: &str, net: Net) -> String {
        let known = (name.to_owned(), net);
        if let Some(ip) = self.assigned.get(&known) {
            return ip.clone();
        }
        let roams = self.assigned.keys().any(|(host, _)| host == name);
        let here = if roams { &mut self.roamers } else { self.residents.entry(net).or_default() };
        let number = *here;
        *here += 1;
        let is_internet = net.outside().is_none();
        let ip = match (is_internet, roams) {
            (true, false) => format!("198.18.{}.{}", number / 250, number % 250 + 1),
            (true, true) => format!("198.19.0.{}", number + 1),
            (false, false) => format!("192.168.1.{}", number + 10),
            (false, true) => format!("192.168.1.{}", number + 100),
        };
        self.assigned.insert(known, ip.clone());
        ip
    }
}
