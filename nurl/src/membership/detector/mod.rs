//! The failure detector: one per node, a pure state machine.
//!
//! Its driver feeds it time, messages and notices of the layers below. After each call drain
//! [`poll_transmit`](Detector::poll_transmit) and [`poll_event`](Detector::poll_event), and call
//! [`handle_timeout`](Detector::handle_timeout) at [`poll_timeout`](Detector::poll_timeout). The sibling modules hold
//! the rules; this one combines them.

mod inbound;
mod outbound;
mod timers;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::awareness::Awareness;
use super::config::Config;
use super::event::{DetectorStats, MembershipError, MembershipEvent};
use super::gossip::{GossipQueue, Topic};
use super::isolation::Isolation;
use super::join::{Join, MAX_CONTACTS, Obstacle};
use super::message::{self, MAX_EVENT_BYTES, UserEvent};
use super::meta::Meta;
use super::probe::Prober;
use super::pushpull::PushPull;
use super::suspicion::Suspicion;
use super::table::{Fact, Member, Profile, Record, State, Table};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::net::reach::rendezvous::Contact;
use crate::rt::Rng;

/// The most messages queued to be sent. The driver drains after every call; a full table is about 200 chunks and up
/// to three joins run at once. Beyond the limit the newest is dropped and counted.
pub const MAX_TRANSMITS: usize = 2048;

/// The most queued events. One chunk of a table makes at most a few hundred. Beyond the limit the newest is dropped
/// and counted; [`Detector::members`] is always current.
pub const MAX_WAITING_EVENTS: usize = 16_384;

/// Members with which this node starts exchanges at a time: after a suspend, or when a hub names some that this node
/// doesn't hold live.
pub const EXCHANGE_FANOUT: usize = 3;

/// The most pings on behalf of others at a time. Beyond the limit the request gets a NACK at once: this node is
/// alive, but can't probe the target.
pub const MAX_SERVED: usize = 128;

/// User events that are remembered, so that each is delivered once.
pub const MAX_SEEN_EVENTS: usize = 1024;

/// How far an epoch counter may jump above the highest known, so that one message can't fence out all later
/// tenures.
pub const MAX_EPOCH_JUMP: u64 = 1 << 32;

/// When this node becomes isolated, it retracts its own accusations younger than this, since they were made while it
/// lost contact. Isolation shows within one probe window; this is three windows.
pub const RETRACT: Duration = Duration::from_secs(30);

/// Refutations per second. Two processes with one key outbid each other endlessly; the limit keeps that cheap.
pub const MAX_REFUTATIONS_PER_SECOND: u32 = 8;

/// Members that are told of a graceful leave at once, before gossip tells the rest.
pub const LEAVE_FANOUT: usize = 16;

/// Observers that a member remembers, so that it doesn't ask them for a table. Beyond the limit the oldest is asked
/// once more.
pub const MAX_OBSERVERS: usize = 256;

/// The most announcements that wait for their random delay.
pub const MAX_ANSWERS: usize = 32;

/// Members that answer one announcement.
pub const ANSWERERS: usize = 3;

/// The channel of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Channel 1, at most 1,200 bytes.
    Datagram,
    /// A reliable message of kind 1.
    Reliable,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub to: PublicKey,
    /// The channel.
    pub via: Via,
    /// The encoded message.
    pub body: Vec<u8>,
}

/// A ping on behalf of another member.
#[derive(Debug)]
struct Served {
    origin: PublicKey,
    origin_seq: u64,
    target: PublicKey,
    again_at: Option<Instant>,
    nack_at: Option<Instant>,
    until: Instant,
}

/// The healing probe of a dead member: a few pings, since its session may have expired.
#[derive(Debug)]
struct Healing {
    peer: PublicKey,
    seq: u64,
    next: Instant,
    left: u32,
}

/// The failure detector of one node.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    rng: Rng,
    me: Member,
    observer: bool,
    table: Table,
    queue: GossipQueue,
    awareness: Awareness,
    suspicions: BTreeMap<PublicKey, Suspicion>,
    /// Members with a verdict of isolation that isn't in effect yet.
    local_dead: BTreeSet<PublicKey>,
    prober: Prober,
    served: BTreeMap<u64, Served>,
    healing: Option<Healing>,
    /// Contacts in the last LIST: the dead among them are healed first.
    named: Vec<PublicKey>,
    /// Keys that announced themselves as observers.
    observers: VecDeque<PublicKey>,
    /// When a peer last answered in time: evidence that this node isn't slow.
    answered: Option<Instant>,
    push_pull: PushPull,
    isolation: Isolation,
    epoch: u64,
    join: Join,
    /// After a suspend no verdict is reached before a push-pull, or before this time.
    hold_verdicts: Option<Instant>,
    seq: u64,
    seen_events: VecDeque<(PublicKey, u64)>,
    answers: Vec<(Instant, PublicKey)>,
    refutations: (Option<Instant>, u32),
    next_probe: Instant,
    next_gossip: Instant,
    next_push_pull: Instant,
    /// An observer's time until its next push-pull.
    look_again: Duration,
    departing: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<MembershipEvent>,
    stats: DetectorStats,
}

