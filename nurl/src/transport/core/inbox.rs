//! What has arrived for the layer above: application datagrams, and events in their order.
//!
//! Application datagrams are many and small, so they share one buffer until the next [`Inbox::take_datagrams`].

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::TransportEvent;
use crate::key::PublicKey;

/// Bytes of application datagrams kept between two calls of [`Inbox::take_datagrams`]; further ones are dropped.
const DATAGRAM_BYTES: usize = 4 << 20;

/// Events kept between two drains; beyond it, reliable messages wait within their own budget.
const EVENTS: usize = 4_096;

/// An application datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The peer that sealed it.
    pub peer: PublicKey,
    /// Its body.
    pub body: Bytes,
}

/// The datagrams and events that the layer above hasn't taken yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: VecDeque<TransportEvent>,
    /// The bodies of all datagrams, one after another.
    bodies: Vec<u8>,
    /// Each datagram's peer, and the range of its body.
    index: Vec<(PublicKey, Range<usize>)>,
    /// Application datagrams accepted.
    pub(super) accepted: u64,
    /// Application datagrams dropped because the inbox was full.
    pub(super) dropped: u64,
}

impl Inbox {
    /// Adds an event.
    pub(super) fn tell(&mut self, event: TransportEvent) {
        self.events.push_back(event);
    }

    /// Whether events that may wait elsewhere should wait there.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= EVENTS
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Adds an application datagram, if there is room.
    pub(super) fn push_datagram(&mut self, peer: PublicKey, body: &[u8]) {
        if self.bodies.len() + body.len() > DATAGRAM_BYTES {
            self.dropped += 1;
            return;
        }
        self.accepted += 1;
        let begin = self.bodies.len();
        self.bodies.extend_from_slice(body);
        self.index.push((peer, begin..self.bodies.len()));
    }

    /// The application datagrams added since the last call.
    pub(super) fn take_datagrams(&mut self) -> Vec<Datagram> {
        if self.index.is_empty() {
            return Vec::new();
        }
        // One allocation for all bodies, each a slice of it. The next turn is expected to bring about as much.
        let next = Vec::with_capacity(self.bodies.len());
        let bytes = Bytes::from(std::mem::replace(&mut self.bodies, next));
        self.index.drain(..).map(|(peer, range)| Datagram { peer, body: bytes.slice(range) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PublicKey = PublicKey::from_bytes([1; 32]);

    #[test]
    fn datagrams_come_out_once_and_in_their_order() {
        let mut inbox = Inbox::default();
        assert!(inbox.take_datagrams().is_empty());
        for body in [&b"one"[..], b"", b"three"] {
            inbox.push_datagram(PEER, body);
        }
        let bodies: Vec<_> = inbox.take_datagrams().into_iter().map(|datagram| datagram.body).collect();
        assert_eq!(bodies, [&b"one"[..], b"", b"three"]);
        assert!(inbox.take_datagrams().is_empty());
    }

    #[test]
    fn a_full_inbox_drops_the_newest_datagrams_and_counts_them() {
        let mut inbox = Inbox::default();
        for _ in 0..5 {
            inbox.push_datagram(PEER, &vec![0; DATAGRAM_BYTES / 4]);
        }
        assert_eq!((inbox.accepted, inbox.dropped), (4, 1));
        assert_eq!(inbox.take_datagrams().len(), 4);
        inbox.push_datagram(PEER, b"there is room again");
        assert_eq!(inbox.accepted, 5);
    }
}
