//! The exchanges of tables: with whom and when this node starts one, and how it answers.
//!
//! The rules of one exchange are in [`pushpull`](crate::membership::pushpull).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::outbox::Via;
use super::view::MeshView;
use crate::key::PublicKey;
use crate::membership::event::MembershipEvent;
use crate::membership::message::{self, MAX_CHUNK_BYTES, MAX_FACTS, MessageBody, TableChunk};
use crate::membership::pushpull::{self, MAX_CHUNKS, PushPull};
use crate::membership::table::{Member, State};

/// Members with which this node starts exchanges at a time: after a suspend, or when a hub names some that this node
/// doesn't hold live.
pub const EXCHANGE_FANOUT: usize = 3;

/// Observers that a member remembers, so that it doesn't ask them for a table. Beyond the limit the oldest is asked
/// once more.
pub const MAX_OBSERVERS: usize = 256;

/// An observer's first wait for another table after joining; the wait then doubles up to the usual period. Gossip
/// doesn't reach an observer, and the first table may come from a member that has just joined itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The exchanges under way, and the time of the next.
#[derive(Debug)]
pub(super) struct Exchanges {
    push_pull: PushPull,
    next_at: Instant,
    /// An observer's time until its next exchange.
    look_again: Duration,
    /// Keys that announced themselves as observers, which have no table to give. The oldest is first.
    observers: VecDeque<PublicKey>,
    /// The peer of the last exchange, if that failed.
    failed: Option<PublicKey>,
}

impl Exchanges {
    /// The first periodic exchange is at `next_at`, the others follow after `period`.
    pub(super) fn new(next_at: Instant, period: Duration) -> Exchanges {
        Exchanges {
            push_pull: PushPull::default(),
            next_at,
            look_again: period,
            observers: VecDeque::new(),
            failed: None,
        }
    }

    /// When an exchange has taken too long, or the next one is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.push_pull.poll_timeout().map_or(self.next_at, |until| until.min(self.next_at))
    }

    /// Whether the next periodic exchange is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at <= now
    }

    /// The next periodic exchange is at `at`.
    pub(super) fn schedule(&mut self, at: Instant) {
        self.next_at = at;
    }

    /// Sets the time of the exchange after this one.
    pub(super) fn schedule_next(&mut self, now: Instant, view: &MeshView, isolated: bool) {
        let usual = view.config.push_pull_interval;
        let mut period = if isolated { view.config.isolated_push_pull_interval } else { usual };
        if view.local.is_observer() {
            period = period.min(self.look_again);
            self.look_again = (2 * self.look_again).min(usual);
        }
        self.next_at = now + period;
    }

    /// An observer has joined: it soon asks for another table.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.look_again = LOOK_AGAIN;
        self.next_at = now + LOOK_AGAIN;
    }

    /// The member for the next periodic exchange: a live one by chance. The peer of the last exchange, if that failed, is
    /// taken only if there is no other: it may be dead, and not yet known to be.
    pub(super) fn partner(&self, view: &mut MeshView) -> Option<PublicKey> {
        let failed = self.failed;
        let mut one = |of: &dyn Fn(&Member) -> bool| view.random_members(1, of).pop();
        one(&|member| member.state.is_live() && Some(member.key) != failed)
            .or_else(|| one(&|member| member.state.is_live()))
    }

    /// Starts an exchange with `peer`, unless one is under way or too many are.
    pub(super) fn start(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) {
        let id = view.rng.next_u64();
        if peer == view.local.key()
            || view.outcasts.contains(&peer)
            || !self.push_pull.start(now, view.config.push_pull_timeout, id, peer)
        {
            return;
        }
        view.emit(MembershipEvent::WantSession { peer });
        send_table(now, view, peer, id, MessageBody::PushPull);
    }

    /// Answers a request; its first chunk stands for all.
    pub(super) fn answer(&mut self, now: Instant, view: &mut MeshView, from: PublicKey, chunk: TableChunk) {
        if chunk.index != 0 {
            return;
        }
        let facts = 1 + view.table.entries().count();
        if self.push_pull.may_answer(now, facts) {
            send_table(now, view, from, chunk.id, MessageBody::PushPullAck);
        } else {
            view.stats.push_pulls_refused += 1;
        }
    }

    /// A chunk of an answer. True if the answer is complete.
    pub(super) fn handle_answer(&mut self, view: &mut MeshView, from: &PublicKey, chunk: TableChunk) -> bool {
        let complete = self.push_pull.answer(from, chunk);
        match complete {
            Some(true) => {
                view.stats.push_pulls += 1;
                self.failed = None;
            }
            Some(false) => {}
            None => view.stats.unsolicited_chunks += 1,
        }
        complete == Some(true)
    }

    /// Ends the exchanges with `peer`. True if there were any.
    pub(super) fn cancel(&mut self, peer: &PublicKey) -> bool {
        self.push_pull.cancel(peer)
    }

    /// Ends the exchanges that took too long and returns their peers.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PublicKey> {
        self.push_pull.expire(now)
    }

    /// Only an exchange repairs losses of gossip, and an observer learns of a death by nothing else. So a failed
    /// exchange with a member is soon replaced by one with another member. A failed exchange with an unknown peer has
    /// no such effect.
    pub(super) fn failed(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) {
        tracing::debug!(target: "nurl::membership", peer = %peer.short(), "an exchange of tables failed");
        view.stats.push_pulls_failed += 1;
        self.failed = Some(peer);
        if view.table.get(&peer).is_some() {
            self.next_at = self.next_at.min(now + LOOK_AGAIN);
        }
    }

    /// Remembers the observers, and drops a key that turns up as a member.
    pub(super) fn note_observer(&mut self, from: PublicKey, observer: bool) {
        let known = self.observers.iter().position(|key| *key == from);
        match (observer, known) {
            (true, None) => {
                if self.observers.len() >= MAX_OBSERVERS {
                    self.observers.pop_front();
                }
                self.observers.push_back(from);
            }
            (false, Some(at)) => drop(self.observers.remove(at)),
            _ => {}
        }
    }

    /// Whether `key` announced itself as an observer.
    pub(super) fn is_observer(&self, key: &PublicKey) -> bool {
        self.observers.contains(key)
    }
}

