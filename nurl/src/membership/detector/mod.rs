//! The failure detector: one per node, a pure state machine.
//!
//! Its driver feeds it time, messages and notices of the layers below. After each call drain
//! [`poll_transmit`](Detector::poll_transmit) and [`poll_event`](Detector::poll_event), and call
//! [`handle_timeout`](Detector::handle_timeout) at [`poll_timeout`](Detector::poll_timeout).
//!
//! The detector combines its parts; each owns its data and its deadline. All of them speak through the view.
//!
//! | part | what it owns |
//! | --- | --- |
//! | `view` | the member table, this node's own record, the gossip, the queues to the driver, the counters |
//! | `prober` | the probes of this node: rounds and those out of turn |
//! | `indirect` | the pings on behalf of others |
//! | `suspicions` | the suspects and their time, this node's own isolation |
//! | `exchanges` | the push-pulls, the known observers |
//! | `healing` | the ping of a dead member that repairs a partition |
//! | `announcements` | the announced nodes that this one will answer |
//! | [`join`](super::join) | the contacts of a newcomer |
//! | `local`, `dissemination`, `hearsay`, `outbox` | within the view: this node's own record, the gossip, claims against members, the queues to the driver |
//!
//! `inbound` is the detector's side that handles what arrives.

mod announcements;
mod dissemination;
mod exchanges;
mod healing;
mod hearsay;
mod inbound;
mod indirect;
mod local;
mod outbox;
mod prober;
mod suspicions;
mod view;

use std::time::{Duration, Instant};

use rand_core::Rng as _;

pub use announcements::{ANSWERERS, MAX_ANSWERS};
pub use dissemination::MAX_SEEN_EVENTS;
pub use exchanges::{EXCHANGE_FANOUT, MAX_OBSERVERS};
pub use hearsay::{CLAIM_BURST, CLAIMS_PER_SECOND};
pub use indirect::MAX_SERVED;
pub use local::MAX_REFUTATIONS_PER_SECOND;
pub use outbox::{MAX_TRANSMITS, MAX_WAITING_EVENTS, Transmit, Via};
pub use suspicions::RETRACT;

use self::announcements::Announcements;
use self::exchanges::Exchanges;
use self::healing::Healing;
use self::indirect::IndirectPings;
use self::local::{EpochSource, LocalMember};
use self::prober::Prober;
use self::suspicions::Suspicions;
use self::view::MeshView;
use super::config::DetectorConfig;
use super::event::{DetectorStats, MembershipError, MembershipEvent};
use super::gossip::GossipTopic;
use super::join::{Join, Obstacle};
use super::message::{self, MAX_EVENT_BYTES, MessageBody, UserEvent};
use super::meta::Meta;
use super::notary::Notary;
use super::table::Member;
use crate::authority::pass::Pass;
use crate::authority::revocation::{MAX_ENTRIES, Revocations};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::net::reach::rendezvous::Contact;
use crate::rt::Rng;

/// Members that are told of a graceful leave at once, before gossip tells the rest.
pub const LEAVE_FANOUT: usize = 16;

/// So many of them are told reliably, and gossip on: one that has heard it would be enough.
const LEAVE_RELIABLY: usize = 3;

/// The most peers whose facts are refused because their pass was revoked: each that the authority names, and as many by
/// an invitation or all together.
const MAX_OUTCASTS: usize = 2 * MAX_ENTRIES;

/// The failure detector of one node.
#[derive(Debug)]
pub struct Detector {
    view: MeshView,
    prober: Prober,
    indirect: IndirectPings,
    suspicions: Suspicions,
    exchanges: Exchanges,
    healing: Healing,
    announcements: Announcements,
    join: Join,
}

impl Detector {
    /// The detector of the notary's node, that knows no other node. An `observer` is never gossiped about, probed or counted.
    pub fn new(
        config: DetectorConfig,
        notary: Notary,
        boot: u64,
        meta: Meta,
        observer: bool,
        now: Instant,
        mut rng: Rng,
    ) -> Detector {
        // Nodes that start together must not probe and exchange in lockstep.
        let first_probe = now + draw::duration(&mut rng, config.probe_interval);
        let first_exchange = now + draw::duration(&mut rng, config.push_pull_interval);
        let mut local = LocalMember::new(notary.key(), boot, meta, observer, now);
        if let Some(grant) = notary.grant() {
            local.set_grant(grant.clone(), false);
        }
        Detector {
            prober: Prober::new(first_probe),
            indirect: IndirectPings::default(),
            suspicions: Suspicions::new(&config),
            exchanges: Exchanges::new(first_exchange, config.push_pull_interval),
            healing: Healing::default(),
            announcements: Announcements::default(),
            join: Join::default(),
            view: MeshView::new(config, local, notary, now, rng),
        }
    }

