//! Datagrams: sealed onto the current routes when sent, dispatched by channel when received.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::{MAX_DATAGRAM_BYTES, SendError, Transport, TransportEvent, channel};
use crate::key::PublicKey;
use crate::net::reach::hub_client::HubCommand;
use crate::net::reach::stun;
use crate::net::secure::route::Route;
use crate::net::secure::securedgram::{self, Received, Source};

/// Application datagrams kept between two calls of [`Transport::take_datagrams`]; further ones are dropped.
const INBOX_BYTES: usize = 4 << 20;

/// An application datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The peer that sealed it.
    pub peer: PublicKey,
    /// Its body.
    pub body: Bytes,
}

/// The state of an accepted datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was sealed and queued for sending.
    Sealed,
    /// It waits for a session.
    Waiting,
}

impl Transport {
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
        match self.seal_and_send(now, peer, channel, body) {
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

    /// The application datagrams received since the last call.
    pub fn take_datagrams(&mut self) -> Vec<Datagram> {
        if self.inbox_index.is_empty() {
            return Vec::new();
        }
        // One allocation for all bodies, each a slice of it. The next turn is expected to bring about as much.
        let next = Vec::with_capacity(self.inbox.len());
        let bytes = Bytes::from(std::mem::replace(&mut self.inbox, next));
        self.inbox_index.drain(..).map(|(peer, range)| Datagram { peer, body: bytes.slice(range) }).collect()
    }

    /// Handles datagrams of `stride` bytes each (the last may be shorter) from one UDP source; decrypts them in
    /// place.
    pub fn handle_udp(&mut self, now: Instant, source: SocketAddr, stride: usize, bytes: &mut [u8]) {
        for datagram in bytes.chunks_mut(stride.max(1)) {
            if stun::is_stun(datagram) {
                self.stun.handle_datagram(now, source, datagram);
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
                self.events.push_back(TransportEvent::Membership { peer, body });
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
            // A peer with a session has the mesh's secret and is on the allow-list.
            channel::GROUP_KEYS => self.groups.handle_key_message(now, peer, true, body),
            channel::ECHO => self.handle_echo(now, peer, body),
            _ => self.stats.unknown_channel += 1,
        }
    }

    pub(super) fn handle_echo(&mut self, now: Instant, peer: PublicKey, body: &[u8]) {
        match body.split_first() {
            Some((0, nonce)) if nonce.len() == 8 => {
                let mut answer = [1; 9];
                answer[1..].copy_from_slice(nonce);
                // The answer is as large as the request and goes to an authenticated peer: no amplification.
                let _ = self.send(now, peer, channel::ECHO, &answer);
            }
            Some((1, nonce)) => {
                if let Ok(nonce) = nonce.try_into() {
                    self.events.push_back(TransportEvent::Echo { peer, nonce: u64::from_le_bytes(nonce) });
                }
            }
            _ => self.stats.unknown_channel += 1,
        }
    }

    pub(super) fn handle_group(&mut self, now: Instant, frame: &[u8]) {
        // `handle_frame` counts refusals.
        let _ = self.groups.handle_frame(now, frame);
    }

    /// Sends the datagrams that waited for a session or a route; those that still have neither wait again.
    pub(super) fn send_waiting(&mut self, now: Instant, peer: PublicKey) {
        for (channel, body) in self.waiting.take(now, &peer) {
            // The datagram was accepted earlier. If it fails now for another reason, it is lost, as datagrams may be.
            let _ = self.send(now, peer, channel, &body);
        }
    }

    pub(super) fn seal_and_send(
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

    pub(super) fn route(&mut self, route: Route, peer: Option<PublicKey>, datagram: &[u8]) {
        match (route, peer) {
            (Route::Direct(addr), _) => self.outbox.push(addr, datagram),
            (Route::Relay(hub), Some(dst)) => {
                self.command(hub, HubCommand::Forward { dst, payload: Bytes::copy_from_slice(datagram) });
            }
            (Route::Relay(_), None) => self.stats.hub_dropped += 1,
        }
    }
}
