//! The transport's core: sessions, routes, reliable messages and groups as one state machine without IO.
//!
//! Inputs are datagrams from the sockets, events from the hubs, the interface list and the time. Outputs are batches
//! for the sockets, commands for the hubs, and [`TransportEvent`]s for the layer above.
//!
//! Every input is followed by [`Transport::pump`], which moves data between the parts. A new session releases waiting
//! datagrams and opens the reliable connection. A reliable datagram is sealed onto the routes that the path state
//! machine selects. While a path is in doubt, both routes carry the same sealed bytes, and the receiver's replay
//! window drops the second copy.
//!
//! The module's parts: `datagrams` seals and opens datagrams, `hubs` talks to the hubs' connections, `candidates`
//! computes our candidates, `observed` collects the addresses that peers see, `peers` holds the table of peers.

mod candidates;
mod datagrams;
mod hubs;
mod observed;
#[cfg(test)]
mod pair_tests;
mod peers;
#[cfg(test)]
mod tests;

pub use datagrams::{Datagram, Sent};
pub use hubs::{HUB_QUEUE, HubState};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::candidates::{HURRIES, HURRY_SECONDS};
use self::observed::Observed;
use super::group::{self, Groups};
use super::outbox::Outbox;
use super::reliable::{self, MessageId, Priority, Reliable, ReliableConfig};
use super::waiting::Waiting;
use super::{
    Gauge, Gauges, Limits, MAX_DATAGRAM_BYTES, PathInfo, SendError, TransportConfig, TransportEvent,
    TransportStats, channel,
};
use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::mesh::Generation;
use crate::net::reach::hub_client::HubCommand;
use crate::net::reach::stun;
use crate::net::secure::securedgram::paths::{PathReason, PathStats};
use crate::net::secure::securedgram::{self, Endpoint};
use crate::rt::Rng;
use crate::rt::net::Interface;
use peers::Known;

/// Peers that the endpoint may hold beyond the known ones: they began a handshake and haven't yet proved that they
/// have its keys. Each becomes idle after ten seconds; a hundred new ones a second is more than clients cause.
const UNCONFIRMED_PEERS: usize = 1_024;

/// Events kept between two drains; beyond it, reliable messages wait within their own budget.
const EVENTS: usize = 4_096;

