//! The seam's core: sessions, legs, reliable messages and groups as one state machine without IO.
//!
//! Inputs are datagrams from the sockets, events from the hubs, the interface list and the time. Outputs are
//! batches for the sockets, commands for the hubs, and [`Event`]s for the layer above.
//!
//! Every input is followed by [`Transport::pump`], which moves what the parts have to say to each other: a
//! session that came up lets waiting datagrams go and opens the reliable connection; a reliable datagram is
//! sealed onto the routes that the path machine names; both legs get the same sealed bytes while a path is
//! in doubt, and the receiver's replay window drops the second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::group::{self, Groups};
use super::outbox::Outbox;
use super::reliable::{self, MessageId, Priority, Reliable, ReliableConfig};
use super::waiting::Waiting;
use super::{Event, MAX_DATAGRAM_BYTES, PathInfo, SendError, Stats, TransportConfig, channel};
use crate::key::PublicKey;
use crate::mesh::Generation;
use crate::net::candidates::{Gathered, candidates};
use crate::net::hub_client::{DownReason, HubCommand, HubEvent};
use crate::net::relay::CloseReason;
use crate::net::rendezvous::{PublishResult, Record};
use crate::net::route::Route;
use crate::net::securedgram::{self, Endpoint, Received, Source};
use crate::net::stun;
use crate::rt::Rng;
use crate::rt::net::Interface;

/// Commands that wait for one hub's connection: a second of gossip and a window of relayed bulk.
pub const HUB_QUEUE: usize = 1_024;

/// How often the reflexive address is asked for again: under the shortest common NAT timeout (30 s), so that
/// the mapping which candidates name stays open.
const STUN_EVERY: Duration = Duration::from_secs(25);

/// Contacts asked of rendezvous at a time: more than a join uses, so that dead ones don't matter.
const CONTACTS: u16 = 16;

/// How often our record is sealed anew, and how long one may be believed: a reader that finds an older one
/// found the trace of a node that is gone.
const RECORD_EVERY: Duration = Duration::from_secs(600);
const RECORD_LIFE: Duration = Duration::from_secs(1_200);

/// Application datagrams kept between two calls of [`Transport::take_datagrams`]; more are dropped.
const INBOX_BYTES: usize = 4 << 20;

/// Events kept between two drains: reliable messages wait in their own budget beyond it.
const EVENTS: usize = 4_096;

/// An application datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sealed it.
    pub peer: PublicKey,
    /// Its body.
    pub body: Bytes,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Sealed,
    /// It waits for a session.
    Waiting,
}

/// A hub as the seam sees it.
#[derive(Debug, Default)]
pub struct HubState {
    /// Whether we are registered.
    pub up: bool,
    /// Its address, once resolved.
    pub addr: Option<SocketAddr>,
    /// Our address as it sees it.
    pub reflexive: Option<SocketAddr>,
    /// The round trip of the last PING.
    pub rtt: Option<Duration>,
    stun_due: Option<Instant>,
    queue: VecDeque<HubCommand>,
}

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
    peers: BTreeSet<PublicKey>,
    joined: BTreeSet<group::Tag>,
    interfaces: Vec<Interface>,
    ports: (Option<u16>, Option<u16>),
    candidates: Vec<SocketAddr>,
    record_seq: u64,
    record_due: Instant,
    inbox: Vec<u8>,
    inbox_index: Vec<(PublicKey, Range<usize>)>,
    events: VecDeque<Event>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    stats: Stats,
    unix_base: (Instant, Duration),
    rng: Rng,
}

