//! The durable store: the state that a node must not forget.
//!
//! # Guarantees
//! - A commit that returned is on the disk. A commit that a crash cut off is on the disk whole or not at all.
//! - The store's incarnation is drawn when it is created and never changes: see
//!   [`identity`](crate::replication::identity).
//!
//! # How it works
//! `redb` (copy-on-write B-trees, at least one sync per commit) runs on this module's [`redb::StorageBackend`] over
//! [`rt::disk`](crate::rt::disk), so that the same code loses unsynced writes in the simulated world. All calls block
//! on the disk: they belong on the work plane. Without a disk there is [`Store::in_memory`].
//!
//! A marker file beside the database records that a database was made there, so a database that now holds only zeros
//! isn't taken for an unfinished one. Opening reads the whole database and checks every page, so damage is found
//! before any record is used. This takes about a second for 100 MB on a busy machine, as long as loading the same
//! records takes. [`Opened::at`] sets a damaged store aside and begins with a new one, which has another incarnation:
//! to the mesh the node has lost its disk.
//!
//! # Refusals
//! The store refuses a file that isn't a store, a damaged store ([`StoreError::Unsound`]), records over a limit
//! ([`StoreError::TooLarge`]), and every call after a failure of the disk: redb then refuses further commits until
//! the store is opened again. It also refuses a file that another store has open ([`StoreError::InUse`]): two
//! processes that write one database would destroy it.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand_core::Rng as _;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::key::PublicKey;
use crate::replication::crdt::Stamp;
use crate::replication::identity::ReplicaId;
use crate::rt::{Rng, disk, time};

/// Memory for cached pages. redb's own default of 1 GiB is too much for a background peer on a laptop.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The longest record: a message of the largest size, with room for its surrounding fields.
pub const MAX_RECORD_BYTES: usize = 17 * 1024 * 1024;

/// The longest name of a record.
pub const MAX_NAME_BYTES: usize = 4096;

/// The most records of the replicator in one commit: bounds how long the work plane waits for a commit.
pub const MAX_BATCH: usize = 4096;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
const RESULTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("results");
const LEASE_TOKENS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lease tokens");
const LEASE_TASKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lease tasks");
const EFFECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("effects");

const INCARNATION: &str = "incarnation";
const EPOCH: &str = "highest epoch counter";
const CLOCK: &str = "clock high water";
const FLOOR: &str = "lease floor";

/// The magic number at the start of redb's databases. redb writes it last when it makes a database.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";

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
    /// A record is not in the form that this version writes.
    #[error("the store's record of {0} is damaged")]
    Damaged(&'static str),
    /// A replicated value can't be taken back: it is damaged, or more than this node may hold.
    #[error("a value in it can't be taken back: {0}")]
    Value(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Database(Box::new(error.into()))
    }
}

/// The suffix of the marker file's name. The file records that a store was made.
const MADE: &str = ".made";

/// The marker file's content.
const MADE_TEXT: &[u8] =
    b"A store of nurl was made beside this file. If it is gone or damaged, nurl notices.\n";

/// The number of names tried for the stores that are set aside in one second.
const ASIDE_TRIES: u32 = 100;

/// A store, opened or made, and the damaged store that it replaces, if any.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// The damaged store that was set aside.
    pub set_aside: Option<SetAside>,
}

/// A damaged store that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its present path; none if its file was gone.
    pub path: Option<PathBuf>,
    /// The damage that was found.
    pub reason: String,
}

impl Opened {
    /// Opens the store at `path`, or makes it. A damaged store there is renamed, unless `strict` forbids it.
    ///
    /// # Errors
    /// The errors of [`Store::open`].
    pub fn at(path: &Path, strict: bool, rng: &mut Rng) -> Result<Opened, StoreError> {
        match Store::open(path, rng) {
            Err(StoreError::Unsound { reason, .. }) if !strict => {
                let (aside, kept) = set_aside(path)?;
                let mut store = Store::open(path, rng)?;
                store._aside = kept;
                Ok(Opened { store, set_aside: Some(SetAside { path: aside, reason }) })
            }
            opened => Ok(Opened { store: opened?, set_aside: None }),
        }
    }
}

