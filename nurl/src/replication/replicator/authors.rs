//! Whose writes a peer may tell: its own; others' only as an owner of the key.
//!
//! A state names the authors of its parts, and nothing in it proves them. So a peer's state is compared with the one held
//! before it is merged, and only what it would add matters: a state that adds nothing is taken from everybody.

use std::time::Instant;

use super::shared::Shared;
use crate::key::PublicKey;
use crate::replication::crdt::{MAX_ACTORS, MAX_COUNTER_SLOTS, News, Object};

const _: () = assert!(MAX_COUNTER_SLOTS == MAX_ACTORS, "every kind has as many places");

/// The most slots of one author in a key, counted when it writes: it takes a new one when it loses its store. A counter
/// has room for 16 authors that use all of theirs.
pub(super) const MAX_AUTHOR_SLOTS: usize = 256;

/// The places of writers in a value that only owners of the key take: through one of them others still write when the rest
/// is taken.
pub(super) const OWNERS_SLOTS: usize = 512;

/// What to do with a peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Merge it.
    Take,
    /// It removes what this node hasn't seen. An element may be younger than this node's copy, so the other owners have
    /// to be asked whether it exists.
    Unseen,
    /// It would change what its sender didn't write.
    Foreign,
    /// It would take a place in the value that its sender can't have.
    Crowded,
}

/// Judges a peer's state for a key of which this node holds `held`.
pub(super) fn judge(
    sh: &Shared,
    now: Instant,
    held: Option<&Object>,
    (from, key): (&PublicKey, &[u8]),
    state: &Object,
) -> Judgement {
    if sh.owns(from, key) {
        return Judgement::Take;
    }
    let nothing = Object::new(state.kind());
    // A state without content creates no key: it would be nobody's.
    let (had, held) = (held.is_some(), held.unwrap_or(&nothing));
    let news = held.news(state);
    let empty = !had && news.is_empty();
    let others: Vec<_> = news.iter().filter(|(author, _)| author.key != *from).collect();
    let (held, state, nothing) = (held.value(), state.value(), nothing.value());
    let slots = held.slots_with(state, from);
    let is_full = held.places() >= MAX_ACTORS - OWNERS_SLOTS && slots > held.slots_with(nothing, from);
    let crowded = !news.is_empty() && (slots > MAX_AUTHOR_SLOTS || is_full);
    if others.is_empty() && !crowded && !empty {
        return Judgement::Take;
    }
    let may_tell = sh.may_tell(now, from, key)
        || (sh.stood_in(now, from) && others.iter().all(|(author, _)| sh.was_away(now, &author.key)));
    if may_tell {
        Judgement::Take
    } else if crowded && others.is_empty() {
        Judgement::Crowded
    } else if empty || others.iter().any(|(_, how)| *how == News::Written) {
        Judgement::Foreign
    } else {
        Judgement::Unseen
    }
}