    // ---- Commands.

    /// Starts to join, as [`join`](super::join) describes, with the contacts from
    /// [`on_contacts`](Detector::on_contacts). After [`leave`](Detector::leave) this joins again. A node with live
    /// members in its table has joined already.
    pub fn join(&mut self, now: Instant) {
        let left = self.view.local.has_left();
        if self.view.table.live() == 0 || left {
            self.join.begin(now);
        }
        if left {
            self.prober.schedule(now + self.view.config.probe_interval);
            self.view.local.rejoin(now);
            self.view.gossip_self();
        }
    }

    /// Leaves gracefully: the others hold this node *left*, not dead. It tells some at once and then gossips;
    /// [`MembershipEvent::Departed`] follows when the fact was sent often enough.
    pub fn leave(&mut self, now: Instant) {
        if !self.view.local.is_member() {
            return;
        }
        self.view.local.leave(now);
        self.join.finish();
        self.prober.stop();
        self.healing.stop();
        self.announcements.stop();
        self.view.gossip_self();
        let mut told = self.view.random_members(LEAVE_FANOUT, |member| member.state.is_live());
        // One that has just come may know few, and be known to those that it asked.
        let asked: Vec<PublicKey> = self.join.asked().filter(|peer| !told.contains(peer)).copied().collect();
        told.extend(asked.into_iter().take(LEAVE_RELIABLY.saturating_sub(told.len())));
        // A close may overtake a datagram, which then opens at nobody any more. What is sent reliably is acknowledged before.
        for (place, peer) in told.into_iter().enumerate() {
            let via = if place < LEAVE_RELIABLY { Via::Reliable } else { Via::Datagram };
            self.view.send(peer, via, MessageBody::Gossip, &[]);
        }
        self.view.gossip.schedule(now + self.view.config.gossip_interval);
        self.view.check_departed();
    }

    /// Replaces this node's metadata and gossips it.
    pub fn set_meta(&mut self, meta: Meta) {
        if self.view.local.set_meta(meta) {
            self.view.gossip_self();
        }
    }

    /// Gossips a small event to every member. At most once each, best effort.
    ///
    /// # Errors
    /// [`MembershipError::EventTooLarge`], [`MembershipError::EventsFull`], [`MembershipError::NotAMember`].
    pub fn broadcast(&mut self, body: &[u8]) -> Result<(), MembershipError> {
        if body.len() > MAX_EVENT_BYTES {
            return Err(MembershipError::EventTooLarge(body.len()));
        }
        if !self.view.local.is_member() {
            return Err(MembershipError::NotAMember);
        }
        let (origin, id) = (self.view.local.key(), self.view.rng.next_u64());
        let event = UserEvent { origin, id, body: body.to_vec() };
        let displaced = self.view.gossip.queue.make_room_for_own_event(origin);
        self.view.stats.gossip_full += u64::from(displaced);
        if !self.view.push_gossip(GossipTopic::UserEvent(origin, id), message::encode_event(&event)) {
            return Err(MembershipError::EventsFull);
        }
        self.view.gossip.see(origin, id);
        Ok(())
    }

    /// Sets the wall clock, the time since 1970: it limits the [epoch counters](super::epoch) that are believed. The
    /// driver sets it at the start and about every second.
    pub fn set_unix_now(&mut self, unix_now: Duration) {
        self.view.local.set_unix_now(unix_now);
    }

    /// Records an epoch counter, from a tenure taken here or an admit reply. Every message carries the highest.
    ///
    /// # Errors
    /// [`MembershipError::EpochTooHigh`]; the counter is ignored, and counted.
    pub fn note_epoch(&mut self, counter: u64) -> Result<(), MembershipError> {
        self.view.note_epoch(counter, EpochSource::Own)
    }

