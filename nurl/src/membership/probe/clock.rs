//! The clock of one probe: when it pings, when it asks others, when it fails.

use std::time::{Duration, Instant};

/// Direct pings in one probe. At 30 % loss one ping and its ack fail half the time, three fail 13 %.
pub const DIRECT_PINGS: u32 = 3;

/// The next action of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStep {
    /// Ping the target by datagram.
    Ping,
    /// Ping over the reliable leg and ask others.
    Indirect,
    /// No leg brought an ack in time.
    Failed,
}

/// The times of one probe that has no answer yet.
#[derive(Debug, Clone)]
pub struct ProbeClock {
    started: Instant,
    timeout: Duration,
    period: Duration,
    /// Pings sent so far.
    pings: u32,
    /// Others have been asked.
    indirect: bool,
    /// The target is pinged directly; not so once it is known that there will be no session.
    direct: bool,
    /// The clock stands still until there is a session, or until then.
    held_until: Option<Instant>,
}

impl ProbeClock {
    /// A clock that starts now; `timeout` and `period` are scaled already.
    pub fn new(now: Instant, timeout: Duration, period: Duration) -> ProbeClock {
        ProbeClock {
            started: now,
            timeout,
            period,
            pings: 0,
            indirect: false,
            direct: true,
            held_until: None,
        }
    }

    fn ping_due(&self) -> Option<Instant> {
        (self.direct && self.pings < DIRECT_PINGS).then(|| self.started + self.timeout * self.pings)
    }

    /// The next action, if one is due.
    pub fn step(&mut self, now: Instant) -> Option<ProbeStep> {
        if let Some(until) = self.held_until {
            if now < until {
                return None;
            }
            self.without_session(now);
        }
        if self.ping_due().is_some_and(|due| due <= now) {
            self.pings += 1;
            return Some(ProbeStep::Ping);
        }
        if !self.indirect && self.started + self.timeout <= now {
            self.indirect = true;
            return Some(ProbeStep::Indirect);
        }
        (self.fails_at() <= now).then_some(ProbeStep::Failed)
    }

    /// When [`step`](ProbeClock::step) next has an action.
    pub fn due(&self) -> Instant {
        if let Some(until) = self.held_until {
            return until;
        }
        let indirect = (!self.indirect).then(|| self.started + self.timeout);
        [self.ping_due(), indirect].into_iter().flatten().fold(self.fails_at(), Instant::min)
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the probe fails, without an answer.
    pub fn fails_at(&self) -> Instant {
        self.started + self.period
    }

    /// Time left for an indirect leg.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.fails_at().saturating_duration_since(now)
    }

    /// The ping could not be sealed: the clock is held until there is a session, for at most `grace`.
    pub fn hold(&mut self, now: Instant, grace: Duration) {
        if self.direct && self.held_until.is_none() && !self.indirect {
            self.held_until = Some(now + grace);
        }
    }

    /// The session is up: a clock that was held for it restarts now. Whether it was.
    pub fn session_up(&mut self, now: Instant) -> bool {
        let was_held = self.held_until.take().is_some();
        if was_held {
            self.started = now;
            self.pings = 0;
        }
        was_held
    }

    /// There will be no session: only the indirect legs remain, and they start now.
    pub fn without_session(&mut self, now: Instant) {
        self.direct = false;
        self.held_until = None;
        if !self.indirect {
            self.started = now.checked_sub(self.timeout).unwrap_or(now);
        }
    }

    /// Excludes the time `by` in which this node stalled.
    pub fn postpone(&mut self, by: Duration) {
        self.started += by;
        self.held_until = self.held_until.map(|until| until + by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(300);
    const PERIOD: Duration = Duration::from_secs(1);

    /// The steps of a probe that nobody answers, with their times in milliseconds.
    fn course(clock: &mut ProbeClock, from: Instant) -> Vec<(u64, ProbeStep)> {
        let mut steps = Vec::new();
        while steps.last().is_none_or(|(_, step)| *step != ProbeStep::Failed) {
            let due = clock.due();
            let step = clock.step(due).expect("it is due");
            steps.push((due.duration_since(from).as_millis() as u64, step));
        }
        steps
    }

    #[test]
    fn a_probe_pings_three_times_and_asks_around_before_it_fails() {
        let now = crate::rt::test_now();
        let mut clock = ProbeClock::new(now, TIMEOUT, PERIOD);
        assert_eq!(
            course(&mut clock, now),
            [
                (0, ProbeStep::Ping),
                (300, ProbeStep::Ping),
                (300, ProbeStep::Indirect),
                (600, ProbeStep::Ping),
                (1000, ProbeStep::Failed)
            ]
        );
    }

    #[test]
    fn the_clock_starts_when_the_session_is_up() {
        let now = crate::rt::test_now();
        let mut clock = ProbeClock::new(now, TIMEOUT, PERIOD);
        assert_eq!(clock.step(now), Some(ProbeStep::Ping));
        clock.hold(now, Duration::from_secs(2));
        let up = now + Duration::from_millis(1500);
        assert_eq!(clock.step(up), None);
        assert!(clock.session_up(up) && !clock.session_up(up), "it restarts once");
        assert_eq!(course(&mut clock, up).first(), Some(&(0, ProbeStep::Ping)));
        assert_eq!(clock.fails_at(), up + PERIOD);
    }

    #[test]
    fn without_a_session_the_indirect_legs_still_get_their_time() {
        let now = crate::rt::test_now();
        let mut clock = ProbeClock::new(now, TIMEOUT, PERIOD);
        clock.step(now);
        clock.hold(now, Duration::from_secs(2));
        assert_eq!(course(&mut clock, now), [(2000, ProbeStep::Indirect), (2700, ProbeStep::Failed)]);
    }

    #[test]
    fn a_stall_of_this_node_moves_every_step() {
        let now = crate::rt::test_now();
        let stall = Duration::from_secs(5);
        for held in [false, true] {
            let mut clock = ProbeClock::new(now, TIMEOUT, PERIOD);
            clock.step(now);
            if held {
                clock.hold(now, Duration::from_secs(2));
            }
            let (due, fails) = (clock.due(), clock.fails_at());
            clock.postpone(stall);
            assert_eq!((clock.due(), clock.fails_at()), (due + stall, fails + stall), "held {held}");
        }
    }
}
