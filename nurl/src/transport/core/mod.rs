//! The transport's core: sessions, routes, reliable messages and groups as one state machine without IO.
//!
//! Inputs are datagrams from the sockets, bytes of the hubs' streams, the interface list and the time. Outputs are
//! batches for the sockets, bytes for the hubs, and [`TransportEvent`]s for the layer above.
//!
//! Every input is followed by [`Transport::pump`], which moves data between the parts. A new session releases waiting
//! datagrams and opens the reliable connection. A reliable datagram is sealed onto the routes that the path state
//! machine selects. While a path is in doubt, both routes carry the same sealed bytes, and the receiver's replay
//! window drops the second copy.
//!
//! Each part owns its data, and [`Transport`] passes what one needs of another:
//!
//! | part | its data |
//! | --- | --- |
//! | [`Endpoint`] | sessions and paths |
//! | [`Reliable`], [`Groups`] | messages under way; groups and their keys |
//! | `exits`: `Exits` | sealed datagrams on their way to the sockets, and the `hubs` that relay, with a client for each |
//! | `peers`: `PeerTable` | the peers that are known, and the policy by which they are evicted |
//! | `candidates`: `Gatherer` | our addresses, with the hubs' STUN `servers` and what peers `observed` |
//! | `records`: `Records` | our record in rendezvous, and the keys to others' records |
//! | `inbox`: `Inbox` | datagrams and events for the layer above |
//! | `Waiting` | datagrams that wait for a session |
//!
//! This file has what the layer above asks for; `flow` has what arrives, and its way between the parts.

mod candidates;
mod exits;
mod flow;
mod hubs;
mod inbox;
mod observed;
mod peers;
mod records;
mod servers;
#[cfg(test)]
mod tests;

pub use hubs::HubState;
pub use inbox::Datagram;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::candidates::Gatherer;
use self::exits::Exits;
use self::hubs::Hubs;
use self::inbox::Inbox;
use self::peers::{Newcomer, PeerTable, QUIET, Traffic};
use self::records::Records;
use super::group::{self, Groups};
use super::outbox::Outbox;
use super::reliable::{self, MessageId, Priority, Reliable, ReliableConfig};
use super::waiting::Waiting;
use super::{
    Gauge, Gauges, MAX_DATAGRAM_BYTES, PathInfo, SendError, TransportConfig, TransportEvent, TransportStats,
    channel,
};
use crate::authority::UnixSeconds;
use crate::authority::account::Account;
use crate::authority::checker::Standing;
use crate::authority::level::Level;
use crate::authority::revocation::{NotTaken, Revocation, Revocations, Subject};
use crate::key::{AllowList, PublicKey};
use crate::kit::wall_clock::WallClock;
use crate::mesh::Generation;
use crate::net::reach::hub_client::{Answer, ClientStats, HubClient, HubClientConfig, Joining};
use crate::net::reach::stun;
use crate::net::secure::securedgram::paths::{PathReason, PathStats};
use crate::net::secure::securedgram::{self, Endpoint};
use crate::net::secure::version::Versions;
use crate::rt::Rng;
use crate::rt::net::Interface;

/// Peers that the endpoint may hold beyond the known ones: they began a handshake and haven't yet proved that they
/// have its keys. Each becomes idle after ten seconds; a hundred new ones a second is more than clients cause.
const UNCONFIRMED_PEERS: usize = 1_024;

/// The state of an accepted datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was sealed and queued for sending.
    Sealed,
    /// It waits for a session.
    Waiting,
}

/// The state machine; see the module.
pub struct Transport {
    local: PublicKey,
    endpoint: Endpoint,
    reliable: Reliable,
    groups: Groups,
    exits: Exits,
    waiting: Waiting,
    peers: PeerTable,
    gatherer: Gatherer,
    records: Records,
    inbox: Inbox,
    /// Packets of a reliable connection that are about to be sealed.
    plain: Vec<u8>,
    /// The counters that no part owns.
    stats: TransportStats,
}

