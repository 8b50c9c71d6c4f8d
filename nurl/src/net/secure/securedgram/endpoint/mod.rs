//! The endpoint's interface to its callers. The gate, the handshakes and the timers have files of their own.

mod gate;
mod handshake;
mod inbound;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::{Rng as _, SeedableRng};
use zeroize::Zeroizing;

use super::attempt::Attempt;
use super::budget::Lane;
use super::frames::MAX_BODY_BYTES;
use super::generation::Keys;
use super::mac::{Challenger, CookieJar, Mac};
use super::paths::{Control, PathConfig, PathState, PathStats, Paths};
use super::peer::Peer;
use super::table::{MAX_PEERS, Slot, Table};
use super::timestamp::Clock;
use super::{CloseReason, Config, EndpointStats, Outgoing, SealError, SessionEvent, channel};
use crate::key::{AllowList, PublicKey};
use crate::mesh::Generation;
use crate::net::secure::noise::StaticKey;
use crate::net::secure::route::{Route, Routes};
use crate::rt::Rng;

/// Capacity of the queue of handshake datagrams for [`Endpoint::poll_transmit`]. A driver drains it after each
/// batch, and a batch holds no more. Further datagrams are dropped; the peer's retry makes up for them.
pub const MAX_TRANSMITS: usize = 4096;

/// Capacity of the queue of events for [`Endpoint::poll_event`]: a few for each peer.
pub const MAX_EVENTS: usize = 8 * MAX_PEERS;

/// The sessions of one key with all its peers.
pub struct Endpoint {
    key: StaticKey,
    local: PublicKey,
    prologue: Vec<u8>,
    generations: Vec<Arc<Keys>>,
    allow: AllowList,
    boot: u64,
    features: u32,
    max_body_bytes: usize,
    max_peers: usize,
    path_config: PathConfig,
    rng: Rng,
    clock: Clock,
    now: Instant,
    jar: CookieJar,
    challenger: Challenger,
    open_lane: Lane,
    cookie_lane: Lane,
    table: Table,
    answers: BTreeMap<Mac, Slot>,
    timers: BTreeSet<(Instant, Slot)>,
    dirty: VecDeque<Slot>,
    queue: VecDeque<(Outgoing, Vec<u8>)>,
    events: VecDeque<SessionEvent>,
    local_candidates: Vec<SocketAddr>,
    scratch: Vec<u8>,
    stats: EndpointStats,
}

impl Endpoint {
    /// An endpoint without peers. `unix_now` is the wall clock's time at `now`.
    pub fn new(config: Config, now: Instant, unix_now: Duration, mut rng: Rng) -> Endpoint {
        let key = StaticKey::new(config.backend, &config.key).expect("32 bytes are an X25519 key");
        let local = *key.public();
        Endpoint {
            local,
            key,
            prologue: config.mesh.prologue(),
            generations: keys(config.generations, &local),
            allow: config.allow,
            boot: config.boot,
            features: config.features,
            max_body_bytes: config.max_body_bytes.min(MAX_BODY_BYTES),
            max_peers: config.max_peers,
            path_config: config.paths,
            clock: Clock::new(now, unix_now),
            now,
            jar: CookieJar::new(now, &mut rng),
            challenger: Challenger::new(&mut rng),
            open_lane: Lane::new(config.open_rates, now),
            cookie_lane: Lane::new(config.cookie_rates, now),
            table: Table::new(&mut rng),
            rng,
            answers: BTreeMap::new(),
            timers: BTreeSet::new(),
            dirty: VecDeque::new(),
            queue: VecDeque::new(),
            events: VecDeque::new(),
            local_candidates: Vec::new(),
            scratch: Vec::new(),
            stats: EndpointStats::default(),
        }
    }

