//! Counters of a world.

use crate::wire::link::{DROP_CAUSES, DROP_NAMES, DropCause};

/// The counters of a world so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorldStats {
    /// IP packets that left an interface, including loopback. A packet counts once, however many boxes it passes.
    pub packets_sent: u64,
    /// IP packets that reached a socket or a connection; a duplicate counts again.
    pub packets_delivered: u64,
    /// UDP datagrams among the packets sent.
    pub udp_datagrams: u64,
    /// TCP segments among the packets sent.
    pub tcp_segments: u64,
    /// Duplicates that a link made.
    pub packets_duplicated: u64,
    /// Packets in which a link flipped a bit.
    pub packets_corrupted: u64,
    /// UDP datagrams that a link truncated.
    pub packets_truncated: u64,
    /// TCP connections begun by a `connect` or made by a listener.
    pub tcp_connections: u64,
    /// Writes to files, including changes of length and removals.
    pub disk_writes: u64,
    /// Syncs of files; also one for each file made, replaced whole or renamed.
    pub disk_syncs: u64,
    /// Unsynced sectors that a crash lost.
    pub disk_sectors_lost: u64,
    /// Faults that the scenario made: crashes, partitions, pauses and so on.
    pub faults: u64,
    /// Tasks that panicked. The panic is returned to the awaiting task; without one it ends the run.
    pub task_panics: u64,
    /// TCP segments that were not sent, because their source address was no longer the host's.
    pub unroutable: u64,
    /// Bytes that were [exposed](crate::world::property::exposed).
    pub exposed_bytes: u64,
    dropped: [u64; DROP_CAUSES],
}

impl WorldStats {
    /// Packets dropped for one cause.
    pub fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped[cause as usize]
    }

    /// Packets dropped for any cause.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// The counters whose size says something about what a run went through, each with its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = [
            ("packets sent", self.packets_sent),
            ("duplicates", self.packets_duplicated),
            ("corrupted packets", self.packets_corrupted),
            ("truncated packets", self.packets_truncated),
            ("TCP connections", self.tcp_connections),
            ("disk writes", self.disk_writes),
            ("sectors lost", self.disk_sectors_lost),
            ("task panics", self.task_panics),
            ("unroutable segments", self.unroutable),
        ];
        named.into_iter().chain(DROP_NAMES.into_iter().zip(self.dropped))
    }

    pub(crate) fn drop_one(&mut self, cause: DropCause) {
        self.dropped[cause as usize] += 1;
    }
}
