//! [`Reliable`]: all peers, their connections, and the order in which they are served.

mod connections;
mod receiving;
mod sending;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::receiving::Receiving;
use self::sending::Sending;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::timers::Timers;
use crate::rt::Rng;
use crate::transport::Gauge;
use crate::transport::reliable::limits::{
    CONNECTION_WINDOW_BYTES, MAX_MESSAGE_BYTES, MAX_PROBE_INTERVAL, MESSAGE_OVERHEAD_BYTES, MIN_WINDOW_BYTES,
};
use crate::transport::reliable::link::{Link, Settings};
use crate::transport::reliable::outbox::Outbox;
use crate::transport::reliable::wire::{self, Datagram, Pair};
use crate::transport::reliable::{
    FailReason, MessageId, Priority, ReliableConfig, ReliableEvent, ReliableStats, SendError,
};

/// The back-off of OPEN datagrams.
#[derive(Debug, Clone, Copy)]
struct Opening {
    at: Instant,
    wait: Duration,
}

#[derive(Default)]
struct Peer {
    boot: Option<u64>,
    /// The id of this process and the peer's, set as soon as the peer's boot id is known.
    pair: Option<Pair>,
    outbox: Outbox,
    link: Option<Link>,
    /// As server: the newest accepted attempt of the client.
    last_attempt: u64,
    /// As server, with messages to send and no connection.
    opening: Option<Opening>,
    /// A pending control datagram.
    control: Option<Vec<u8>>,
    gone_sent: Option<Instant>,
    /// Whether the peer is in the `ready` queue.
    queued: bool,
}

/// This process: its name on the wire, and what it numbers and draws.
struct Local {
    key: PublicKey,
    boot: u64,
    rng: Rng,
    next_message: u64,
    /// As client: attempts, counted over all peers.
    attempts: u64,
}

/// Reliable messages to and from all peers. See the [module](crate::transport::reliable).
pub struct Reliable {
    config: ReliableConfig,
    settings: Settings,
    local: Local,
    peers: BTreeMap<PublicKey, Peer>,
    /// The number of connections.
    links: usize,
    ready: VecDeque<PublicKey>,
    timers: Timers<PublicKey>,
    events: VecDeque<ReliableEvent>,
    sending: Sending,
    receiving: Receiving,
    stats: ReliableStats,
}

impl Reliable {
    /// `local_boot` is this process's boot id, the one that its sessions announce. `now` is the time base; no later
    /// time may be before it.
    pub fn new(
        config: ReliableConfig,
        local: PublicKey,
        local_boot: u64,
        now: Instant,
        rng: Rng,
    ) -> Reliable {
        Reliable {
            settings: Settings::new(window(0, config.receive_budget_bytes)),
            sending: Sending::new(&config),
            receiving: Receiving::new(now, config.receive_budget_bytes),
            config,
            links: 0,
            local: Local { key: local, boot: local_boot, rng, next_message: 0, attempts: 0 },
            peers: BTreeMap::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            events: VecDeque::new(),
            stats: ReliableStats::default(),
        }
    }

    /// Accepts a message for a peer. It waits until there is a session ([`Reliable::on_established`]), which the
    /// caller must establish.
    ///
    /// # Errors
    /// [`SendError`]; nothing was queued then.
    pub fn send(
        &mut self,
        now: Instant,
        peer: PublicKey,
        priority: Priority,
        kind: u8,
        body: Bytes,
    ) -> Result<MessageId, SendError> {
        if peer == self.local.key {
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
        let over = !self.sending.fits(&peer, body.len());
        if over || !entry.outbox.fits(priority, body.len(), &self.config) {
            self.stats.refused_full += 1;
            self.sending.refuse(peer, (!over).then_some(priority));
            return Err(SendError::Full { queued_bytes: entry.outbox.bytes() });
        }
        let id = MessageId(self.local.next_message);
        self.local.next_message += 1;
        self.stats.accepted += 1;
        self.sending.add(&peer, body.len());
        if entry.outbox.is_empty()
            && let Some(link) = &mut entry.link
        {
            // A connection that had nothing to send isn't overdue.
            link.touched = now;
        }
        entry.outbox.push(id, priority, kind, body);
        self.service(now, peer);
        Ok(id)
    }

    /// What a peer holds here, and what waits for it, counts on this account. Comes before [`Reliable::on_established`].
    pub fn set_account(&mut self, account: Account) {
        self.receiving.meet(account);
        self.sending.meet(account);
    }

    /// A session with `peer`, in its process `peer_boot`, is up. A changed boot id ends the connection and fails the
    /// unacknowledged messages; the same boot id indicates that the path works again.
    pub fn on_established(&mut self, now: Instant, peer: PublicKey, peer_boot: u64) {
        if peer == self.local.key || !self.admit(peer) {
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
                *entry = Peer { queued: entry.queued, ..Peer::default() };
                self.fail(peer, gone, FailReason::PeerRestarted);
            }
            None => {}
        }
        let (ours, theirs) = ((&self.local.key, self.local.boot), (&peer, peer_boot));
        let pair = if self.is_client(&peer) { Pair::new(ours, theirs) } else { Pair::new(theirs, ours) };
        let entry = self.peers.entry(peer).or_default();
        (entry.boot, entry.pair) = (Some(peer_boot), Some(pair));
        self.service(now, peer);
    }

