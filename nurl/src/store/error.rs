//! Why the store could not be opened, read or written, and the limits of what it takes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::opening::MADE;

/// The longest record: a message of the largest size, with room for its surrounding fields.
pub const MAX_RECORD_BYTES: usize = 17 * 1024 * 1024;

/// The longest name of a record.
pub const MAX_NAME_BYTES: usize = 4096;

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be opened.
    #[error("{path}: {error}")]
    File {
        /// Its path.
        path: String,
        /// The operating system's error.
        error: io::Error,
    },
    /// The disk has no room for the file, or its user no right to more.
    #[error("{path}: {error}: free space there, or use a folder on another disk")]
    NoRoom {
        /// Its path.
        path: String,
        /// The operating system's error.
        error: io::Error,
    },
    /// Another store has the file open, probably a second process with the same folder.
    #[error("{path} is in use by another process: end it, or give this one a folder of its own")]
    InUse {
        /// Its path.
        path: String,
    },
    /// The database failed: the file isn't a database, or the disk failed. After a disk failure open the store again.
    #[error("the store failed: {0}")]
    Database(Box<redb::Error>),
    /// A record, its name or a batch exceeds its limit.
    #[error("{what} of {size}, the limit is {limit}")]
    TooLarge {
        /// The object that is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// Its limit.
        limit: usize,
    },
    /// The store is damaged. The file stays in its place.
    #[error(
        "{path} is damaged ({reason}): put a copy of it back, or move it and {path}{} away to begin anew",
        MADE
    )]
    Unsound {
        /// Its path.
        path: String,
        /// The damage that was found.
        reason: String,
    },
    /// The database panicked, as it does on damaged pages. Open the store again.
    #[error("the store failed: {0}")]
    Panicked(String),
    /// The last commit failed, and is in the file all the same: it may not be on the disk.
    #[error("the last commit may not be on the disk")]
    Unsynced,
    /// A record is not in the form that this version writes.
    #[error("the store's record of {0} is damaged")]
    Damaged(&'static str),
    /// The store's records have another layout than this version's: it reads none of them.
    #[error(
        "its {0} is from another version of nurl: go back to that version, or move the store away to begin anew"
    )]
    OtherLayout(&'static str),
    /// A replicated value can't be taken back: it is damaged, or more than this node may hold.
    #[error("a value in it can't be taken back: {0}")]
    Value(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Database(Box::new(error.into()))
    }
}

/// The result of a database call, with a panic turned into an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(StoreError::Panicked(text.unwrap_or_else(|| "the database panicked".to_owned())))
    })
}

/// Refuses a size over its limit.
pub(crate) fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

/// Refuses a record or a name over its limit.
pub(crate) fn check(name: &[u8], record: &[u8]) -> Result<(), StoreError> {
    within("a name", name.len(), MAX_NAME_BYTES)?;
    within("a record", record.len(), MAX_RECORD_BYTES)
}

/// Reads a little-endian number, or tells that `what` is damaged.
pub(crate) fn number(bytes: &[u8], what: &'static str) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| StoreError::Damaged(what))
}