    /// Our own public key.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn local(&self) -> &PublicKey {
        &self.local
    }

    /// The counters.
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// The counters of the paths to each known peer.
    pub fn path_stats(&self) -> impl Iterator<Item = &PathStats> {
        self.table.iter().map(|(_, peer)| peer.paths.stats())
    }

    /// Whether frames can be sealed for `peer` now.
    pub fn is_established(&self, peer: &PublicKey) -> bool {
        self.peer(peer).is_some_and(|peer| peer.current.is_some())
    }

    /// The boot id and the features of the peer's process, if there is a session.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn session(&self, peer: &PublicKey) -> Option<(u64, u32)> {
        self.peer(peer)?.current.as_ref().map(|live| (live.boot, live.features))
    }

    /// When the last authentic frame of a peer came.
    pub fn last_heard(&self, peer: &PublicKey) -> Option<Instant> {
        self.peer(peer)?.last_heard
    }

    /// The known peers, in arbitrary order.
    pub fn peers(&self) -> impl Iterator<Item = &PublicKey> {
        self.table.iter().map(|(_, peer)| &peer.key)
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
        let Some(peer) = self.table.get_mut(slot) else { return Err(SealError::NoSession) };
        let Some(live) = &mut peer.current else {
            self.stats.seal_no_session += 1;
            self.begin_unless_answered(now, slot);
            return Err(SealError::NoSession);
        };
        let len = crate::net::secure::session::OVERHEAD + 1 + body.len();
        let routes = peer.paths.routes().filter(|route| peer.paths.may_send(route, len));
        if routes.is_empty() {
            self.stats.seal_no_route += 1;
            return Err(SealError::NoRoute);
        }
        if live.session.seal(now, &[channel], body, place(&routes, len)).is_err() {
            self.stats.seal_no_session += 1;
            self.close_slot(now, slot, CloseReason::Expired);
            self.begin(now, slot);
            return Err(SealError::NoSession);
        }
        self.stats.frames_sealed += 1;
        let due = live.session.is_spent() || peer.rekey_timer.is_some_and(|at| now >= at);
        peer.paths.on_sent(now, len, true);
        peer.unanswered_since.get_or_insert(now);
        peer.last_app = Some(now);
        if due && peer.attempt.is_none() {
            peer.rekey_timer = None;
            self.begin(now, slot);
        }
        self.touch(slot);
        Ok(routes)
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
        if let Some(peer) = self.table.get_mut(slot) {
            peer.keep = true;
            if peer.current.is_none() {
                self.demand(now, slot);
            }
        }
        Ok(())
    }

    /// Sends a close to the peer and ends the session. The peer's key and timestamp stay known.
    pub fn close(&mut self, now: Instant, peer: &PublicKey) {
        self.now = now;
        let Some(slot) = self.table.slot_of(peer) else { return };
        let Some(peer) = self.table.get_mut(slot) else { return };
        peer.keep = false;
        peer.retry_at = None;
        let routes = peer.paths.routes();
        for route in routes.iter() {
            self.queue_control(slot, route, &Control::Close);
        }
        self.end_attempt(slot);
        self.close_slot(now, slot, CloseReason::Local);
    }

    /// Removes a peer and everything known about it, including its timestamp.
    pub fn forget(&mut self, now: Instant, peer: &PublicKey) {
        self.now = now;
        if let Some(slot) = self.table.slot_of(peer) {
            self.close(now, peer);
            self.remove_slot(slot);
        }
    }

    /// The path state of `peer`; `None` for an unknown peer.
    pub fn path_state(&self, peer: &PublicKey) -> Option<PathState> {
        let slot = self.table.slot_of(peer)?;
        self.table.get(slot).map(|peer| peer.paths.state())
    }

    /// The paths to `peer`, for further calls; `None` for an unknown peer.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn paths(&mut self, peer: &PublicKey) -> Option<&mut Paths> {
        let slot = self.table.slot_of(peer)?;
        self.touch(slot);
        self.table.get_mut(slot).map(|peer| &mut peer.paths)
    }

    /// Adds addresses at which `peer` may be reached, from an outside source. Adds the peer if it is new.
    ///
    /// # Errors
    /// The same as [`connect`](Endpoint::connect).
    pub fn add_candidates(
        &mut self,
        now: Instant,
        peer: &PublicKey,
        addrs: &[SocketAddr],
    ) -> Result<(), SealError> {
        self.change_paths(now, peer, |paths| paths.add_candidates(now, addrs))
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
        if let Some(peer) = self.table.get_mut(slot) {
            peer.psk = psk.map(Zeroizing::new);
        }
        Ok(())
    }

    /// Sets new mesh secrets, current first. Sessions remain; the next handshakes use the new secrets.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: rotation of the secret")
    )]
    pub fn set_generations(&mut self, generations: Vec<Generation>) {
        self.generations = keys(generations, &self.local);
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
            .table
            .iter()
            .filter(|(_, peer)| !self.allow.allows(&peer.key))
            .map(|(slot, _)| slot)
            .collect();
        for slot in banned {
            self.close_slot(now, slot, CloseReason::NotAllowed);
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

    /// Appends the endpoint's next own datagram (handshakes, cookies, confirms, channel 0) to `out` and returns its
    /// destination. Call it until it returns `None`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Outgoing> {
        loop {
            if let Some((outgoing, bytes)) = self.queue.pop_front() {
                out.extend_from_slice(&bytes);
                return Some(outgoing);
            }
            let slot = *self.dirty.front()?;
            if let Some(outgoing) = self.next_control(slot, out) {
                return Some(outgoing);
            }
            self.dirty.pop_front();
            self.settle(slot);
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Endpoint::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let settled = self.timers.first().map(|(at, _)| *at);
        let unsettled = self.dirty.iter().filter_map(|slot| self.table.get(*slot)?.deadline()).min();
        settled.into_iter().chain(unsettled).min()
    }

    fn peer(&self, key: &PublicKey) -> Option<&Peer> {
        self.table.get(self.table.slot_of(key)?)
    }

    fn each_path(&mut self, mut change: impl FnMut(&mut Paths, &[SocketAddr])) {
        let slots: Vec<Slot> = self.table.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(peer) = self.table.get_mut(slot) {
                change(&mut peer.paths, &self.local_candidates);
            }
            self.touch(slot);
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
        let Some(peer) = self.table.get_mut(slot) else { return Ok(()) };
        change(&mut peer.paths);
        let routes = peer.paths.routes();
        let appeared = peer.attempt.as_ref().is_some_and(|attempt| {
            routes.iter().any(|route| attempt.last_routes.iter().all(|known| known != route))
        });
        let wanted = peer.keep && peer.current.is_none() && peer.attempt.is_none() && !routes.is_empty();
        if appeared || wanted {
            self.nudge(now, slot);
        }
        self.touch(slot);
        Ok(())
    }

    fn slot_or_insert(&mut self, now: Instant, key: &PublicKey) -> Result<Slot, SealError> {
        if let Some(slot) = self.table.slot_of(key) {
            return Ok(slot);
        }
        if *key == self.local || !self.allow.allows(key) {
            return Err(SealError::NotAllowed);
        }
        if !self.make_room(now) {
            self.stats.peers_full += 1;
            tracing::debug!(target: "nurl::session", peer = %key.short(), reason = "full", "a peer is refused");
            return Err(SealError::PeersFull);
        }
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut paths = Paths::new(self.path_config.clone(), now, Rng::from_seed(seed));
        paths.set_local_candidates(now, &self.local_candidates);
        Ok(self.table.insert(Peer::new(*key, paths)))
    }

    /// Whether one more peer fits; removes an idle peer if needed.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.table.len() < self.max_peers {
            return true;
        }
        let idle = self.table.iter().find(|(_, peer)| peer.is_idle(now)).map(|(slot, _)| slot);
        if let Some(slot) = idle {
            self.remove_slot(slot);
        }
        idle.is_some()
    }

    fn remove_slot(&mut self, slot: Slot) {
        self.end_attempt(slot);
        let Some(peer) = self.table.get_mut(slot) else { return };
        let released = peer.drop_sessions();
        let (answered, timer) = (std::mem::take(&mut peer.answered), peer.timer.take());
        released.into_iter().for_each(|index| self.table.release_index(index));
        for answer in answered {
            self.answers.remove(&answer.mac1);
        }
        if let Some(at) = timer {
            self.timers.remove(&(at, slot));
        }
        self.dirty.retain(|dirty| *dirty != slot);
        self.table.remove(slot);
    }

    /// Ends every session with a peer, and reports it if there was one.
    fn close_slot(&mut self, now: Instant, slot: Slot, reason: CloseReason) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let (key, was_open) = (peer.key, peer.current.is_some());
        let released = peer.drop_sessions();
        if was_open {
            peer.paths.on_closed(now);
        }
        released.into_iter().for_each(|index| self.table.release_index(index));
        if was_open {
            self.event(SessionEvent::Closed { peer: key, reason });
        }
        self.touch(slot);
    }

    fn end_attempt(&mut self, slot: Slot) -> Option<Attempt> {
        let attempt = self.table.get_mut(slot)?.attempt.take()?;
        attempt.pending.iter().for_each(|pending| self.table.release_index(pending.index));
        Some(attempt)
    }

    /// Seals the next control message of a peer's paths, if there is one, for its own route only.
    fn next_control(&mut self, slot: Slot, out: &mut Vec<u8>) -> Option<Outgoing> {
        loop {
            let (route, control) = self.table.get_mut(slot)?.paths.poll_control()?;
            if let Some(outgoing) = self.seal_control(slot, route, &control, out) {
                return Some(outgoing);
            }
        }
    }

    fn seal_control(
        &mut self,
        slot: Slot,
        route: Route,
        control: &Control,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let peer = self.table.get_mut(slot)?;
        self.scratch.clear();
        self.scratch.extend_from_slice(&control.encode());
        let start = out.len();
        let live = peer.current.as_mut()?;
        live.session.seal(self.now, &[channel::CONTROL], &self.scratch, out).ok()?;
        self.stats.frames_sealed += 1;
        peer.paths.on_sent(self.now, out.len() - start, false);
        Some(outgoing(peer.key, route))
    }

    fn queue_control(&mut self, slot: Slot, route: Route, control: &Control) {
        let mut bytes = Vec::new();
        if let Some(outgoing) = self.seal_control(slot, route, control, &mut bytes) {
            self.transmit(outgoing, bytes);
        }
    }

    fn transmit(&mut self, outgoing: Outgoing, bytes: Vec<u8>) {
        if self.queue.len() >= MAX_TRANSMITS {
            self.stats.transmits_dropped += 1;
        } else {
            self.queue.push_back((outgoing, bytes));
        }
    }

    fn event(&mut self, event: SessionEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.stats.events_dropped += 1;
        } else {
            self.events.push_back(event);
        }
    }

    /// Marks a peer that may have a message, an event or another deadline.
    fn touch(&mut self, slot: Slot) {
        if let Some(peer) = self.table.get_mut(slot)
            && !peer.dirty
        {
            peer.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Fetches a peer's events and sets its timer.
    fn settle(&mut self, slot: Slot) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        peer.dirty = false;
        let (key, deadline) = (peer.key, peer.deadline());
        if peer.timer != deadline {
            if let Some(old) = std::mem::replace(&mut peer.timer, deadline) {
                self.timers.remove(&(old, slot));
            }
            self.timers.extend(deadline.map(|at| (at, slot)));
        }
        while let Some(event) = self.table.get_mut(slot).and_then(|peer| peer.paths.poll_event()) {
            self.event(SessionEvent::Path { peer: key, event });
        }
        let Some(peer) = self.table.get_mut(slot) else { return };
        let (punched, observed) = (peer.paths.poll_punched(), peer.paths.poll_observed());
        if punched {
            self.event(SessionEvent::Punched { peer: key });
        }
        if let Some(addr) = observed {
            self.event(SessionEvent::Observed { peer: key, addr });
        }
    }
}

