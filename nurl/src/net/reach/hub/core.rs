//! The hub's state: the connections from acceptance to end, and the dispatch of their frames.

mod handing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::half_open::HalfOpen;
use super::limits::{HubLimits, prefix};
use super::meshes::{Meshes, ServedMesh};
use crate::authority::account::{self, ClientAccount};
use crate::authority::checker::Standing;
use crate::authority::credential::SHOWN_BYTES;
use crate::authority::pass::{Pass, PassError};
use crate::authority::revocation::{PAGE_BYTES, Revocation, Revocations, Subject};
use crate::authority::rotation::SignedSecret;
use crate::key::PublicKey;
use crate::kit::wall_clock::WallClock;
use crate::mesh::{MeshId, Namespace};
use crate::net::reach::control::MAX_PLAINTEXT_BYTES;
use crate::net::reach::control::frames::split;
use crate::net::reach::relay::frame::VERSION;
use crate::net::reach::relay::{self, ClientId, CloseReason, Relay, RelayStats, Roles};
use crate::net::reach::rendezvous::{self, Records, RendezvousStats};
use crate::net::secure::version::Versions;
use crate::rt::Rng;

/// The timer interval: handshakes, idle clients and closing connections need no finer clock.
pub const TICK: Duration = Duration::from_millis(500);

/// How long a connection that is being closed may take to send its last frame.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Why a connection was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The connections already number [`HubLimits::clients`] plus [`HubLimits::half_open`].
    #[error("the hub is full")]
    Full,
    /// The connections from this address already number [`HubLimits::clients_per_address`] plus
    /// [`HubLimits::half_open_per_address`].
    #[error("too many connections from this address")]
    Address,
    /// The hub is shutting down.
    #[error("the hub is shutting down")]
    Shutdown,
}

/// Counters of the hub's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused because the hub was full.
    pub refused_full: u64,
    /// Connections refused because their address had too many.
    pub refused_address: u64,
    /// Connections evicted before they registered, to make way for a newer one.
    pub evicted_half_open: u64,
    /// Clients registered.
    pub registered: u64,
    /// Connections that didn't register in time.
    pub handshake_timeouts: u64,
    /// Connections that ended by a bad handshake or message; the driver counts them.
    pub noise_failures: u64,
    /// Registrations beyond [`HubLimits::clients`] or [`HubLimits::clients_per_address`].
    pub registrations_full: u64,
    /// Clients evicted because their pass had most of the places, for one of another pass.
    pub evicted_clients: u64,
    /// Registrations for a namespace that isn't served.
    pub unknown_namespace: u64,
    /// Registrations without a pass that counts.
    pub not_admitted: u64,
    /// Requests for a pass that were refused.
    pub not_issued: u64,
    /// Passes issued, by this hub or by an issuer that it asked.
    pub issued: u64,
    /// Requests for a pass that were handed to issuers.
    pub handed: u64,
    /// Answers of issuers that came too late, or to nothing that they were asked.
    pub late_answers: u64,
    /// Answers of issuers that are no pass of the key that asked, and refusals without a known reason.
    pub bad_answers: u64,
    /// Issuers beyond the limit, which aren't asked.
    pub issuers_full: u64,
    /// Revocations taken.
    pub revocations: u64,
    /// Registrations that ended because their pass was revoked.
    pub revoked: u64,
    /// Records of clients whose pass permits none, and clients that say they issue though their pass doesn't.
    pub beyond_level: u64,
    /// Registrations with another layout, or without a version that the hub speaks.
    pub wrong_version: u64,
    /// Connections closed for a frame out of place or malformed.
    pub protocol_errors: u64,
    /// Frames of unknown kinds, skipped.
    pub unknown_frames: u64,
    /// Frames of a role that is off, skipped.
    pub role_off: u64,
    /// Rendezvous requests beyond the rate of a client's pass.
    pub dropped_requests: u64,
    /// Clients closed because they sent nothing for too long.
    pub idle: u64,
    /// Messages handled.
    pub messages: u64,
    /// STUN requests answered.
    pub stun_answered: u64,
    /// STUN requests not answered, because their source had too many answers.
    pub stun_limited: u64,
    /// UDP datagrams that were not STUN requests, or whose error would be longer than they are.
    pub udp_ignored: u64,
    /// Accepts that the operating system refused.
    pub accept_errors: u64,
}

