//! Any of the CRDTs, with its bytes and its digest.

use std::time::Duration;

use super::codec::Reader;
use super::{Context, CrdtError, LwwRegister, MAX_STATE_BYTES, OrSet, PnCounter};
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

/// The length of a digest.
pub const DIGEST_LEN: usize = 16;

/// BLAKE3 of a state's canonical bytes, cut to 128 bits: equal digests are equal states.
pub type Digest = [u8; DIGEST_LEN];

/// The types, in the order of their states in a mixed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// [`PnCounter`].
    Counter = 1,
    /// [`LwwRegister`].
    Register = 2,
    /// [`OrSet`].
    Set = 3,
}

impl Kind {
    /// The type's name in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Register => "register",
            Kind::Set => "set",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Counter, Kind::Register, Kind::Set].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The first byte of a mixed state, at the place of other states' type.
const MIXED: u8 = 4;

/// How a state would change another one in the name of an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// By a slot, a register's write or an element that the other state lacks.
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
    /// A key that was created as more than one type by replicas that couldn't reach each other.
    Mixed(Mixed),
}

/// The states of a key that was created as more than one type: one state for each type, and none is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixed(Vec<Value>);

impl Value {
    /// An empty state.
    pub fn new(kind: Kind) -> Value {
        match kind {
            Kind::Counter => Value::Counter(PnCounter::default()),
            Kind::Register => Value::Register(LwwRegister::default()),
            Kind::Set => Value::Set(OrSet::default()),
        }
    }

