//! The prober: rounds of probes, probes out of turn, and what their answers say of this node itself.
//!
//! It sends the pings and asks the helpers. It tells the [`Detector`](super::Detector) when a probe failed or was
//! answered; the detector takes that as evidence for the suspicions and for isolation.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::outbox::Via;
use super::view::MeshView;
use crate::key::PublicKey;
use crate::membership::event::MembershipEvent;
use crate::membership::message::MessageBody;
use crate::membership::probe::{Probe, ProbeHelpers, ProbeSet, ProbeStep};
use crate::membership::table::{Member, State};
use crate::rt::{Point, buggify};

/// A peer heard within this time has a session with this node: sessions are renewed after 120 s.
const SESSION_LIFE: Duration = Duration::from_secs(120);

/// After a hub's denial of a peer has caused a probe, further denials cause none for this long: a hub denies a member
/// that is on another hub, or reachable without one, whenever something is sent to it through that hub.
const DENIAL_HOLDS: Duration = Duration::from_secs(10);

/// The probe that an ack matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeAck {
    /// A probe under way of this target; the first ack for it.
    InTime(PublicKey),
    /// A probe under way that was acked before.
    Repeated,
    /// A probe of this target that had ended.
    Late(PublicKey),
    /// None.
    Unknown,
}

/// The probes of this node.
#[derive(Debug)]
pub(super) struct Prober {
    probes: ProbeSet,
    next_round: Instant,
    /// When a peer last answered in time: evidence that this node isn't slow.
    answered: Option<Instant>,
}

impl Prober {
    /// The first round begins at `next_round`.
    pub(super) fn new(next_round: Instant) -> Prober {
        Prober { probes: ProbeSet::default(), next_round, answered: None }
    }

    /// When a probe has its next step, or the next round is due.
    pub(super) fn poll_timeout(&self, view: &MeshView) -> Option<Instant> {
        let due = self.probes.iter().filter_map(Probe::due);
        // Only members probe in rounds.
        if !view.local.is_member() {
            return due.min();
        }
        let round = self.probes.current().and_then(Probe::due).unwrap_or(self.next_round);
        due.chain([round]).min()
    }

    /// Detects a stall of this node, in which it may have missed answers, and returns its length. The probes under
    /// way are postponed by it, so that the answers in this node's queues are handled first.
    pub(super) fn notice_stall(&mut self, now: Instant, view: &mut MeshView) -> Option<Duration> {
        // The rounds of probes always have a next step, so they serve as the clock.
        let late = now.saturating_duration_since(self.poll_timeout(view)?);
        if late < view.config.stall_tolerance {
            return None;
        }
        view.stats.stalls += 1;
        view.health.worse(1);
        self.probes.iter_mut().for_each(|probe| probe.clock.postpone(late));
        if self.probes.current().is_some() {
            self.next_round += late;
        }
        Some(late)
    }

    /// The sequence numbers of the probes under way.
    pub(super) fn under_way(&self) -> Vec<u64> {
        self.probes.iter().map(|probe| probe.seq).collect()
    }

    /// Takes the steps of a probe that are due. True if it has failed: the caller must end it by
    /// [`fail`](Prober::fail).
    pub(super) fn advance(&mut self, now: Instant, view: &mut MeshView, seq: u64) -> bool {
        while let Some(probe) = self.probes.find_mut(seq) {
            let target = probe.target;
            match probe.step(now) {
                Some(ProbeStep::Ping) => view.send_ping(now, target, Via::Datagram, seq),
                Some(ProbeStep::Indirect) => {
                    view.send_ping(now, target, Via::Reliable, seq);
                    // Nobody serves an observer's ping-req.
                    if !view.local.is_observer() {
                        self.ask_others(now, view, seq);
                    }
                }
                Some(ProbeStep::Failed) => return true,
                None => break,
            }
        }
        false
    }

    /// Starts the next round if it is due, and probes out of turn as long as there is room.
    pub(super) fn start_due(&mut self, now: Instant, view: &mut MeshView) {
        // A probe that is held for its session, or was postponed by that, delays the next.
        let round = view.local.is_member() && self.next_round <= now;
        if round && self.probes.current().is_none_or(|probe| probe.acked) {
            self.probes.finish_round();
            self.start_round(now, view);
        }
        self.start_urgent(now, view);
    }

