//! The rendezvous frames and their encoding. Integers are little-endian.
//!
//! | kind | frame | from | body |
//! | --- | --- | --- | --- |
//! | 0x30 | PUBLISH | client | `seq:8, ttl_s:2, sealed` |
//! | 0x31 | PUBLISHED | hub | `seq:8, result:1` ([`PublishResult`]); `seq` is the one that the hub holds now |
//! | 0x32 | LOOKUP | client | `peer:32` |
//! | 0x33 | RECORD | hub | one entry |
//! | 0x34 | NO_RECORD | hub | `peer:32` |
//! | 0x35 | LIST | client | `max:2` |
//! | 0x36 | RECORDS | hub | `count:2`, then `count` entries |
//! | 0x3a | WITHDRAW | client | empty |
//!
//! An entry is `key:32, seq:8, ttl_s:2, len:2, sealed:len`.

use std::time::Duration;

use bytes::Bytes;

use super::{MAX_LIST, MAX_RECORD_BYTES, SealedRecord};
use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::net::reach::control::frames::{MAX_BODY_BYTES, put};
use crate::net::reach::relay::frame::Malformed;

/// Bytes of an entry before its sealed part.
const ENTRY_HEADER_BYTES: usize = 32 + 8 + 2 + 2;

mod kind {
    pub(super) const PUBLISH: u8 = 0x30;
    pub(super) const PUBLISHED: u8 = 0x31;
    pub(super) const LOOKUP: u8 = 0x32;
    pub(super) const RECORD: u8 = 0x33;
    pub(super) const NO_RECORD: u8 = 0x34;
    pub(super) const LIST: u8 = 0x35;
    pub(super) const RECORDS: u8 = 0x36;
    pub(super) const WITHDRAW: u8 = 0x3a;
}

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
    fn code(self) -> u8 {
        match self {
            PublishResult::Stored => 0,
            PublishResult::Stale => 1,
            PublishResult::TooLarge => 2,
            PublishResult::Full => 3,
            PublishResult::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> PublishResult {
        match code {
            0 => PublishResult::Stored,
            1 => PublishResult::Stale,
            2 => PublishResult::TooLarge,
            3 => PublishResult::Full,
            code => PublishResult::Other(code),
        }
    }
}

/// A rendezvous frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Sets the sender's own record.
    Publish {
        /// The sequence number.
        seq: u64,
        /// The requested lifetime; the hub may shorten it.
        ttl: Duration,
        /// The sealed record.
        sealed: &'a [u8],
    },
    /// Answers a [`Frame::Publish`].
    Published {
        /// The number that the hub holds now.
        seq: u64,
        /// The result.
        result: PublishResult,
    },
    /// Asks for one record.
    Lookup {
        /// The peer's key.
        peer: PublicKey,
    },
    /// Answers a [`Frame::Lookup`].
    Record(SealedRecord),
    /// Answers a [`Frame::Lookup`]: there is no record.
    NoRecord {
        /// The peer's key.
        peer: PublicKey,
    },
    /// Asks for a random sample.
    List {
        /// The most records to return; never more than [`MAX_LIST`].
        max: u16,
    },
    /// Answers a [`Frame::List`].
    Records(Vec<SealedRecord>),
    /// Withdraws the sender's own record.
    Withdraw,
}

