//! Connections: how they begin, are read from, end and fail their messages, and the handling of QUIC's events.

use std::time::Instant;

use quinn_proto::{Dir, Event as QuicEvent, StreamEvent, StreamId};

use super::receiving::Verdict;
use super::{Opening, Reliable};
use crate::key::PublicKey;
use crate::transport::reliable::inbox::{Outcome, Violation};
use crate::transport::reliable::limits::{GONE_INTERVAL, MESSAGE_OVERHEAD_BYTES, OPEN_INTERVAL};
use crate::transport::reliable::link::{Fate, Link, Settings};
use crate::transport::reliable::outbox::Gone;
use crate::transport::reliable::wire::{self, Cid, Pair};
use crate::transport::reliable::{FailReason, ReliableEvent};

impl Reliable {
    pub(super) fn connect(&mut self, now: Instant, peer: PublicKey, pair: Pair) {
        self.local.attempts += 1;
        let attempt = self.local.attempts;
        let link = Link::connect(&self.settings, now, &pair.first_cid(attempt), attempt, &mut self.local.rng);
        if let Some(entry) = self.peers.get_mut(&peer) {
            self.links += usize::from(link.is_some());
            entry.link = link;
        }
        self.share_windows();
    }

    pub(super) fn accept(&mut self, now: Instant, peer: PublicKey, attempt: u64, packet: &[u8]) {
        let Some(link) = Link::accept(&self.settings, now, packet, attempt, &mut self.local.rng) else {
            self.stats.garbage += 1;
            return;
        };
        // The client began a new attempt, so its half of an earlier connection is gone.
        self.lose(peer, None);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.last_attempt = attempt;
            self.links += 1;
            entry.link = Some(link);
            entry.opening = None;
        }
        self.share_windows();
    }

    /// Divides the receive budget among the current connections. A connection in its handshake gets its window when
    /// the handshake ends: packets that a server seals earlier stay in its congestion window ([`Link::probe`]).
    fn share_windows(&mut self) {
        let window = super::window(self.links, self.config.receive_budget_bytes);
        if window == self.settings.window() {
            return;
        }
        self.settings = Settings::new(window);
        let linked: Vec<PublicKey> =
            self.peers.iter().filter(|(_, entry)| entry.link.is_some()).map(|(peer, _)| *peer).collect();
        for peer in linked {
            if let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut())
                && link.connected
            {
                link.set_window(window);
            }
            // A larger window is announced at once.
            self.enqueue(peer);
        }
    }

    pub(super) fn handle_packet(&mut self, now: Instant, peer: PublicKey, cid: Option<Cid>, packet: &[u8]) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let fate = entry.link.as_mut().map_or(Fate::Unknown, |link| link.handle_packet(now, packet));
        if fate == Fate::Unknown {
            self.stats.stale += 1;
            if let Some(cid) = cid {
                self.say_gone(now, peer, cid);
            }
        }
    }

    pub(super) fn say_gone(&mut self, now: Instant, peer: PublicKey, cid: Cid) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.gone_sent.is_some_and(|sent| now < sent + GONE_INTERVAL) {
            return;
        }
        entry.gone_sent = Some(now);
        entry.control = Some(wire::gone(cid));
        self.stats.gones_sent += 1;
        self.enqueue(peer);
    }

    /// Removes a connection, and its bytes from the receive budget.
    pub(super) fn drop_link(&mut self, peer: PublicKey) -> Option<Link> {
        let link = self.peers.get_mut(&peer)?.link.take()?;
        self.links -= 1;
        self.stats.connections_ended += 1;
        self.receiving.forget(&peer);
        self.share_windows();
        Some(link)
    }

    /// The connection is gone, but the peer's process isn't. Messages in flight fail, the rest waits for the next
    /// connection.
    pub(super) fn lose(&mut self, peer: PublicKey, tell: Option<Instant>) {
        let Some(link) = self.drop_link(peer) else { return };
        tracing::debug!(target: "nurl::transport", peer = %peer.short(), connected = link.connected, "a connection of reliable messages is lost");
        if let (Some(now), Some(cid)) = (tell, link.local_cid) {
            self.say_gone(now, peer, cid);
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let gone = entry.outbox.take_sending();
        self.fail(peer, gone, FailReason::ConnectionLost);
    }

    /// Ends a connection and tells the peer.
    pub(super) fn hang_up(&mut self, now: Instant, peer: PublicKey) {
        self.lose(peer, Some(now));
    }

    pub(super) fn fail(&mut self, peer: PublicKey, messages: Vec<Gone>, reason: FailReason) {
        let any = !messages.is_empty();
        for Gone { id, length } in messages {
            self.sending.remove(&peer, length);
            self.stats.failed += 1;
            self.events.push_back(ReliableEvent::Failed { peer, id, reason });
        }
        if any {
            self.announce_room(peer);
        }
    }

    /// A message left the outbox: refused senders may try again once half of the exhausted budget is free.
    pub(super) fn announce_room(&mut self, peer: PublicKey) {
        let outbox = self.peers.get(&peer).map(|entry| &entry.outbox);
        let fits = |priority, bytes| outbox.is_none_or(|outbox| outbox.fits(priority, bytes, &self.config));
        let writable = self.sending.take_writable(peer, fits);
        self.events.extend(writable.into_iter().map(|peer| ReliableEvent::Writable { peer }));
    }

    /// Does all pending work for a peer after any change.
    pub(super) fn service(&mut self, now: Instant, peer: PublicKey) {
        self.receiving.tick(now);
        self.want_connection(now, peer);
        if let Err(violation) = self.drain(peer) {
            tracing::debug!(target: "nurl::transport", peer = %peer.short(), ?violation, "reliable: the peer broke the rules");
            self.stats.violations += 1;
            self.hang_up(now, peer);
            self.want_connection(now, peer);
        } else if self.peers.get(&peer).is_some_and(|entry| entry.link.as_ref().is_some_and(|link| link.over))
        {
            self.hang_up(now, peer);
            self.want_connection(now, peer);
        }
        self.share_memory(now);
        self.enqueue(peer);
        self.set_timer(peer);
    }

    /// Gets a connection if messages wait and there is none.
    pub(super) fn want_connection(&mut self, now: Instant, peer: PublicKey) {
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

    /// Handles QUIC's events of one connection, and passes it the messages that it can send.
    pub(super) fn drain(&mut self, peer: PublicKey) -> Result<(), Violation> {
        while let Some(entry) = self.peers.get_mut(&peer)
            && let Some(link) = &mut entry.link
        {
            link.handle_endpoint_events();
            let Some(event) = link.conn.poll() else {
                // Before the handshake ends, quinn-proto sets no timer for stream data in flight.
                if link.connected {
                    let limit = link.early_limit();
                    entry.outbox.pump(&mut link.conn, limit);
                }
                break;
            };
            match event {
                QuicEvent::Connected => {
                    tracing::debug!(target: "nurl::transport", peer = %peer.short(), "a connection of reliable messages is up");
                    link.complete();
                    link.set_window(self.settings.window());
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
                        self.sending.remove(&peer, length);
                        self.stats.acked += 1;
                        self.events.push_back(ReliableEvent::Acked { peer, id });
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

    pub(super) fn refuse(&mut self, peer: PublicKey, stream: StreamId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let Some(link) = &mut entry.link {
            let _ = link.conn.send_stream(stream).reset(0u32.into());
        }
        let gone = entry.outbox.remove(stream).into_iter().collect();
        self.fail(peer, gone, FailReason::Refused);
    }

    /// Bytes of messages that have arrived over the present connection.
    pub(super) fn arrived(&self, peer: &PublicKey) -> u64 {
        self.peers.get(peer).and_then(|entry| entry.link.as_ref()).map_or(0, |link| link.inbox.arrived())
    }

    /// Ends the connections that hold memory at others' cost, and lets the next peer lead.
    pub(super) fn share_memory(&mut self, now: Instant) {
        while let Some((peer, verdict)) = self.receiving.verdict(now) {
            tracing::debug!(target: "nurl::transport", peer = %peer.short(), ?verdict, "a peer's unfinished messages are dropped");
            match verdict {
                Verdict::Stalled => self.stats.stalled += 1,
                Verdict::Largest => self.stats.evicted += 1,
            }
            self.hang_up(now, peer);
            self.want_connection(now, peer);
            self.set_timer(peer);
        }
        self.receiving.choose_leader(now);
        self.resume();
    }

    fn read(&mut self, peer: PublicKey, stream: StreamId) -> Result<(), Violation> {
        let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut()) else {
            return Ok(());
        };
        while let Some(room) = self.receiving.room(&peer) {
            let outcome = link.inbox.read(&mut link.conn, stream, room);
            self.receiving.holds(peer, link.inbox.held());
            match outcome? {
                Outcome::More => continue,
                Outcome::Nothing => {}
                Outcome::Message(kind, body) => {
                    self.receiving.add(body.len() + MESSAGE_OVERHEAD_BYTES);
                    self.stats.delivered += 1;
                    self.events.push_back(ReliableEvent::Message { peer, kind, body });
                }
            }
            return Ok(());
        }
        self.stats.paused += u64::from(self.receiving.pause(peer));
        link.inbox.unread.insert(stream);
        Ok(())
    }

    /// Resumes paused reading, as far as the budget allows.
    pub(super) fn resume(&mut self) {
        while let Some(peer) = self.receiving.resumable() {
            let unread = self
                .peers
                .get_mut(&peer)
                .and_then(|entry| entry.link.as_mut())
                .and_then(|link| link.inbox.unread.pop_first());
            let Some(stream) = unread else {
                self.receiving.unpause(&peer);
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
