//! IP packets as bytes: IPv4 (RFC 791) and IPv6 (RFC 8200) with UDP (RFC 768), including checksums.
//!
//! So a run can be written as a `.pcap` file. TCP segments come from smoltcp in the same form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) const PROTO_TCP: u8 = 6;
pub(crate) const PROTO_UDP: u8 = 17;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const HOP_LIMIT: u8 = 64;

/// The flags of a TCP segment that a box looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags {
    /// Opens a connection.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// Ends a direction.
    pub fin: bool,
    /// Ends the connection.
    pub rst: bool,
}

/// The parsed headers of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) proto: u8,
    /// Where the transport header begins.
    pub(crate) transport: usize,
}

impl Headers {
    /// Bytes up to the end of the transport header, without TCP's options.
    pub(crate) fn len(&self) -> usize {
        self.transport + if self.proto == PROTO_TCP { TCP_HEADER } else { UDP_HEADER }
    }
}

/// One's complement sum over 16-bit big-endian words, not yet folded, and below 2^34. The order of bytes within words
/// doesn't matter to the sum, and neither does their width if each carry is added again (RFC 1071 §2), so it runs over
/// native words of 64 bits.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let mut total = 0;
    for word in words {
        let (sum, carry) = u64::overflowing_add(total, u64::from_ne_bytes(*word));
        total = sum + u64::from(carry);
    }
    total = (total & 0xFFFF_FFFF) + (total >> 32);
    let (words, rest) = rest.as_chunks();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = rest {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// Folds a sum to the checksum, in the byte order of the packet.
fn fold(mut total: u64) -> [u8; 2] {
    while total >> 16 != 0 {
        total = (total & 0xFFFF) + (total >> 16);
    }
    (!(total as u16)).to_ne_bytes()
}

fn pseudo_header(packet: &[u8], transport: usize, proto: u8) -> u64 {
    let addresses = if transport == V4_HEADER { &packet[12..20] } else { &packet[8..40] };
    let length = (packet.len() - transport) as u32;
    sum(addresses) + sum(&length.to_be_bytes()) + sum(&[0, proto])
}

/// Writes an IP header for `length` bytes of transport; returns where those begin. Both addresses are of one family.
fn write_ip(out: &mut Vec<u8>, src: IpAddr, dst: IpAddr, ident: u16, proto: u8, length: u16) -> usize {
    match (src, dst) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0; V4_HEADER];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(length + V4_HEADER as u16).to_be_bytes());
            header[4..6].copy_from_slice(&ident.to_be_bytes());
            header[6] = 0x40; // don't fragment
            header[8] = HOP_LIMIT;
            header[9] = proto;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let checksum = fold(sum(&header));
            header[10..12].copy_from_slice(&checksum);
            out.extend_from_slice(&header);
            V4_HEADER
        }
        (from, to) => {
            let mut header = [0; V6_HEADER];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = proto;
            header[7] = HOP_LIMIT;
            header[8..24].copy_from_slice(&v6(from).octets());
            header[24..40].copy_from_slice(&v6(to).octets());
            out.extend_from_slice(&header);
            V6_HEADER
        }
    }
}

