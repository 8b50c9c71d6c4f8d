//! The fields of the rendezvous frames that are types of their own: a PUBLISH's result, and the records.
//! [`RendezvousFrame`](crate::net::reach::control::table::RendezvousFrame) has the frames.

use bytes::Bytes;

use super::{MAX_LIST, MAX_RECORD_BYTES, SealedRecord};
use crate::kit::reader::Reader;
use crate::net::reach::control::frames::{Field, MAX_BODY_BYTES};

/// Bytes of an entry before its sealed part.
const ENTRY_HEADER_BYTES: usize = 32 + 8 + 2 + 2;

/// A hub's result for a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishResult {
    /// The record is stored, or refreshed.
    Stored,
    /// The hub holds a higher number, or the same number with other bytes.
    Stale,
    /// The record is longer than [`MAX_RECORD_BYTES`].
    TooLarge,
    /// The hub has reached its limit of records.
    Full,
    /// A result that this program doesn't know.
    Other(u8),
}

impl PublishResult {
    /// The results with a name. Each has its place here as its number on the wire.
    const NAMED: [PublishResult; 4] =
        [PublishResult::Stored, PublishResult::Stale, PublishResult::TooLarge, PublishResult::Full];
}

/// One byte.
impl Field<'_> for PublishResult {
    fn read(body: &mut Reader<'_>) -> Option<PublishResult> {
        let code = body.u8()?;
        Some(PublishResult::NAMED.get(usize::from(code)).copied().unwrap_or(PublishResult::Other(code)))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let place = PublishResult::NAMED.iter().position(|named| named == self);
        out.push(match *self {
            PublishResult::Other(code) => code,
            _ => place.expect("each result but `Other` is in the list") as u8,
        });
    }
}

/// `key:32, seq:8, ttl_s:2, len:2, sealed:len`.
impl Field<'_> for SealedRecord {
    fn read(body: &mut Reader<'_>) -> Option<SealedRecord> {
        let (key, seq, ttl) = (Field::read(body)?, body.u64()?, Field::read(body)?);
        let len = usize::from(body.u16()?);
        if len > MAX_RECORD_BYTES {
            return None;
        }
        Some(SealedRecord { key, seq, ttl, sealed: Bytes::copy_from_slice(body.slice(len)?) })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.key.write(out);
        self.seq.write(out);
        self.ttl.write(out);
        (self.sealed.len() as u16).write(out);
        out.extend_from_slice(&self.sealed);
    }
}

/// `count:2`, then so many records: at most [`MAX_LIST`], and as many as fill a frame's body.
impl Field<'_> for Vec<SealedRecord> {
    fn read(body: &mut Reader<'_>) -> Option<Vec<SealedRecord>> {
        let count = usize::from(body.u16()?);
        if count > MAX_LIST {
            return None;
        }
        (0..count).map(|_| Field::read(body)).collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut bytes = 2;
        let fits = |record: &&SealedRecord| {
            bytes += ENTRY_HEADER_BYTES + record.sealed.len();
            bytes <= MAX_BODY_BYTES
        };
        let listed: Vec<_> = self.iter().take(MAX_LIST).take_while(fits).collect();
        (listed.len() as u16).write(out);
        listed.iter().for_each(|record| record.write(out));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::key::PublicKey;
    use crate::net::reach::control::frames::{Malformed, split};
    use crate::net::reach::control::table::RendezvousFrame as Frame;
    use proptest::prelude::*;

    fn record(n: u8, len: usize) -> SealedRecord {
        SealedRecord {
            key: PublicKey::from_bytes([n; 32]),
            seq: n.into(),
            ttl: Duration::from_secs(100),
            sealed: Bytes::from(vec![n; len]),
        }
    }

    fn back(frame: &Frame<'_>) -> Vec<u8> {
        let bytes = frame.to_vec();
        let (kind, body) = split(&bytes).next().unwrap().unwrap();
        assert_eq!(Frame::decode(kind, body).as_ref(), Ok(&Some(frame.clone())));
        bytes
    }

    #[test]
    fn every_frame_comes_back_and_has_the_bytes_of_the_table() {
        let peer = PublicKey::from_bytes([0xaa; 32]);
        let publish = back(&Frame::Publish { seq: 7, ttl: Duration::from_secs(120), sealed: b"xyz" });
        assert_eq!(publish, [0x30, 13, 0, 7, 0, 0, 0, 0, 0, 0, 0, 120, 0, b'x', b'y', b'z']);
        assert_eq!(back(&Frame::Published { seq: 7, result: PublishResult::Stale })[11], 1);
        assert_eq!(back(&Frame::Lookup { peer })[..4], [0x32, 32, 0, 0xaa]);
        assert_eq!(back(&Frame::Record(record(1, 3))).len(), 3 + ENTRY_HEADER_BYTES + 3);
        assert_eq!(back(&Frame::NoRecord { peer })[0], 0x34);
        assert_eq!(back(&Frame::List { max: 16 }), [0x35, 2, 0, 16, 0]);
        assert_eq!(back(&Frame::Records(vec![record(1, 3), record(2, 0)]))[0], 0x36);
        assert_eq!(Frame::decode(0x37, &[1]), Ok(None), "kinds between them are nobody's");
        assert_eq!(back(&Frame::Withdraw), [0x3a, 0, 0]);
    }

    #[test]
    fn the_longest_list_fits_a_frame_or_is_cut() {
        let records: Vec<_> = (0..MAX_LIST as u8).map(|n| record(n, MAX_RECORD_BYTES)).collect();
        let bytes = Frame::Records(records).to_vec();
        let (kind, body) = split(&bytes).next().unwrap().unwrap();
        let Ok(Some(Frame::Records(back))) = Frame::decode(kind, body) else { panic!("a list") };
        assert_eq!(back.len(), MAX_LIST - 1);
    }

    #[test]
    fn a_truncated_entry_is_refused_and_not_filled_up() {
        let bytes = Frame::Record(record(1, 30)).to_vec();
        for cut in 3..bytes.len() {
            assert_eq!(Frame::decode(0x33, &bytes[3..cut]), Err(Malformed(0x33)));
        }
    }

    proptest! {
        #[test]
        fn any_body_decodes_without_a_panic_and_comes_back_the_same(
            kind in 0x2eu8..0x40,
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            if let Ok(Some(frame)) = Frame::decode(kind, &body) {
                let again = frame.to_vec();
                let (kind_again, body_again) = split(&again).next().unwrap().unwrap();
                prop_assert_eq!((kind_again, body_again), (kind, &body[..]));
            }
        }
    }
}
