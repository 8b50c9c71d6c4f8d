//! The durable record of a key: CBOR with indexed fields.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::key::{is_of_kind, kind_of};
use super::own::{Own, Writer};
use crate::replication::crdt::{CrdtError, Object};

/// The part of a key's state that survives a restart.
#[derive(Debug, Encode, Decode)]
pub(super) struct Record {
    /// The state held.
    #[n(0)]
    held: Option<ByteVec>,
    /// The delta that no owner has acknowledged.
    #[n(1)]
    pending: Option<ByteVec>,
    #[n(2)]
    added: u64,
    #[n(3)]
    taken: u64,
    #[n(4)]
    dot: u64,
    /// The incarnation under which the sums were written, if there are any.
    #[n(5)]
    incarnation: Option<u64>,
    /// When they were last written, in milliseconds since 1970.
    #[n(6)]
    used_ms: u64,
    /// The state that is set aside after a long absence.
    #[n(7)]
    aside: Option<ByteVec>,
}

impl Record {
    /// The record of a key, or none if there is nothing to remember.
    pub(super) fn of(
        held: Option<&Object>,
        pending: Option<&Object>,
        writer: Option<Writer>,
        aside: Option<&Object>,
    ) -> Option<Record> {
        if held.is_none() && pending.is_none() && writer.is_none() && aside.is_none() {
            return None;
        }
        let encoded = |value: &Object| ByteVec::from(value.encode());
        let Own { added, taken, dot } = writer.map_or_else(Own::default, |writer| writer.own);
        Some(Record {
            held: held.map(encoded),
            pending: pending.map(encoded),
            added,
            taken,
            dot,
            incarnation: writer.map(|writer| writer.incarnation),
            used_ms: writer.map_or(0, |writer| writer.used_ms),
            aside: aside.map(encoded),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a Vec takes every write")
    }

    /// Decodes the record of a key, if its states are of the key's kind.
    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Record, CrdtError> {
        let record: Record = minicbor::decode(bytes).map_err(|_| CrdtError::NotCanonical("record"))?;
        let mut states = record.held.iter().chain(&record.pending).chain(&record.aside);
        let sound = kind_of(key).is_some() && states.all(|state| is_of_kind(key, state));
        sound.then_some(record).ok_or(CrdtError::WrongKind)
    }

    /// The bytes of the state held.
    pub(super) fn held(&self) -> Option<&[u8]> {
        self.held.as_ref().map(|state| state.as_slice())
    }

    /// The bytes of the state that is set aside.
    pub(super) fn aside(&self) -> Option<&[u8]> {
        self.aside.as_ref().map(|state| state.as_slice())
    }

    /// The bytes of the unacknowledged delta.
    pub(super) fn pending(&self) -> Option<&[u8]> {
        self.pending.as_ref().map(|state| state.as_slice())
    }

    /// The sums.
    pub(super) fn writer(&self) -> Option<Writer> {
        let own = Own { added: self.added, taken: self.taken, dot: self.dot };
        Some(Writer { incarnation: self.incarnation?, own, used_ms: self.used_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::crdt::Kind;

    #[test]
    fn a_record_comes_back_and_nothing_has_none() {
        assert!(Record::of(None, None, None, None).is_none());
        let value = Object::new(Kind::Set);
        let own = Writer { incarnation: 7, own: Own { added: 1, taken: 2, dot: 3 }, used_ms: 9 };
        for (held, pending, own, aside) in [
            (Some(&value), None, None, None),
            (None, Some(&value), Some(own), None),
            (None, None, Some(own), None),
            (None, None, None, Some(&value)),
        ] {
            let bytes = Record::of(held, pending, own, aside).unwrap().encode();
            let record = Record::decode(b"\x03name", &bytes).unwrap();
            for key in [&b""[..], b"name", b"\x01name", b"\x02name"] {
                let sound = held.or(pending).or(aside).is_none() && kind_of(key).is_some();
                assert_eq!(Record::decode(key, &bytes).err(), (!sound).then_some(CrdtError::WrongKind));
            }
            assert_eq!(record.held(), held.map(Object::encode).as_deref());
            assert_eq!(record.pending(), pending.map(Object::encode).as_deref());
            assert_eq!(record.aside(), aside.map(Object::encode).as_deref());
            assert_eq!(record.writer(), own);
        }
        assert_eq!(Record::decode(b"\x03name", b"no").unwrap_err(), CrdtError::NotCanonical("record"));
    }
}
