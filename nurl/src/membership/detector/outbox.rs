//! What waits for the driver: messages to send, and events for the node.

use std::collections::VecDeque;

use crate::key::PublicKey;
use crate::membership::event::MembershipEvent;

/// The most messages queued to be sent. The driver drains after every call; a full table is about 200 chunks and up
/// to three joins run at once. Beyond the limit the newest is dropped and counted.
pub const MAX_TRANSMITS: usize = 2048;

/// The most queued events. One chunk of a table makes at most a few hundred. Beyond the limit the newest is dropped
/// and counted; [`Detector::members`](super::Detector::members) is always current.
pub const MAX_WAITING_EVENTS: usize = 16_384;

/// The channel of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Channel 1, at most 1,200 bytes.
    Datagram,
    /// A reliable message of kind 1.
    Reliable,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub to: PublicKey,
    /// The channel.
    pub via: Via,
    /// The encoded message.
    pub body: Vec<u8>,
}

/// The queues to the driver, and the number of the last ping.
#[derive(Debug)]
pub(super) struct Outbox {
    transmits: VecDeque<Transmit>,
    events: VecDeque<MembershipEvent>,
    seq: u64,
}

impl Outbox {
    /// Empty queues. `seq` is random, so that an ack to an earlier process matches no ping of this one.
    pub(super) fn new(seq: u64) -> Outbox {
        Outbox { transmits: VecDeque::new(), events: VecDeque::new(), seq }
    }

    /// A new sequence number. Probes, healing and pings for others share one series, so an ack matches one of them.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Queues a message. False if there is no room.
    pub(super) fn push_transmit(&mut self, transmit: Transmit) -> bool {
        let room = self.transmits.len() < MAX_TRANSMITS;
        if room {
            self.transmits.push_back(transmit);
        }
        room
    }

    /// Queues an event. False if there is no room.
    pub(super) fn push_event(&mut self, event: MembershipEvent) -> bool {
        let room = self.events.len() < MAX_WAITING_EVENTS;
        if room {
            self.events.push_back(event);
        }
        room
    }

    /// Number of messages and of events that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.transmits.len(), self.events.len())
    }

    /// The next message to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_queues_are_bounded_and_keep_the_oldest() {
        let mut outbox = Outbox::new(u64::MAX);
        let transmit = |at: usize| Transmit {
            to: PublicKey::from_bytes([1; 32]),
            via: Via::Datagram,
            body: at.to_le_bytes().to_vec(),
        };
        for at in 0..MAX_TRANSMITS + 2 {
            assert_eq!(outbox.push_transmit(transmit(at)), at < MAX_TRANSMITS);
        }
        for at in 0..MAX_WAITING_EVENTS + 2 {
            let event = MembershipEvent::Isolated(at == 0);
            assert_eq!(outbox.push_event(event), at < MAX_WAITING_EVENTS);
        }
        assert_eq!(outbox.poll_transmit(), Some(transmit(0)));
        assert_eq!(outbox.poll_event(), Some(MembershipEvent::Isolated(true)));
        assert_eq!(std::iter::from_fn(|| outbox.poll_transmit()).count(), MAX_TRANSMITS - 1);
        assert_eq!(std::iter::from_fn(|| outbox.poll_event()).count(), MAX_WAITING_EVENTS - 1);
        assert_eq!([outbox.next_seq(), outbox.next_seq()], [0, 1], "the series wraps");
    }
}