impl Transport {
    /// A transport without sockets yet. `rng` returns a labelled stream for each part.
    pub fn new(
        config: &TransportConfig,
        now: Instant,
        unix_now: Duration,
        mut rng: impl FnMut(&str) -> Rng,
    ) -> Transport {
        let local = config.key.public();
        let generations = config.ticket.generations();
        let endpoint = Endpoint::new(
            securedgram::EndpointConfig {
                allow: config.allow.clone(),
                max_peers: config.limits.peers + UNCONFIRMED_PEERS,
                credential: config.credential.clone(),
                versions: config.versions,
                ..securedgram::EndpointConfig::new(
                    config.key.clone(),
                    config.ticket.mesh,
                    generations.clone(),
                    config.boot,
                )
            },
            now,
            unix_now,
            rng("sessions"),
        );
        let messages = ReliableConfig { max_peers: config.limits.peers, ..ReliableConfig::default() };
        let joining = Joining {
            mesh: config.ticket.mesh,
            credential: config.credential.clone(),
            invitation: config.ticket.invitation.clone(),
            name: config.name.clone(),
            wall: WallClock::new(now, unix_now),
            versions: config.versions,
        };
        let clients = config.ticket.hubs.iter().map(|hub| {
            let (hub, key, boot) = (hub.clone(), config.key.clone(), config.boot);
            // Each client has its own random stream.
            let rng = rng(&format!("hub-client {}", hub.key.short()));
            HubClient::new(HubClientConfig { hub, key, boot, joining: joining.clone() }, now, rng)
        });
        let hubs = Hubs::new(clients);
        let mut transport = Transport {
            local,
            endpoint,
            reliable: Reliable::new(messages, local, config.boot, now, rng("reliable")),
            groups: Groups::new(local, config.boot, generations.clone(), rng("groups")),
            exits: Exits::new(hubs),
            waiting: Waiting::default(),
            peers: PeerTable::new(config.limits.peers),
            gatherer: Gatherer::new(now, rng("stun")),
            records: Records::new(local, generations, config.listed, now, unix_now, rng("records")),
            inbox: Inbox::default(),
            plain: Vec::new(),
            stats: TransportStats::default(),
        };
        transport.sync_groups();
        transport
    }

    // ---- Peers.

    /// What we speak, and the peers met lately that speak none of it.
    pub fn incompatible(&self, now: Instant) -> (Versions, Vec<(PublicKey, Versions)>) {
        (self.endpoint.versions(), self.endpoint.incompatible(now).collect())
    }

    /// Begins a session with `peer`, if there is none.
    ///
    /// # Errors
    /// [`SendError::Oneself`] and [`SendError::Refused`].
    pub fn connect(&mut self, now: Instant, peer: PublicKey) -> Result<(), SendError> {
        if peer == self.local {
            return Err(SendError::Oneself);
        }
        if !self.meet(now, peer) {
            return Err(SendError::Refused);
        }
        self.endpoint.connect(now, &peer).map_err(|_| {
            // A peer that isn't allowed gets no entry, so such keys can't fill the table.
            self.peers.remove(&peer);
            SendError::Refused
        })
    }

    /// Adds a member that is alive: group keys may be requested from it and by it, and it is reachable through the hubs.
    pub fn know(&mut self, now: Instant, peer: PublicKey) {
        if peer == self.local {
            return;
        }
        self.peers.set_live(peer, true);
        if !self.peers.contains(&peer) && self.peers.is_crowded() {
            self.make_room(now, Duration::ZERO, &peer);
        }
        if self.meet(now, peer) {
            self.peers.set_member(&peer, true);
        }
    }

    /// What a peer's pass permits, as far as its latest session showed.
    pub fn level(&self, peer: &PublicKey) -> Level {
        self.peers.level(peer)
    }