impl Detector {
    /// A detector that knows no other node. An `observer` is never gossiped about, probed or counted.
    pub fn new(
        config: Config,
        local: PublicKey,
        boot: u64,
        meta: Meta,
        observer: bool,
        now: Instant,
        mut rng: Rng,
    ) -> Detector {
        let isolation = Isolation::new(config.isolation_window, config.hub_freshness);
        // Nodes that start together must not probe and exchange in lockstep.
        let next_probe = now + draw::duration(&mut rng, config.probe_interval);
        let next_push_pull = now + draw::duration(&mut rng, config.push_pull_interval);
        Detector {
            me: Member { key: local, state: State::Alive, incarnation: 0, boot, meta, since: now },
            observer,
            table: Table::default(),
            queue: GossipQueue::default(),
            awareness: Awareness::default(),
            suspicions: BTreeMap::new(),
            local_dead: BTreeSet::new(),
            prober: Prober::default(),
            served: BTreeMap::new(),
            healing: None,
            named: Vec::new(),
            observers: VecDeque::new(),
            answered: None,
            push_pull: PushPull::default(),
            isolation,
            epoch: 0,
            join: Join::default(),
            hold_verdicts: None,
            seq: rng.next_u64() >> 16,
            seen_events: VecDeque::new(),
            answers: Vec::new(),
            refutations: (None, 0),
            next_probe,
            next_gossip: now,
            next_push_pull,
            look_again: config.push_pull_interval,
            departing: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: DetectorStats::default(),
            config,
            rng,
        }
    }

    /// Starts to join, as [`join`](super::join) describes, with the contacts from
    /// [`on_contacts`](Detector::on_contacts). After [`leave`](Detector::leave) this joins again. A node with live
    /// members in its table has joined already.
    pub fn join(&mut self, now: Instant) {
        if self.table.live() == 0 || self.me.state == State::Left {
            self.join.begin(now);
        }
        if self.me.state == State::Left {
            self.departing = false;
            self.next_probe = now + self.config.probe_interval;
            self.me.state = State::Alive;
            self.me.since = now;
            self.me.incarnation += 1;
            self.gossip_self();
        }
    }

    /// Contacts that `hub` named in answer to a LIST, or `None` for another source. After joining, a node asks only
    /// contacts that it doesn't hold live: so separated halves of a mesh meet again.
    pub fn on_contacts(&mut self, now: Instant, hub: Option<PublicKey>, contacts: &[Contact]) {
        let has_table = |key: &PublicKey| *key != self.me.key && !self.observers.contains(key);
        let others: Vec<_> = contacts.iter().filter(|contact| has_table(&contact.key)).copied().collect();
        self.join.handle_contacts(now, hub, &others, &mut self.rng);
        if self.join.is_active() {
            self.run_join(now);
            return;
        }
        let opened = others.iter().filter(|contact| contact.opened).map(|contact| contact.key);
        self.named = opened.clone().take(MAX_CONTACTS).collect();
        let is_live = |key: &PublicKey| self.table.get(key).is_some_and(|member| member.state.is_live());
        let lost = opened.filter(|key| !is_live(key)).collect();
        for contact in draw::sample(&mut self.rng, lost, EXCHANGE_FANOUT) {
            self.start_push_pull(now, contact);
        }
    }

    /// The reason why this node hasn't joined yet.
    pub fn obstacle(&self) -> Obstacle {
        self.join.obstacle()
    }

    /// Leaves gracefully: the others hold this node *left*, not dead. It tells some at once and then gossips;
    /// [`MembershipEvent::Departed`] follows when the fact was sent often enough.
    pub fn leave(&mut self, now: Instant) {
        if self.observer || self.me.state == State::Left {
            return;
        }
        self.me.state = State::Left;
        self.me.since = now;
        self.departing = true;
        self.join.finish();
        self.prober.stop();
        self.healing = None;
        self.answers.clear();
        self.gossip_self();
        let told = self.random_members(LEAVE_FANOUT, |member| member.state.is_live());
        for peer in told {
            self.send_gossip(peer);
        }
        self.next_gossip = now + self.config.gossip_interval;
        self.check_departed();
    }

