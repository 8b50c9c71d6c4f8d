//! Inputs: messages, and notices of the layers below.

use std::time::{Duration, Instant};

use super::{ANSWERERS, Detector, MAX_ANSWERS, MAX_OBSERVERS, MAX_SERVED, MembershipEvent, Served, Via};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::membership::gossip::GossipTopic;
use crate::membership::message::{self, DecodeError, MembershipMessage, MessageBody, TableChunk, UserEvent};
use crate::membership::table::State;

/// An observer's first wait for another table after joining; the wait then doubles up to the usual period. Gossip
/// doesn't reach an observer, and the first table may come from a member that has just joined itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The longest time that a helper pings for another member, whatever the request says: the longest probe is nine
/// seconds.
const MAX_SERVE_TIME: Duration = Duration::from_secs(9);

/// After a hub's denial of a peer has caused a probe, further denials cause none for this long: a hub denies a member
/// that is on another hub, or reachable without one, whenever something is sent to it through that hub.
pub(super) const DENIAL_HOLDS: Duration = Duration::from_secs(10);

impl Detector {
    /// A message from `from`, which its session has authenticated.
    pub fn handle_message(&mut self, now: Instant, from: PublicKey, via: Via, body: &[u8]) {
        if from == self.me.key {
            self.stats.from_self += 1;
            return;
        }
        let Some(message) = self.decode(body) else { return };
        self.note_observer(from, message.observer);
        if message.observer {
            // An observer has no say about members, but may read tables and gets acks. Its facts about this node may
            // be hearsay that the author has retracted since; only this node can refute them.
            let me = self.me.key;
            let mut refuted = false;
            for fact in message.facts.iter().filter(|fact| fact.key == me) {
                refuted |= self.handle_self_fact(now, fact, false);
            }
            match message.body {
                MessageBody::Ping { seq } => {
                    let own = refuted.then(|| self.self_fact());
                    self.send(from, via, MessageBody::Ack { seq }, own.as_slice());
                }
                MessageBody::PushPull(chunk) => self.answer_push_pull(now, from, chunk),
                // An observer has no table to give, so the exchange ends.
                MessageBody::PushPullAck(_) => {
                    self.push_pull.cancel(&from);
                }
                _ => {}
            }
            return;
        }
        let mut refuted = false;
        for fact in &message.facts {
            refuted |= self.handle_fact(now, fact, fact.key == from);
        }
        self.table.hear(now, &from);
        for event in message.events {
            self.handle_event(event);
        }
        match message.body {
            MessageBody::Ping { seq } => {
                let mut pinned = Vec::new();
                if refuted || self.me.state == State::Left {
                    pinned.push(self.self_fact());
                }
                pinned.extend(self.buddy_fact(now, &from));
                if self.observer {
                    pinned.clear();
                }
                self.send(from, via, MessageBody::Ack { seq }, &pinned);
            }
            MessageBody::Ack { seq } => self.handle_ack(now, from, seq),
            MessageBody::PingReq { seq, target, timeout_ms } => {
                self.serve(now, from, via, seq, target, timeout_ms);
            }
            MessageBody::Nack { seq } => {
                let probe = self.prober.find_mut(seq);
                match probe.filter(|probe| probe.helpers.contains(&from)) {
                    Some(probe) => {
                        probe.nacks.insert(from);
                        self.answered = Some(now);
                    }
                    None => self.stats.unsolicited_acks += 1,
                }
            }
            MessageBody::Gossip => {}
            MessageBody::PushPull(chunk) => self.answer_push_pull(now, from, chunk),
            MessageBody::PushPullAck(chunk) => match self.push_pull.answer(&from, chunk) {
                Some(true) => self.push_pull_done(now, from),
                Some(false) => {}
                None => self.stats.unsolicited_chunks += 1,
            },
            // Valid on the mesh group only.
            MessageBody::Announce { .. } => {}
        }
        // An unknown peer sent a message: exchange tables, so that both learn of each other.
        let exchanging = matches!(message.body, MessageBody::PushPull(_) | MessageBody::PushPullAck(_));
        if !exchanging && self.table.get(&from).is_none() && self.me.state != State::Left {
            self.start_push_pull(now, from);
        }
    }