    /// A peer's standing, as far as its latest session proved one.
    pub fn standing(&self, peer: &PublicKey) -> Option<&Standing> {
        self.peers.standing(peer)
    }

    // ---- Revocations.

    /// The revocations known.
    pub fn revocations(&self) -> &Revocations {
        self.endpoint.revocations()
    }

    /// Reads entries that somebody tells, and checks those that are news.
    ///
    /// # Errors
    /// [`NotTaken`]; what came before it is returned all the same.
    pub fn read_revocations(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> (Vec<Revocation>, Result<(), NotTaken>) {
        let checker = self.endpoint.checker();
        checker.revocations().read_news((checker.mesh(), checker.time(now)), bytes, || true)
    }

    /// Takes an entry, and ends the sessions of the peers that it concerns, which are told why. Returns these peers;
    /// `None` if it is no news.
    pub fn revoke(&mut self, now: Instant, entry: &Revocation) -> Option<Vec<PublicKey>> {
        if !self.revocations().is_news(entry) {
            return None;
        }
        let mut out = self.endpoint.revoked_by(entry);
        for peer in &out {
            // The last datagram of the session. If it is lost, a hub may tell the peer.
            let _ = self.exits.seal(&mut self.endpoint, now, *peer, channel::REVOKED, &entry.encode());
        }
        self.endpoint.revoke(now, entry.clone());
        // Members without a session at present, such as dead ones with a place on the ring.
        let newer = |peer: &PublicKey| {
            self.endpoint.standing(peer).is_some_and(|standing| !entry.revokes(&standing.grant))
        };
        out.extend(self.peers.revoked_by(entry).into_iter().filter(|peer| !newer(peer)));
        out.sort_unstable();
        out.dedup();
        if let Subject::Key(key) = entry.subject
            && !out.contains(&key)
            && !self.endpoint.is_established(&key)
        {
            out.push(key);
        }
        for peer in &out {
            self.expel(now, peer);
        }
        Some(out)
    }

    /// A peer's pass was revoked: it gets nothing any more.
    pub fn expel(&mut self, now: Instant, peer: &PublicKey) {
        self.groups.expel(peer);
        self.peers.set_live(*peer, false);
        self.forget(now, peer);
    }

    /// Whether our own pass was revoked.
    pub fn is_revoked(&self) -> bool {
        self.endpoint.is_revoked()
    }

    /// Drops the revocations that have been kept long enough. Returns whether there were any.
    pub fn expire_revocations(&mut self, now: Instant) -> bool {
        self.endpoint.checker().expire(now)
    }

    /// Tells the hub, or each one that is up, what the authority has revoked. Returns whether there is one.
    pub fn tell_hubs(&mut self, hub: Option<&PublicKey>, entries: &[u8]) -> bool {
        self.exits.hubs.tell(hub, entries)
    }

    // ---- Passes for others.

    /// This node issues passes: its hubs may ask it ([`TransportEvent::Asked`](super::TransportEvent::Asked)).
    pub fn issue(&mut self) {
        self.exits.hubs.issue();
    }

    /// Answers what a hub asked.
    pub fn answer_hub(&mut self, hub: &PublicKey, number: u64, answer: &Answer) {
        if let Some(client) = self.exits.hubs.client(hub) {
            client.answer(number, answer);
        }
    }

    // ---- The mesh's secret.

    /// The time by which what the authority signed is judged.
    pub fn time(&mut self, now: Instant) -> UnixSeconds {
        self.endpoint.checker().time(now)
    }

    /// Sets the generations of the mesh's secret, in the order in which they are tried. Sessions remain; the next
    /// handshakes, group frames and our record use the first one.
    pub fn set_generations(&mut self, now: Instant, generations: Vec<Generation>) {
        self.endpoint.set_generations(generations.clone());
        self.groups.set_generations(generations.clone());
        self.sync_groups();
        self.records.set_generations(generations);
        self.publish(now);
    }

    /// Whether there is a session with a peer.
    pub fn has_session(&self, peer: &PublicKey) -> bool {
        self.endpoint.is_established(peer)
    }

    /// A member is held dead: it gets no group's key. It stays a member, and is still sought.
    pub fn presume_dead(&mut self, peer: &PublicKey) {
        self.peers.set_live(*peer, false);
    }

    /// The peer has left the mesh and becomes a stranger.
    pub fn dismiss(&mut self, now: Instant, peer: &PublicKey) {
        self.peers.set_live(*peer, false);
        if self.peers.set_member(peer, false) {
            self.forget_if_done(now, peer);
        }
    }

    /// Drops a peer: its session, its paths, and its waiting data. [`TransportEvent::Forgotten`] follows if it was known.
    pub fn forget(&mut self, now: Instant, peer: &PublicKey) {
        self.waiting.forget(peer);
        self.reliable.forget(now, *peer);
        self.groups.forget(peer);
        self.endpoint.forget(now, peer);
        if self.peers.remove(peer) {
            self.inbox.tell(TransportEvent::Forgotten { peer: *peer });
        }
    }

    /// Adds a peer, if there is room, and sets the hubs through which its session can reach it.
    fn meet(&mut self, now: Instant, peer: PublicKey) -> bool {
        let new = !self.peers.contains(&peer);
        if new && self.peers.is_crowded() && !self.make_room(now, QUIET, &peer) {
            self.peers.refused += 1;
            tracing::debug!(target: "nurl::transport", peer = %peer.short(), reason = "full", "a peer is refused");
            return false;
        }
        self.peers.insert(now, peer);
        // The endpoint drops idle peers without pending work; its list of hubs must then be set again.
        if new || self.endpoint.path_state(&peer).is_none() {
            // Fails for a peer that isn't allowed; the caller gets that error when it begins a session.
            let _ = self.endpoint.set_relays(now, &peer, &self.exits.hubs.up());
        }
        true
    }

    fn forget_if_done(&mut self, now: Instant, peer: &PublicKey) {
        let Traffic { open, awaited, .. } = traffic(&self.endpoint, &self.waiting, &self.reliable, peer);
        if !self.peers.is_member(peer) && !open && !awaited {
            self.forget(now, peer);
        }
    }

    /// Evicts peers for a newcomer: of the pass that has most, or of the lowest rank among those silent for `quiet`. Returns
    /// whether there were any.
    fn make_room(&mut self, now: Instant, quiet: Duration, newcomer: &PublicKey) -> bool {
        let standing = self.endpoint.standing(newcomer);
        let account = standing.map_or(Account::alone(*newcomer), |standing| standing.account(*newcomer));
        let newcomer = Newcomer { account, shown: standing.is_some() };
        let (endpoint, waiting, reliable) = (&self.endpoint, &self.waiting, &self.reliable);
        let traffic = |peer: &PublicKey| traffic(endpoint, waiting, reliable, peer);
        let evicted = self.peers.evictable(now, quiet, &newcomer, traffic);
        for peer in &evicted {
            self.peers.evicted += 1;
            self.forget(now, peer);
        }
        !evicted.is_empty()
    }

    /// How a peer is reached.
    pub fn path(&self, peer: &PublicKey) -> PathInfo {
        match self.endpoint.path_state(peer) {
            Some(state) => PathInfo {
                direct: state.direct,
                addr: state.addr,
                reason: state.reason,
                rtt: state.rtt,
                settled: state.settled,
            },
            None => PathInfo {
                direct: false,
                addr: None,
                reason: PathReason::NoSession,
                rtt: None,
                settled: false,
            },
        }
    }

    // ---- What is sent.

    /// Seals a datagram to `peer` and sends it on the current routes. Without a session a handshake begins, and
    /// the datagram waits for the session.
    ///
    /// # Errors
    /// [`SendError`]; a datagram that was accepted may still be lost.
    pub fn send(
        &mut self,
        now: Instant,
        peer: PublicKey,
        channel: u8,
        body: &[u8],
    ) -> Result<Sent, SendError> {
        if body.len() > MAX_DATAGRAM_BYTES {
            return Err(SendError::TooLarge(body.len()));
        }
        if peer == self.local {
            return Err(SendError::Oneself);
        }
        match self.exits.seal(&mut self.endpoint, now, peer, channel, body) {
            Ok(()) => {
                self.stats.datagrams_out += u64::from(channel == channel::APPLICATION);
                Ok(Sent::Sealed)
            }
            // A route will follow: through a hub, or with the echo that proves an address.
            Err(securedgram::SealError::NoSession | securedgram::SealError::NoRoute) => {
                self.connect(now, peer)?;
                self.waiting.push(now, peer, channel, Bytes::copy_from_slice(body));
                Ok(Sent::Waiting)
            }
            Err(_) => Err(SendError::Refused),
        }
    }

    /// Sends an echo request; [`TransportEvent::Echo`] follows if it is answered.
    ///
    /// # Errors
    /// Those of [`Transport::send`].
    pub fn echo(&mut self, now: Instant, peer: PublicKey, nonce: u64) -> Result<Sent, SendError> {
        let mut body = [0; 9];
        body[1..].copy_from_slice(&nonce.to_le_bytes());
        self.send(now, peer, channel::ECHO, &body)
    }

    /// Queues a reliable message; [`reliable::ReliableEvent::Acked`] or [`reliable::ReliableEvent::Failed`] follows.
    ///
    /// # Errors
    /// Those of [`Reliable::send`].
    pub fn send_message(
        &mut self,
        now: Instant,
        peer: PublicKey,
        priority: Priority,
        kind: u8,
        body: Bytes,
    ) -> Result<MessageId, reliable::SendError> {
        if peer != self.local && !self.meet(now, peer) {
            return Err(reliable::SendError::TooManyPeers);
        }
        let id = self.reliable.send(now, peer, priority, kind, body)?;
        // A caller that needs to know whether a session is allowed has called `connect` before.
        let _ = self.connect(now, peer);
        Ok(id)
    }

    /// Seals `body` for a group that we joined and lets the hub fan it out.
    ///
    /// # Errors
    /// Those of [`Groups::seal`].
    pub fn broadcast(&mut self, now: Instant, name: &str, body: &[u8]) -> Result<(), group::GroupError> {
        let mut sealed = Vec::new();
        let tag = self.groups.seal(now, name, body, &mut sealed)?;
        if !self.exits.hubs.group_send(tag, &sealed) {
            // Without a hub to fan the frame out, each peer with a direct path gets its own copy.
            for peer in self.peers.keys() {
                if let Some(addr) = self.endpoint.path_state(peer).and_then(|state| state.addr) {
                    self.exits.udp.push(addr, &sealed);
                }
            }
        }
        Ok(())
    }

    /// Joins a group of the peers on a list, or of all live members; [`group::MESH_GROUP`] is joined from the start.
    ///
    /// # Errors
    /// Those of [`Groups::join`].
    pub fn join_group(&mut self, name: &str, allow: AllowList) -> Result<(), group::GroupError> {
        // A session needs no more than a ticket: without a list, membership says who gets the key.
        let list = (allow != AllowList::Anyone).then_some(allow);
        self.groups.join(name, list)?;
        self.sync_groups();
        Ok(())
    }

    /// Leaves a group.
    pub fn leave_group(&mut self, name: &str) {
        self.groups.leave(name);
        self.sync_groups();
    }

    fn sync_groups(&mut self) {
        self.exits.hubs.sync_groups(self.groups.tags().collect());
    }

    // ---- Hubs and our addresses.

    /// The hubs of the ticket.
    pub fn hubs(&self) -> &BTreeMap<PublicKey, HubState> {
        self.exits.hubs.states()
    }

    /// Our addresses as a hub sees them, at most one of each family.
    pub fn reflexive(&self, hub: &PublicKey) -> impl Iterator<Item = SocketAddr> + use<'_> {
        self.gatherer.reflexive(hub)
    }

