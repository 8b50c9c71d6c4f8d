//! Observed-remove set without tombstones: ORSWOT (Bieniusa et al. 2012) with deltas (Almeida et al. 2018).
//!
//! An element is present while it has a dot. A replica keeps a dot that the other lacks only if the other has never
//! seen it: a dot that was seen and is gone was removed. So a removed element takes no space, and no tombstones have
//! to be collected. (A collected tombstone can bring its element back from another replica.) A concurrent add wins.
//!
//! An add replaces the element's dots that its writer knows. A writer without a copy doesn't know its own earlier ones,
//! so a holder removes them when it has merged the delta ([`compact`](OrSet::compact)): of an actor's dots of an element
//! it keeps the highest. That isn't part of the join, which would no longer be associative: a copy in which the later
//! dot was removed can't tell which element it had. It is a removal, which any replica may make of what it has seen.
//!
//! Encoding: `n, n × (actor:40, prefix)`, `n, n × (place, counter)` cloud,
//! `n, n × (length, element, n ≥ 1, n × (place, counter))`, every list ascending.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Reader, put_bytes, put_number};
use super::context::{Context, Dot, read_dot};
use super::{CrdtError, MAX_STATE_BYTES, MAX_WRITE_BYTES};
use crate::replication::identity::ReplicaId;

/// The longest element.
pub const MAX_ELEMENT_BYTES: usize = 1024;

/// An upper bound of an element's overhead in the encoding: its length and its count of dots.
const ELEMENT_OVERHEAD_BYTES: usize = 8;
/// An upper bound of a dot's size in the encoding: its place and its counter.
const DOT_BYTES: usize = 12;

/// A set of byte strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrSet {
    context: Context,
    elements: BTreeMap<Vec<u8>, BTreeSet<Dot>>,
    /// The element that each dot supports, so that the cost of merging a delta depends on the delta only.
    supports: BTreeMap<Dot, Vec<u8>>,
    /// The bytes of all elements.
    element_bytes: usize,
}