/// Renames a damaged store, and removes the marker file. The returned handle keeps the lock on the damaged file, so a
/// second process that has found the same damage can't set the new store aside.
fn set_aside(path: &Path) -> Result<(Option<PathBuf>, Option<disk::File>), StoreError> {
    let named = |error| failed(path, error);
    let aside = if disk::exists(path) {
        let mut file = disk::File::open(path).map_err(named)?;
        file.lock().map_err(named)?;
        Some((renamed(path).map_err(named)?, file))
    } else {
        None
    };
    if disk::exists(&made(path)) {
        disk::remove(&made(path)).map_err(named)?;
    }
    Ok(aside.unzip())
}

fn renamed(path: &Path) -> io::Result<PathBuf> {
    let seconds = time::unix_now().as_secs();
    for number in 0..ASIDE_TRIES {
        let again = if number == 0 { String::new() } else { format!("-{number}") };
        let aside = beside(path, &format!(".damaged-{seconds}{again}"));
        match disk::rename(path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn made(path: &Path) -> PathBuf {
    beside(path, MADE)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::WouldBlock => StoreError::InUse { path },
        _ => StoreError::File { path, error },
    }
}

/// The result of a database call, with a panic turned into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(StoreError::Panicked(text.unwrap_or_else(|| "the database panicked".to_owned())))
    })
}

/// Reads every page and compares it with its checksum.
fn checked(mut database: redb::Database) -> Result<redb::Database, StoreError> {
    if database.check_integrity()? { Ok(database) } else { Err(StoreError::Damaged("its last commit")) }
}

/// Distinguishes damage from a failing disk: the data on a failing disk may be intact.
fn told(path: &Path, error: StoreError) -> StoreError {
    let reason = match error {
        StoreError::Database(error) => match &*error {
            redb::Error::Io(io)
                if !matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                return StoreError::Database(error);
            }
            redb::Error::PreviousIo => return StoreError::Database(error),
            damage => damage.to_string(),
        },
        StoreError::Panicked(text) => text,
        StoreError::Damaged(what) => format!("the record of {what}"),
        other => return other,
    };
    StoreError::Unsound { path: path.display().to_string(), reason }
}

/// An open store.
pub struct Store {
    // Taken out when the store is dropped.
    database: Option<redb::Database>,
    incarnation: u64,
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

impl Store {
    /// Opens the store in the file at `path`, or creates it there.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::InUse`], [`StoreError::Unsound`] or [`StoreError::Database`]. A file with
    /// other content is refused and stays unchanged.
    pub fn open(path: &Path, rng: &mut Rng) -> Result<Store, StoreError> {
        let was_made = disk::exists(&made(path));
        let unsound = |reason: &str| {
            Err(StoreError::Unsound { path: path.display().to_string(), reason: reason.to_owned() })
        };
        if was_made && !disk::exists(path) {
            return unsound("it is gone");
        }
        let named = |error| failed(path, error);
        let mut file = disk::File::open(path).map_err(named)?;
        file.lock().map_err(named)?;
        match head(&file).map_err(named)? {
            Head::Empty if was_made => return unsound("it is empty, or begins with zeros"),
            // A crash while redb made the database leaves a file without the magic number, which redb would always
            // refuse. Nothing was committed to it, so the database is made again.
            Head::Empty => file.set_len(0).map_err(named)?,
            Head::Other if was_made => return unsound("it doesn't begin as a database does"),
            // Another program's file: redb's own error describes it best.
            Head::Other | Head::Database => {}
        }
        let other = matches!(head(&file).map_err(named)?, Head::Other);
        let store = guarded(|| Store::on(checked(Store::database_on(Backend(file))?)?, rng));
        let store = store.map_err(|error| if other { error } else { told(path, error) })?;
        if !was_made {
            disk::create_new_private(&made(path), MADE_TEXT).map_err(named)?;
        }
        Ok(store)
    }

    /// A store that lives as long as the process.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn in_memory(rng: &mut Rng) -> Result<Store, StoreError> {
        Store::on(Store::database_on(redb::backends::InMemoryBackend::new())?, rng)
    }