/// A snapshot for display and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Connections now open.
    pub connections: usize,
    /// Registered clients now.
    pub clients: usize,
    /// Groups that exist now.
    pub groups: usize,
    /// Records that are stored now.
    pub records: usize,
    /// Bytes in the fullest datagram queue of a client, of [`relay::RelayLimits::queue_bytes`] at most.
    pub fullest_queue_bytes: usize,
    /// Bytes of control frames in the fullest queue of a client, of [`relay::RelayLimits::control_bytes`] at most.
    pub fullest_control_bytes: usize,
    /// The connections' counters.
    pub hub: ConnectionStats,
    /// The relay's counters.
    pub relay: RelayStats,
    /// Rendezvous' counters.
    pub rendezvous: RendezvousStats,
}

/// The next step for a connection's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// There is nothing to write; a wake will come.
    Idle,
    /// The driver seals the plaintext and writes it.
    Plaintext,
    /// Everything was handed out and the connection is over: the driver flushes and closes it.
    Close,
    /// The connection is over: the driver drops it at once.
    Gone,
}

enum Phase {
    /// Until REGISTER. The key is known once the handshake is done, and proved once a frame decrypts.
    HalfOpen {
        key: Option<PublicKey>,
        /// It has asked an issuer for a pass.
        asked: bool,
    },
    Registered {
        namespace: Namespace,
        key: PublicKey,
        standing: Standing,
        /// What the client hasn't been told yet of the mesh's revocations.
        behind: Option<Behind>,
    },
    Closing {
        since: Instant,
    },
}

/// A client that is being told all revocations.
struct Behind {
    /// The last subject that it was told.
    after: Option<Subject>,
    /// Whether it knows that it is registered.
    registered: bool,
}

struct Connection {
    prefix: IpAddr,
    accepted: Instant,
    heard: Instant,
    phase: Phase,
}

/// The hub's state machine.
pub struct Hub {
    limits: HubLimits,
    roles: Roles,
    meshes: Meshes,
    connections: BTreeMap<ClientId, Connection>,
    /// The number of connections of each address.
    addresses: BTreeMap<IpAddr, usize>,
    half_open: HalfOpen,
    relay: Relay,
    records: Records,
    /// Connections that are over, but whose driver doesn't know yet.
    gone: BTreeSet<ClientId>,
    next_id: u64,
    next_tick: Option<Instant>,
    shutting_down: bool,
    /// Takes revocations and acts on none: a lie, for scenarios.
    withholds: bool,
    counters: ConnectionStats,
}

impl Hub {
    /// A hub without connections.
    pub fn new(
        meshes: impl IntoIterator<Item = ServedMesh>,
        roles: Roles,
        limits: HubLimits,
        (now, wall): (Instant, WallClock),
        rng: Rng,
    ) -> Hub {
        // The same seed with a random stream of its own.
        let mut evictions = rng.clone();
        evictions.set_stream(1);
        Hub {
            limits,
            roles,
            meshes: Meshes::new(meshes, now, wall, &rng),
            connections: BTreeMap::new(),
            addresses: BTreeMap::new(),
            half_open: HalfOpen::new(evictions),
            relay: Relay::new(limits.relay),
            records: Records::new(limits.records, limits.record_ttl, rng),
            gone: BTreeSet::new(),
            next_id: 0,
            next_tick: None,
            shutting_down: false,
            withholds: false,
            counters: ConnectionStats::default(),
        }
    }

