//! Boxes between two networks: NAT boxes, firewalls, and everything else that rewrites or refuses packets.
//!
//! A [`Middlebox`] sees every packet that crosses from its inner network to the outer one and back, may rewrite the
//! packet's addresses and ports, and decides whether it passes. It is a pure state machine: each call supplies time,
//! outer addresses and randomness, in a [`Passage`]. Boxes chain by nesting networks (see [`Net`](crate::Net)):
//! a carrier-grade NAT is a network behind a box, in which the home's box has its outer address.
//!
//! A refused packet is dropped silently: no ICMP error is sent.

use super::packet::{self, Headers, PROTO_UDP};
use crate::seed::Rng;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use super::packet::TcpFlags;

/// A box between an inner network and an outer one.
pub trait Middlebox: Send + 'static {
    /// A packet from inside towards outside. `packet.dst()` may be one of the box's own outer addresses: then the
    /// world passes the rewritten packet directly back to [`inbound`](Middlebox::inbound) (a hairpin).
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict;

    /// A packet from outside, for one of the box's outer addresses or, where the box doesn't
    /// [translate](Middlebox::translates), for an inner host's own address.
    fn inbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict;

    /// Whether inner addresses of this family are hidden from outside. Where they aren't (a firewall, IPv6 behind
    /// most home routers), inner hosts are reached under their own addresses, through the box.
    fn translates(&self, ip: IpAddr) -> bool {
        ip.is_ipv4()
    }

    /// The box has rebooted: its tables must be empty.
    fn reboot(&mut self) {}

    /// The kind of box, in a few words, for the map of a world.
    fn describe(&self) -> String;
}

/// A box that passes every packet unchanged: a modem, a cable. In front of a home's router it gives the home one
/// access link, whose bandwidth all of its hosts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modem;

impl Middlebox for Modem {
    fn outbound(&mut self, _: &mut Passage<'_>, _: &mut Packet) -> BoxVerdict {
        BoxVerdict::Pass
    }

    fn inbound(&mut self, _: &mut Passage<'_>, _: &mut Packet) -> BoxVerdict {
        BoxVerdict::Pass
    }

    fn translates(&self, _: IpAddr) -> bool {
        false
    }

    fn describe(&self) -> String {
        "a modem".to_owned()
    }
}

/// The context of a packet at a box.
pub struct Passage<'a> {
    /// The world's time.
    pub now: Duration,
    /// The box's outer addresses, at least one unless it only filters.
    pub outer: &'a [IpAddr],
    /// The box's own random stream.
    pub rng: &'a mut Rng,
}

/// The decision of a box on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxVerdict {
    /// The packet passes, as it is now.
    Pass,
    /// The packet is dropped.
    Refuse(Refusal),
}

/// Why a box refuses a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// From outside, to a port without a mapping.
    NoMapping = 0,
    /// The port has a mapping, but not for this sender.
    Filtered = 1,
    /// No entry, or no port, is left for a new mapping.
    TableFull = 2,
    /// From inside to the box's own outer address, and the box doesn't hairpin.
    Hairpin = 3,
    /// The box blocks this kind of traffic.
    Blocked = 4,
    /// The box has no power.
    Off = 5,
}

impl Refusal {
    /// A short name, for a trace.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::NoMapping => "no mapping",
            Refusal::Filtered => "filtered",
            Refusal::TableFull => "table full",
            Refusal::Hairpin => "hairpin",
            Refusal::Blocked => "blocked",
            Refusal::Off => "off",
        }
    }
}

/// The transport of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// An IP packet with UDP or TCP in it, whose addresses and ports can be rewritten; checksums are kept correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    bytes: Vec<u8>,
    headers: Headers,
    is_rewritten: bool,
}

impl Packet {
    /// A packet from its bytes; `None` (and the bytes are lost) if it isn't IPv4 or IPv6 with UDP or TCP.
    pub fn parse(bytes: Vec<u8>) -> Option<Packet> {
        let headers = packet::parse(&bytes)?;
        Some(Packet::of(bytes, headers))
    }

    /// A packet that `headers` describe.
    pub(crate) fn of(bytes: Vec<u8>, headers: Headers) -> Packet {
        Packet { bytes, headers, is_rewritten: false }
    }

