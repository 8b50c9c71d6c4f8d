//! The durable store: the state that a node must not forget.
//!
//! It keeps records, bytes under names, in a few tables. What the bytes mean is said where they are written: replicated
//! state in `replication::store`, epoch counters and results in `compute::job::store`, leases and effects in
//! `compute::lease::store`.
//!
//! # Guarantees
//! - A commit that returned is on the disk. A commit that a crash cut off is on the disk whole or not at all.
//! - The store's incarnation is drawn when it is created and never changes, so a node that lost its disk is known by
//!   another one.
//!
//! # How it works
//! `redb` (copy-on-write B-trees, two syncs per commit) runs on this module's [`redb::StorageBackend`] over
//! [`rt::disk`](crate::rt::disk), so that the same code loses unsynced writes in the simulated world. All calls block
//! on the disk: a running node makes them on the disk's plane only. Without a disk there is [`Store::in_memory`].
//!
//! A marker file beside the database records that a database was made there, so a database that now holds only zeros
//! isn't taken for an unfinished one. Opening reads the whole database and checks every page, so damage is found
//! before any record is used (so the records have no digests of their own), and before a byte of the file changes: redb's repair of a database that was not closed happens in
//! memory first, and then once more on the file. The check takes about a second for 100 MB on a busy machine, as long as loading the same
//! records takes. [`Opened::at`] sets a damaged store aside and begins with a new one, which has another incarnation:
//! to the mesh the node has lost its disk.
//!
//! # Refusals
//! The store refuses a file that isn't a store, a damaged store ([`StoreError::Unsound`]), records over a limit
//! ([`StoreError::TooLarge`]), and every call after a failure of the disk: redb then refuses further commits until
//! the store is opened again, see `closed`. It also refuses a file that another store has open ([`StoreError::InUse`]): two
//! processes that write one database would destroy it.

mod backend;
mod closed;
mod error;
#[cfg(all(test, not(feature = "sim")))]
pub(crate) mod faulty;
mod opening;
mod overlay;
mod table;
#[cfg(test)]
mod tests;
mod transaction;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_core::Rng as _;
use redb::{ReadableDatabase, ReadableTable};

pub use error::{MAX_NAME_BYTES, MAX_RECORD_BYTES, StoreError};
pub use opening::{Opened, SetAside};

pub(crate) use closed::Closed;
pub(crate) use error::{check, number, within};
pub(crate) use table::Table;
pub(crate) use transaction::Transaction;

use self::closed::Origin;
use self::error::guarded;
use self::table::META;
use crate::rt::{Rng, disk};

/// Memory for cached pages. redb's own default of 1 GiB is too much for a background peer on a laptop.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The name of the incarnation's record.
const INCARNATION: &str = "incarnation";

/// The name of the record that counts the transactions.
const COMMITS: &str = "commits";

/// An open store.
pub struct Store {
    // Taken out when the store is dropped.
    database: Option<redb::Database>,
    incarnation: u64,
    /// The number of the last transaction that is known to be durable.
    commits: Arc<AtomicU64>,
    origin: Origin,
    /// Holds the lock on the damaged file that this store replaces.
    _aside: Option<disk::File>,
}

impl Drop for Store {
    fn drop(&mut self) {
        let database = self.database.take();
        // A database that failed may panic again when it is closed. Drop has no way to report it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// Begins a transaction whose commit is on the disk before the file names it as the last one. Otherwise redb takes a last
/// commit that has become damaged since for one that was cut off, and silently goes back to the one before: what was
/// acknowledged would be gone. This costs a second sync.
fn begin(database: &redb::Database) -> Result<redb::WriteTransaction, StoreError> {
    let mut write = database.begin_write()?;
    write.set_two_phase_commit(true);
    Ok(write)
}

impl Store {
    /// Opens the store in the file at `path`, or creates it there.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::InUse`], [`StoreError::Unsound`] or [`StoreError::Database`]. A file with
    /// other content is refused and stays unchanged.
    pub fn open(path: &Path, rng: &mut Rng) -> Result<Store, StoreError> {
        opening::open(path, rng)
    }

    /// The content that the store at `path` has now, as a store in memory: for a reader beside the process that has it open.
    /// Every page is compared with its checksum, so a copy during a write is noticed, and made again.
    ///
    /// # Errors
    /// [`StoreError::File`] or [`StoreError::Unsound`].
    pub fn copy_of(path: &Path, rng: &mut Rng) -> Result<Store, StoreError> {
        opening::copied(path, rng)
    }

    /// A store that lives as long as the process.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn in_memory(rng: &mut Rng) -> Result<Store, StoreError> {
        Store::on(Store::database_on(redb::backends::InMemoryBackend::new())?, Origin::Memory, rng)
    }

    /// A store on a test's backends, of which each opening takes a new one.
    #[cfg(all(test, not(feature = "sim")))]
    pub(crate) fn on_backend<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
        rng: &mut Rng,
    ) -> Result<Store, StoreError> {
        let database = Store::database_on(backend())?;
        let again = move || Box::new(backend()) as Box<dyn redb::StorageBackend>;
        Store::on(database, Origin::Test(Arc::new(again)), rng)
    }

    fn database_on(backend: impl redb::StorageBackend) -> Result<redb::Database, StoreError> {
        Ok(redb::Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
    }

    fn on(database: redb::Database, origin: Origin, rng: &mut Rng) -> Result<Store, StoreError> {
        let write = begin(&database)?;
        let (incarnation, commits) = {
            for table in Table::ALL {
                write.open_table(table.definition())?;
            }
            let mut meta = write.open_table(META)?;
            let commits = meta.get(COMMITS)?.map(|bytes| number(bytes.value(), COMMITS)).transpose()?;
            let stored = meta.get(INCARNATION)?.map(|bytes| number(bytes.value(), "its incarnation"));
            let incarnation = match stored {
                Some(incarnation) => incarnation?,
                None => {
                    let incarnation = rng.next_u64();
                    meta.insert(INCARNATION, &incarnation.to_le_bytes()[..])?;
                    incarnation
                }
            };
            (incarnation, commits.unwrap_or(0))
        };
        write.commit()?;
        let commits = Arc::new(AtomicU64::new(commits));
        Ok(Store { database: Some(database), incarnation, commits, origin, _aside: None })
    }

    /// 64 random bits drawn when this store was created.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn database(&self) -> &redb::Database {
        self.database.as_ref().expect("present until drop")
    }

    /// A single record beside the tables.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let read = self.database().begin_read()?;
            Ok(read.open_table(META)?.get(name)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Gives every record of a table, by name.
    pub(crate) fn each(&self, table: Table, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        guarded(|| {
            let read = self.database().begin_read()?;
            for record in read.open_table(table.definition())?.iter()? {
                let (name, bytes) = record?;
                each(name.value(), bytes.value());
            }
            Ok(())
        })
    }

    /// One record of a table.
    pub(crate) fn get(&self, table: Table, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let read = self.database().begin_read()?;
            Ok(read.open_table(table.definition())?.get(name)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Result<Transaction, StoreError> {
        guarded(|| Ok(Transaction::new(begin(self.database())?, self.commits.clone())))
    }

    /// Closes a store whose disk has failed. Nothing is written: redb refuses to.
    pub(crate) fn fail(mut self) -> Closed {
        let database = self.database.take();
        // As in Drop.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        Closed::new(self.origin.clone(), self.commits.load(Ordering::Relaxed), self._aside.take())
    }

    /// Runs one transaction and makes it durable.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A transaction that fails may panic again when it is dropped, so all of its life is guarded.
        guarded(|| {
            let write = self.begin()?;
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        })
    }
}