impl Transport {
    /// A seam without sockets yet. `rng` gives each part its own labelled stream.
    pub fn new(
        config: &TransportConfig,
        now: Instant,
        unix_now: Duration,
        mut rng: impl FnMut(&str) -> Rng,
    ) -> Transport {
        let local = config.key.public();
        let generations = config.ticket.generations();
        let endpoint = Endpoint::new(
            securedgram::Config {
                allow: config.allow.clone(),
                ..securedgram::Config::new(
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
        let reliable = Reliable::new(ReliableConfig::default(), local, config.boot, now, rng("reliable"));
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
            peers: BTreeSet::new(),
            joined: BTreeSet::new(),
            interfaces: Vec::new(),
            ports: (None, None),
            candidates: Vec::new(),
            record_seq: unix_now.as_micros() as u64,
            record_due: now,
            inbox: Vec::new(),
            inbox_index: Vec::new(),
            events: VecDeque::new(),
            sealed: Vec::new(),
            plain: Vec::new(),
            stats: Stats::default(),
            unix_base: (now, unix_now),
            rng: rng("records"),
        };
        transport.sync_groups();
        transport
    }

    // ---- What the layer above asks for.

    /// Seals a datagram to `peer` and sends it on the routes in force. Without a session one is begun, and
    /// the datagram waits for it.
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
        match self.seal_and_send(now, peer, channel, body) {
            Ok(()) => {
                self.stats.datagrams_out += u64::from(channel == channel::APPLICATION);
                Ok(Sent::Sealed)
            }
            // The way will come: by a hub, or with the echo that proves an address.
            Err(securedgram::SealError::NoSession | securedgram::SealError::NoRoute) => {
                self.connect(now, peer)?;
                self.waiting.push(now, peer, channel, Bytes::copy_from_slice(body));
                Ok(Sent::Waiting)
            }
            Err(_) => Err(SendError::Refused),
        }
    }

    /// Queues a reliable message; [`Event::Acked`] or [`Event::Failed`] follows.
    ///
    /// # Errors
    /// As [`Reliable::send`] says.
    pub fn send_message(
        &mut self,
        now: Instant,
        peer: PublicKey,
        priority: Priority,
        kind: u8,
        body: Bytes,
    ) -> Result<MessageId, reliable::SendError> {
        let id = self.reliable.send(now, peer, priority, kind, body)?;
        // Who wants to know whether a session is allowed has called it before.
        let _ = self.connect(now, peer);
        Ok(id)
    }

    /// Seals `body` for a group that we joined and lets the hub fan it out.
    ///
    /// # Errors
    /// As [`Groups::seal`] says.
    pub fn broadcast(&mut self, now: Instant, name: &str, body: &[u8]) -> Result<(), group::GroupError> {
        self.sealed.clear();
        let tag = self.groups.seal(now, name, body, &mut self.sealed)?;
        let payload = Bytes::copy_from_slice(&self.sealed);
        match self.first_hub_up() {
            Some(hub) => self.command(hub, HubCommand::GroupSend { tag, payload }),
            // No hub to fan it out: each peer with a direct path gets its own copy.
            None => {
                for peer in self.peers.clone() {
                    if let Some(addr) = self.endpoint.path_state(&peer).and_then(|state| state.addr) {
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
    /// As [`Groups::join`] says.
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

    /// Begins a session with `peer`, if there is none.
    ///
    /// # Errors
    /// [`SendError::Oneself`] and [`SendError::Refused`].
    pub fn connect(&mut self, now: Instant, peer: PublicKey) -> Result<(), SendError> {
        if peer == self.local {
            return Err(SendError::Oneself);
        }
        self.meet(now, peer);
        self.endpoint.connect(now, &peer).map_err(|_| {
            // Not allowed, or one too many: whoever is refused takes no place here.
            self.peers.remove(&peer);
            SendError::Refused
        })
    }

    /// A peer that is new here can be reached through the hubs that are up.
    fn meet(&mut self, now: Instant, peer: PublicKey) {
        // The endpoint forgets who is idle and nobody's wish; then the hubs have to be told it again.
        if self.peers.insert(peer) || self.endpoint.path_state(&peer).is_none() {
            let up = self.hubs_up();
            // As above.
            let _ = self.endpoint.set_relays(now, &peer, &up);
        }
    }

    /// Forgets a peer: its session, its paths, and what waits for it.
    pub fn forget(&mut self, now: Instant, peer: &PublicKey) {
        self.peers.remove(peer);
        self.waiting.forget(peer);
        self.reliable.forget(now, *peer);
        self.groups.forget(peer);
        self.endpoint.forget(now, peer);
    }

    /// A member: what it seals to our groups may be asked about, and it is reachable through the hubs.
    pub fn know(&mut self, now: Instant, peer: PublicKey) {
        if peer != self.local {
            self.meet(now, peer);
        }
    }

    /// Sends an echo request; [`Event::Echo`] follows if it is answered.
    ///
    /// # Errors
    /// As [`Transport::send`].
    pub fn echo(&mut self, now: Instant, peer: PublicKey, nonce: u64) -> Result<Sent, SendError> {
        let mut body = [0; 9];
        body[1..].copy_from_slice(&nonce.to_le_bytes());
        self.send(now, peer, channel::ECHO, &body)
    }

    /// Asks every hub that is up for a PONG.
    pub fn ping_hubs(&mut self) {
        self.command_all(|| HubCommand::Ping);
    }

    /// Asks rendezvous for members; [`Event::Contacts`] follows.
    pub fn ask_contacts(&mut self) {
        self.command_all(|| HubCommand::List { max: CONTACTS });
    }

    /// The host slept: every path and every connection is in doubt.
    pub fn on_suspend(&mut self, now: Instant) {
        self.endpoint.on_network_change(now);
        for hub in self.hubs.values_mut() {
            hub.stun_due = hub.addr.map(|_| now);
        }
        self.order_all(|_| HubCommand::NetworkChanged);
    }

    /// How a peer is reached.
    pub fn path(&self, peer: &PublicKey) -> PathInfo {
        match self.endpoint.path_state(peer) {
            Some(state) => PathInfo {
                direct: state.direct,
                addr: state.addr,
                reason: state.reason.as_str(),
                rtt: state.rtt,
                settled: state.settled,
            },
            None => PathInfo { direct: false, addr: None, reason: "no_session", rtt: None, settled: false },
        }
    }

    /// The hubs of the ticket.
    pub fn hubs(&self) -> &BTreeMap<PublicKey, HubState> {
        &self.hubs
    }

    /// Whether producers have to wait before they send more datagrams.
    pub fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// What the seam counts.
    pub fn stats(&self) -> Stats {
        Stats { waiting_dropped: self.waiting.dropped, ..self.stats }
    }

    /// What sessions count.
    pub fn session_stats(&self) -> &securedgram::Stats {
        self.endpoint.stats()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The application's datagrams that came since the last call.
    pub fn take_datagrams(&mut self) -> Vec<Datagram> {
        if self.inbox_index.is_empty() {
            return Vec::new();
        }
        // One allocation for all: each body is a slice of it.
        // The next turn will bring about as much.
        let next = Vec::with_capacity(self.inbox.len());
        let bytes = Bytes::from(std::mem::replace(&mut self.inbox, next));
        self.inbox_index.drain(..).map(|(peer, range)| Datagram { peer, body: bytes.slice(range) }).collect()
    }

    // ---- What the driver feeds in.

    /// Datagrams of `stride` bytes each (the last may be shorter) from one UDP source; decrypted in place.
    pub fn handle_udp(&mut self, now: Instant, source: SocketAddr, stride: usize, bytes: &mut [u8]) {
        for datagram in bytes.chunks_mut(stride.max(1)) {
            if stun::is_stun(datagram) {
                self.stun.handle_datagram(now, source, datagram);
            } else {
                self.handle_datagram(now, Source::direct(source), datagram);
            }
        }
    }

    /// What a hub's connection reports.
    pub fn handle_hub(&mut self, now: Instant, hub: PublicKey, events: Vec<HubEvent>) {
        for event in events {
            match event {
                HubEvent::Datagram { src, payload } => {
                    let mut datagram =
                        payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                    self.handle_datagram(now, Source::relay(hub, src), &mut datagram);
                }
                HubEvent::Group { payload, .. } => self.handle_group(now, &payload),
                HubEvent::Up { .. } => self.on_hub_up(now, hub),
                HubEvent::Down { reason, .. } => self.on_hub_down(now, hub, reason),
                // Down follows, and says it.
                HubEvent::Replaced => {}
                HubEvent::Pong { rtt } => {
                    if let Some(state) = self.hubs.get_mut(&hub) {
                        state.rtt = Some(rtt);
                    }
                    self.events.push_back(Event::HubPong);
                }
                HubEvent::Records(records) => {
                    // Sealed under whichever secret: while one rotates, members under the next accept ours.
                    let contacts =
                        records.iter().map(|record| record.key).filter(|key| *key != self.local).collect();
                    self.events.push_back(Event::Contacts(contacts));
                }
                // Another publisher with our key was ahead of us.
                HubEvent::Published { seq, result: PublishResult::Stale } => {
                    self.record_seq = self.record_seq.max(seq);
                    self.publish(now);
                }
                HubEvent::Published { .. } => {}
                HubEvent::GroupRefused { .. } => self.stats.groups_refused += 1,
                // Datagrams may be lost anywhere: the layers above notice by silence, which also covers a
                // hub that says nothing. Only a newcomer must know whom not to wait for.
                HubEvent::PeerGone { peer } => {
                    if self.peers.contains(&peer) {
                        self.events.push_back(Event::NotThere { hub, peer });
                    }
                }
                HubEvent::QueueFull { .. } => {}
                // Nobody here looks up or watches single records: paths are agreed end to end.
                HubEvent::Record(_) | HubEvent::NoRecord { .. } | HubEvent::Watch(_) => {}
            }
        }
    }

    /// The interfaces of this host, at the start and whenever they change.
    pub fn set_interfaces(&mut self, now: Instant, interfaces: Vec<Interface>) {
        let changed = !self.interfaces.is_empty() && self.interfaces != interfaces;
        self.interfaces = interfaces;
        if changed {
            for hub in self.hubs.values_mut() {
                hub.reflexive = None;
                hub.stun_due = hub.addr.map(|_| now);
            }
            self.endpoint.on_network_change(now);
        }
        self.gather(now);
    }

    /// The ports of our sockets, by family.
    pub fn set_ports(&mut self, now: Instant, v4: Option<u16>, v6: Option<u16>) {
        self.ports = (v4, v6);
        self.gather(now);
    }

    /// A hub's name was resolved (or could not be).
    pub fn set_hub_addr(&mut self, now: Instant, hub: PublicKey, addr: Option<SocketAddr>) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.addr = addr.or(state.addr);
            state.stun_due = state.addr.map(|_| now);
        }
        self.gather(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for state in self.hubs.values_mut() {
            if let (Some(addr), Some(due)) = (state.addr, state.stun_due)
                && now >= due
            {
                // A full table of transactions means that one to this server is under way.
                let _ = self.stun.query(now, addr);
                state.stun_due = Some(now + STUN_EVERY);
            }
        }
        if now >= self.record_due {
            self.publish(now);
        }
        self.stun.handle_timeout(now);
        self.endpoint.handle_timeout(now);
        self.reliable.handle_timeout(now);
        self.groups.handle_timeout(now);
    }

    /// When [`handle_timeout`](Transport::handle_timeout) is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.hubs.values().filter_map(|hub| hub.stun_due).min(),
            Some(self.record_due),
            self.stun.poll_timeout(),
            self.endpoint.poll_timeout(),
            self.reliable.poll_timeout(),
            self.groups.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Moves what the parts have to say to each other and towards the sockets. Says whether anything moved.
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

    // ---- What the driver takes out.

    pub(super) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    pub(super) fn count_send_error(&mut self) {
        self.stats.send_errors += 1;
    }

    /// The next command for a hub's connection.
    pub(super) fn poll_hub(&mut self, hub: &PublicKey) -> Option<HubCommand> {
        self.hubs.get_mut(hub)?.queue.pop_front()
    }

    // ---- The parts.

    fn pump_stun(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(request) = self.stun.poll_transmit(now) {
            self.outbox.push(request.destination, &request.contents);
            moved = true;
        }
        let mut learned = false;
        while let Some(event) = self.stun.poll_event() {
            let stun::Outcome::Reflexive { addr, .. } = event.outcome else { continue };
            for state in self.hubs.values_mut().filter(|state| state.addr == Some(event.server)) {
                learned |= state.reflexive != Some(addr);
                state.reflexive = Some(addr);
            }
        }
        if learned {
            self.gather(now);
        }
        moved
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
        while let Some(event) = self.endpoint.poll_event() {
            self.on_session_event(now, event);
            moved = true;
        }
        moved
    }

    fn on_session_event(&mut self, now: Instant, event: securedgram::Event) {
        use securedgram::Event as Session;
        match event {
            Session::Established { peer, boot, .. } => {
                self.meet(now, peer);
                self.reliable.on_established(now, peer, boot);
                self.groups.on_established(peer, boot);
                self.send_waiting(now, peer);
                self.events.push_back(Event::Established { peer, boot });
            }
            Session::PeerRestarted { peer, boot } => {
                self.reliable.on_established(now, peer, boot);
                self.events.push_back(Event::Restarted { peer, boot });
            }
            Session::HandshakeFailed { peer } => {
                self.waiting.forget(&peer);
                self.events.push_back(Event::Unreachable { peer });
            }
            Session::Closed { .. } => {}
            Session::Path { peer, event } => {
                if event.route.is_some() {
                    self.reliable.on_path_changed(now, peer);
                    self.send_waiting(now, peer);
                }
                let path = self.path(&peer);
                self.events.push_back(Event::Path { peer, path });
            }
        }
    }

    /// Sends what waited for a session or for a way, and still has neither if it waits again.
    fn send_waiting(&mut self, now: Instant, peer: PublicKey) {
        for (channel, body) in self.waiting.take(now, &peer) {
            // Accepted long ago; should it fail for another reason, datagrams may be lost.
            let _ = self.send(now, peer, channel, &body);
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
                    // Without a session the packet is lost, and QUIC sends it again.
                    if self.seal_and_send(now, peer, channel::RELIABLE, packet).is_err() {
                        let _ = self.connect(now, peer);
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
            self.events.push_back(match event {
                reliable::Event::Message { peer, kind, body } => Event::Message { peer, kind, body },
                reliable::Event::Acked { peer, id } => Event::Acked { peer, id },
                reliable::Event::Failed { peer, id, reason } => Event::Failed { peer, id, reason },
                reliable::Event::Writable { peer } => Event::Writable { peer },
            });
        }
        moved
    }

    fn pump_groups(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((peer, body)) = self.groups.poll_transmit() {
            moved = true;
            // The sender that a frame names is not proven before its key is here. Whoever can send frames, a
            // hub first of all, must not make us pursue keys that no member has.
            if !self.peers.contains(&peer) {
                self.stats.unknown_group_senders += 1;
                continue;
            }
            // A key that is lost is asked for again.
            let _ = self.send(now, peer, channel::GROUP_KEYS, &body);
        }
        while let Some(group::Event::Received { group, sender, body }) = self.groups.poll_event() {
            self.events.push_back(Event::Group { group, sender, body: Bytes::from(body) });
            moved = true;
        }
        moved
    }

    fn handle_datagram(&mut self, now: Instant, source: Source, datagram: &mut [u8]) {
        let (peer, channel, body) = match self.endpoint.handle_datagram(now, source, datagram) {
            Some(Received::Data { peer, channel, body }) => (peer, channel, &datagram[body]),
            Some(Received::Group) => return self.handle_group(now, datagram),
            None => return,
        };
        match channel {
            channel::MEMBERSHIP => {
                let body = Bytes::copy_from_slice(body);
                self.events.push_back(Event::Membership { peer, body });
            }
            channel::RELIABLE => self.reliable.handle_datagram(now, peer, body),
            channel::APPLICATION => {
                if self.inbox.len() + body.len() > INBOX_BYTES {
                    self.stats.inbox_dropped += 1;
                    return;
                }
                self.stats.datagrams_in += 1;
                let begin = self.inbox.len();
                self.inbox.extend_from_slice(body);
                self.inbox_index.push((peer, begin..self.inbox.len()));
            }
            // Whoever has a session with us has the mesh's secret and is on the allow-list.
            channel::GROUP_KEYS => self.groups.handle_key_message(now, peer, true, body),
            channel::ECHO => self.handle_echo(now, peer, body),
            _ => self.stats.unknown_channel += 1,
        }
    }

    fn handle_echo(&mut self, now: Instant, peer: PublicKey, body: &[u8]) {
        match body.split_first() {
            Some((0, nonce)) if nonce.len() == 8 => {
                let mut answer = [1; 9];
                answer[1..].copy_from_slice(nonce);
                // As large as the question, to an authenticated peer: nothing to amplify.
                let _ = self.send(now, peer, channel::ECHO, &answer);
            }
            Some((1, nonce)) => {
                if let Ok(nonce) = nonce.try_into() {
                    self.events.push_back(Event::Echo { peer, nonce: u64::from_le_bytes(nonce) });
                }
            }
            _ => self.stats.unknown_channel += 1,
        }
    }

    fn handle_group(&mut self, now: Instant, frame: &[u8]) {
        // Refusals are counted there.
        let _ = self.groups.handle_frame(now, frame);
    }

    fn seal_and_send(
        &mut self,
        now: Instant,
        peer: PublicKey,
        channel: u8,
        body: &[u8],
    ) -> Result<(), securedgram::SealError> {
        let (outbox, sealed) = (&mut self.outbox, &mut self.sealed);
        sealed.clear();
        let mut in_place = false;
        let routes = self.endpoint.seal_into(now, &peer, channel, body, |routes, len| match routes.first() {
            Some(Route::Direct(addr)) if routes.len() == 1 => {
                in_place = true;
                outbox.begin(addr, len)
            }
            _ => sealed,
        });
        if in_place {
            self.outbox.commit();
        } else if let Ok(routes) = routes {
            let sealed = std::mem::take(&mut self.sealed);
            for route in routes.iter() {
                self.route(route, Some(peer), &sealed);
            }
            self.sealed = sealed;
        }
        routes.map(|_| ())
    }

    fn route(&mut self, route: Route, peer: Option<PublicKey>, datagram: &[u8]) {
        match (route, peer) {
            (Route::Direct(addr), _) => self.outbox.push(addr, datagram),
            (Route::Relay(hub), Some(dst)) => {
                self.command(hub, HubCommand::Forward { dst, payload: Bytes::copy_from_slice(datagram) });
            }
            (Route::Relay(_), None) => self.stats.hub_dropped += 1,
        }
    }

    // ---- Hubs and candidates.

    fn hubs_up(&self) -> Vec<PublicKey> {
        self.hubs.iter().filter(|(_, state)| state.up).map(|(hub, _)| *hub).collect()
    }

    fn first_hub_up(&self) -> Option<PublicKey> {
        self.hubs.iter().find(|(_, state)| state.up).map(|(hub, _)| *hub)
    }

    /// Whether a hub's queue is so full that bulk should wait.
    fn hub_is_full(&self) -> bool {
        self.hubs.values().any(|state| state.queue.len() >= HUB_QUEUE / 2)
    }

    fn command(&mut self, hub: PublicKey, command: HubCommand) {
        let Some(state) = self.hubs.get_mut(&hub) else { return };
        if !state.up {
            self.stats.hub_dropped += 1;
            return;
        }
        if state.queue.len() >= HUB_QUEUE {
            // The oldest is the one that is worth the least by the time it arrives.
            state.queue.pop_front();
            self.stats.hub_dropped += 1;
        }
        state.queue.push_back(command);
    }

    fn command_all(&mut self, command: impl Fn() -> HubCommand) {
        for hub in self.hubs_up() {
            self.command(hub, command());
        }
    }

    /// A command that the connection remembers across reconnects, so also for hubs that are down.
    fn order_all(&mut self, command: impl Fn(PublicKey) -> HubCommand) {
        for (hub, state) in &mut self.hubs {
            state.queue.push_back(command(*hub));
        }
    }

    /// Tells the hubs which groups we are in now.
    fn sync_groups(&mut self) {
        let tags: BTreeSet<_> = self.groups.tags().collect();
        for tag in self.joined.difference(&tags).copied().collect::<Vec<_>>() {
            self.order_all(|_| HubCommand::GroupLeave { tag });
        }
        for tag in tags.difference(&self.joined).copied().collect::<Vec<_>>() {
            self.order_all(|_| HubCommand::GroupJoin { tag });
        }
        self.joined = tags;
    }

    fn on_hub_up(&mut self, now: Instant, hub: PublicKey) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.up = true;
        }
        self.command(hub, HubCommand::List { max: CONTACTS });
        self.relays_changed(now);
        // A peer with a session, but without a way until now, has one.
        for peer in self.waiting.peers() {
            if self.endpoint.is_established(&peer) {
                self.send_waiting(now, peer);
            }
        }
        self.events.push_back(Event::HubUp { hub });
    }

    fn on_hub_down(&mut self, now: Instant, hub: PublicKey, reason: DownReason) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.up = false;
            state.rtt = None;
            let waiting = state.queue.len();
            // What the connection remembers across reconnects stays; the rest was for this one.
            state.queue.retain(|command| {
                !matches!(
                    command,
                    HubCommand::Forward { .. }
                        | HubCommand::GroupSend { .. }
                        | HubCommand::List { .. }
                        | HubCommand::Ping
                )
            });
            self.stats.hub_dropped += (waiting - state.queue.len()) as u64;
        }
        self.relays_changed(now);
        // It answered, and it will say the same the next time.
        let refused = matches!(
            reason,
            DownReason::Refused
                | DownReason::Protocol
                | DownReason::Closed(CloseReason::UnknownNamespace | CloseReason::Version)
        );
        self.events.push_back(Event::HubDown { hub, reason: reason.as_str(), refused });
    }

    fn relays_changed(&mut self, now: Instant) {
        let up = self.hubs_up();
        for peer in &self.peers {
            // The table had room for the peer when we met it; if it has none now, there is nothing to tell.
            let _ = self.endpoint.set_relays(now, peer, &up);
        }
    }

    /// Works out our candidates, and tells peers and rendezvous if they have changed.
    fn gather(&mut self, now: Instant) {
        let reflexive: Vec<_> = self.hubs.values().filter_map(|hub| hub.reflexive).collect();
        let list = candidates(&Gathered {
            interfaces: &self.interfaces,
            port_v4: self.ports.0,
            port_v6: self.ports.1,
            hub: self.hubs.values().find_map(|hub| hub.addr),
            reflexive: &reflexive,
        });
        if list == self.candidates {
            return;
        }
        self.candidates = list;
        self.endpoint.set_local_candidates(now, &self.candidates);
        self.publish(now);
    }

    /// Puts our record, sealed, into every hub's rendezvous; the connections keep it there.
    fn publish(&mut self, now: Instant) {
        let Some(generation) = self.generations.first() else { return };
        self.record_seq += 1;
        self.record_due = now + RECORD_EVERY;
        let (base, unix_base) = self.unix_base;
        let expires = unix_base + now.saturating_duration_since(base) + RECORD_LIFE;
        for (hub, state) in &mut self.hubs {
            let record =
                Record { candidates: self.candidates.clone(), home: Some(*hub), capabilities: 0, expires };
            match record.seal(generation, &self.local, self.record_seq, &mut self.rng) {
                Ok(sealed) => {
                    let sealed = Bytes::from(sealed);
                    state.queue.push_back(HubCommand::Publish { seq: self.record_seq, sealed });
                }
                // Candidates are bounded by the same number.
                Err(_) => self.stats.hub_dropped += 1,
            }
        }
    }
}
