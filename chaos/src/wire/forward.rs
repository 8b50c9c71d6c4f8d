//! The path of a packet: from an interface, over links and through boxes, to the receiving kernel.
//!
//! Every packet of the world passes [`Sim::forward`] and then [travels](Sim::travel). In each network it takes the
//! link to the owner of its destination address there, or else to the network's box. A box passes it, rewritten or
//! not, into the next network. A packet from a host to itself takes the loopback, which loses nothing.
//!
//! A kernel takes some time for each packet, even on an ideal link. So time passes between a request and its answer,
//! and two hosts on links without latency can't stall virtual time with an endless exchange.

use crate::ids::{End, NetId};
use crate::ids::{HostId, LOOPBACK};
use crate::kernel::host::Route;
use crate::seed::mix;
use crate::wire::link::{Class, DropCause, Fate};
use crate::wire::middlebox::{Packet, Verdict};
use crate::wire::net::{MAX_DEPTH, Owner, Way};
use crate::wire::packet::{self, Headers};
use crate::world::property::{Broken, Forbidden, Kind};
use crate::world::sim::{Flight, Sim};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// The time through a host's own kernel, and the least time that any packet is in flight.
const KERNEL_NS: u64 = 10_000;

impl Sim {
    /// Sends a packet from `nic` of `from` towards `dst`.
    pub(crate) fn forward(&mut self, from: HostId, nic: u8, dst: IpAddr, bytes: Vec<u8>, class: Class) {
        let now_ns = self.now_ns();
        self.next_packet += 1;
        let number = self.next_packet;
        self.trace.sent(now_ns, from.0, nic, number, &bytes);
        self.stats.packets_sent += 1;
        match class {
            Class::Udp => self.stats.udp_datagrams += 1,
            Class::Tcp => self.stats.tcp_segments += 1,
        }
        let mut flight = Flight {
            bytes,
            number,
            class,
            origin: from,
            sent_ns: now_ns,
            net: NetId(0),
            to: End::Host(from),
            nic,
            addrs_version: self.addrs_version,
            corrupted: false,
        };
        if nic == LOOPBACK {
            self.launch(now_ns + KERNEL_NS, flight);
            return;
        }
        self.check_forbidden(Some(from), &flight.bytes, || format!("packet {number}"));
        flight.net = self.host(from).nics[usize::from(nic)].net;
        self.travel(now_ns, flight, None, End::Host(from), dst);
    }

    /// Breaks the property of the first forbidden byte sequence found in `bytes`.
    pub(crate) fn check_forbidden(&mut self, host: Option<HostId>, bytes: &[u8], what: impl Fn() -> String) {
        let carried = self.forbidden.iter().find(|forbidden| forbidden.bytes.find(bytes).is_some());
        let Some(Forbidden { property, place, .. }) = carried else { return };
        let broken = Broken {
            property: property.clone(),
            kind: Kind::Safety,
            seen: format!("{} of {} bytes carries it", what(), bytes.len()),
            at: Duration::from_nanos(self.now_ns()),
            host: host.map(|id| self.host(id).name.clone()),
            file: place.file().to_owned(),
            line: place.line(),
        };
        self.broken.get_or_insert(broken);
        self.wake_driver();
    }

    /// Moves a packet on towards `dst` from `from`, an end in the packet's current network. `headers` are its
    /// current headers, if they have been parsed.
    fn travel(
        &mut self,
        now_ns: u64,
        mut flight: Flight,
        mut headers: Option<Headers>,
        mut from: End,
        mut dst: IpAddr,
    ) {
        // Links without any effect are crossed at once, within this loop.
        for _ in 0..2 * MAX_DEPTH {
            let net = &self.nets[flight.net.0 as usize];
            let to = match net.addrs.get(&dst) {
                Some(owner) => *owner,
                None if net.gateway.is_some() && from != End::Box(flight.net) => Owner::Box(flight.net),
                None => return self.end(now_ns, flight, DropCause::NoHost),
            };
            flight.to = to.end();
            if let Owner::Host(_, nic) = to {
                flight.nic = nic;
            }
            // If a box owns the destination itself, it turns the packet around (hairpin).
            let turns = flight.to == from;
            if !turns && !self.links.is_ideal(from, flight.to, &net.links) {
                return self.take_link(now_ns, flight, from);
            }
            match flight.to {
                End::Host(_) if turns => return self.end(now_ns, flight, DropCause::NoHost),
                End::Host(to) => {
                    let earliest_ns = flight.sent_ns + KERNEL_NS;
                    return match headers {
                        // Only a packet that has crossed a link: a send must not enter another kernel in the same
                        // call.
                        Some(headers) if earliest_ns <= now_ns => self.reach(now_ns, flight, to, &headers),
                        _ => self.launch(earliest_ns.max(now_ns), flight),
                    };
                }
                End::Box(id) => {
                    let Some((passed, seen)) = self.pass_box(now_ns, flight, headers, id) else { return };
                    flight = passed;
                    (from, dst) = (End::Box(id), seen.dst.ip());
                    headers = Some(seen);
                }
            }
        }
        self.end(now_ns, flight, DropCause::NoHost);
    }

