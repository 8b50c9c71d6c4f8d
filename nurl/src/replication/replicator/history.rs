//! Who may have owned a key lately: the only peers from which whole states are taken.
//!
//! A whole state has slots of many authors, so its sender could put words into all of their mouths. It is taken from:
//!
//! 1. an owner of the key, at present or in a view of the last [`RECENT`];
//! 2. a peer that would own it if this node, and the members that were placed or away within [`RECENT`], weren't there: it
//!    hands over to those that were placed, and stood in for those that were away. This node itself may have been away in
//!    others' views without knowing it, and if it was just placed it has no earlier view to look into;
//! 3. a *stand-in*: a placed member that was away within [`RECENT`], so that it may have acted for owners that were out
//!    of *its* reach. It may hand back its own writes, and those of authors that were away too: a member that stayed
//!    has told its writes to the owners that stayed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::key::PublicKey;
use crate::ring::Ring;

/// How long a former owner may hand over. It asks again after at most 5 min, and a minute after each change of the view;
/// an owner whose state is contained in the receiver's needs no trust, and is acknowledged at any time.
pub(super) const RECENT: Duration = Duration::from_secs(600);
/// Limit on the former rings remembered, so that a flapping member costs no more than this. Forgotten ones only make
/// this node stricter; the peers of rule 2 and 3 don't depend on them.
const MAX_RINGS: usize = 64;
/// Limit on the points of the former rings: 32 MiB.
const MAX_RING_POINTS: usize = 2 * crate::ring::MAX_POINTS;

/// What the views of the last [`RECENT`] were.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The rings that placed keys otherwise than the present one, with the times at which they ended.
    former: VecDeque<(Instant, Arc<Ring>)>,
    /// When a member was placed, after this node's first ring.
    placed: BTreeMap<PublicKey, Instant>,
    /// When a placed member was last seen to be away, or to be back.
    away: BTreeMap<PublicKey, Instant>,
}

impl History {
    /// Notes that `new` follows `old`.
    pub(super) fn follow(&mut self, now: Instant, old: &Arc<Ring>, new: &Ring) {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < RECENT;
        self.placed.retain(|_, at| recent(at));
        self.away.retain(|_, at| recent(at));
        self.former.retain(|(until, _)| recent(until));
        if old.is_empty() {
            return;
        }
        for member in new.members() {
            let before = old.member(&member.key);
            if before.is_none() {
                self.placed.insert(member.key, now);
            }
            if !member.live || before.is_none_or(|before| !before.live) {
                self.away.insert(member.key, now);
            }
        }
        if !old.places_as(new) {
            self.former.push_back((now, old.clone()));
        }
        let points = |former: &VecDeque<(Instant, Arc<Ring>)>| -> usize {
            former.iter().map(|(_, ring)| ring.points_len()).sum()
        };
        while self.former.len() > MAX_RINGS || points(&self.former) > MAX_RING_POINTS {
            self.former.pop_front();
        }
    }

    /// Whether `peer` owns the key or may lately have owned it: rules 1 and 2.
    pub(super) fn owned(
        &self,
        now: Instant,
        ring: &Ring,
        (local, replicas): (&PublicKey, usize),
        peer: &PublicKey,
        key: &[u8],
    ) -> bool {
        if ring.owns(peer, key, replicas) {
            return true;
        }
        let recent = |at: &Instant| now.saturating_duration_since(*at) < RECENT;
        let was_there = |member: &PublicKey| {
            let placed = self.placed.get(member).is_some_and(recent);
            member != local && !placed && !self.was_away(now, ring, member)
        };
        if ring.member(peer).is_some() {
            let mut before = ring.preference(key).take_while(|member| member.key != *peer);
            let mut stayed = 0;
            if before.all(|member| {
                stayed += usize::from(was_there(&member.key));
                stayed < replicas
            }) {
                return true;
            }
        }
        self.former.iter().any(|(until, ring)| recent(until) && ring.owns(peer, key, replicas))
    }

    /// Whether `peer` may have stood in for owners that were out of its reach: rule 3.
    pub(super) fn stood_in(&self, now: Instant, ring: &Ring, peer: &PublicKey) -> bool {
        ring.member(peer).is_some() && self.was_away(now, ring, peer)
    }