/// Writes a UDP datagram into `out`, which is cleared first. Both addresses are of one family, and the body is
/// small enough for a packet of 65,535 bytes.
pub(crate) fn write_udp(out: &mut Vec<u8>, src: SocketAddr, dst: SocketAddr, ident: u16, body: &[u8]) {
    out.clear();
    let udp_len = (UDP_HEADER + body.len()) as u16;
    let transport = write_ip(out, src.ip(), dst.ip(), ident, PROTO_UDP, udp_len);
    let mut udp = [0; UDP_HEADER];
    udp[..2].copy_from_slice(&src.port().to_be_bytes());
    udp[2..4].copy_from_slice(&dst.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    out.extend_from_slice(&udp);
    out.extend_from_slice(body);
    write_checksum(out, transport, PROTO_UDP);
}

/// Writes a TCP segment without data into `out`, which is cleared first.
pub(crate) fn write_tcp(out: &mut Vec<u8>, src: SocketAddr, dst: SocketAddr, flags: TcpFlags) {
    out.clear();
    let transport = write_ip(out, src.ip(), dst.ip(), 0, PROTO_TCP, TCP_HEADER as u16);
    let mut tcp = [0; TCP_HEADER];
    tcp[..2].copy_from_slice(&src.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&dst.port().to_be_bytes());
    tcp[12] = (TCP_HEADER as u8 / 4) << 4;
    tcp[13] =
        u8::from(flags.fin) | u8::from(flags.syn) << 1 | u8::from(flags.rst) << 2 | u8::from(flags.ack) << 4;
    out.extend_from_slice(&tcp);
    write_checksum(out, transport, PROTO_TCP);
}

/// The offset of the transport's checksum.
fn checksum_at(transport: usize, proto: u8) -> usize {
    transport + if proto == PROTO_UDP { 6 } else { 16 }
}

/// Recomputes the transport's checksum.
fn write_checksum(packet: &mut [u8], transport: usize, proto: u8) {
    let at = checksum_at(transport, proto);
    packet[at..at + 2].fill(0);
    let mut checksum = fold(pseudo_header(packet, transport, proto) + sum(&packet[transport..]));
    if checksum == [0, 0] && proto == PROTO_UDP {
        checksum = [0xFF, 0xFF]; // zero means "none"
    }
    packet[at..at + 2].copy_from_slice(&checksum);
}

/// Truncates the body of a UDP datagram to a drawn length, and corrects lengths and checksums. Returns whether it
/// did. A damaged datagram is left as it is, since a corrected checksum would hide the damage.
pub(crate) fn truncate_udp(packet: &mut Vec<u8>, draw: u64) -> bool {
    let Some(headers) = parse(packet).filter(|headers| headers.proto == PROTO_UDP) else { return false };
    if !udp_checksum_holds(packet, &headers) {
        return false;
    }
    let body = packet.len() - headers.transport - UDP_HEADER;
    let kept = crate::seed::below(draw, body as u64) as usize;
    let body = packet[headers.transport + UDP_HEADER..][..kept].to_vec();
    let ident = u16::from_be_bytes([packet[4], packet[5]]);
    write_udp(packet, headers.src, headers.dst, ident, &body);
    true
}

/// Flips a drawn bit in the body of a UDP datagram and corrects its checksum, so that the damage reaches the reader.
/// Returns whether it did. A datagram without a body or with earlier damage is left as it is.
pub(crate) fn damage_udp(packet: &mut [u8], draw: u64) -> bool {
    let Some(headers) = parse(packet).filter(|headers| headers.proto == PROTO_UDP) else { return false };
    let body = headers.transport + UDP_HEADER;
    if body >= packet.len() || !udp_checksum_holds(packet, &headers) {
        return false;
    }
    let bit = crate::seed::below(draw, (packet.len() - body) as u64 * 8);
    packet[body + (bit / 8) as usize] ^= 1 << (bit % 8);
    write_checksum(packet, headers.transport, PROTO_UDP);
    true
}

/// Flips one bit after the addresses and ports, so that the packet still reaches the check of the transport's
/// checksum.
pub(crate) fn flip_bit(packet: &mut [u8], draw: u64) {
    let Some(headers) = parse(packet) else { return };
    let first = headers.transport + 4;
    let bit = crate::seed::below(draw, (packet.len() - first) as u64 * 8);
    packet[first + (bit / 8) as usize] ^= 1 << (bit % 8);
}

/// The source or the destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// The checksum after `old` has been replaced by `new` (RFC 1624, equation 3).
fn replaced(checksum: [u8; 2], old: &[u8], new: &[u8]) -> [u8; 2] {
    let kept = !u16::from_ne_bytes(checksum);
    let mut removed = sum(old);
    while removed >> 16 != 0 {
        removed = (removed & 0xFFFF) + (removed >> 16);
    }
    fold(u64::from(kept) + u64::from(!(removed as u16)) + sum(new))
}

/// Rewrites the address and port of one side in a packet with these `headers`, and updates the checksums. A damaged
/// packet stays damaged.
pub(crate) fn rewrite(packet: &mut [u8], headers: &Headers, side: Side, to: SocketAddr) {
    let transport = headers.transport;
    let (port_at, from) = match side {
        Side::Source => (transport, headers.src),
        Side::Destination => (transport + 2, headers.dst),
    };
    assert_eq!(from.is_ipv4(), to.is_ipv4(), "a box translates within one family");
    let sum_at = checksum_at(transport, headers.proto);
    let mut checksum = [packet[sum_at], packet[sum_at + 1]];
    let (ip_at, ip_len) = match (side, from.is_ipv4()) {
        (Side::Source, true) => (12, 4),
        (Side::Destination, true) => (16, 4),
        (Side::Source, false) => (8, 16),
        (Side::Destination, false) => (24, 16),
    };
    let mut new_ip = [0; 16];
    match to.ip() {
        IpAddr::V4(ip) => new_ip[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => new_ip.copy_from_slice(&ip.octets()),
    }
    let new_ip = &new_ip[..ip_len];
    let old_ip = &packet[ip_at..ip_at + ip_len];
    let new_port = to.port().to_be_bytes();
    checksum = replaced(checksum, old_ip, new_ip);
    checksum = replaced(checksum, &packet[port_at..port_at + 2], &new_port);
    if checksum == [0, 0] && headers.proto == PROTO_UDP {
        checksum = [0xFF, 0xFF];
    }
    if from.is_ipv4() {
        let header_sum = replaced([packet[10], packet[11]], old_ip, new_ip);
        packet[10..12].copy_from_slice(&header_sum);
    }
    packet[ip_at..ip_at + ip_len].copy_from_slice(new_ip);
    packet[port_at..port_at + 2].copy_from_slice(&new_port);
    packet[sum_at..sum_at + 2].copy_from_slice(&checksum);
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    }
}

/// Reads the headers; `None` for anything that isn't a whole IPv4 or IPv6 packet with UDP or TCP in it.
pub(crate) fn parse(packet: &[u8]) -> Option<Headers> {
    let (src, dst, proto, transport, length) = match packet.first()? >> 4 {
        4 if packet.len() >= V4_HEADER && packet[0] == 0x45 => {
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let src: [u8; 4] = packet[12..16].try_into().ok()?;
            let dst: [u8; 4] = packet[16..20].try_into().ok()?;
            (Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into(), packet[9], V4_HEADER, length)
        }
        6 if packet.len() >= V6_HEADER => {
            let length = V6_HEADER + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            let src: [u8; 16] = packet[8..24].try_into().ok()?;
            let dst: [u8; 16] = packet[24..40].try_into().ok()?;
            (
                IpAddr::from(Ipv6Addr::from(src)),
                IpAddr::from(Ipv6Addr::from(dst)),
                packet[6],
                V6_HEADER,
                length,
            )
        }
        _ => return None,
    };
    let least = match proto {
        PROTO_TCP => TCP_HEADER,
        PROTO_UDP => UDP_HEADER,
        _ => return None,
    };
    if length != packet.len() || packet.len() < transport + least {
        return None;
    }
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (src_port, dst_port) = (port(transport), port(transport + 2));
    Some(Headers {
        src: SocketAddr::new(src, src_port),
        dst: SocketAddr::new(dst, dst_port),
        proto,
        transport,
    })
}

/// Whether the checksum of a UDP datagram holds.
pub(crate) fn udp_checksum_holds(packet: &[u8], headers: &Headers) -> bool {
    let total = pseudo_header(packet, headers.transport, PROTO_UDP) + sum(&packet[headers.transport..]);
    fold(total) == [0, 0]
}

/// Where the body of a UDP datagram begins.
pub(crate) fn udp_body_at(headers: &Headers) -> usize {
    headers.transport + UDP_HEADER
}

/// The flags of a TCP segment that a box looks at.
pub(crate) fn tcp_flags(packet: &[u8], transport: usize) -> TcpFlags {
    let flags = packet.get(transport + 13).copied().unwrap_or(0);
    TcpFlags {
        fin: flags & 0x01 != 0,
        syn: flags & 0x02 != 0,
        rst: flags & 0x04 != 0,
        ack: flags & 0x10 != 0,
    }
}

/// Whether a TCP segment opens a connection: SYN without ACK.
pub(crate) fn tcp_opens(packet: &[u8], transport: usize) -> bool {
    packet.get(transport + 13).is_some_and(|flags| flags & 0x12 == 0x02)
}

/// Whether a TCP segment has RST set.
pub(crate) fn tcp_resets(packet: &[u8], transport: usize) -> bool {
    packet.get(transport + 13).is_some_and(|flags| flags & 0x04 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn smoltcp_accepts_every_checksum_and_length() {
        let mut out = Vec::new();
        for len in [0, 1, 2, 3, 5, 1200, 1472] {
            let body: Vec<u8> = (0..len).map(|n| (n * 7 + 250) as u8).collect();
            write_udp(&mut out, addr("10.0.0.1:4000"), addr("192.168.7.250:53"), 9, &body);
            let ip = Ipv4Packet::new_checked(&out).unwrap();
            let repr = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).unwrap();
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            let (from, to) = (repr.src_addr.into(), repr.dst_addr.into());
            UdpRepr::parse(&udp, &from, &to, &ChecksumCapabilities::default()).unwrap();
            assert_eq!(udp.payload(), body);

            write_udp(&mut out, addr("[fd00::1]:4000"), addr("[fd00::9]:53"), 9, &body);
            let ip = Ipv6Packet::new_checked(&out).unwrap();
            let repr = Ipv6Repr::parse(&ip).unwrap();
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            let (from, to) = (repr.src_addr.into(), repr.dst_addr.into());
            UdpRepr::parse(&udp, &from, &to, &ChecksumCapabilities::default()).unwrap();
            assert_eq!(udp.payload(), body);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        let (src, dst) = (addr("10.0.0.1:1"), addr("10.0.0.2:65535"));
        write_udp(&mut out, src, dst, 0, b"abc");
        let headers = parse(&out).unwrap();
        assert_eq!((headers.src, headers.dst, headers.proto), (src, dst, PROTO_UDP));
        assert!(udp_checksum_holds(&out, &headers));
        assert_eq!(out[udp_body_at(&headers)..], *b"abc");
        let last = out.len() - 1;
        out[last] ^= 1;
        assert!(!udp_checksum_holds(&out, &headers));
    }

    #[test]
    fn a_cut_datagram_is_whole_and_a_damaged_one_is_left_alone() {
        let mut out = Vec::new();
        write_udp(&mut out, addr("10.0.0.1:1"), addr("10.0.0.2:2"), 77, b"abcdef");
        let mut damaged = out.clone();
        assert!(truncate_udp(&mut out, u64::MAX));
        let headers = parse(&out).unwrap();
        assert!(udp_checksum_holds(&out, &headers));
        assert_eq!(out[udp_body_at(&headers)..], *b"abcde");
        assert_eq!(out[4..6], 77u16.to_be_bytes());
        damaged[30] ^= 1;
        assert!(!truncate_udp(&mut damaged, 0) && !damage_udp(&mut damaged, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(headers) = parse(&bytes) {
                udp_checksum_holds(&bytes, &headers);
                prop_assert!(udp_body_at(&headers) <= bytes.len());
                tcp_opens(&bytes, headers.transport);
            }
        }
    }
}