    /// Puts a packet on the link from `from` to `flight.to`.
    fn take_link(&mut self, now_ns: u64, mut flight: Flight, from: End) {
        let default = &self.nets[flight.net.0 as usize].links;
        let rng = match from {
            End::Host(host) => &mut self.hosts[host.0 as usize].link_rng,
            End::Box(net) => &mut self.box_link_rngs[net.0 as usize],
        };
        let fate = self.links.take(now_ns, (from, flight.to), default, flight.class, flight.bytes.len(), rng);
        match fate {
            Fate::Dropped(why) => self.end(now_ns, flight, why),
            Fate::Arrives { at_ns, copy_at_ns, flip, cut } => {
                let earliest_ns = match flight.to {
                    End::Host(_) => flight.sent_ns + KERNEL_NS,
                    End::Box(_) => now_ns,
                };
                if let Some(copy_at_ns) = copy_at_ns {
                    let mut bytes = self.buffer();
                    bytes.clear();
                    bytes.extend_from_slice(&flight.bytes);
                    self.stats.packets_duplicated += 1;
                    self.launch(copy_at_ns.max(earliest_ns), Flight { bytes, ..flight_like(&flight) });
                }
                if let Some(draw) = cut
                    && packet::truncate_udp(&mut flight.bytes, draw)
                {
                    self.stats.packets_truncated += 1;
                    flight.corrupted = true;
                }
                if let Some(draw) = flip {
                    self.stats.packets_corrupted += 1;
                    // Mixed once more, so that the position of the bit is independent of whether a checksum notices
                    // it.
                    let unnoticed = mix(draw) & 1 == 1;
                    if !unnoticed || !packet::damage_udp(&mut flight.bytes, draw) {
                        flip_bit(&mut flight.bytes, draw);
                    }
                    flight.corrupted = true;
                }
                self.launch(at_ns.max(earliest_ns), flight);
            }
        }
    }

    /// Passes a packet through a box. Returns the packet, in the network on the other side, and its headers there;
    /// `None` if it was dropped.
    fn pass_box(
        &mut self,
        now_ns: u64,
        mut flight: Flight,
        headers: Option<Headers>,
        id: NetId,
    ) -> Option<(Flight, Headers)> {
        let Some(headers) = headers.or_else(|| packet::parse(&flight.bytes)) else {
            self.end(now_ns, flight, DropCause::Checksum);
            return None;
        };
        let mut packet = Packet::of(std::mem::take(&mut flight.bytes), headers);
        let gateway = self.nets[id.0 as usize].gateway.as_mut().expect("an end of links has a box");
        let way = if flight.net == id { Way::Out } else { Way::In };
        let verdict = gateway.pass(way, Duration::from_nanos(now_ns), &mut packet);
        flight.net = if way == Way::Out { gateway.outside } else { id };
        let (bytes, headers, is_rewritten) = packet.into_parts();
        flight.bytes = bytes;
        flight.to = End::Box(id);
        if let Verdict::Refuse(why) = verdict {
            self.end(now_ns, flight, why.into());
            return None;
        }
        if is_rewritten {
            let changed = headers.len();
            self.trace.rewritten(now_ns, flight.to, flight.number, &flight.bytes, changed, flight.corrupted);
        }
        Some((flight, headers))
    }

