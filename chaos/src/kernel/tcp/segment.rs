//! What a segment says of the sequence numbers of its connection.

use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber};

/// The header of a segment, as far as retransmission needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Address and port of its sender.
    pub(super) from: (IpAddress, u16),
    /// Address and port of its receiver.
    pub(super) to: (IpAddress, u16),
    /// Its first sequence number.
    pub(super) begin: TcpSeqNumber,
    /// The sequence number after it; SYN and FIN take one each.
    pub(super) end: TcpSeqNumber,
    /// The acknowledgement number, unless it has none or resets.
    pub(super) ack: Option<TcpSeqNumber>,
    pub(super) window: u16,
    /// Whether it opens a connection (SYN).
    pub(super) opens: bool,
}

impl Segment {
    /// Of a packet that this host's smoltcp made.
    pub(super) fn sent(packet: &[u8]) -> Option<Segment> {
        Segment::parse(packet, false)
    }

    /// Of a packet that has come in, if it is whole.
    pub(super) fn received(packet: &[u8]) -> Option<Segment> {
        Segment::parse(packet, true)
    }

    fn parse(packet: &[u8], verify: bool) -> Option<Segment> {
        let (src, dst, segment): (IpAddress, IpAddress, &[u8]) = match packet.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(packet).ok()?;
                (packet.src_addr().into(), packet.dst_addr().into(), packet.payload())
            }
            _ => {
                let packet = Ipv6Packet::new_checked(packet).ok()?;
                (packet.src_addr().into(), packet.dst_addr().into(), packet.payload())
            }
        };
        let tcp = TcpPacket::new_checked(segment).ok()?;
        (!verify || tcp.verify_checksum(&src, &dst)).then(|| Segment {
            from: (src, tcp.src_port()),
            to: (dst, tcp.dst_port()),
            begin: tcp.seq_number(),
            end: tcp.seq_number() + tcp.segment_len(),
            ack: (tcp.ack() && !tcp.rst()).then(|| tcp.ack_number()),
            window: tcp.window_len(),
            opens: tcp.syn(),
        })
    }
}
