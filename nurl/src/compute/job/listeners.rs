//! Who listens to an executor's signs of life: a submitter that is gone costs less and less, and then nothing.
//!
//! Nobody's detector watches a client that comes and goes, and a message to it waits in the transport for ever: each
//! beat would cost a handshake for as long as the task lives. So every third beat asks for an answer. A submitter
//! that gives none is beaten to ever more seldom, and after [`DEAF_AFTER`] not at all: its tasks run on, their outcomes
//! stay with the keys' owners. Anything that comes from it makes it a listener again.

use std::collections::BTreeMap;
use std::time::Instant;

use super::options::{BEATS_PER_QUESTION, DEAF_AFTER, QUIET_AFTER};
use crate::key::PublicKey;

/// What the next beat to a submitter is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// One that asks for an answer.
    Ask,
    /// A plain one.
    Beat,
    /// None now: it has been quiet.
    Skip,
    /// None any more, until something comes from it.
    Deaf,
}

#[derive(Debug)]
struct Listener {
    heard: Instant,
    beats: u32,
    /// Not before that, once it is quiet.
    next: Instant,
}

/// The submitters that are beaten to. As many as wait for tasks and outcomes here, which are bounded.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_key: BTreeMap<PublicKey, Listener>,
}

impl Listeners {
    /// Something has come from it.
    pub(super) fn heard(&mut self, now: Instant, peer: PublicKey) {
        if let Some(listener) = self.by_key.get_mut(&peer) {
            listener.heard = now;
        }
    }

    /// A tick with something to say to `peer`. A beat that is given here is sent.
    pub(super) fn turn(&mut self, now: Instant, peer: PublicKey) -> Turn {
        let listener = self.by_key.entry(peer).or_insert(Listener { heard: now, beats: 0, next: now });
        let quiet = now.saturating_duration_since(listener.heard);
        if quiet >= DEAF_AFTER {
            return Turn::Deaf;
        }
        if quiet < QUIET_AFTER {
            listener.beats += 1;
            return if listener.beats % BEATS_PER_QUESTION == 1 { Turn::Ask } else { Turn::Beat };
        }
        if now < listener.next {
            return Turn::Skip;
        }
        // The gap doubles, since the silence has.
        listener.next = now + quiet;
        Turn::Ask
    }

    /// Forgets those that nothing is said to now.
    pub(super) fn retain(&mut self, listens: impl Fn(&PublicKey) -> bool) {
        self.by_key.retain(|peer, _| listens(peer));
    }
}

/// The beats that a submitter without a word costs, at most: ten, and one for each doubling.
#[cfg(test)]
pub(super) const MOST_BEATS_TO_THE_DEAF: u64 = 15;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the base of virtual time")]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: PublicKey = PublicKey::from_bytes([1; 32]);

    /// The turns of so many seconds, by the second.
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
