//! SWIM's dissemination component (§4.1): the gossip queue, the clock of its ticks, whose turn it is to hear, and the user
//! events that were seen, so that each is delivered and passed on once.

use std::collections::VecDeque;
use std::time::Instant;

use crate::key::PublicKey;
use crate::kit::draw;
use crate::membership::gossip::GossipQueue;
use crate::membership::table::{MemberTable, State};
use crate::rt::Rng;

/// User events that are remembered, so that each is delivered once.
pub const MAX_SEEN_EVENTS: usize = 1024;

/// The gossip that waits, and when it is next sent in messages of its own.
#[derive(Debug)]
pub(super) struct Dissemination {
    pub(super) queue: GossipQueue,
    next_at: Instant,
    /// Who hears gossip next, from the end on. Rounds, as in probing, because a fact is told a few times only: those who are
    /// drawn anew each time are often the same ones.
    turns: Vec<PublicKey>,
    /// Who heard it last. They have their turns at the end of the next round.
    heard: Vec<PublicKey>,
    /// Origin and id of each user event, oldest first.
    seen: VecDeque<(PublicKey, u64)>,
}

impl Dissemination {
    /// An empty queue.
    pub(super) fn new(now: Instant) -> Dissemination {
        Dissemination {
            queue: GossipQueue::default(),
            next_at: now,
            turns: Vec::new(),
            heard: Vec::new(),
            seen: VecDeque::new(),
        }
    }

    /// When the next tick has something to send.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.next_at)
    }

    /// Whether it is time for a tick.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at <= now
    }

    /// Sets the time of the next tick.
    pub(super) fn schedule(&mut self, at: Instant) {
        self.next_at = at;
    }

    /// Up to `count` different members that are alive, whose turn it is.
    pub(super) fn take_turns(&mut self, rng: &mut Rng, table: &MemberTable, count: usize) -> Vec<PublicKey> {
        let is_alive = |key: &PublicKey| table.get(key).is_some_and(|member| member.state == State::Alive);
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(next) = self.turns.pop() else {
                let all = table.members().map(|member| member.key);
                self.turns = all.filter(|key| is_alive(key) && !taken.contains(key)).collect();
                draw::shuffle(rng, &mut self.turns);
                self.turns.sort_by_key(|key| !self.heard.contains(key));
                if self.turns.is_empty() {
                    break;
                }
                continue;
            };
            if is_alive(&next) {
                taken.push(next);
            }
        }
        self.heard.clone_from(&taken);
        taken
    }

    /// Records a user event. True if it is new.
    pub(super) fn see(&mut self, origin: PublicKey, id: u64) -> bool {
        if self.seen.contains(&(origin, id)) {
            return false;
        }
        if self.seen.len() >= MAX_SEEN_EVENTS {
            self.seen.pop_front();
        }
        self.seen.push_back((origin, id));
        true
    }

    /// Number of user events that are remembered.
    #[cfg(test)]
    pub(super) fn seen(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::membership::gossip::GossipTopic;

    #[test]
    fn a_tick_has_a_deadline_only_while_something_waits() {
        let now = crate::rt::test_now();
        let at = now + Duration::from_millis(200);
        let mut gossip = Dissemination::new(now);
        gossip.schedule(at);
        assert_eq!(gossip.poll_timeout(), None);
        gossip.queue.push(GossipTopic::Member(PublicKey::from_bytes([1; 32])), vec![1]);
        assert_eq!(gossip.poll_timeout(), Some(at));
        assert!(!gossip.is_due(now) && gossip.is_due(at));
    }

    #[test]
    fn an_event_is_new_once_per_origin_and_id() {
        let [one, other] = [1, 2].map(|at| PublicKey::from_bytes([at; 32]));
        let mut gossip = Dissemination::new(crate::rt::test_now());
        for (origin, id, new) in [(one, 1, true), (one, 1, false), (one, 2, true), (other, 1, true)] {
            assert_eq!(gossip.see(origin, id), new);
        }
        assert!((0..MAX_SEEN_EVENTS as u64).all(|id| gossip.see(other, 10 + id)));
        assert_eq!(gossip.seen(), MAX_SEEN_EVENTS);
        assert!(gossip.see(one, 1), "only the last ones are remembered");
    }
}
