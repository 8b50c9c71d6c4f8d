//! Any of the CRDTs, with its bytes and its digest.

use std::time::Duration;

use super::codec::Reader;
use super::{Author, CrdtError, LwwRegister, MAX_STATE_BYTES, MultiRegister, OrMap, OrSet, PnCounter, Stamp};
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

/// The length of a digest.
pub const DIGEST_LEN: usize = 16;

/// BLAKE3 of a state's canonical bytes, cut to 128 bits: equal digests are equal states.
pub type Digest = [u8; DIGEST_LEN];

/// The kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum Kind {
    /// A counter that goes up and down.
    #[n(1)]
    Counter = 1,
    /// A register whose last writer wins.
    #[n(2)]
    Register = 2,
    /// A set of byte strings.
    #[n(3)]
    Set = 3,
    /// A register that shows concurrent writes side by side.
    #[n(4)]
    Multi = 4,
    /// A map of the others.
    #[n(5)]
    Map = 5,
}

impl Kind {
    /// Every kind, in the order of the bytes.
    pub const ALL: [Kind; 5] = [Kind::Counter, Kind::Register, Kind::Set, Kind::Multi, Kind::Map];

    /// The kind whose byte this is.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// How a state would change another one in the name of an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// By a slot, a register's write or value, or an element that the other state lacks.
    Written,
    /// By a dot that the other state hasn't seen. Without its element it removes what the author wrote, or will write.
    Seen,
}

/// A replicated value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A counter.
    Counter(PnCounter),
    /// A register.
    Register(LwwRegister),
    /// A set.
    Set(OrSet),
    /// A multi-value register.
    Multi(MultiRegister),
    /// A map.
    Map(OrMap),
}

impl Value {
    /// An empty state.
    pub fn new(kind: Kind) -> Value {
        match kind {
            Kind::Counter => Value::Counter(PnCounter::default()),
            Kind::Register => Value::Register(LwwRegister::default()),
            Kind::Set => Value::Set(OrSet::default()),
            Kind::Multi => Value::Multi(MultiRegister::default()),
            Kind::Map => Value::Map(OrMap::default()),
        }
    }

