//! Counters of a world.

use crate::link::{DROP_CAUSES, DropCause};

/// What has happened so far in a world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// IP packets that left an interface, loopback among them; however many boxes they pass, they count once.
    pub packets_sent: u64,
    /// IP packets that reached a socket or a connection; a duplicate counts again.
    pub packets_delivered: u64,
    /// UDP datagrams among those sent.
    pub udp_datagrams: u64,
    /// TCP segments among those sent.
    pub tcp_segments: u64,
    /// Second copies that a path made.
    pub packets_duplicated: u64,
    /// Packets in which a path flipped a bit.
    pub packets_corrupted: u64,
    /// UDP datagrams that a path cut short.
    pub packets_truncated: u64,
    /// TCP connections begun by a `connect` or made by a listener.
    pub tcp_connections: u64,
    /// Writes to files, changes of length among them.
    pub disk_writes: u64,
    /// Syncs of files; one for each file made or replaced whole.
    pub disk_syncs: u64,
    /// Unsynced sectors that a crash took away.
    pub disk_sectors_lost: u64,
    /// Faults that the scenario made: crashes, partitions, pauses and so on.
    pub faults: u64,
    /// Tasks that panicked: whoever awaits one hears of it, and what nobody awaits ends the run.
    pub task_panics: u64,
    /// TCP segments whose source address had left the host.
    pub unroutable: u64,
    /// Bytes that were [exposed](crate::property::exposed).
    pub exposed_bytes: u64,
    dropped: [u64; DROP_CAUSES],
}

impl Stats {
    /// Packets dropped for one cause.
    pub fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped[cause as usize]
    }

    /// Packets dropped for any cause.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(crate) fn drop_one(&mut self, cause: DropCause) {
        self.dropped[cause as usize] += 1;
    }
}