    /// A packet has reached the far end of a link.
    pub(crate) fn arrive(&mut self, now_ns: u64, mut flight: Flight) {
        let Some(headers) = packet::parse(&flight.bytes) else {
            self.end(now_ns, flight, DropCause::Checksum);
            return;
        };
        if flight.addrs_version != self.addrs_version && flight.nic != LOOPBACK {
            // Addresses have changed while the packet was in flight.
            flight.addrs_version = self.addrs_version;
            match (flight.to, self.net(flight.net).addrs.get(&headers.dst.ip())) {
                (End::Host(_), Some(Owner::Host(to, nic))) => {
                    (flight.to, flight.nic) = (End::Host(*to), *nic);
                }
                (_, Some(Owner::Box(id))) => flight.to = End::Box(*id),
                // Outbound: the destination isn't in this network.
                (End::Box(id), None) if id == flight.net => {}
                _ => {
                    self.end(now_ns, flight, DropCause::NoHost);
                    return;
                }
            }
        }
        let to = match flight.to {
            End::Host(to) => to,
            End::Box(id) => {
                if let Some((flight, headers)) = self.pass_box(now_ns, flight, Some(headers), id) {
                    let dst = headers.dst.ip();
                    self.travel(now_ns, flight, Some(headers), End::Box(id), dst);
                }
                return;
            }
        };
        self.reach(now_ns, flight, to, &headers);
    }

    /// A packet has reached its receiver's interface.
    fn reach(&mut self, now_ns: u64, flight: Flight, to: HostId, headers: &Headers) {
        if flight.nic != LOOPBACK && self.links.crosses_cut(flight.origin, to, flight.sent_ns, now_ns) {
            self.end(now_ns, flight, DropCause::Partition);
            return;
        }
        if !self.host(to).answers() {
            self.end(now_ns, flight, DropCause::HostDown);
            return;
        }
        match headers.proto {
            packet::PROTO_UDP => self.udp_arrives(now_ns, flight, to, headers),
            _ => self.tcp_arrives(now_ns, flight, to, headers),
        }
    }

    /// Drops a packet, with its cause.
    pub(crate) fn end(&mut self, now_ns: u64, flight: Flight, why: DropCause) {
        self.trace.dropped(now_ns, flight.to, flight.nic, flight.number, why);
        self.stats.drop_one(why);
        self.recycle(flight.bytes);
    }

    /// Records that a packet has reached its receiver.
    pub(crate) fn received(&mut self, now_ns: u64, flight: &Flight) {
        let changed = if flight.corrupted { flight.bytes.as_slice() } else { &[] };
        self.trace.delivered(now_ns, flight.to, flight.nic, flight.number, changed);
        self.stats.packets_delivered += 1;
    }

    /// Interface and source address of `host` towards `dst`; see [`HostState::route`](crate::kernel::host::HostState::route).
    pub(crate) fn route(&self, host: HostId, wanted: Option<IpAddr>, dst: IpAddr) -> io::Result<Route> {
        self.host(host).route(wanted, dst, |net| self.net(net).is_on_link(dst))
    }

    /// The path MTU from `nic` of `host` towards `dst`, as far as this side can see: up to a box that has `dst` and
    /// translates the addresses behind it.
    pub(crate) fn path_mtu(&self, host: HostId, nic: u8, dst: IpAddr) -> usize {
        let (mut from, mut net) = (End::Host(host), self.host(host).nics[usize::from(nic)].net);
        let mut mtu = usize::MAX;
        for _ in 0..2 * MAX_DEPTH {
            let state = self.net(net);
            let to = match (state.addrs.get(&dst), &state.gateway) {
                (Some(owner), _) => owner.end(),
                (None, Some(_)) => End::Box(net),
                (None, None) => break,
            };
            if from != to {
                mtu = mtu.min(self.links.get(from, to, &state.links).mtu);
            }
            let End::Box(id) = to else { break };
            let Some(gateway) = &self.net(id).gateway else { break };
            if id == net {
                (from, net) = (to, gateway.outside);
            } else if gateway.translates(dst) {
                break;
            } else {
                (from, net) = (to, id);
            }
        }
        if mtu == usize::MAX { crate::wire::link::DEFAULT_MTU } else { mtu }
    }
}

/// A copy of `other` without its bytes.
fn flight_like(other: &Flight) -> Flight {
    Flight { bytes: Vec::new(), ..*other }
}

/// Flips one bit after the addresses and ports, so that the packet still reaches the check of the transport's
/// checksum.
fn flip_bit(bytes: &mut [u8], draw: u64) {
    let Some(headers) = packet::parse(bytes) else { return };
    let first = headers.transport + 4;
    let bits = (bytes.len() - first) as u64 * 8;
    let bit = crate::seed::below(draw, bits);
    bytes[first + (bit / 8) as usize] ^= 1 << (bit % 8);
}
