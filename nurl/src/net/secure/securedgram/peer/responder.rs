//! A peer's handshakes with us as the responder: its timestamps, and the responses that may be asked for again.
//!
//! An init with an old timestamp comes from a clock that went back, or from somebody who has captured it. Only the first
//! can return a challenge, but a challenge is an answer, and an answer tells the other one where we are. So an old init is
//! challenged only if its source has a **voucher** that a captured frame can't have:
//!
//! - a hub delivered it as its sender's own: who registers a key has it;
//! - it has a mac2 of a cookie of ours, less than four minutes old;
//! - it came from an address where the peer has echoed to this process, or that our own side knows: then the answer goes to
//!   the peer.
//!
//! Everywhere else there is silence. A peer whose clock went back, without a hub and at a new address, is let in as soon as
//! we begin: the initiator's clock is its own, and the responder's doesn't matter.

use std::time::{Duration, Instant};

use super::super::frames::InitPayload;
use super::super::mac::{self, Mac};
use super::super::timestamp::Timestamp;
use super::MAX_UNCONFIRMED;

/// How long a response is cached for a copy of its init that comes by another leg.
pub const ANSWER_LIFE: Duration = Duration::from_secs(10);

/// The minimum gap between two challenges to one key; the first one suffices for a clock that went back.
const CHALLENGE_GAP: Duration = Duration::from_millis(200);

/// A cached response, sent again for the same init.
pub(in super::super) struct CachedAnswer {
    pub(in super::super) mac1: Mac,
    /// The init up to and including mac1; mac2 differs from leg to leg.
    pub(in super::super) init: Vec<u8>,
    pub(in super::super) response: Vec<u8>,
    pub(in super::super) at: Instant,
}

/// The judgement on an init's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Timeliness {
    /// It is newer than the last one.
    Newer,
    /// It is older, but came with our challenge: the initiator's clock went back.
    LetBack,
    /// It is older. This challenge lets the initiator prove that the init is no replay.
    Stale(Mac),
    /// It is older, and the key was challenged a moment ago.
    Limited,
    /// It is older, and nothing vouches for its source: it may be a replay.
    Unvouched,
}

pub(in super::super) struct PeerResponder {
    /// The greatest timestamp accepted; before the first one, the floor.
    newest: Timestamp,
    /// The timestamp accepted last, and the process that made it. It is smaller than the greatest after a clock went back;
    /// the clock of that process rises from there.
    last: Option<(Timestamp, u64)>,
    challenged_at: Option<Instant>,
    /// Oldest first.
    answers: Vec<CachedAnswer>,
}

impl PeerResponder {
    /// Accepts timestamps above `floor`.
    pub(in super::super) fn new(floor: Timestamp) -> PeerResponder {
        PeerResponder { newest: floor, last: None, challenged_at: None, answers: Vec::new() }
    }

