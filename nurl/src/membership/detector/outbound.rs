//! Building messages: what rides on which, and to whom.

use std::time::Instant;

use rand_core::Rng as _;

use super::{Detector, Event, JOIN_FANOUT, MAX_TRANSMITS, Transmit, Via};
use crate::key::PublicKey;
use crate::membership::gossip::{Topic, retransmit_limit};
use crate::membership::message::{self, Body, Chunk, MAX_CHUNK_BYTES, MAX_DATAGRAM_BYTES, MAX_FACTS};
use crate::membership::pushpull::{self, MAX_CHUNKS};
use crate::membership::random;
use crate::membership::table::{Entry, Fact, Member, State};

impl Detector {
    /// Sends a message with what must ride on it, and as much gossip as fits. None rides to a peer that may be silent:
    /// each fact is told a few times only, and when many die together, the dead would take most of them.
    pub(super) fn send(&mut self, to: PublicKey, via: Via, body: Body, pinned: &[Fact]) {
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

    /// The record of a peer that isn't simply alive, without its profile: whoever is talked about is told
    /// (Lifeguard's buddy system), and so are the dead that talk.
    pub(super) fn buddy_fact(&self, now: Instant, peer: &PublicKey) -> Option<Fact> {
        let entry = self.table.entry(peer).filter(|entry| entry.record.state != State::Alive)?;
        let mut fact = entry.fact(now);
        fact.record.profile = None;
        Some(fact)
    }

    pub(super) fn send_gossip(&mut self, to: PublicKey) {
        self.send(to, Via::Datagram, Body::Gossip, &[]);
    }

    /// Queues this node's word about itself.
    pub(super) fn gossip_self(&mut self) {
        if !self.observer {
            let bytes = message::encode_fact(&self.self_fact());
            self.gossip_topic(Topic::Member(self.me.key), bytes);
        }
    }

    /// Queues what the record of a member says. The profile rides with the living only: for the others it
    /// changes nothing, and push-pull carries it to newcomers.
    pub(super) fn gossip_member(&mut self, now: Instant, key: &PublicKey) {
        let Some(entry) = self.table.entry(key) else { return };
        let mut fact = entry.fact(now);
        if fact.record.state != State::Alive {
            fact.record.profile = None;
        } else if !speaks_for_itself(entry) {
            return;
        }
        self.gossip_topic(Topic::Member(*key), message::encode_fact(&fact));
    }

    pub(super) fn gossip_topic(&mut self, topic: Topic, bytes: Vec<u8>) {
        if !self.observer && !self.queue.push(topic, bytes) {
            self.stats.gossip_full += 1;
        }
    }

    /// One tick of gossip: to a few random members, and what is said of it to one that is suspect or died a moment ago,
    /// for it may be alive and not know.
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
            self.send(peer, Via::Datagram, Body::Gossip, &told);
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

    /// Up to `count` random members of a sort.
    pub(super) fn random_members(&mut self, count: usize, of: impl Fn(&Member) -> bool) -> Vec<PublicKey> {
        let members = self.table.members().filter(|member| of(member)).map(|member| member.key).collect();
        random::sample(&mut self.rng, members, count)
    }

    /// Starts an exchange of tables.
    pub(super) fn start_push_pull(&mut self, now: Instant, peer: PublicKey) {
        let id = self.rng.next_u64();
        if peer == self.me.key || !self.push_pull.start(now, self.config.push_pull_timeout, id, peer) {
            return;
        }
        self.emit(Event::WantSession { peer });
        self.send_table(now, peer, id, true);
    }

    /// Sends the whole table, own word first.
    pub(super) fn send_table(&mut self, now: Instant, to: PublicKey, id: u64, request: bool) {
        let body = |index, total| {
            let chunk = Chunk { id, index, total };
            if request { Body::PushPull(chunk) } else { Body::PushPullAck(chunk) }
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
            // Only hearsay of an old incarnation is known: nothing that an alive fact could say.
            entry.record.state != State::Alive || speaks_for_itself(entry)
        });
        std::iter::once(self.self_fact())
            .chain(others.map(|entry| entry.fact(now)))
            .map(|fact| message::encode_fact(&fact))
            .collect()
    }

    /// Asks some contacts, and tries again until one answers.
    pub(super) fn try_join(&mut self, now: Instant) {
        if self.contacts.is_empty() {
            return;
        }
        self.next_join = Some(now + self.config.join_retry);
        let able = self.contacts.iter().filter(|contact| !self.observers.contains(contact));
        let contacts = random::sample(&mut self.rng, able.copied().collect(), JOIN_FANOUT);
        for contact in contacts {
            self.start_push_pull(now, contact);
        }
    }

    /// A body for the mesh group: this node is here, and whoever misses it may say so.
    pub fn announce(&mut self) -> Vec<u8> {
        let body = Body::Announce { nonce: self.rng.next_u64() };
        message::assemble(self.epoch, self.observer, &body, &[], &[])
    }

    pub(super) fn check_departed(&mut self) {
        let done = !self.queue.contains(&Topic::Member(self.me.key)) || self.table.live() == 0;
        if self.departing && done {
            self.departing = false;
            self.emit(Event::Departed);
        }
    }
}

/// Whether the record has the profile of its own incarnation, as an alive fact must.
fn speaks_for_itself(entry: &Entry) -> bool {
    entry.record.profile.as_ref().is_some_and(|profile| profile.incarnation == entry.record.incarnation)
}