/// The state machine; see the module.
pub struct Transport {
    local: PublicKey,
    generations: Vec<Generation>,
    endpoint: Endpoint,
    reliable: Reliable,
    groups: Groups,
    stun: stun::Client,
    waiting: Waiting,
    outbox: Outbox,
    hubs: BTreeMap<PublicKey, HubState>,
    limits: Limits,
    peers: BTreeMap<PublicKey, Known>,
    joined: BTreeSet<group::Tag>,
    interfaces: Vec<Interface>,
    /// Where the sockets are bound, v4 and v6.
    bound: (Option<SocketAddr>, Option<SocketAddr>),
    candidates: Vec<SocketAddr>,
    observed: Observed,
    /// Token bucket for early requests for the reflexive address, in seconds that each request costs.
    hurries: TokenBucket,
    record_seq: u64,
    /// When our record is to be sealed again; `None` for a node without a record.
    record_due: Option<Instant>,
    inbox: Vec<u8>,
    inbox_index: Vec<(PublicKey, Range<usize>)>,
    events: VecDeque<TransportEvent>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    stats: TransportStats,
    unix_base: (Instant, Duration),
    rng: Rng,
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
        let reliable = Reliable::new(messages, local, config.boot, now, rng("reliable"));
        let mut transport = Transport {
            local,
            groups: Groups::new(local, config.boot, generations.clone(), rng("groups")),
            generations,
            endpoint,
            reliable,
            stun: stun::Client::new(rng("stun")),
            waiting: Waiting::default(),
            outbox: Outbox::default(),
            hubs: config.ticket.hubs.iter().map(|hub| (hub.key, HubState::default())).collect(),
            limits: config.limits,
            peers: BTreeMap::new(),
            joined: BTreeSet::new(),
            interfaces: Vec::new(),
            bound: (None, None),
            candidates: Vec::new(),
            observed: Observed::default(),
            hurries: TokenBucket::new(1, HURRIES * HURRY_SECONDS, now),
            record_seq: unix_now.as_micros() as u64,
            record_due: config.listed.then_some(now),
            inbox: Vec::new(),
            inbox_index: Vec::new(),
            events: VecDeque::new(),
            sealed: Vec::new(),
            plain: Vec::new(),
            stats: TransportStats::default(),
            unix_base: (now, unix_now),
            rng: rng("records"),
        };
        transport.sync_groups();
        transport
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
        self.sealed.clear();
        let tag = self.groups.seal(now, name, body, &mut self.sealed)?;
        let payload = Bytes::copy_from_slice(&self.sealed);
        match self.first_hub_up() {
            Some(hub) => self.command(hub, HubCommand::GroupSend { tag, payload }),
            // Without a hub to fan the frame out, each peer with a direct path gets its own copy.
            None => {
                for peer in self.peers.keys() {
                    if let Some(addr) = self.endpoint.path_state(peer).and_then(|state| state.addr) {
                        self.outbox.push(addr, &payload);
                    }
                }
            }
        }
        Ok(())
    }

    /// Joins a group; [`group::MESH_GROUP`] is joined from the start.
    ///
    /// # Errors
    /// Those of [`Groups::join`].
    pub fn join_group(&mut self, name: &str) -> Result<(), group::GroupError> {
        self.groups.join(name, None)?;
        self.sync_groups();
        Ok(())
    }

    /// Leaves a group.
    pub fn leave_group(&mut self, name: &str) {
        self.groups.leave(name);
        self.sync_groups();
    }

    /// Asks rendezvous for the record of `peer`, unless the peer is known here: finds keys that are in no view.
    pub fn look_up(&mut self, peer: PublicKey) {
        if peer != self.local && !self.peers.contains_key(&peer) {
            self.command_all(|| HubCommand::Lookup { peer });
        }
    }

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
        self.reliable.sending().now == 0 && self.hubs.values().all(|hub| hub.queue.is_empty())
    }

    /// The host was suspended: every path and every connection is in doubt.
    pub fn on_suspend(&mut self, now: Instant) {
        self.endpoint.on_network_change(now);
        for server in self.hubs.values_mut().flat_map(|hub| &mut hub.servers) {
            server.due = now;
        }
        self.order_all(|| HubCommand::NetworkChanged);
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

    /// Whether producers must wait before they send more datagrams.
    pub fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// The transport's counters.
    pub fn stats(&self) -> TransportStats {
        TransportStats { waiting_dropped: self.waiting.dropped, ..self.stats }
    }

    /// The transport's gauges.
    pub fn gauges(&self) -> Gauges {
        let (waiting_peers, waiting_datagrams) = self.waiting.gauges();
        Gauges {
            peers: Gauge { now: self.peers.len(), bound: self.limits.peers },
            sessions: Gauge {
                now: self.endpoint.peers().count(),
                bound: self.limits.peers + UNCONFIRMED_PEERS,
            },
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

    /// The counters of the questions for our reflexive address.
    pub fn stun_stats(&self) -> &stun::StunStats {
        self.stun.stats()
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
        self.events.pop_front()
    }

    /// Does all work that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.refresh_candidates(now);
        self.stun.handle_timeout(now);
        self.endpoint.handle_timeout(now);
        self.reliable.handle_timeout(now);
        self.groups.handle_timeout(now);
    }

    /// When [`handle_timeout`](Transport::handle_timeout) is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.candidates_due(),
            self.stun.poll_timeout(),
            self.endpoint.poll_timeout(),
            self.reliable.poll_timeout(),
            self.groups.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Moves data between the parts and towards the sockets. Returns whether anything moved.
    pub fn pump(&mut self, now: Instant) -> bool {
        let mut moved = false;
        loop {
            let round = self.pump_stun(now)
                | self.pump_endpoint(now)
                | self.pump_reliable(now)
                | self.pump_groups(now);
            if !round {
                return moved;
            }
            moved = true;
        }
    }

    pub(super) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    pub(super) fn count_send_error(&mut self) {
        self.stats.send_errors += 1;
    }

    fn pump_endpoint(&mut self, now: Instant) -> bool {
        let mut moved = false;
        loop {
            self.sealed.clear();
            let Some(out) = self.endpoint.poll_transmit(&mut self.sealed) else { break };
            let sealed = std::mem::take(&mut self.sealed);
            self.route(out.route, out.relay_dst, &sealed);
            self.sealed = sealed;
            moved = true;
        }
        moved | self.take_session_events(now)
    }

    /// Passes the sessions' events to the parts.
    fn take_session_events(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(event) = self.endpoint.poll_event() {
            self.on_session_event(now, event);
            moved = true;
        }
        moved
    }

    fn on_session_event(&mut self, now: Instant, event: securedgram::SessionEvent) {
        use securedgram::SessionEvent as Session;
        match event {
            Session::Established { peer, boot, .. } => {
                if !self.welcome(now, peer) {
                    return;
                }
                self.reliable.on_established(now, peer, boot);
                self.groups.on_established(peer, boot);
                self.send_waiting(now, peer);
                self.events.push_back(TransportEvent::Established { peer, boot });
            }
            Session::PeerRestarted { peer, boot } => {
                self.reliable.on_established(now, peer, boot);
                self.events.push_back(TransportEvent::Restarted { peer, boot });
            }
            Session::HandshakeFailed { peer } => {
                self.events.push_back(TransportEvent::Unreachable { peer });
                self.on_handshake_failed(now, &peer);
            }
            Session::Closed { peer, .. } => {
                self.forget_observed(now, &peer);
                self.on_session_closed(now, &peer);
            }
            Session::Punched { .. } => self.hurry_stun(now),
            Session::Observed { peer, addr } => self.on_observed(now, peer, addr),
            Session::Path { peer, event } => {
                if event.route.is_some() {
                    self.reliable.on_path_changed(now, peer);
                    self.send_waiting(now, peer);
                }
                let path = self.path(&peer);
                self.events.push_back(TransportEvent::Path { peer, path });
            }
        }
    }

    fn pump_reliable(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while !self.outbox.is_full() && !self.hub_is_full() {
            let mut plain = std::mem::take(&mut self.plain);
            plain.clear();
            let next = self.reliable.poll_transmit(now, &mut plain);
            if let Some((peer, segment)) = next {
                for packet in plain.chunks(segment.unwrap_or(plain.len()).max(1)) {
                    // Without a session the packet is lost, and QUIC retransmits it.
                    if self.seal_and_send(now, peer, channel::RELIABLE, packet).is_err() {
                        self.seek(now, peer);
                    }
                }
                moved = true;
            }
            self.plain = plain;
            if next.is_none() {
                break;
            }
        }
        while self.events.len() < EVENTS {
            let Some(event) = self.reliable.poll_event() else { break };
            moved = true;
            self.events.push_back(TransportEvent::Reliable(event));
        }
        moved
    }

    fn pump_groups(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((peer, body)) = self.groups.poll_transmit() {
            moved = true;
            // The sender in a frame is unproven until its key is here. An attacker who can send frames, first of all
            // a hub, must not make us request keys from peers that aren't known.
            if !self.peers.contains_key(&peer) {
                self.stats.unknown_group_senders += 1;
                continue;
            }
            // A lost key message is requested again.
            let _ = self.send(now, peer, channel::GROUP_KEYS, &body);
        }
        while let Some(group::GroupEvent::Received { group, sender, body }) = self.groups.poll_event() {
            self.events.push_back(TransportEvent::Group { group, sender, body: Bytes::from(body) });
            moved = true;
        }
        moved
    }
}
