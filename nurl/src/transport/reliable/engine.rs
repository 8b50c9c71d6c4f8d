//! [`Reliable`]: all peers, their connections, and the order in which they are served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Dir, Event as QuicEvent, StreamEvent, StreamId};

use super::inbox::Violation;
use super::limits::{
    GONE_INTERVAL, MAX_MESSAGE_BYTES, MAX_PROBE_INTERVAL, MESSAGE_OVERHEAD_BYTES, OPEN_INTERVAL, STALL,
};
use super::link::{Fate, Link, Settings};
use super::outbox::{Gone, Outbox};
use super::wire::{self, Cid, Datagram, Pair};
use super::{Event, FailReason, MessageId, Priority, ReliableConfig, SendError, Stats};
use crate::key::PublicKey;
use crate::rt::Rng;

/// The back-off of OPEN datagrams.
#[derive(Debug, Clone, Copy)]
struct Opening {
    at: Instant,
    wait: Duration,
}

#[derive(Default)]
struct Peer {
    boot: Option<u64>,
    outbox: Outbox,
    link: Option<Link>,
    /// As server: the client's newest attempt that was accepted.
    last_attempt: u64,
    /// As server with something to send and no connection.
    opening: Option<Opening>,
    /// A datagram of ours beside QUIC's.
    control: Option<Vec<u8>>,
    gone_sent: Option<Instant>,
    /// Whether the peer is in the queue of those that may have something to send.
    queued: bool,
    /// Its entry in the table of timers.
    timer: Option<Instant>,
}

/// Reliable messages to and from all peers. See the [module](super).
pub struct Reliable {
    config: ReliableConfig,
    settings: Settings,
    local: PublicKey,
    boot: u64,
    rng: Rng,
    peers: BTreeMap<PublicKey, Peer>,
    next_message: u64,
    /// As client: attempts, counted over all peers.
    attempts: u64,
    ready: VecDeque<PublicKey>,
    timers: BTreeSet<(Instant, PublicKey)>,
    events: VecDeque<Event>,
    /// Bytes accepted and unacknowledged.
    sending: usize,
    /// Bytes received, incomplete or not yet taken.
    receiving: usize,
    /// Peers and priorities that were told `Full`.
    refused: BTreeSet<(PublicKey, Priority)>,
    /// Peers that were told `Full` because of the budget of all peers.
    refused_by_all: BTreeSet<PublicKey>,
    /// Peers that aren't read from, for the receive budget.
    paused: BTreeSet<PublicKey>,
    /// While the receive budget is exceeded: the peer that is read from, and its last progress.
    leader: Option<(PublicKey, Instant)>,
    stats: Stats,
}

impl Reliable {
    /// `local_boot` is this process's boot id, the one that its sessions announce. `now` is the time base;
    /// all later times must not be before it.
    pub fn new(
        config: ReliableConfig,
        local: PublicKey,
        local_boot: u64,
        _now: Instant,
        rng: Rng,
    ) -> Reliable {
        Reliable {
            config,
            settings: Settings::new(),
            local,
            boot: local_boot,
            rng,
            peers: BTreeMap::new(),
            next_message: 0,
            attempts: 0,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            sending: 0,
            receiving: 0,
            refused: BTreeSet::new(),
            refused_by_all: BTreeSet::new(),
            paused: BTreeSet::new(),
            leader: None,
            stats: Stats::default(),
        }
    }

