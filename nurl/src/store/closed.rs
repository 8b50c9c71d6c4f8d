//! A store whose disk has failed: what can still be read, and how it is opened again.
//!
//! After a failed sync the kernel may count pages as written that are not on the disk, and a later sync of them succeeds. So a
//! commit that failed is never tried again, and nothing of it counts. It may be in the file all the same, if its last sync
//! failed: the file then names it as the last one, though the disk may not. The number of the last commit that
//! returned tells the two apart ([`Closed::view`]).
//!
//! Opening the store again is sound: a commit's pages are synced before the file names it, so whatever the file names
//! is on the disk but for that name, and the commit that [`Closed::reopen`] makes writes the name anew, and syncs it.

use std::path::PathBuf;
use std::sync::Arc;

use redb::ReadableDatabase as _;

use super::backend::Backend;
use super::error::{StoreError, guarded, number};
use super::opening::{checked, told};
use super::overlay::Overlay;
use super::table::META;
use super::{COMMITS, Store};
use crate::rt::{Rng, disk};

/// Where a store's bytes are.
#[derive(Clone)]
pub(super) enum Origin {
    /// A file, with the lock on it.
    File { path: PathBuf, file: Arc<disk::File> },
    /// In memory: gone.
    Memory,
    /// A test's.
    #[cfg(all(test, not(feature = "sim")))]
    Test(Arc<dyn Fn() -> Box<dyn redb::StorageBackend> + Send + Sync>),
}

/// See the module.
pub(crate) struct Closed {
    origin: Origin,
    /// The number of the last commit that is durable.
    commits: u64,
    /// Holds the lock on the damaged file that the store replaced.
    _aside: Option<disk::File>,
}

impl Closed {
    pub(super) fn new(origin: Origin, commits: u64, aside: Option<disk::File>) -> Closed {
        Closed { origin, commits, _aside: aside }
    }

    /// The error with the file's path.
    pub(crate) fn told(&self, error: StoreError) -> StoreError {
        match &self.origin {
            Origin::File { path, .. } => told(path, error),
            _ => error,
        }
    }

    /// What of the store is certainly on the disk, to be read. What is written to it stays in memory.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`], or why the file can't be read.
    pub(crate) fn view(&self, rng: &mut Rng) -> Result<Store, StoreError> {
        guarded(|| {
            let database = match &self.origin {
                Origin::File { file, .. } => Store::database_on(Overlay::on(file.clone())?)?,
                Origin::Memory => return Err(redb::Error::DatabaseClosed.into()),
                #[cfg(all(test, not(feature = "sim")))]
                Origin::Test(open) => Store::database_on(super::backend::copied(&*open())?)?,
            };
            let database = checked(database)?;
            let commits = match database.begin_read()?.open_table(META)?.get(COMMITS)? {
                Some(bytes) => number(bytes.value(), COMMITS)?,
                None => 0,
            };
            if commits != self.commits {
                return Err(StoreError::Unsynced);
            }
            Store::on(database, Origin::Memory, rng)
        })
        .map_err(|error| self.told(error))
    }

    /// Opens the store again, and makes a commit. What the store has then is durable.
    ///
    /// # Errors
    /// Those of the disk; or the file is damaged.
    pub(crate) fn reopen(&self, rng: &mut Rng) -> Result<Store, StoreError> {
        guarded(|| {
            let database = match &self.origin {
                Origin::File { file, .. } => {
                    drop(checked(Store::database_on(Overlay::on(file.clone())?)?)?);
                    Store::database_on(Backend(file.clone()))?
                }
                Origin::Memory => return Err(redb::Error::DatabaseClosed.into()),
                #[cfg(all(test, not(feature = "sim")))]
                Origin::Test(open) => Store::database_on(super::backend::Boxed(open()))?,
            };
            let store = Store::on(database, self.origin.clone(), rng)?;
            store.write(|_| Ok(()))?;
            Ok(store)
        })
        .map_err(|error| self.told(error))
    }
}
