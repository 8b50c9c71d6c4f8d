//! The path of a packet: from an interface, over links and through boxes, to the receiving host.
//!
//! Every packet of the world [sets out](Wire::set_out) and then travels. In each network it takes the link to the
//! owner of its destination address there, or else to the network's box. A box passes it, rewritten or not, into the
//! next network. A packet from a host to itself takes the loopback, which loses nothing.
//!
//! A kernel takes some time for each packet, even on an ideal link. So time passes between a request and its answer,
//! and two hosts on links without latency can't stall virtual time with an endless exchange.
//!
//! A packet ends up in the caller's hands: a call returns where it goes [onward](Onward).

use super::flight::{Flight, Pool};
use super::link::{Class, DEFAULT_MTU, DropCause, Fate};
use super::links::Links;
use super::middlebox::{BoxVerdict, Packet};
use super::net::{Crossing, Owner};
use super::nets::{MAX_DEPTH, Nets};
use super::packet::{self, Headers};
use crate::ids::{End, HostId, LOOPBACK, NetId};
use crate::seed::mix;
use std::net::IpAddr;
use std::time::Duration;

/// The time through a host's own kernel, and the least time that any packet is in flight.
const KERNEL_NS: u64 = 10_000;

/// A change that a link made to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alteration {
    /// It has a second copy.
    Duplicated,
    /// It is a truncated datagram.
    Truncated,
    /// One of its bits is flipped.
    Corrupted,
}

/// Keeps the record of packets on their way.
pub(crate) trait Recorder {
    /// A link has changed a packet.
    fn altered(&mut self, how: Alteration);

    /// The box `flight.to` has rewritten a packet, within its first `changed` bytes.
    fn rewritten(&mut self, now_ns: u64, flight: &Flight, changed: usize);

    /// A packet is dropped, on the way or at `flight.to`.
    fn dropped(&mut self, now_ns: u64, flight: &Flight, why: DropCause);
}

/// Where a packet goes on.
#[must_use]
pub(crate) enum Onward {
    /// Nowhere: it was dropped.
    Ended,
    /// It [arrives](Wire::arrive) at the next end at `at_ns`. Its copy, if the link made one, is put on the way
    /// first; it is boxed, because it is rare, and every packet moves with this value.
    Fly { at_ns: u64, flight: Flight, copy: Option<Box<(u64, Flight)>> },
    /// It has reached a host's interface.
    Reach { host: HostId, flight: Flight, headers: Headers },
}

impl Onward {
    fn fly(at_ns: u64, flight: Flight) -> Onward {
        Onward::Fly { at_ns, flight, copy: None }
    }
}

/// Everything between the hosts.
pub(crate) struct Wire {
    pub(crate) nets: Nets,
    pub(crate) links: Links,
    pub(crate) pool: Pool,
    last_number: u64,
}

impl Wire {
    pub(crate) fn new(seed: u64) -> Wire {
        Wire { nets: Nets::new(), links: Links::new(seed), pool: Pool::default(), last_number: 0 }
    }