    /// The greatest timestamp accepted, or the floor.
    pub(in super::super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Judges an init's timestamp, and stores it if it is accepted. `vouched` says that the source has a voucher;
    /// `challenge` makes the challenge for a timestamp.
    pub(in super::super) fn judge(
        &mut self,
        now: Instant,
        payload: &InitPayload,
        vouched: bool,
        challenge: impl Fn(&Timestamp) -> Mac,
    ) -> Timeliness {
        let (time, boot) = (payload.timestamp, payload.boot);
        let rises = |(last, of): (Timestamp, u64)| of == boot && time > last;
        if time > self.newest || self.last.is_some_and(rises) {
            self.accept(time, boot);
            return Timeliness::Newer;
        }
        if !vouched {
            return Timeliness::Unvouched;
        }
        let challenge = challenge(&self.last.map_or(self.newest, |(last, _)| last));
        if mac::equal(&challenge, &payload.challenge) {
            self.accept(time, boot);
            return Timeliness::LetBack;
        }
        if self.challenged_at.is_some_and(|at| now.saturating_duration_since(at) < CHALLENGE_GAP) {
            return Timeliness::Limited;
        }
        Timeliness::Stale(challenge)
    }

    fn accept(&mut self, time: Timestamp, boot: u64) {
        self.newest = self.newest.max(time);
        self.last = Some((time, boot));
    }

    /// A challenge is sent.
    pub(in super::super) fn on_challenged(&mut self, now: Instant) {
        self.challenged_at = Some(now);
    }

    pub(in super::super) fn answers(&self) -> &[CachedAnswer] {
        &self.answers
    }

    /// The cached response to an init, if it is young.
    pub(in super::super) fn answer(&self, now: Instant, init: &[u8]) -> Option<&[u8]> {
        let fresh = |answer: &&CachedAnswer| {
            answer.init == init && now.saturating_duration_since(answer.at) < ANSWER_LIFE
        };
        self.answers.iter().find(fresh).map(|answer| &answer.response[..])
    }

    /// Caches a response. Returns the oldest one if it is dropped for it.
    pub(in super::super) fn keep_answer(&mut self, answer: CachedAnswer) -> Option<CachedAnswer> {
        let dropped = (self.answers.len() >= MAX_UNCONFIRMED).then(|| self.answers.remove(0));
        self.answers.push(answer);
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::credential::SHOWN_BYTES;

    #[test]
    fn an_old_timestamp_needs_the_challenge_for_the_last_one() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut responder = PeerResponder::new([0; 12]);
        let challenge_for = |last: &[u8; 12]| [last[0]; 16];
        for (after_ms, timestamp, challenge, expected) in [
            (0, 5, 0, Timeliness::Newer),
            (1, 5, 0, Timeliness::Stale([5; 16])),
            (2, 4, 0, Timeliness::Limited),
            (3, 6, 0, Timeliness::Newer),
            (201, 6, 5, Timeliness::Stale([6; 16])),
            (202, 2, 6, Timeliness::LetBack),
            (203, 2, 6, Timeliness::Limited),
            (204, 3, 0, Timeliness::Newer),
        ] {
            let now = start + Duration::from_millis(after_ms);
            let payload = InitPayload {
                timestamp: [timestamp; 12],
                boot: 0,
                versions: [0; 2],
                features: 0,
                challenge: [challenge; 16],
                shown: [0; SHOWN_BYTES],
            };
            if !matches!(expected, Timeliness::Newer) {
                let judged = responder.judge(now, &payload, false, challenge_for);
                assert_eq!(judged, Timeliness::Unvouched, "after {after_ms} ms");
            }
            let judged = responder.judge(now, &payload, true, challenge_for);
            assert_eq!(judged, expected, "after {after_ms} ms");
            if let Timeliness::Stale(_) = judged {
                responder.on_challenged(now);
            }
        }
    }

    #[test]
    fn a_clock_that_was_let_back_reopens_nothing_to_older_processes() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut responder = PeerResponder::new([3; 12]);
        let challenge_for = |last: &[u8; 12]| [last[0]; 16];
        for (timestamp, boot, challenge, vouched, expected) in [
            (2, 1, 0, false, Timeliness::Unvouched),
            (3, 1, 0, false, Timeliness::Unvouched),
            (9, 1, 0, false, Timeliness::Newer),
            // A new process whose clock went back.
            (1, 2, 0, true, Timeliness::Stale([9; 16])),
            (1, 2, 9, true, Timeliness::LetBack),
            (2, 2, 0, false, Timeliness::Newer),
            // What the process before it sent is no newer for that.
            (5, 1, 0, false, Timeliness::Unvouched),
            (9, 1, 0, false, Timeliness::Unvouched),
            (9, 2, 0, false, Timeliness::Newer),
            (10, 3, 0, false, Timeliness::Newer),
            (9, 2, 0, false, Timeliness::Unvouched),
        ] {
            let payload = InitPayload {
                timestamp: [timestamp; 12],
                boot,
                versions: [0; 2],
                features: 0,
                challenge: [challenge; 16],
                shown: [0; SHOWN_BYTES],
            };
            let judged = responder.judge(now, &payload, vouched, challenge_for);
            assert_eq!(judged, expected, "{timestamp} of {boot}");
        }
        assert_eq!(responder.newest(), [10; 12]);
    }
}
