//! What arrives, and its way between the parts.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{Transport, TransportEvent, channel, group};
use crate::key::PublicKey;
use crate::net::reach::hub_client::{DownReason, HubEvent};
use crate::net::reach::rendezvous::{Contact, PublishResult, RecordError, SealedRecord};
use crate::net::reach::stun;
use crate::net::secure::securedgram::{Received, SessionEvent, Source};

impl Transport {
    // ---- From the sockets.

    /// Handles datagrams of `stride` bytes each (the last may be shorter) from one UDP source; decrypts them in
    /// place.
    pub fn handle_udp(&mut self, now: Instant, source: SocketAddr, stride: usize, bytes: &mut [u8]) {
        for datagram in bytes.chunks_mut(stride.max(1)) {
            if stun::is_stun(datagram) {
                self.gatherer.handle_datagram(now, source, datagram);
            } else {
                self.handle_datagram(now, Source::direct(source), datagram);
            }
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, source: Source, datagram: &mut [u8]) {
        let (peer, channel, body) = match self.endpoint.handle_datagram(now, source, datagram) {
            Some(Received::Data { peer, channel, body }) => (peer, channel, &datagram[body]),
            Some(Received::Group) => return self.handle_group(now, datagram),
            None => return,
        };
        // The first datagram of a session may also confirm the session, and may carry a reliable packet. That packet
        // would be lost if the peer's boot id weren't known yet, and its retransmission takes a quarter of a second.
        self.take_session_events(now);
        match channel {
            channel::MEMBERSHIP => {
                let body = Bytes::copy_from_slice(body);
                self.inbox.tell(TransportEvent::Membership { peer, body });
            }
            channel::RELIABLE => self.reliable.handle_datagram(now, peer, body),
            channel::APPLICATION => self.inbox.push_datagram(peer, body),
            channel::GROUP_KEYS => {
                let live = self.peers.is_live(&peer);
                self.groups.handle_key_message(now, peer, live, body);
            }
            channel::ECHO => self.handle_echo(now, peer, body),
            channel::REVOKED => {
                let entries = Bytes::copy_from_slice(body);
                self.inbox.tell(TransportEvent::Revocations { from: peer, entries });
            }
            _ => self.stats.unknown_channel += 1,
        }
    }

    fn handle_echo(&mut self, now: Instant, peer: PublicKey, body: &[u8]) {
        match body.split_first() {
            Some((0, nonce)) if nonce.len() == 8 => {
                let mut answer = [1; 9];
                answer[1..].copy_from_slice(nonce);
                // The answer is as large as the request and goes to an authenticated peer: no amplification.
                let _ = self.send(now, peer, channel::ECHO, &answer);
            }
            Some((1, nonce)) => {
                if let Ok(nonce) = nonce.try_into() {
                    self.inbox.tell(TransportEvent::Echo { peer, nonce: u64::from_le_bytes(nonce) });
                }
            }
            _ => self.stats.unknown_channel += 1,
        }
    }

    fn handle_group(&mut self, now: Instant, frame: &[u8]) {
        // `handle_frame` counts refusals.
        let _ = self.groups.handle_frame(now, frame);
    }

    // ---- From the hubs.

    /// Takes the events of the hubs' clients. Returns whether there were any.
    pub(in crate::layers::transport) fn take_hub_events(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((hub, event)) = self.exits.hubs.poll_event() {
            self.on_hub_event(now, hub, event);
            moved = true;
        }
        moved
    }

    pub(super) fn on_hub_event(&mut self, now: Instant, hub: PublicKey, event: HubEvent) {
        match event {
            HubEvent::Datagram { src, payload } => {
                let mut datagram =
                    payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                self.handle_datagram(now, Source::relay(hub, src), &mut datagram);
            }
            HubEvent::Group { payload, .. } => self.handle_group(now, &payload),
            HubEvent::Issued { credential, issuer } => {
                self.endpoint.set_credential(now, &credential);
                self.exits.hubs.set_credential(now, &hub, &credential);
                self.inbox.tell(TransportEvent::Issued { credential, hub, issuer });
            }
            HubEvent::Revocations(entries) => {
                self.inbox.tell(TransportEvent::Revocations { from: hub, entries });
            }
            HubEvent::Knows(digest) => self.inbox.tell(TransportEvent::HubKnows { hub, digest }),
            HubEvent::Secret { secret, sealed } => {
                self.inbox.tell(TransportEvent::Secret { from: hub, secret, sealed });
            }
            HubEvent::Asked { number, key, ask } => {
                self.inbox.tell(TransportEvent::Asked { hub, number, key, ask });
            }
            HubEvent::Up { .. } => self.on_hub_up(now, hub),
            HubEvent::Down { reason, .. } => self.on_hub_down(now, hub, reason),
            HubEvent::Pong { rtt } => {
                self.exits.hubs.on_pong(&hub, rtt);
                self.inbox.tell(TransportEvent::HubPong);
            }
            HubEvent::Records(records) => {
                let contacts = records
                    .iter()
                    .filter(|record| record.key != self.local)
                    .map(|record| Contact {
                        key: record.key,
                        opened: self.records.open(now, record) != Err(RecordError::Sealed),
                    })
                    .collect();
                self.inbox.tell(TransportEvent::Contacts { hub, contacts });
            }
            HubEvent::Record(record) => self.on_looked_up(now, &record),
            HubEvent::Published { seq, result: PublishResult::Stale } => {
                self.records.outbid(seq);
                self.publish(now);
            }
            HubEvent::Published { .. } => {}
            HubEvent::GroupRefused { .. } => self.stats.groups_refused += 1,
            // Datagrams may be lost anywhere: the layers above detect it by timeouts, which also covers a hub
            // that reports nothing. Only a joining node needs to know which peers not to wait for.
            HubEvent::PeerGone { peer } => {
                if self.peers.contains(&peer) {
                    self.inbox.tell(TransportEvent::NotThere { hub, peer });
                }
            }
            // A hub without a record of a peer may still have the peer connected: observers have no record.
            HubEvent::NoRecord { .. } | HubEvent::QueueFull { .. } => {}
        }
    }

    /// The record of a peer that was looked up: candidates for the peer before any session could report them.
    /// Without a hub that relays they are the only route.
    fn on_looked_up(&mut self, now: Instant, record: &SealedRecord) {
        if !self.peers.contains(&record.key) {
            return;
        }
        if let Ok(opened) = self.records.open(now, record) {
            // The table had room for the peer when it was added.
            let len = record.key.as_bytes().len() + record.sealed.len();
            let _ = self.endpoint.add_candidates(now, &record.key, &opened.candidates, Some(len));
        }
    }

    fn on_hub_up(&mut self, now: Instant, hub: PublicKey) {
        self.exits.hubs.on_up(now, &hub);
        self.relays_changed(now);
        // Peers with a session, but no route until now, have one.
        for peer in self.waiting.peers() {
            if self.endpoint.is_established(&peer) {
                self.send_waiting(now, peer);
            }
        }
        self.inbox.tell(TransportEvent::HubUp { hub });
    }

    fn on_hub_down(&mut self, now: Instant, hub: PublicKey, reason: DownReason) {
        self.exits.hubs.on_down(now, &hub, reason);
        self.relays_changed(now);
        self.inbox.tell(TransportEvent::HubDown { hub, reason });
    }

    fn relays_changed(&mut self, now: Instant) {
        let up = self.exits.hubs.up();
        for peer in self.peers.keys() {
            // The table had room for the peer when it was added; if it has none now, there is no session to update.
            let _ = self.endpoint.set_relays(now, peer, &up);
        }
    }

    // ---- Between the parts.

    /// Moves data between the parts and towards the sockets. Returns whether anything moved.
    pub fn pump(&mut self, now: Instant) -> bool {
        let mut moved = false;
        loop {
            let round = self.take_hub_events(now)
                | self.pump_stun(now)
                | self.pump_endpoint(now)
                | self.pump_reliable(now)
                | self.pump_groups(now);
            if !round {
                return moved;
            }
            moved = true;
        }
    }

    fn pump_stun(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(request) = self.gatherer.poll_transmit(now) {
            self.exits.udp.push(request.destination, &request.contents);
            moved = true;
        }
        if self.gatherer.take_answers() {
            self.gather(now);
        }
        moved
    }

    fn pump_endpoint(&mut self, now: Instant) -> bool {
        self.exits.drain(&mut self.endpoint) | self.take_session_events(now)
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

    fn on_session_event(&mut self, now: Instant, event: SessionEvent) {
        match event {
            SessionEvent::Established { peer, boot, .. } => {
                if !self.welcome(now, peer) {
                    return;
                }
                if let Some(standing) = self.endpoint.standing(&peer) {
                    self.reliable.set_account(standing.account(peer));
                    self.peers.set_standing(&peer, standing);
                }
                self.reliable.on_established(now, peer, boot);
                self.groups.on_established(peer, boot);
                self.send_waiting(now, peer);
                self.inbox.tell(TransportEvent::Established { peer, boot });
            }
            SessionEvent::PeerRestarted { peer, boot } => {
                self.reliable.on_established(now, peer, boot);
                self.inbox.tell(TransportEvent::Restarted { peer, boot });
            }
            SessionEvent::HandshakeFailed { peer } => {
                self.inbox.tell(TransportEvent::Unreachable { peer });
                self.on_handshake_failed(now, &peer);
            }
            SessionEvent::Closed { peer, reason } => {
                let reason = reason.as_str();
                tracing::debug!(target: "nurl::session", peer = %peer.short(), reason, "a session has ended");
                if self.gatherer.forget(&peer) {
                    self.gather(now);
                }
                self.forget_if_done(now, &peer);
            }
            SessionEvent::Revoked { peer } => self.inbox.tell(TransportEvent::Revoked { peer }),
            SessionEvent::Incompatible { peer, theirs } => {
                self.inbox.tell(TransportEvent::Incompatible { peer, theirs });
            }
            SessionEvent::Punched { peer } => {
                tracing::debug!(target: "nurl::path", peer = %peer.short(), "addresses of a peer are challenged");
                self.gatherer.hurry(now);
            }
            SessionEvent::Observed { peer, addr } => {
                self.gatherer.on_observed(now, peer, addr);
                self.gather(now);
            }
            SessionEvent::Path { peer, event } => {
                if event.route.is_some() {
                    self.reliable.on_path_changed(now, peer);
                    self.send_waiting(now, peer);
                }
                let path = self.path(&peer);
                self.inbox.tell(TransportEvent::Path { peer, path });
            }
        }
    }

    /// A session came up. Returns `false` if there is no room for its peer; the session is then closed.
    fn welcome(&mut self, now: Instant, peer: PublicKey) -> bool {
        let welcome = self.meet(now, peer);
        if !welcome {
            // The close is sent through the hubs; without a hub the peer's session times out.
            let _ = self.endpoint.set_relays(now, &peer, &self.exits.hubs.up());
            self.endpoint.forget(now, &peer);
        }
        welcome
    }

    /// A handshake attempt failed. Data waiting for an unreachable stranger fails with it. Members are tried again,
    /// because membership decides when one of them is gone.
    fn on_handshake_failed(&mut self, now: Instant, peer: &PublicKey) {
        self.waiting.forget(peer);
        if !self.peers.is_member(peer) && !self.endpoint.is_established(peer) {
            self.forget(now, peer);
        }
    }

    /// Sends the datagrams that waited for a session or a route; those that still have neither wait again.
    fn send_waiting(&mut self, now: Instant, peer: PublicKey) {
        for (channel, body) in self.waiting.take(now, &peer) {
            // The datagram was accepted earlier. If it fails now for another reason, it is lost, as datagrams may be.
            let _ = self.send(now, peer, channel, &body);
        }
    }

    fn pump_reliable(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while !self.exits.is_full() {
            let mut plain = std::mem::take(&mut self.plain);
            plain.clear();
            let next = self.reliable.poll_transmit(now, &mut plain);
            if let Some((peer, segment)) = next {
                for packet in plain.chunks(segment.unwrap_or(plain.len()).max(1)) {
                    // Without a session the packet is lost, and QUIC retransmits it.
                    let sealed = self.exits.seal(&mut self.endpoint, now, peer, channel::RELIABLE, packet);
                    if sealed.is_err() {
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
        while !self.inbox.is_full() {
            let Some(event) = self.reliable.poll_event() else { break };
            moved = true;
            self.inbox.tell(TransportEvent::Reliable(event));
        }
        moved
    }

    /// A reliable packet found no session. For a member a new session is begun. For a stranger only the handshake
    /// that the endpoint already began runs to its end.
    fn seek(&mut self, now: Instant, peer: PublicKey) {
        if self.peers.is_member(&peer) {
            // The next packet tries again.
            let _ = self.connect(now, peer);
        } else {
            self.meet(now, peer);
        }
    }

    fn pump_groups(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((peer, body)) = self.groups.poll_transmit() {
            moved = true;
            // The sender in a frame is unproven until its key is here. An attacker who can send frames, first of all
            // a hub, must not make us request keys from peers that aren't known.
            if !self.peers.contains(&peer) {
                self.stats.unknown_group_senders += 1;
                continue;
            }
            // A lost key message is requested again.
            let _ = self.send(now, peer, channel::GROUP_KEYS, &body);
        }
        while let Some(group::GroupEvent::Received { group, sender, body }) = self.groups.poll_event() {
            self.inbox.tell(TransportEvent::Group { group, sender, body: Bytes::from(body) });
            moved = true;
        }
        moved
    }
}
