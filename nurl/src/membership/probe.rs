//! The choice of the next probe's target, and the course of one probe.
//!
//! Targets come round-robin from a shuffled list (SWIM §4.3), which bounds a member's wait; new members get a random
//! place in the list, and a round ends with a new shuffle. The next target is fixed one period ahead, so that its
//! session can be established in the meantime.
//!
//! One probe, all times scaled by local health:
//!
//! | at | what |
//! | --- | --- |
//! | 0, 300, 600 ms | a ping by datagram |
//! | 300 ms | a ping over the reliable leg, and k others asked to ping |
//! | 1 s | the verdict, if nothing was heard |
//!
//! Without a session the clock is held until there is one, for a bounded time. If the handshake fails, the direct leg
//! is dropped and the other legs start at once.
//!
//! Deaths are correlated: a rack loses its power, a deployment is taken down. One probe at a time would find them one
//! by one. So some members are probed outside the rounds, up to [`MAX_BESIDE`] at once: suspects of other members,
//! peers that a hub denies, and helpers that didn't answer. Such a hint causes a probe, never a verdict.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::key::PublicKey;
use crate::kit::draw;
use crate::rt::Rng;

/// Direct pings in one probe. At 30 % loss one ping and its ack fail half the time, three fail 13 %.
pub const DIRECT_PINGS: u32 = 3;

/// Probes that are remembered for late acks: one minute of rounds and six full sets outside them, far above the
/// longest useful delay.
pub const MAX_PAST_PROBES: usize = 256;

/// The most members that wait to be probed out of turn. Further ones wait for their turn in the round.
pub const MAX_URGENT: usize = 256;

/// Probes under way outside the round. A failed probe takes eight small messages, so these are 256 in a second, which
/// a phone's uplink carries; and 80 of 100 members that die at once are all probed within three periods.
pub const MAX_BESIDE: usize = 32;

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

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its sequence number on the wire.
    pub seq: u64,
    /// The member under probe.
    pub target: PublicKey,
    /// The members asked to ping the target.
    pub helpers: Vec<PublicKey>,
    /// Number of helpers, from the front, that have a session with this node, so that their silence is evidence.
    pub heard: usize,
    /// Helpers that sent a NACK.
    pub nacks: BTreeSet<PublicKey>,
    /// An ack came in time.
    pub acked: bool,
    /// The target was asked for a ping and gave no NACK. If it answers this probe, this node missed the NACK.
    pub owes: bool,
    started: Instant,
    timeout: Duration,
    period: Duration,
    pings: u32,
    indirect: bool,
    direct: bool,
    held_until: Option<Instant>,
}

impl Probe {
    /// Starts a probe; `timeout` and `period` are scaled already.
    pub fn new(now: Instant, seq: u64, target: PublicKey, timeout: Duration, period: Duration) -> Probe {
        Probe {
            seq,
            target,
            helpers: Vec::new(),
            heard: 0,
            nacks: BTreeSet::new(),
            acked: false,
            owes: false,
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
            return Some(ProbeStep::Ping);
        }
        if !self.indirect && self.started + self.timeout <= now {
            self.indirect = true;
            return Some(ProbeStep::Indirect);
        }
        (self.verdict_at() <= now).then_some(ProbeStep::Failed)
    }

    /// When [`step`](Probe::step) next has an action.
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

    /// When its clock started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the probe fails, without an answer.
    pub fn verdict_at(&self) -> Instant {
        self.started + self.period
    }

    /// Time left for an indirect leg.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.verdict_at().saturating_duration_since(now)
    }

    /// The ping could not be sealed: the clock is held until there is a session, for at most `grace`.
    pub fn hold(&mut self, now: Instant, grace: Duration) {
        if self.direct && self.held_until.is_none() && !self.indirect {
            self.held_until = Some(now + grace);
        }
    }

    /// The session is up: the clock restarts now.
    pub fn session_up(&mut self, now: Instant) {
        if self.held_until.take().is_some() {
            self.started = now;
            self.pings = 0;
        }
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

    /// Helpers that have a session but didn't answer.
    pub fn silent_helpers(&self) -> Vec<PublicKey> {
        self.helpers.iter().take(self.heard).filter(|helper| !self.nacks.contains(*helper)).copied().collect()
    }

    /// Whether an ack from `from` confirms that the target is alive.
    pub fn is_answered_by(&self, from: &PublicKey) -> bool {
        *from == self.target || self.helpers.contains(from)
    }
}

