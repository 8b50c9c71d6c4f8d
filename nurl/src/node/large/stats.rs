//! Counters of large files.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::compute::blob::provider::ProviderStats;

/// A counter that another plane reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of large files.
#[derive(Debug, Default)]
pub struct LargeStats {
    /// Bytes of chunks that were asked for and came.
    pub received_bytes: Count,
    /// Bytes that were on the disk when a fetch began.
    pub found_bytes: Count,
    /// Chunks whose bytes weren't the file's.
    pub wrong: Count,
    /// Chunks that nobody had asked for.
    pub unasked: Count,
    /// Messages that didn't parse.
    pub malformed: Count,
    /// Messages dropped because too many waited.
    pub dropped: Count,
    /// Chunks sent.
    pub sent: Count,
    /// Requests for files that aren't offered to the peer.
    pub unknown: Count,
    /// Requests over a bound.
    pub too_often: Count,
    /// Chunks not sent because the file has changed.
    pub changed: Count,
}

impl LargeStats {
    pub(super) fn set_provider(&self, stats: ProviderStats) {
        self.sent.set(stats.chunks);
        self.unknown.set(stats.unknown);
        self.too_often.set(stats.too_often);
        self.changed.set(stats.changed);
    }

    /// Notes a message that didn't fit the queue.
    pub(in super::super) fn note_dropped(&self) {
        self.dropped.add(1);
    }
}
