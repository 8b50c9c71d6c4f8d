//! The way of a packet: from an interface, over a path, to the receiving kernel.
//!
//! Every packet of the world passes [`Sim::forward`]; a chain of middleboxes belongs between `sent` and the
//! path's own draw. What a host sends to itself takes the loopback, which loses nothing.

use crate::host::{HostId, LOOPBACK};
use crate::link::{Class, DropCause, Fate};
use crate::packet;
use crate::sim::{Flight, Sim};
use std::net::IpAddr;

/// The way through a host's own kernel.
const LOOPBACK_NS: u64 = 10_000;

impl Sim {
    /// Sends a packet from `nic` of `from` towards `dst`. It never arrives before `floor_ns`, unless the path
    /// reorders it. Returns when it arrives, or 0 if it doesn't.
    pub(crate) fn forward(
        &mut self,
        from: HostId,
        nic: u8,
        dst: IpAddr,
        bytes: Vec<u8>,
        class: Class,
        floor_ns: u64,
    ) -> u64 {
        let now_ns = self.now_ns();
        self.next_packet += 1;
        let number = self.next_packet;
        self.trace.sent(now_ns, from.0, nic, number, &bytes);
        self.stats.packets_sent += 1;
        match class {
            Class::Udp => self.stats.udp_datagrams += 1,
            Class::Tcp => self.stats.tcp_segments += 1,
        }
        let addrs_version = self.addrs_version;
        let mut flight = Flight { bytes, number, from, to: from, nic, addrs_version, corrupted: false };
        if nic == LOOPBACK {
            let at_ns = (now_ns + LOOPBACK_NS).max(floor_ns);
            self.launch(at_ns, flight);
            return at_ns;
        }
        let Some((to, to_nic)) = self.addrs.get(&dst).copied() else {
            return self.end(now_ns, flight, DropCause::NoHost);
        };
        flight.to = to;
        flight.nic = to_nic;
        let link = self.links.get(from, to);
        if flight.bytes.len() > link.mtu {
            return self.end(now_ns, flight, DropCause::Mtu);
        }
        let fate = link.fate(class, &mut self.hosts[from.0 as usize].link_rng);
        if self.links.is_cut(from, to) {
            return self.end(now_ns, flight, DropCause::Partition);
        }
        let Fate::Arrives { delay_ns, copy_ns, flip, overtakes } = fate else {
            return self.end(now_ns, flight, DropCause::Loss);
        };
        if let Some(copy_ns) = copy_ns {
            let mut bytes = self.buffer();
            bytes.clear();
            bytes.extend_from_slice(&flight.bytes);
            self.stats.packets_duplicated += 1;
            self.launch(now_ns + copy_ns, Flight { bytes, ..flight_like(&flight) });
        }
        if let Some(draw) = flip {
            self.stats.packets_corrupted += 1;
            flip_bit(&mut flight.bytes, draw);
            flight.corrupted = true;
        }
        let mut at_ns = now_ns + delay_ns;
        if !overtakes {
            at_ns = at_ns.max(floor_ns);
        }
        self.launch(at_ns, flight);
        // One that was held back must not hold back those behind it.
        if overtakes { 0 } else { at_ns }
    }

    /// A packet has reached the far end of its path.
    pub(crate) fn arrive(&mut self, now_ns: u64, mut flight: Flight) {
        let Some(headers) = packet::parse(&flight.bytes) else {
            self.end(now_ns, flight, DropCause::Checksum);
            return;
        };
        if flight.addrs_version != self.addrs_version && flight.nic != LOOPBACK {
            // Addresses have moved while it was under way.
            match self.addrs.get(&headers.dst.ip()) {
                Some((to, nic)) => (flight.to, flight.nic) = (*to, *nic),
                None => {
                    self.end(now_ns, flight, DropCause::NoHost);
                    return;
                }
            }
        }
        if flight.nic != LOOPBACK && self.links.is_cut(flight.from, flight.to) {
            self.end(now_ns, flight, DropCause::Partition);
            return;
        }
        if !self.host(flight.to).answers() {
            self.end(now_ns, flight, DropCause::HostDown);
            return;
        }
        match headers.proto {
            packet::PROTO_UDP => self.udp_arrives(now_ns, flight, &headers),
            packet::PROTO_TCP => self.tcp_arrives(now_ns, flight, &headers),
            _ => {
                self.end(now_ns, flight, DropCause::Checksum);
            }
        }
    }

    /// Ends a packet that has no receiver.
    pub(crate) fn end(&mut self, now_ns: u64, flight: Flight, why: DropCause) -> u64 {
        self.trace.dropped(now_ns, flight.to.0, flight.nic, flight.number, why);
        self.stats.drop_one(why);
        self.recycle(flight.bytes);
        0
    }

    /// Records that a packet has reached its receiver.
    pub(crate) fn received(&mut self, now_ns: u64, flight: &Flight) {
        let changed = if flight.corrupted { flight.bytes.as_slice() } else { &[] };
        self.trace.delivered(now_ns, flight.to.0, flight.nic, flight.number, changed);
        self.stats.packets_delivered += 1;
    }
}

/// A flight as `other`, without its bytes.
fn flight_like(other: &Flight) -> Flight {
    Flight { bytes: Vec::new(), ..*other }
}

/// Flips one bit behind the IP header's addresses and ports, so that it reaches the transport's checksum.
fn flip_bit(bytes: &mut [u8], draw: u64) {
    let Some(headers) = packet::parse(bytes) else { return };
    let first = headers.transport + 4;
    let bits = (bytes.len() - first) as u64 * 8;
    let bit = crate::seed::below(draw, bits);
    bytes[first + (bit / 8) as usize] ^= 1 << (bit % 8);
}
