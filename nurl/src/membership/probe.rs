//! Whom to probe next, and the course of one probe.
//!
//! Targets come round-robin from a shuffled list (SWIM §4.3), so that no member waits for more than a round;
//! new members get a random place in it, and a round ends with a new shuffle. The target after the present
//! one is fixed one period ahead, so that its session can be brought up meanwhile.
//!
//! One probe, all times scaled by local health:
//!
//! | at | what |
//! | --- | --- |
//! | 0, 300, 600 ms | a ping by datagram |
//! | 300 ms | a ping over the reliable leg, and k others asked to ping |
//! | 1 s | the verdict, if nothing was heard |
//!
//! Without a session the clock is held until there is one, for a bounded time; a handshake that fails takes
//! the direct leg away and the others start at once.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::random;
use crate::key::PublicKey;
use crate::rt::Rng;

/// Direct pings in one probe. At 30 % loss one exchange fails half the time, three fail 13 %.
pub const DIRECT_PINGS: u32 = 3;

/// Probes that are remembered for late acks: a minute's worth, far above the longest useful delay.
pub const MAX_PAST_PROBES: usize = 64;

/// Members waiting to be probed out of turn. More than this wait for their turn.
pub const MAX_URGENT: usize = 256;

/// What a probe wants done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ping the target by datagram.
    Ping,
    /// Ping over the reliable leg and ask others.
    Indirect,
    /// Nobody heard anything.
    Failed,
}

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its name on the wire.
    pub seq: u64,
    /// Whom.
    pub target: PublicKey,
    /// Who was asked to help.
    pub helpers: Vec<PublicKey>,
    /// How many of them, the first ones, have a session with this node, so that their silence says something.
    pub heard: usize,
    /// Helpers that answered at all.
    pub nacks: BTreeSet<PublicKey>,
    /// An ack came in time.
    pub acked: bool,
    started: Instant,
    timeout: Duration,
    period: Duration,
    pings: u32,
    indirect: bool,
    direct: bool,
    held_until: Option<Instant>,
}

impl Probe {
    /// Starts one; `timeout` and `period` are scaled already.
    pub fn new(now: Instant, seq: u64, target: PublicKey, timeout: Duration, period: Duration) -> Probe {
        Probe {
            seq,
            target,
            helpers: Vec::new(),
            heard: 0,
            nacks: BTreeSet::new(),
            acked: false,
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

    /// The next thing to do, if it is due.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        if self.acked {
            return None;
        }
        if let Some(until) = self.held_until {
            if now < until {
                return None;
            }
            self.without_session(now);
        }
        if self.ping_due().is_some_and(|due| due <= now) {
            self.pings += 1;
            return Some(Step::Ping);
        }
        if !self.indirect && self.started + self.timeout <= now {
            self.indirect = true;
            return Some(Step::Indirect);
        }
        (self.verdict_at() <= now).then_some(Step::Failed)
    }

    /// When [`step`](Probe::step) has something.
    pub fn due(&self) -> Option<Instant> {
        if self.acked {
            return None;
        }
        if self.held_until.is_some() {
            return self.held_until;
        }
        let indirect = (!self.indirect).then(|| self.started + self.timeout);
        [self.ping_due(), indirect, Some(self.verdict_at())].into_iter().flatten().min()
    }

    /// When the probe ends, if nothing is heard.
    pub fn verdict_at(&self) -> Instant {
        self.started + self.period
    }

    /// How long an indirect leg has from now on.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.verdict_at().saturating_duration_since(now)
    }

    /// The ping could not be sealed: the clock stands still until there is a session, or for `grace`.
    pub fn hold(&mut self, now: Instant, grace: Duration) {
        if self.direct && self.held_until.is_none() && !self.indirect {
            self.held_until = Some(now + grace);
        }
    }

    /// The session is up: the clock starts now.
    pub fn session_up(&mut self, now: Instant) {
        if self.held_until.take().is_some() {
            self.started = now;
            self.pings = 0;
        }
    }

    /// There will be no session: what is left are the indirect legs, now.
    pub fn without_session(&mut self, now: Instant) {
        self.direct = false;
        self.held_until = None;
        if !self.indirect {
            self.started = now.checked_sub(self.timeout).unwrap_or(now);
        }
    }

    /// Doesn't count a stretch of time in which this node stood still.
    pub fn postpone(&mut self, by: Duration) {
        self.started += by;
        self.held_until = self.held_until.map(|until| until + by);
    }

    /// Helpers that didn't even answer.
    pub fn missed_nacks(&self) -> u32 {
        self.helpers.iter().take(self.heard).filter(|helper| !self.nacks.contains(*helper)).count() as u32
    }

    /// Whether an ack from `from` speaks for the target.
    pub fn is_answered_by(&self, from: &PublicKey) -> bool {
        *from == self.target || self.helpers.contains(from)
    }
}