    /// The value's type; for a mixed state the first type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Counter(_) => Kind::Counter,
            Value::Register(_) => Kind::Register,
            Value::Set(_) => Kind::Set,
            Value::Mixed(Mixed(parts)) => parts[0].kind(),
        }
    }

    /// The value's states, one for each type, in order of type: only a mixed state has several.
    pub fn parts(&self) -> &[Value] {
        match self {
            Value::Mixed(Mixed(parts)) => parts,
            one => std::slice::from_ref(one),
        }
    }

    /// The state of a type, if there is one.
    pub fn part(&self, kind: Kind) -> Option<&Value> {
        self.parts().iter().find(|part| part.kind() == kind)
    }

    /// Whether the value has a state of every type that `other` has: only then may `other` be a write to it.
    pub fn takes(&self, other: &Value) -> bool {
        other.parts().iter().all(|part| self.part(part.kind()).is_some())
    }

    /// What joining `other` would add: whose it is, and in what way. An author may be named several times.
    pub fn news(&self, other: &Value) -> Vec<(ReplicaId, News)> {
        let mut news = Vec::new();
        for part in other.parts() {
            let nothing = Value::new(part.kind());
            match (self.part(part.kind()).unwrap_or(&nothing), part) {
                (Value::Counter(mine), Value::Counter(other)) => {
                    news.extend(mine.news(other).map(|author| (author, News::Written)));
                }
                (Value::Register(mine), Value::Register(other)) => {
                    news.extend(mine.news(other).map(|author| (author, News::Written)));
                }
                (Value::Set(mine), Value::Set(other)) => {
                    news.extend(mine.news(other).map(|author| (author, News::Written)));
                    let seen = mine.context().news(other.context());
                    news.extend(seen.map(|author| (author, News::Seen)));
                }
                _ => unreachable!("both are of one type"),
            }
        }
        news
    }

    /// How many slots the join with `other` would have of one author, whatever its incarnations. A register's writes
    /// are bounded without that.
    pub fn slots_with(&self, other: &Value, author: &PublicKey) -> usize {
        let of_part = |part: &Value| match (self.part(part.kind()), part) {
            (Some(Value::Counter(mine)), Value::Counter(other)) => mine.slots_with(other, author),
            (None, Value::Counter(other)) => PnCounter::default().slots_with(other, author),
            (Some(Value::Set(mine)), Value::Set(other)) => mine.context().slots_with(other.context(), author),
            (None, Value::Set(other)) => Context::default().slots_with(other.context(), author),
            _ => 0,
        };
        other.parts().iter().map(of_part).max().unwrap_or(0)
    }

    /// The register, if there is one.
    pub(crate) fn register_mut(&mut self) -> Option<&mut LwwRegister> {
        match self {
            Value::Register(register) => Some(register),
            Value::Mixed(Mixed(parts)) => parts.iter_mut().find_map(|part| match part {
                Value::Register(register) => Some(register),
                _ => None,
            }),
            Value::Counter(_) | Value::Set(_) => None,
        }
    }

    /// Joins another state, as seen by a clock that shows `wall`. Returns whether anything changed. A state of
    /// another type is kept beside this one: neither replaces the other, so the order of merges doesn't matter.
    ///
    /// # Errors
    /// A limit of the type is exceeded; nothing changed then.
    pub fn merge(&mut self, other: &Value, wall: Duration) -> Result<bool, CrdtError> {
        match (&mut *self, other) {
            (Value::Counter(mine), Value::Counter(other)) => mine.merge(other),
            (Value::Register(mine), Value::Register(other)) => Ok(mine.merge(other, wall)),
            (Value::Set(mine), Value::Set(other)) => mine.merge(other),
            _ => self.mix(other, wall),
        }
    }

    fn mix(&mut self, other: &Value, wall: Duration) -> Result<bool, CrdtError> {
        let mut parts = self.parts().to_vec();
        let mut changed = false;
        for part in other.parts() {
            match parts.binary_search_by_key(&part.kind(), Value::kind) {
                Ok(at) => changed |= parts[at].merge(part, wall)?,
                Err(at) => {
                    let mut fresh = Value::new(part.kind());
                    fresh.merge(part, wall)?;
                    parts.insert(at, fresh);
                    changed = true;
                }
            }
        }
        if changed {
            let mixed = Value::Mixed(Mixed(parts));
            let size = mixed.encode().len();
            if size > MAX_STATE_BYTES {
                return Err(CrdtError::TooLarge { size, limit: MAX_STATE_BYTES });
            }
            *self = mixed;
        }
        Ok(changed)
    }

    /// The canonical bytes: `kind:1` and the state. For a mixed state: `4` and its states, in order of kind.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if matches!(self, Value::Mixed(_)) {
            out.push(MIXED);
        }
        for part in self.parts() {
            out.push(part.kind() as u8);
            match part {
                Value::Counter(counter) => counter.encode(&mut out),
                Value::Register(register) => register.encode(&mut out),
                Value::Set(set) => set.encode(&mut out),
                Value::Mixed(_) => unreachable!("a part is of one type"),
            }
        }
        out
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
        let first = reader.byte()?;
        let value = if first == MIXED {
            Value::decode_mixed(&mut reader)?
        } else {
            Value::decode_part(first, &mut reader)?
        };
        reader.finish()?;
        Ok(value)
    }

    fn decode_part(kind: u8, reader: &mut Reader<'_>) -> Result<Value, CrdtError> {
        match Kind::from_byte(kind).ok_or(CrdtError::NotCanonical("an unknown type"))? {
            Kind::Counter => PnCounter::decode(reader).map(Value::Counter),
            Kind::Register => LwwRegister::decode(reader).map(Value::Register),
            Kind::Set => OrSet::decode(reader).map(Value::Set),
        }
    }

    fn decode_mixed(reader: &mut Reader<'_>) -> Result<Value, CrdtError> {
        let mut parts: Vec<Value> = Vec::new();
        while !reader.is_empty() {
            let kind = reader.byte()?;
            if parts.last().is_some_and(|last| last.kind() as u8 >= kind) {
                return Err(CrdtError::NotCanonical("the types of a mixed state are out of order"));
            }
            parts.push(Value::decode_part(kind, reader)?);
        }
        if parts.len() < 2 {
            return Err(CrdtError::NotCanonical("a mixed state of one type"));
        }
        Ok(Value::Mixed(Mixed(parts)))
    }

    /// The digest of the canonical bytes.
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
