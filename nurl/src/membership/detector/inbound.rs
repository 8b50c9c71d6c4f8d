//! Messages from other nodes, and the facts in them: each part gets what concerns it.

use std::time::Instant;

use super::indirect::PingRequest;
use super::local::EpochSource;
use super::prober::ProbeAck;
use super::{Detector, MembershipEvent, Via};
use crate::key::PublicKey;
use crate::membership::gossip::GossipTopic;
use crate::membership::message::{self, MessageBody, UserEvent};
use crate::membership::table::{Fact, State};

impl Detector {
    /// A message from `from`, whose pass permits no membership: it gets what an observer gets, whatever it says it is.
    pub fn handle_message_of_observer(&mut self, now: Instant, from: PublicKey, via: Via, body: &[u8]) {
        if from == self.view.local.key() {
            self.view.stats.from_self += 1;
            return;
        }
        let Some(message) = self.view.decode(body) else { return };
        self.view.stats.beyond_level += u64::from(!message.observer);
        self.exchanges.note_observer(from, true);
        self.handle_observer(now, from, via, message.body, &message.facts);
    }

    /// A message from `from`, which its session has authenticated, and whose pass permits membership.
    pub fn handle_message(&mut self, now: Instant, from: PublicKey, via: Via, body: &[u8]) {
        if from == self.view.local.key() {
            self.view.stats.from_self += 1;
            return;
        }
        if self.view.outcasts.contains(&from) {
            // Its session has ended; this came before that.
            return;
        }
        let Some(message) = self.view.decode(body) else { return };
        if let MessageBody::PushPull(chunk) | MessageBody::PushPullAck(chunk) = message.body
            && chunk.index == 0
            && chunk.revocations != self.view.notary.digest()
        {
            self.view.emit(MembershipEvent::RevocationsDiffer { peer: from });
        }
        self.exchanges.note_observer(from, message.observer);
        if message.observer {
            self.handle_observer(now, from, via, message.body, &message.facts);
            return;
        }
        let mut refuted = false;
        for fact in message.facts {
            refuted |= self.handle_fact(now, fact, from);
        }
        self.view.table.hear(now, &from);
        // Members alone take tenures, so only their counters count; a newcomer has introduced itself by its facts.
        if self.view.table.is_live(&from) {
            // One that is too high is counted; the rest of the message is valid.
            let _ = self.view.note_epoch(message.epoch, EpochSource::Told);
        }
        for event in message.events {
            self.handle_event(event);
        }
        match message.body {
            MessageBody::Ping { seq } => self.answer_ping(now, from, via, seq, refuted),
            MessageBody::Ack { seq } => self.handle_ack(now, from, seq),
            MessageBody::PingReq { seq, target, timeout_ms } => {
                let request = PingRequest { origin: from, via, seq, target, timeout_ms };
                self.indirect.serve(now, &mut self.view, request);
            }
            MessageBody::Nack { seq } => {
                if !self.prober.handle_nack(now, from, seq) {
                    self.view.stats.unsolicited_acks += 1;
                }
            }
            MessageBody::Gossip => {}
            MessageBody::PushPull(chunk) => self.exchanges.answer(now, &mut self.view, from, chunk),
            MessageBody::PushPullAck(chunk) => {
                if self.exchanges.handle_answer(&mut self.view, &from, chunk) {
                    self.exchange_done(now, from);
                }
            }
            // Valid on the mesh group only.
            MessageBody::Announce { .. } => {}
        }
        if refuted {
            self.set_right(now, from, via, &message.body);
        }
        // An unknown peer sent a message: exchange tables, so that both learn of each other.
        let exchanging = matches!(message.body, MessageBody::PushPull(_) | MessageBody::PushPullAck(_));
        if !exchanging && self.view.table.get(&from).is_none() && !self.view.local.has_left() {
            self.exchanges.start(now, &mut self.view, from);
        }
    }