/// The destination for a known peer: a hub addresses it by its own key.
fn outgoing(peer: PublicKey, route: Route) -> Outgoing {
    Outgoing { peer: Some(peer), route, relay_dst: (!route.is_direct()).then_some(peer) }
}

fn keys(generations: Vec<Generation>, local: &PublicKey) -> Vec<Arc<Keys>> {
    generations.into_iter().map(|generation| Arc::new(Keys::new(generation, local))).collect()
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local).field("peers", &self.table.len()).finish()
    }
}

#[cfg(test)]
impl Endpoint {
    /// Queues `count` events.
    pub(super) fn flood_events(&mut self, count: usize) {
        let event = SessionEvent::HandshakeFailed { peer: self.local };
        (0..count).for_each(|_| self.event(event));
    }

    /// The local and the remote index of the current session.
    pub(super) fn current_indices(&self, peer: &PublicKey) -> Option<(u32, u32)> {
        self.peer(peer)?
            .current
            .as_ref()
            .map(|live| (live.session.local_index(), live.session.remote_index()))
    }

    /// Whether we began the current session.
    pub(super) fn began_current(&self, peer: &PublicKey) -> bool {
        self.peer(peer).and_then(|peer| peer.current.as_ref()).is_some_and(|live| live.session.is_initiator())
    }

    /// Every index that leads to a session or a try.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.table.indices()
    }
}