    /// Replaces this node's metadata and gossips it.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: `Node` changes what it says of itself")
    )]
    pub fn set_meta(&mut self, meta: Meta) {
        if self.me.meta != meta {
            self.me.meta = meta;
            self.me.incarnation += 1;
            self.gossip_self();
        }
    }

    /// Gossips a small event to every member. At most once each, best effort.
    ///
    /// # Errors
    /// [`MembershipError::EventTooLarge`], [`MembershipError::EventsFull`], [`MembershipError::NotAMember`].
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: user events"))]
    pub fn broadcast(&mut self, body: &[u8]) -> Result<(), MembershipError> {
        if body.len() > MAX_EVENT_BYTES {
            return Err(MembershipError::EventTooLarge(body.len()));
        }
        if self.observer || self.me.state == State::Left {
            return Err(MembershipError::NotAMember);
        }
        let event = UserEvent { origin: self.me.key, id: self.rng.next_u64(), body: body.to_vec() };
        let topic = Topic::UserEvent(event.origin, event.id);
        if !self.queue.push(topic, message::encode_event(&event)) {
            self.stats.gossip_full += 1;
            return Err(MembershipError::EventsFull);
        }
        self.see(event.origin, event.id);
        Ok(())
    }

    /// Records an epoch counter, from a tenure taken here or an admit reply. Every message carries the highest.
    ///
    /// # Errors
    /// [`MembershipError::EpochJump`]; the counter is ignored and the jump is counted.
    pub fn note_epoch(&mut self, counter: u64) -> Result<(), MembershipError> {
        if counter > self.epoch.saturating_add(MAX_EPOCH_JUMP) {
            self.stats.epoch_jumps += 1;
            return Err(MembershipError::EpochJump { counter, highest: self.epoch });
        }
        self.epoch = self.epoch.max(counter);
        Ok(())
    }

    /// The highest epoch counter known.
    pub fn highest_epoch(&self) -> u64 {
        self.epoch
    }

    /// All known members, this node first unless it is an observer, then by key.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        (!self.observer).then_some(&self.me).into_iter().chain(self.table.members())
    }

    /// One member.
    pub fn member(&self, key: &PublicKey) -> Option<&Member> {
        if *key == self.me.key { Some(&self.me) } else { self.table.get(key) }
    }

    /// This node.
    pub fn local(&self) -> &Member {
        &self.me
    }

    /// Number of live members, this node included unless it is an observer: SWIM's n.
    pub fn live(&self) -> usize {
        self.table.live() + usize::from(!self.observer && self.me.state.is_live())
    }

    /// Peers to try first after a restart: live members in random order, then known contacts. At most
    /// [`MAX_CONTACTS`].
    #[cfg(test)]
    pub fn contacts(&mut self) -> Vec<PublicKey> {
        let mut contacts = self.random_members(MAX_CONTACTS, |member| member.state.is_live());
        let known = self.join.opened().filter(|key| !contacts.contains(key)).copied();
        let known: Vec<_> = known.take(MAX_CONTACTS - contacts.len()).collect();
        contacts.extend(known);
        contacts
    }

    /// Whether this node considers itself isolated.
    pub fn is_isolated(&self) -> bool {
        self.isolation.since().is_some()
    }

    /// The local health score, 0 to 8.
    pub fn health(&self) -> u32 {
        self.awareness.score()
    }

    /// Counters.
    pub fn stats(&self) -> &DetectorStats {
        &self.stats
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    fn emit(&mut self, event: MembershipEvent) {
        if self.events.len() < MAX_WAITING_EVENTS {
            self.events.push_back(event);
        } else {
            self.stats.events_dropped += 1;
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// This node's fact about itself.
    fn self_fact(&self) -> Fact {
        let Member { key, state, incarnation, boot, .. } = self.me;
        let profile = Profile { incarnation, boot, meta: self.me.meta.clone() };
        let record = Record { incarnation, state, profile: Some(profile) };
        Fact { key, record, age_s: 0, accusers: Vec::new() }
    }

    /// Records a user event. True if it is new.
    fn see(&mut self, origin: PublicKey, id: u64) -> bool {
        if self.seen_events.contains(&(origin, id)) {
            return false;
        }
        if self.seen_events.len() >= MAX_SEEN_EVENTS {
            self.seen_events.pop_front();
        }
        self.seen_events.push_back((origin, id));
        true
    }
}

#[cfg(test)]
#[path = "../tests/mod.rs"]
mod tests;
