//! Healing: the repair of a partition. Every push-pull period one member that is held dead is pinged with its own
//! record. If it answers, both sides exchange tables, and it refutes its death.

use std::time::{Duration, Instant};

use super::outbox::Via;
use super::prober::Prober;
use super::view::MeshView;
use crate::key::PublicKey;
use crate::membership::event::MembershipEvent;
use crate::membership::join::MAX_CONTACTS;
use crate::membership::table::{Member, State};

/// Pings of one healing probe, and the time between them: the session of a dead member has expired, and a handshake
/// through a relay takes a moment.
const HEALING_PINGS: u32 = 3;
const HEALING_INTERVAL: Duration = Duration::from_secs(1);

/// The healing probe of a dead member: a few pings, since its session may have expired.
#[derive(Debug)]
struct HealingProbe {
    peer: PublicKey,
    seq: u64,
    next: Instant,
    left: u32,
}

/// The healing probe under way, if any, and the members that are healed first.
#[derive(Debug, Default)]
pub(super) struct Healing {
    probe: Option<HealingProbe>,
    /// Members that a hub named as connected in the last LIST: the dead among them are healed first.
    named: Vec<PublicKey>,
}

impl Healing {
    /// When the next ping is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.probe.as_ref().map(|probe| probe.next)
    }

    /// The members that a hub names as connected.
    pub(super) fn name(&mut self, connected: impl Iterator<Item = PublicKey>) {
        self.named = connected.take(MAX_CONTACTS).collect();
    }

    /// Starts a probe unless one is under way.
    pub(super) fn start(&mut self, now: Instant, view: &mut MeshView, prober: &mut Prober) {
        if self.probe.is_some() {
            return;
        }
        let Some(peer) = self.choose(view) else { return };
        let seq = view.outbox.next_seq();
        prober.remember(seq, peer);
        self.probe = Some(HealingProbe { peer, seq, next: now, left: HEALING_PINGS });
        view.emit(MembershipEvent::WantSession { peer });
        self.handle_timeout(now, view);
    }

    /// The next member to ping with its own record. An observer takes a suspect first: it may have missed the
    /// refutation, or be the only node that heard the accusation. Otherwise a dead member, preferably one that a hub
    /// names as connected.
    fn choose(&self, view: &mut MeshView) -> Option<PublicKey> {
        if view.local.is_observer()
            && let Some(suspect) = view.random_members(1, |member| member.state == State::Suspect).first()
        {
            return Some(*suspect);
        }
        let dead = |member: &Member| member.state == State::Dead;
        let named = view.random_members(1, |member| dead(member) && self.named.contains(&member.key));
        let chosen = if named.is_empty() { view.random_members(1, dead) } else { named };
        chosen.first().copied()
    }

    /// Sends the next ping if it is due, or gives up after the last.
    pub(super) fn handle_timeout(&mut self, now: Instant, view: &mut MeshView) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.next <= now) else { return };
        if probe.left == 0 {
            self.probe = None;
            return;
        }
        probe.left -= 1;
        probe.next = now + HEALING_INTERVAL;
        view.send_ping(now, probe.peer, Via::Datagram, probe.seq);
    }

    /// An ack. True if it answers the probe under way, which then ends.
    pub(super) fn handle_ack(&mut self, from: &PublicKey, seq: u64) -> bool {
        self.probe.take_if(|probe| probe.peer == *from && probe.seq == seq).is_some()
    }

    /// A session with `peer` is up: the next ping to it needs no wait.
    pub(super) fn session_up(&mut self, now: Instant, peer: &PublicKey) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.peer == *peer) {
            probe.next = now;
        }
    }

    /// Ends the probe: this node is no longer a member.
    pub(super) fn stop(&mut self) {
        self.probe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healing_probe_ends_by_the_ack_of_its_peer_alone_and_needs_no_wait_for_a_session() {
        let now = crate::rt::test_now();
        let [peer, other] = [1, 2].map(|at| PublicKey::from_bytes([at; 32]));
        let next = now + HEALING_INTERVAL;
        let mut healing = Healing::default();
        assert_eq!(healing.poll_timeout(), None);
        healing.probe = Some(HealingProbe { peer, seq: 7, next, left: 2 });
        healing.session_up(now, &other);
        assert_eq!(healing.poll_timeout(), Some(next));
        healing.session_up(now, &peer);
        assert_eq!(healing.poll_timeout(), Some(now));
        for (from, seq, ends) in [(other, 7, false), (peer, 8, false), (peer, 7, true), (peer, 7, false)] {
            assert_eq!(healing.handle_ack(&from, seq), ends);
        }
        assert_eq!(healing.poll_timeout(), None);
    }
}
