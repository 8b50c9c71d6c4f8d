//! Large payloads and results: files that travel as content-addressed chunks.
//!
//! A message holds 16 MiB. A task whose payload or result may be longer has both in an [`envelope`]: the bytes
//! themselves, or a [`Manifest`] of a file, which has the BLAKE3 hash of each chunk. So the task's own message, which its
//! receivers have already checked, fixes every byte of the file, and chunks may come from a peer that isn't trusted.
//!
//! - **Who may read**: a chunk is given to a peer only in the name of a task: the chunks of a payload to the nodes to which
//!   the submitter gave the task, those of a result to its submitter. To know a hash gives no right. A peer without the
//!   right gets the same answer as for a task that doesn't exist.
//! - **What is believed**: a chunk is written only if its hash is that of the manifest. A file that is found on the disk is
//!   read and checked chunk by chunk before it counts, so a fetch goes on after a crash with what is really there.
//! - **What ends**: a fetch that gets no new chunk for [`PATIENCE`] fails, and so does one whose provider sends
//!   [`MAX_WRONG`] wrong chunks, or says that the file has changed. A provider reads no chunk for a peer more often than
//!   [`provider::READS_PER_CHUNK`] times on average.
//! - **What is bounded**: the chunks that a fetch has asked for ([`WINDOW_BYTES`]), those that a provider has read and
//!   not yet delivered, for each peer and in all, and the space on the disk ([`shelf`]).
//!
//! | module | content |
//! | --- | --- |
//! | [`manifest`] | what a file is made of |
//! | [`envelope`] | a payload or a result: its bytes, or a manifest |
//! | [`message`] | the messages |
//! | [`fetch`] | one file that is fetched from one peer |
//! | [`provider`] | the files that this node gives, and to whom |
//! | [`shelf`] | the files in this node's folder: what fits, and what goes first |
//! | [`folder`] | the folder itself, on the disk |
//! | [`desk`] | the door to the driver of all this, for handlers and tasks |

pub mod desk;
pub mod envelope;
pub mod fetch;
pub mod folder;
pub mod manifest;
pub mod message;
pub mod provider;
pub mod shelf;

use std::time::Duration;

pub use self::envelope::Envelope;
pub use self::manifest::{MAX_FILE_LEN, Manifest};

/// The bytes that a fetch has asked for and not yet got. The peer's bulk budget in the transport is as large, so more
/// would only wait there: at a round trip of 50 ms it is 80 MB/s.
pub const WINDOW_BYTES: u64 = 4 << 20;

/// A fetch that gets no new chunk for this long is given up. It is longer than a phone's tunnel, and than a submitter's roam
/// to another network with all its retries.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Chunks with a wrong hash after which a peer isn't asked any more. The transport delivers what was sent, so one is
/// already a fault of the peer; a second chance costs little.
pub const MAX_WRONG: u32 = 3;