    /// Handles the body of a channel-2 datagram.
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
        let before = self.arrived(&peer);
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        match datagram {
            Datagram::Open(named) if named == pair && client => match &mut entry.link {
                // The peer doesn't know our connection: its response to the ping will be a GONE.
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
        self.receiving.progressed(now, &peer, self.arrived(&peer).saturating_sub(before));
    }

    /// The peer is now reached over another path (direct ↔ relay, wifi ↔ cellular). QUIC's window and round-trip
    /// estimate of the old path are dropped, and a probe is sent at once. Measured when a round trip of 20 ms became
    /// 200 ms at 40 Mbit/s: the next seven seconds carry 33 MB, against 19 MB without the reset. After a mere
    /// blackout of the same path no reset is needed; [`Reliable::on_established`] with the same boot id only probes.
    pub fn on_path_changed(&mut self, now: Instant, peer: PublicKey) {
        // The probe uses the old path's round trip, so it comes first.
        self.probe(now, peer);
        if let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut()) {
            link.reset_path(now);
        }
        self.service(now, peer);
    }

    /// Probes the peer now if something is unanswered, because QUIC may be in a long back-off.
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

    /// Requests acknowledgements from every peer now. QUIC acknowledges every second packet at once and a single one
    /// after 25 ms (RFC 9000 §13.2.2), so a second packet is sent behind the data in flight.
    pub fn hurry(&mut self, now: Instant) {
        let sending = |(_, entry): &(&PublicKey, &Peer)| !entry.outbox.is_empty();
        let peers: Vec<PublicKey> = self.peers.iter().filter(sending).map(|(peer, _)| *peer).collect();
        for peer in peers {
            if let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut())
                && link.connected
            {
                link.ping();
            }
            self.service(now, peer);
        }
    }

    /// Drops a peer's entry; its unacknowledged messages fail with [`FailReason::Forgotten`].
    pub fn forget(&mut self, _now: Instant, peer: PublicKey) {
        self.drop_link(peer);
        self.receiving.part(&peer);
        self.sending.forget(&peer);
        if let Some(mut entry) = self.peers.remove(&peer) {
            self.timers.clear(peer);
            if entry.queued {
                self.ready.retain(|ready| *ready != peer);
            }
            let gone = entry.outbox.take_all();
            self.fail(peer, gone, FailReason::Forgotten);
        }
        // Only now is what waited for it off its account.
        self.sending.part(&peer);
        self.resume();
    }

    /// Writes the next datagrams for one peer into `out`, whose old content is discarded. With a segment size, `out`
    /// holds several datagrams of that size, the last one possibly shorter: seal each separately. None is longer
    /// than [`DATAGRAM_BYTES`](crate::transport::reliable::DATAGRAM_BYTES). Peers take turns.
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

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ReliableEvent> {
        let event = self.events.pop_front()?;
        if let ReliableEvent::Message { body, .. } = &event {
            self.receiving.remove(body.len() + MESSAGE_OVERHEAD_BYTES);
            self.resume();
        }
        Some(event)
    }

    /// Handles the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.receiving.poll_timeout().is_some_and(|due| due <= now) {
            self.share_memory(now);
        }
        while let Some(peer) = self.timers.pop_due(now) {
            let pair = self.pair(&peer);
            let Some(entry) = self.peers.get_mut(&peer) else { continue };
            if let Some(opening) = &mut entry.opening
                && opening.at <= now
            {
                opening.wait = (opening.wait * 2).min(MAX_PROBE_INTERVAL);
                opening.at = now + opening.wait;
                entry.control = pair.map(wire::open);
                self.stats.opens_sent += 1;
            }
            if let Some(link) = &mut entry.link {
                let unanswered = !entry.outbox.is_empty() || !link.connected;
                self.stats.early_probes += u64::from(link.handle_timeout(now, unanswered));
            }
            self.service(now, peer);
        }
    }

    /// When [`Reliable::handle_timeout`] is due next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.receiving.poll_timeout()).min()
    }

    /// Bytes accepted for all peers and not yet acknowledged.
    pub fn sending(&self) -> Gauge {
        self.sending.gauge()
    }

    /// Bytes received from all peers and not yet taken.
    pub fn receiving(&self) -> Gauge {
        self.receiving.gauge()
    }

    /// Peers with unacknowledged messages and no timer: the bound is zero. Messages for a peer without a session
    /// wait for [`Reliable::on_established`] and don't count.
    pub fn stuck(&self) -> Gauge {
        let stuck = |(peer, entry): &(&PublicKey, &Peer)| {
            entry.pair.is_some() && !entry.outbox.is_empty() && !self.timers.is_set(peer)
        };
        Gauge { now: self.peers.iter().filter(stuck).count(), bound: 0 }
    }

    /// The counters.
    pub fn stats(&self) -> &ReliableStats {
        &self.stats
    }

    /// Whether a message for a peer is not yet acknowledged.
    pub fn is_sending(&self, peer: &PublicKey) -> bool {
        self.peers.get(peer).is_some_and(|entry| !entry.outbox.is_empty())
    }

    /// Bytes accepted for a peer and not yet acknowledged.
    #[cfg(test)]
    pub fn queued_bytes(&self, peer: &PublicKey) -> usize {
        self.peers.get(peer).map_or(0, |entry| entry.outbox.bytes())
    }

    /// QUIC's congestion window to a peer, in bytes; `None` without a connection.
    #[cfg(test)]
    pub fn window(&self, peer: &PublicKey) -> Option<u64> {
        self.peers.get(peer)?.link.as_ref().map(Link::window)
    }

    fn is_client(&self, peer: &PublicKey) -> bool {
        self.local.key < *peer
    }

    /// The id of this process and the peer's, if the peer's boot id is known.
    fn pair(&self, peer: &PublicKey) -> Option<Pair> {
        self.peers.get(peer)?.pair
    }

    /// Whether the peer is in the table or there is room for it.
    fn admit(&mut self, peer: PublicKey) -> bool {
        let admitted = self.peers.contains_key(&peer) || self.peers.len() < self.config.max_peers;
        if !admitted {
            self.stats.refused_peers += 1;
            tracing::debug!(target: "nurl::transport", peer = %peer.short(), reason = "no-room-for-messages", "a peer is refused");
        }
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
        let quic = entry.link.as_mut().and_then(|link| link.poll_timeout(busy || !link.connected));
        let timer = quic.into_iter().chain(entry.opening.map(|opening| opening.at)).min();
        match timer {
            Some(at) => self.timers.set(peer, at),
            None => self.timers.clear(peer),
        }
    }
}

