//! The queues of an endpoint towards its caller: its own datagrams, and events. Both are bounded.

use std::collections::VecDeque;

use super::super::table::MAX_PEERS;
use super::super::{EndpointStats, Outgoing, SessionEvent};

/// Capacity of the queue of handshake datagrams for [`Endpoint::poll_transmit`](super::Endpoint::poll_transmit). A driver
/// drains it after each batch, and a batch holds no more. Further datagrams are dropped; the peer's retry makes up for
/// them.
pub const MAX_TRANSMITS: usize = 4096;

/// Capacity of the queue of events for [`Endpoint::poll_event`](super::Endpoint::poll_event): a few for each peer.
pub const MAX_EVENTS: usize = 8 * MAX_PEERS;

#[derive(Default)]
pub(in super::super) struct EndpointOutbox {
    transmits: VecDeque<(Outgoing, Vec<u8>)>,
    events: VecDeque<SessionEvent>,
}

impl EndpointOutbox {
    /// Queues a datagram; a full queue refuses it.
    pub(in super::super) fn transmit(
        &mut self,
        stats: &mut EndpointStats,
        outgoing: Outgoing,
        bytes: Vec<u8>,
    ) {
        if self.transmits.len() >= MAX_TRANSMITS {
            stats.transmits_dropped += 1;
        } else {
            self.transmits.push_back((outgoing, bytes));
        }
    }

    /// Queues an event; a full queue refuses it.
    pub(in super::super) fn event(&mut self, stats: &mut EndpointStats, event: SessionEvent) {
        if self.events.len() >= MAX_EVENTS {
            stats.events_dropped += 1;
        } else {
            self.events.push_back(event);
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(Outgoing, Vec<u8>)> {
        self.transmits.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }
}
