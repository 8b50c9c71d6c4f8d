//! The connectivity check of one address or relay leg (ICE, RFC 8445 §7): when the next challenge is due, which are open,
//! and the round-trip time from their echoes. Hole punching is a series of such challenges from both sides.
//!
//! The schedule bounds the rate of the checks, not their number: quick checks first ([`QUICK_GAPS`]), then
//! [`BACKOFF_GAPS`], then one per slow interval with jitter, for as long as the session lives.

use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::config::{BACKOFF_GAPS, ECHO_LIFE, QUICK_GAPS};
use crate::kit::draw;
use crate::rt::Rng;

/// Open challenges remembered per leg: all the quick ones, so that a round trip of seconds still finds its
/// challenge (with four, a slow path was challenged for ever and never became proven).
const OPEN_CHALLENGES: usize = QUICK_GAPS.len() + 2;

/// The minimum gap at which datagrams of the peer restart the quick checks. Without it, two sides with a slow path
/// between them would answer each other's challenges with challenges.
const PROMPT_GAP: Duration = Duration::from_secs(5);

/// The gap between the first samples of a round-trip time: a single one may have met a cold cache or a sleeping radio.
const SAMPLE_GAP: Duration = Duration::from_secs(1);

/// Samples taken one [`SAMPLE_GAP`] after another; the policy ([`score`](super::score)) needs as many.
const FIRST_SAMPLES: u32 = 3;

/// Echoes of less than half of the smoothed round trip, one after another, that show that the cause of a slowness is over.
/// A hub that loses 40 % of its packets lets one echo in eight pass in time (a challenge and its echo are four TCP segments).
/// Three in a row are luck once in five hundred times.
const SWIFT_SAMPLES: u32 = 3;

/// A smoothed round-trip time (RFC 6298 §2), with one change: a sample of less than half of it replaces it at once.
/// [`ConnectivityCheck`] gives it such a sample when the cause of the slowness is over. With the RFC's weight of an eighth,
/// and a sample every ten seconds, a relay that had stalled once would be avoided for minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rtt {
    smoothed: Duration,
    variation: Duration,
    samples: u32,
}

impl Rtt {
    pub(super) fn sample(&mut self, rtt: Duration) {
        if self.samples == 0 {
            (self.smoothed, self.variation) = (rtt, rtt / 2);
        } else {
            self.variation = (self.variation * 3 + self.smoothed.abs_diff(rtt)) / 4;
            self.smoothed = if rtt * 2 < self.smoothed { rtt } else { (self.smoothed * 7 + rtt) / 8 };
        }
        self.samples = self.samples.saturating_add(1);
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        (self.samples > 0).then_some(self.smoothed)
    }

    pub(super) fn samples(&self) -> u32 {
        self.samples
    }

    /// The time that an answer may take: a round trip and four variations (RFC 6298's RTO, without its floor).
    pub(super) fn expected(&self) -> Duration {
        self.smoothed + self.variation * 4
    }
}

/// The checks of one leg.
#[derive(Debug, Default)]
pub(super) struct ConnectivityCheck {
    open: [Option<([u8; 8], Instant)>; OPEN_CHALLENGES],
    sent: usize,
    /// Challenges since the last (re)start without an echo.
    attempt: usize,
    /// When the first of them was sent.
    asked: Option<Instant>,
    next: Option<Instant>,
    /// When the series began, and whether a datagram of the peer has hurried it since.
    began: Option<Instant>,
    prompted: bool,
    /// The send time of the latest challenge that was answered.
    proven: Option<Instant>,
    /// Echoes in a row that were swift beside the smoothed round trip, and when the last of them came.
    swift: Option<(u32, Instant)>,
    pub(super) rtt: Rtt,
}