/// The order of targets, and the probes that may still be answered.
#[derive(Debug, Default)]
pub struct Prober {
    /// The probe under way.
    pub current: Option<Probe>,
    order: Vec<PublicKey>,
    at: usize,
    urgent: VecDeque<PublicKey>,
    upcoming: Option<PublicKey>,
    past: VecDeque<(u64, PublicKey, Vec<PublicKey>)>,
}

impl Prober {
    /// A new member gets a random place among those that are still to come in this round, or anywhere.
    pub fn add(&mut self, rng: &mut Rng, key: PublicKey) {
        if !self.order.contains(&key) {
            let place = random::below(rng, self.order.len() + 1);
            self.order.insert(place, key);
            if place < self.at {
                self.at += 1;
            }
        }
    }

    /// Takes a member out of the rounds.
    pub fn remove(&mut self, key: &PublicKey) {
        if let Some(place) = self.order.iter().position(|other| other == key) {
            self.order.remove(place);
            self.at -= usize::from(place < self.at);
        }
        self.urgent.retain(|other| other != key);
    }

    /// Probes `key` as soon as possible, ahead of its turn.
    pub fn urge(&mut self, key: PublicKey) {
        if !self.urgent.contains(&key) && self.urgent.len() < MAX_URGENT {
            self.urgent.push_back(key);
        }
    }

    /// The next target, and who will be next after it. `is_target` says who may be probed at all.
    pub fn next(
        &mut self,
        rng: &mut Rng,
        is_target: impl Fn(&PublicKey) -> bool,
    ) -> (Option<PublicKey>, Option<PublicKey>) {
        let named = self.upcoming.take().filter(&is_target);
        let target = match named {
            Some(key) => Some(key),
            None => self.draw(rng, &is_target),
        };
        self.upcoming = self.draw(rng, &is_target);
        (target, self.upcoming)
    }

    fn draw(&mut self, rng: &mut Rng, is_target: &impl Fn(&PublicKey) -> bool) -> Option<PublicKey> {
        while let Some(key) = self.urgent.pop_front() {
            if is_target(&key) {
                return Some(key);
            }
        }
        // Two passes: what is left of this round, then a whole new one.
        for _ in 0..2 {
            while let Some(key) = self.order.get(self.at).copied() {
                if is_target(&key) {
                    self.at += 1;
                    return Some(key);
                }
                self.order.remove(self.at);
            }
            self.at = 0;
            random::shuffle(rng, &mut self.order);
        }
        None
    }

    /// Ends the probe under way and remembers it for late acks.
    pub fn finish(&mut self) -> Option<Probe> {
        let probe = self.current.take()?;
        self.remember(probe.seq, probe.target, probe.helpers.clone());
        Some(probe)
    }

    /// Ends a probe under way that has no answer yet, without a verdict; returns its target.
    pub fn abandon(&mut self) -> Option<PublicKey> {
        self.current.as_ref().filter(|probe| !probe.acked)?;
        self.finish().map(|probe| probe.target)
    }

    /// Remembers a ping outside of the rounds.
    pub fn remember(&mut self, seq: u64, target: PublicKey, helpers: Vec<PublicKey>) {
        if self.past.len() >= MAX_PAST_PROBES {
            self.past.pop_front();
        }
        self.past.push_back((seq, target, helpers));
    }

    /// Whom a late ack speaks for.
    pub fn late(&self, seq: u64, from: &PublicKey) -> Option<PublicKey> {
        let past = self.past.iter().find(|(past, ..)| *past == seq)?;
        (past.1 == *from || past.2.contains(from)).then_some(past.1)
    }