/// The order of targets, and the probes that may still be answered.
#[derive(Debug, Default)]
pub struct Prober {
    /// The probe of the round.
    pub current: Option<Probe>,
    /// The probes outside the round.
    beside: Vec<Probe>,
    order: Vec<PublicKey>,
    at: usize,
    /// Members that wait for a probe outside the round, and whether each owes a NACK.
    urgent: VecDeque<(PublicKey, bool)>,
    upcoming: Option<PublicKey>,
    past: VecDeque<(u64, PublicKey, Vec<PublicKey>)>,
}

impl Prober {
    /// Adds a member at a random place of the list, in the current round or the next.
    pub fn add(&mut self, rng: &mut Rng, key: PublicKey) {
        if !self.order.contains(&key) {
            let place = draw::below(rng, self.order.len() + 1);
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
        self.urgent.retain(|(other, _)| other != key);
    }

    /// Probes `key` outside the round, as soon as there is room. False if too many wait.
    pub fn urge(&mut self, key: PublicKey, owes: bool) -> bool {
        if self.is_probed(&key) || self.urgent.iter().any(|(other, _)| *other == key) {
            return true;
        }
        let room = self.urgent.len() < MAX_URGENT;
        if room {
            self.urgent.push_back((key, owes));
        }
        room
    }

    /// The next member to probe outside the round, if there is room.
    pub fn next_beside(&mut self, is_target: impl Fn(&PublicKey) -> bool) -> Option<(PublicKey, bool)> {
        if self.beside.len() >= MAX_BESIDE {
            return None;
        }
        while let Some((key, owes)) = self.urgent.pop_front() {
            if is_target(&key) && !self.is_probed(&key) {
                return Some((key, owes));
            }
        }
        None
    }

    /// Starts a probe outside the round.
    pub fn start_beside(&mut self, probe: Probe) {
        self.beside.push(probe);
    }

    /// The probes under way.
    pub fn probes(&self) -> impl Iterator<Item = &Probe> {
        self.current.iter().chain(&self.beside)
    }

    /// The probes under way, mutable.
    pub fn probes_mut(&mut self) -> impl Iterator<Item = &mut Probe> {
        self.current.iter_mut().chain(&mut self.beside)
    }

    /// Whether a probe of `key` is under way and has no answer yet.
    pub fn is_probed(&self, key: &PublicKey) -> bool {
        self.probes().any(|probe| probe.target == *key && !probe.acked)
    }

    /// A probe under way, by its sequence number.
    pub fn find_mut(&mut self, seq: u64) -> Option<&mut Probe> {
        self.probes_mut().find(|probe| probe.seq == seq)
    }

    /// The next target and the one after it. `is_target` filters the members that may be probed.
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
        // Two passes: the rest of this round, then a whole new one.
        for _ in 0..2 {
            while let Some(key) = self.order.get(self.at).copied() {
                if is_target(&key) {
                    self.at += 1;
                    return Some(key);
                }
                self.order.remove(self.at);
            }
            self.at = 0;
            draw::shuffle(rng, &mut self.order);
        }
        None
    }

    /// The probe outside the round that `target` has answered.
    pub fn answered_beside(&self, target: &PublicKey) -> Option<u64> {
        self.beside.iter().find(|probe| probe.target == *target && probe.acked).map(|probe| probe.seq)
    }

    /// Ends a probe under way and remembers it for late acks.
    pub fn finish(&mut self, seq: u64) -> Option<Probe> {
        let probe = match self.current.take_if(|probe| probe.seq == seq) {
            Some(probe) => probe,
            None => self.beside.remove(self.beside.iter().position(|probe| probe.seq == seq)?),
        };
        self.remember(probe.seq, probe.target, probe.helpers.clone());
        Some(probe)
    }

    /// Ends the probe of the round and remembers it for late acks.
    pub fn finish_round(&mut self) {
        if let Some(seq) = self.current.as_ref().map(|probe| probe.seq) {
            self.finish(seq);
        }
    }

