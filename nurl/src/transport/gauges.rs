//! How full the seam is: what is in its tables now, and what fits.
//!
//! Batches on their way to the socket and events on theirs to the node have no gauge: both are emptied before
//! anybody can ask, so it would always say zero.

/// What something holds now, and the most that it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Now.
    pub now: usize,
    /// At most.
    pub bound: usize,
}

/// The gauges of one seam.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Peers that are known: members, and strangers with a session or something that waits for them.
    pub peers: Gauge,
    /// Peers with a session, or on the way to one.
    pub sessions: Gauge,
    /// Groups that we are in, the mesh's own among them.
    pub groups: Gauge,
    /// Peers that datagrams wait for.
    pub waiting_peers: Gauge,
    /// Datagrams in the longest queue of those.
    pub waiting_datagrams: Gauge,
    /// Bytes of reliable messages that nobody has acknowledged yet.
    pub sending_bytes: Gauge,
    /// Bytes of reliable messages that have come and aren't taken yet. At its bound one peer alone is read from,
    /// so it may be exceeded by what the others' windows let in before they noticed.
    pub receiving_bytes: Gauge,
    /// Peers with messages that nobody has acknowledged yet, and no timer to send them again.
    pub stuck_peers: Gauge,
}

impl Gauges {
    /// All of them, by name.
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
