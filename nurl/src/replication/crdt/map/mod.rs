//! Observed-remove map of one level: from a field's name to a counter, a register, a set or a multi-value register.
//!
//! It is a causal CRDT (Almeida, Shoker, Baquero 2018, *Delta state replicated data types*): the values are stores of
//! dots, nested under their fields, and the map has one causal context for all. The kind is part of a field's name, so
//! two kinds never meet. Removing a field removes what was observed of it; a concurrent write of the field survives with
//! its own effect only. Except for counters a write is an immutable content under its dot, as in
//! [`OrSet`](super::OrSet); a removed one leaves nothing but its dot in the context.
//!
//! # Counters
//! If a counter kept a sum under its actor's last dot, a sum that was removed would come back with a concurrent addition
//! (Baquero, Almeida, Lerche 2016, *The problem with embedded CRDT counters and a solution*). Here an actor has a *slot*
//! in a field, under the dot that began it: its totals, which each next addition raises, and the part of them that was
//! removed. Both only grow, so slots join by the maximum, and what counts is the totals less the removed part. So a
//! concurrent addition counts alone, in whatever order a replica learns of it and of the removal.
//!
//! A slot of which everything is removed shows nothing. Its actor, which alone adds to it, closes it with its next write
//! to the map: the dot is seen and gone, and the next addition begins another slot. An actor continues or closes a slot
//! only if it knows all of its own dots since the slot began, and so the slot's totals; else it begins a new one.
//!
//! Encoding: a context as in [`OrSet`](super::OrSet), then
//! `n, n × (length, field, n ≥ 1, n × (place, counter, content))`, every list ascending; a field is `kind:1 ‖ name`.

use std::collections::BTreeMap;
use std::time::Duration;

use self::content::Content;
use super::codec::{Reader, put_bytes, put_number};
use super::context::{Context, Dot, read_dot};
use super::{CrdtError, Kind, MAX_STATE_BYTES, News};
use crate::replication::identity::ReplicaId;

mod content;
mod writes;

pub use writes::Author;

/// The longest name of a field.
pub const MAX_FIELD_BYTES: usize = 256;

/// An upper bound of a field's overhead in the encoding: its kind, its length and its count of dots.
const FIELD_OVERHEAD_BYTES: usize = 9;
/// An upper bound of a dot's size in the encoding: its place and its counter.
const DOT_BYTES: usize = 12;

/// A map of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrMap {
    context: Context,
    fields: BTreeMap<Vec<u8>, BTreeMap<Dot, Content>>,
    /// The field of each dot, so that the cost of merging a delta depends on the delta only.
    field_of: BTreeMap<Dot, Vec<u8>>,
    /// An upper bound of the encoded size of all fields.
    field_bytes: usize,
}

impl OrMap {
    /// The fields that have a value, ascending by name, then kind.
    pub fn fields(&self) -> Vec<(&[u8], Kind)> {
        let present = self.fields.iter().filter(|(_, dots)| dots.values().any(Content::is_present));
        let split = present.filter_map(|(field, _)| {
            let (kind, name) = field.split_first()?;
            Some((name, Kind::from_byte(*kind)?))
        });
        let mut fields: Vec<_> = split.collect();
        fields.sort_unstable();
        fields
    }

    /// Whether no field has a value.
    pub fn is_empty(&self) -> bool {
        !self.fields.values().flat_map(BTreeMap::values).any(Content::is_present)
    }

    /// The sum of a counter; 0 without the field.
    pub fn counter(&self, name: &[u8]) -> i128 {
        self.contents(Kind::Counter, name)
            .map(|(_, content)| match content {
                Content::Counter(sums) => sums.value(),
                _ => 0,
            })
            .sum()
    }

    /// The last value that was written to a register, of those that a clock which shows `wall` accepts.
    pub fn register(&self, name: &[u8], wall: Duration) -> Option<&[u8]> {
        let written = self.contents(Kind::Register, name).filter_map(|(dot, content)| match content {
            Content::Register { stamp, value } if stamp.is_settled(wall) => {
                Some((*stamp, dot.actor, value.as_slice()))
            }
            _ => None,
        });
        written.max().map(|(_, _, value)| value)
    }