/// Each connection's share of the receive budget. The number of connections is rounded up to a power of two, so that
/// a table that fills changes the windows a dozen times and not with each new connection.
fn window(links: usize, budget: usize) -> u32 {
    let share = budget / links.next_power_of_two();
    u32::try_from(share).unwrap_or(u32::MAX).clamp(MIN_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)
}

#[cfg(test)]
impl Reliable {
    /// Packets that QUIC has declared lost on the connection to a peer.
    pub(super) fn lost_packets(&self, peer: &PublicKey) -> u64 {
        self.peers[peer].link.as_ref().unwrap().conn.stats().path.lost_packets
    }

    /// Writes one more byte into a stream that [`raw_stream`](Reliable::raw_stream) opened, if there is a connection.
    pub(super) fn raw_trickle(&mut self, now: Instant, peer: PublicKey) {
        let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut()) else { return };
        for index in 0..8 {
            let id = quinn_proto::StreamId::new(link.conn.side(), quinn_proto::Dir::Uni, index);
            if link.conn.send_stream(id).write(b"x").is_ok() {
                break;
            }
        }
        self.service(now, peer);
    }

    /// Opens a stream with these bytes on the connection, bypassing the message protocol.
    pub(super) fn raw_stream(&mut self, now: Instant, peer: PublicKey, bytes: &[u8], finish: bool) {
        let link = self.peers.get_mut(&peer).unwrap().link.as_mut().unwrap();
        let id = link.conn.streams().open(quinn_proto::Dir::Uni).unwrap();
        let mut stream = link.conn.send_stream(id);
        // What exceeds the peer's window isn't sent.
        assert!(stream.write(bytes).is_ok());
        if finish {
            stream.finish().unwrap();
        }
        self.service(now, peer);
    }
}
