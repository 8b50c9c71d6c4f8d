//! Any of the CRDTs, with its bytes and its digest.

use std::time::Duration;

use super::codec::Reader;
use super::{CrdtError, LwwRegister, MAX_STATE_BYTES, OrSet, PnCounter};

/// The length of a digest.
pub const DIGEST_LEN: usize = 16;

/// BLAKE3 of a state's canonical bytes, cut to 128 bits: equal digests are equal states.
pub type Digest = [u8; DIGEST_LEN];

/// The types, in the order in which a greater one wins a key that was created as two.
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

/// A replicated value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A counter.
    Counter(PnCounter),
    /// A register.
    Register(LwwRegister),
    /// A set.
    Set(OrSet),
}

impl Value {
    /// An empty state.
    pub fn new(kind: Kind) -> Value {
        match kind {
            Kind::Counter => Value::Counter(PnCounter::default()),
            Kind::Register => Value::Register(LwwRegister::default()),
            Kind::Set => Value::Set(OrSet::default()),
        }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Counter(_) => Kind::Counter,
            Value::Register(_) => Kind::Register,
            Value::Set(_) => Kind::Set,
        }
    }

    /// Joins another state, as seen by a clock that shows `wall`. Returns whether anything changed.
    ///
    /// # Errors
    /// A bound of the type; nothing changed then.
    pub fn merge(&mut self, other: &Value, wall: Duration) -> Result<bool, CrdtError> {
        if self.kind() < other.kind() {
            let mut fresh = Value::new(other.kind());
            fresh.merge(other, wall)?;
            *self = fresh;
            return Ok(true);
        }
        match (self, other) {
            (Value::Counter(mine), Value::Counter(other)) => mine.merge(other),
            (Value::Register(mine), Value::Register(other)) => Ok(mine.merge(other, wall)),
            (Value::Set(mine), Value::Set(other)) => mine.merge(other),
            _ => Ok(false),
        }
    }

    /// The canonical bytes: `kind:1` and the state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind() as u8];
        match self {
            Value::Counter(counter) => counter.encode(&mut out),
            Value::Register(register) => register.encode(&mut out),
            Value::Set(set) => set.encode(&mut out),
        }
        out
    }

    /// Reads canonical bytes, and nothing else.
    ///
    /// # Errors
    /// [`CrdtError::NotCanonical`], or the bound that the state is over.
    pub fn decode(bytes: &[u8]) -> Result<Value, CrdtError> {
        if bytes.len() > MAX_STATE_BYTES {
            return Err(CrdtError::TooLarge { size: bytes.len(), limit: MAX_STATE_BYTES });
        }
        let mut reader = Reader::new(bytes);
        let value = match reader.byte()? {
            1 => Value::Counter(PnCounter::decode(&mut reader)?),
            2 => Value::Register(LwwRegister::decode(&mut reader)?),
            3 => Value::Set(OrSet::decode(&mut reader)?),
            _ => return Err(CrdtError::NotCanonical("an unknown type")),
        };
        reader.finish()?;
        Ok(value)
    }

    /// The digest of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Value::digest_of(&self.encode())
    }

    /// The digest of a state whose canonical bytes are at hand.
    pub fn digest_of(bytes: &[u8]) -> Digest {
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(&blake3::hash(bytes).as_bytes()[..DIGEST_LEN]);
        digest
    }
}
