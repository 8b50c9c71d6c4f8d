//! Opening a store: unfinished ones are begun anew, and damaged ones are refused or set aside.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend as _;
use redb::backends::InMemoryBackend;

use super::Store;
use super::backend::{Backend, Head, head};
use super::closed::Origin;
use super::error::{StoreError, guarded};
use super::overlay::Overlay;
use crate::rt::{Rng, disk, time};

/// The suffix of the marker file's name. The file records that a store was made.
pub(super) const MADE: &str = ".made";

/// The marker file's content.
pub(super) const MADE_TEXT: &[u8] =
    b"A store of nurl was made beside this file. If it is gone or damaged, nurl notices.\n";

/// The number of names tried for the stores that are set aside in one second.
const ASIDE_TRIES: u32 = 100;

/// The largest store that is copied: far more than the passes of the largest mesh take.
const MAX_COPY_BYTES: u64 = 256 << 20;

/// How often a copy is made of which a write meanwhile has changed a part.
const COPIES: u32 = 8;

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

/// The path of the marker file.
pub(super) fn made(path: &Path) -> PathBuf {
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
        _ if is_full(&error) => StoreError::NoRoom { path, error },
        _ => StoreError::File { path, error },
    }
}

/// Whether the disk, or the user's part of it, is full.
fn is_full(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => true,
        // The operating system's; ours is of a file that is read.
        io::ErrorKind::FileTooLarge => error.raw_os_error().is_some(),
        _ => false,
    }
}

/// Opens or makes the store at `path`, see [`Store::open`].
pub(super) fn open(path: &Path, rng: &mut Rng) -> Result<Store, StoreError> {
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
    let (other, file) = (matches!(head(&file).map_err(named)?, Head::Other), Arc::new(file));
    let overlay = Overlay::on(file.clone()).map_err(named)?;
    let store = guarded(|| {
        drop(checked(Store::database_on(overlay)?)?);
        let origin = Origin::File { path: path.to_owned(), file: file.clone() };
        Store::on(Store::database_on(Backend(file))?, origin, rng)
    });
    let store = store.map_err(|error| if other { error } else { told(path, error) })?;
    if !was_made {
        disk::create_new_private(&made(path), MADE_TEXT).map_err(named)?;
    }
    Ok(store)
}

/// The content of the store at `path`, see [`Store::copy_of`].
pub(super) fn copied(path: &Path, rng: &mut Rng) -> Result<Store, StoreError> {
    let mut tries = 1;
    loop {
        let bytes = disk::read(path, MAX_COPY_BYTES).map_err(|error| failed(path, error))?;
        match in_memory(&bytes, rng) {
            Err(_) if tries < COPIES => tries += 1,
            copy => return copy.map_err(|error| told(path, error)),
        }
    }
}

/// A store in memory with the bytes of a file.
pub(super) fn in_memory(bytes: &[u8], rng: &mut Rng) -> Result<Store, StoreError> {
    guarded(|| {
        let memory = InMemoryBackend::new();
        memory.set_len(bytes.len() as u64)?;
        memory.write(0, bytes)?;
        Store::on(checked(Store::database_on(memory)?)?, Origin::Memory, rng)
    })
}

/// Reads every page and compares it with its checksum.
pub(super) fn checked(mut database: redb::Database) -> Result<redb::Database, StoreError> {
    if database.check_integrity()? { Ok(database) } else { Err(StoreError::Damaged("its last commit")) }
}

/// Distinguishes damage from a failing disk: the data on a failing disk may be intact.
pub(super) fn told(path: &Path, error: StoreError) -> StoreError {
    let reason = match error {
        StoreError::Database(error) => match *error {
            redb::Error::Io(error)
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                return failed(path, error);
            }
            error @ redb::Error::PreviousIo => return StoreError::Database(Box::new(error)),
            damage => damage.to_string(),
        },
        StoreError::Panicked(text) => text,
        StoreError::Damaged(what) => format!("the record of {what}"),
        other => return other,
    };
    StoreError::Unsound { path: path.display().to_string(), reason }
}
