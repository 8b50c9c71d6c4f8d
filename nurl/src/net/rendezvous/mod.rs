//! Rendezvous: where a member can be found, kept by a hub that can't read it.
//!
//! Promise: a record under a key was published over a connection that proved this key ([`store::Records`]),
//! it is readable only with the mesh secret ([`record::Record`]), a hub can't serve one member's record as
//! another's (the key and the number are authenticated), and a client that has seen a newer one takes no older
//! one ([`memory::SeqMemory`]). A record not refreshed goes after its time to live.
//!
//! How: PUBLISH replaces one's own record by a higher `seq`, or refreshes it by the same bytes. LOOKUP asks for
//! one key, LIST for a bounded random sample of those in the namespace whose publishers are connected now.
//!
//! It refuses, and counts: a record over 4 KiB, an older `seq`, the same `seq` with other bytes, one record
//! too many, and truncated bytes: nothing is ever filled up with zeros.

pub mod frame;
pub mod memory;
pub mod record;
pub mod store;

use std::time::Duration;

use bytes::Bytes;

use crate::key::PublicKey;

pub use frame::{Frame, PublishResult};
pub use memory::SeqMemory;
pub use record::{Record, RecordError};
pub use store::{Counters, Records};

/// The longest sealed record. Sixteen candidates need 350 bytes; the rest is room for what comes.
pub const MAX_RECORD_BYTES: usize = 4096;

/// In a record, too: a host with more has bridges and containers among them, which bury the useful one.
pub use crate::net::securedgram::paths::MAX_CANDIDATES;

/// How long a hub keeps a record that isn't refreshed: three refreshes may be lost or a hub switch may take
/// place before a member is not found.
pub const RECORD_TTL: Duration = Duration::from_secs(120);

/// The most records in one answer to LIST. A newcomer joins by three of them; 16 of the largest fill a frame.
pub const MAX_LIST: usize = 16;

/// Somebody whom a LIST named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub key: PublicKey,
    /// Whether a secret of the mesh opens its record: then a member has sealed it.
    pub opened: bool,
}

/// A record as hubs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Whose it is.
    pub key: PublicKey,
    /// Its number: higher is newer.
    pub seq: u64,
    /// How much longer the hub keeps it.
    pub ttl: Duration,
    /// The sealed bytes; see [`Record::open`].
    pub sealed: Bytes,
}
