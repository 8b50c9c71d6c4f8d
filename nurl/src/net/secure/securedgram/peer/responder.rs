//! A peer's handshakes with us as the responder: its last timestamp, and the responses that may be asked for again.

use std::time::{Duration, Instant};

use super::super::frames::InitPayload;
use super::super::mac::{self, Mac};
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
}

#[derive(Default)]
pub(in super::super) struct PeerResponder {
    last_timestamp: Option<[u8; 12]>,
    challenged_at: Option<Instant>,
    /// Oldest first.
    answers: Vec<CachedAnswer>,
}

impl PeerResponder {
    /// Judges an init's timestamp, and stores it if it is accepted. `challenge` makes the challenge for a timestamp.
    pub(in super::super) fn judge(
        &mut self,
        now: Instant,
        payload: &InitPayload,
        challenge: impl Fn(&[u8; 12]) -> Mac,
    ) -> Timeliness {
        let Some(last) = self.last_timestamp.filter(|last| payload.timestamp <= *last) else {
            self.last_timestamp = Some(payload.timestamp);
            return Timeliness::Newer;
        };
        let challenge = challenge(&last);
        if mac::equal(&challenge, &payload.challenge) {
            self.last_timestamp = Some(payload.timestamp);
            return Timeliness::LetBack;
        }
        if self.challenged_at.is_some_and(|at| now.saturating_duration_since(at) < CHALLENGE_GAP) {
            return Timeliness::Limited;
        }
        Timeliness::Stale(challenge)
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
        let mut responder = PeerResponder::default();
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
                features: 0,
                challenge: [challenge; 16],
                shown: [0; SHOWN_BYTES],
            };
            let judged = responder.judge(now, &payload, challenge_for);
            assert_eq!(judged, expected, "after {after_ms} ms");
            if let Timeliness::Stale(_) = judged {
                responder.on_challenged(now);
            }
        }
    }
}