    /// An observer has no say about members, but may read tables and gets acks. Its facts about this node may be
    /// hearsay that the author has retracted since; only this node can refute them.
    fn handle_observer(
        &mut self,
        now: Instant,
        from: PublicKey,
        via: Via,
        body: MessageBody,
        facts: &[Fact],
    ) {
        let me = self.view.local.key();
        let mut refuted = false;
        for fact in facts.iter().filter(|fact| fact.key == me) {
            refuted |= self.view.answer_claim(now, fact, &from, false);
        }
        match body {
            MessageBody::Ping { seq } => {
                let own = if refuted { self.view.own_fact() } else { None };
                self.view.send(from, via, MessageBody::Ack { seq }, own.as_slice());
            }
            MessageBody::PushPull(chunk) => self.exchanges.answer(now, &mut self.view, from, chunk),
            // An observer has no table to give, so the exchange ends.
            MessageBody::PushPullAck(_) => {
                self.exchanges.cancel(&from);
            }
            _ => {}
        }
    }

    fn answer_ping(&mut self, now: Instant, from: PublicKey, via: Via, seq: u64, refuted: bool) {
        let mut pinned = Vec::new();
        if !self.view.local.is_observer() {
            if refuted || self.view.local.has_left() {
                pinned.extend(self.view.own_fact());
            }
            pinned.extend(self.view.buddy_fact(now, &from));
        }
        self.view.send(from, via, MessageBody::Ack { seq }, &pinned);
    }

    /// `from` holds something wrong of this node and has missed the refutation: gossip reaches each member only with high
    /// probability. So it is told at once, unless the answer to its message says it anyway.
    fn set_right(&mut self, now: Instant, from: PublicKey, via: Via, message: &MessageBody) {
        let said = matches!(
            message,
            MessageBody::Ping { .. } | MessageBody::PushPull(_) | MessageBody::PushPullAck(_)
        );
        if said || !self.view.local.may_correct(now) {
            return;
        }
        let own = self.view.own_fact();
        self.view.send(from, via, MessageBody::Gossip, own.as_slice());
    }

    fn handle_event(&mut self, event: UserEvent) {
        if self.view.gossip.see(event.origin, event.id) {
            let topic = GossipTopic::UserEvent(event.origin, event.id);
            self.view.push_gossip(topic, message::encode_event(&event));
            self.view.emit(MembershipEvent::User { origin: event.origin, body: event.body });
        }
    }

    fn handle_ack(&mut self, now: Instant, from: PublicKey, seq: u64) {
        match self.prober.handle_ack(now, &mut self.view, from, seq) {
            ProbeAck::InTime(target) => {
                self.proof_of_life(now, target);
                self.prober.start_urgent(now, &mut self.view);
            }
            ProbeAck::Repeated => {}
            ProbeAck::Late(target) => self.proof_of_life(now, target),
            ProbeAck::Unknown => {
                if self.indirect.handle_ack(&mut self.view, &from, seq) {
                    self.proof_of_life(now, from);
                } else {
                    self.view.stats.unsolicited_acks += 1;
                }
            }
        }
        if self.healing.handle_ack(&from, seq) {
            self.exchanges.start(now, &mut self.view, from);
        }
    }

    /// An ack confirmed that `peer` is alive, however late and on any leg.
    fn proof_of_life(&mut self, now: Instant, peer: PublicKey) {
        if self.view.hearsay.take(&peer).is_some() {
            self.view.stats.claims_refuted += 1;
        }
        self.suspicions.evidence().probed(now, peer, true);
        self.weigh_isolation(now);
        if self.suspicions.clear(now, &mut self.view, peer) {
            self.exchanges.start(now, &mut self.view, peer);
        }
    }

    /// A peer's whole table has arrived. The first one completes a join.
    fn exchange_done(&mut self, now: Instant, from: PublicKey) {
        self.suspicions.exchanged(now, &mut self.view, &mut self.prober, from);
        if self.join.is_active() && !self.view.local.has_left() {
            self.join.finish();
            if self.view.local.is_observer() {
                self.exchanges.look_again(now);
            }
            self.view.emit(MembershipEvent::Joined);
        }
    }

    /// Takes a fact of `from` in. True if it is about this node and needs its current fact as a reply: refuted now or
    /// before.
    fn handle_fact(&mut self, now: Instant, mut fact: Fact, from: PublicKey) -> bool {
        if fact.key == self.view.local.key() {
            return self.view.answer_claim(now, &fact, &from, true);
        }
        if self.view.vouch(now, &mut fact, &from) {
            self.weigh(now, &fact, from);
        }
        if fact.key == from {
            self.view.remind(from);
        }
        false
    }

