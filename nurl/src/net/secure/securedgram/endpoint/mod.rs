//! The endpoint: all peers of one key, behind one interface. A datagram, a timeout or a call is dispatched to its peer,
//! whose [part](super::peer) does the work.
//!
//! | part | content |
//! | --- | --- |
//! | [`identity`] | our key, the mesh's secrets, our process |
//! | [`gate`] | the checks on an inbound init, cookies, budgets |
//! | [`schedule`] | when each peer has work |
//! | [`outbox`] | datagrams and events that wait for the caller |

mod gate;
mod identity;
mod outbox;
mod schedule;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::{Rng as _, SeedableRng};
use zeroize::Zeroizing;

use super::frames::{FrameKind, FrameRefusal, MAX_BODY_BYTES, classify, u32_at};
use super::paths::{PathConfig, PathState, PathStats, Paths};
use super::peer::{Peer, PeerContext};
use super::source::Source;
use super::table::{PeerTable, Slot};
use super::{
    CloseReason, EndpointConfig, EndpointStats, Outgoing, Received, SealError, SessionEvent, channel,
};
use crate::authority::account::{self, Account};
use crate::authority::checker::{Checker, Standing};
use crate::authority::credential::Credential;
use crate::authority::revocation::{Revocation, Revocations};
use crate::key::{AllowList, PublicKey};
use crate::mesh::Generation;
use crate::net::secure::route::Routes;
use crate::net::secure::version::Versions;
use crate::rt::Rng;

use gate::Gate;
pub(super) use identity::LocalIdentity;
pub(super) use outbox::EndpointOutbox;
pub use outbox::{MAX_EVENTS, MAX_TRANSMITS};
pub(super) use schedule::PeerSchedule;

/// Peers that are removed at once when newcomers that confirm nothing fill the table: one search for many of them.
const EVICTED_UNCONFIRMED: usize = 16;

/// The sessions of one key with all its peers.
pub struct Endpoint {
    identity: LocalIdentity,
    allow: AllowList,
    gate: Gate,
    peers: PeerTable,
    schedule: PeerSchedule,
    outbox: EndpointOutbox,
    path_config: PathConfig,
    /// Our own addresses, for the paths of every peer.
    local_candidates: Vec<SocketAddr>,
    max_body_bytes: usize,
    rng: Rng,
    /// The time of the last call.
    now: Instant,
    stats: EndpointStats,
}

impl Endpoint {
    /// An endpoint without peers. `unix_now` is the wall clock's time at `now`.
    pub fn new(config: EndpointConfig, now: Instant, unix_now: Duration, mut rng: Rng) -> Endpoint {
        Endpoint {
            identity: LocalIdentity::new(&config, now, unix_now),
            gate: Gate::new(&config, now, unix_now, &mut rng),
            peers: PeerTable::new(config.max_peers, &mut rng),
            allow: config.allow,
            schedule: PeerSchedule::default(),
            outbox: EndpointOutbox::new(now),
            path_config: config.paths,
            local_candidates: Vec::new(),
            max_body_bytes: config.max_body_bytes.min(MAX_BODY_BYTES),
            rng,
            now,
            stats: EndpointStats::default(),
        }
    }