impl ConnectivityCheck {
    /// Begins the schedule anew, with a challenge now.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.began, self.prompted) = (Some(now), false);
        self.schedule(now);
    }

    /// The peer was heard from this address, so its NAT is open: checks now, once per series, or starts a new
    /// series.
    pub(super) fn prompt(&mut self, now: Instant) {
        if !self.is_quick() {
            if self.began.is_none_or(|began| now >= began + PROMPT_GAP) {
                self.restart(now);
            }
        } else if !self.prompted {
            self.prompted = true;
            self.next = Some(now);
        }
    }

    /// Schedules one challenge at `at`, and the series behind it if it stays unanswered.
    pub(super) fn schedule(&mut self, at: Instant) {
        (self.attempt, self.asked) = (0, None);
        self.next = Some(at);
    }

    /// Schedules one challenge now, unless one is planned.
    pub(super) fn schedule_if_idle(&mut self, now: Instant) {
        if self.next.is_none() {
            self.schedule(now);
        }
    }

    /// Plans the challenge after an echo: in a moment until the first samples are taken, and while the round trip may have
    /// become swift; then after `gap`, or never.
    pub(super) fn sample_then(&mut self, now: Instant, gap: Option<Duration>) {
        let sampled = self.rtt.samples() >= FIRST_SAMPLES && self.swift.is_none();
        match if sampled { gap } else { Some(SAMPLE_GAP) } {
            Some(gap) => self.schedule(now + gap),
            None => self.rest(),
        }
    }

    /// Stops further challenges; open ones may still be answered.
    pub(super) fn rest(&mut self) {
        (self.attempt, self.asked) = (0, None);
        self.next = None;
    }

    /// Resets everything but the round-trip time.
    pub(super) fn reset(&mut self) {
        *self = ConnectivityCheck { rtt: self.rtt, ..ConnectivityCheck::default() };
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Challenges since the last (re)start without an echo.
    pub(super) fn attempts(&self) -> usize {
        self.attempt
    }

    /// When the first of these [attempts](ConnectivityCheck::attempts) was sent.
    pub(super) fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// Whether the quick checks are under way: begun, unanswered, not exhausted.
    pub(super) fn is_quick(&self) -> bool {
        self.next.is_some() && self.attempt <= QUICK_GAPS.len()
    }

    /// Whether the quick checks have passed without an echo.
    pub(super) fn is_silent(&self) -> bool {
        self.attempt > QUICK_GAPS.len()
    }

    /// Whether the quick checks and the back-off have passed without an echo.
    pub(super) fn is_slow(&self) -> bool {
        self.attempt > QUICK_GAPS.len() + BACKOFF_GAPS.len()
    }

    /// Whether the echo of a challenge sent at `since` or later has returned.
    pub(super) fn proven_since(&self, since: Instant) -> bool {
        self.proven.is_some_and(|sent| sent >= since)
    }

    /// Draws a challenge, and schedules the next. After the quick ones and the back-off the gap is `slow`, with up
    /// to a fifth of jitter either way.
    pub(super) fn issue(&mut self, now: Instant, slow: Duration, rng: &mut Rng) -> [u8; 8] {
        let data = self.draw(now, rng);
        self.asked.get_or_insert(now);
        let index = self.attempt;
        self.attempt = (self.attempt + 1).min(QUICK_GAPS.len() + BACKOFF_GAPS.len() + 1);
        let gap = QUICK_GAPS.iter().chain(&BACKOFF_GAPS).nth(index).copied();
        self.next = Some(now + gap.unwrap_or_else(|| jittered(slow, rng)));
        data
    }

    /// Skips a challenge that may not be sent; the schedule goes on.
    pub(super) fn skip(&mut self, now: Instant, slow: Duration, rng: &mut Rng) {
        let open = self.open;
        let sent = self.sent;
        self.issue(now, slow, rng);
        (self.open, self.sent) = (open, sent);
    }

    fn draw(&mut self, now: Instant, rng: &mut Rng) -> [u8; 8] {
        let mut data = [0; 8];
        rng.fill_bytes(&mut data);
        self.open[self.sent % OPEN_CHALLENGES] = Some((data, now));
        self.sent = self.sent.wrapping_add(1);
        data
    }

    /// Handles an echo. Returns when its challenge was sent, or `None` if it matches no open one.
    pub(super) fn echo(&mut self, now: Instant, data: &[u8; 8]) -> Option<Instant> {
        let slot = self.open.iter_mut().find(|slot| slot.is_some_and(|(open, _)| open == *data))?;
        let (_, sent) = slot.take()?;
        let rtt = now.saturating_duration_since(sent);
        if rtt > ECHO_LIFE {
            return None;
        }
        self.sample(now, sent, rtt);
        self.proven = Some(self.proven.map_or(sent, |proven| proven.max(sent)));
        Some(sent)
    }

    /// Takes a sample. Swift ones wait until [`SWIFT_SAMPLES`] have come in a row, each for a challenge that was sent after
    /// the one before had come: those that a stalled connection delivers in one burst are one.
    fn sample(&mut self, now: Instant, sent: Instant, rtt: Duration) {
        let swift = self.rtt.samples() >= FIRST_SAMPLES && rtt * 2 < self.rtt.smoothed;
        let count = match self.swift {
            _ if !swift => SWIFT_SAMPLES,
            Some((_, last)) if sent < last => return,
            before => before.map_or(0, |(count, _)| count) + 1,
        };
        if count < SWIFT_SAMPLES {
            self.swift = Some((count, now));
        } else {
            self.swift = None;
            self.rtt.sample(rtt);
        }
    }
}