    fn start_round(&mut self, now: Instant, view: &mut MeshView) {
        let period = view.health.scale(view.config.probe_interval);
        self.next_round = now + period;
        let table = &view.table;
        let (target, upcoming) = view.rotation.next(&mut view.rng, |key| table.is_live(key));
        if let Some(peer) = upcoming {
            view.emit(MembershipEvent::WantSession { peer });
        }
        // A target under probe outside the rounds gets no second probe: a failure must not count twice.
        if let Some(target) = target.filter(|target| !self.probes.is_probed(target)) {
            let timeout = view.health.scale(view.config.direct_timeout);
            let seq = view.outbox.next_seq();
            self.probes.start_round(Probe::new(now, seq, target, timeout, period));
            self.advance(now, view, seq);
        }
    }

    /// Probes `peer` outside the rounds, because of an accusation or a denial. `owes`: the peer is a silent helper.
    pub(super) fn urge(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey, owes: bool) {
        if view.local.is_member() {
            self.queue(now, view, peer, owes);
        }
    }

    /// Probes `peer` outside the rounds, because of a claim that it is dead. An observer does so, too.
    pub(super) fn check(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) {
        if !view.local.has_left() {
            self.queue(now, view, peer, false);
        }
    }

    fn queue(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey, owes: bool) {
        if !self.probes.urge(peer, owes) {
            view.stats.urgent_full += 1;
        }
        self.start_urgent(now, view);
    }

    /// Starts probes outside the rounds, as long as there is room.
    pub(super) fn start_urgent(&mut self, now: Instant, view: &mut MeshView) {
        let mut started = Vec::new();
        let period = view.health.scale(view.config.probe_interval);
        let timeout = view.health.scale(view.config.direct_timeout);
        while let Some((target, owes)) = self.probes.next_beside(|key| view.table.is_live(key)) {
            let seq = view.outbox.next_seq();
            let mut probe = Probe::new(now, seq, target, timeout, period);
            probe.owes = owes;
            self.probes.start_beside(probe);
            started.push((seq, target));
        }
        for (seq, peer) in started {
            view.stats.probes_beside += 1;
            view.emit(MembershipEvent::WantSession { peer });
            self.advance(now, view, seq);
        }
    }

    fn ask_others(&mut self, now: Instant, view: &mut MeshView, seq: u64) {
        let Some(probe) = self.probes.find_mut(seq) else { return };
        let (target, remaining) = (probe.target, probe.clock.remaining(now));
        let timeout_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
        let (helpers, heard) = self.helpers(now, view, target);
        for helper in &helpers {
            let body = MessageBody::PingReq { seq, target, timeout_ms };
            view.send(*helper, Via::Datagram, body, &[]);
        }
        if let Some(probe) = self.probes.find_mut(seq) {
            probe.helpers = ProbeHelpers::new(helpers, heard);
        }
    }

    /// The helpers for indirect pings: random members, preferably ones that this node heard lately, so that there is
    /// a session. The second value is the number of those; only their silence is evidence.
    fn helpers(&self, now: Instant, view: &mut MeshView, target: PublicKey) -> (Vec<PublicKey>, usize) {
        let count = if buggify(Point::NoHelpers) { 0 } else { view.config.indirect_probes };
        let recent = view.table.heard_since(now.checked_sub(SESSION_LIFE));
        // A member that is itself under probe may be dead.
        let probed: BTreeSet<PublicKey> =
            self.probes.iter().filter(|probe| !probe.acked).map(|probe| probe.target).collect();
        let apt = |member: &Member| {
            member.state == State::Alive && member.key != target && !probed.contains(&member.key)
        };
        let mut helpers = view.random_members(count, |member| apt(member) && recent.contains(&member.key));
        let heard = helpers.len();
        helpers.extend(view.random_members(count - heard, |m| apt(m) && !recent.contains(&m.key)));
        (helpers, heard)
    }