    /// The random streams of links and boxes go on with another seed; `hosts` are the names of all hosts, in their order.
    pub(crate) fn rekey<'a>(&mut self, seed: u64, hosts: impl Iterator<Item = &'a str>) {
        self.links.rekey(seed, hosts, self.nets.iter().map(|(_, net)| net.name.as_str()));
        self.nets.rekey(seed);
    }

    /// A packet leaves `nic` of `from`: it gets its number.
    #[inline]
    pub(crate) fn depart(
        &mut self,
        now_ns: u64,
        from: HostId,
        nic: u8,
        bytes: Vec<u8>,
        class: Class,
    ) -> Flight {
        self.last_number += 1;
        Flight {
            bytes,
            number: self.last_number,
            class,
            origin: from,
            sent_ns: now_ns,
            net: NetId(0),
            to: End::Host(from),
            nic,
            addrs_version: self.nets.version(),
            corrupted: false,
        }
    }

    /// Moves a departed packet towards `dst`. Its interface is in `net`; `None` is the loopback.
    #[inline]
    pub(crate) fn set_out(
        &mut self,
        now_ns: u64,
        mut flight: Flight,
        net: Option<NetId>,
        dst: IpAddr,
        record: &mut impl Recorder,
    ) -> Onward {
        let Some(net) = net else { return Onward::fly(now_ns + KERNEL_NS, flight) };
        flight.net = net;
        let from = End::Host(flight.origin);
        self.travel(now_ns, flight, None, (from, dst), record)
    }

    /// Moves a packet on towards `dst` from `from`, an end in the packet's current network. `headers` are its
    /// current headers, if they have been parsed.
    fn travel(
        &mut self,
        now_ns: u64,
        mut flight: Flight,
        mut headers: Option<Headers>,
        (mut from, mut dst): (End, IpAddr),
        record: &mut impl Recorder,
    ) -> Onward {
        // Links without any effect are crossed at once, within this loop.
        for _ in 0..2 * MAX_DEPTH {
            let net = self.nets.get(flight.net);
            let to = match net.addrs.get(&dst) {
                Some(owner) => *owner,
                None if net.gateway.is_some() && from != End::Box(flight.net) => Owner::Box(flight.net),
                None => return self.end(now_ns, flight, DropCause::NoHost, record),
            };
            flight.to = to.end();
            if let Owner::Host(_, nic) = to {
                flight.nic = nic;
            }
            // If a box owns the destination itself, it turns the packet around (hairpin).
            let turns = flight.to == from;
            if !turns && !self.links.is_ideal(from, flight.to, &net.links) {
                return self.take_link(now_ns, flight, from, record);
            }
            match flight.to {
                End::Host(_) if turns => return self.end(now_ns, flight, DropCause::NoHost, record),
                End::Host(host) => {
                    let earliest_ns = flight.sent_ns + KERNEL_NS;
                    return match headers {
                        // Only a packet that has crossed a link: a send must not enter another kernel in the same
                        // call.
                        Some(headers) if earliest_ns <= now_ns => Onward::Reach { host, flight, headers },
                        _ => Onward::fly(earliest_ns.max(now_ns), flight),
                    };
                }
                End::Box(id) => match self.pass_box(now_ns, flight, headers, id, record) {
                    Some((passed, seen)) => {
                        flight = passed;
                        (from, dst) = (End::Box(id), seen.dst.ip());
                        headers = Some(seen);
                    }
                    None => return Onward::Ended,
                },
            }
        }
        self.end(now_ns, flight, DropCause::NoHost, record)
    }

    /// Puts a packet on the link from `from` to `flight.to`.
    #[inline]
    fn take_link(
        &mut self,
        now_ns: u64,
        mut flight: Flight,
        from: End,
        record: &mut impl Recorder,
    ) -> Onward {
        let default = &self.nets.get(flight.net).links;
        let fate = self.links.take(now_ns, (from, flight.to), default, flight.class, flight.bytes.len());
        let (at_ns, copy_at_ns, flip, cut) = match fate {
            Fate::Dropped(why) => return self.end(now_ns, flight, why, record),
            Fate::Arrives { at_ns, copy_at_ns, flip, cut } => (at_ns, copy_at_ns, flip, cut),
        };
        let earliest_ns = match flight.to {
            End::Host(_) => flight.sent_ns + KERNEL_NS,
            End::Box(_) => now_ns,
        };
        let copy = copy_at_ns.map(|copy_at_ns| {
            let mut bytes = self.pool.take();
            bytes.clear();
            bytes.extend_from_slice(&flight.bytes);
            record.altered(Alteration::Duplicated);
            Box::new((copy_at_ns.max(earliest_ns), flight.with_bytes(bytes)))
        });
        if let Some(draw) = cut
            && packet::truncate_udp(&mut flight.bytes, draw)
        {
            record.altered(Alteration::Truncated);
            flight.corrupted = true;
        }
        if let Some(draw) = flip {
            record.altered(Alteration::Corrupted);
            // Mixed once more, so that the position of the bit is independent of whether a checksum notices it.
            let unnoticed = mix(draw) & 1 == 1;
            if !unnoticed || !packet::damage_udp(&mut flight.bytes, draw) {
                packet::flip_bit(&mut flight.bytes, draw);
            }
            flight.corrupted = true;
        }
        Onward::Fly { at_ns: at_ns.max(earliest_ns), flight, copy }
    }

    /// Passes a packet through a box. Returns the packet, in the network on the other side, and its headers there;
    /// `None` if it was dropped.
    fn pass_box(
        &mut self,
        now_ns: u64,
        mut flight: Flight,
        headers: Option<Headers>,
        id: NetId,
        record: &mut impl Recorder,
    ) -> Option<(Flight, Headers)> {
        let Some(headers) = headers.or_else(|| packet::parse(&flight.bytes)) else {
            let _ = self.end(now_ns, flight, DropCause::Checksum, record);
            return None;
        };
        let mut packet = Packet::of(std::mem::take(&mut flight.bytes), headers);
        let gateway = self.nets.gateway(id);
        let crossing = if flight.net == id { Crossing::Out } else { Crossing::In };
        let verdict = gateway.pass(crossing, Duration::from_nanos(now_ns), &mut packet);
        flight.net = if crossing == Crossing::Out { gateway.outside } else { id };
        let (bytes, headers, is_rewritten) = packet.into_parts();
        flight.bytes = bytes;
        flight.to = End::Box(id);
        if let BoxVerdict::Refuse(why) = verdict {
            let _ = self.end(now_ns, flight, why.into(), record);
            return None;
        }
        if is_rewritten {
            record.rewritten(now_ns, &flight, headers.len());
        }
        Some((flight, headers))
    }

    /// A packet has reached the far end of a link.
    #[inline]
    pub(crate) fn arrive(&mut self, now_ns: u64, mut flight: Flight, record: &mut impl Recorder) -> Onward {
        let Some(headers) = packet::parse(&flight.bytes) else {
            return self.end(now_ns, flight, DropCause::Checksum, record);
        };
        if flight.addrs_version != self.nets.version() && flight.nic != LOOPBACK {
            // Addresses have changed while the packet was in flight.
            flight.addrs_version = self.nets.version();
            match (flight.to, self.nets.get(flight.net).addrs.get(&headers.dst.ip())) {
                (End::Host(_), Some(Owner::Host(to, nic))) => {
                    (flight.to, flight.nic) = (End::Host(*to), *nic);
                }
                (_, Some(Owner::Box(id))) => flight.to = End::Box(*id),
                // Outbound: the destination isn't in this network.
                (End::Box(id), None) if id == flight.net => {}
                _ => return self.end(now_ns, flight, DropCause::NoHost, record),
            }
        }
        match flight.to {
            End::Host(host) => Onward::Reach { host, flight, headers },
            End::Box(id) => match self.pass_box(now_ns, flight, Some(headers), id, record) {
                Some((flight, headers)) => {
                    let dst = headers.dst.ip();
                    self.travel(now_ns, flight, Some(headers), (End::Box(id), dst), record)
                }
                None => Onward::Ended,
            },
        }
    }

    /// Drops a packet, with its cause.
    pub(crate) fn end(
        &mut self,
        now_ns: u64,
        flight: Flight,
        why: DropCause,
        record: &mut impl Recorder,
    ) -> Onward {
        record.dropped(now_ns, &flight, why);
        self.pool.give_back(flight.bytes);
        Onward::Ended
    }

    /// The path MTU from an interface of `host` in `net` towards `dst`, as far as this side can see: without what black holes
    /// don't tell, and up to a box that has `dst` and translates the addresses behind it.
    pub(crate) fn path_mtu(&self, host: HostId, mut net: NetId, dst: IpAddr) -> usize {
        let mut from = End::Host(host);
        let mut mtu = usize::MAX;
        for _ in 0..2 * MAX_DEPTH {
            let state = self.nets.get(net);
            let to = match (state.addrs.get(&dst), &state.gateway) {
                (Some(owner), _) => owner.end(),
                (None, Some(_)) => End::Box(net),
                (None, None) => break,
            };
            if from != to {
                mtu = mtu.min(self.links.get(from, to, &state.links).told_mtu());
            }
            let End::Box(id) = to else { break };
            let Some(gateway) = &self.nets.get(id).gateway else { break };
            if id == net {
                (from, net) = (to, gateway.outside);
            } else if gateway.translates(dst) {
                break;
            } else {
                (from, net) = (to, id);
            }
        }
        if mtu == usize::MAX { DEFAULT_MTU } else { mtu }
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::{LinkConfig, Rate};
    use super::super::middlebox::Modem;
    use super::super::net::Gateway;
    use super::super::nets::Claim;
    use super::*;
    use crate::ids::INTERNET;
    use crate::seed::stream;
    use std::net::SocketAddr;

    #[derive(Default)]
    struct Dropped(Vec<DropCause>);

    impl Recorder for Dropped {
        fn altered(&mut self, _: Alteration) {}

        fn rewritten(&mut self, _: u64, _: &Flight, _: usize) {}

        fn dropped(&mut self, _: u64, _: &Flight, why: DropCause) {
            self.0.push(why);
        }
    }

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Host A in the internet, and B in a home behind a modem.
    fn wire() -> (Wire, NetId) {
        let mut wire = Wire::new(1);
        wire.links.host_named("a");
        wire.links.host_named("b");
        let home =
            wire.nets.add("home", Gateway::new(INTERNET, Vec::new(), Box::new(Modem), stream(1, "box/home")));
        wire.links.net_named("home");
        let claim = |net, text: &str, host| Claim { net, ip: addr(text).ip(), owner: Owner::Host(host, 0) };
        wire.nets.readdress(&[claim(INTERNET, "10.0.0.1:0", A), claim(home, "10.0.0.2:0", B)]);
        (wire, home)
    }

    fn send(wire: &mut Wire, net: Option<NetId>, dst: &str, record: &mut Dropped) -> Onward {
        let mut bytes = Vec::new();
        packet::write_udp(&mut bytes, addr("10.0.0.1:5"), addr(dst), 0, b"x");
        let nic = if net.is_some() { 0 } else { LOOPBACK };
        let flight = wire.depart(0, A, nic, bytes, Class::Udp);
        wire.set_out(0, flight, net, addr(dst).ip(), record)
    }

    #[test]
    fn a_packet_crosses_a_box_and_an_inner_link_to_the_host_behind_it() {
        let (mut wire, _) = wire();
        let mut record = Dropped::default();
        let Onward::Fly { at_ns, flight, copy: None } =
            send(&mut wire, Some(INTERNET), "10.0.0.2:7", &mut record)
        else {
            panic!("a packet without a copy")
        };
        assert!(matches!(flight.to, End::Box(_)));
        let Onward::Reach { host, headers, .. } = wire.arrive(at_ns, flight, &mut record) else {
            panic!("the inner link is ideal")
        };
        assert_eq!((host, headers.dst), (B, addr("10.0.0.2:7")));
        assert!(record.0.is_empty());
    }

    #[test]
    fn a_packet_that_goes_nowhere_is_recorded_with_its_cause() {
        let (mut wire, home) = wire();
        let mut record = Dropped::default();
        assert!(matches!(send(&mut wire, Some(INTERNET), "10.0.0.9:7", &mut record), Onward::Ended));
        let all_lost = LinkConfig { udp_loss: Rate::ALWAYS, ..LinkConfig::default() };
        wire.links.set(End::Host(A), End::Box(home), all_lost);
        assert!(matches!(send(&mut wire, Some(INTERNET), "10.0.0.2:7", &mut record), Onward::Ended));
        assert_eq!(record.0, [DropCause::NoHost, DropCause::Loss]);
    }

    #[test]
    fn the_loopback_takes_the_time_of_a_kernel_and_loses_nothing() {
        let (mut wire, _) = wire();
        let onward = send(&mut wire, None, "127.0.0.1:7", &mut Dropped::default());
        assert!(matches!(onward, Onward::Fly { at_ns: KERNEL_NS, copy: None, .. }));
    }
}
