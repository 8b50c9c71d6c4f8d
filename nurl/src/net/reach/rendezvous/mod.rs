//! Rendezvous: a hub stores the addresses of members in records that it can't read.
//!
//! Guarantees: a record under a key was published over a connection that proved this key ([`store::Records`]).
//! It is readable only with the mesh secret ([`record::Record`]). A hub can't serve one member's record as
//! another's, since key and number are authenticated. A client that has seen a newer record accepts no older
//! one ([`memory::SeqMemory`]). A record that isn't refreshed ends after its time to live.
//!
//! How: PUBLISH replaces the sender's own record by a higher `seq`, or refreshes it by the same bytes. LOOKUP
//! asks for one key, LIST for a bounded random sample of the keys in the namespace whose publishers are
//! connected now.
//!
//! It refuses, and counts: a record over 4 KiB, an older `seq`, the same `seq` with other bytes, a record over
//! the limit, and truncated bytes: missing bytes are never replaced by zeros.

pub mod frame;
pub mod memory;
pub mod record;
pub mod store;

use std::time::Duration;

use bytes::Bytes;

use crate::key::PublicKey;

pub use crate::net::reach::control::table::RendezvousFrame as Frame;
pub use frame::PublishResult;
pub use memory::SeqMemory;
pub use record::{Record, RecordError};
pub use store::{Records, RendezvousStats};

/// The longest sealed record. Sixteen candidates need 350 bytes; the rest is room for extensions.
pub const MAX_RECORD_BYTES: usize = 4096;

/// Also the most candidates in a record: a host with more has container addresses, which would displace the
/// useful one.
pub use crate::net::secure::securedgram::paths::MAX_CANDIDATES;

/// How long a hub keeps a record that isn't refreshed: three refreshes may be lost, or the member may change
/// its hub, before its record ends.
pub const RECORD_TTL: Duration = Duration::from_secs(120);

/// The most records in an answer to LIST. A newcomer needs three to join; 16 of the largest fill a frame.
pub const MAX_LIST: usize = 16;

/// A peer named in an answer to LIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// The peer's key.
    pub key: PublicKey,
    /// Whether a mesh secret opens its record: then a member has sealed it.
    pub opened: bool,
}

/// A record as hubs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// The owner's key.
    pub key: PublicKey,
    /// The sequence number: higher is newer.
    pub seq: u64,
    /// How much longer the hub keeps the record.
    pub ttl: Duration,
    /// The sealed bytes; see [`Record::open`].
    pub sealed: Bytes,
}
