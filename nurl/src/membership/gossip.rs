//! The queue of facts that wait to be gossiped, least sent first.
//!
//! Each member sends each fact `factor · ⌈log10(n + 1)⌉` times, piggybacked on any outgoing message and in gossip
//! messages of its own. The order is rank, then number of sends, then newest first. So every fact is sent, even when
//! more wait than a datagram holds, and user events never delay membership facts. A newer fact about the same subject
//! replaces the older one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::table::MAX_MEMBERS;
use crate::key::PublicKey;
use crate::rt::{Point, Table, bound, buggify};

/// The most queued facts: one for each member and one about this node. More aren't possible, since each subject has
/// one slot.
pub const MAX_QUEUED_FACTS: usize = MAX_MEMBERS + 1;

/// The most queued user events. Each is sent a few times within seconds; a longer queue would fill the datagrams for
/// longer than an event stays relevant.
pub const MAX_QUEUED_EVENTS: usize = 64;

/// A message stops looking for smaller facts after this many that don't fit.
const MISSES: usize = 8;

/// The subject of a queued fact; the variants are in rank order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GossipTopic {
    /// A member's state.
    Member(PublicKey),
    /// A user event, by origin and id.
    UserEvent(PublicKey, u64),
}

impl GossipTopic {
    fn rank(self) -> u8 {
        match self {
            GossipTopic::Member(_) => 0,
            GossipTopic::UserEvent(..) => 1,
        }
    }
}

type QueuePlace = (u8, u32, Reverse<u64>);

/// The queue.
#[derive(Debug, Default)]
pub struct GossipQueue {
    places: BTreeMap<GossipTopic, QueuePlace>,
    waiting: BTreeMap<QueuePlace, (GossipTopic, Vec<u8>)>,
    events: usize,
    pushed: u64,
}

/// The facts and events that ride on a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PickedGossip {
    /// Encoded facts.
    pub facts: Vec<Vec<u8>>,
    /// Encoded events.
    pub events: Vec<Vec<u8>>,
}

impl GossipQueue {
    /// Queues a fact, or replaces the one about the same subject. False if there is no room.
    pub fn push(&mut self, topic: GossipTopic, bytes: Vec<u8>) -> bool {
        self.remove(&topic);
        let is_event = matches!(topic, GossipTopic::UserEvent(..));
        let full = if is_event {
            self.events >= bound(Table::UserEvents, MAX_QUEUED_EVENTS)
        } else {
            self.places.len() - self.events >= MAX_QUEUED_FACTS
        };
        if full {
            return false;
        }
        self.events += usize::from(is_event);
        self.pushed += 1;
        let place = (topic.rank(), 0, Reverse(self.pushed));
        self.places.insert(topic, place);
        self.waiting.insert(place, (topic, bytes));
        true
    }

    /// Makes room for an event of this node's own in a full queue: of the others' events the one that was sent most often
    /// gives way, since most members have it. Returns whether one did.
    pub fn make_room_for_own_event(&mut self, own: PublicKey) -> bool {
        if self.events < bound(Table::UserEvents, MAX_QUEUED_EVENTS) {
            return false;
        }
        let others = self.waiting.values().rev().map(|(topic, _)| *topic);
        let mut others =
            others.filter(|topic| matches!(topic, GossipTopic::UserEvent(origin, _) if *origin != own));
        let gives_way = others.next();
        gives_way.iter().for_each(|topic| self.remove(topic));
        gives_way.is_some()
    }

    /// Removes a fact from the queue.
    pub fn remove(&mut self, topic: &GossipTopic) {
        if let Some(place) = self.places.remove(topic) {
            self.waiting.remove(&place);
            self.events -= usize::from(matches!(topic, GossipTopic::UserEvent(..)));
        }
    }