    /// A snapshot.
    pub fn stats(&self) -> HubStats {
        let (fullest_queue_bytes, fullest_control_bytes) = self.relay.fullest();
        HubStats {
            fullest_queue_bytes,
            fullest_control_bytes,
            connections: self.connections.len(),
            clients: self.relay.registered(),
            groups: self.relay.groups(),
            records: self.records.len(),
            hub: self.counters,
            relay: *self.relay.counters(),
            rendezvous: *self.records.counters(),
        }
    }

    /// The counters that only a driver can count.
    pub fn counters_mut(&mut self) -> &mut ConnectionStats {
        &mut self.counters
    }

    /// Takes at most so many registered clients from now on; registered clients stay.
    pub fn limit_clients(&mut self, clients: usize) {
        self.limits.clients = clients;
    }

    /// Takes a new connection, or refuses it; the driver drops a refused connection without sending anything. The
    /// hub may evict a half-open connection to make way.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn handle_accept(&mut self, now: Instant, remote: SocketAddr) -> Result<ClientId, Refusal> {
        let prefix = prefix(remote.ip());
        if self.shutting_down {
            return Err(Refusal::Shutdown);
        }
        if let Some(evictee) = self.half_open.evictee(prefix, &self.limits) {
            self.counters.evicted_half_open += 1;
            self.drop_connection(evictee);
        }
        // A registered client that roamed must get in to replace its old registration. So REGISTER bounds the
        // registered clients, and only the sum is bounded here.
        if self.connections.len() >= self.limits.clients + self.limits.half_open {
            self.counters.refused_full += 1;
            return Err(Refusal::Full);
        }
        let from = self.addresses.get(&prefix).copied().unwrap_or_default();
        if from >= self.limits.clients_per_address + self.limits.half_open_per_address {
            self.counters.refused_address += 1;
            return Err(Refusal::Address);
        }
        let id = ClientId(self.next_id);
        self.next_id += 1;
        let phase = Phase::HalfOpen { key: None, asked: false };
        self.connections.insert(id, Connection { prefix, accepted: now, heard: now, phase });
        *self.addresses.entry(prefix).or_default() += 1;
        self.half_open.insert(prefix, id);
        self.relay.open(id);
        self.counters.accepted += 1;
        self.next_tick.get_or_insert(now + TICK);
        Ok(id)
    }

    /// The handshake is done: the other side *claims* that it holds `key`. The hub doesn't act on the claim before
    /// the first message decrypts, since message 1 can be replayed.
    pub fn handle_handshake(&mut self, id: ClientId, key: PublicKey) {
        if let Some(Connection { phase: Phase::HalfOpen { key: slot, .. }, .. }) =
            self.connections.get_mut(&id)
        {
            *slot = Some(key);
        }
    }

    /// Handles a decrypted message: its plaintext is a sequence of frames.
    pub fn handle_message(&mut self, now: Instant, id: ClientId, plaintext: &[u8]) {
        self.counters.messages += 1;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard = now;
        }
        for frame in split(plaintext) {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let handled = match (&mut connection.phase, frame) {
                // The client sent these frames before it read our CLOSE.
                (Phase::Closing { .. }, _) => return,
                (_, Err(_)) => Err(CloseReason::Protocol),
                (Phase::HalfOpen { key: None, .. }, _) => Err(CloseReason::Protocol),
                (Phase::HalfOpen { key: Some(key), .. }, Ok((kind, body))) => {
                    let key = *key;
                    self.half_open_frame(now, id, key, kind, body)
                }
                (Phase::Registered { .. }, Ok((kind, body))) => self.frame(now, id, kind, body),
            };
            if let Err(reason) = handled {
                self.counters.protocol_errors += u64::from(reason == CloseReason::Protocol);
                self.close(now, id, reason);
                break;
            }
        }
        self.ask_issuers(now);
    }

    /// Handles a frame of a client that isn't registered: it asks for a pass, or registers.
    fn half_open_frame(
        &mut self,
        now: Instant,
        id: ClientId,
        key: PublicKey,
        kind: u8,
        body: &[u8],
    ) -> Result<(), CloseReason> {
        let (version, namespace) = match relay::Frame::decode(kind, body) {
            // The version comes first in every version's frame, whose rest may differ.
            Err(_) if body.first().is_some_and(|version| *version != VERSION) => (body[0], Namespace::NONE),
            Ok(Some(
                relay::Frame::Register { version, namespace, .. }
                | relay::Frame::Enrol { version, namespace, .. }
                | relay::Frame::Renew { version, namespace, .. },
            )) => (version, namespace),
            _ => return Err(CloseReason::Protocol),
        };
        if version != VERSION {
            self.counters.wrong_version += 1;
            return Err(CloseReason::Version);
        }
        if !self.meshes.serves(&namespace) {
            self.counters.unknown_namespace += 1;
            return Err(CloseReason::UnknownNamespace);
        }
        match relay::Frame::decode(kind, body) {
            Ok(Some(relay::Frame::Enrol { .. } | relay::Frame::Renew { .. }))
                if !self.meshes.issues(&namespace) =>
            {
                self.hand_first(now, id, (namespace, key), (kind, body))
            }
            Ok(Some(relay::Frame::Enrol { request, .. })) => {
                let issued = self.meshes.enrol(now, &namespace, &key, request);
                self.answer_issued(id, issued)
            }
            Ok(Some(relay::Frame::Renew { pass, .. })) => {
                let issued = self.meshes.renew(now, &namespace, &key, pass);
                self.answer_issued(id, issued)
            }
            Ok(Some(relay::Frame::Register { shown, versions, .. })) => {
                self.register(now, id, key, namespace, (shown, versions))
            }
            _ => Err(CloseReason::Protocol),
        }
    }

    fn answer_issued(&mut self, id: ClientId, issued: Result<Pass, CloseReason>) -> Result<(), CloseReason> {
        match issued {
            Ok(pass) => {
                self.counters.issued += 1;
                self.relay.push_control(id, &relay::Frame::Issued { pass: pass.as_bytes() });
                Ok(())
            }
            Err(reason) => {
                self.counters.not_issued += 1;
                Err(reason)
            }
        }
    }

    fn register(
        &mut self,
        now: Instant,
        id: ClientId,
        key: PublicKey,
        namespace: Namespace,
        (shown, versions): (&[u8; SHOWN_BYTES], Versions),
    ) -> Result<(), CloseReason> {
        let standing = match self.meshes.admit(now, &namespace, &key, shown) {
            Ok(standing) => standing,
            Err(reason) => {
                self.counters.not_admitted += 1;
                tracing::debug!(target: "nurl::hub", peer = %key.short(), reason = reason.as_str(), "a client is refused");
                if reason == CloseReason::Revoked {
                    let why = self.meshes.against(&namespace, shown);
                    self.close_revoked(now, id, &why);
                    return Ok(());
                }
                return Err(reason);
            }
        };
        let ours = self.limits.versions;
        if ours.common(versions).is_none() {
            self.counters.wrong_version += 1;
            if self.meshes.incompatible.meet(now, key, versions) {
                let (peer, theirs, remedy) = (key.short(), versions.to_string(), ours.remedy(versions));
                tracing::warn!(target: "nurl::hub", %peer, theirs, ours = %ours, remedy, "a client speaks other versions");
            }
            self.begin_to_close(now, id);
            self.relay.push_control(id, &relay::Frame::Speaks { versions: ours });
            self.relay.push_control(id, &relay::Frame::Close(CloseReason::Version));
            return Ok(());
        }
        self.meshes.incompatible.forget(&key);
        let client = ClientAccount { mesh: namespace, account: standing.account(key) };
        if !self.relay.is_registered(namespace, key) && !self.make_room(now, id, &client) {
            self.counters.registrations_full += 1;
            return Err(CloseReason::Full);
        }
        self.no_longer_half_open(id);
        self.meshes.asking.end(id);
        let mut caught_up = true;
        if let Some(connection) = self.connections.get_mut(&id) {
            let known = self.meshes.revocations(&namespace).is_some_and(|known| !known.is_empty());
            let behind = (known && !self.withholds).then_some(Behind { after: None, registered: false });
            caught_up = behind.is_none();
            connection.phase = Phase::Registered { namespace, key, standing, behind };
        }
        let requests = (self.limits.requests_per_second, self.limits.requests_burst);
        if let Some(older) = self.relay.register(now, id, client, requests) {
            self.close(now, older, CloseReason::Replaced);
        }
        self.counters.registered += 1;
        if caught_up {
            self.relay.push_control(id, &relay::Frame::Registered(self.limits.announced(self.roles)));
        } else {
            self.relay.wake(id);
        }
        Ok(())
    }

    /// Takes what a client says the authority has revoked, acts on the news, and tells them to the others.
    fn revoke(&mut self, now: Instant, id: ClientId, entries: &[u8]) -> Result<(), CloseReason> {
        let Some(Connection { phase: Phase::Registered { namespace, .. }, .. }) = self.connections.get(&id)
        else {
            return Ok(());
        };
        let namespace = *namespace;
        let (news, taken) = match self.withholds {
            true => (Vec::new(), Ok(())),
            false => self.meshes.revoke(now, &namespace, entries),
        };
        if !news.is_empty() {
            self.counters.revocations += news.len() as u64;
            self.spread(now, namespace, &news);
        }
        taken?;
        let digest = self.meshes.revocations(&namespace).map(Revocations::digest).unwrap_or_default();
        self.relay.push_control(id, &relay::Frame::Knows { digest });
        Ok(())
    }

    /// Ends what these entries revoke, and tells them to all clients of the mesh.
    fn spread(&mut self, now: Instant, namespace: Namespace, news: &[Revocation]) {
        for entry in news {
            if let Subject::Key(key) = entry.subject
                && !self.relay.is_registered(namespace, key)
            {
                self.records.withdraw(namespace, key);
            }
        }
        let mut over = Vec::new();
        let encoded: Vec<u8> = news.iter().flat_map(Revocation::encode).collect();
        let mut frames = relay::Frame::Revoked { entries: &encoded }.to_vec();
        let rotated = news.iter().any(|entry| entry.subject == Subject::Secret);
        if let Some(secret) = self.meshes.secret(&namespace).filter(|_| rotated) {
            // Those whom these entries revoke are closed below, and get none of it.
            relay::Frame::Secret { signed: &secret.encode() }.encode(&mut frames);
        }
        let frames = Bytes::from(frames);
        for (id, connection) in &mut self.connections {
            let Phase::Registered { namespace: of, key, standing, behind, .. } = &mut connection.phase else {
                continue;
            };
            if *of != namespace {
                continue;
            }
            if news.iter().any(|entry| entry.revokes(&standing.grant)) {
                over.push((*id, *key, standing.grant.clone()));
            } else if behind.is_none() && !self.relay.push_control_bytes(*id, frames.clone()) {
                // It doesn't read: once it does, it is told all.
                *behind = Some(Behind { after: None, registered: true });
            }
        }
        for (id, key, grant) in over {
            self.counters.revoked += 1;
            self.records.withdraw(namespace, key);
            let why = self.meshes.revocations(&namespace).map(|known| known.against(&grant));
            self.close_revoked(now, id, &why.unwrap_or_default());
        }
    }

    /// Closes the connection of a client whose pass was revoked, with the entries by which it was.
    fn close_revoked(&mut self, now: Instant, id: ClientId, why: &[u8]) {
        self.begin_to_close(now, id);
        self.relay.push_control(id, &relay::Frame::Revoked { entries: why });
        self.relay.push_control(id, &relay::Frame::Close(CloseReason::Revoked));
    }

    /// Makes room for one more key, of its address and in all, if need be at the cost of a client of the pass that has most.
    fn make_room(&mut self, now: Instant, id: ClientId, newcomer: &ClientAccount) -> bool {
        let Some(prefix) = self.connections.get(&id).map(|connection| connection.prefix) else {
            return false;
        };
        let all = self.addresses.get(&prefix).copied().unwrap_or_default();
        if all - self.half_open.from(prefix) >= self.limits.clients_per_address {
            let crowd = self.connections.iter().filter(|(_, connection)| connection.prefix == prefix);
            let crowd = crowd.filter_map(|(other, connection)| match &connection.phase {
                Phase::Registered { key, standing, .. } => {
                    Some((standing.account(*key), connection.heard, *other))
                }
                _ => None,
            });
            // One that is being closed still has its place for a moment.
            let Some(payer) = account::make_room(crowd, &newcomer.account, 1).pop() else { return false };
            self.evict(now, payer);
        }
        if self.relay.registered() < self.limits.clients {
            return true;
        }
        let payer = self.relay.payer(newcomer);
        payer.into_iter().for_each(|payer| self.evict(now, payer));
        payer.is_some()
    }

    fn evict(&mut self, now: Instant, payer: ClientId) {
        self.counters.evicted_clients += 1;
        self.close(now, payer, CloseReason::Full);
    }

    /// Handles a frame of a registered client.
    fn frame(&mut self, now: Instant, id: ClientId, kind: u8, body: &[u8]) -> Result<(), CloseReason> {
        if let Some(frame) = relay::Frame::decode(kind, body).map_err(|_| CloseReason::Protocol)? {
            return self.relay_frame(now, id, frame, (kind, body));
        }
        if let Some(frame) = rendezvous::Frame::decode(kind, body).map_err(|_| CloseReason::Protocol)? {
            return self.rendezvous_frame(now, id, frame);
        }
        self.counters.unknown_frames += 1;
        Ok(())
    }

    fn relay_frame(
        &mut self,
        now: Instant,
        id: ClientId,
        frame: relay::Frame<'_>,
        whole: (u8, &[u8]),
    ) -> Result<(), CloseReason> {
        match frame {
            relay::Frame::Renew { pass, .. } => {
                let Some(Connection { phase: Phase::Registered { namespace, key, .. }, .. }) =
                    self.connections.get(&id)
                else {
                    return Ok(());
                };
                let (namespace, key) = (*namespace, *key);
                if !self.meshes.issues(&namespace) {
                    if !self.relay.take_request(now, id) {
                        self.counters.dropped_requests += 1;
                    } else if self.hand(now, id, (namespace, key), whole).is_err() {
                        self.counters.not_issued += 1;
                    }
                    return Ok(());
                }
                let issued = self.meshes.renew(now, &namespace, &key, pass);
                // Its old pass still counts: a refusal is no reason to close.
                let _ = self.answer_issued(id, issued);
                Ok(())
            }
            relay::Frame::Revoked { entries } => self.revoke(now, id, entries),
            relay::Frame::Issues => {
                self.offer(now, id);
                Ok(())
            }
            relay::Frame::Granted { number, pass, sealed } => {
                self.granted(now, id, number, pass.0, sealed);
                Ok(())
            }
            relay::Frame::Denied { number, reason } => {
                self.denied(now, id, number, reason);
                Ok(())
            }
            relay::Frame::Close(_) => {
                self.withdraw(id);
                Err(CloseReason::Bye)
            }
            relay::Frame::Ping { .. } | relay::Frame::Pong { .. } => {
                self.relay.handle_frame(now, id, frame);
                Ok(())
            }
            _ if !self.roles.relay => {
                self.counters.role_off += 1;
                Ok(())
            }
            frame => self.relay.handle_frame(now, id, frame).then_some(()).ok_or(CloseReason::Protocol),
        }
    }

    fn rendezvous_frame(
        &mut self,
        now: Instant,
        id: ClientId,
        frame: rendezvous::Frame<'_>,
    ) -> Result<(), CloseReason> {
        let Some(Connection { phase: Phase::Registered { namespace, key, standing, .. }, .. }) =
            self.connections.get(&id)
        else {
            return Ok(());
        };
        if !self.roles.rendezvous {
            self.counters.role_off += 1;
            return Ok(());
        }
        if matches!(frame, rendezvous::Frame::Publish { .. }) && !standing.level.may_be_member() {
            self.counters.beyond_level += 1;
            return Ok(());
        }
        let client = ClientAccount { mesh: *namespace, account: standing.account(*key) };
        if !self.relay.take_request(now, id) {
            self.counters.dropped_requests += 1;
            return Ok(());
        }
        let answer = self.records.handle_frame(now, id, client, frame).ok_or(CloseReason::Protocol)?;
        if !answer.is_empty() {
            self.relay.push_control_bytes(id, answer);
        }
        Ok(())
    }

    /// Withdraws the record of a client that says goodbye.
    fn withdraw(&mut self, id: ClientId) {
        if let Some(Connection { phase: Phase::Registered { namespace, key, .. }, .. }) =
            self.connections.get(&id)
        {
            self.records.withdraw(*namespace, *key);
        }
    }

    /// Begins to close a connection: it loses its registration at once, and its last frame is queued.
    fn close(&mut self, now: Instant, id: ClientId, reason: CloseReason) {
        self.begin_to_close(now, id);
        self.relay.push_control(id, &relay::Frame::Close(reason));
    }

    /// A connection loses its registration, and what was queued for it. The caller queues its last frames.
    fn begin_to_close(&mut self, now: Instant, id: ClientId) {
        self.meshes.asking.forget(id);
        self.no_longer_half_open(id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let phase = std::mem::replace(&mut connection.phase, Phase::Closing { since: now });
        if let Phase::Registered { namespace, key, .. } = phase {
            self.records.disconnected(id, namespace, key);
        }
        self.relay.unregister(id);
        self.relay.clear_control(id);
    }

    /// The connection's stream has ended, or its driver drops it.
    pub fn handle_disconnect(&mut self, id: ClientId) {
        self.meshes.asking.forget(id);
        self.no_longer_half_open(id);
        self.gone.remove(&id);
        self.relay.close(id);
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Phase::Registered { namespace, key, .. } = connection.phase {
            self.records.disconnected(id, namespace, key);
        }
        if let Some(from) = self.addresses.get_mut(&connection.prefix) {
            *from -= 1;
            if *from == 0 {
                self.addresses.remove(&connection.prefix);
            }
        }
    }

    /// Ends a connection without a CLOSE, and wakes its driver to notice.
    fn drop_connection(&mut self, id: ClientId) {
        self.handle_disconnect(id);
        self.gone.insert(id);
    }

    /// Removes a connection from the half-open ones; the caller changes its phase right after.
    fn no_longer_half_open(&mut self, id: ClientId) {
        let Some(Connection { phase: Phase::HalfOpen { .. }, prefix, .. }) = self.connections.get(&id) else {
            return;
        };
        self.half_open.remove(*prefix, id);
    }

    /// When [`handle_timeout`](Hub::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.next_tick, self.records.poll_timeout()) {
            (Some(tick), Some(record)) => Some(tick.min(record)),
            (tick, record) => tick.or(record),
        }
    }

    /// Ends connections that have exceeded their time limit.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.records.handle_timeout(now);
        if self.next_tick.is_none_or(|tick| now < tick) {
            return;
        }
        let (mut idle, mut over) = (Vec::new(), Vec::new());
        for (id, connection) in &self.connections {
            match connection.phase {
                // An issuer's time isn't the client's.
                Phase::HalfOpen { .. } if self.meshes.asking.is_waiting(*id) => {}
                Phase::HalfOpen { .. } if now >= connection.accepted + self.limits.handshake => {
                    self.counters.handshake_timeouts += 1;
                    over.push(*id);
                }
                Phase::Registered { .. } if now >= connection.heard + self.limits.idle => idle.push(*id),
                Phase::Closing { since } if now >= since + CLOSE_LINGER => over.push(*id),
                _ => {}
            }
        }
        for id in idle {
            self.counters.idle += 1;
            self.close(now, id, CloseReason::Idle);
        }
        for id in over {
            self.drop_connection(id);
        }
        self.meshes.asking.handle_timeout(now);
        self.ask_issuers(now);
        self.next_tick = (!self.connections.is_empty()).then_some(now + TICK);
    }

    /// Closes every connection and accepts no more.
    pub fn shutdown(&mut self, now: Instant) {
        self.shutting_down = true;
        let ids: Vec<ClientId> = self.connections.keys().copied().collect();
        for id in ids {
            if !matches!(self.connections[&id].phase, Phase::Closing { .. }) {
                self.close(now, id, CloseReason::Shutdown);
            }
        }
    }

    /// Replaces the content of `out` with the next plaintext for a connection.
    pub fn poll_output(&mut self, id: ClientId, out: &mut Vec<u8>) -> Output {
        out.clear();
        let Some(connection) = self.connections.get_mut(&id) else { return Output::Gone };
        if let Phase::Registered { namespace, behind: slot @ Some(_), .. } = &mut connection.phase
            && let (Some(behind), Some(known)) = (slot.as_mut(), self.meshes.revocations(namespace))
        {
            let (entries, more) = known.page(behind.after.as_ref(), PAGE_BYTES);
            relay::Frame::Revoked { entries: &entries }.encode(out);
            behind.after = more;
            if more.is_none() {
                relay::Frame::Knows { digest: known.digest() }.encode(out);
                if let Some(secret) = self.meshes.secret(namespace) {
                    relay::Frame::Secret { signed: &secret.encode() }.encode(out);
                }
                if !behind.registered {
                    relay::Frame::Registered(self.limits.announced(self.roles)).encode(out);
                }
                *slot = None;
            }
            return Output::Plaintext;
        }
        if self.relay.poll_plaintext(id, MAX_PLAINTEXT_BYTES, out) {
            return Output::Plaintext;
        }
        if matches!(connection.phase, Phase::Closing { .. }) { Output::Close } else { Output::Idle }
    }

    /// Whether the connection's driver has to drop it at once.
    pub fn is_gone(&self, id: ClientId) -> bool {
        !self.connections.contains_key(&id)
    }

    /// Remembers a pass that an earlier process issued.
    ///
    /// # Errors
    /// [`PassError`]: it is of no mesh for which this hub issues passes.
    pub fn restore(&mut self, pass: &[u8]) -> Result<(), PassError> {
        self.meshes.restore(pass)
    }

    /// Remembers an entry that an earlier process took.
    pub fn restore_revocation(&mut self, entry: &[u8]) {
        self.meshes.restore_revocation(entry);
    }

    /// The present secret of a mesh, if it was rotated and this hub is an issuer.
    pub fn secret(&self, mesh: &MeshId) -> Option<&SignedSecret> {
        self.meshes.secret(&mesh.namespace())
    }

    /// The next entry to make durable.
    pub fn poll_revocation(&mut self) -> Option<(MeshId, Revocation)> {
        self.meshes.poll_revoked()
    }

    /// From now on the hub takes revocations and acts on none.
    #[cfg(any(test, feature = "internals"))]
    pub fn withhold_revocations(&mut self) {
        self.withholds = true;
    }

    /// The next pass to make durable. Its owner's answer is among the outputs already, so this comes first.
    pub fn poll_issued(&mut self) -> Option<(MeshId, Pass)> {
        self.meshes.poll_issued()
    }

    /// The next connection whose driver has to poll its output.
    pub fn poll_wake(&mut self) -> Option<ClientId> {
        self.gone.pop_first().or_else(|| self.relay.poll_wake())
    }
}
