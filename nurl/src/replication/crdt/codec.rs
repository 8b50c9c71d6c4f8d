//! The encoding of the CRDTs.
//!
//! Numbers are unsigned LEB128 in their shortest form (an overlong one is refused, so every number has one encoding);
//! replica ids are 40 bytes; byte strings and lists have their length as a prefix. A reader never reserves more
//! memory than the bytes that have arrived.

use super::CrdtError;
use crate::kit::reader;
use crate::replication::identity::{REPLICA_ID_LEN, ReplicaId};

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_replica(out: &mut Vec<u8>, replica: &ReplicaId) {
    out.extend_from_slice(&replica.to_bytes());
}

const TRUNCATED: CrdtError = CrdtError::NotCanonical("truncated");

/// Reads front to back; every method fails on a short or overlong input.
#[derive(Debug)]
pub(super) struct Reader<'a>(reader::Reader<'a>);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(reader::Reader(bytes))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CrdtError> {
        self.0.slice(length).ok_or(TRUNCATED)
    }

    pub(super) fn byte(&mut self) -> Result<u8, CrdtError> {
        self.0.u8().ok_or(TRUNCATED)
    }

    pub(super) fn number(&mut self) -> Result<u64, CrdtError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(CrdtError::NotCanonical("a number over 64 bits"));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(CrdtError::NotCanonical("an overlong number"))
                } else {
                    Ok(number)
                };
            }
        }
        Err(CrdtError::NotCanonical("an overlong number"))
    }

    /// A count of at most `limit` items; `error` when there are more.
    pub(super) fn count(&mut self, limit: usize, error: CrdtError) -> Result<usize, CrdtError> {
        let count = self.number()?;
        usize::try_from(count).ok().filter(|count| *count <= limit).ok_or(error)
    }

    pub(super) fn bytes(&mut self, limit: usize) -> Result<&'a [u8], CrdtError> {
        let length = self.number()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > limit {
            return Err(CrdtError::TooLarge { size: length, limit });
        }
        self.take(length)
    }

    pub(super) fn replica(&mut self) -> Result<ReplicaId, CrdtError> {
        self.0.array::<REPLICA_ID_LEN>().map(ReplicaId::from_bytes).ok_or(TRUNCATED)
    }

    pub(super) fn finish(self) -> Result<(), CrdtError> {
        self.0.end(()).ok_or(CrdtError::NotCanonical("trailing bytes"))
    }
}