    /// Takes a fact in whose profile, if any, is checked.
    fn weigh(&mut self, now: Instant, fact: &Fact, from: PublicKey) {
        // An outcast that is told of with a pass which counts has one of after its revocation.
        self.readmit(&fact.key);
        if !self.view.accuses(fact) || self.may_accuse(now, fact, from) {
            self.accept(now, fact);
        }
    }

    /// Weighs a fact by which a live member would be suspect or dead. True if it is to be believed: a suspicion within the
    /// teller's share. That a member is dead is kept as a claim, until it is checked.
    fn may_accuse(&mut self, now: Instant, fact: &Fact, from: PublicKey) -> bool {
        let Detector { view, prober, .. } = self;
        let Fact { key, record, .. } = fact;
        let (incarnation, state) = (record.incarnation, record.state);
        if incarnation > view.local.accusation_limit() {
            view.stats.incarnations_too_high += 1;
            return false;
        }
        if state == State::Dead && view.hearsay.covers(key, incarnation) {
            return false;
        }
        if !view.table.is_live(&from) {
            view.stats.claims_of_strangers += 1;
            return false;
        }
        if !view.hearsay.spend(now, from) {
            view.stats.claims_limited += 1;
            return false;
        }
        if state == State::Suspect {
            return true;
        }
        view.stats.claims_checked += 1;
        view.hearsay.note(now, *key, incarnation);
        if self.suspicions.is_proven(key) {
            self.believe_claim(now, *key);
        } else {
            prober.check(now, view, *key);
        }
        false
    }

    /// A probe of `peer` has failed, so the claim against it is believed, if there is one.
    pub(super) fn believe_claim(&mut self, now: Instant, peer: PublicKey) {
        let Some(claim) = self.view.hearsay.take(&peer) else { return };
        if self.view.local.is_observer() {
            self.accept(now, &claim.fact(peer));
        } else {
            self.suspicions.hasten(now, &mut self.view, peer, claim);
        }
    }

    /// Merges a fact about another member, and does what follows from it.
    fn accept(&mut self, now: Instant, fact: &Fact) {
        let key = fact.key;
        let Some(applied) = self.view.apply(now, fact) else { return };
        if let Some(gone) = applied.reclaimed {
            self.forget(gone);
        }
        let suspect = self.view.table.entry(&key).is_some_and(|entry| entry.record.state == State::Suspect);
        if applied.change.state {
            if !suspect {
                self.suspicions.remove(&key);
            }
            self.view.gossip_member(now, &key);
        } else if applied.change.profile || (suspect && !applied.new_accusers.is_empty()) {
            self.view.gossip_member(now, &key);
        }
        if suspect {
            let Detector { view, prober, suspicions, .. } = self;
            suspicions.heed(now, view, prober, key, &applied.new_accusers, applied.change.state);
        }
        if applied.change.restarted
            && let Some(member) = self.view.table.get(&key)
        {
            let boot = member.boot;
            self.view.emit(MembershipEvent::Restarted { peer: key, boot });
        }
        if applied.meta_changed
            && let Some(member) = self.view.table.get(&key)
        {
            let member = member.clone();
            self.view.emit(MembershipEvent::MetaChanged(member));
        }
        // Last, so that the event has the member as the steps above left it.
        self.view.show(&key, applied.before, applied.after);
    }

    /// A broadcast of [`Detector::announce`] from a node that claims to be `from`. Any holder of the group's key can
    /// forge the source, so nothing in it is believed. At most three members, the same ones in every equal view,
    /// start an exchange over a session after a random delay.
    pub fn handle_announcement(&mut self, now: Instant, from: PublicKey, body: &[u8]) {
        let Some(message) = self.view.decode(body) else { return };
        let MessageBody::Announce { nonce } = message.body else {
            self.view.stats.malformed += 1;
            return;
        };
        if !message.observer {
            self.announcements.handle(now, &mut self.view, from, nonce);
        }
    }
}
