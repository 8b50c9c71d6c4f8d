//! The limits and rates of a replicator.

use std::sync::Arc;
use std::time::Duration;

use super::presence::Presence;
use crate::replication::crdt::Stamp;

/// The longest name of a state object, which an application gives as its key; the same limit as for a tenure's key. The
/// byte of the kind is added to it.
pub const MAX_KEY_BYTES: usize = crate::ring::MAX_TENURE_KEY_BYTES;

/// Limit on the keys held. A key with a name of 16 bytes and a counter of one writer costs 378 bytes of memory
/// (`tests/memory.rs`).
pub const MAX_ENTRIES: usize = 1_048_576;

/// Limit on the bytes of encoded state held.
pub const MAX_HELD_BYTES: usize = 512 * 1024 * 1024;

/// Limit on the keys written here that other nodes own. Each entry keeps this node's own sums. They must not be
/// forgotten while the replica id lives, or the others would take a later write for one already seen and lose it.
pub const MAX_OWN: usize = 65_536;

/// How long the mark of a deletion is kept. Until then it keeps an owner that was away from bringing the object back; an
/// owner that was away for longer discards what the others lack.
pub(super) const MARKS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Limit on the marks of deletions. Above it the oldest go first.
pub(super) const MAX_MARKS: usize = 65_536;

/// Limit on the deltas that no owner has acknowledged yet. It is reached when no owner was reachable for a long time.
pub const MAX_PENDING: usize = 4096;

/// Limit on the reads under way.
pub const MAX_READS: usize = 1024;

/// Limit on the messages, and their bytes, that wait to be sent. Repair replaces the messages dropped at this limit.
pub const MAX_OUTBOX: usize = 4096;
/// See [`MAX_OUTBOX`].
pub const MAX_OUTBOX_BYTES: usize = 16 * 1024 * 1024;

/// The interval at which budgets refill and retries are checked.
pub const TICK: Duration = Duration::from_secs(1);

/// Limit on the peers that get a summary in one tick.
pub const MAX_SYNCS_PER_TICK: usize = 4;

/// The limits and rates of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The number of owners of a key; at most 8.
    pub replicas: usize,
    /// The pause between two rounds of summaries to a peer.
    pub sync_period: Duration,
    /// The time for which the owners must be unchanged before a former owner drops its copy.
    pub hand_off_hold: Duration,
    /// Bytes of state a second for repair and hand-off.
    pub repair_bytes_per_tick: usize,
    /// Limit on the keys held.
    pub max_entries: usize,
    /// Limit on the bytes of state held.
    pub max_held_bytes: usize,
    /// Limit on the unacknowledged deltas.
    pub max_pending: usize,
    /// Limit on the keys of other owners written here.
    pub max_own: usize,
    /// How long the mark of a deletion is kept. All nodes of a mesh keep it alike.
    pub marks_kept: Duration,
    /// Limit on these marks.
    pub max_marks: usize,
    /// The stamp after which the hybrid clock continues: the durable
    /// [`Replicator::clock_high_water`](super::Replicator::clock_high_water).
    pub clock: Stamp,
    /// When earlier processes with this store were among others: the durable
    /// [`Replicator::presence`](super::Replicator::presence).
    pub presence: Presence,
    /// An observer writes through a member and holds nothing.
    pub observer: bool,
    /// The boot id of this process: an operation that was sent to an earlier one isn't made here.
    pub boot: u64,
    /// Whether the driver stores the keys of [`Replicator::poll_changed`](super::Replicator::poll_changed) durably: then
    /// a write is safe here without any owner's answer.
    pub durable: bool,
    /// Why the driver's disk takes no commits, if it takes none: then this node writes nothing and takes nothing, so that
    /// it holds what is on the disk, and no more.
    pub read_only: Option<Arc<str>>,
    /// Whether the last commit may be on such a disk, though what it had isn't held here. Then this node doesn't say of a
    /// write that it hasn't got it.
    pub in_doubt: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            replicas: 3,
            sync_period: Duration::from_secs(10),
            hand_off_hold: Duration::from_secs(60),
            repair_bytes_per_tick: 1024 * 1024,
            max_entries: MAX_ENTRIES,
            max_held_bytes: MAX_HELD_BYTES,
            max_pending: MAX_PENDING,
            max_own: MAX_OWN,
            marks_kept: MARKS_KEPT,
            max_marks: MAX_MARKS,
            clock: Stamp::default(),
            presence: Presence::default(),
            observer: false,
            boot: 0,
            durable: false,
            read_only: None,
            in_doubt: false,
        }
    }
}