    /// The value's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Counter(_) => Kind::Counter,
            Value::Register(_) => Kind::Register,
            Value::Set(_) => Kind::Set,
            Value::Multi(_) => Kind::Multi,
            Value::Map(_) => Kind::Map,
        }
    }

    /// What joining `other`, of the same kind, would add: whose it is, and in what way. An author may be named several
    /// times.
    pub fn news(&self, other: &Value) -> Vec<(ReplicaId, News)> {
        let written = |author| (author, News::Written);
        match (self, other) {
            (Value::Counter(mine), Value::Counter(other)) => mine.news(other).collect(),
            (Value::Register(mine), Value::Register(other)) => mine.news(other).map(written).collect(),
            (Value::Set(mine), Value::Set(other)) => {
                let seen = mine.context().news(other.context()).map(|author| (author, News::Seen));
                mine.news(other).map(written).chain(seen).collect()
            }
            (Value::Multi(mine), Value::Multi(other)) => mine.news(other).collect(),
            (Value::Map(mine), Value::Map(other)) => mine.news(other),
            _ => Vec::new(),
        }
    }

    /// How many slots the join with `other` would have of one author, whatever its incarnations. A register's writes
    /// are bounded without that.
    pub fn slots_with(&self, other: &Value, author: &PublicKey) -> usize {
        match (self, other) {
            (Value::Counter(mine), Value::Counter(other)) => mine.slots_with(other, author),
            (Value::Set(mine), Value::Set(other)) => mine.context().slots_with(other.context(), author),
            (Value::Multi(mine), Value::Multi(other)) => mine.slots_with(other, author),
            (Value::Map(mine), Value::Map(other)) => mine.context().slots_with(other.context(), author),
            _ => 0,
        }
    }

    /// Whether it shows nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Counter(counter) => counter.is_empty(),
            Value::Register(register) => register.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::Multi(register) => register.is_empty(),
            Value::Map(map) => map.is_empty(),
        }
    }

    /// The delta of removing all that this state shows; of a register, what is older than `stamp`.
    pub fn removing(&self, author: Author, stamp: Stamp) -> Value {
        match self {
            Value::Counter(counter) => Value::Counter(counter.removing()),
            Value::Register(_) => Value::Register(LwwRegister::removing(stamp, author.replica)),
            Value::Set(set) => Value::Set(set.removing_all()),
            Value::Multi(register) => Value::Multi(register.removing()),
            Value::Map(map) => Value::Map(map.removing_all(author)),
        }
    }

    /// How many places of writers are taken: an upper bound. A register has none.
    pub fn places(&self) -> usize {
        match self {
            Value::Counter(counter) => counter.places(),
            Value::Register(_) => 0,
            Value::Set(set) => set.context().places(),
            Value::Multi(register) => register.places(),
            Value::Map(map) => map.context().places(),
        }
    }

    /// Joins another state, as seen by a clock that shows `wall`. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CrdtError::WrongKind`], or a limit of the kind is exceeded; nothing changed then.
    pub fn merge(&mut self, other: &Value, wall: Duration) -> Result<bool, CrdtError> {
        match (self, other) {
            (Value::Counter(mine), Value::Counter(other)) => mine.merge(other),
            (Value::Register(mine), Value::Register(other)) => Ok(mine.merge(other, wall)),
            (Value::Set(mine), Value::Set(other)) => mine.merge(other),
            (Value::Multi(mine), Value::Multi(other)) => mine.merge(other),
            (Value::Map(mine), Value::Map(other)) => mine.merge(other),
            _ => Err(CrdtError::WrongKind),
        }
    }

    /// Removes what the writers of a merged delta have replaced without knowing it.
    pub fn compact(&mut self, delta: &Value) {
        if let (Value::Set(mine), Value::Set(delta)) = (self, delta) {
            mine.compact(delta);
        }
    }

    /// The canonical bytes: `kind:1` and the state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind() as u8];
        self.encode_body(&mut out);
        out
    }

    /// The state behind its kind.
    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Value::Counter(counter) => counter.encode(out),
            Value::Register(register) => register.encode(out),
            Value::Set(set) => set.encode(out),
            Value::Multi(register) => register.encode(out),
            Value::Map(map) => map.encode(out),
        }
    }

    /// Decodes canonical bytes, and refuses any others.
    ///
    /// # Errors
    /// [`CrdtError::NotCanonical`], or the limit that the state exceeds.
    pub fn decode(bytes: &[u8]) -> Result<Value, CrdtError> {
        if bytes.len() > MAX_STATE_BYTES {
            return Err(CrdtError::TooLarge { size: bytes.len(), limit: MAX_STATE_BYTES });
        }
        let mut reader = Reader::new(bytes);
        let kind = Kind::from_byte(reader.byte()?).ok_or(CrdtError::NotCanonical("an unknown kind"))?;
        let value = Value::decode_body(kind, &mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    /// Reads the state behind its kind.
    pub(super) fn decode_body(kind: Kind, reader: &mut Reader<'_>) -> Result<Value, CrdtError> {
        Ok(match kind {
            Kind::Counter => Value::Counter(PnCounter::decode(reader)?),
            Kind::Register => Value::Register(LwwRegister::decode(reader)?),
            Kind::Set => Value::Set(OrSet::decode(reader)?),
            Kind::Multi => Value::Multi(MultiRegister::decode(reader)?),
            Kind::Map => Value::Map(OrMap::decode(reader)?),
        })
    }

    /// The digest of the canonical bytes.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn digest(&self) -> Digest {
        Value::digest_of(&self.encode())
    }

    /// The digest of a state, from its canonical bytes.
    pub fn digest_of(bytes: &[u8]) -> Digest {
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(&blake3::hash(bytes).as_bytes()[..DIGEST_LEN]);
        digest
    }
}