    /// Ends the unanswered probes under way without a verdict and returns their targets.
    pub fn abandon(&mut self) -> Vec<PublicKey> {
        let open: Vec<u64> = self.probes().filter(|probe| !probe.acked).map(|probe| probe.seq).collect();
        open.into_iter().filter_map(|seq| self.finish(seq)).map(|probe| probe.target).collect()
    }

    /// Ends every probe and clears the queue: this node is no longer a member.
    pub fn stop(&mut self) {
        self.current = None;
        self.beside.clear();
        self.urgent.clear();
    }

    /// Remembers a ping, so that a late ack can be matched to it.
    pub fn remember(&mut self, seq: u64, target: PublicKey, helpers: Vec<PublicKey>) {
        if self.past.len() >= MAX_PAST_PROBES {
            self.past.pop_front();
        }
        self.past.push_back((seq, target, helpers));
    }

    /// The target whose life a late ack confirms.
    pub fn late(&self, seq: u64, from: &PublicKey) -> Option<PublicKey> {
        let past = self.past.iter().find(|(past, ..)| *past == seq)?;
        (past.1 == *from || past.2.contains(from)).then_some(past.1)
    }

    /// Number of members in the rounds.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no member is in the rounds.
    #[cfg(test)]
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

    fn course(probe: &mut Probe, from: Instant) -> Vec<(u64, ProbeStep)> {
        let mut steps = Vec::new();
        while let Some(due) = probe.due() {
            while let Some(step) = probe.step(due) {
                steps.push((due.duration_since(from).as_millis() as u64, step));
                if step == ProbeStep::Failed {
                    return steps;
                }
            }
        }
        steps
    }

    #[test]
    fn a_probe_pings_three_times_and_asks_around_before_it_fails() {
        let now = crate::rt::test_now();
        let mut probe = Probe::new(now, 1, key(1), TIMEOUT, PERIOD);
        assert_eq!(
            course(&mut probe, now),
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
        let mut probe = Probe::new(now, 1, key(1), TIMEOUT, PERIOD);
        assert_eq!(probe.step(now), Some(ProbeStep::Ping));
        probe.hold(now, Duration::from_secs(2));
        let up = now + Duration::from_millis(1500);
        assert_eq!(probe.step(up), None);
        probe.session_up(up);
        assert_eq!(course(&mut probe, up).first(), Some(&(0, ProbeStep::Ping)));
        assert_eq!(probe.verdict_at(), up + PERIOD);
    }

    #[test]
    fn without_a_session_the_indirect_legs_still_get_their_time() {
        let now = crate::rt::test_now();
        let mut probe = Probe::new(now, 1, key(1), TIMEOUT, PERIOD);
        probe.step(now);
        probe.hold(now, Duration::from_secs(2));
        assert_eq!(course(&mut probe, now), [(2000, ProbeStep::Indirect), (2700, ProbeStep::Failed)]);
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
    fn urgent_members_are_probed_beside_the_round_each_once_and_within_bounds() {
        let now = crate::rt::test_now();
        let named = |at: u16| {
            let mut bytes = [1; 32];
            bytes[..2].copy_from_slice(&at.to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        let mut prober = Prober::default();
        assert!(prober.urge(named(0), true) && prober.urge(named(0), false));
        assert_eq!(prober.urgent.len(), 1, "it waits already");
        for at in 1..MAX_URGENT as u16 {
            assert!(prober.urge(named(at), false));
        }
        assert!(!prober.urge(named(999), false), "too many wait");
        let mut seq = 0;
        while let Some((target, owes)) = prober.next_beside(|key| *key != named(1)) {
            assert_eq!(owes, target == named(0));
            prober.start_beside(Probe::new(now, seq, target, TIMEOUT, PERIOD));
            seq += 1;
        }
        assert_eq!(prober.beside.len(), MAX_BESIDE);
        assert!(!prober.is_probed(&named(1)), "it is no target");
        assert!(prober.urge(named(0), false) && prober.urgent.iter().all(|(key, _)| *key != named(0)));
        assert_eq!(prober.finish(0).map(|probe| probe.target), Some(named(0)));
        assert!(prober.next_beside(|_| true).is_some(), "there is room again");
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