    /// A peer's pass was revoked: it is no member from now on, and what is told about it is refused until
    /// [`readmit`](Detector::readmit).
    pub fn expel(&mut self, peer: PublicKey) {
        if self.view.outcasts.contains(&peer) {
            return;
        }
        self.shun(peer);
        if peer == self.view.local.key() {
            return;
        }
        self.exchanges.cancel(&peer);
        if self.view.table.expel(&peer) {
            self.remove(peer);
        }
        self.view.emit(MembershipEvent::Expelled(peer));
    }

    /// Refuses what is told about a peer whose pass was revoked before this node began.
    pub fn shun(&mut self, peer: PublicKey) {
        if peer != self.view.local.key() && self.view.outcasts.len() < MAX_OUTCASTS {
            self.view.outcasts.insert(peer);
        }
    }

    /// A peer has shown a pass that counts: what is told about it is heard again.
    pub fn readmit(&mut self, peer: &PublicKey) {
        self.view.outcasts.remove(peer);
    }

    /// Sets all revocations that this node knows: their digest, which each exchange of tables compares, and the members
    /// whose pass they end, whether this node has met them or not.
    pub fn set_revocations(&mut self, revocations: &Revocations) {
        self.view.notary.set_revocations(revocations);
        let revoked = self.view.table.members().filter(|member| self.view.notary.revokes(&member.grant));
        for peer in revoked.map(|member| member.key).collect::<Vec<_>>() {
            self.expel(peer);
        }
    }

    /// This node has another pass: it says so.
    pub fn set_pass(&mut self, pass: Pass) {
        let (grant, renewed) = (pass.grant().clone(), self.view.notary.grant().is_some());
        if self.view.notary.set_pass(pass) {
            self.view.local.set_grant(grant, renewed);
            self.view.gossip_self();
        }
    }

    /// A body for the mesh group: this node is present, and a member that doesn't know it may answer.
    pub fn announce(&mut self) -> Vec<u8> {
        let nonce = self.view.rng.next_u64();
        self.view.assemble(&MessageBody::Announce { nonce }, &[], &[])
    }

    // ---- The view of the mesh.

