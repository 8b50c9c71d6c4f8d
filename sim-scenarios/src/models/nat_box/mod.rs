//! A NAT box and stateful firewall for the world, in the terms of RFC 4787 (UDP) and RFC 5382 (TCP).
//!
//! [`NatBox`] does what its [`NatConfig`] says, one field for each behaviour; [`presets`] are configurations of
//! common boxes. A box rewrites UDP and TCP endpoints, keeps idle timers, and runs out of ports and of table
//! entries. A reboot clears all of its state, and the loss of an outer address ends all mappings to that address.
//! Boxes are stacked by nesting networks.
//!
//! The box drops silently: unsolicited inbound packets, blocked packets, packets for which its table is full, and
//! hairpin packets where it doesn't support them. Not modelled: ICMP, fragments (the world has neither),
//! application-level gateways (RFC 4787 REQ-10 wants them off), port mapping protocols, and the answer to an
//! unsolicited SYN (RFC 5382 REQ-4 wants none for 6 s; here it never comes).
//!
//! | module | concept |
//! | --- | --- |
//! | `config` | a box's behaviour, as data |
//! | [`presets`] | common boxes |
//! | `table` | mappings, permissions, timers |
//! | `ports` | the choice of a port |
//! | `tcp` | connection state derived from TCP flags |

mod config;
mod ports;
pub mod presets;
mod table;
mod tcp;
#[cfg(test)]
mod tests;

pub use config::{Dependence, Family, Lifetime, NatConfig, Pooling, Ports};

use chaos::middlebox::{BoxVerdict, Middlebox, Packet, Passage, Protocol, Refusal};
use std::net::IpAddr;
use table::MappingTable;

/// A NAT box.
#[derive(Debug)]
pub struct NatBox {
    config: NatConfig,
    table: MappingTable,
}

impl NatBox {
    /// A box that has just been switched on.
    ///
    /// # Panics
    /// If fields of `config` contradict each other.
    pub fn new(config: NatConfig) -> NatBox {
        NatBox { config: config.checked(), table: MappingTable::default() }
    }

    /// Ends the box's UDP mappings, as an update of its configuration does; TCP mappings stay.
    pub fn forget_udp(&mut self) {
        self.table.forget(Protocol::Udp);
    }

    fn lets_out(&self, packet: &Packet) -> bool {
        match packet.protocol() {
            Protocol::Udp => self.config.udp,
            Protocol::Tcp => {
                self.config.tcp_ports.as_ref().is_none_or(|ports| ports.contains(&packet.dst().port()))
            }
        }
    }
}

impl Middlebox for NatBox {
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let family = self.config.family(packet.src().ip());
        if family == Family::Blocked || !self.lets_out(packet) {
            return BoxVerdict::Refuse(Refusal::Blocked);
        }
        if family == Family::Open {
            return BoxVerdict::Pass;
        }
        if !self.config.hairpin && passage.outer.contains(&packet.dst().ip()) {
            return BoxVerdict::Refuse(Refusal::Hairpin);
        }
        match self.table.outbound(&self.config, passage, packet) {
            Ok(outer) => {
                packet.set_src(outer);
                BoxVerdict::Pass
            }
            Err(refusal) => BoxVerdict::Refuse(refusal),
        }
    }

    fn inbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let family = self.config.family(packet.dst().ip());
        if family == Family::Blocked || (packet.protocol() == Protocol::Udp && !self.config.udp) {
            return BoxVerdict::Refuse(Refusal::Blocked);
        }
        if family == Family::Open {
            return BoxVerdict::Pass;
        }
        match self.table.inbound(&self.config, passage, packet) {
            Ok(inner) => {
                packet.set_dst(inner);
                BoxVerdict::Pass
            }
            Err(refusal) => BoxVerdict::Refuse(refusal),
        }
    }

    fn translates(&self, ip: IpAddr) -> bool {
        self.config.family(ip) == Family::Translated
    }

    fn reboot(&mut self) {
        self.table = MappingTable::default();
    }

    fn describe(&self) -> String {
        let NatConfig { name, mapping, filtering, udp, .. } = &self.config;
        let udp = if *udp { "" } else { ", UDP blocked" };
        format!("{name} ({} mapping, {} filtering{udp})", mapping.as_str(), filtering.as_str())
    }
}