    /// Whether a member wasn't in reach for all of the last [`RECENT`]. Nothing is known of those that aren't placed.
    pub(super) fn was_away(&self, now: Instant, ring: &Ring, peer: &PublicKey) -> bool {
        let away = |at: &Instant| now.saturating_duration_since(*at) < RECENT;
        ring.member(peer).is_none_or(|member| !member.live) || self.away.get(peer).is_some_and(away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RingMember;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_bytes(*blake3::hash(&[n]).as_bytes())
    }

    fn ring(members: &[u8], away: &[u8]) -> Arc<Ring> {
        Arc::new(Ring::new(members.iter().map(|n| RingMember {
            key: peer(*n),
            boot: 0,
            seed: *peer(*n).as_bytes().first_chunk().expect("32 bytes"),
            weight: 1,
            zone: String::new(),
            kinds: Vec::new(),
            live: !away.contains(n),
            placed: true,
        })))
    }

    #[test]
    fn an_owner_is_known_for_ten_minutes_after_it_was_one() {
        let now = crate::rt::time::now();
        let (before, none) = (ring(&[1, 2, 3, 4, 5], &[]), Arc::default());
        let former = before.owners(b"k", 3)[0];
        let members: Vec<u8> = (1..=5).filter(|n| peer(*n) != former).collect();
        let after = ring(&members, &[]);
        let local = peer(99);
        let mut history = History::default();
        let later = now + RECENT;
        history.follow(now, &none, &before);
        history.follow(later, &before, &after);
        let owned = |history: &History, at| history.owned(at, &after, (&local, 3), &former, b"k");
        assert!(owned(&history, later) && owned(&history, later + RECENT - Duration::from_secs(1)));
        assert!(!owned(&history, later + RECENT));
        let others: Vec<PublicKey> = after.owners(b"k", 4).into_iter().skip(3).collect();
        assert!(!history.owned(later, &after, (&local, 3), &others[0], b"k"), "it never owned it");
    }

    #[test]
    fn the_former_owners_of_a_key_and_their_stand_ins_are_those_without_the_members_that_came_or_were_away() {
        let now = crate::rt::time::now();
        let all = [1, 2, 3, 4, 5, 6];
        let order = ring(&all, &[]).owners(b"k", 6);
        let number = |at: usize| all.into_iter().find(|n| peer(*n) == order[at]).expect("one of them");
        let local = &order[0];
        let may = |history: &History, at, ring: &Ring, place: usize| {
            history.owned(at, ring, (local, 3), &order[place], b"k")
        };
        let whole = ring(&all, &[]);
        let mut history = History::default();
        history.follow(now, &Arc::default(), &whole);
        let told = |history: &History, at| [2, 3, 4, 5].map(|place| may(history, at, &whole, place));
        assert_eq!(told(&history, now), [true, true, false, false], "this node itself may have been away");
        // The second owner goes and comes back.
        let without = ring(&all, &[number(1)]);
        history.follow(now, &whole, &without);
        history.follow(now, &without, &whole);
        assert_eq!(told(&history, now), [true, true, true, false]);
        assert_eq!(told(&history, now + RECENT), [true, true, false, false]);
        // The third one was just placed.
        let before: Vec<u8> = all.into_iter().filter(|n| *n != number(2)).collect();
        let mut history = History::default();
        history.follow(now, &Arc::default(), &ring(&before, &[]));
        history.follow(now, &ring(&before, &[]), &whole);
        assert_eq!(told(&history, now), [true, true, true, false]);
        assert_eq!(told(&history, now + RECENT), [true, true, false, false]);
    }

    #[test]
    fn a_stand_in_was_away_and_an_observer_is_none() {
        let now = crate::rt::time::now();
        let rings =
            [ring(&[1, 2, 3], &[]), ring(&[1, 2, 3], &[2]), ring(&[1, 2, 3], &[]), ring(&[1, 2, 3, 4], &[])];
        let mut history = History::default();
        history.follow(now, &Arc::default(), &rings[0]);
        for pair in rings.windows(2) {
            history.follow(now, &pair[0], &pair[1]);
        }
        let may = |at, n| history.stood_in(at, &rings[3], &peer(n));
        assert_eq!([1, 2, 3, 4, 9].map(|n| may(now, n)), [false, true, false, true, false]);
        assert!(![1, 2, 3, 4, 9].into_iter().any(|n| may(now + RECENT, n)));
        assert!(history.former.len() == 1, "a ring that places keys alike isn't kept");
    }

    #[test]
    fn a_flapping_member_costs_a_bounded_number_of_rings() {
        let now = crate::rt::time::now();
        let rings = [ring(&[1, 2, 3], &[]), ring(&[1, 2], &[])];
        let mut history = History::default();
        for n in 0..1000 {
            history.follow(now, &rings[n % 2], &rings[(n + 1) % 2]);
        }
        assert_eq!(history.former.len(), MAX_RINGS);
    }
}