    fn decode(&mut self, body: &[u8]) -> Option<MembershipMessage> {
        match MembershipMessage::decode(body) {
            Ok(message) => {
                // A jump is counted by note_epoch; the rest of the message is valid.
                let _ = self.note_epoch(message.epoch);
                Some(message)
            }
            Err(error) => {
                match error {
                    DecodeError::Malformed => self.stats.malformed += 1,
                    DecodeError::UnknownKind(_) => self.stats.unknown_kinds += 1,
                    DecodeError::TooLarge(_) => self.stats.oversize += 1,
                }
                None
            }
        }
    }

    fn handle_event(&mut self, event: UserEvent) {
        if self.see(event.origin, event.id) {
            self.gossip_topic(GossipTopic::UserEvent(event.origin, event.id), message::encode_event(&event));
            self.emit(MembershipEvent::User { origin: event.origin, body: event.body });
        }
    }

    fn handle_ack(&mut self, now: Instant, from: PublicKey, seq: u64) {
        if let Some(probe) = self.prober.find_mut(seq).filter(|probe| probe.is_answered_by(&from)) {
            let (target, owes) = (probe.target, probe.owes);
            if !std::mem::replace(&mut probe.acked, true) {
                self.probe_answered(now, target, owes);
            }
        } else if let Some(served) = self.served.get(&seq).filter(|served| served.target == from) {
            let (origin, seq) = (served.origin, served.origin_seq);
            self.served.retain(|_, other| (other.origin, other.origin_seq) != (origin, seq));
            self.send(origin, Via::Datagram, MessageBody::Ack { seq }, &[]);
        } else if let Some(target) = self.prober.late(seq, &from) {
            self.stats.late_acks += 1;
            self.proof_of_life(now, target);
        } else {
            self.stats.unsolicited_acks += 1;
        }
        if self.healing.as_ref().is_some_and(|healing| healing.peer == from && healing.seq == seq) {
            self.healing = None;
            self.start_push_pull(now, from);
        }
    }

    /// Pings `target` on behalf of `origin`.
    fn serve(&mut self, now: Instant, origin: PublicKey, via: Via, seq: u64, target: PublicKey, ms: u32) {
        if target == self.me.key {
            self.send(origin, via, MessageBody::Ack { seq }, &[]);
            return;
        }
        let repeated = self.served.values().any(|other| (other.origin, other.origin_seq) == (origin, seq));
        if repeated {
            return;
        }
        // A forged request must not make this node seek a session with a key that no member has.
        if self.table.get(&target).is_none() {
            self.stats.served_unknown += 1;
            self.send(origin, via, MessageBody::Nack { seq }, &[]);
            return;
        }
        if self.served.len() >= MAX_SERVED || self.observer {
            self.stats.served_full += 1;
            self.send(origin, via, MessageBody::Nack { seq }, &[]);
            return;
        }
        self.stats.served += 1;
        let timeout = Duration::from_millis(ms.into()).min(MAX_SERVE_TIME);
        let own = self.next_seq();
        let served = Served {
            origin,
            origin_seq: seq,
            target,
            again_at: Some(now + timeout * 2 / 5),
            // Lifeguard §4.1: at 80 % of the timeout, so that the NACK arrives before the verdict.
            nack_at: Some(now + timeout * 4 / 5),
            // An ack that comes after the NACK is still passed on; it may clear a suspicion.
            until: now + timeout * 2,
        };
        self.served.insert(own, served);
        self.emit(MembershipEvent::WantSession { peer: target });
        self.send_served_ping(now, own, target);
    }

    pub(super) fn send_served_ping(&mut self, now: Instant, seq: u64, target: PublicKey) {
        let pinned: Vec<_> = self.buddy_fact(now, &target).into_iter().collect();
        self.send(target, Via::Datagram, MessageBody::Ping { seq }, &pinned);
    }