    /// Its bytes, its headers, and whether its source or destination was rewritten.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Headers, bool) {
        (self.bytes, self.headers, self.is_rewritten)
    }

    /// A UDP datagram.
    pub fn udp(src: SocketAddr, dst: SocketAddr, body: &[u8]) -> Packet {
        let mut bytes = Vec::new();
        packet::write_udp(&mut bytes, src, dst, 0, body);
        Packet::parse(bytes).expect("what is written is read back")
    }

    /// A TCP segment without data, for tests of a box.
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: TcpFlags) -> Packet {
        let mut bytes = Vec::new();
        packet::write_tcp(&mut bytes, src, dst, flags);
        Packet::parse(bytes).expect("what is written is read back")
    }

    /// The source.
    pub fn src(&self) -> SocketAddr {
        self.headers.src
    }

    /// The destination.
    pub fn dst(&self) -> SocketAddr {
        self.headers.dst
    }

    /// Its transport.
    pub fn protocol(&self) -> Protocol {
        if self.headers.proto == PROTO_UDP { Protocol::Udp } else { Protocol::Tcp }
    }

    /// Its TCP flags; none are set for UDP.
    pub fn tcp_flags(&self) -> TcpFlags {
        match self.protocol() {
            Protocol::Udp => TcpFlags::default(),
            Protocol::Tcp => packet::tcp_flags(&self.bytes, self.headers.transport),
        }
    }

    /// The whole packet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Converts it into its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Rewrites the source.
    ///
    /// # Panics
    /// If `src` is of the other family.
    pub fn set_src(&mut self, src: SocketAddr) {
        packet::rewrite(&mut self.bytes, &self.headers, packet::Side::Source, src);
        self.headers.src = src;
        self.is_rewritten = true;
    }

    /// Rewrites the destination.
    ///
    /// # Panics
    /// If `dst` is of the other family.
    pub fn set_dst(&mut self, dst: SocketAddr) {
        packet::rewrite(&mut self.bytes, &self.headers, packet::Side::Destination, dst);
        self.headers.dst = dst;
        self.is_rewritten = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

    fn checksums_hold(packet: &Packet) -> bool {
        let bytes = packet.bytes();
        let (src, dst): (IpAddress, IpAddress) = (packet.src().ip().into(), packet.dst().ip().into());
        let payload = match bytes[0] >> 4 {
            4 => {
                let ip = Ipv4Packet::new_checked(bytes).unwrap();
                assert!(ip.verify_checksum());
                ip.payload().to_vec()
            }
            _ => Ipv6Packet::new_checked(bytes).unwrap().payload().to_vec(),
        };
        match packet.protocol() {
            Protocol::Udp => UdpPacket::new_checked(&payload[..]).unwrap().verify_checksum(&src, &dst),
            Protocol::Tcp => TcpPacket::new_checked(&payload[..]).unwrap().verify_checksum(&src, &dst),
        }
    }

    proptest! {
        #[test]
        fn rewriting_keeps_every_checksum_right(
            v6 in any::<bool>(), tcp in any::<bool>(),
            hosts in any::<[u32; 4]>(), ports in any::<[u16; 4]>(),
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let addr = |at: usize| {
                let ip: IpAddr = if v6 {
                    std::net::Ipv6Addr::from((0xfd00u128 << 112) | u128::from(hosts[at])).into()
                } else {
                    std::net::Ipv4Addr::from(hosts[at]).into()
                };
                SocketAddr::new(ip, ports[at])
            };
            let mut packet = if tcp {
                Packet::tcp(addr(0), addr(1), TcpFlags { syn: true, ..TcpFlags::default() })
            } else {
                Packet::udp(addr(0), addr(1), &body)
            };
            prop_assert!(checksums_hold(&packet));
            packet.set_src(addr(2));
            packet.set_dst(addr(3));
            prop_assert_eq!((packet.src(), packet.dst()), (addr(2), addr(3)));
            prop_assert!(checksums_hold(&packet));
            let read_back = Packet::parse(packet.bytes().to_vec()).unwrap();
            prop_assert_eq!(read_back.headers, packet.headers);
        }
    }
}