    /// Our own public key.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn local(&self) -> &PublicKey {
        self.identity.local()
    }

    /// The counters.
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// The counters of the paths to each known peer.
    pub fn path_stats(&self) -> impl Iterator<Item = &PathStats> {
        self.peers.iter().map(|(_, peer)| peer.paths.stats())
    }

    /// Whether frames can be sealed for `peer` now.
    pub fn is_established(&self, peer: &PublicKey) -> bool {
        self.peer(peer).is_some_and(|peer| peer.sessions.is_open())
    }

    /// The boot id and the features of the peer's process, if there is a session.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn session(&self, peer: &PublicKey) -> Option<(u64, u16)> {
        self.peer(peer)?.sessions.current().map(|live| (live.boot, live.features))
    }

    /// The versions that we speak.
    pub fn versions(&self) -> Versions {
        self.identity.versions
    }

    /// The peers met lately that speak none of our versions, and what they speak.
    pub fn incompatible(&self, now: Instant) -> impl Iterator<Item = (PublicKey, Versions)> {
        self.identity.incompatible.list(now)
    }

    /// What the peer may do, if there is a session.
    pub fn standing(&self, peer: &PublicKey) -> Option<&Standing> {
        self.peer(peer)?.sessions.current().map(|live| &live.standing)
    }

    /// Sets what we show. Attempts that waited for it begin anew.
    pub fn set_credential(&mut self, now: Instant, credential: &Credential) {
        self.now = now;
        let first = !self.identity.has_credential();
        self.identity.set_credential(credential);
        let slots: Vec<Slot> = self.peers.iter().map(|(slot, _)| slot).collect();
        for slot in slots.into_iter().filter(|_| first) {
            if let Some((peer, mut cx)) = self.split(now, slot)
                && peer.is_trying()
            {
                peer.nudge(&mut cx);
            }
        }
    }

    /// The peers whose sessions end by this entry.
    pub fn revoked_by(&self, entry: &Revocation) -> Vec<PublicKey> {
        let revoked = |peer: &&Peer| peer.sessions.standings().any(|standing| entry.revokes(&standing.grant));
        self.peers.iter().map(|(_, peer)| peer).filter(revoked).map(|peer| peer.key).collect()
    }

    /// Whether what we show was revoked.
    pub fn is_revoked(&self) -> bool {
        self.identity.is_revoked()
    }

    /// What is checked of passes.
    pub fn checker(&mut self) -> &mut Checker {
        &mut self.identity.checker
    }

    /// Takes a revocation, and ends the sessions of those that it concerns. Returns whether it is news.
    pub fn revoke(&mut self, now: Instant, entry: Revocation) -> bool {
        self.now = now;
        let news = self.identity.checker.revoke(entry);
        if news {
            let over: Vec<Slot> = self
                .peers
                .iter()
                .filter(|(_, peer)| {
                    peer.sessions.standings().any(|standing| self.identity.checker.is_over(now, standing))
                })
                .map(|(slot, _)| slot)
                .collect();
            for slot in over {
                if let Some((peer, mut cx)) = self.split(now, slot) {
                    peer.close(&mut cx, CloseReason::NotAdmitted);
                }
            }
        }
        news
    }

    /// The revocations known.
    pub fn revocations(&self) -> &Revocations {
        self.identity.checker.revocations()
    }

    /// When the last authentic frame of a peer came.
    pub fn last_heard(&self, peer: &PublicKey) -> Option<Instant> {
        self.peer(peer)?.last_heard
    }

    /// The known peers, in arbitrary order.
    pub fn peers(&self) -> impl Iterator<Item = &PublicKey> {
        self.peers.iter().map(|(_, peer)| &peer.key)
    }

    /// Appends one sealed frame for `peer` to `out`. The caller transmits these bytes on every returned route.
    ///
    /// # Errors
    /// The reason why nothing was appended. [`SealError::NoSession`] begins a handshake.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn seal(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        channel: u8,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Routes, SealError> {
        self.seal_into(now, peer, channel, body, |_, _| out)
    }

    /// Like [`seal`](Endpoint::seal), but asks for the buffer once the routes and the frame's length are known, so
    /// that bulk data is sealed in its send buffer. An error may still follow; then nothing is appended.
    ///
    /// # Errors
    /// The same as [`seal`](Endpoint::seal).
    pub fn seal_into<'a>(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        channel: u8,
        body: &[u8],
        place: impl FnOnce(&Routes, usize) -> &'a mut Vec<u8>,
    ) -> Result<Routes, SealError> {
        self.now = now;
        if body.len() > self.max_body_bytes {
            self.stats.seal_too_large += 1;
            return Err(SealError::TooLarge { max_bytes: self.max_body_bytes });
        }
        if !channel::is_callers(channel) {
            return Err(SealError::BadChannel);
        }
        let slot = self.slot_or_insert(now, peer)?;
        let Some((peer, mut cx)) = self.split(now, slot) else { return Err(SealError::NoSession) };
        peer.seal(&mut cx, channel, body, place)
    }

    /// Opens a session with `peer` and keeps it open, through rekeyings and failures, until
    /// [`close`](Endpoint::close) or [`forget`](Endpoint::forget). A pending attempt goes on; in its slow phase it
    /// makes one more try, no matter how often this is called.
    ///
    /// # Errors
    /// [`SealError::NotAllowed`] or [`SealError::PeersFull`].
    pub fn connect(&mut self, now: Instant, peer: &PublicKey) -> Result<(), SealError> {
        self.now = now;
        let slot = self.slot_or_insert(now, peer)?;
        if let Some((peer, mut cx)) = self.split(now, slot) {
            peer.keep_open();
            if !peer.sessions.is_open() {
                peer.demand(&mut cx);
            }
        }
        Ok(())
    }

    /// Sends a close to the peer and ends the session. The peer's key and timestamp stay known.
    pub fn close(&mut self, now: Instant, peer: &PublicKey) {
        self.now = now;
        if let Some(slot) = self.peers.slot_of(peer)
            && let Some((peer, mut cx)) = self.split(now, slot)
        {
            peer.end(&mut cx);
        }
    }

    /// Removes a peer and everything known about it but its last timestamp.
    pub fn forget(&mut self, now: Instant, peer: &PublicKey) {
        self.now = now;
        if let Some(slot) = self.peers.slot_of(peer) {
            self.close(now, peer);
            self.remove_slot(slot);
        }
    }

    /// The path state of `peer`; `None` for an unknown peer.
    pub fn path_state(&self, peer: &PublicKey) -> Option<PathState> {
        self.peer(peer).map(|peer| peer.paths.state())
    }

    /// The paths to `peer`, for further calls; `None` for an unknown peer.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn paths(&mut self, peer: &PublicKey) -> Option<&mut Paths> {
        let slot = self.peers.slot_of(peer)?;
        self.schedule.touch(slot);
        self.peers.get_mut(slot).map(|peer| &mut peer.paths)
    }

    /// Adds addresses at which `peer` may be reached: from its record at a rendezvous, which had `record_bytes`, or from the
    /// program itself. Adds the peer if it is new.
    ///
    /// # Errors
    /// The same as [`connect`](Endpoint::connect).
    pub fn add_candidates(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        addrs: &[SocketAddr],
        record_bytes: Option<usize>,
    ) -> Result<(), SealError> {
        self.change_paths(now, peer, |paths| match record_bytes {
            Some(len) => paths.add_published(now, addrs, len),
            None => paths.add_candidates(now, addrs),
        })
    }

    /// Sets the hubs through which `peer` can be reached now. Adds the peer if it is new.
    ///
    /// # Errors
    /// The same as [`connect`](Endpoint::connect).
    pub fn set_relays(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        hubs: &[PublicKey],
    ) -> Result<(), SealError> {
        self.change_paths(now, peer, |paths| paths.set_relays(now, hubs))
    }

    /// Sets our own addresses, for every peer.
    pub fn set_local_candidates(&mut self, now: Instant, addrs: &[SocketAddr]) {
        self.now = now;
        self.local_candidates = addrs.to_vec();
        self.each_path(|paths, addrs| paths.set_local_candidates(now, addrs));
    }

    /// Our own network changed: puts every path in doubt.
    pub fn on_network_change(&mut self, now: Instant) {
        self.now = now;
        self.each_path(|paths, _| paths.on_network_change(now));
    }

    /// Sets a pre-shared key for one peer in place of the mesh's; `None` restores the mesh's. It applies to pending
    /// handshakes too.
    ///
    /// # Errors
    /// The same as [`connect`](Endpoint::connect).
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: rotation of the secret")
    )]
    pub fn set_psk(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        psk: Option<[u8; 32]>,
    ) -> Result<(), SealError> {
        let slot = self.slot_or_insert(now, peer)?;
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.psk = psk.map(Zeroizing::new);
        }
        Ok(())
    }

    /// Sets new mesh secrets, current first. Sessions remain; the next handshakes use the new secrets.
    pub fn set_generations(&mut self, generations: Vec<Generation>) {
        self.identity.set_generations(generations);
    }

    /// Sets a new allow-list. Sessions with peers that aren't on it end.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: an allow-list that changes")
    )]
    pub fn set_allow(&mut self, now: Instant, allow: AllowList) {
        self.now = now;
        self.allow = allow;
        let banned: Vec<Slot> = self
            .peers
            .iter()
            .filter(|(_, peer)| !self.allow.allows(&peer.key))
            .map(|(slot, _)| slot)
            .collect();
        for slot in banned {
            if let Some((peer, mut cx)) = self.split(now, slot) {
                peer.close(&mut cx, CloseReason::NotAllowed);
            }
            self.remove_slot(slot);
        }
    }

    /// Sets the largest body that is sealed, after a probe; capped at
    /// [`MAX_BODY_BYTES`](super::frames::MAX_BODY_BYTES).
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn set_max_body(&mut self, bytes: usize) {
        self.max_body_bytes = bytes.min(MAX_BODY_BYTES);
    }

    /// Handles one datagram and decrypts it in place. Data for the caller is returned; everything else
    /// is consumed. A refused datagram changes nothing and is counted.
    pub fn handle_datagram(&mut self, now: Instant, source: Source, datagram: &mut [u8]) -> Option<Received> {
        self.now = now;
        match classify(datagram) {
            Ok(FrameKind::Data) => match self.split_by_index(now, u32_at(datagram, 1)) {
                Some((peer, mut cx)) => return peer.handle_data(&mut cx, source, datagram),
                None => self.stats.unknown_index += 1,
            },
            Ok(FrameKind::Group) => return Some(Received::Group),
            Ok(FrameKind::Init) => self.handle_init(now, source, datagram),
            Ok(FrameKind::Response) => match self.split_by_index(now, u32_at(datagram, 5)) {
                Some((peer, mut cx)) => peer.handle_response(&mut cx, source, datagram),
                None => self.stats.responses_unexpected += 1,
            },
            Ok(FrameKind::Cookie) => match self.split_by_index(now, u32_at(datagram, 1)) {
                Some((peer, mut cx)) => peer.handle_cookie(&mut cx, source, datagram),
                None => self.stats.cookies_refused += 1,
            },
            Err(FrameRefusal::Unknown) => self.stats.unknown_frame += 1,
            Err(FrameRefusal::Length) => self.stats.bad_length += 1,
            Err(FrameRefusal::Oversize) => self.stats.oversize += 1,
        }
        None
    }

    /// Appends the endpoint's next own datagram (handshakes, cookies, confirms, channel 0) to `out` and returns its
    /// destination. Call it until it returns `None`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Outgoing> {
        loop {
            if let Some((outgoing, bytes)) = self.outbox.poll_transmit() {
                out.extend_from_slice(&bytes);
                return Some(outgoing);
            }
            let slot = self.schedule.first_touched()?;
            if let Some((peer, mut cx)) = self.split(self.now, slot)
                && let Some(outgoing) = peer.poll_control(&mut cx, out)
            {
                return Some(outgoing);
            }
            self.settle_first(slot);
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.outbox.poll_event()
    }

    /// When to call [`handle_timeout`](Endpoint::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next_deadline(|slot| self.peers.get(slot)?.deadline())
    }

    /// Handles the timeouts that are due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let peers = &self.peers;
        for slot in self.schedule.take_due(now, |slot| peers.get(slot)?.deadline()) {
            self.schedule.touch(slot);
            if let Some((peer, mut cx)) = self.split(now, slot) {
                peer.handle_timeout(&mut cx);
            }
        }
    }

    fn peer(&self, key: &PublicKey) -> Option<&Peer> {
        self.peers.get(self.peers.slot_of(key)?)
    }

    /// A peer, what it may use of the endpoint, and the gate.
    fn split_with_gate(&mut self, now: Instant, slot: Slot) -> Option<(&mut Peer, PeerContext<'_>, &Gate)> {
        let (peer, indices) = self.peers.get_with_indices(slot)?;
        let cx = PeerContext {
            now,
            slot,
            identity: &mut self.identity,
            indices,
            schedule: &mut self.schedule,
            outbox: &mut self.outbox,
            rng: &mut self.rng,
            stats: &mut self.stats,
        };
        Some((peer, cx, &self.gate))
    }

    /// A peer, and what it may use of the endpoint.
    fn split(&mut self, now: Instant, slot: Slot) -> Option<(&mut Peer, PeerContext<'_>)> {
        self.split_with_gate(now, slot).map(|(peer, cx, _)| (peer, cx))
    }

    /// The peer to which a session index leads.
    fn split_by_index(&mut self, now: Instant, index: u32) -> Option<(&mut Peer, PeerContext<'_>)> {
        let slot = self.peers.indices.slot_of(index)?;
        self.split(now, slot)
    }

    fn each_path(&mut self, mut change: impl FnMut(&mut Paths, &[SocketAddr])) {
        let slots: Vec<Slot> = self.peers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(peer) = self.peers.get_mut(slot) {
                change(&mut peer.paths, &self.local_candidates);
            }
            self.schedule.touch(slot);
        }
    }

    fn change_paths(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        change: impl FnOnce(&mut Paths),
    ) -> Result<(), SealError> {
        self.now = now;
        let slot = self.slot_or_insert(now, peer)?;
        if let Some((peer, mut cx)) = self.split(now, slot) {
            change(&mut peer.paths);
            peer.on_routes_changed(&mut cx);
        }
        Ok(())
    }

    fn slot_or_insert(&mut self, now: Instant, key: &PublicKey) -> Result<Slot, SealError> {
        self.slot_or_insert_for(now, &Account::alone(*key))
    }

    /// The slot of a peer, which a new one gets on its account.
    fn slot_or_insert_for(&mut self, now: Instant, account: &Account) -> Result<Slot, SealError> {
        let key = &account.key();
        if let Some(slot) = self.peers.slot_of(key) {
            return Ok(slot);
        }
        if key == self.identity.local() || !self.allow.allows(key) {
            return Err(SealError::NotAllowed);
        }
        if !self.make_room(now, account) {
            self.stats.peers_full += 1;
            tracing::debug!(target: "nurl::session", peer = %key.short(), reason = "full", "a peer is refused");
            return Err(SealError::PeersFull);
        }
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut paths = Paths::new(self.path_config.clone(), now, Rng::from_seed(seed));
        paths.set_local_candidates(now, &self.local_candidates);
        let floor = self.gate.memory.meet(key);
        Ok(self.peers.insert(Peer::new(*key, paths, floor)))
    }

    /// Whether one more peer fits; removes an idle peer if needed. If there is none, those make room that have answered
    /// nothing yet, of the pass that has most of them.
    fn make_room(&mut self, now: Instant, newcomer: &Account) -> bool {
        if !self.peers.is_full() {
            return true;
        }
        let idle = self.peers.iter().find(|(_, peer)| peer.is_idle(now)).map(|(slot, _)| slot);
        let unconfirmed = self.peers.iter().filter(|(_, peer)| !peer.sessions.is_open() && !peer.is_trying());
        let crowd = unconfirmed.filter_map(|(slot, peer)| {
            let account = peer.sessions.standings().next()?.account(peer.key);
            Some((account, peer.sessions.answered_at(), slot))
        });
        let out =
            idle.map_or_else(|| account::make_room(crowd, newcomer, EVICTED_UNCONFIRMED), |slot| vec![slot]);
        out.iter().for_each(|slot| self.remove_slot(*slot));
        !out.is_empty()
    }

    fn remove_slot(&mut self, slot: Slot) {
        if let Some((peer, mut cx)) = self.split(self.now, slot) {
            peer.release_all(&mut cx);
        }
        self.schedule.forget(slot);
        if let Some(peer) = self.peers.remove(slot) {
            self.gate.memory.forget(self.now, peer.key, peer.responder.newest());
        }
    }

    /// Sets the timer of the first touched peer, and fetches its events.
    fn settle_first(&mut self, slot: Slot) {
        let Some(peer) = self.peers.get_mut(slot) else { return self.schedule.settle_first(None) };
        let (key, stats) = (peer.key, &mut self.stats);
        self.schedule.settle_first(peer.deadline());
        while let Some(event) = peer.paths.poll_event() {
            self.outbox.event(stats, SessionEvent::Path { peer: key, event });
        }
        if peer.paths.poll_punched() {
            self.outbox.event(stats, SessionEvent::Punched { peer: key });
        }
        if let Some(addr) = peer.paths.poll_observed() {
            self.outbox.event(stats, SessionEvent::Observed { peer: key, addr });
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local", self.identity.local())
            .field("peers", &self.peers.len())
            .finish()
    }
}

#[cfg(test)]
impl Endpoint {
    /// Queues `count` events.
    pub(super) fn flood_events(&mut self, count: usize) {
        let event = SessionEvent::HandshakeFailed { peer: *self.identity.local() };
        (0..count).for_each(|_| self.outbox.event(&mut self.stats, event));
    }

    /// The local and the remote index of the current session.
    pub(super) fn current_indices(&self, peer: &PublicKey) -> Option<(u32, u32)> {
        self.peer(peer)?
            .sessions
            .current()
            .map(|live| (live.session.local_index(), live.session.remote_index()))
    }

    /// Whether we began the current session.
    pub(super) fn began_current(&self, peer: &PublicKey) -> bool {
        self.peer(peer)
            .and_then(|peer| peer.sessions.current())
            .is_some_and(|live| live.session.is_initiator())
    }

    /// What both speak in the session with the peer, if there is one.
    pub(super) fn version(&self, peer: &PublicKey) -> Option<crate::net::secure::version::Version> {
        self.peer(peer)?.sessions.current().map(|live| live.version)
    }

    /// Every index that leads to a session or a try.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.peers.indices.all()
    }
}