    fn answer_push_pull(&mut self, now: Instant, from: PublicKey, chunk: TableChunk) {
        if chunk.index != 0 {
            return;
        }
        let facts = 1 + self.table.entries().count();
        if self.push_pull.may_answer(now, facts) {
            self.send_table(now, from, chunk.id, false);
        } else {
            self.stats.push_pulls_refused += 1;
        }
    }

    fn push_pull_done(&mut self, now: Instant, from: PublicKey) {
        self.stats.push_pulls += 1;
        self.hold_verdicts = None;
        let isolated = self.isolation.since().map(|since| now.saturating_duration_since(since));
        if self.isolation.exchanged(now, from) {
            self.emit(MembershipEvent::Isolated(false));
            // A probe from a long isolation is no evidence against its target, so the target is probed again soon. A
            // short isolation may be due to the death of the only probed member, so its probes stay valid.
            let long = isolated > Some(self.config.push_pull_timeout);
            let void = if long { self.prober.abandon() } else { Vec::new() };
            void.into_iter().for_each(|target| self.urge(now, target, false));
        }
        self.discard_local_verdicts(now);
        if self.join.is_active() && self.me.state != State::Left {
            self.join.finish();
            if self.observer {
                self.look_again = LOOK_AGAIN;
                self.next_push_pull = now + LOOK_AGAIN;
            }
            self.emit(MembershipEvent::Joined);
        }
    }

    /// A reliable message of this node to `peer` was lost.
    pub fn on_message_lost(&mut self, now: Instant, peer: PublicKey) {
        if self.push_pull.cancel(&peer) {
            self.exchange_failed(now, peer);
            self.run_join(now);
        }
    }

    /// Only an exchange repairs losses of gossip, and an observer learns of a death by nothing else. So a failed
    /// exchange with a member is soon replaced by one with another member. A failed exchange with an unknown peer has
    /// no such effect.
    pub(super) fn exchange_failed(&mut self, now: Instant, peer: PublicKey) {
        tracing::debug!(target: "nurl::membership", peer = %peer.short(), "an exchange of tables failed");
        self.stats.push_pulls_failed += 1;
        self.join.handle_silence(&peer);
        if self.table.get(&peer).is_some() {
            self.next_push_pull = self.next_push_pull.min(now + LOOK_AGAIN);
        }
    }

    /// A broadcast of [`Detector::announce`] from a node that claims to be `from`. Any holder of the group's key can
    /// forge the source, so nothing in it is believed. At most three members, the same ones in every equal view,
    /// start an exchange over a session after a random delay.
    pub fn handle_announcement(&mut self, now: Instant, from: PublicKey, body: &[u8]) {
        let Some(message) = self.decode(body) else { return };
        let MessageBody::Announce { nonce } = message.body else {
            self.stats.malformed += 1;
            return;
        };
        let known = self.table.get(&from).is_some_and(|member| member.state.is_live());
        let answered = self.answers.iter().any(|(_, peer)| *peer == from);
        let mute = self.observer || self.me.state == State::Left || message.observer;
        if known || answered || mute || from == self.me.key {
            return;
        }
        let rank = |key: &PublicKey| {
            *blake3::Hasher::new()
                .update(b"nurl/1 announcement")
                .update(&nonce.to_le_bytes())
                .update(key.as_bytes())
                .finalize()
                .as_bytes()
        };
        let mine = rank(&self.me.key);
        let before = self.table.members().filter(|m| m.state.is_live() && rank(&m.key) < mine);
        if before.take(ANSWERERS).count() >= ANSWERERS {
            return;
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.stats.announcements_dropped += 1;
            return;
        }
        let delay = draw::duration(&mut self.rng, self.config.answer_delay);
        self.answers.push((now + delay, from));
    }

    /// A hub accepts this node.
    pub fn on_hub_up(&mut self, hub: PublicKey) {
        self.join.handle_hub(hub, true);
    }

