//! The submitters that get an executor's beats: an absent submitter gets fewer and fewer beats, and finally none.
//!
//! No failure detector watches a client that comes and goes, and a message to it waits in the transport for ever.
//! Each beat would cost a handshake for as long as the task lives. So every third beat asks for an answer. A
//! submitter that doesn't answer, or whom a message didn't reach, gets beats at growing intervals, and after
//! [`DEAF_AFTER`] none. Its tasks run on, and their outcomes stay with the keys' owners. Any message from it makes it a
//! listener again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::options::{BEATS_PER_QUESTION, DEAF_AFTER, QUIET_AFTER, UNREACHED_FOR};
use crate::key::PublicKey;
use crate::rt::{Point, buggify};

/// The kind of the next beat to a submitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A beat that asks for an answer.
    Ask,
    /// A plain beat.
    Beat,
    /// No beat now: the submitter has been quiet.
    Skip,
    /// No more beats, until a message comes from the submitter.
    Deaf,
}

#[derive(Debug)]
struct Listener {
    heard: Instant,
    beats: u32,
    /// The earliest time of the next beat, once the submitter is quiet or a message hasn't reached it.
    next: Instant,
    /// The gap after the next message that doesn't reach it.
    gap: Duration,
}

/// The submitters that get beats: at most as many as wait for tasks and outcomes here, which are bounded.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_key: BTreeMap<PublicKey, Listener>,
}

impl Listeners {
    /// Notes that a message came from `peer`.
    pub(super) fn heard(&mut self, now: Instant, peer: PublicKey) {
        if let Some(listener) = self.by_key.get_mut(&peer) {
            listener.heard = now;
            listener.next = now;
            listener.gap = UNREACHED_FOR;
        }
    }

    /// Notes that a message didn't reach `peer`: it was called, and didn't answer in time.
    pub(super) fn unreached(&mut self, now: Instant, peer: PublicKey) {
        if let Some(listener) = self.by_key.get_mut(&peer) {
            listener.next = listener.next.max(now + listener.gap);
            listener.gap = (listener.gap * 2).min(DEAF_AFTER);
        }
    }

    /// Decides about the beat to `peer` at a tick. The caller sends a beat that is granted.
    pub(super) fn turn(&mut self, now: Instant, peer: PublicKey) -> Turn {
        let listener = self.by_key.entry(peer).or_insert(Listener {
            heard: now,
            beats: 0,
            next: now,
            gap: UNREACHED_FOR,
        });
        let quiet = now.saturating_duration_since(listener.heard);
        if quiet >= DEAF_AFTER {
            return Turn::Deaf;
        }
        if now < listener.next {
            return Turn::Skip;
        }
        if quiet < QUIET_AFTER {
            listener.beats += 1;
            let asks = listener.beats % BEATS_PER_QUESTION == 1 || buggify(Point::EachBeatAsks);
            return if asks { Turn::Ask } else { Turn::Beat };
        }
        // The gap doubles because the silence has doubled.
        listener.next = now + quiet;
        Turn::Ask
    }

    /// Forgets the submitters that get no messages now.
    pub(super) fn retain(&mut self, listens: impl Fn(&PublicKey) -> bool) {
        self.by_key.retain(|peer, _| listens(peer));
    }
}

/// The most beats to a silent submitter: ten, and one for each doubling.
#[cfg(test)]
pub(super) const MOST_BEATS_TO_THE_DEAF: u64 = 15;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the base of virtual time")]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: PublicKey = PublicKey::from_bytes([1; 32]);

    /// The turns of these seconds, each with its second.
    fn turns(listeners: &mut Listeners, begin: Instant, seconds: std::ops::Range<u64>) -> Vec<(u64, Turn)> {
        let at = |second| begin + Duration::from_secs(second);
        seconds.map(|second| (second, listeners.turn(at(second), PEER))).collect()
    }

    #[test]
    fn a_submitter_without_a_word_is_asked_ever_more_seldom_and_then_no_more() {
        let begin = Instant::now();
        let mut listeners = Listeners::default();
        let turns = turns(&mut listeners, begin, 0..DEAF_AFTER.as_secs() + 1);
        let said: Vec<_> =
            turns.iter().filter(|(_, turn)| *turn != Turn::Skip).map(|(second, _)| *second).collect();
        assert_eq!(said, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 40, 80, 160, 300]);
        assert_eq!(turns.last().map(|(_, turn)| *turn), Some(Turn::Deaf));
        assert!(said.len() as u64 - 1 <= MOST_BEATS_TO_THE_DEAF);
    }

    #[test]
    fn one_that_answers_is_beaten_to_each_time_and_asked_each_third_time() {
        let begin = Instant::now();
        let mut listeners = Listeners::default();
        for second in 0..3_600 {
            let now = begin + Duration::from_secs(second);
            let turn = listeners.turn(now, PEER);
            assert_eq!(turn, if second % 3 == 0 { Turn::Ask } else { Turn::Beat });
            if turn == Turn::Ask {
                listeners.heard(now, PEER);
            }
        }
    }

    #[test]
    fn one_that_no_message_reaches_is_called_at_doubling_intervals_until_it_is_heard() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut listeners = Listeners::default();
        let mut called = Vec::new();
        for second in 0..40 {
            if listeners.turn(at(second), PEER) != Turn::Skip {
                called.push(second);
                listeners.unreached(at(second), PEER);
            }
        }
        assert_eq!(called, [0, 2, 6, 14, 30]);
        listeners.heard(at(40), PEER);
        assert_ne!(listeners.turn(at(40), PEER), Turn::Skip);
        listeners.unreached(at(40), PEER);
        assert_eq!(listeners.turn(at(41), PEER), Turn::Skip);
        assert_ne!(listeners.turn(at(42), PEER), Turn::Skip, "a gap begins anew");
    }

    #[test]
    fn one_that_is_back_is_beaten_to_at_once() {
        let begin = Instant::now();
        let mut listeners = Listeners::default();
        turns(&mut listeners, begin, 0..100);
        let now = begin + Duration::from_secs(100);
        assert_eq!(listeners.turn(now, PEER), Turn::Skip);
        listeners.heard(now, PEER);
        assert_ne!(listeners.turn(now, PEER), Turn::Skip);
    }

    #[test]
    fn who_is_told_nothing_is_forgotten() {
        let mut listeners = Listeners::default();
        listeners.turn(Instant::now(), PEER);
        listeners.retain(|_| false);
        assert!(listeners.by_key.is_empty());
    }
}