    /// All known members, this node first unless it is an observer, then by key.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let local = &self.view.local;
        (!local.is_observer()).then_some(local.member()).into_iter().chain(self.view.table.members())
    }

    /// One member.
    pub fn member(&self, key: &PublicKey) -> Option<&Member> {
        if *key == self.view.local.key() { Some(self.local()) } else { self.view.table.get(key) }
    }

    /// This node.
    pub fn local(&self) -> &Member {
        self.view.local.member()
    }

    /// Number of live members, this node included unless it is an observer: SWIM's n.
    pub fn live(&self) -> usize {
        self.view.live()
    }

    /// The highest epoch counter known.
    pub fn highest_epoch(&self) -> u64 {
        self.view.local.epoch()
    }

    /// The reason why this node hasn't joined yet.
    pub fn obstacle(&self) -> Obstacle {
        self.join.obstacle()
    }

    /// Peers to try first after a restart: live members in random order, then known contacts. At most
    /// [`MAX_CONTACTS`](super::join::MAX_CONTACTS).
    #[cfg(test)]
    pub fn contacts(&mut self) -> Vec<PublicKey> {
        use super::join::MAX_CONTACTS;
        let mut contacts = self.view.random_members(MAX_CONTACTS, |member| member.state.is_live());
        let known = self.join.opened().filter(|key| !contacts.contains(key)).copied();
        let known: Vec<_> = known.take(MAX_CONTACTS - contacts.len()).collect();
        contacts.extend(known);
        contacts
    }

    /// Whether this node considers itself isolated.
    pub fn is_isolated(&self) -> bool {
        self.suspicions.is_isolated()
    }

    /// The local health score, 0 to 8.
    pub fn health(&self) -> u32 {
        self.view.health.score()
    }

    /// Counters.
    pub fn stats(&self) -> &DetectorStats {
        &self.view.stats
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.view.outbox.poll_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.view.outbox.poll_event()
    }

    // ---- Notices of the layers below.

    /// Contacts that `hub` named in answer to a LIST, or `None` for another source. After joining, a node asks only
    /// contacts that it doesn't hold live: so separated halves of a mesh meet again.
    pub fn on_contacts(&mut self, now: Instant, hub: Option<PublicKey>, contacts: &[Contact]) {
        let me = self.view.local.key();
        let has_table = |key: &PublicKey| {
            *key != me && !self.exchanges.is_observer(key) && !self.view.outcasts.contains(key)
        };
        let others: Vec<_> = contacts.iter().filter(|contact| has_table(&contact.key)).copied().collect();
        self.join.handle_contacts(now, hub, &others, &mut self.view.rng);
        if self.join.is_active() {
            self.run_join(now);
            return;
        }
        let opened = others.iter().filter(|contact| contact.opened).map(|contact| contact.key);
        self.healing.name(opened.clone());
        let lost = opened.filter(|key| !self.view.table.is_live(key)).collect();
        for contact in draw::sample(&mut self.view.rng, lost, EXCHANGE_FANOUT) {
            self.exchanges.start(now, &mut self.view, contact);
        }
    }

    /// A hub accepts this node.
    pub fn on_hub_up(&mut self, hub: PublicKey) {
        self.join.handle_hub(hub, true);
    }

    /// A hub says that `peer` isn't connected to it. True if that ends an attempt to join through `peer`: every hub
    /// that is up denies it, and only the join wanted a session with it.
    pub fn on_denied(&mut self, now: Instant, hub: PublicKey, peer: PublicKey) -> bool {
        self.prober.handle_denied(now, &mut self.view, peer);
        let ends = self.join.handle_denied(hub, &peer);
        if ends {
            self.exchanges.cancel(&peer);
            self.run_join(now);
        }
        ends && self.view.table.get(&peer).is_none()
    }

    /// A hub answered a PING.
    pub fn on_hub_pong(&mut self, now: Instant) {
        self.suspicions.evidence().hub_pong(now);
        self.weigh_isolation(now);
    }

    /// The connection to a hub is gone; `last`: no other hub is connected.
    pub fn on_hub_down(&mut self, now: Instant, hub: PublicKey, last: bool) {
        self.join.handle_hub(hub, false);
        if last {
            self.suspicions.evidence().hub_down();
            self.weigh_isolation(now);
        }
        self.run_join(now);
    }

    /// The wall clock ran ahead of the monotonic one: this machine was suspended. No verdict is reached before a
    /// push-pull completes or times out.
    pub fn on_suspend(&mut self, now: Instant) {
        self.prober.restart(now);
        self.suspicions.hold(now, now + self.view.config.push_pull_timeout);
        let peers = self.view.random_members(EXCHANGE_FANOUT, |member| member.state.is_live());
        for peer in peers {
            self.exchanges.start(now, &mut self.view, peer);
        }
        self.exchanges.schedule(now + self.view.config.push_pull_interval);
    }

    /// A datagram to `peer` could not be sealed: there is no session yet. The clock of a probe of `peer` is held.
    pub fn on_session_pending(&mut self, now: Instant, peer: PublicKey) {
        self.prober.hold(now, &self.view, peer);
    }

    /// A session to `peer` is up. Who is held dead, or to have left, is pinged with that: it may be back.
    pub fn on_session_up(&mut self, now: Instant, peer: PublicKey) {
        self.join.handle_session(&peer);
        if !self.view.local.is_observer() && self.view.table.get(&peer).is_some_and(|of| !of.state.is_live())
        {
            let seq = self.view.outbox.next_seq();
            self.prober.remember(seq, peer);
            self.view.send_ping(now, peer, Via::Datagram, seq);
        }
        self.prober.session_up(now, &mut self.view, peer, self.suspicions.is_under_way(&peer));
        self.healing.session_up(now, &peer);
    }

    /// A handshake with `peer` failed, and with it the direct leg of its probe.
    pub fn on_session_failed(&mut self, now: Instant, peer: PublicKey) {
        self.prober.session_failed(now, peer);
    }

    /// A reliable message of this node to `peer` was lost.
    pub fn on_message_lost(&mut self, now: Instant, peer: PublicKey) {
        if self.exchanges.cancel(&peer) {
            self.exchange_failed(now, peer);
            self.run_join(now);
        }
    }

    // ---- Time.

    /// When [`handle_timeout`](Detector::handle_timeout) must be called. A call that comes much later is taken as a
    /// stall of this node.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.view.poll_timeout(),
            self.prober.poll_timeout(&self.view),
            self.indirect.poll_timeout(),
            self.suspicions.poll_timeout(),
            Some(self.exchanges.poll_timeout()),
            self.healing.poll_timeout(),
            self.announcements.poll_timeout(),
            self.join.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Runs everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(late) = self.prober.notice_stall(now, &mut self.view) {
            // Verdicts that would be due now wait as well: a refutation may be among the unread messages.
            self.suspicions.postpone(late);
        }
        self.run_probes(now);
        self.indirect.handle_timeout(now, &mut self.view);
        if self.suspicions.end_due(now, &mut self.view, &mut self.prober) {
            self.exchanges.schedule(now);
        }
        self.suspicions.count_local_verdicts(now, &mut self.view);
        self.healing.handle_timeout(now, &mut self.view);
        for peer in self.announcements.take_due(now) {
            self.exchanges.start(now, &mut self.view, peer);
        }
        for peer in self.exchanges.expire(now) {
            self.exchange_failed(now, peer);
        }
        self.run_join(now);
        if self.exchanges.is_due(now) {
            self.run_period(now);
        }
        if self.view.gossip.is_due(now) {
            self.view.gossip_tick(now);
        }
    }

    fn run_probes(&mut self, now: Instant) {
        for seq in self.prober.under_way() {
            if self.prober.advance(now, &mut self.view, seq) {
                self.probe_failed(now, seq);
            }
        }
        self.prober.start_due(now, &mut self.view);
    }

    /// The tasks of each push-pull period.
    fn run_period(&mut self, now: Instant) {
        self.exchanges.schedule_next(now, &self.view, self.suspicions.is_isolated());
        for gone in self.view.table.reclaim(now, &self.view.config) {
            self.forget(gone);
        }
        if self.view.local.has_left() {
            return;
        }
        match self.exchanges.partner(&mut self.view) {
            Some(peer) => self.exchanges.start(now, &mut self.view, peer),
            // All members are lost: the known contacts may lead back.
            None => self.join.begin(now),
        }
        if !self.view.local.is_observer() {
            self.view.emit(MembershipEvent::AnnounceDue);
        }
        self.healing.start(now, &mut self.view, &mut self.prober);
    }

    /// Asks the contacts in turn, until one answers.
    fn run_join(&mut self, now: Instant) {
        if self.join.poll_list(now) {
            self.view.emit(MembershipEvent::ListDue);
        }
        while let Some(contact) = self.join.poll_ask(now) {
            self.exchanges.start(now, &mut self.view, contact);
        }
        if self.join.poll_alone() {
            self.view.emit(MembershipEvent::Alone);
        }
    }

    // ---- Rules that concern several parts.

    /// A probe failed on every leg: that is evidence of isolation and, unless verdicts are held, against its target.
    fn probe_failed(&mut self, now: Instant, seq: u64) {
        let Some(target) = self.prober.fail(now, &mut self.view, seq) else { return };
        self.suspicions.evidence().probed(now, target, false);
        self.weigh_isolation(now);
        if self.suspicions.is_held(now) {
            return;
        }
        if !self.view.local.is_observer() {
            self.suspicions.accuse(now, &mut self.view, target);
        }
        // While this node hears nobody, its probes are no evidence.
        if !self.suspicions.is_isolated() {
            self.believe_claim(now, target);
        }
    }

    /// An exchange of tables ends isolation, and afterwards updates this node to the mesh's view. So one is due when
    /// isolation begins or ends.
    fn weigh_isolation(&mut self, now: Instant) {
        if self.suspicions.weigh_isolation(now, &mut self.view) {
            self.exchanges.schedule(now);
        }
    }

    fn exchange_failed(&mut self, now: Instant, peer: PublicKey) {
        self.exchanges.failed(now, &mut self.view, peer);
        self.join.handle_silence(&peer);
    }

    /// A dead or left member is no longer in the table.
    fn forget(&mut self, peer: PublicKey) {
        self.remove(peer);
        self.view.emit(MembershipEvent::Reclaimed(peer));
    }

    /// A member is no longer in the table.
    fn remove(&mut self, peer: PublicKey) {
        self.suspicions.remove(&peer);
        self.prober.forget(&peer);
        self.view.forget(peer);
    }
}

#[cfg(test)]
#[path = "../tests/mod.rs"]
mod tests;
