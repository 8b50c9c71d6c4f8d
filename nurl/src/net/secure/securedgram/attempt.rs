//! An attempt to reach a peer: the schedule of its tries, and the tries that may still be answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::generation::GenerationKeys;
use super::mac::Mac;
use crate::kit::draw;
use crate::net::secure::noise::Initiator;
use crate::net::secure::route::Routes;
use crate::rt::Rng;

/// How long a peer is tried before [`HandshakeFailed`](super::SessionEvent::HandshakeFailed) (WireGuard §6.1).
pub const ATTEMPT_LIFE: Duration = Duration::from_secs(90);

/// After the first init the next ones go out at 0.25, 0.5, 1 and 2 s, then every 5 s. The early ones cover loss, the
/// steady ones a peer that isn't up yet.
const GAPS_MS: [u64; 4] = [250, 250, 500, 1000];
const STEADY_GAP_MS: u64 = 5000;

/// Tries that may still be answered: if the round trip is longer than the gap, an answer belongs to the try before
/// the last. A responder keeps as many unconfirmed sessions.
pub const MAX_PENDING: usize = 2;

/// Responses examined per try: each may cost two Diffie-Hellmans.
pub const MAX_RESPONSES: u32 = 16;

/// Tries with one generation of the mesh's secret before the next generation's turn.
const TRIES_PER_GENERATION: u32 = 2;

/// A message 1 that awaits its response.
pub(super) struct PendingTry {
    pub(super) index: u32,
    pub(super) noise: Initiator,
    pub(super) mac1: Mac,
    pub(super) generation: Arc<GenerationKeys>,
    pub(super) responses: u32,
    pub(super) challenged: bool,
}

/// An ongoing attempt to open a session.
pub(super) struct HandshakeAttempt {
    pub(super) started: Instant,
    pub(super) next_at: Instant,
    pub(super) tries: u32,
    step: usize,
    pub(super) last_routes: Routes,
    pub(super) last_at: Option<Instant>,
    /// Oldest first; at most [`MAX_PENDING`].
    pub(super) pending: Vec<PendingTry>,
    /// The responder's challenge to return, or zero.
    pub(super) challenge: Mac,
}

impl HandshakeAttempt {
    pub(super) fn new(now: Instant) -> HandshakeAttempt {
        HandshakeAttempt {
            started: now,
            next_at: now,
            tries: 0,
            step: 0,
            last_routes: Routes::NONE,
            last_at: None,
            pending: Vec::new(),
            challenge: [0; 16],
        }
    }

    /// Whether the steady phase may make its next try early: half a gap after the last one, so that every try within
    /// a whole gap can still be answered.
    pub(super) fn may_hurry(&self, now: Instant) -> bool {
        let half = Duration::from_millis(STEADY_GAP_MS / MAX_PENDING as u64);
        self.step > GAPS_MS.len() && self.last_at.is_none_or(|at| now.saturating_duration_since(at) >= half)
    }

    /// Restarts the schedule, because a route to the peer has just appeared.
    pub(super) fn restart(&mut self, now: Instant) {
        self.started = now;
        self.next_at = now;
        self.step = 0;
    }

    /// The index in `generations` for the next try: the current one first, then in turn.
    pub(super) fn generation(&self, generations: usize) -> usize {
        (self.tries / TRIES_PER_GENERATION) as usize % generations.max(1)
    }

    /// Sets the time of the next try: a gap, plus or minus an eighth, so that a thousand members that lost one hub
    /// don't retry in step.
    pub(super) fn schedule(&mut self, now: Instant, rng: &mut Rng) {
        let gap_ms = GAPS_MS.get(self.step).copied().unwrap_or(STEADY_GAP_MS);
        self.step += 1;
        self.next_at = now + draw::jittered(rng, Duration::from_millis(gap_ms), 8);
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) >= ATTEMPT_LIFE
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next_at.min(self.started + ATTEMPT_LIFE)
    }

    /// Adds a try and returns the index of the try that is dropped for it.
    pub(super) fn push(&mut self, pending: PendingTry) -> Option<u32> {
        let dropped = (self.pending.len() >= MAX_PENDING).then(|| self.pending.remove(0).index);
        self.pending.push(pending);
        self.tries += 1;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn retries_come_at_a_quarter_a_half_one_and_two_seconds_then_every_five_with_jitter() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut rng = Rng::from_seed([1; 32]);
        let run = |rng: &mut Rng| {
            let (mut attempt, mut now, mut times) = (HandshakeAttempt::new(start), start, Vec::new());
            while now.duration_since(start) < ATTEMPT_LIFE {
                attempt.schedule(now, rng);
                now = attempt.next_at;
                times.push(now.duration_since(start).as_millis() as u64);
            }
            times
        };
        let times = run(&mut rng);
        for (got, want) in times.iter().zip([250, 500, 1000, 2000, 7000, 12000]) {
            assert!(got.abs_diff(want) <= want / 8 + 1, "{got} is not about {want}");
        }
        assert_ne!(times, run(&mut rng));
    }

    #[test]
    fn generations_alternate_after_two_unanswered_tries() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let mut attempt = HandshakeAttempt::new(Instant::now());
        let mut used = Vec::new();
        for tries in 0..6 {
            attempt.tries = tries;
            used.push((attempt.generation(2), attempt.generation(1)));
        }
        assert_eq!(used, [(0, 0), (0, 0), (1, 0), (1, 0), (0, 0), (0, 0)]);
    }
}
