//! The queues of an endpoint towards its caller: its own datagrams, and events. Both are bounded; so are the bytes that
//! go to unproven addresses of all peers together.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::table::MAX_PEERS;
use super::super::{EndpointStats, Outgoing, SessionEvent};
use crate::kit::rate::TokenBucket;

/// Capacity of the queue of handshake datagrams for [`Endpoint::poll_transmit`](super::Endpoint::poll_transmit). A driver
/// drains it after each batch, and a batch holds no more. Further datagrams are dropped; the peer's retry makes up for
/// them.
pub const MAX_TRANSMITS: usize = 4096;

/// Capacity of the queue of events for [`Endpoint::poll_event`](super::Endpoint::poll_event): a few for each peer.
pub const MAX_EVENTS: usize = 8 * MAX_PEERS;

/// The bytes that may go to unproven addresses of all peers together, in a second and at once. Each peer pays for its own
/// ([`paths`](super::super::paths)); this bound holds when many keys name one victim. [`MAX_PEERS`] peers on a relay, with
/// four silent addresses each, take 21 KiB/s in checks; 1,000 new ones at once take 470 KiB for the three rounds of
/// challenges that open a path.
const UNPROVEN_BYTES: (u64, u64) = (64 * 1024, 512 * 1024);

pub(in super::super) struct EndpointOutbox {
    transmits: VecDeque<(Outgoing, Vec<u8>)>,
    events: VecDeque<SessionEvent>,
    unproven: TokenBucket,
}

impl EndpointOutbox {
    pub(super) fn new(now: Instant) -> EndpointOutbox {
        let (per_second, burst) = UNPROVEN_BYTES;
        EndpointOutbox {
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            unproven: TokenBucket::new(per_second, burst, now),
        }
    }

    /// Whether `len` bytes may go to an unproven address, with regard to all peers; then they count.
    pub(in super::super) fn take_unproven(
        &mut self,
        stats: &mut EndpointStats,
        now: Instant,
        len: usize,
    ) -> bool {
        let taken = self.unproven.take(now, len as u64);
        stats.unproven_over_budget += u64::from(!taken);
        taken
    }

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_peers_that_name_one_victim_share_one_budget() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let (mut outbox, mut stats) = (EndpointOutbox::new(now), EndpointStats::default());
        let mut sent_in = |outbox: &mut EndpointOutbox, second: u64| {
            let at = now + Duration::from_secs(second);
            (0..100_000).filter(|_| outbox.take_unproven(&mut stats, at, 39)).count() as u64 * 39
        };
        let at_once = sent_in(&mut outbox, 0);
        assert!((500 * 1024..=512 * 1024).contains(&at_once), "{at_once} bytes");
        let later: u64 = (1..=10).map(|second| sent_in(&mut outbox, second)).sum();
        assert!((600 * 1024..=641 * 1024).contains(&later), "{later} bytes in 10 s");
        assert!(stats.unproven_over_budget > 1_000_000);
    }
}
