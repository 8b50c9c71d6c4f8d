//! This node's view of the mesh, and its voice in it: what every other part of the detector reads, changes and speaks
//! through.
//!
//! The view owns the member table, this node's own record, the gossip and the outbox. So a change of a member's state
//! is shown as an event in one place ([`MeshView::change`]), and each message is built in one place
//! ([`MeshView::send`]).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Instant;

use rand_core::Rng as _;

use super::dissemination::Dissemination;
use super::hearsay::Hearsay;
use super::local::{ClaimAnswer, EpochSource, LocalMember};
use super::outbox::{Outbox, Transmit, Via};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::membership::awareness::Awareness;
use crate::membership::config::DetectorConfig;
use crate::membership::event::{DetectorStats, MembershipError, MembershipEvent};
use crate::membership::gossip::{GossipTopic, retransmit_limit};
use crate::membership::message::{self, DecodeError, MAX_DATAGRAM_BYTES, MembershipMessage, MessageBody};
use crate::membership::notary::{Notary, ProfileRefusal};
use crate::membership::probe::ProbeRotation;
use crate::membership::table::{
    AppliedFact, Fact, FactRefusal, MAX_INCARNATION, Member, MemberEntry, MemberRecord, MemberTable, State,
};
use crate::rt::Rng;

/// The members as this node sees them, this node itself, and what it says.
#[derive(Debug)]
pub(super) struct MeshView {
    pub(super) config: DetectorConfig,
    pub(super) rng: Rng,
    pub(super) local: LocalMember,
    /// How slow this node itself seems to be.
    pub(super) health: Awareness,
    pub(super) table: MemberTable,
    /// The order in which the members of the table are probed.
    pub(super) rotation: ProbeRotation,
    pub(super) gossip: Dissemination,
    /// Claims against members that are being checked.
    pub(super) hearsay: Hearsay,
    /// Peers whose pass was revoked: facts about them are refused.
    pub(super) outcasts: BTreeSet<PublicKey>,
    /// Signs this node's facts, and checks those of others.
    pub(super) notary: Notary,
    pub(super) outbox: Outbox,
    pub(super) stats: DetectorStats,
}

impl MeshView {
    /// A view without another member.
    pub(super) fn new(
        config: DetectorConfig,
        local: LocalMember,
        notary: Notary,
        now: Instant,
        mut rng: Rng,
    ) -> MeshView {
        // The high bits stay free, so that the series doesn't wrap in the life of a process.
        let outbox = Outbox::new(rng.next_u64() >> 16);
        MeshView {
            config,
            rng,
            local,
            health: Awareness::default(),
            table: MemberTable::default(),
            rotation: ProbeRotation::default(),
            gossip: Dissemination::new(now),
            hearsay: Hearsay::default(),
            outcasts: BTreeSet::new(),
            notary,
            outbox,
            stats: DetectorStats::default(),
        }
    }

    /// Number of live members, this node included unless it is an observer: SWIM's n.
    pub(super) fn live(&self) -> usize {
        let counts = !self.local.is_observer() && self.local.member().state.is_live();
        self.table.live() + usize::from(counts)
    }

    /// Up to `count` random members that match `of`.
    pub(super) fn random_members(&mut self, count: usize, of: impl Fn(&Member) -> bool) -> Vec<PublicKey> {
        let members = self.table.members().filter(|member| of(member)).map(|member| member.key).collect();
        draw::sample(&mut self.rng, members, count)
    }