    fn database_on(backend: impl redb::StorageBackend) -> Result<redb::Database, StoreError> {
        Ok(redb::Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
    }

    fn on(database: redb::Database, rng: &mut Rng) -> Result<Store, StoreError> {
        let write = database.begin_write()?;
        let incarnation = {
            for table in [STATE, RESULTS, LEASE_TOKENS, LEASE_TASKS, EFFECTS] {
                write.open_table(table)?;
            }
            let mut meta = write.open_table(META)?;
            let stored = meta.get(INCARNATION)?.map(|bytes| number(bytes.value(), "its incarnation"));
            match stored {
                Some(incarnation) => incarnation?,
                None => {
                    let incarnation = rng.next_u64();
                    meta.insert(INCARNATION, &incarnation.to_le_bytes()[..])?;
                    incarnation
                }
            }
        };
        write.commit()?;
        Ok(Store { database: Some(database), incarnation, _aside: None })
    }

    /// 64 random bits drawn when this store was created.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The id under which a node with this store writes.
    pub fn replica_id(&self, key: PublicKey) -> ReplicaId {
        ReplicaId { key, incarnation: self.incarnation }
    }

    /// The stored epoch counter, from which a node continues; 0 at first.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn epoch_counter(&self) -> Result<u64, StoreError> {
        self.meta(EPOCH)?.map_or(Ok(0), |bytes| number(&bytes, EPOCH))
    }