    /// The elements of a set, or the values of a multi-value register: ascending, each once.
    pub fn values(&self, kind: Kind, name: &[u8]) -> Vec<&[u8]> {
        let values = self.contents(kind, name).filter_map(|(_, content)| match content {
            Content::Bytes(value) => Some(value.as_slice()),
            _ => None,
        });
        let mut values: Vec<_> = values.collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The dots seen.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Joins another state or delta. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CrdtError::TooManyActors`] or [`CrdtError::TooLarge`]; nothing changed then.
    pub fn merge(&mut self, other: &OrMap) -> Result<bool, CrdtError> {
        if !self.context.fits(&other.context) {
            return Err(CrdtError::TooManyActors);
        }
        // 1. A dot that only the other state has is new, unless this state saw and dropped it.
        // 2. Of a dot that both states have the contents join.
        let mut fresh = Vec::new();
        for (dot, field, content) in other.entries() {
            if let Some(joined) = self.joined(dot, field, content) {
                fresh.push((*dot, field, joined));
            }
        }
        // 3. A dot that only this state has is dropped, if the other state has seen it.
        let gone = self.gone(other);
        let added: usize = fresh
            .iter()
            .map(|(_, field, content)| field.len() + FIELD_OVERHEAD_BYTES + content.weight())
            .sum();
        let size = self.weight() + added + other.context.weight();
        if size > MAX_STATE_BYTES {
            return Err(CrdtError::TooLarge { size, limit: MAX_STATE_BYTES });
        }
        let changed = !fresh.is_empty() || !gone.is_empty();
        gone.iter().for_each(|dot| self.drop_dot(dot));
        for (dot, field, content) in fresh {
            self.put(dot, field, content);
        }
        Ok(self.context.join(&other.context) | changed)
    }

    /// The dots here that the other state has seen and lacks.
    fn gone(&self, other: &OrMap) -> Vec<Dot> {
        let mut gone = Vec::new();
        for (actor, seen) in other.context.prefixes() {
            let range = Dot { actor: *actor, counter: 0 }..=Dot { actor: *actor, counter: *seen };
            gone.extend(self.field_of.range(range).map(|(dot, _)| *dot));
        }
        gone.extend(other.context.singles().filter(|dot| self.field_of.contains_key(dot)));
        gone.retain(|dot| !other.field_of.contains_key(dot));
        gone
    }

    /// What a merge would add: whose it is, and in what way.
    pub(super) fn news(&self, other: &OrMap) -> Vec<(ReplicaId, News)> {
        let mut news = Vec::new();
        for (dot, field, content) in other.entries() {
            let Some(joined) = self.joined(dot, field, content) else { continue };
            let held = self.held(dot).filter(|(of, _)| *of == field).map(|(_, held)| held);
            if let Some(how) = joined.news_beside(held) {
                news.push((dot.actor, how));
            }
        }
        // Only its actor closes a slot: what it adds at the same time would be lost.
        let is_slot = |dot: &Dot| matches!(self.held(dot), Some((_, Content::Counter(_))));
        let closed = self.gone(other).into_iter().filter(is_slot);
        news.extend(closed.map(|dot| (dot.actor, News::Written)));
        news.extend(self.context.news(&other.context).map(|actor| (actor, News::Seen)));
        news
    }

    /// What a merge would put under this dot and field; none if nothing changes.
    fn joined(&self, dot: &Dot, field: &[u8], content: &Content) -> Option<Content> {
        match self.held(dot) {
            None => (!self.context.contains(dot)).then(|| content.clone()),
            Some((of, held)) if of == field => {
                let joined = held.join(content);
                (joined != *held).then_some(joined)
            }
            // An honest writer uses a dot once. If one said two things under it, the greater field stays, so that
            // the owners agree whatever each was told first.
            Some((of, _)) => (of < field).then(|| content.clone()),
        }
    }

    fn held(&self, dot: &Dot) -> Option<(&[u8], &Content)> {
        let field = self.field_of.get(dot)?;
        Some((field, self.fields.get(field)?.get(dot)?))
    }

    fn entries(&self) -> impl Iterator<Item = (&Dot, &[u8], &Content)> {
        self.field_of.iter().filter_map(|(dot, field)| {
            let content = self.fields.get(field)?.get(dot)?;
            Some((dot, field.as_slice(), content))
        })
    }

    fn contents(&self, kind: Kind, name: &[u8]) -> impl Iterator<Item = (&Dot, &Content)> {
        self.fields.get(&field(kind, name)).into_iter().flatten()
    }

    /// An upper bound of the encoded size.
    fn weight(&self) -> usize {
        self.context.weight() + self.field_bytes
    }

    fn put(&mut self, dot: Dot, field: &[u8], content: Content) {
        self.drop_dot(&dot);
        self.field_bytes += content.weight();
        let dots = self.fields.entry(field.to_vec()).or_insert_with(|| {
            self.field_bytes += field.len() + FIELD_OVERHEAD_BYTES;
            BTreeMap::new()
        });
        dots.insert(dot, content);
        self.field_of.insert(dot, field.to_vec());
    }

    fn drop_dot(&mut self, dot: &Dot) {
        let Some(field) = self.field_of.remove(dot) else { return };
        let Some(dots) = self.fields.get_mut(&field) else { return };
        if let Some(content) = dots.remove(dot) {
            self.field_bytes -= content.weight();
        }
        if dots.is_empty() {
            self.field_bytes -= field.len() + FIELD_OVERHEAD_BYTES;
            self.fields.remove(&field);
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let places = self.context.encode(out);
        put_number(out, self.fields.len() as u64);
        for (field, dots) in &self.fields {
            put_bytes(out, field);
            put_number(out, dots.len() as u64);
            for (dot, content) in dots {
                put_number(out, places[&dot.actor]);
                put_number(out, dot.counter);
                content.encode(out);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<OrMap, CrdtError> {
        const DAMAGED: CrdtError = CrdtError::NotCanonical("fields");
        let (context, actors) = Context::decode(reader)?;
        let mut map = OrMap { context, ..OrMap::default() };
        for _ in 0..reader.count(MAX_STATE_BYTES, DAMAGED)? {
            let field = reader.bytes(MAX_FIELD_BYTES + 1)?;
            let kind = field.first().and_then(|kind| Kind::from_byte(*kind)).ok_or(DAMAGED)?;
            let count = reader.count(MAX_STATE_BYTES, DAMAGED)?;
            if count == 0 || map.fields.last_key_value().is_some_and(|(last, _)| last.as_slice() >= field) {
                return Err(DAMAGED);
            }
            let mut last = None;
            for _ in 0..count {
                let dot = read_dot(reader, &actors)?;
                let sound = map.context.contains(&dot) && !map.field_of.contains_key(&dot);
                if !sound || last.is_some_and(|last| last >= dot) {
                    return Err(CrdtError::NotCanonical("dots of a field"));
                }
                last = Some(dot);
                map.put(dot, field, Content::decode(kind, reader)?);
            }
        }
        Ok(map)
    }
}

/// A field: its kind, then its name.
fn field(kind: Kind, name: &[u8]) -> Vec<u8> {
    [&[kind as u8], name].concat()
}