    /// When the view has something to do: gossip waits, or a verdict of isolation takes effect.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.gossip.poll_timeout(), self.table.poll_timeout()].into_iter().flatten().min()
    }

    // ---- Events and the state of members.

    /// Queues an event.
    pub(super) fn emit(&mut self, event: MembershipEvent) {
        if !self.outbox.push_event(event) {
            self.stats.events_dropped += 1;
        }
    }

    /// Merges a fact about another member into the table; its profile, if any, is checked. A refusal is counted.
    pub(super) fn apply(&mut self, now: Instant, fact: &Fact) -> Option<AppliedFact> {
        // What a member has signed is always taken: otherwise a lie told to it alone, which it has to outbid, would cut it
        // off from those that haven't heard the lie.
        let limit = match fact.record.state {
            State::Alive | State::Left => MAX_INCARNATION,
            State::Suspect | State::Dead => self.local.accusation_limit(),
        };
        self.table.apply(now, &self.config, fact, limit).map_err(|refusal| self.count(refusal)).ok()
    }

    fn count(&mut self, refusal: FactRefusal) {
        let counter = match refusal {
            FactRefusal::Unknown => &mut self.stats.facts_of_unknown,
            FactRefusal::Forgotten => &mut self.stats.facts_of_forgotten,
            FactRefusal::IncarnationTooHigh => &mut self.stats.incarnations_too_high,
            FactRefusal::TableFull => &mut self.stats.table_full,
            FactRefusal::Expired => &mut self.stats.expired_facts,
        };
        *counter += 1;
    }

    /// Checks the profile in a fact that `teller` told, if it says more than is known of the member; one that says no more
    /// is left out. False, and counted: the fact isn't to be believed.
    pub(super) fn vouch(&mut self, now: Instant, fact: &mut Fact, teller: &PublicKey) -> bool {
        if self.table.get(&fact.key).is_none()
            && let Err(refusal) = self.table.has_room_for(&self.config, fact)
        {
            self.count(refusal);
            return false;
        }
        let Some(profile) = &mut fact.record.profile else { return true };
        let known = self.table.entry(&fact.key).and_then(|entry| entry.record.profile.as_ref());
        match known.map(|known| (*profile).cmp(known)) {
            Some(Ordering::Equal) => {
                fact.record.profile = known.cloned();
                return true;
            }
            Some(Ordering::Less) => {
                fact.record.profile = None;
                // It is a word that its subject has replaced since.
                return matches!(fact.record.state, State::Suspect | State::Dead);
            }
            Some(Ordering::Greater) | None => {}
        }
        let Err(refusal) = self.notary.check(now, teller, &fact.key, profile) else { return true };
        match refusal {
            ProfileRefusal::Forged => self.stats.facts_forged += 1,
            ProfileRefusal::Limited => self.stats.facts_of_forgers += 1,
            ProfileRefusal::Revoked => self.stats.facts_of_outcasts += 1,
            ProfileRefusal::BelowMember => self.stats.facts_below_member += 1,
        }
        false
    }

    /// Whether by this fact a member that is live here would be suspect or dead, and it isn't known yet.
    pub(super) fn accuses(&self, fact: &Fact) -> bool {
        let said = (fact.record.incarnation, fact.record.state);
        let known = self.table.entry(&fact.key).map(|entry| (entry.record.incarnation, entry.record.state));
        let accusation = matches!(fact.record.state, State::Suspect | State::Dead);
        accusation && known.is_some_and(|known| known.1.is_live() && said > known)
    }

    /// Changes a member's entry, and emits the resulting change of the view.
    pub(super) fn change(&mut self, now: Instant, peer: &PublicKey, change: impl FnOnce(&mut MemberEntry)) {
        if let Some((before, after)) = self.table.update(now, peer, change) {
            self.show(peer, Some(before), after);
        }
    }

    /// Emits a change of the view, and takes a member that is live into the rounds of probes.
    pub(super) fn show(&mut self, peer: &PublicKey, before: Option<State>, after: State) {
        if before == Some(after) {
            return;
        }
        if after.is_live() && !self.local.is_observer() {
            self.rotation.add(&mut self.rng, *peer);
        }
        let Some(member) = self.table.get(peer).cloned() else { return };
        self.emit(match after {
            State::Alive => MembershipEvent::Alive(member),
            State::Suspect => MembershipEvent::Suspect(member),
            State::Dead => MembershipEvent::Dead(member),
            State::Left => MembershipEvent::Left(member),
        });
    }

    /// A member is no longer in the table.
    pub(super) fn forget(&mut self, peer: PublicKey) {
        self.rotation.remove(&peer);
        self.hearsay.forget(&peer);
        self.gossip.queue.remove(&GossipTopic::Member(peer));
    }

    /// Answers a fact about this node that `teller` told. An accusation lowers local health only if a member may have
    /// `probed` this node. True if the sender needs this node's current fact: its fact is refuted now, or was refuted
    /// before.
    pub(super) fn answer_claim(
        &mut self,
        now: Instant,
        claim: &Fact,
        teller: &PublicKey,
        probed: bool,
    ) -> bool {
        // What is below this node's incarnation says nothing, whoever signed it.
        if let Some(profile) = &claim.record.profile
            && claim.record.incarnation >= self.local.member().incarnation
            && !self.notary.is_own(now, teller, profile)
        {
            self.stats.facts_forged += 1;
            return false;
        }
        let accused = match self.local.answer(now, &claim.record) {
            ClaimAnswer::Agreed => return false,
            ClaimAnswer::Stale => return true,
            ClaimAnswer::TooHigh => {
                self.stats.incarnations_too_high += 1;
                return false;
            }
            ClaimAnswer::LeftAgain => {
                self.gossip_self();
                return false;
            }
            ClaimAnswer::Limited => {
                self.stats.refutations_limited += 1;
                return false;
            }
            ClaimAnswer::Refuted { accused } => accused,
        };
        self.gossip_self();
        if accused {
            // A suspected node may itself be slow. A stale "left" fact of an earlier process says nothing about
            // health.
            if probed && claim.record.state != State::Left {
                self.health.worse(1);
            }
            let incarnation = self.local.member().incarnation;
            tracing::info!(target: "nurl::membership", incarnation, accusers = claim.accusers.len(), "this node was accused, and refutes");
            self.emit(MembershipEvent::Refuted { incarnation });
        }
        true
    }

    /// Records an epoch counter. One that is too high is counted.
    ///
    /// # Errors
    /// [`MembershipError::EpochTooHigh`]; the counter is ignored.
    pub(super) fn note_epoch(&mut self, counter: u64, by: EpochSource) -> Result<(), MembershipError> {
        self.local.note_epoch(counter, by).inspect_err(|_| self.stats.epochs_too_high += 1)
    }

    // ---- Messages.

    /// Reads a message. A failure is counted.
    pub(super) fn decode(&mut self, body: &[u8]) -> Option<MembershipMessage> {
        match MembershipMessage::decode(body) {
            Ok(message) => return Some(message),
            Err(DecodeError::Malformed) => self.stats.malformed += 1,
            Err(DecodeError::UnknownKind(_)) => self.stats.unknown_kinds += 1,
            Err(DecodeError::TooLarge(_)) => self.stats.oversize += 1,
        }
        None
    }

    /// Sends a message with the `pinned` facts and as much gossip as fits. No gossip rides to a peer that may be
    /// silent: each fact is sent only a few times, and when many die together, the dead would take most of those
    /// sends.
    pub(super) fn send(&mut self, to: PublicKey, via: Via, body: MessageBody, pinned: &[Fact]) {
        let observer = self.local.is_observer();
        let mut room = message::room(MAX_DATAGRAM_BYTES, observer, &body);
        let (mut facts, mut about) = (Vec::new(), Vec::new());
        for fact in pinned {
            let bytes = message::encode_fact(fact);
            if let Some(left) = room.checked_sub(bytes.len()) {
                room = left;
                facts.push(bytes);
                about.push(fact.key);
            }
        }
        let mut events = Vec::new();
        let silent = self.table.get(&to).is_some_and(|member| member.state != State::Alive);
        if !observer && !silent {
            let limit = retransmit_limit(self.config.retransmit_factor, self.live());
            let picked = self.gossip.queue.pick(room, limit, &about);
            facts.extend(picked.facts);
            events = picked.events;
        }
        self.transmit(to, via, &body, &facts, &events);
        self.check_departed();
    }

    /// Sends exactly these facts and events.
    pub(super) fn transmit(
        &mut self,
        to: PublicKey,
        via: Via,
        body: &MessageBody,
        facts: &[Vec<u8>],
        events: &[Vec<u8>],
    ) {
        match body {
            MessageBody::Ping { .. } => self.stats.pings += 1,
            MessageBody::Ack { .. } => self.stats.acks += 1,
            MessageBody::Gossip => self.stats.gossips += 1,
            MessageBody::PushPull(_) | MessageBody::PushPullAck(_) => self.stats.chunks += 1,
            MessageBody::PingReq { .. } | MessageBody::Nack { .. } | MessageBody::Announce { .. } => {}
        }
        let body = self.assemble(body, facts, events);
        if !self.outbox.push_transmit(Transmit { to, via, body }) {
            self.stats.transmits_dropped += 1;
        }
    }

    /// The bytes of a message of this node.
    pub(super) fn assemble(&self, body: &MessageBody, facts: &[Vec<u8>], events: &[Vec<u8>]) -> Vec<u8> {
        message::assemble(self.local.epoch(), self.local.is_observer(), body, facts, events)
    }

    /// Pings a member, with its own record if it isn't simply alive.
    pub(super) fn send_ping(&mut self, now: Instant, to: PublicKey, via: Via, seq: u64) {
        let pinned: Vec<_> = self.buddy_fact(now, &to).into_iter().collect();
        self.send(to, via, MessageBody::Ping { seq }, &pinned);
    }

    /// What a peer has to hear of itself: its record, if it isn't simply alive, whether suspect (Lifeguard's buddy system)
    /// or dead but still sending; or the claim against it that is being checked.
    pub(super) fn buddy_fact(&self, now: Instant, peer: &PublicKey) -> Option<Fact> {
        if let Some(claim) = self.hearsay.of(peer) {
            return Some(claim.fact(*peer));
        }
        let entry = self.table.entry(peer).filter(|entry| entry.record.state != State::Alive)?;
        let mut fact = entry.fact(now);
        if fact.record.state != State::Left {
            fact.record.profile = None;
        }
        Some(fact)
    }

    /// This node's fact about itself; `None` while it has no pass.
    pub(super) fn own_fact(&mut self) -> Option<Fact> {
        self.local.fact(&mut self.notary)
    }

    /// Tells a peer that says of itself what was known before it was forgotten what it has to outbid.
    pub(super) fn remind(&mut self, peer: PublicKey) {
        if self.table.get(&peer).is_none()
            && let Some(incarnation) = self.table.forgotten(&peer)
        {
            let record = MemberRecord { incarnation, state: State::Dead, profile: None };
            let fact = Fact { key: peer, record, age_s: 0, accusers: Vec::new() };
            self.send(peer, Via::Datagram, MessageBody::Gossip, &[fact]);
        }
    }

    // ---- Gossip.

    /// Queues this node's fact about itself.
    pub(super) fn gossip_self(&mut self) {
        if !self.local.is_observer()
            && let Some(fact) = self.own_fact()
        {
            self.push_gossip(GossipTopic::Member(self.local.key()), message::encode_fact(&fact));
        }
    }

    /// Queues a member's record as a fact. Only what the member says itself carries its profile: it changes nothing in
    /// accusations, and push-pull carries it to newcomers.
    pub(super) fn gossip_member(&mut self, now: Instant, key: &PublicKey) {
        let Some(entry) = self.table.entry(key) else { return };
        let mut fact = entry.fact(now);
        match fact.record.state {
            State::Suspect | State::Dead => fact.record.profile = None,
            State::Alive | State::Left if !entry.speaks_for_itself() => return,
            State::Alive | State::Left => {}
        }
        self.push_gossip(GossipTopic::Member(*key), message::encode_fact(&fact));
    }

    /// Queues gossip; an observer has none. False if the queue is full.
    pub(super) fn push_gossip(&mut self, topic: GossipTopic, bytes: Vec<u8>) -> bool {
        let queued = self.local.is_observer() || self.gossip.queue.push(topic, bytes);
        self.stats.gossip_full += u64::from(!queued);
        queued
    }

    /// One gossip tick: queued facts to a few alive members. One suspect or recently dead member gets its own
    /// record, since it may be alive without knowing.
    pub(super) fn gossip_tick(&mut self, now: Instant) {
        self.gossip.schedule(now + self.config.gossip_interval);
        if self.local.is_observer() || self.gossip.queue.is_empty() {
            return;
        }
        let recent = self.config.gossip_to_the_dead;
        let accused = self.random_members(1, |member| match member.state {
            State::Suspect => true,
            State::Dead => now.saturating_duration_since(member.since) <= recent,
            State::Alive | State::Left => false,
        });
        for peer in accused {
            let told: Vec<_> = self.buddy_fact(now, &peer).into_iter().collect();
            self.send(peer, Via::Datagram, MessageBody::Gossip, &told);
        }
        for peer in self.gossip.take_turns(&mut self.rng, &self.table, self.config.gossip_fanout) {
            if self.gossip.queue.is_empty() {
                break;
            }
            self.send(peer, Via::Datagram, MessageBody::Gossip, &[]);
        }
        self.check_departed();
    }

    /// Ends a graceful leave once its fact was sent often enough, or nobody is there to hear it.
    pub(super) fn check_departed(&mut self) {
        let topic = GossipTopic::Member(self.local.key());
        let done = !self.gossip.queue.contains(&topic) || self.table.live() == 0;
        if self.local.is_departing() && done {
            self.local.departed();
            self.emit(MembershipEvent::Departed);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::membership::meta::Meta;
    use crate::membership::profile::tests::said;

    /// The keys of the members; this node's is 0.
    pub(in super::super) fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    fn alive(at: u8) -> Fact {
        let profile = said(1, false, 1, Meta::default());
        let record = MemberRecord { incarnation: 1, state: State::Alive, profile: Some(profile) };
        Fact { key: key(at), record, age_s: 0, accusers: Vec::new() }
    }

    /// A view with members 1 to `others`, all alive, and nothing to send.
    pub(in super::super) fn view(now: Instant, observer: bool, others: u8) -> MeshView {
        let local = LocalMember::new(key(0), 1, Meta::default(), observer, now);
        let (config, notary) = (DetectorConfig::default(), Notary::trusting(key(0)));
        let mut view = MeshView::new(config, local, notary, now, Rng::from_seed([7; 32]));
        for at in 1..=others {
            let applied = view.apply(now, &alive(at)).expect("there is room");
            view.show(&key(at), applied.before, applied.after);
        }
        while view.outbox.poll_event().is_some() {}
        view
    }

    fn sent(view: &mut MeshView) -> MembershipMessage {
        let transmit = view.outbox.poll_transmit().expect("it was sent");
        MembershipMessage::decode(&transmit.body).unwrap()
    }

    #[test]
    fn an_observer_is_not_counted_and_gossips_nothing() {
        let now = crate::rt::test_now();
        for (observer, live, facts) in [(false, 3, 1), (true, 2, 0)] {
            let mut view = view(now, observer, 2);
            assert_eq!(view.live(), live);
            view.gossip_member(now, &key(1));
            assert_eq!(view.poll_timeout(), (!observer).then_some(now));
            view.send(key(2), Via::Datagram, MessageBody::Gossip, &[]);
            let message = sent(&mut view);
            assert_eq!((message.observer, message.facts.len()), (observer, facts));
        }
    }

    #[test]
    fn a_peer_that_may_be_silent_gets_its_own_record_and_no_gossip() {
        let now = crate::rt::test_now();
        for (state, facts) in [(State::Alive, vec![2]), (State::Suspect, vec![1]), (State::Dead, vec![1])] {
            let mut view = view(now, false, 2);
            view.gossip_member(now, &key(2));
            view.change(now, &key(1), |entry| entry.record.state = state);
            assert_eq!(view.outbox.poll_event().is_some(), state != State::Alive, "a change is an event");
            view.send_ping(now, key(1), Via::Datagram, 7);
            let told: Vec<PublicKey> = sent(&mut view).facts.iter().map(|fact| fact.key).collect();
            assert_eq!(told, facts.into_iter().map(key).collect::<Vec<_>>(), "{state:?}");
        }
    }

    #[test]
    fn an_accusation_by_a_member_that_may_have_probed_this_node_lowers_its_health() {
        let now = crate::rt::test_now();
        for (state, probed, health) in [
            (State::Suspect, true, 1),
            (State::Suspect, false, 0),
            (State::Dead, true, 1),
            (State::Left, true, 0),
        ] {
            let mut view = view(now, false, 1);
            let profile = (state == State::Left).then(|| said(0, true, 9, Meta::default()));
            let record = MemberRecord { incarnation: 0, state, profile };
            let claim = Fact { key: key(0), record, age_s: 0, accusers: vec![key(1)] };
            assert!(view.answer_claim(now, &claim, &key(1), probed), "the sender needs the refutation");
            assert_eq!(view.health.score(), health, "{state:?}, probed {probed}");
            assert_eq!(view.outbox.poll_event(), Some(MembershipEvent::Refuted { incarnation: 1 }));
            assert!(view.gossip.queue.contains(&GossipTopic::Member(key(0))));
        }
    }
}