    /// Sends a PING to every hub that is up.
    pub fn ping_hubs(&mut self, now: Instant) {
        self.exits.hubs.ping(now);
    }

    /// Asks rendezvous for members; [`TransportEvent::Contacts`] follows.
    pub fn ask_contacts(&mut self) {
        self.exits.hubs.list();
    }

    /// Asks rendezvous for the record of `peer`, unless the peer is known here: finds keys that are in no view.
    pub fn look_up(&mut self, peer: PublicKey) {
        if peer != self.local && !self.peers.contains(&peer) {
            self.exits.hubs.look_up(peer);
        }
    }

    /// Sets the interfaces of this host, at the start and after each change; `source` returns the address from which
    /// the host writes to another one. Returns whether connections should check their route. The interface of a
    /// container bridge doesn't count.
    pub fn set_interfaces(
        &mut self,
        now: Instant,
        interfaces: Vec<Interface>,
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> bool {
        let change = self.gatherer.set_interfaces(now, interfaces, source);
        if change.in_doubt {
            self.endpoint.on_network_change(now);
        }
        self.gather(now);
        change.look
    }

    /// Sets the addresses of our sockets, by family.
    pub fn set_bound(&mut self, now: Instant, v4: Option<SocketAddr>, v6: Option<SocketAddr>) {
        self.gatherer.set_bound(v4, v6);
        self.gather(now);
    }

    /// Sets the addresses to which a hub's name resolves, in the resolver's order. If there are none, the known ones
    /// stay. The first address of each family is queried. `source` is the same as in
    /// [`set_interfaces`](Transport::set_interfaces).
    pub fn set_hub_addrs(
        &mut self,
        now: Instant,
        hub: PublicKey,
        found: &[SocketAddr],
        source: impl Fn(IpAddr) -> Option<IpAddr>,
    ) {
        self.gatherer.set_hub_addrs(now, hub, found, source);
        self.gather(now);
    }

    /// Computes our candidates, and sends them to peers and rendezvous if they have changed.
    fn gather(&mut self, now: Instant) {
        if self.gatherer.gather() {
            self.endpoint.set_local_candidates(now, self.gatherer.list());
            self.publish(now);
        }
    }

    /// Publishes our sealed record in every hub's rendezvous, if this node has one; the clients keep it there.
    fn publish(&mut self, now: Instant) {
        let Some(seq) = self.records.renew(now) else { return };
        for hub in self.exits.hubs.keys() {
            match self.records.seal(now, hub, self.gatherer.list()) {
                Ok(sealed) => self.exits.hubs.publish(now, &hub, seq, sealed),
                // The record's limit on candidates is the same as ours.
                Err(_) => self.exits.hubs.count_unsent(),
            }
        }
    }

    // ---- The whole.

    /// Closes every session, which tells the peers that this node stops.
    pub fn close(&mut self, now: Instant) {
        let peers: Vec<PublicKey> = self.endpoint.peers().copied().collect();
        peers.iter().for_each(|peer| self.endpoint.close(now, peer));
        self.pump(now);
    }

    /// Sends all pending data, and requests its acknowledgement without the usual delay.
    pub fn hurry(&mut self, now: Instant) {
        self.pump(now);
        self.reliable.hurry(now);
        self.pump(now);
    }

    /// Whether everything reliable that was sent has been acknowledged, and nothing waits for a hub.
    pub fn is_quiet(&self) -> bool {
        self.reliable.sending().now == 0 && self.exits.hubs.is_quiet()
    }

    /// The host was suspended: every path and every connection is in doubt.
    pub fn on_suspend(&mut self, now: Instant) {
        self.endpoint.on_network_change(now);
        self.gatherer.on_suspend(now);
        self.exits.hubs.network_changed(now);
    }

    /// Whether producers must wait before they send more datagrams.
    pub fn is_full(&self) -> bool {
        self.exits.udp.is_full()
    }

    /// The transport's counters.
    pub fn stats(&self) -> TransportStats {
        TransportStats {
            datagrams_in: self.inbox.accepted,
            inbox_dropped: self.inbox.dropped,
            waiting_dropped: self.waiting.dropped,
            hub_dropped: self.exits.hubs.dropped(),
            refused_peers: self.peers.refused,
            evicted_peers: self.peers.evicted,
            ..self.stats
        }
    }

    /// The transport's gauges.
    pub fn gauges(&self) -> Gauges {
        let (waiting_peers, waiting_datagrams) = self.waiting.gauges();
        let peers = self.peers.gauge();
        Gauges {
            peers,
            sessions: Gauge { now: self.endpoint.peers().count(), bound: peers.bound + UNCONFIRMED_PEERS },
            groups: self.groups.gauge(),
            waiting_peers,
            waiting_datagrams,
            sending_bytes: self.reliable.sending(),
            receiving_bytes: self.reliable.receiving(),
            stuck_peers: self.reliable.stuck(),
        }
    }

    /// The sessions' counters.
    pub fn session_stats(&self) -> &securedgram::EndpointStats {
        self.endpoint.stats()
    }

    /// The counters of the paths to each peer that has any now.
    pub fn path_stats(&self) -> impl Iterator<Item = &PathStats> {
        self.endpoint.path_stats()
    }

    /// The counters of the client of each hub.
    pub fn hub_stats(&self) -> impl Iterator<Item = ClientStats> {
        self.exits.hubs.stats()
    }

    /// The counters of the questions for our reflexive address.
    pub fn stun_stats(&self) -> &stun::StunStats {
        self.gatherer.stats()
    }

    /// The reliable messages' counters.
    pub fn reliable_stats(&self) -> &reliable::ReliableStats {
        self.reliable.stats()
    }

    /// The groups' counters.
    pub fn group_stats(&self) -> &group::GroupStats {
        self.groups.stats()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.inbox.poll_event()
    }

    /// The application datagrams received since the last call.
    pub fn take_datagrams(&mut self) -> Vec<Datagram> {
        self.inbox.take_datagrams()
    }

    /// Does all work that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.gatherer.handle_timeout(now);
        if self.records.is_due(now) {
            self.publish(now);
        }
        self.exits.hubs.handle_timeout(now);
        self.endpoint.handle_timeout(now);
        self.reliable.handle_timeout(now);
        self.groups.handle_timeout(now);
    }

    /// When [`handle_timeout`](Transport::handle_timeout) is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.gatherer.poll_timeout(),
            self.records.poll_timeout(),
            self.exits.hubs.poll_timeout(),
            self.endpoint.poll_timeout(),
            self.reliable.poll_timeout(),
            self.groups.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn outbox(&mut self) -> &mut Outbox {
        &mut self.exits.udp
    }

    pub(super) fn count_send_error(&mut self) {
        self.stats.send_errors += 1;
    }

    /// A hub's client, for the driver of its stream.
    pub(super) fn hub_client(&mut self, hub: &PublicKey) -> Option<&mut HubClient> {
        self.exits.hubs.client(hub)
    }
}

/// A peer's traffic, of which each of the three knows a part.
fn traffic(endpoint: &Endpoint, waiting: &Waiting, reliable: &Reliable, peer: &PublicKey) -> Traffic {
    Traffic {
        heard: endpoint.last_heard(peer),
        open: endpoint.is_established(peer),
        awaited: waiting.holds(peer) || reliable.is_sending(peer),
    }
}