/// Sends the whole table in chunks, the fact about this node first.
fn send_table(
    now: Instant,
    view: &mut MeshView,
    to: PublicKey,
    id: u64,
    body: impl Fn(TableChunk) -> MessageBody,
) {
    let revocations = view.notary.digest();
    let body = |index, total| body(TableChunk { id, index, total, revocations });
    let observer = view.local.is_observer();
    let room = message::room(MAX_CHUNK_BYTES, observer, &body(MAX_CHUNKS, MAX_CHUNKS));
    let facts = if observer { Vec::new() } else { encode_table(now, view) };
    let chunks = pushpull::pack(facts.into_iter(), room, MAX_FACTS);
    let total = chunks.len() as u32;
    for (index, facts) in chunks.into_iter().enumerate() {
        view.transmit(to, Via::Reliable, &body(index as u32, total), &facts, &[]);
    }
}

fn encode_table(now: Instant, view: &mut MeshView) -> Vec<Vec<u8>> {
    let own = view.own_fact();
    let others = view.table.entries().filter(|entry| {
        // What a member says itself needs the profile of its incarnation; without it only accusations are known.
        matches!(entry.record.state, State::Suspect | State::Dead) || entry.speaks_for_itself()
    });
    own.into_iter()
        .chain(others.map(|entry| entry.fact(now)))
        .map(|fact| message::encode_fact(&fact))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observers_are_remembered_within_bounds_until_they_turn_up_as_members() {
        let now = crate::rt::test_now();
        let key = |at: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(at as u64).to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        let mut exchanges = Exchanges::new(now, Duration::from_secs(30));
        (0..MAX_OBSERVERS).for_each(|at| exchanges.note_observer(key(at), true));
        exchanges.note_observer(key(0), true);
        assert!(exchanges.is_observer(&key(0)), "a known one displaces nobody");
        exchanges.note_observer(key(MAX_OBSERVERS), true);
        exchanges.note_observer(key(2), false);
        for (at, observer) in [(0, false), (1, true), (2, false), (MAX_OBSERVERS, true)] {
            assert_eq!(exchanges.is_observer(&key(at)), observer, "{at}");
        }
    }

    #[test]
    fn the_deadline_is_the_next_exchange_or_the_end_of_one_under_way() {
        let now = crate::rt::test_now();
        let at = |s| now + Duration::from_secs(s);
        let mut exchanges = Exchanges::new(at(20), Duration::from_secs(30));
        assert_eq!((exchanges.poll_timeout(), exchanges.is_due(now)), (at(20), false));
        let peer = PublicKey::from_bytes([1; 32]);
        assert!(exchanges.push_pull.start(now, Duration::from_secs(10), 1, peer));
        assert_eq!(exchanges.poll_timeout(), at(10));
        exchanges.look_again(now);
        assert_eq!(exchanges.poll_timeout(), now + LOOK_AGAIN);
    }
}