    /// Whether a fact still waits.
    pub fn contains(&self, topic: &GossipTopic) -> bool {
        self.places.contains_key(topic)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Picks the facts that fit into `room` bytes, except those about `without` (they are in the message already),
    /// and counts them as sent. A fact that was sent `limit` times is removed.
    pub fn pick(&mut self, room: usize, limit: u32, without: &[PublicKey]) -> PickedGossip {
        let room = if buggify(Point::GossipNothing) { 0 } else { room };
        let most = if buggify(Point::GossipOne) { 1 } else { usize::MAX };
        let (mut left, mut misses, mut chosen) = (room, 0, Vec::new());
        for (place, (topic, bytes)) in &self.waiting {
            if matches!(topic, GossipTopic::Member(key) if without.contains(key)) {
                continue;
            }
            if bytes.len() > left {
                misses += 1;
                if misses >= MISSES {
                    break;
                }
                continue;
            }
            left -= bytes.len();
            chosen.push(*place);
            if chosen.len() >= most {
                break;
            }
        }
        let mut picked = PickedGossip::default();
        for place in chosen {
            let (topic, bytes) = self.waiting.remove(&place).expect("it was just seen");
            match topic {
                GossipTopic::Member(_) => picked.facts.push(bytes.clone()),
                GossipTopic::UserEvent(..) => picked.events.push(bytes.clone()),
            }
            let (rank, sent, order) = place;
            if sent + 1 >= limit {
                self.places.remove(&topic);
                self.events -= usize::from(matches!(topic, GossipTopic::UserEvent(..)));
            } else {
                let place = (rank, sent + 1, order);
                self.places.insert(topic, place);
                self.waiting.insert(place, (topic, bytes));
            }
        }
        picked
    }
}

/// Number of times that each member sends a fact in a mesh of `n`: `factor · ⌈log10(n + 1)⌉`, at least `factor`.
pub fn retransmit_limit(factor: u32, n: usize) -> u32 {
    let mut digits = 1;
    let mut power = 10usize;
    while power < n.saturating_add(1) {
        digits += 1;
        power = power.saturating_mul(10);
    }
    factor.saturating_mul(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn key(at: u16) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&at.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    #[test]
    fn a_fact_is_told_four_times_per_digit_of_the_mesh() {
        for (n, limit) in [(0, 4), (1, 4), (8, 4), (9, 4), (10, 8), (99, 8), (100, 12), (999, 12), (1000, 16)]
        {
            assert_eq!(retransmit_limit(4, n), limit, "n {n}");
        }
    }

    #[test]
    fn every_fact_gets_out_even_if_a_message_holds_only_two() {
        let mut queue = GossipQueue::default();
        for at in 0..50u16 {
            assert!(queue.push(GossipTopic::Member(key(at)), at.to_be_bytes().to_vec()));
        }
        let mut told = BTreeSet::new();
        for _ in 0..25 {
            let picked = queue.pick(4, 4, &[]);
            assert_eq!(picked.facts.len(), 2);
            told.extend(picked.facts);
        }
        assert_eq!(told.len(), 50, "none was told twice before all were told once");
    }

    #[test]
    fn an_event_of_ones_own_takes_the_place_of_the_most_told_one_of_others() {
        let mut queue = GossipQueue::default();
        let own = GossipTopic::UserEvent(key(1), 1);
        let others = |id| GossipTopic::UserEvent(key(2), id);
        for id in 0..MAX_QUEUED_EVENTS as u64 {
            assert!(!queue.make_room_for_own_event(key(1)), "there is room");
            assert!(queue.push(others(id), vec![7]));
        }
        // The latest one is told first.
        assert_eq!(queue.pick(1, 4, &[]).events.len(), 1);
        assert!(!queue.push(own, vec![8]));
        assert!(queue.make_room_for_own_event(key(1)) && queue.push(own, vec![8]));
        assert!(!queue.contains(&others(MAX_QUEUED_EVENTS as u64 - 1)) && queue.contains(&others(0)));
        for id in 2..=MAX_QUEUED_EVENTS as u64 {
            assert!(queue.make_room_for_own_event(key(1)));
            assert!(queue.push(GossipTopic::UserEvent(key(1), id), vec![8]));
        }
        assert!(!queue.make_room_for_own_event(key(1)), "all are its own");
    }

    #[test]
    fn a_fact_is_done_after_its_last_telling() {
        let mut queue = GossipQueue::default();
        queue.push(GossipTopic::Member(key(1)), vec![1]);
        for _ in 0..3 {
            assert_eq!(queue.pick(10, 3, &[]).facts, vec![vec![1]]);
        }
        assert!(queue.is_empty());
        assert_eq!(queue.pick(10, 3, &[]), PickedGossip::default());
    }

    #[test]
    fn a_newer_fact_replaces_the_older_one_and_starts_afresh() {
        let mut queue = GossipQueue::default();
        queue.push(GossipTopic::Member(key(1)), vec![1]);
        queue.pick(10, 2, &[]);
        queue.push(GossipTopic::Member(key(1)), vec![2]);
        assert_eq!(queue.pick(10, 2, &[]).facts, vec![vec![2]]);
        assert_eq!(queue.pick(10, 2, &[]).facts, vec![vec![2]]);
        assert!(queue.is_empty());
    }

    #[test]
    fn events_never_delay_membership_and_small_facts_fill_the_gaps() {
        let mut queue = GossipQueue::default();
        queue.push(GossipTopic::UserEvent(key(1), 1), vec![9]);
        queue.push(GossipTopic::Member(key(1)), vec![1; 5]);
        queue.push(GossipTopic::Member(key(2)), vec![2; 8]);
        let picked = queue.pick(6, 9, &[]);
        assert_eq!(picked, PickedGossip { facts: vec![vec![1; 5]], events: vec![vec![9]] });
        assert_eq!(queue.pick(8, 9, &[]).facts, vec![vec![2; 8]]);
        assert_eq!(queue.pick(99, 9, &[key(2)]).facts, vec![vec![1; 5]]);
    }

    #[test]
    fn the_queue_is_bounded_per_rank() {
        let mut queue = GossipQueue::default();
        for at in 0..MAX_QUEUED_EVENTS as u64 {
            assert!(queue.push(GossipTopic::UserEvent(key(1), at), vec![0]));
        }
        assert!(!queue.push(GossipTopic::UserEvent(key(1), 9999), vec![0]));
        for at in 0..MAX_QUEUED_FACTS as u16 {
            assert!(queue.push(GossipTopic::Member(key(at)), vec![0]));
        }
        assert!(!queue.push(GossipTopic::Member(key(u16::MAX)), vec![0]));
        assert!(queue.push(GossipTopic::Member(key(1)), vec![7]), "replacing needs no room");
        queue.remove(&GossipTopic::UserEvent(key(1), 0));
        assert!(queue.push(GossipTopic::UserEvent(key(1), 9999), vec![0]));
    }

    #[test]
    fn events_that_were_told_often_enough_make_room() {
        let mut queue = GossipQueue::default();
        for round in 0..3 {
            for at in 0..MAX_QUEUED_EVENTS as u64 {
                assert!(queue.push(GossipTopic::UserEvent(key(round), at), vec![0]), "{round}: {at}");
            }
            assert!(!queue.push(GossipTopic::UserEvent(key(9), 0), vec![0]));
            queue.pick(usize::MAX, 2, &[]);
            assert!(!queue.push(GossipTopic::UserEvent(key(9), 0), vec![0]), "each has to be told once more");
            queue.pick(usize::MAX, 2, &[]);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn seven_facts_that_do_not_fit_hide_no_smaller_one_and_eight_do() {
        for (large, hidden) in [(MISSES - 1, false), (MISSES, true)] {
            let mut queue = GossipQueue::default();
            queue.push(GossipTopic::Member(key(0)), vec![7]);
            for at in 1..=large as u16 {
                queue.push(GossipTopic::Member(key(at)), vec![0; 9]);
            }
            assert_eq!(queue.pick(8, 9, &[]).facts.is_empty(), hidden, "{large}");
        }
    }
}