/// `base`, plus or minus a fifth.
pub(super) fn jittered(base: Duration, rng: &mut Rng) -> Duration {
    draw::jittered(rng, base, 5)
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn checks_are_quick_then_rare_and_never_stop() {
        let (mut rng, mut check) = (Rng::seed_from_u64(1), ConnectivityCheck::default());

        let start = origin();
        check.restart(start);
        let slow = Duration::from_secs(30);
        let mut times = Vec::new();
        while let Some(now) = check.next() {
            if now > start + Duration::from_secs(3_600) {
                break;
            }
            assert_eq!(check.is_quick(), now < start + Duration::from_millis(4_600));
            check.issue(now, slow, &mut rng);
            times.push((now - start).as_millis());
        }
        assert_eq!(times[..10], [0, 100, 300, 700, 1_500, 3_000, 4_500, 7_500, 13_500, 25_500]);
        let late = times.len() - 10;
        assert!((95..=160).contains(&late), "{late} slow checks in an hour");
    }

    #[test]
    fn an_echo_counts_once_and_only_while_it_is_young() {
        let (mut rng, mut check) = (Rng::seed_from_u64(1), ConnectivityCheck::default());
        let start = origin();
        let data = check.draw(start, &mut rng);
        assert_eq!(check.echo(start, &[0; 8]), None);
        let later = start + Duration::from_millis(40);
        assert_eq!(check.echo(later, &data), Some(start));
        assert_eq!(check.echo(later, &data), None, "the same echo twice");
        assert_eq!(check.rtt.smoothed(), Some(Duration::from_millis(40)));
        let old = check.draw(start, &mut rng);
        assert_eq!(check.echo(start + ECHO_LIFE + Duration::from_millis(1), &old), None);
        let pushed_out = check.draw(start, &mut rng);
        for _ in 0..OPEN_CHALLENGES {
            check.draw(start, &mut rng);
        }
        assert_eq!(check.echo(later, &pushed_out), None, "only the last ones are open");
    }

    #[test]
    fn the_round_trip_time_is_smoothed() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.smoothed(), None);
        rtt.sample(Duration::from_millis(80));
        rtt.sample(Duration::from_millis(160));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(90)));
    }

    /// Challenges at these milliseconds, each echoed after so many: returns the smoothed round trip after each, in ms.
    fn echoes(check: &mut ConnectivityCheck, at_and_rtt: &[(u64, u64)]) -> Vec<u128> {
        let (start, mut rng) = (origin(), Rng::from_seed([1; 32]));
        let ms = Duration::from_millis;
        let mut echoes = Vec::new();
        for &(at, rtt) in at_and_rtt {
            echoes.push((start + ms(at + rtt), check.draw(start + ms(at), &mut rng)));
        }
        let mut smoothed = Vec::new();
        for (at, data) in echoes {
            check.echo(at, &data).unwrap();
            smoothed.push(check.rtt.smoothed().unwrap().as_millis());
        }
        smoothed
    }

    #[test]
    fn a_slowness_that_is_over_is_forgotten_after_three_swift_echoes() {
        let mut check = ConnectivityCheck::default();
        echoes(&mut check, &[(0, 80), (100, 5_000), (200, 5_000)]);
        let slow = check.rtt.smoothed().unwrap().as_millis();
        let after = echoes(&mut check, &[(6_000, 80), (7_000, 80), (8_000, 80), (9_000, 160)]);
        assert_eq!(after, [slow, slow, 80, 90], "then it grows as ever");
    }

    #[test]
    fn swift_echoes_between_slow_ones_or_out_of_one_burst_are_luck() {
        let mut check = ConnectivityCheck::default();
        echoes(&mut check, &[(0, 2_000), (100, 2_000), (200, 2_000)]);
        let lucky = [(3_000, 80), (4_000, 80), (5_000, 1_900), (7_000, 80), (8_000, 80), (9_000, 1_900)];
        assert!(echoes(&mut check, &lucky).iter().all(|rtt| *rtt > 1_900));
        // All come at 13 s, sent shortly before.
        let burst = [(12_600, 400), (12_700, 300), (12_800, 200), (12_900, 100)];
        assert!(echoes(&mut check, &burst).iter().all(|rtt| *rtt > 1_900));
    }
}
