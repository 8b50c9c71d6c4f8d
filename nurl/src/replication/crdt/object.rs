//! A key's value, with when it was deleted and when it expires.
//!
//! To delete is to remove all that the deleter has seen, under a stamp. What is written concurrently stays, so no
//! acknowledged write goes that the deletion hasn't seen. An object that shows nothing since it was deleted is *dead*: its
//! state is the mark which keeps late writes from bringing it back. Holders forget it at a time that the stamp tells, all
//! alike.
//!
//! To expire is to be deleted at a stated time. Each holder does it for itself, under the same stamp.
//!
//! Encoding: `kind:1 ‖ state`, as long as there is neither; else `kind | 0x80 ‖ deleted ‖ set ‖ at ‖ state`. The two stamps
//! are `wall_ms ‖ logical`, zeros if there is none.

use std::time::Duration;

use super::codec::{Reader, put_number};
use super::{Author, CrdtError, Digest, Kind, MAX_STATE_BYTES, News, Stamp, Value};
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

/// The bit of the kind's byte that tells of a deletion or an expiry.
const MARKED: u8 = 0x80;

/// An upper bound of what these add to a state.
const MARK_BYTES: usize = 48;

/// The longest time until an object expires: 10 years.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The actor of what expires. No node has its key.
const NOBODY: Author =
    Author { replica: ReplicaId { key: PublicKey::from_bytes([0; 32]), incarnation: 0 }, floor: u64::MAX };

/// When an object expires, as its last writer said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Expiry {
    set: Stamp,
    /// Milliseconds since 1970; 0: never.
    at_ms: u64,
}

/// What there is beside the value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Marks {
    /// The last deletion; zero: none.
    deleted: Stamp,
    expiry: Expiry,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    value: Value,
    /// None if there are none, as of most objects: a node may hold a million.
    marks: Option<Box<Marks>>,
}

impl Object {
    /// An object without writes.
    pub fn new(kind: Kind) -> Object {
        Object::from(Value::new(kind))
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value alone.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// The value, to settle what waits in it.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// The value's kind.
    pub fn kind(&self) -> Kind {
        self.value.kind()
    }

    /// The delta that deletes all that is seen here.
    pub fn deleting(&self, author: Author, stamp: Stamp) -> Object {
        let marks = Marks { deleted: stamp, expiry: Expiry::default() };
        Object::marked(self.value.removing(author, stamp), marks)
    }

    /// The delta by which the object of this kind expires at a time in milliseconds since 1970; at 0, never.
    pub fn expiring(kind: Kind, stamp: Stamp, at_ms: u64) -> Object {
        let marks = Marks { deleted: Stamp::default(), expiry: Expiry { set: stamp, at_ms } };
        Object::marked(Value::new(kind), marks)
    }

    /// Deletes all that is here, if its time has come. Returns whether it had.
    pub fn expire(&mut self, wall: Duration) -> bool {
        let due = self.expires().filter(|at| *at <= wall);
        let Some(at) = due else { return false };
        let stamp = Stamp { wall_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), logical: 0 };
        let removal = self.value.removing(NOBODY, stamp);
        let removed = self.value.merge(&removal, wall);
        debug_assert!(removed.is_ok(), "a removal of what is here takes no room");
        let marks = self.marks();
        self.set_marks(Marks { deleted: marks.deleted.max(stamp), ..marks });
        true
    }

    /// When it expires, as time since 1970.
    pub fn expires(&self) -> Option<Duration> {
        let Marks { deleted, expiry } = self.marks();
        let stands = expiry.at_ms > 0 && expiry.set > deleted && expiry.at_ms > deleted.wall_ms;
        stands.then(|| Duration::from_millis(expiry.at_ms))
    }

    /// When it was deleted, if it shows nothing since, as time since 1970.
    pub fn dead_since(&self) -> Option<Duration> {
        let Marks { deleted, .. } = self.marks();
        let dead = deleted != Stamp::default() && self.value.is_empty();
        dead.then(|| Duration::from_millis(deleted.wall_ms))
    }

    /// What joining `other` would add: see [`Value::news`].
    pub fn news(&self, other: &Object) -> Vec<(ReplicaId, News)> {
        self.value.news(&other.value)
    }

