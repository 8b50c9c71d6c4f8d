//! What smoltcp 0.12 forgets, and how it is reminded.
//!
//! In CLOSE-WAIT, LAST-ACK and CLOSING each ACK stops its retransmission timer, whatever is still unacknowledged. What was
//! lost, data or the FIN, would never be sent again. Three duplicate ACKs make it retransmit (RFC 5681, 3.2), so it gets
//! these after a time without any timer.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// The time without a timer before the first reminder; it doubles.
const FIRST_NS: u64 = 300_000_000;

/// When a connection is reminded.
#[derive(Debug, Default)]
pub(super) struct Reminder(Option<Due>);

#[derive(Debug, Clone, Copy)]
struct Due {
    at_ns: u64,
    wait_ns: u64,
}

impl Reminder {
    /// Notes whether something is owed for which no timer runs. Returns whether the connection is to be reminded now.
    pub(super) fn note(&mut self, now_ns: u64, is_forgotten: bool) -> bool {
        match self.0 {
            _ if !is_forgotten => self.0 = None,
            None => self.0 = Some(Due { at_ns: now_ns + FIRST_NS, wait_ns: FIRST_NS }),
            Some(Due { at_ns, wait_ns }) if at_ns <= now_ns => {
                self.0 = Some(Due { at_ns: now_ns + 2 * wait_ns, wait_ns: 2 * wait_ns });
                return true;
            }
            Some(_) => {}
        }
        false
    }

    /// When it is due.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.0.map(|due| due.at_ns)
    }
}

/// The last segment that acknowledged something, as far as a duplicate needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastAck {
    from: (IpAddress, u16),
    to: (IpAddress, u16),
    /// The sequence number after the segment.
    next: TcpSeqNumber,
    ack: TcpSeqNumber,
    window: u16,
}

impl LastAck {
    /// Of an arrived packet, if it is whole and acknowledges something.
    pub(super) fn of(packet: &[u8]) -> Option<LastAck> {
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
        (tcp.ack() && !tcp.syn() && !tcp.rst() && tcp.verify_checksum(&src, &dst)).then(|| LastAck {
            from: (src, tcp.src_port()),
            to: (dst, tcp.dst_port()),
            next: tcp.seq_number() + tcp.segment_len(),
            ack: tcp.ack_number(),
            window: tcp.window_len(),
        })
    }

    /// Segments that make smoltcp retransmit. It does so at exactly the third duplicate, and may have counted more already, so
    /// a change of the window and back comes first, which begins the count anew.
    pub(super) fn duplicates(&self) -> [Vec<u8>; 5] {
        let other = LastAck { window: self.window ^ 1, ..*self };
        [other.again(), self.again(), self.again(), self.again(), self.again()]
    }

    /// The same acknowledgement again.
    fn again(&self) -> Vec<u8> {
        let repr = TcpRepr {
            src_port: self.from.1,
            dst_port: self.to.1,
            control: TcpControl::None,
            seq_number: self.next,
            ack_number: Some(self.ack),
            window_len: self.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (src, dst) = (self.from.0, self.to.0);
        let ip = IpRepr::new(src, dst, IpProtocol::Tcp, repr.buffer_len(), 64);
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0; ip.buffer_len()];
        ip.emit(&mut bytes[..], &checksums);
        repr.emit(&mut TcpPacket::new_unchecked(&mut bytes[ip.header_len()..]), &src, &dst, &checksums);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_repeated_as_it_was() {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let ack = LastAck {
            from: (IpAddress::Ipv4(src), 80),
            to: (IpAddress::Ipv4(dst), 4000),
            next: TcpSeqNumber(7),
            ack: TcpSeqNumber(9),
            window: 100,
        };
        let again = LastAck::of(&ack.again()).unwrap();
        assert_eq!(
            (again.from, again.to, again.next, again.ack, again.window),
            (ack.from, ack.to, ack.next, ack.ack, 100)
        );
        assert!(LastAck::of(&ack.again()[..30]).is_none());
    }

    #[test]
    fn reminders_come_ever_more_seldom_and_only_while_something_is_forgotten() {
        let mut reminder = Reminder::default();
        let due: Vec<u64> = (0..3_000).filter(|ms| reminder.note(ms * 1_000_000, true)).collect();
        assert_eq!(due, [300, 900, 2_100]);
        assert!(!reminder.note(3_000_000_000, false));
        assert_eq!(reminder.due_ns(), None);
    }
}