    /// Who is in the rounds.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    const TIMEOUT: Duration = Duration::from_millis(300);
    const PERIOD: Duration = Duration::from_secs(1);

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    fn course(probe: &mut Probe, from: Instant) -> Vec<(u64, Step)> {
        let mut steps = Vec::new();
        while let Some(due) = probe.due() {
            while let Some(step) = probe.step(due) {
                steps.push((due.duration_since(from).as_millis() as u64, step));
                if step == Step::Failed {
                    return steps;
                }
            }
        }
        steps
    }

    #[test]
    fn a_probe_pings_three_times_and_asks_around_before_it_fails() {
        let now = crate::membership::test_now();
        let mut probe = Probe::new(now, 1, key(1), TIMEOUT, PERIOD);
        assert_eq!(
            course(&mut probe, now),
            [
                (0, Step::Ping),
                (300, Step::Ping),
                (300, Step::Indirect),
                (600, Step::Ping),
                (1000, Step::Failed)
            ]
        );
    }

    #[test]
    fn the_clock_starts_when_the_session_is_up() {
        let now = crate::membership::test_now();
        let mut probe = Probe::new(now, 1, key(1), TIMEOUT, PERIOD);
        assert_eq!(probe.step(now), Some(Step::Ping));
        probe.hold(now, Duration::from_secs(2));
        let up = now + Duration::from_millis(1500);
        assert_eq!(probe.step(up), None);
        probe.session_up(up);
        assert_eq!(course(&mut probe, up).first(), Some(&(0, Step::Ping)));
        assert_eq!(probe.verdict_at(), up + PERIOD);
    }

    #[test]
    fn without_a_session_the_indirect_legs_still_get_their_time() {
        let now = crate::membership::test_now();
        let mut probe = Probe::new(now, 1, key(1), TIMEOUT, PERIOD);
        probe.step(now);
        probe.hold(now, Duration::from_secs(2));
        assert_eq!(course(&mut probe, now), [(2000, Step::Indirect), (2700, Step::Failed)]);
    }

    #[test]
    fn every_member_is_probed_once_per_round_and_the_next_is_named_ahead() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut prober = Prober::default();
        (0..20).for_each(|at| prober.add(&mut rng, key(at)));
        let mut named = None;
        let mut round = BTreeSet::new();
        for at in 0..200 {
            let (target, upcoming) = prober.next(&mut rng, |_| true);
            if named.is_some() {
                assert_eq!(target, named);
            }
            named = upcoming;
            round.insert(target);
            if at % 20 == 19 {
                assert_eq!(round.len(), 20);
                round.clear();
            }
        }
    }

    #[test]
    fn an_urgent_member_comes_after_the_one_already_named() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut prober = Prober::default();
        (0..20).for_each(|at| prober.add(&mut rng, key(at)));
        let (_, named) = prober.next(&mut rng, |_| true);
        prober.urge(key(99));
        assert_eq!(prober.next(&mut rng, |_| true), (named, Some(key(99))));
        (0..=MAX_URGENT).for_each(|at| prober.urge(PublicKey::from_bytes([(at % 251) as u8; 32])));
        for at in 0..=MAX_URGENT as u16 {
            let mut bytes = [1; 32];
            bytes[..2].copy_from_slice(&at.to_be_bytes());
            prober.urge(PublicKey::from_bytes(bytes));
        }
        assert_eq!(prober.urgent.len(), MAX_URGENT);
    }

    #[test]
    fn who_is_no_target_leaves_the_rounds() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut prober = Prober::default();
        (0..4).for_each(|at| prober.add(&mut rng, key(at)));
        for _ in 0..9 {
            assert_eq!(prober.next(&mut rng, |at| *at == key(2)).0, Some(key(2)));
        }
        assert_eq!(prober.len(), 1);
        assert_eq!(prober.next(&mut rng, |_| false), (None, None));
        assert!(prober.is_empty());
    }

    #[test]
    fn a_late_ack_counts_only_from_the_target_or_a_helper() {
        let mut prober = Prober::default();
        prober.remember(7, key(1), vec![key(2)]);
        assert_eq!(prober.late(7, &key(1)), Some(key(1)));
        assert_eq!(prober.late(7, &key(2)), Some(key(1)));
        assert_eq!(prober.late(7, &key(3)), None);
        (100..100 + MAX_PAST_PROBES as u64).for_each(|seq| prober.remember(seq, key(1), Vec::new()));
        assert_eq!(prober.late(7, &key(1)), None, "only the last ones are remembered");
        assert_eq!(prober.past.len(), MAX_PAST_PROBES);
    }
}
