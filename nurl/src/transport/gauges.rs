//! The transport's gauges: the current size and the bound of each table.
//!
//! Batches for the socket and events for the node have no gauge: both are drained before a reader can ask, so
//! the gauge would always be zero.

/// The current size of a table, and its bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauge {
    /// The current size.
    pub now: usize,
    /// The most that it may be.
    pub bound: usize,
}

/// The gauges of one transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Known peers: members, and strangers with a session or with waiting data.
    pub peers: Gauge,
    /// Peers with a session or a handshake in progress.
    pub sessions: Gauge,
    /// Our groups, including the mesh group.
    pub groups: Gauge,
    /// Peers with waiting datagrams.
    pub waiting_peers: Gauge,
    /// Datagrams in the longest of these queues.
    pub waiting_datagrams: Gauge,
    /// Bytes of unacknowledged reliable messages.
    pub sending_bytes: Gauge,
    /// Bytes of reliable messages that have arrived and aren't taken yet. At its bound only one peer is read
    /// from, and it may be exceeded by the data that the other peers' windows admit until they are stopped.
    pub receiving_bytes: Gauge,
    /// Peers with unacknowledged messages but no retransmission timer.
    pub stuck_peers: Gauge,
}

impl Gauges {
    /// All gauges, by name.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn named(&self) -> [(&'static str, Gauge); 8] {
        [
            ("peers", self.peers),
            ("sessions", self.sessions),
            ("groups", self.groups),
            ("peers that datagrams wait for", self.waiting_peers),
            ("datagrams waiting for a peer", self.waiting_datagrams),
            ("bytes of messages to be sent", self.sending_bytes),
            ("bytes of messages received", self.receiving_bytes),
            ("peers with unacknowledged messages and no timer", self.stuck_peers),
        ]
    }
}