    /// Accepts a message for a peer. It waits until there is a session ([`Reliable::on_established`]); to
    /// get one is the caller's affair.
    ///
    /// # Errors
    /// What [`SendError`] says; nothing was queued then.
    pub fn send(
        &mut self,
        now: Instant,
        peer: PublicKey,
        priority: Priority,
        kind: u8,
        body: Bytes,
    ) -> Result<MessageId, SendError> {
        if peer == self.local {
            return Err(SendError::ToSelf);
        }
        if body.len() > MAX_MESSAGE_BYTES {
            self.stats.refused_large += 1;
            return Err(SendError::TooLarge { len: body.len() });
        }
        if !self.admit(peer) {
            return Err(SendError::TooManyPeers);
        }
        let entry = self.peers.entry(peer).or_default();
        let over =
            self.sending > 0 && self.sending.saturating_add(body.len()) > self.config.send_budget_bytes;
        if over || !entry.outbox.fits(priority, body.len(), &self.config) {
            self.stats.refused_full += 1;
            if over {
                self.refused_by_all.insert(peer);
            } else {
                self.refused.insert((peer, priority));
            }
            return Err(SendError::Full { queued_bytes: entry.outbox.bytes() });
        }
        let id = MessageId(self.next_message);
        self.next_message += 1;
        self.stats.accepted += 1;
        self.sending += body.len();
        if entry.outbox.is_empty()
            && let Some(link) = &mut entry.link
        {
            // What was silent because there was nothing to say is not overdue.
            link.touched = now;
        }
        entry.outbox.push(id, priority, kind, body);
        self.service(now, peer);
        Ok(id)
    }

    /// A session with `peer`, in its process `peer_boot`, is up. A boot id other than the last one ends the
    /// connection and fails what is unacknowledged; the same one is a hint that the path works again.
    pub fn on_established(&mut self, now: Instant, peer: PublicKey, peer_boot: u64) {
        if peer == self.local || !self.admit(peer) {
            return;
        }
        let entry = self.peers.entry(peer).or_default();
        match entry.boot {
            Some(boot) if boot == peer_boot => {
                entry.opening = None;
                self.probe(now, peer);
                return;
            }
            Some(_) => {
                self.drop_link(peer);
                let entry = self.peers.entry(peer).or_default();
                let gone = entry.outbox.take_all();
                *entry = Peer { queued: entry.queued, timer: entry.timer, ..Peer::default() };
                self.fail(peer, gone, FailReason::PeerRestarted);
            }
            None => {}
        }
        self.peers.entry(peer).or_default().boot = Some(peer_boot);
        self.service(now, peer);
    }

    /// Takes the body of a channel-2 datagram.
    pub fn handle_datagram(&mut self, now: Instant, peer: PublicKey, body: &[u8]) {
        let Some(datagram) = Datagram::parse(body) else {
            self.stats.garbage += 1;
            return;
        };
        let Some(pair) = self.pair(&peer) else {
            self.stats.unknown_peer += 1;
            return;
        };
        let client = self.is_client(&peer);
        let before = (self.held(&peer), self.stats.delivered);
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        match datagram {
            Datagram::Open(named) if named == pair && client => match &mut entry.link {
                // It doesn't know of the connection that we hold: its answer to the ping will say so.
                Some(link) if link.connected => link.ping(),
                Some(_) => {}
                None => self.connect(now, peer, pair),
            },
            Datagram::Gone(cid) if entry.link.as_ref().is_some_and(|link| link.remote_cid == Some(cid)) => {
                self.lose(peer, None);
            }
            Datagram::First { pair: named, attempt } if named == pair && !client => {
                if entry.link.as_ref().is_some_and(|link| link.attempt == attempt) {
                    self.handle_packet(now, peer, None, body);
                } else if attempt > entry.last_attempt {
                    self.accept(now, peer, attempt, body);
                } else {
                    self.stats.stale += 1;
                }
            }
            Datagram::Packet(cid) => self.handle_packet(now, peer, Some(cid), body),
            Datagram::Open(_) | Datagram::Gone(_) | Datagram::First { .. } => self.stats.stale += 1,
        }
        self.service(now, peer);
        if before != (self.held(&peer), self.stats.delivered)
            && let Some((leader, progress)) = &mut self.leader
            && *leader == peer
        {
            *progress = now;
        }
    }