impl OrSet {
    /// Adds an element as `replica`, and returns the delta.
    ///
    /// # Errors
    /// [`CrdtError::TooLarge`] or [`CrdtError::TooManyActors`]; nothing changed then.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn add(&mut self, replica: ReplicaId, element: &[u8]) -> Result<OrSet, CrdtError> {
        let delta = self.adding(replica, element, 0)?;
        self.merge(&delta)?;
        Ok(delta)
    }

    /// The delta of adding an element. Its dot is above `floor` and above the replica's highest dot in this state. It
    /// replaces the element's dots that this state knows.
    ///
    /// # Errors
    /// Like [`add`](OrSet::add), and [`CrdtError::Overflow`].
    pub fn adding(&self, replica: ReplicaId, element: &[u8], floor: u64) -> Result<OrSet, CrdtError> {
        if element.len() > MAX_ELEMENT_BYTES {
            return Err(CrdtError::TooLarge { size: element.len(), limit: MAX_ELEMENT_BYTES });
        }
        let size = self.weight() + element.len() + ELEMENT_OVERHEAD_BYTES + DOT_BYTES;
        if size > MAX_WRITE_BYTES && !self.elements.contains_key(element) {
            return Err(CrdtError::TooLarge { size, limit: MAX_WRITE_BYTES });
        }
        let counter = self.context.highest(&replica).max(floor).checked_add(1).ok_or(CrdtError::Overflow)?;
        let dot = Dot { actor: replica, counter };
        let mut delta = self.removing(element);
        delta.context.insert(dot);
        delta.support(dot, element);
        Ok(delta)
    }

    /// Removes an element as far as it was observed, and returns the delta. Removing an absent element gives an empty
    /// delta: a concurrent add of the element stays.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn remove(&mut self, element: &[u8]) -> OrSet {
        let delta = self.removing(element);
        self.drop_dots(&delta.context.singles().copied().collect::<Vec<_>>());
        for (actor, seen) in delta.context.prefixes() {
            self.drop_dots(&(1..=*seen).map(|counter| Dot { actor: *actor, counter }).collect::<Vec<_>>());
        }
        delta
    }

    /// The delta of removing an element: the element's dots in this state.
    pub fn removing(&self, element: &[u8]) -> OrSet {
        let mut delta = OrSet::default();
        for dot in self.elements.get(element).into_iter().flatten() {
            delta.context.insert(*dot);
        }
        delta
    }

    /// The delta of removing all elements.
    pub fn removing_all(&self) -> OrSet {
        let mut delta = OrSet::default();
        for dot in self.supports.keys() {
            delta.context.insert(*dot);
        }
        delta
    }

    /// Whether the element is present.
    pub fn contains(&self, element: &[u8]) -> bool {
        self.elements.contains_key(element)
    }

    /// The elements, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.elements.keys().map(Vec::as_slice)
    }

    /// How many elements.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The dots of the elements present.
    #[cfg(test)]
    pub(super) fn dots(&self) -> impl Iterator<Item = (&Dot, &[u8])> {
        self.supports.iter().map(|(dot, element)| (dot, element.as_slice()))
    }

    /// The dots seen.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Joins another state or delta. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CrdtError::TooManyActors`] or [`CrdtError::TooLarge`]; nothing changed then.
    pub fn merge(&mut self, other: &OrSet) -> Result<bool, CrdtError> {
        if !self.context.fits(&other.context) {
            return Err(CrdtError::TooManyActors);
        }
        // 1. A dot that only the other state has is new, unless this state saw and dropped it.
        // 2. A dot that both states have stays. An honest writer uses a dot once; if one said two things under it, the
        //    greater element stays, so that the owners agree whatever each was told first.
        let fresh: Vec<(Dot, &[u8])> = other
            .supports
            .iter()
            .filter(|(dot, element)| self.would_take(dot, element))
            .map(|(dot, element)| (*dot, element.as_slice()))
            .collect();
        // 3. A dot that only this state has is dropped, if the other state has seen it.
        let mut gone = Vec::new();
        for (actor, seen) in other.context.prefixes() {
            let range = Dot { actor: *actor, counter: 0 }..=Dot { actor: *actor, counter: *seen };
            gone.extend(self.supports.range(range).map(|(dot, _)| *dot));
        }
        gone.extend(other.context.singles().filter(|dot| self.supports.contains_key(dot)));
        gone.retain(|dot| !other.supports.contains_key(dot));
        let added: usize =
            fresh.iter().map(|(_, element)| element.len() + ELEMENT_OVERHEAD_BYTES + DOT_BYTES).sum();
        let size = self.weight() + added + other.context.weight();
        if size > MAX_STATE_BYTES {
            return Err(CrdtError::TooLarge { size, limit: MAX_STATE_BYTES });
        }
        let changed = !fresh.is_empty() || !gone.is_empty();
        self.drop_dots(&gone);
        for (dot, element) in fresh {
            self.drop_dots(&[dot]);
            self.support(dot, element);
        }
        Ok(self.context.join(&other.context) | changed)
    }

    /// Removes what the writers of a merged delta have replaced without knowing it: all dots of an actor but the
    /// highest, of each element that the delta adds.
    pub fn compact(&mut self, delta: &OrSet) {
        for (dot, element) in &delta.supports {
            let Some(dots) = self.elements.get(element) else { continue };
            let mut older: Vec<Dot> = dots.range(Dot::all_of(&dot.actor)).copied().collect();
            older.pop();
            self.drop_dots(&older);
        }
    }

    /// The writers of `other`'s elements that would appear here.
    pub(super) fn news<'a>(&'a self, other: &'a OrSet) -> impl Iterator<Item = ReplicaId> + 'a {
        let news = other.supports.iter().filter(|(dot, element)| self.would_take(dot, element));
        news.map(|(dot, _)| dot.actor)
    }

    /// Whether a merge would give this element to this dot.
    fn would_take(&self, dot: &Dot, element: &[u8]) -> bool {
        match self.supports.get(dot) {
            Some(held) => held.as_slice() < element,
            None => !self.context.contains(dot),
        }
    }

    /// An upper bound of the encoded size.
    fn weight(&self) -> usize {
        self.context.weight()
            + self.element_bytes
            + self.elements.len() * ELEMENT_OVERHEAD_BYTES
            + self.supports.len() * DOT_BYTES
    }

    fn support(&mut self, dot: Dot, element: &[u8]) {
        let dots = self.elements.entry(element.to_vec()).or_insert_with(|| {
            self.element_bytes += element.len();
            BTreeSet::new()
        });
        dots.insert(dot);
        self.supports.insert(dot, element.to_vec());
    }

    fn drop_dots(&mut self, dots: &[Dot]) {
        for dot in dots {
            let Some(element) = self.supports.remove(dot) else { continue };
            if let Some(supporting) = self.elements.get_mut(&element) {
                supporting.remove(dot);
                if supporting.is_empty() {
                    self.elements.remove(&element);
                    self.element_bytes -= element.len();
                }
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let places = self.context.encode(out);
        put_number(out, self.elements.len() as u64);
        for (element, dots) in &self.elements {
            put_bytes(out, element);
            put_number(out, dots.len() as u64);
            for dot in dots {
                put_number(out, places[&dot.actor]);
                put_number(out, dot.counter);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<OrSet, CrdtError> {
        let (context, actors) = Context::decode(reader)?;
        let mut set = OrSet { context, ..OrSet::default() };
        let many = CrdtError::NotCanonical("elements");
        for _ in 0..reader.count(MAX_STATE_BYTES, many)? {
            let element = reader.bytes(MAX_ELEMENT_BYTES)?;
            if set.elements.last_key_value().is_some_and(|(last, _)| last.as_slice() >= element) {
                return Err(many);
            }
            let count = reader.count(MAX_STATE_BYTES, many)?;
            let mut last = None;
            for _ in 0..count {
                let dot = read_dot(reader, &actors)?;
                let sound = set.context.contains(&dot) && !set.supports.contains_key(&dot);
                if !sound || last.is_some_and(|last| last >= dot) {
                    return Err(CrdtError::NotCanonical("dots of an element"));
                }
                last = Some(dot);
                set.support(dot, element);
            }
            if count == 0 {
                return Err(many);
            }
        }
        Ok(set)
    }
}
