//! The causal context: the dots that a replica has seen.
//!
//! It is a version vector for the unbroken prefix of each actor, and a *cloud* of single dots beyond a gap (from a
//! delta that overtook another). Normal form: a cloud dot that continues its prefix is moved into the vector, so
//! equal sets of dots are equal contexts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::CrdtError;
use super::codec::{Reader, put_number, put_replica};
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

/// Actors of one set: 50 bytes each in every full state.
pub const MAX_ACTORS: usize = 4096;

/// The most dots beyond a gap. Gaps come from lost deltas, and the next full state closes them. This many open gaps
/// mean that a peer sends no full states.
pub const MAX_CLOUD_DOTS: usize = 4096;

/// One write of one actor: its n-th, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The writer.
    pub actor: ReplicaId,
    /// The number of the write.
    pub counter: u64,
}

impl Dot {
    /// Every dot of one actor.
    pub(super) fn all_of(actor: &ReplicaId) -> RangeInclusive<Dot> {
        Dot { actor: *actor, counter: 0 }..=Dot { actor: *actor, counter: u64::MAX }
    }
}

/// A set of dots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    vector: BTreeMap<ReplicaId, u64>,
    cloud: BTreeSet<Dot>,
}

impl Context {
    /// Whether the dot was seen.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.vector.get(&dot.actor).is_some_and(|seen| dot.counter <= *seen) || self.cloud.contains(dot)
    }

    /// The actor's highest dot; 0 if none.
    pub fn highest(&self, actor: &ReplicaId) -> u64 {
        let cloud = self.cloud.range(Dot::all_of(actor)).next_back().map_or(0, |dot| dot.counter);
        cloud.max(self.vector.get(actor).copied().unwrap_or(0))
    }

    /// Adds a dot.
    pub fn insert(&mut self, dot: Dot) {
        if !self.contains(&dot) {
            self.cloud.insert(dot);
            self.compact(&dot.actor);
        }
    }

    /// Adds all dots of another context. Returns whether any was new.
    pub(super) fn join(&mut self, other: &Context) -> bool {
        let mut changed = false;
        for (actor, seen) in &other.vector {
            let mine = self.vector.entry(*actor).or_default();
            if *mine < *seen {
                *mine = *seen;
                changed = true;
                self.compact(actor);
            }
        }
        for dot in &other.cloud {
            changed |= !self.contains(dot);
            self.insert(*dot);
        }
        changed
    }

    /// Whether joining `other` stays within the bounds; a conservative estimate.
    pub(super) fn fits(&self, other: &Context) -> bool {
        let fresh = other.actors().filter(|actor| !self.knows(actor)).count();
        let dots = other.cloud.iter().filter(|dot| !self.contains(dot)).count();
        // Only a context that is nearly full has its actors counted, so the cost is that of `other`.
        let at_most = self.vector.len() + self.cloud.len() + fresh;
        let has_room = at_most <= MAX_ACTORS || self.actors().count() + fresh <= MAX_ACTORS;
        has_room && self.cloud.len() + dots <= MAX_CLOUD_DOTS
    }

    /// The actors of those of `other`'s dots that this context lacks.
    pub(super) fn news<'a>(&'a self, other: &'a Context) -> impl Iterator<Item = ReplicaId> + 'a {
        // The dot after a prefix is never a single one: a longer prefix has at least one dot that is new.
        let longer =
            |(actor, seen): &(&ReplicaId, &u64)| self.vector.get(actor).is_none_or(|mine| mine < *seen);
        let prefixes = other.vector.iter().filter(longer).map(|(actor, _)| *actor);
        prefixes.chain(other.cloud.iter().filter(|dot| !self.contains(dot)).map(|dot| dot.actor))
    }

    /// The larger of two numbers: of `author`'s actors, and of its single dots, here and in `other`.
    pub(super) fn slots_with(&self, other: &Context, author: &PublicKey) -> usize {
        let ids = ReplicaId::all_of(author);
        let fresh = other.vector.range(ids.clone()).filter(|(actor, _)| !self.vector.contains_key(actor));
        let actors = self.vector.range(ids.clone()).count() + fresh.count();
        let dots = Dot { actor: *ids.start(), counter: 0 }..=Dot { actor: *ids.end(), counter: u64::MAX };
        let fresh = other.cloud.range(dots.clone()).filter(|dot| !self.contains(dot));
        actors.max(self.cloud.range(dots).count() + fresh.count())
    }

    /// Whether the actor's dots with these numbers, of which the first is at least 1, were all seen.
    pub(super) fn contains_all(&self, actor: &ReplicaId, first: u64, last: u64) -> bool {
        let seen = self.vector.get(actor).copied().unwrap_or(0);
        if last <= seen {
            return true;
        }
        let dot = |counter| Dot { actor: *actor, counter };
        let first = first.max(seen + 1);
        first > last || self.cloud.range(dot(first)..=dot(last)).count() as u64 == last - first + 1
    }

    /// The unbroken ranges: each actor's dots 1 to n.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (&ReplicaId, &u64)> {
        self.vector.iter()
    }

    /// The single dots.
    pub(super) fn singles(&self) -> impl Iterator<Item = &Dot> {
        self.cloud.iter()
    }

    /// An upper bound of the number of actors.
    pub(super) fn places(&self) -> usize {
        self.vector.len() + self.cloud.len()
    }

    /// An upper bound of the encoded size.
    pub(super) fn weight(&self) -> usize {
        self.vector.len() * 50 + self.cloud.len() * 62 + 20
    }

    fn knows(&self, actor: &ReplicaId) -> bool {
        self.highest(actor) > 0
    }

    /// All actors, ascending, each once.
    fn actors(&self) -> impl Iterator<Item = &ReplicaId> {
        let mut cloud: Vec<&ReplicaId> = self
            .cloud
            .iter()
            .map(|dot| &dot.actor)
            .filter(|actor| !self.vector.contains_key(actor))
            .collect();
        cloud.extend(self.vector.keys());
        cloud.sort_unstable();
        cloud.dedup();
        cloud.into_iter()
    }

    fn compact(&mut self, actor: &ReplicaId) {
        let mut seen = self.vector.get(actor).copied().unwrap_or(0);
        let before = seen;
        let first = Dot { actor: *actor, counter: 0 };
        while let Some(dot) = self.cloud.range(first..).next().copied() {
            if dot.actor != *actor || dot.counter > seen.saturating_add(1) {
                break;
            }
            seen = seen.max(dot.counter);
            self.cloud.remove(&dot);
        }
        if seen > before {
            self.vector.insert(*actor, seen);
        }
    }

    /// Writes the context, and returns the place of each actor in it. Dots name their actor by this place.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> BTreeMap<ReplicaId, u64> {
        let places: BTreeMap<ReplicaId, u64> = self.actors().copied().zip(0..).collect();
        put_number(out, places.len() as u64);
        for actor in places.keys() {
            put_replica(out, actor);
            put_number(out, self.vector.get(actor).copied().unwrap_or(0));
        }
        put_number(out, self.cloud.len() as u64);
        for dot in &self.cloud {
            put_number(out, places[&dot.actor]);
            put_number(out, dot.counter);
        }
        places
    }

    /// Reads a context, and returns it with the actors in order of their places.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<(Context, Vec<ReplicaId>), CrdtError> {
        let count = reader.count(MAX_ACTORS, CrdtError::TooManyActors)?;
        let mut context = Context::default();
        let mut actors: Vec<ReplicaId> = Vec::new();
        for _ in 0..count {
            let actor = reader.replica()?;
            if actors.last().is_some_and(|last| *last >= actor) {
                return Err(CrdtError::NotCanonical("actors"));
            }
            let seen = reader.number()?;
            if seen > 0 {
                context.vector.insert(actor, seen);
            }
            actors.push(actor);
        }
        for _ in 0..reader.count(MAX_CLOUD_DOTS, CrdtError::TooManyActors)? {
            let dot = read_dot(reader, &actors)?;
            let ascending = context.cloud.last().is_none_or(|last| *last < dot);
            let seen = context.vector.get(&dot.actor).copied().unwrap_or(0);
            if !ascending || dot.counter <= seen.saturating_add(1) {
                return Err(CrdtError::NotCanonical("cloud"));
            }
            context.cloud.insert(dot);
        }
        if actors.iter().any(|actor| !context.knows(actor)) {
            return Err(CrdtError::NotCanonical("an actor without dots"));
        }
        Ok((context, actors))
    }
}

/// Reads `place, counter`.
pub(super) fn read_dot(reader: &mut Reader<'_>, actors: &[ReplicaId]) -> Result<Dot, CrdtError> {
    let place = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
    let actor = *actors.get(place).ok_or(CrdtError::NotCanonical("an unknown actor"))?;
    let counter = reader.number()?;
    if counter == 0 {
        return Err(CrdtError::NotCanonical("dot 0"));
    }
    Ok(Dot { actor, counter })
}