    /// A hub says that `peer` isn't connected to it. True if that ends an attempt to join through `peer`: every hub
    /// that is up denies it, and only the join wanted a session with it.
    pub fn on_denied(&mut self, now: Instant, hub: PublicKey, peer: PublicKey) -> bool {
        self.probe_denied(now, peer);
        let ends = self.join.handle_denied(hub, &peer);
        if ends {
            self.push_pull.cancel(&peer);
            self.run_join(now);
        }
        ends && self.table.get(&peer).is_none()
    }

    /// A hub answered a PING.
    pub fn on_hub_pong(&mut self, now: Instant) {
        self.isolation.hub_pong(now);
        self.weigh_isolation(now);
    }

    /// The connection to a hub is gone; `last`: no other hub is connected.
    pub fn on_hub_down(&mut self, now: Instant, hub: PublicKey, last: bool) {
        self.join.handle_hub(hub, false);
        if last {
            self.isolation.hub_down();
            self.weigh_isolation(now);
        }
        self.run_join(now);
    }

    /// A denied peer may be on another hub, or reachable without one, and the hub may lie: so a denial causes a
    /// probe, at most one per [`DENIAL_HOLDS`], and never a verdict. It also shows that this node isn't slow: the hub
    /// answered it.
    fn probe_denied(&mut self, now: Instant, peer: PublicKey) {
        let Some(entry) = self.table.entry(&peer).filter(|entry| entry.member.state.is_live()) else {
            return;
        };
        let again = entry.denied.is_none_or(|at| now.saturating_duration_since(at) >= DENIAL_HOLDS);
        self.answered = Some(now);
        if again {
            self.table.deny(now, &peer);
            self.urge(now, peer, false);
        }
    }

    /// Remembers the observers, and drops a key that turns up as a member.
    fn note_observer(&mut self, from: PublicKey, observer: bool) {
        let known = self.observers.iter().position(|key| *key == from);
        match (observer, known) {
            (true, None) => {
                if self.observers.len() >= MAX_OBSERVERS {
                    self.observers.pop_front();
                }
                self.observers.push_back(from);
            }
            (false, Some(at)) => drop(self.observers.remove(at)),
            _ => {}
        }
    }

    /// The wall clock ran ahead of the monotonic one: this machine was suspended. No verdict is reached before a
    /// push-pull completes or times out.
    pub fn on_suspend(&mut self, now: Instant) {
        self.hold_verdicts = Some(now + self.config.push_pull_timeout);
        self.prober.abandon();
        self.prober.finish_round();
        self.next_probe = now;
        self.suspicions.values_mut().for_each(|suspicion| suspicion.restart(now));
        let peers = self.random_members(super::EXCHANGE_FANOUT, |member| member.state.is_live());
        for peer in peers {
            self.start_push_pull(now, peer);
        }
        self.next_push_pull = now + self.config.push_pull_interval;
    }

    /// A datagram to `peer` could not be sealed: there is no session yet. The clock of a probe of `peer` is held.
    pub fn on_session_pending(&mut self, now: Instant, peer: PublicKey) {
        let grace = self.awareness.scale(self.config.session_grace);
        for probe in self.prober.probes_mut().filter(|probe| probe.target == peer) {
            probe.hold(now, grace);
        }
    }

    /// A session to `peer` is up.
    pub fn on_session_up(&mut self, now: Instant, peer: PublicKey) {
        self.join.handle_session(&peer);
        for probe in self.prober.probes_mut().filter(|probe| probe.target == peer) {
            probe.session_up(now);
        }
        if let Some(healing) = self.healing.as_mut().filter(|healing| healing.peer == peer) {
            healing.next = now;
        }
    }

    /// A handshake with `peer` failed, and with it the direct leg of its probe.
    pub fn on_session_failed(&mut self, now: Instant, peer: PublicKey) {
        for probe in self.prober.probes_mut().filter(|probe| probe.target == peer) {
            probe.without_session(now);
        }
    }
}