    /// Stores the epoch counter.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_epoch_counter(&self, counter: u64) -> Result<(), StoreError> {
        self.set_meta(EPOCH, &counter.to_le_bytes())
    }

    /// The stored high-water mark of the hybrid clock.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn clock(&self) -> Result<Stamp, StoreError> {
        let Some(bytes) = self.meta(CLOCK)? else { return Ok(Stamp::default()) };
        let (wall, logical) = bytes.split_at_checked(8).ok_or(StoreError::Damaged(CLOCK))?;
        let logical = logical.try_into().map_err(|_| StoreError::Damaged(CLOCK))?;
        Ok(Stamp { wall_ms: number(wall, CLOCK)?, logical: u32::from_le_bytes(logical) })
    }

    /// Stores the high-water mark together with the replicator's records: `None` deletes a record.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] (nothing is written then) or [`StoreError::Database`].
    pub fn put_state(&self, clock: Stamp, records: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        within("a batch", records.len(), MAX_BATCH)?;
        for (key, record) in records {
            check(key, record.as_deref().unwrap_or_default())?;
        }
        self.write(|write| {
            let mut state = write.open_table(STATE)?;
            for (key, record) in records {
                match record {
                    Some(record) => state.insert(key.as_slice(), record.as_slice())?,
                    None => state.remove(key.as_slice())?,
                };
            }
            let mut bytes = clock.wall_ms.to_le_bytes().to_vec();
            bytes.extend_from_slice(&clock.logical.to_le_bytes());
            write.open_table(META)?.insert(CLOCK, bytes.as_slice())?;
            Ok(())
        })
    }

    /// Gives every record of the replicator, by key.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn each_state(&self, each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.each(STATE, each)
    }

    /// Stores the outcome of a task, to be kept until `expires` (since 1970).
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Database`].
    pub fn put_result(&self, task: &[u8; 16], expires: Duration, record: &[u8]) -> Result<(), StoreError> {
        check(task, record)?;
        let mut bytes = millis(expires).to_le_bytes().to_vec();
        bytes.extend_from_slice(record);
        self.write(|write| {
            write.open_table(RESULTS)?.insert(&task[..], bytes.as_slice())?;
            Ok(())
        })
    }

    /// The outcome of a task.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn result(&self, task: &[u8; 16]) -> Result<Option<Vec<u8>>, StoreError> {
        let record = self.get(RESULTS, task)?;
        Ok(record.map(|bytes| bytes.get(8..).unwrap_or_default().to_vec()))
    }

    /// Deletes the results that have expired at `wall`, and returns their number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn expire_results(&self, wall: Duration) -> Result<usize, StoreError> {
        let now = millis(wall);
        self.write(|write| {
            let mut expired = 0;
            write.open_table(RESULTS)?.retain(|_, bytes| {
                let keep = bytes.get(..8).is_some_and(|expires| number(expires, "").is_ok_and(|at| at > now));
                expired += usize::from(!keep);
                keep
            })?;
            Ok(expired)
        })
    }

    /// The lease table's floor, tokens and tasks, as the bytes that it stored.
    pub(crate) fn lease(
        &self,
        token: impl FnMut(&[u8], &[u8]),
        task: impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.each(LEASE_TOKENS, token)?;
        self.each(LEASE_TASKS, task)?;
        self.meta(FLOOR)
    }

    /// The stored bytes of one task.
    pub(crate) fn lease_task(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(LEASE_TASKS, name)
    }

    /// Begins a transaction over the lease table and the effects.
    pub(crate) fn begin_lease(&self) -> Result<LeaseWrite, StoreError> {
        guarded(|| Ok(LeaseWrite { write: self.database().begin_write()? }))
    }

    /// The bytes that [`Effects::put`] stored.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn effect(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(EFFECTS, name)
    }

    fn database(&self) -> &redb::Database {
        self.database.as_ref().expect("present until drop")
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let read = self.database().begin_read()?;
            Ok(read.open_table(META)?.get(name)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    fn set_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(|write| {
            write.open_table(META)?.insert(name, bytes)?;
            Ok(())
        })
    }

    fn each(
        &self,
        table: TableDefinition<'_, &'static [u8], &'static [u8]>,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), StoreError> {
        guarded(|| {
            let read = self.database().begin_read()?;
            for record in read.open_table(table)?.iter()? {
                let (name, bytes) = record?;
                each(name.value(), bytes.value());
            }
            Ok(())
        })
    }

    fn get(
        &self,
        table: TableDefinition<'_, &'static [u8], &'static [u8]>,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let read = self.database().begin_read()?;
            Ok(read.open_table(table)?.get(name)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Runs one transaction and makes it durable.
    fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        guarded(|| {
            let write = self.database().begin_write()?;
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        })
    }
}

/// A transaction of the lease: all of it becomes durable together, or none of it.
pub(crate) struct LeaseWrite {
    write: redb::WriteTransaction,
}

impl LeaseWrite {
    pub(crate) fn set_floor(&self, bytes: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            self.write.open_table(META)?.insert(FLOOR, bytes)?;
            Ok(())
        })
    }

    pub(crate) fn put_token(&self, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        check(key, bytes)?;
        guarded(|| {
            self.write.open_table(LEASE_TOKENS)?.insert(key, bytes)?;
            Ok(())
        })
    }

    pub(crate) fn remove_token(&self, key: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            self.write.open_table(LEASE_TOKENS)?.remove(key)?;
            Ok(())
        })
    }

    pub(crate) fn put_task(&self, name: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        check(name, bytes)?;
        guarded(|| {
            self.write.open_table(LEASE_TASKS)?.insert(name, bytes)?;
            Ok(())
        })
    }

    pub(crate) fn remove_task(&self, name: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            self.write.open_table(LEASE_TASKS)?.remove(name)?;
            Ok(())
        })
    }

    pub(crate) fn effects(&self) -> Effects<'_> {
        Effects { write: &self.write }
    }

    pub(crate) fn commit(self) -> Result<(), StoreError> {
        guarded(|| {
            self.write.commit()?;
            Ok(())
        })
    }
}

/// Effects that become durable in one transaction with the outcome of their task.
pub struct Effects<'a> {
    write: &'a redb::WriteTransaction,
}

impl Effects<'_> {
    /// The bytes stored under `name`, including this transaction's own writes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| Ok(self.write.open_table(EFFECTS)?.get(name)?.map(|bytes| bytes.value().to_vec())))
    }

    /// Stores `bytes` under `name`.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Database`].
    pub fn put(&mut self, name: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        check(name, bytes)?;
        guarded(|| {
            self.write.open_table(EFFECTS)?.insert(name, bytes)?;
            Ok(())
        })
    }

    /// Deletes the bytes stored under `name`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove(&mut self, name: &[u8]) -> Result<(), StoreError> {
        guarded(|| {
            self.write.open_table(EFFECTS)?.remove(name)?;
            Ok(())
        })
    }
}

/// redb's storage on the shim's files.
#[derive(Debug)]
struct Backend(disk::File);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The kind of a file, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// No bytes, or only zeros.
    Empty,
    /// The magic number of redb's databases.
    Database,
    Other,
}

