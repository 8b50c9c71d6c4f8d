//! Announcements on the mesh group: a node says that it is present, and a few members that don't know it answer by an
//! exchange of tables, each after a random delay.

use std::time::{Duration, Instant};

use super::view::MeshView;
use crate::key::PublicKey;
use crate::kit::draw;

/// The most announcements that wait for their random delay.
pub const MAX_ANSWERS: usize = 32;

/// Members that answer one announcement.
pub const ANSWERERS: usize = 3;

/// The announcements that this node will answer.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// When each is answered, in the order of their arrival.
    waiting: Vec<(Instant, PublicKey)>,
}

impl Announcements {
    /// When the next answer is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }

    /// An announcement by `from`, which this node answers if it is one of the [`ANSWERERS`].
    pub(super) fn handle(&mut self, now: Instant, view: &mut MeshView, from: PublicKey, nonce: u64) {
        let waits = self.waiting.iter().any(|(_, peer)| *peer == from);
        let me = view.local.key();
        if view.table.is_live(&from) || waits || !view.local.is_member() || from == me {
            return;
        }
        let live = view.table.members().filter(|member| member.state.is_live());
        if !is_answerer(nonce, &me, live.map(|member| member.key)) {
            return;
        }
        if self.waiting.len() >= MAX_ANSWERS {
            view.stats.announcements_dropped += 1;
            return;
        }
        let delay: Duration = draw::duration(&mut view.rng, view.config.answer_delay);
        self.waiting.push((now + delay, from));
    }

    /// The peers to answer now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PublicKey> {
        self.waiting.extract_if(.., |(at, _)| *at <= now).map(|(_, peer)| peer).collect()
    }

    /// Answers none of those that wait: this node is no longer a member.
    pub(super) fn stop(&mut self) {
        self.waiting.clear();
    }
}

/// Whether `me` is among the [`ANSWERERS`] of an announcement, in a mesh of `me` and `others`. The nonce ranks the
/// members by a hash, so equal views choose the same ones, and another announcement other ones.
fn is_answerer(nonce: u64, me: &PublicKey, others: impl Iterator<Item = PublicKey>) -> bool {
    let rank = |key: &PublicKey| {
        *blake3::Hasher::new()
            .update(b"nurl/2 announcement")
            .update(&nonce.to_le_bytes())
            .update(key.as_bytes())
            .finalize()
            .as_bytes()
    };
    let mine = rank(me);
    others.filter(|key| rank(key) < mine).take(ANSWERERS).count() < ANSWERERS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    #[test]
    fn equal_views_choose_the_same_three_and_another_nonce_chooses_others() {
        let answerers = |nonce, members: u8| {
            let is_one = |me: &u8| is_answerer(nonce, &key(*me), (0..members).filter(|at| at != me).map(key));
            (0..members).filter(is_one).collect::<BTreeSet<u8>>()
        };
        for (members, expected) in [(1, 1), (2, 2), (3, 3), (4, 3), (50, 3)] {
            for nonce in 0..20 {
                assert_eq!(answerers(nonce, members).len(), expected, "{members} members");
            }
        }
        assert!((0..20).map(|nonce| answerers(nonce, 50)).collect::<BTreeSet<_>>().len() > 15);
    }

    #[test]
    fn answers_are_taken_when_due_in_the_order_of_arrival() {
        let now = crate::rt::test_now();
        let at = |s| now + Duration::from_secs(s);
        let waiting = vec![(at(2), key(1)), (at(3), key(2)), (at(1), key(3))];
        let mut announcements = Announcements { waiting };
        assert_eq!(announcements.poll_timeout(), Some(at(1)));
        assert_eq!(announcements.take_due(at(2)), [key(1), key(3)]);
        assert_eq!(announcements.poll_timeout(), Some(at(3)));
        announcements.stop();
        assert_eq!((announcements.poll_timeout(), announcements.take_due(at(9))), (None, vec![]));
    }
}