impl<'a> Frame<'a> {
    /// Reads a body; `None` for a kind that isn't a rendezvous frame.
    ///
    /// # Errors
    /// [`Malformed`] when the body doesn't match its kind.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Option<Frame<'a>>, Malformed> {
        if !matches!(kind, kind::PUBLISH..=kind::RECORDS | kind::WITHDRAW) {
            return Ok(None);
        }
        Frame::decode_known(kind, Reader(body)).map(Some).ok_or(Malformed(kind))
    }

    fn decode_known(kind: u8, mut body: Reader<'a>) -> Option<Frame<'a>> {
        match kind {
            kind::PUBLISH => {
                Some(Frame::Publish { seq: body.u64()?, ttl: seconds(&mut body)?, sealed: body.rest() })
            }
            kind::PUBLISHED => {
                let (seq, result) = (body.u64()?, PublishResult::from_code(body.u8()?));
                body.end(Frame::Published { seq, result })
            }
            kind::LOOKUP => {
                let peer = key(&mut body)?;
                body.end(Frame::Lookup { peer })
            }
            kind::RECORD => {
                let record = entry(&mut body)?;
                body.end(Frame::Record(record))
            }
            kind::NO_RECORD => {
                let peer = key(&mut body)?;
                body.end(Frame::NoRecord { peer })
            }
            kind::LIST => {
                let max = body.u16()?;
                body.end(Frame::List { max })
            }
            kind::RECORDS => {
                let count = usize::from(body.u16()?);
                if count > MAX_LIST {
                    return None;
                }
                let records = (0..count).map(|_| entry(&mut body)).collect::<Option<Vec<_>>>()?;
                body.end(Frame::Records(records))
            }
            kind::WITHDRAW => body.end(Frame::Withdraw),
            _ => None,
        }
    }

    /// Appends the frame. RECORDS takes as many entries as a frame holds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Publish { seq, ttl, sealed } => {
                put(out, kind::PUBLISH, &[&seq.to_le_bytes(), &ttl_bytes(*ttl), sealed]);
            }
            Frame::Published { seq, result } => {
                put(out, kind::PUBLISHED, &[&seq.to_le_bytes(), &[result.code()]]);
            }
            Frame::Lookup { peer } => put(out, kind::LOOKUP, &[peer.as_bytes()]),
            Frame::Record(record) => put_entry(out, kind::RECORD, record),
            Frame::NoRecord { peer } => put(out, kind::NO_RECORD, &[peer.as_bytes()]),
            Frame::List { max } => put(out, kind::LIST, &[&max.to_le_bytes()]),
            Frame::Records(records) => encode_records(out, records),
            Frame::Withdraw => put(out, kind::WITHDRAW, &[]),
        }
    }

    /// The frame's bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

fn key(body: &mut Reader<'_>) -> Option<PublicKey> {
    body.array().map(PublicKey::from_bytes)
}

fn seconds(body: &mut Reader<'_>) -> Option<Duration> {
    body.u16().map(|seconds| Duration::from_secs(seconds.into()))
}

fn entry(body: &mut Reader<'_>) -> Option<SealedRecord> {
    let (key, seq, ttl) = (key(body)?, body.u64()?, seconds(body)?);
    let len = usize::from(body.u16()?);
    if len > MAX_RECORD_BYTES {
        return None;
    }
    Some(SealedRecord { key, seq, ttl, sealed: Bytes::copy_from_slice(body.slice(len)?) })
}

fn ttl_bytes(ttl: Duration) -> [u8; 2] {
    u16::try_from(ttl.as_secs()).unwrap_or(u16::MAX).to_le_bytes()
}

fn entry_header(record: &SealedRecord) -> [u8; ENTRY_HEADER_BYTES] {
    let mut header = [0; ENTRY_HEADER_BYTES];
    header[..32].copy_from_slice(record.key.as_bytes());
    header[32..40].copy_from_slice(&record.seq.to_le_bytes());
    header[40..42].copy_from_slice(&ttl_bytes(record.ttl));
    header[42..].copy_from_slice(&(record.sealed.len() as u16).to_le_bytes());
    header
}

fn put_entry(out: &mut Vec<u8>, kind: u8, record: &SealedRecord) {
    put(out, kind, &[&entry_header(record), &record.sealed]);
}

fn encode_records(out: &mut Vec<u8>, records: &[SealedRecord]) {
    let mut body = vec![0, 0];
    let mut count = 0u16;
    for record in records.iter().take(MAX_LIST) {
        if body.len() + ENTRY_HEADER_BYTES + record.sealed.len() > MAX_BODY_BYTES {
            break;
        }
        body.extend_from_slice(&entry_header(record));
        body.extend_from_slice(&record.sealed);
        count += 1;
    }
    body[..2].copy_from_slice(&count.to_le_bytes());
    put(out, kind::RECORDS, &[&body]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::reach::control::frames::split;
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
