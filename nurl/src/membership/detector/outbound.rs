//! Building messages: their contents and their receivers.

use std::time::Instant;

use rand_core::Rng as _;

use super::{Detector, MAX_TRANSMITS, MembershipEvent, Transmit, Via};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::membership::gossip::{GossipTopic, retransmit_limit};
use crate::membership::message::{
    self, MAX_CHUNK_BYTES, MAX_DATAGRAM_BYTES, MAX_FACTS, MessageBody, TableChunk,
};
use crate::membership::pushpull::{self, MAX_CHUNKS};
use crate::membership::table::{Fact, Member, MemberEntry, State};

impl Detector {
    /// Sends a message with the `pinned` facts and as much gossip as fits. No gossip rides to a peer that may be
    /// silent: each fact is sent only a few times, and when many die together, the dead would take most of those
    /// sends.
    pub(super) fn send(&mut self, to: PublicKey, via: Via, body: MessageBody, pinned: &[Fact]) {
        let mut room = message::room(MAX_DATAGRAM_BYTES, self.observer, &body);
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
        if !self.observer && !silent {
            let limit = retransmit_limit(self.config.retransmit_factor, self.live());
            let picked = self.queue.pick(room, limit, &about);
            facts.extend(picked.facts);
            events = picked.events;
        }
        let body = message::assemble(self.epoch, self.observer, &body, &facts, &events);
        self.transmit(Transmit { to, via, body });
        self.check_departed();
    }

    fn transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() < MAX_TRANSMITS {
            self.transmits.push_back(transmit);
        } else {
            self.stats.transmits_dropped += 1;
        }
    }

    /// The record of a peer that isn't simply alive, without its profile: such a peer is told of it, whether suspect
    /// (Lifeguard's buddy system) or dead but still sending.
    pub(super) fn buddy_fact(&self, now: Instant, peer: &PublicKey) -> Option<Fact> {
        let entry = self.table.entry(peer).filter(|entry| entry.record.state != State::Alive)?;
        let mut fact = entry.fact(now);
        fact.record.profile = None;
        Some(fact)
    }

    pub(super) fn send_gossip(&mut self, to: PublicKey) {
        self.send(to, Via::Datagram, MessageBody::Gossip, &[]);
    }

    /// Queues this node's fact about itself.
    pub(super) fn gossip_self(&mut self) {
        if !self.observer {
            let bytes = message::encode_fact(&self.self_fact());
            self.gossip_topic(GossipTopic::Member(self.me.key), bytes);
        }
    }

    /// Queues a member's record as a fact. Only alive facts carry the profile: it changes nothing in the others, and
    /// push-pull carries it to newcomers.
    pub(super) fn gossip_member(&mut self, now: Instant, key: &PublicKey) {
        let Some(entry) = self.table.entry(key) else { return };
        let mut fact = entry.fact(now);
        if fact.record.state != State::Alive {
            fact.record.profile = None;
        } else if !speaks_for_itself(entry) {
            return;
        }
        self.gossip_topic(GossipTopic::Member(*key), message::encode_fact(&fact));
    }

    pub(super) fn gossip_topic(&mut self, topic: GossipTopic, bytes: Vec<u8>) {
        if !self.observer && !self.queue.push(topic, bytes) {
            self.stats.gossip_full += 1;
        }
    }

    /// One gossip tick: queued facts to a few random alive members. One suspect or recently dead member gets its own
    /// record, since it may be alive without knowing.
    pub(super) fn gossip_tick(&mut self, now: Instant) {
        self.next_gossip = now + self.config.gossip_interval;
        if self.observer || self.queue.is_empty() {
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
        let targets = self.random_members(self.config.gossip_fanout, |member| member.state == State::Alive);
        for peer in targets {
            if self.queue.is_empty() {
                break;
            }
            self.send_gossip(peer);
        }
        self.check_departed();
    }

    /// Up to `count` random members that match `of`.
    pub(super) fn random_members(&mut self, count: usize, of: impl Fn(&Member) -> bool) -> Vec<PublicKey> {
        let members = self.table.members().filter(|member| of(member)).map(|member| member.key).collect();
        draw::sample(&mut self.rng, members, count)
    }

    /// Starts an exchange of tables.
    pub(super) fn start_push_pull(&mut self, now: Instant, peer: PublicKey) {
        let id = self.rng.next_u64();
        if peer == self.me.key || !self.push_pull.start(now, self.config.push_pull_timeout, id, peer) {
            return;
        }
        self.emit(MembershipEvent::WantSession { peer });
        self.send_table(now, peer, id, true);
    }

    /// Sends the whole table, the fact about this node first.
    pub(super) fn send_table(&mut self, now: Instant, to: PublicKey, id: u64, request: bool) {
        let body = |index, total| {
            let chunk = TableChunk { id, index, total };
            if request { MessageBody::PushPull(chunk) } else { MessageBody::PushPullAck(chunk) }
        };
        let room = message::room(MAX_CHUNK_BYTES, self.observer, &body(MAX_CHUNKS, MAX_CHUNKS));
        let facts = if self.observer { Vec::new() } else { self.digest(now) };
        let chunks = pushpull::pack(facts.into_iter(), room, MAX_FACTS);
        let total = chunks.len() as u32;
        for (index, facts) in chunks.into_iter().enumerate() {
            let body = message::assemble(self.epoch, self.observer, &body(index as u32, total), &facts, &[]);
            self.transmit(Transmit { to, via: Via::Reliable, body });
        }
    }

    fn digest(&self, now: Instant) -> Vec<Vec<u8>> {
        let others = self.table.entries().filter(|entry| {
            // An alive fact needs the profile of its own incarnation; without it only second-hand facts are known.
            entry.record.state != State::Alive || speaks_for_itself(entry)
        });
        std::iter::once(self.self_fact())
            .chain(others.map(|entry| entry.fact(now)))
            .map(|fact| message::encode_fact(&fact))
            .collect()
    }

    /// Asks the contacts in turn, until one answers.
    pub(super) fn run_join(&mut self, now: Instant) {
        if self.join.poll_list(now) {
            self.emit(MembershipEvent::ListDue);
        }
        while let Some(contact) = self.join.poll_ask(now) {
            self.start_push_pull(now, contact);
        }
        if self.join.poll_alone() {
            self.emit(MembershipEvent::Alone);
        }
    }

    /// A body for the mesh group: this node is present, and a member that doesn't know it may answer.
    pub fn announce(&mut self) -> Vec<u8> {
        let body = MessageBody::Announce { nonce: self.rng.next_u64() };
        message::assemble(self.epoch, self.observer, &body, &[], &[])
    }

    pub(super) fn check_departed(&mut self) {
        let done = !self.queue.contains(&GossipTopic::Member(self.me.key)) || self.table.live() == 0;
        if self.departing && done {
            self.departing = false;
            self.emit(MembershipEvent::Departed);
        }
    }
}

/// Whether the record has the profile of its own incarnation, as an alive fact must.
fn speaks_for_itself(entry: &MemberEntry) -> bool {
    entry.record.profile.as_ref().is_some_and(|profile| profile.incarnation == entry.record.incarnation)
}