    /// The peer is now reached over another path (direct ↔ relay, wifi ↔ cellular). What QUIC learned of the
    /// old one, its window and round trip, is dropped, and a probe goes out at once. Measured when a round
    /// trip of 20 ms became 200 ms at 40 Mbit/s: the next seven seconds carry 33 MB, against 19 MB without.
    /// After a mere blackout of the same path nothing is to be reset; [`Reliable::on_established`] with the
    /// same boot id only probes.
    pub fn on_path_changed(&mut self, now: Instant, peer: PublicKey) {
        if let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut()) {
            link.conn.path_changed(now);
        }
        self.probe(now, peer);
    }

    /// Asks for a sign of life now if something is unanswered, where QUIC might be in a long back-off.
    fn probe(&mut self, now: Instant, peer: PublicKey) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && let Some(link) = &mut entry.link
            && (!link.connected || !entry.outbox.is_empty())
        {
            link.probe(now);
            self.stats.early_probes += 1;
        }
        self.service(now, peer);
    }

    /// Drops all that is known of a peer; unacknowledged messages fail with [`FailReason::Forgotten`].
    pub fn forget(&mut self, _now: Instant, peer: PublicKey) {
        self.drop_link(peer);
        if let Some(mut entry) = self.peers.remove(&peer) {
            if let Some(at) = entry.timer {
                self.timers.remove(&(at, peer));
            }
            if entry.queued {
                self.ready.retain(|ready| *ready != peer);
            }
            let gone = entry.outbox.take_all();
            self.fail(peer, gone, FailReason::Forgotten);
        }
        self.refused.retain(|(refused, _)| *refused != peer);
        self.refused_by_all.remove(&peer);
        self.resume();
    }

    /// Writes the next datagrams for one peer into `out`, whose old content is lost. With a segment size,
    /// `out` holds several datagrams of that size, the last one possibly shorter: each is to be sealed by
    /// itself. None is longer than [`DATAGRAM_BYTES`](super::DATAGRAM_BYTES). Peers take turns.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<(PublicKey, Option<usize>)> {
        out.clear();
        while let Some(peer) = self.ready.pop_front() {
            let Some(entry) = self.peers.get_mut(&peer) else { continue };
            entry.queued = false;
            if let Some(control) = entry.control.take() {
                out.extend_from_slice(&control);
                self.enqueue(peer);
                return Some((peer, None));
            }
            let sent = entry.link.as_mut().and_then(|link| link.poll_transmit(now, out));
            self.set_timer(peer);
            if let Some(segment) = sent {
                self.enqueue(peer);
                return Some((peer, segment));
            }
        }
        None
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Message { body, .. } = &event {
            self.receiving -= body.len() + MESSAGE_OVERHEAD_BYTES;
            self.resume();
        }
        Some(event)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((leader, progress)) = self.leader
            && now >= progress + STALL
        {
            self.leader = None;
            if self.over_budget() && self.held(&leader) > 0 {
                self.stats.stalled += 1;
                self.hang_up(now, leader);
            }
            self.choose_leader(now);
            self.resume();
        }
        while let Some(&(at, peer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let pair = self.pair(&peer);
            let Some(entry) = self.peers.get_mut(&peer) else { continue };
            entry.timer = None;
            if let Some(opening) = &mut entry.opening
                && opening.at <= now
            {
                opening.wait = (opening.wait * 2).min(MAX_PROBE_INTERVAL);
                opening.at = now + opening.wait;
                entry.control = pair.map(wire::open);
                self.stats.opens_sent += 1;
            }
            if let Some(link) = &mut entry.link {
                match link.conn.poll_timeout() {
                    Some(due) if due <= now => {
                        link.conn.handle_timeout(now);
                        link.touched = now;
                    }
                    Some(_) if now >= link.touched + MAX_PROBE_INTERVAL => {
                        link.probe(now);
                        self.stats.early_probes += 1;
                    }
                    _ => {}
                }
            }
            self.service(now, peer);
        }
    }

    /// When [`Reliable::handle_timeout`] is wanted next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let stall = self.leader.map(|(_, progress)| progress + STALL);
        timer.into_iter().chain(stall).min()
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Bytes accepted for a peer and not yet acknowledged.
    pub fn queued_bytes(&self, peer: &PublicKey) -> usize {
        self.peers.get(peer).map_or(0, |entry| entry.outbox.bytes())
    }

    /// How much QUIC would send to a peer in one round trip, in bytes; `None` without a connection.
    pub fn window(&self, peer: &PublicKey) -> Option<u64> {
        self.peers.get(peer)?.link.as_ref().map(Link::window)
    }

    // --- peers -----------------------------------------------------------------------------------------

    fn is_client(&self, peer: &PublicKey) -> bool {
        self.local < *peer
    }

    /// The name of this process and the peer's, if the peer's boot is known.
    fn pair(&self, peer: &PublicKey) -> Option<Pair> {
        let boot = self.peers.get(peer)?.boot?;
        let (ours, theirs) = ((&self.local, self.boot), (peer, boot));
        Some(if self.is_client(peer) { Pair::new(ours, theirs) } else { Pair::new(theirs, ours) })
    }

    /// Whether the peer is in the table or has room there.
    fn admit(&mut self, peer: PublicKey) -> bool {
        let admitted = self.peers.contains_key(&peer) || self.peers.len() < self.config.max_peers;
        self.stats.refused_peers += u64::from(!admitted);
        admitted
    }

    fn enqueue(&mut self, peer: PublicKey) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && !entry.queued
        {
            entry.queued = true;
            self.ready.push_back(peer);
        }
    }

    fn set_timer(&mut self, peer: PublicKey) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let busy = !entry.outbox.is_empty();
        let quic = entry.link.as_mut().and_then(|link| {
            let due = link.conn.poll_timeout()?;
            let unanswered = busy || !link.connected;
            Some(if unanswered { due.min(link.touched + MAX_PROBE_INTERVAL) } else { due })
        });
        let timer = quic.into_iter().chain(entry.opening.map(|opening| opening.at)).min();
        if timer != entry.timer {
            if let Some(at) = entry.timer {
                self.timers.remove(&(at, peer));
            }
            entry.timer = timer;
            self.timers.extend(timer.map(|at| (at, peer)));
        }
    }

    // --- connections -----------------------------------------------------------------------------------

    fn connect(&mut self, now: Instant, peer: PublicKey, pair: Pair) {
        self.attempts += 1;
        let first_cid = pair.first_cid(self.attempts);
        let link = Link::connect(&self.settings, now, &first_cid, self.attempts, &mut self.rng);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.link = link;
        }
    }

    fn accept(&mut self, now: Instant, peer: PublicKey, attempt: u64, packet: &[u8]) {
        let Some(link) = Link::accept(&self.settings, now, packet, attempt, &mut self.rng) else {
            self.stats.garbage += 1;
            return;
        };
        // The client began anew, so its half of an earlier connection is gone.
        self.lose(peer, None);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.last_attempt = attempt;
            entry.link = Some(link);
            entry.opening = None;
        }
    }

    fn handle_packet(&mut self, now: Instant, peer: PublicKey, cid: Option<Cid>, packet: &[u8]) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let fate = entry.link.as_mut().map_or(Fate::Unknown, |link| link.handle_packet(now, packet));
        if fate == Fate::Unknown {
            self.stats.stale += 1;
            if let Some(cid) = cid {
                self.say_gone(now, peer, cid);
            }
        }
    }

    fn say_gone(&mut self, now: Instant, peer: PublicKey, cid: Cid) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.gone_sent.is_some_and(|sent| now < sent + GONE_INTERVAL) {
            return;
        }
        entry.gone_sent = Some(now);
        entry.control = Some(wire::gone(cid));
        self.stats.gones_sent += 1;
        self.enqueue(peer);
    }

    /// Takes a connection away, and its bytes out of the receive budget.
    fn drop_link(&mut self, peer: PublicKey) -> Option<Link> {
        let link = self.peers.get_mut(&peer)?.link.take()?;
        self.stats.connections_ended += 1;
        self.receiving -= link.inbox.held();
        self.paused.remove(&peer);
        if self.leader.is_some_and(|(leader, _)| leader == peer) {
            self.leader = None;
        }
        Some(link)
    }

    /// The connection is gone, the peer's process isn't. What was on its way fails, the rest waits for the
    /// next connection.
    fn lose(&mut self, peer: PublicKey, tell: Option<Instant>) {
        let Some(link) = self.drop_link(peer) else { return };
        if let (Some(now), Some(cid)) = (tell, link.local_cid) {
            self.say_gone(now, peer, cid);
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let gone = entry.outbox.take_sending();
        self.fail(peer, gone, FailReason::ConnectionLost);
    }

    /// Ends a connection and tells the peer.
    fn hang_up(&mut self, now: Instant, peer: PublicKey) {
        self.lose(peer, Some(now));
    }

    fn fail(&mut self, peer: PublicKey, messages: Vec<Gone>, reason: FailReason) {
        let any = !messages.is_empty();
        for Gone { id, length } in messages {
            self.sending -= length;
            self.stats.failed += 1;
            self.events.push_back(Event::Failed { peer, id, reason });
        }
        if any {
            self.announce_room(peer);
        }
    }

    /// A message left: whoever was refused may try again, once half of the budget in question is free.
    fn announce_room(&mut self, peer: PublicKey) {
        let outbox = self.peers.get(&peer).map(|entry| &entry.outbox);
        let half = self.config.class_budget_bytes / 2;
        let mut room = false;
        for priority in Priority::ALL {
            if outbox.is_none_or(|outbox| outbox.fits(priority, half, &self.config)) {
                room |= self.refused.remove(&(peer, priority));
            }
        }
        if room {
            self.events.push_back(Event::Writable { peer });
        }
        if self.sending <= self.config.send_budget_bytes / 2 {
            let refused = std::mem::take(&mut self.refused_by_all);
            self.events.extend(refused.into_iter().map(|peer| Event::Writable { peer }));
        }
    }

    // --- service ---------------------------------------------------------------------------------------

    /// Brings a peer up to date after anything happened to it.
    fn service(&mut self, now: Instant, peer: PublicKey) {
        self.want_connection(now, peer);
        if let Err(violation) = self.drain(peer) {
            tracing::debug!(peer = %peer.short(), ?violation, "reliable: the peer broke the rules");
            self.stats.violations += 1;
            self.hang_up(now, peer);
            self.want_connection(now, peer);
        } else if self.peers.get(&peer).is_some_and(|entry| entry.link.as_ref().is_some_and(|link| link.over))
        {
            self.hang_up(now, peer);
            self.want_connection(now, peer);
        }
        self.choose_leader(now);
        self.resume();
        self.enqueue(peer);
        self.set_timer(peer);
    }

    /// Something waits and there is no connection: get one.
    fn want_connection(&mut self, now: Instant, peer: PublicKey) {
        let Some(pair) = self.pair(&peer) else { return };
        let client = self.is_client(&peer);
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.link.is_some() || entry.outbox.is_empty() {
            entry.opening = None;
        } else if client {
            self.connect(now, peer, pair);
        } else if entry.opening.is_none() {
            entry.opening = Some(Opening { at: now + OPEN_INTERVAL, wait: OPEN_INTERVAL });
            entry.control = Some(wire::open(pair));
            self.stats.opens_sent += 1;
        }
    }

    /// Takes what QUIC has to say about one connection, and gives it what it can send.
    fn drain(&mut self, peer: PublicKey) -> Result<(), Violation> {
        while let Some(entry) = self.peers.get_mut(&peer)
            && let Some(link) = &mut entry.link
        {
            link.handle_endpoint_events();
            let Some(event) = link.conn.poll() else {
                entry.outbox.pump(&mut link.conn);
                break;
            };
            match event {
                QuicEvent::Connected => {
                    link.connected = true;
                    self.stats.connections += 1;
                }
                QuicEvent::ConnectionLost { .. } => link.over = true,
                QuicEvent::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(entry) = self.peers.get_mut(&peer)
                        && let Some(link) = &mut entry.link
                        && let Some(id) = link.conn.streams().accept(Dir::Uni)
                    {
                        self.read(peer, id)?;
                    }
                }
                QuicEvent::Stream(StreamEvent::Readable { id }) => self.read(peer, id)?,
                QuicEvent::Stream(StreamEvent::Writable { id }) => {
                    if entry.outbox.write(&mut link.conn, id) {
                        self.refuse(peer, id);
                    }
                }
                QuicEvent::Stream(StreamEvent::Finished { id }) => {
                    if let Some(Gone { id, length }) = entry.outbox.remove(id) {
                        self.sending -= length;
                        self.stats.acked += 1;
                        self.events.push_back(Event::Acked { peer, id });
                        self.announce_room(peer);
                    }
                }
                QuicEvent::Stream(StreamEvent::Stopped { id, .. }) => self.refuse(peer, id),
                QuicEvent::Stream(StreamEvent::Available { .. } | StreamEvent::Opened { dir: Dir::Bi })
                | QuicEvent::HandshakeDataReady
                | QuicEvent::DatagramReceived
                | QuicEvent::DatagramsUnblocked => {}
            }
        }
        Ok(())
    }

    fn refuse(&mut self, peer: PublicKey, stream: StreamId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let Some(link) = &mut entry.link {
            let _ = link.conn.send_stream(stream).reset(0u32.into());
        }
        let gone = entry.outbox.remove(stream).into_iter().collect();
        self.fail(peer, gone, FailReason::Refused);
    }

    // --- receiving -------------------------------------------------------------------------------------

    fn over_budget(&self) -> bool {
        self.receiving >= self.config.receive_budget_bytes
    }

    fn held(&self, peer: &PublicKey) -> usize {
        self.peers.get(peer).and_then(|entry| entry.link.as_ref()).map_or(0, |link| link.inbox.held())
    }

    /// While the receive budget is exceeded, one peer is read from: the smallest key among those that have
    /// begun a message. Any rule would do, as long as it picks one that can finish.
    fn choose_leader(&mut self, now: Instant) {
        if !self.over_budget() {
            self.leader = None;
        } else if self.leader.is_none_or(|(leader, _)| self.held(&leader) == 0) {
            let begun = self.peers.keys().copied().find(|peer| self.held(peer) > 0);
            self.leader = begun.map(|leader| (leader, now));
        }
    }

    fn read(&mut self, peer: PublicKey, stream: StreamId) -> Result<(), Violation> {
        let pause = self.over_budget() && self.leader.is_none_or(|(leader, _)| leader != peer);
        let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut()) else {
            return Ok(());
        };
        if pause {
            self.stats.paused += u64::from(self.paused.insert(peer));
            link.inbox.unread.insert(stream);
            return Ok(());
        }
        let before = link.inbox.held();
        let message = link.inbox.read(&mut link.conn, stream);
        self.receiving = self.receiving - before + link.inbox.held();
        if let Some((kind, body)) = message? {
            self.receiving += body.len() + MESSAGE_OVERHEAD_BYTES;
            self.stats.delivered += 1;
            self.events.push_back(Event::Message { peer, kind, body });
        }
        Ok(())
    }

    /// Reads on where reading was paused, as far as the budget allows.
    fn resume(&mut self) {
        while let Some(&peer) = self
            .paused
            .iter()
            .find(|peer| !self.over_budget() || self.leader.is_some_and(|(leader, _)| leader == **peer))
        {
            let unread = self
                .peers
                .get_mut(&peer)
                .and_then(|entry| entry.link.as_mut())
                .and_then(|link| link.inbox.unread.pop_first());
            let Some(stream) = unread else {
                self.paused.remove(&peer);
                continue;
            };
            if self.read(peer, stream).is_err() {
                self.stats.violations += 1;
                self.lose(peer, None);
            }
            self.enqueue(peer);
        }
    }
}

#[cfg(test)]
impl Reliable {
    /// Opens a stream with these bytes on the connection, whatever the rules of messages say.
    pub(super) fn raw_stream(&mut self, now: Instant, peer: PublicKey, bytes: &[u8], finish: bool) {
        let link = self.peers.get_mut(&peer).unwrap().link.as_mut().unwrap();
        let id = link.conn.streams().open(Dir::Uni).unwrap();
        let mut stream = link.conn.send_stream(id);
        assert_eq!(stream.write(bytes), Ok(bytes.len()));
        if finish {
            stream.finish().unwrap();
        }
        self.service(now, peer);
    }

    pub(super) fn receiving_for_tests(&self) -> usize {
        self.receiving
    }
}