    /// Joins another state, see [`Value::merge`]: the later deletion, and the expiry that was set last. One that is [ahead
    /// of the clock](Object::is_ahead_of) is left out, and all else is taken.
    ///
    /// # Errors
    /// As [`Value::merge`]; nothing changed then.
    pub fn merge(&mut self, other: &Object, wall: Duration) -> Result<bool, CrdtError> {
        let changed = self.value.merge(&other.value, wall)?;
        let (before, told) = (self.marks(), other.marks());
        let mut marks = before;
        if told.deleted.is_settled(wall) {
            marks.deleted = marks.deleted.max(told.deleted);
        }
        if told.expiry.set.is_settled(wall) {
            marks.expiry = marks.expiry.max(told.expiry);
        }
        if marks != before {
            self.set_marks(marks);
        }
        Ok(changed || marks != before)
    }

    /// Whether its deletion, or its expiry, is stamped too far ahead of this clock to be merged. If it were, a clock that is
    /// fast would forbid what others set for as long as it is fast.
    pub fn is_ahead_of(&self, wall: Duration) -> bool {
        let Marks { deleted, expiry } = self.marks();
        !deleted.is_settled(wall) || !expiry.set.is_settled(wall)
    }

    fn marked(value: Value, marks: Marks) -> Object {
        let mut object = Object::from(value);
        object.set_marks(marks);
        object
    }

    fn marks(&self) -> Marks {
        self.marks.as_deref().copied().unwrap_or_default()
    }

    fn set_marks(&mut self, marks: Marks) {
        self.marks = (marks != Marks::default()).then(|| Box::new(marks));
    }

    /// See [`Value::compact`].
    pub fn compact(&mut self, delta: &Object) {
        self.value.compact(&delta.value);
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Some(Marks { deleted, expiry }) = self.marks.as_deref() else { return self.value.encode() };
        let mut out = vec![self.kind() as u8 | MARKED];
        for stamp in [deleted, &expiry.set] {
            put_number(&mut out, stamp.wall_ms);
            put_number(&mut out, u64::from(stamp.logical));
        }
        put_number(&mut out, expiry.at_ms);
        self.value.encode_body(&mut out);
        out
    }

    /// Decodes canonical bytes, and refuses any others.
    ///
    /// # Errors
    /// [`CrdtError::NotCanonical`], or the limit that the state exceeds.
    pub fn decode(bytes: &[u8]) -> Result<Object, CrdtError> {
        const DAMAGED: CrdtError = CrdtError::NotCanonical("a deletion or an expiry");
        let (first, rest) = match bytes.split_first() {
            Some((first, rest)) if first & MARKED != 0 => (first, rest),
            _ => return Value::decode(bytes).map(Object::from),
        };
        if rest.len() > MAX_STATE_BYTES + MARK_BYTES {
            return Err(CrdtError::TooLarge { size: rest.len(), limit: MAX_STATE_BYTES });
        }
        let kind = Kind::from_byte(first & !MARKED).ok_or(CrdtError::NotCanonical("an unknown kind"))?;
        let mut reader = Reader::new(rest);
        let mut stamp = || -> Result<Stamp, CrdtError> {
            let wall_ms = reader.number()?;
            Ok(Stamp { wall_ms, logical: u32::try_from(reader.number()?).map_err(|_| DAMAGED)? })
        };
        let (deleted, set) = (stamp()?, stamp()?);
        let expiry = Expiry { set, at_ms: reader.number()? };
        let marks = Marks { deleted, expiry };
        if marks == Marks::default() || (set == Stamp::default() && expiry.at_ms > 0) {
            return Err(DAMAGED);
        }
        let value = Value::decode_body(kind, &mut reader)?;
        reader.finish()?;
        Ok(Object::marked(value, marks))
    }

    /// The kind that a state is of, by its first byte.
    pub fn kind_byte(state: &[u8]) -> Option<u8> {
        state.first().map(|byte| byte & !MARKED)
    }

    /// The digest of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Value::digest_of(&self.encode())
    }
}

impl From<Value> for Object {
    fn from(value: Value) -> Object {
        Object { value, marks: None }
    }
}
