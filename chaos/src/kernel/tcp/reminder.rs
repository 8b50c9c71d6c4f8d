//! What smoltcp 0.12 forgets, and how it is reminded.
//!
//! In CLOSE-WAIT, LAST-ACK and CLOSING each ACK stops its retransmission timer, whatever is still unacknowledged. What was
//! lost, data or the FIN, would never be sent again. Three duplicate ACKs make it retransmit (RFC 5681, 3.2), so it gets
//! these when the connection's own timer has run out.

use super::segment::Segment;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

/// The last segment that acknowledged most, as far as a duplicate needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastAck {
    segment: Segment,
    ack: TcpSeqNumber,
}

impl LastAck {
    /// After a segment has come in. One that was overtaken changes nothing.
    pub(super) fn after(last: Option<LastAck>, segment: &Segment) -> Option<LastAck> {
        match segment.ack {
            Some(ack) if !segment.opens && last.is_none_or(|last| last.ack <= ack) => {
                Some(LastAck { segment: *segment, ack })
            }
            _ => last,
        }
    }

    /// Segments that make smoltcp retransmit. It does so at exactly the third duplicate, and may have counted more already, so
    /// a change of the window and back comes first, which begins the count anew.
    pub(super) fn duplicates(&self) -> [Vec<u8>; 5] {
        let window = self.segment.window;
        [window ^ 1, window, window, window, window].map(|window| self.again(window))
    }

    /// The same acknowledgement again, with this window.
    fn again(&self, window_len: u16) -> Vec<u8> {
        let Segment { from, to, end, .. } = self.segment;
        let repr = TcpRepr {
            src_port: from.1,
            dst_port: to.1,
            control: TcpControl::None,
            seq_number: end,
            ack_number: Some(self.ack),
            window_len,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (src, dst) = (from.0, to.0);
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
    use smoltcp::wire::IpAddress;

    fn segment(ack: i32) -> Segment {
        Segment {
            from: (IpAddress::v4(10, 0, 0, 1), 80),
            to: (IpAddress::v4(10, 0, 0, 2), 4000),
            begin: TcpSeqNumber(5),
            end: TcpSeqNumber(7),
            ack: Some(TcpSeqNumber(ack)),
            window: 100,
            opens: false,
        }
    }

    #[test]
    fn an_acknowledgement_is_repeated_as_it_was() {
        let [other, again, ..] = LastAck::after(None, &segment(9)).unwrap().duplicates();
        let (other, again) = (Segment::received(&other).unwrap(), Segment::received(&again).unwrap());
        assert_eq!((again.from, again.to), (segment(9).from, segment(9).to));
        assert_eq!((again.begin, again.end), (TcpSeqNumber(7), TcpSeqNumber(7)));
        assert_eq!((again.ack, again.window, other.window), (Some(TcpSeqNumber(9)), 100, 101));
    }

    #[test]
    fn an_acknowledgement_that_was_overtaken_is_not_repeated() {
        let last = LastAck::after(None, &segment(9));
        assert_eq!(LastAck::after(last, &segment(8)).unwrap().ack, TcpSeqNumber(9));
        assert_eq!(LastAck::after(last, &segment(10)).unwrap().ack, TcpSeqNumber(10));
        assert!(LastAck::after(None, &Segment { opens: true, ..segment(9) }).is_none());
    }
}
