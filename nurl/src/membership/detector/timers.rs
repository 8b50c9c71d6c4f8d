//! The timers: rounds of probes, gossip, exchanges and healing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Detector, Healing, MembershipEvent, Via};
use crate::key::PublicKey;
use crate::membership::message::MessageBody;
use crate::membership::probe::{Probe, ProbeStep};
use crate::membership::table::{Member, State};

/// A peer heard within this time has a session with this node: sessions are renewed after 120 s.
const SESSION_LIFE: Duration = Duration::from_secs(120);

/// Pings of one healing probe, and the time between them: the session of a dead member has expired, and a handshake
/// through a relay takes a moment.
const HEALING_PINGS: u32 = 3;
const HEALING_INTERVAL: Duration = Duration::from_secs(1);

impl Detector {
    /// When [`handle_timeout`](Detector::handle_timeout) must be called. A call that comes much later is taken as a
    /// stall of this node.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let verdicts = self.suspicions.values().map(|suspicion| {
            let deadline = suspicion.deadline();
            self.hold_verdicts.map_or(deadline, |held| deadline.max(held))
        });
        let mut due: Vec<Option<Instant>> = vec![
            (!self.queue.is_empty() && !self.observer).then_some(self.next_gossip),
            self.join.poll_timeout(),
            self.push_pull.due(),
            verdicts.min(),
            self.local_dead.iter().filter_map(|peer| self.counts_at(peer)).min(),
            self.answers.iter().map(|(at, _)| *at).min(),
            self.healing.as_ref().map(|healing| healing.next),
            Some(self.next_push_pull),
            self.probe_due(),
        ];
        due.extend(
            self.served.values().flat_map(|served| [served.again_at, served.nack_at, Some(served.until)]),
        );
        due.into_iter().flatten().min()
    }

    /// When a probe has its next step, or the next round is due.
    fn probe_due(&self) -> Option<Instant> {
        if self.observer || self.me.state == State::Left {
            return None;
        }
        let round = self.prober.current.as_ref().and_then(Probe::due).unwrap_or(self.next_probe);
        self.prober.probes().filter_map(Probe::due).chain([round]).min()
    }

    /// Runs everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.notice_stall(now);
        if self.hold_verdicts.is_some_and(|until| until <= now) {
            self.hold_verdicts = None;
        }
        self.run_probe(now);
        self.run_served(now);
        self.end_suspicions(now);
        self.count_local_verdicts(now);
        self.run_healing(now);
        self.run_answers(now);
        for peer in self.push_pull.expire(now) {
            self.exchange_failed(now, peer);
        }
        self.run_join(now);
        if self.next_push_pull <= now {
            self.periodic(now);
        }
        if self.next_gossip <= now {
            self.gossip_tick(now);
        }
    }

    /// Detects a stall of this node, in which it may have missed answers. Verdicts that would be due now are
    /// postponed by the length of the stall, so that the answers in its queues are handled first.
    fn notice_stall(&mut self, now: Instant) {
        // The rounds of probes always have a next step, so they serve as the clock.
        let Some(late) = self.probe_due().map(|due| now.saturating_duration_since(due)) else { return };
        if late < self.config.stall_tolerance {
            return;
        }
        self.stats.stalls += 1;
        self.awareness.worse(1);
        self.suspicions.values_mut().for_each(|suspicion| suspicion.postpone(late));
        self.prober.probes_mut().for_each(|probe| probe.postpone(late));
        if self.prober.current.is_some() {
            self.next_probe += late;
        }
    }

    fn run_probe(&mut self, now: Instant) {
        if self.observer || self.me.state == State::Left {
            return;
        }
        let under_way: Vec<u64> = self.prober.probes().map(|probe| probe.seq).collect();
        under_way.into_iter().for_each(|seq| self.step_probe(now, seq));
        // A probe that is held for its session, or was postponed by that, delays the next.
        if self.next_probe <= now && self.prober.current.as_ref().is_none_or(|probe| probe.acked) {
            self.prober.finish_round();
            self.start_probe(now);
        }
        self.start_urgent(now);
    }

    fn step_probe(&mut self, now: Instant, seq: u64) {
        while let Some(step) = self.prober.find_mut(seq).and_then(|probe| probe.step(now)) {
            match step {
                ProbeStep::Ping => self.send_probe_ping(now, seq, Via::Datagram),
                ProbeStep::Indirect => {
                    self.send_probe_ping(now, seq, Via::Reliable);
                    self.ask_others(now, seq);
                }
                ProbeStep::Failed => self.probe_failed(now, seq),
            }
        }
    }

    /// Probes `peer` outside the rounds, because of an accusation or a denial. `owes`: the peer is a silent helper.
    pub(super) fn urge(&mut self, now: Instant, peer: PublicKey, owes: bool) {
        if self.observer || self.me.state == State::Left {
            return;
        }
        if !self.prober.urge(peer, owes) {
            self.stats.urgent_full += 1;
        }
        self.start_urgent(now);
    }

    /// Starts probes outside the rounds, as long as there is room.
    fn start_urgent(&mut self, now: Instant) {
        let table = &self.table;
        let is_target = |key: &PublicKey| table.get(key).is_some_and(|member| member.state.is_live());
        let mut targets = Vec::new();
        let period = self.awareness.scale(self.config.probe_interval);
        let timeout = self.awareness.scale(self.config.direct_timeout);
        while let Some((target, owes)) = self.prober.next_beside(is_target) {
            self.seq = self.seq.wrapping_add(1);
            let mut probe = Probe::new(now, self.seq, target, timeout, period);
            probe.owes = owes;
            self.prober.start_beside(probe);
            targets.push((self.seq, target));
        }
        for (seq, peer) in targets {
            self.stats.probes_beside += 1;
            self.emit(MembershipEvent::WantSession { peer });
            self.step_probe(now, seq);
        }
    }

    fn start_probe(&mut self, now: Instant) {
        let period = self.awareness.scale(self.config.probe_interval);
        self.next_probe = now + period;
        let table = &self.table;
        let (target, upcoming) = self
            .prober
            .next(&mut self.rng, |key| table.get(key).is_some_and(|member| member.state.is_live()));
        if let Some(peer) = upcoming {
            self.emit(MembershipEvent::WantSession { peer });
        }
        // A target under probe outside the rounds gets no second probe: a failure must not count twice.
        if let Some(target) = target.filter(|target| !self.prober.is_probed(target)) {
            let timeout = self.awareness.scale(self.config.direct_timeout);
            let seq = self.next_seq();
            self.prober.current = Some(Probe::new(now, seq, target, timeout, period));
            self.step_probe(now, seq);
        }
    }

    fn send_probe_ping(&mut self, now: Instant, seq: u64, via: Via) {
        let Some(target) = self.prober.find_mut(seq).map(|probe| probe.target) else { return };
        let pinned: Vec<_> = self.buddy_fact(now, &target).into_iter().collect();
        self.send(target, via, MessageBody::Ping { seq }, &pinned);
    }

    fn ask_others(&mut self, now: Instant, seq: u64) {
        let Some(probe) = self.prober.find_mut(seq) else { return };
        let (target, remaining) = (probe.target, probe.remaining(now));
        let timeout_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
        let (helpers, heard) = self.helpers(now, target);
        for helper in &helpers {
            self.send(*helper, Via::Datagram, MessageBody::PingReq { seq, target, timeout_ms }, &[]);
        }
        if let Some(probe) = self.prober.find_mut(seq) {
            probe.helpers = helpers;
            probe.heard = heard;
        }
    }

    /// The helpers for indirect pings: random members, preferably ones that this node heard lately, so that there is
    /// a session. The second value is the number of those; only their silence is evidence.
    fn helpers(&mut self, now: Instant, target: PublicKey) -> (Vec<PublicKey>, usize) {
        let count = self.config.indirect_probes;
        let recent = self.table.heard_since(now.checked_sub(SESSION_LIFE));
        // A member that is itself under probe may be dead.
        let probed: BTreeSet<PublicKey> =
            self.prober.probes().filter(|probe| !probe.acked).map(|probe| probe.target).collect();
        let apt = |member: &Member| {
            member.state == State::Alive && member.key != target && !probed.contains(&member.key)
        };
        let mut helpers = self.random_members(count, |member| apt(member) && recent.contains(&member.key));
        let heard = helpers.len();
        helpers.extend(self.random_members(count - heard, |m| apt(m) && !recent.contains(&m.key)));
        (helpers, heard)
    }

    /// A probe was answered in time. If the target was a silent helper, the answer shows that this node missed its
    /// NACK, so the answer doesn't improve local health.
    pub(super) fn probe_answered(&mut self, now: Instant, target: PublicKey, owes: bool) {
        self.stats.probes_answered += 1;
        self.answered = Some(now);
        if !owes {
            self.awareness.better();
        }
        if let Some(seq) = self.prober.answered_beside(&target) {
            self.prober.finish(seq);
        }
        self.proof_of_life(now, target);
        self.start_urgent(now);
    }

    /// A probe failed on every leg. Lifeguard supposes that failures are independent, so that a failed probe and a
    /// missed NACK each indicate that this node is slow (§4.1). But deaths are correlated, and there is other
    /// evidence: if another peer has answered since the probe began, or a hub has denied a peer, this node isn't
    /// slow. A helper without a NACK may be dead too, so it is probed before its silence counts against this node.
    fn probe_failed(&mut self, now: Instant, seq: u64) {
        let Some(probe) = self.prober.finish(seq) else { return };
        self.stats.probes_failed += 1;
        if self.answered.is_none_or(|at| at < probe.started()) {
            self.awareness.worse(1);
        }
        // The next probe uses the period of the new health score.
        self.next_probe = self.next_probe.max(now);
        for helper in probe.silent_helpers() {
            self.urge(now, helper, true);
        }
        self.isolation.probed(now, probe.target, false);
        self.weigh_isolation(now);
        if !self.verdicts_held(now) {
            self.accuse(now, probe.target);
        }
    }

    fn run_served(&mut self, now: Instant) {
        let mut due: Vec<(u64, PublicKey, u64, PublicKey, bool, bool)> = Vec::new();
        for (seq, served) in &mut self.served {
            let again = served.again_at.take_if(|at| *at <= now).is_some();
            let nack = served.nack_at.take_if(|at| *at <= now).is_some();
            if again || nack {
                due.push((*seq, served.origin, served.origin_seq, served.target, again, nack));
            }
        }
        for (seq, origin, origin_seq, target, again, nack) in due {
            if again {
                self.send_served_ping(now, seq, target);
            }
            if nack {
                self.send(origin, Via::Datagram, MessageBody::Nack { seq: origin_seq }, &[]);
            }
        }
        self.served.retain(|_, served| served.until > now);
    }

    /// The tasks of each push-pull period.
    fn periodic(&mut self, now: Instant) {
        let isolated = self.is_isolated();
        let mut period =
            if isolated { self.config.isolated_push_pull_interval } else { self.config.push_pull_interval };
        if self.observer {
            period = period.min(self.look_again);
            self.look_again = (2 * self.look_again).min(self.config.push_pull_interval);
        }
        self.next_push_pull = now + period;
        for gone in self.table.reclaim(now, &self.config) {
            self.forget(gone);
        }
        if self.me.state == State::Left {
            return;
        }
        let partner = self.random_members(1, |member| member.state.is_live());
        match partner.first() {
            Some(peer) => self.start_push_pull(now, *peer),
            // All members are lost: the known contacts may lead back.
            None => self.join.begin(now),
        }
        if !self.observer {
            self.emit(MembershipEvent::AnnounceDue);
        }
        if self.healing.is_none()
            && let Some(peer) = self.next_healing()
        {
            let seq = self.next_seq();
            self.prober.remember(seq, peer, Vec::new());
            self.healing = Some(Healing { peer, seq, next: now, left: HEALING_PINGS });
            self.emit(MembershipEvent::WantSession { peer });
            self.run_healing(now);
        }
    }

    /// The next member to ping with its own record. An observer takes a suspect first: it may have missed the
    /// refutation, or be the only node that heard the accusation. Otherwise a dead member, preferably one that a hub
    /// names as connected.
    fn next_healing(&mut self) -> Option<PublicKey> {
        if self.observer
            && let Some(suspect) = self.random_members(1, |member| member.state == State::Suspect).first()
        {
            return Some(*suspect);
        }
        let named = std::mem::take(&mut self.named);
        let dead = |member: &Member| member.state == State::Dead;
        let first = self.random_members(1, |member| dead(member) && named.contains(&member.key));
        let first = if first.is_empty() { self.random_members(1, dead) } else { first };
        self.named = named;
        first.first().copied()
    }

    fn run_healing(&mut self, now: Instant) {
        let Some(healing) = self.healing.as_mut().filter(|healing| healing.next <= now) else { return };
        if healing.left == 0 {
            self.healing = None;
            return;
        }
        healing.left -= 1;
        healing.next = now + HEALING_INTERVAL;
        let (seq, peer) = (healing.seq, healing.peer);
        let pinned: Vec<_> = self.buddy_fact(now, &peer).into_iter().collect();
        self.send(peer, Via::Datagram, MessageBody::Ping { seq }, &pinned);
    }

    fn run_answers(&mut self, now: Instant) {
        let due: Vec<PublicKey> =
            self.answers.iter().filter(|(at, _)| *at <= now).map(|(_, peer)| *peer).collect();
        self.answers.retain(|(at, _)| *at > now);
        for peer in due {
            self.start_push_pull(now, peer);
        }
    }
}
