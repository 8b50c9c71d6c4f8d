//! The durable record of a key: CBOR with indexed fields.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::key::{is_of_kind, kind_of};
use super::own::Own;
use crate::replication::crdt::{CrdtError, Value};

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
    /// The incarnation under which the sums were written: they count under no other. None: that of the store.
    #[n(5)]
    incarnation: Option<u64>,
}

impl Record {
    /// The record of a key, or none if there is nothing to remember.
    pub(super) fn of(
        held: Option<&Value>,
        pending: Option<&Value>,
        own: Option<(u64, Own)>,
    ) -> Option<Record> {
        if held.is_none() && pending.is_none() && own.is_none() {
            return None;
        }
        let encoded = |value: &Value| ByteVec::from(value.encode());
        let Own { added, taken, dot } = own.map_or_else(Own::default, |(_, own)| own);
        let incarnation = own.map(|(incarnation, _)| incarnation);
        Some(Record {
            held: held.map(encoded),
            pending: pending.map(encoded),
            added,
            taken,
            dot,
            incarnation,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a Vec takes every write")
    }

    /// Decodes the record of a key, if its states are of the key's kind.
    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Record, CrdtError> {
        let record: Record = minicbor::decode(bytes).map_err(|_| CrdtError::NotCanonical("record"))?;
        let mut states = record.held.iter().chain(&record.pending);
        let sound = kind_of(key).is_some() && states.all(|state| is_of_kind(key, state));
        sound.then_some(record).ok_or(CrdtError::WrongKind)
    }

    /// The bytes of the state held.
    pub(super) fn held(&self) -> Option<&[u8]> {
        self.held.as_ref().map(|state| state.as_slice())
    }

    /// The bytes of the unacknowledged delta.
    pub(super) fn pending(&self) -> Option<&[u8]> {
        self.pending.as_ref().map(|state| state.as_slice())
    }

    /// The sums written under this incarnation.
    pub(super) fn own(&self, incarnation: u64) -> Own {
        if self.incarnation.is_some_and(|of| of != incarnation) {
            return Own::default();
        }
        Own { added: self.added, taken: self.taken, dot: self.dot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::crdt::Kind;

    #[test]
    fn a_record_comes_back_and_nothing_has_none() {
        assert!(Record::of(None, None, None).is_none());
        let value = Value::new(Kind::Set);
        let own = Own { added: 1, taken: 2, dot: 3 };
        for (held, pending, own) in
            [(Some(&value), None, None), (None, Some(&value), Some((7, own))), (None, None, Some((7, own)))]
        {
            let bytes = Record::of(held, pending, own).unwrap().encode();
            let record = Record::decode(b"\x03name", &bytes).unwrap();
            for key in [&b""[..], b"name", b"\x01name", b"\x02name"] {
                let sound = held.or(pending).is_none() && kind_of(key).is_some();
                assert_eq!(Record::decode(key, &bytes).err(), (!sound).then_some(CrdtError::WrongKind));
            }
            assert_eq!(record.held(), held.map(Value::encode).as_deref());
            assert_eq!(record.pending(), pending.map(Value::encode).as_deref());
            assert_eq!(record.own(7), own.map_or_else(Own::default, |(_, own)| own));
            assert_eq!(record.own(8), Own::default(), "another incarnation has written nothing");
        }
        assert_eq!(Record::decode(b"\x03name", b"no").unwrap_err(), CrdtError::NotCanonical("record"));
    }
}