fn head(file: &disk::File) -> io::Result<Head> {
    let mut magic = [0; MAGIC.len()];
    let have = MAGIC.len().min(usize::try_from(file.len()?).unwrap_or(MAGIC.len()));
    file.read_exact_at(&mut magic[..have], 0)?;
    Ok(match magic {
        magic if magic == [0; MAGIC.len()] => Head::Empty,
        magic if magic == *MAGIC => Head::Database,
        _ => Head::Other,
    })
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn check(name: &[u8], record: &[u8]) -> Result<(), StoreError> {
    within("a name", name.len(), MAX_NAME_BYTES)?;
    within("a record", record.len(), MAX_RECORD_BYTES)
}

fn number(bytes: &[u8], what: &'static str) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| StoreError::Damaged(what))
}

fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    fn rng(seed: u8) -> Rng {
        Rng::from_seed([seed; 32])
    }

    fn exercise(store: &Store) {
        let stamp = Stamp { wall_ms: 7, logical: 3 };
        assert_eq!((store.clock().unwrap(), store.epoch_counter().unwrap()), (Stamp::default(), 0));
        store.set_epoch_counter(42).unwrap();
        let record = |n: u8| (vec![n], Some(vec![n; 100]));
        store.put_state(stamp, &[record(1), record(2), record(3)]).unwrap();
        store.put_state(stamp, &[(vec![2], None)]).unwrap();
        store.put_result(&[1; 16], Duration::from_secs(100), b"early").unwrap();
        store.put_result(&[2; 16], Duration::from_secs(200), b"late").unwrap();
        assert_eq!(store.expire_results(Duration::from_secs(100)).unwrap(), 1);
    }

    fn verify(store: &Store) {
        assert_eq!(store.clock().unwrap(), Stamp { wall_ms: 7, logical: 3 });
        assert_eq!(store.epoch_counter().unwrap(), 42);
        let mut keys = Vec::new();
        store.each_state(|key, record| keys.push((key.to_vec(), record.len()))).unwrap();
        assert_eq!(keys, [(vec![1], 100), (vec![3], 100)]);
        assert_eq!(store.result(&[1; 16]).unwrap(), None);
        assert_eq!(store.result(&[2; 16]).unwrap(), Some(b"late".to_vec()));
    }

    #[test]
    fn a_store_in_memory_gives_back_what_it_took() {
        let store = Store::in_memory(&mut rng(1)).unwrap();
        exercise(&store);
        verify(&store);
        let other = Store::in_memory(&mut rng(2)).unwrap();
        assert_ne!(store.incarnation(), other.incarnation());
    }

    #[test]
    fn what_is_over_a_bound_is_refused_whole() {
        let store = Store::in_memory(&mut rng(1)).unwrap();
        let large = vec![0; MAX_RECORD_BYTES + 1];
        let records = [(vec![1], Some(vec![1])), (vec![2], Some(large))];
        assert!(matches!(
            store.put_state(Stamp::default(), &records),
            Err(StoreError::TooLarge { limit: MAX_RECORD_BYTES, .. })
        ));
        let name = vec![0; MAX_NAME_BYTES + 1];
        assert!(store.put_state(Stamp::default(), &[(name, None)]).is_err());
        let many: Vec<_> = (0..=MAX_BATCH as u32).map(|n| (n.to_le_bytes().to_vec(), None)).collect();
        assert!(store.put_state(Stamp::default(), &many).is_err());
        let mut count = 0;
        store.each_state(|_, _| count += 1).unwrap();
        assert_eq!(count, 0);
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn a_store_on_disk_outlives_the_process_and_keeps_its_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path, &mut rng(1)).unwrap();
        let incarnation = store.incarnation();
        exercise(&store);
        drop(store);
        let store = Store::open(&path, &mut rng(2)).unwrap();
        assert_eq!(store.incarnation(), incarnation, "drawn once, at creation");
        verify(&store);
        drop(store);
        disk::remove(&path).unwrap();
        let refused = Store::open(&path, &mut rng(3)).unwrap_err();
        assert!(matches!(refused, StoreError::Unsound { .. }), "{refused}");
        let Opened { store, set_aside } = Opened::at(&path, false, &mut rng(3)).unwrap();
        assert_eq!(set_aside.unwrap().path, None);
        assert_ne!(store.incarnation(), incarnation, "a lost disk is another replica");
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn a_file_that_another_store_has_open_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path, &mut rng(1)).unwrap();
        exercise(&store);
        let refused = Store::open(&path, &mut rng(2)).unwrap_err();
        assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
        verify(&store);
        drop(store);
        verify(&Store::open(&path, &mut rng(2)).unwrap());
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn an_unfinished_creation_is_begun_anew_and_another_file_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        disk::create_new_private(&path, &[0; 70_000]).unwrap();
        exercise(&Store::open(&path, &mut rng(1)).unwrap());
        let other = dir.path().join("letter");
        disk::create_new_private(&other, b"Dear Alice, this is no database.").unwrap();
        assert!(matches!(Store::open(&other, &mut rng(1)), Err(StoreError::Database(_))));
        assert_eq!(disk::read(&other, 100).unwrap(), b"Dear Alice, this is no database.");
    }

    /// A closed store of several blocks, and its records.
    #[cfg(not(feature = "sim"))]
    fn filled(path: &Path) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let store = Store::open(path, &mut rng(1)).unwrap();
        let record = |n: u32| (n.to_be_bytes().to_vec(), Some(vec![n as u8; 700]));
        let records: Vec<_> = (0..200).map(record).collect();
        for some in records.chunks(20) {
            store.put_state(Stamp::default(), some).unwrap();
        }
        records
    }

    #[cfg(not(feature = "sim"))]
    fn whole_file(path: &Path) -> Vec<u8> {
        disk::read(path, 1 << 30).unwrap()
    }

    #[cfg(not(feature = "sim"))]
    fn records(store: &Store) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut records = Vec::new();
        store.each_state(|key, record| records.push((key.to_vec(), Some(record.to_vec())))).unwrap();
        records
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn a_damaged_block_is_found_when_the_store_is_opened_or_holds_nothing() {
        const BLOCK: usize = 4096;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let records_before = filled(&path);
        let whole = whole_file(&path);
        let (mut found, mut harmless) = (0, 0);
        for block in 0..whole.len() / BLOCK {
            for (way, fill) in [0u8, 0xa5].into_iter().enumerate() {
                let mut bytes = whole.clone();
                bytes[block * BLOCK..(block + 1) * BLOCK].fill(fill);
                if bytes == whole {
                    continue;
                }
                disk::atomic_replace(&path, &bytes).unwrap();
                match Store::open(&path, &mut rng(2)) {
                    Err(StoreError::Unsound { .. }) => found += 1,
                    Ok(store) => {
                        assert_eq!(records(&store), records_before, "block {block}, {way}");
                        harmless += 1;
                    }
                    Err(other) => panic!("block {block}, {way}: {other}"),
                }
            }
        }
        assert!(found > 40 && harmless < found, "{found} found, {harmless} harmless");
    }

    #[cfg(not(feature = "sim"))]
    #[test]
    fn a_store_of_which_the_head_or_the_tail_is_gone_is_set_aside_and_a_strict_opening_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        filled(&path);
        let incarnation = Store::open(&path, &mut rng(1)).unwrap().incarnation();
        let whole = whole_file(&path);
        let zero_head = [&[0; 9], &whole[9..]].concat();
        let garbage_head = [&[0x5a; 64], &whole[64..]].concat();
        let ways =
            [Vec::new(), zero_head, garbage_head, vec![0; whole.len()], whole[..whole.len() / 2].to_vec()];
        let mut kept = Vec::new();
        for (way, bytes) in ways.iter().enumerate() {
            disk::atomic_replace(&path, bytes).unwrap();
            disk::remove(&made(&path)).unwrap();
            disk::create_new_private(&made(&path), MADE_TEXT).unwrap();
            let refused = Opened::at(&path, true, &mut rng(2)).unwrap_err();
            assert!(matches!(refused, StoreError::Unsound { .. }), "{way}: {refused}");
            assert_eq!(&whole_file(&path), bytes, "{way}: it is left as it was");
            let Opened { store, set_aside } = Opened::at(&path, false, &mut rng(2)).unwrap();
            let aside = set_aside.unwrap().path.unwrap();
            assert_eq!(&whole_file(&aside), bytes, "{way}: {}", aside.display());
            assert_ne!(store.incarnation(), incarnation, "{way}: it writes under another id");
            assert_eq!(records(&store), [], "{way}");
            kept.push((aside, bytes.clone()));
            drop(store);
            let again = Opened::at(&path, true, &mut rng(3)).unwrap();
            assert_eq!(again.set_aside, None, "{way}: once");
        }
        for (aside, bytes) in kept {
            assert_eq!(whole_file(&aside), bytes, "no damaged store replaced another");
        }
    }
}