    /// Ends a probe that failed on every leg, and returns its target. Lifeguard supposes that failures are
    /// independent, so that a failed probe and a missed NACK each indicate that this node is slow (§4.1). But deaths
    /// are correlated, and there is other evidence: if another peer has answered since the probe began, or a hub has
    /// denied a peer, this node isn't slow. A helper without a NACK may be dead too, so it is probed before its
    /// silence counts against this node.
    pub(super) fn fail(&mut self, now: Instant, view: &mut MeshView, seq: u64) -> Option<PublicKey> {
        let probe = self.probes.finish(seq)?;
        view.stats.probes_failed += 1;
        if self.answered.is_none_or(|at| at < probe.clock.started()) {
            view.health.worse(1);
        }
        // The next probe uses the period of the new health score.
        self.next_round = self.next_round.max(now);
        for helper in probe.helpers.silent() {
            self.urge(now, view, helper, true);
        }
        Some(probe.target)
    }

    /// An ack from `from`. If the target was a silent helper, an answer in time shows that this node missed its NACK,
    /// so the answer doesn't improve local health. After [`ProbeAck::InTime`] there is room for
    /// [`start_urgent`](Prober::start_urgent).
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        view: &mut MeshView,
        from: PublicKey,
        seq: u64,
    ) -> ProbeAck {
        let Some(probe) = self.probes.find_mut(seq).filter(|probe| probe.is_answered_by(&from)) else {
            let Some(target) = self.probes.late(seq, &from) else { return ProbeAck::Unknown };
            view.stats.late_acks += 1;
            return ProbeAck::Late(target);
        };
        if std::mem::replace(&mut probe.acked, true) {
            return ProbeAck::Repeated;
        }
        let (target, owes) = (probe.target, probe.owes);
        view.stats.probes_answered += 1;
        self.answered = Some(now);
        if !owes {
            view.health.better();
        }
        if let Some(seq) = self.probes.answered_beside(&target) {
            self.probes.finish(seq);
        }
        ProbeAck::InTime(target)
    }

    /// A NACK from `from`. False if it matches no probe under way.
    pub(super) fn handle_nack(&mut self, now: Instant, from: PublicKey, seq: u64) -> bool {
        let matches = self.probes.find_mut(seq).is_some_and(|probe| probe.helpers.nack(from));
        if matches {
            self.answered = Some(now);
        }
        matches
    }

    /// A hub denied `peer`. The peer may be on another hub, or reachable without one, and the hub may lie: so a
    /// denial causes a probe, at most one per [`DENIAL_HOLDS`], and never a verdict. It also shows that this node
    /// isn't slow: the hub answered it.
    pub(super) fn handle_denied(&mut self, now: Instant, view: &mut MeshView, peer: PublicKey) {
        let Some(entry) = view.table.entry(&peer).filter(|entry| entry.member.state.is_live()) else {
            return;
        };
        let again = entry.denied.is_none_or(|at| now.saturating_duration_since(at) >= DENIAL_HOLDS);
        self.answered = Some(now);
        if again {
            view.table.deny(now, &peer);
            self.urge(now, view, peer, false);
        }
    }

    /// A ping to `peer` could not be sealed: there is no session yet. The clock of a probe of `peer` is held.
    pub(super) fn hold(&mut self, now: Instant, view: &MeshView, peer: PublicKey) {
        let grace = view.config.session_grace;
        self.of(peer).for_each(|probe| probe.clock.hold(now, grace));
    }

    /// A session to `peer` is up. A suspect is pinged at once: it may be back, and its time may end before its next probe.
    pub(super) fn session_up(
        &mut self,
        now: Instant,
        view: &mut MeshView,
        peer: PublicKey,
        is_suspect: bool,
    ) {
        let mut under_way = None;
        for probe in self.of(peer).filter(|probe| !probe.acked) {
            // One whose clock was held pings by itself.
            under_way = Some((!probe.clock.session_up(now)).then_some(probe.seq));
        }
        match under_way {
            Some(Some(seq)) if is_suspect => view.send_ping(now, peer, Via::Datagram, seq),
            None if is_suspect => self.urge(now, view, peer, false),
            _ => {}
        }
    }

    /// There will be no session to `peer`.
    pub(super) fn session_failed(&mut self, now: Instant, peer: PublicKey) {
        self.of(peer).for_each(|probe| probe.clock.without_session(now));
    }

    fn of(&mut self, peer: PublicKey) -> impl Iterator<Item = &mut Probe> {
        self.probes.iter_mut().filter(move |probe| probe.target == peer)
    }

    /// Remembers a ping outside of the probes, so that a late ack can be matched to it.
    pub(super) fn remember(&mut self, seq: u64, target: PublicKey) {
        self.probes.remember(seq, target, Vec::new());
    }

    /// Ends the unanswered probes under way without a verdict and returns their targets.
    pub(super) fn abandon(&mut self) -> Vec<PublicKey> {
        self.probes.abandon()
    }

    /// This machine was suspended: the probes under way end without a verdict, and a new round begins now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.probes.abandon();
        self.probes.finish_round();
        self.next_round = now;
    }

    /// The next round begins at `at`.
    pub(super) fn schedule(&mut self, at: Instant) {
        self.next_round = at;
    }

    /// Ends every probe: this node is no longer a member.
    pub(super) fn stop(&mut self) {
        self.probes.stop();
    }

    /// A member is no longer in the table.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.probes.forget(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{key, view};
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_denial_causes_a_probe_at_most_once_in_ten_seconds_and_only_of_a_live_member() {
        let now = crate::rt::test_now();
        let (mut view, mut prober) = (view(now, false, 2), Prober::new(now + S));
        for (at_s, peer, probes) in [(0, 9, 0), (0, 1, 1), (9, 1, 1), (9, 2, 2), (10, 1, 3)] {
            // The earlier probe of the peer is over.
            prober.abandon();
            prober.handle_denied(now + S * at_s, &mut view, key(peer));
            assert_eq!(view.stats.probes_beside, probes, "{peer} after {at_s} s");
        }
        assert_eq!(prober.answered, Some(now + S * 10), "the hub has answered");
    }

    #[test]
    fn a_failure_lowers_local_health_unless_somebody_answered_since_the_probe_began() {
        let now = crate::rt::test_now();
        for (answered, health) in [(None, 1), (Some(now), 1), (Some(now + S), 0), (Some(now + S * 2), 0)] {
            let (mut view, mut prober) = (view(now, false, 1), Prober::new(now + S));
            prober.start_due(now + S, &mut view);
            prober.answered = answered;
            let seq = prober.under_way()[0];
            assert!(!prober.advance(now + S, &mut view, seq));
            assert!(prober.advance(now + S * 2, &mut view, seq), "nobody has answered it");
            assert_eq!(prober.fail(now + S * 2, &mut view, seq), Some(key(1)));
            assert_eq!((view.health.score(), prober.under_way()), (health, vec![]));
            assert_eq!(prober.handle_ack(now + S * 3, &mut view, key(1), seq), ProbeAck::Late(key(1)));
        }
    }

    #[test]
    fn an_ack_in_time_counts_once_and_improves_health_unless_the_target_owed_a_nack() {
        let now = crate::rt::test_now();
        for (owes, health) in [(false, 3), (true, 4)] {
            let (mut view, mut prober) = (view(now, false, 2), Prober::new(now + S));
            view.health.worse(4);
            prober.urge(now, &mut view, key(1), owes);
            prober.probes.start_round(Probe::new(now, 77, key(2), S, S));
            let seq = prober.under_way()[1];
            assert_eq!(prober.handle_ack(now, &mut view, key(2), seq), ProbeAck::Unknown);
            assert_eq!(prober.handle_ack(now, &mut view, key(1), seq), ProbeAck::InTime(key(1)));
            assert_eq!(view.health.score(), health);
            assert_eq!(prober.handle_ack(now, &mut view, key(1), seq), ProbeAck::Late(key(1)));
            assert_eq!(prober.handle_ack(now, &mut view, key(2), 77), ProbeAck::InTime(key(2)));
            assert_eq!(prober.handle_ack(now, &mut view, key(2), 77), ProbeAck::Repeated);
        }
    }

    #[test]
    fn an_observer_and_a_node_that_left_probe_nobody() {
        let now = crate::rt::test_now();
        let (mut member, mut observer) = (view(now, false, 1), view(now, true, 1));
        let mut prober = Prober::new(now + S);
        assert_eq!(prober.poll_timeout(&member), Some(now + S));
        assert_eq!(prober.poll_timeout(&observer), None);
        prober.urge(now, &mut observer, key(1), false);
        member.local.leave(now);
        prober.urge(now, &mut member, key(1), false);
        assert_eq!((prober.poll_timeout(&member), prober.under_way()), (None, vec![]));
    }
}
