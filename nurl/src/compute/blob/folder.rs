//! A node's folder of large files, on the disk. Every call may block, so none belongs on a plane.
//!
//! A file that is fetched is `NAME.part` until every chunk is in it and synced, and `NAME` then; a result that a program
//! writes is `result-…`, and is worth nothing to a later process. `index` lists them, see [`Shelf`].

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand_core::Rng as _;

use super::fetch::Received;
use super::manifest::{MAX_FILE_LEN, Manifest};
use super::shelf::{NoRoom, Shelf};
use crate::rt::{self, disk, time};

/// The longest index: a line has less than 200 bytes.
const MAX_INDEX_BYTES: u64 = 1 << 20;

/// The file that lists the others.
const INDEX: &str = "index";

/// The names of results begin with it.
const RESULT: &str = "result-";

/// A result takes its room on the disk in steps of this size.
const STEP: u64 = 64 << 20;

/// Why a file has no place, or can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Too little room.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The disk fails.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
    /// A result is longer than any file may be.
    #[error("a file has at most {MAX_FILE_LEN} bytes")]
    TooLong,
    /// Another task fetches the same file just now.
    #[error("the same file is being fetched")]
    Busy,
}

struct State {
    space: u64,
    is_read: bool,
    shelf: Shelf,
    fetching: BTreeSet<String>,
    /// Files that nobody needs any more.
    discarded: Vec<String>,
}

impl State {
    /// Forgets what was discarded and isn't in use.
    fn take_discarded(&mut self) -> Vec<String> {
        let discarded = std::mem::take(&mut self.discarded);
        discarded.into_iter().filter(|name| self.shelf.remove(name)).collect()
    }
}

struct Inner {
    path: PathBuf,
    /// Locked for moments only: planes use it too.
    state: Mutex<State>,
    /// Held while files go and the index is written, in this order.
    disk: Mutex<()>,
}

/// See the module. A clone is the same folder.
#[derive(Clone)]
pub struct Folder(Arc<Inner>);

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({})", self.0.path.display())
    }
}

fn unix_now() -> u64 {
    time::unix_now().as_secs()
}

fn part(name: &str) -> String {
    format!("{name}.part")
}

impl Folder {
    /// A folder for at most `space` bytes. It is made, and read, when it is used first: a disk that fails keeps no node from
    /// beginning.
    pub fn new(path: &Path, space: u64) -> Folder {
        let shelf = Shelf::new(space, "");
        let state = State { space, is_read: false, shelf, fetching: BTreeSet::new(), discarded: Vec::new() };
        Folder(Arc::new(Inner { path: path.to_owned(), state: Mutex::new(state), disk: Mutex::new(()) }))
    }

    /// Whether an earlier process may have left files.
    pub fn has_leftovers(&self) -> bool {
        disk::exists(&self.path(INDEX))
    }

    /// Reads what an earlier process has left, once. Its results go.
    fn read_index(&self) -> io::Result<()> {
        if self.state().is_read {
            return Ok(());
        }
        disk::create_dir_all(&self.0.path)?;
        let index = match disk::read(&self.path(INDEX), MAX_INDEX_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut state = self.state();
        let mut shelf = Shelf::new(state.space, &index);
        let results: Vec<String> =
            shelf.names().filter(|name| name.starts_with(RESULT)).map(str::to_owned).collect();
        for name in &results {
            shelf.remove(name);
        }
        (state.shelf, state.is_read) = (shelf, true);
        drop(state);
        self.remove_files(&results);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    fn save(&self) -> io::Result<()> {
        let index = self.state().shelf.index();
        disk::atomic_replace(&self.path(INDEX), index.as_bytes())
    }

    /// A file that is in the index and not in the folder does no harm, so errors are left.
    fn remove_files(&self, names: &[String]) {
        for name in names {
            let _ = disk::remove(&self.path(name));
            let _ = disk::remove(&self.path(&part(name)));
        }
    }

    /// Takes a name into use, with room for `len` bytes.
    fn pin(&self, name: &str, len: u64) -> Result<(), FolderError> {
        let _alone = self.0.disk.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_index()?;
        let mut state = self.state();
        let mut gone = state.take_discarded();
        let pinned = state.shelf.pin(unix_now(), name, len);
        drop(state);
        gone.extend(pinned.iter().flatten().cloned());
        self.remove_files(&gone);
        let saved = self.save();
        pinned?;
        saved.inspect_err(|_| self.state().shelf.unpin(unix_now(), name))?;
        Ok(())
    }

    /// Removes what was discarded and what is too old. A disk that fails is left alone; the next use tells.
    pub fn tidy(&self) {
        let _alone = self.0.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = !self.state().is_read && !self.has_leftovers();
        if unused || self.read_index().is_err() {
            return;
        }
        let mut state = self.state();
        let mut gone = state.take_discarded();
        gone.extend(state.shelf.expire(unix_now()));
        drop(state);
        if !gone.is_empty() {
            self.remove_files(&gone);
            // The index names too many files until it is written again, which does no harm.
            let _ = self.save();
        }
    }

    /// Opens the file of a manifest, with those of its chunks that are really there.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn begin(&self, manifest: &Manifest) -> Result<Partial, FolderError> {
        let name = manifest.name().to_string();
        if !self.state().fetching.insert(name.clone()) {
            return Err(FolderError::Busy);
        }
        let fetching = Fetching { folder: self.clone(), name: name.clone() };
        self.pin(&name, manifest.file_len())?;
        let held = Held { folder: self.clone(), name: name.clone(), len: manifest.file_len(), result: false };
        let whole = self.path(&name);
        if disk::exists(&whole) {
            let file = disk::File::open_read(&whole)?;
            if present(&file, manifest)?.len() == manifest.count() as usize {
                return Ok(Partial {
                    held,
                    file: None,
                    manifest: manifest.clone(),
                    have: Have::All,
                    _fetching: fetching,
                });
            }
            // A program has changed it, or the disk is at fault.
            disk::remove(&whole)?;
        }
        let file = disk::File::open(&self.path(&part(&name)))?;
        let have = Have::These(present(&file, manifest)?);
        Ok(Partial { held, file: Some(file), manifest: manifest.clone(), have, _fetching: fetching })
    }

    /// Begins the file of a result.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn spool(&self) -> Result<Spool, FolderError> {
        let mut rng = rt::rng("result file");
        let name = format!("{RESULT}{:016x}{:016x}", rng.next_u64(), rng.next_u64());
        self.pin(&name, STEP)?;
        let held = Held { folder: self.clone(), name: name.clone(), len: 0, result: true };
        let file = disk::File::open(&self.path(&name))?;
        Ok(Spool { held, file, room: STEP })
    }
}

/// The chunks that a file has.
fn present(file: &disk::File, manifest: &Manifest) -> io::Result<BTreeSet<u32>> {
    let len = file.len()?;
    let mut present = BTreeSet::new();
    let mut buffer = Vec::new();
    for index in 0..manifest.count() {
        let (offset, chunk_len) = manifest.place(index);
        if offset + chunk_len as u64 > len {
            break;
        }
        buffer.resize(chunk_len, 0);
        file.read_exact_at(&mut buffer, offset)?;
        if manifest.is_chunk(index, &buffer) {
            present.insert(index);
        }
    }
    Ok(present)
}

#[derive(Debug)]
struct Fetching {
    folder: Folder,
    name: String,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.folder.state().fetching.remove(&self.name);
    }
}

#[derive(Debug)]
enum Have {
    All,
    These(BTreeSet<u32>),
}

/// A file that is being fetched.
#[derive(Debug)]
pub struct Partial {
    // Before `_fetching`: who waits for it finds the file unpinned at worst.
    held: Held,
    file: Option<disk::File>,
    manifest: Manifest,
    have: Have,
    _fetching: Fetching,
}

impl Partial {
    /// Whether a chunk was found on the disk.
    pub fn has(&self, index: u32) -> bool {
        match &self.have {
            Have::All => true,
            Have::These(these) => these.contains(&index),
        }
    }

    /// Writes a chunk, if its bytes are the file's.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, index: u32, bytes: &[u8]) -> io::Result<Received> {
        if !self.manifest.is_chunk(index, bytes) {
            return Ok(Received::Wrong);
        }
        if let Some(file) = &self.file {
            file.write_all_at(bytes, self.manifest.place(index).0)?;
        }
        Ok(Received::Written)
    }

    /// The whole file, durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self) -> io::Result<Held> {
        if let Some(file) = &self.file {
            file.sync()?;
            disk::rename(&self.held.folder.path(&part(&self.held.name)), &self.held.path())?;
        }
        Ok(self.held)
    }
}

/// A file in use. It stays until this is dropped; a result goes then.
#[derive(Debug)]
pub struct Held {
    folder: Folder,
    name: String,
    len: u64,
    result: bool,
}

impl Held {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path(&self.name)
    }

    /// Its length in bytes.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Lets the file go once it isn't in use any more: nobody will want the same content again.
    pub fn discard(&mut self) {
        self.result = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.folder.state();
        state.shelf.unpin(unix_now(), &self.name);
        if self.result {
            state.discarded.push(self.name.clone());
        }
    }
}

/// The file of a result that is being written.
#[derive(Debug)]
pub struct Spool {
    held: Held,
    file: disk::File,
    room: u64,
}

impl Spool {
    /// Appends.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FolderError> {
        let len = self.held.len + bytes.len() as u64;
        if len > MAX_FILE_LEN {
            return Err(FolderError::TooLong);
        }
        while len > self.room {
            self.room += STEP;
            self.held.folder.pin(&self.held.name, self.room)?;
            self.held.folder.state().shelf.unpin(unix_now(), &self.held.name);
        }
        self.file.write_all_at(bytes, self.held.len)?;
        self.held.len = len;
        Ok(())
    }

    /// The whole file.
    pub fn finish(self) -> Held {
        self.held
    }
}

/// A file that is given to others: one of the folder's, or any other.
#[derive(Debug)]
pub struct Source {
    file: disk::File,
    /// Keeps it, if it is the folder's.
    _held: Option<Held>,
}

impl Source {
    /// A file that somebody else owns, with what it is made of now.
    ///
    /// # Errors
    /// The disk's; `FileTooLarge`.
    pub fn of(path: &Path) -> io::Result<(Source, Manifest)> {
        Source::read(disk::File::open_read(path)?, None)
    }

    /// A file of the folder.
    ///
    /// # Errors
    /// The disk's.
    pub fn of_held(held: Held) -> io::Result<(Source, Manifest)> {
        Source::read(disk::File::open_read(&held.path())?, Some(held))
    }

    fn read(file: disk::File, held: Option<Held>) -> io::Result<(Source, Manifest)> {
        let manifest = Manifest::of(file.len()?, |buffer, offset| file.read_exact_at(buffer, offset))?;
        Ok((Source { file, _held: held }, manifest))
    }

    /// A chunk, if it still is what the manifest says.
    pub fn chunk(&self, manifest: &Manifest, index: u32) -> Option<Bytes> {
        let (offset, len) = manifest.place(index);
        let mut buffer = vec![0; len];
        self.file.read_exact_at(&mut buffer, offset).ok()?;
        manifest.is_chunk(index, &buffer).then(|| buffer.into())
    }
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::super::manifest::tests::{of_bytes, some_bytes};
    use super::*;

    const CHUNK: usize = 64 << 10;

    fn write(partial: &Partial, bytes: &[u8], index: usize) -> Received {
        let chunk = &bytes[index * CHUNK..bytes.len().min((index + 1) * CHUNK)];
        partial.write(u32::try_from(index).unwrap(), chunk).unwrap()
    }

    #[test]
    fn a_fetch_goes_on_with_what_is_really_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = some_bytes(3 * CHUNK + 5);
        let manifest = of_bytes(&bytes);
        let folder = Folder::new(dir.path(), 1 << 20);
        let partial = folder.begin(&manifest).unwrap();
        assert!((0..4).all(|index| !partial.has(index)));
        assert!(matches!(folder.begin(&manifest), Err(FolderError::Busy)));
        assert_eq!(partial.write(1, &bytes[..CHUNK]).unwrap(), Received::Wrong);
        for index in [0, 2, 3] {
            assert_eq!(write(&partial, &bytes, index), Received::Written);
        }
        drop((partial, folder));
        // A crash has lost a page.
        let path = dir.path().join(format!("{}.part", manifest.name()));
        disk::File::open(&path).unwrap().write_all_at(&[0; 9], 2 * CHUNK as u64).unwrap();
        let folder = Folder::new(dir.path(), 1 << 20);
        let partial = folder.begin(&manifest).unwrap();
        assert_eq!([0, 1, 2, 3].map(|index| partial.has(index)), [true, false, false, true]);
        write(&partial, &bytes, 1);
        write(&partial, &bytes, 2);
        let held = partial.finish().unwrap();
        assert_eq!(disk::read(&held.path(), 1 << 20).unwrap(), bytes);
        // Another task with the same payload has it at once; what was changed since isn't believed.
        let again = folder.begin(&manifest).unwrap();
        assert!((0..4).all(|index| again.has(index)));
        let path = again.finish().unwrap().path();
        disk::File::open(&path).unwrap().write_all_at(b"changed", 0).unwrap();
        assert!(!folder.begin(&manifest).unwrap().has(0));
    }

    #[test]
    fn a_result_goes_when_it_is_not_needed_any_more_or_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), 1 << 30);
        let spooled = |bytes: &[u8]| {
            let mut spool = folder.spool().unwrap();
            bytes.chunks(70_000).for_each(|part| spool.write(part).unwrap());
            spool.finish()
        };
        let bytes = some_bytes(200_000);
        let held = spooled(&bytes);
        let (path, len) = (held.path(), held.file_len());
        let (source, manifest) = Source::of_held(held).unwrap();
        assert_eq!((len, manifest.file_len()), (200_000, 200_000));
        assert_eq!(source.chunk(&manifest, 3).unwrap(), bytes[3 * CHUNK..]);
        folder.tidy();
        assert!(disk::exists(&path));
        drop(source);
        folder.tidy();
        assert!(!disk::exists(&path));
        let held = spooled(b"x");
        let path = held.path();
        std::mem::forget(held);
        let later = Folder::new(dir.path(), 1 << 30);
        assert!(later.has_leftovers());
        later.tidy();
        assert!(!disk::exists(&path), "a later process has no use for it");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_a_file_that_changed_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(&dir.path().join("new"), 100_000);
        let bytes = some_bytes(100_001);
        assert!(matches!(folder.begin(&of_bytes(&bytes)), Err(FolderError::NoRoom(_))));
        assert!(matches!(folder.spool(), Err(FolderError::NoRoom(_))));
        let path = dir.path().join("file");
        disk::create_new_private(&path, &bytes).unwrap();
        let (source, manifest) = Source::of(&path).unwrap();
        assert_eq!(source.chunk(&manifest, 1).unwrap(), bytes[CHUNK..]);
        disk::File::open(&path).unwrap().write_all_at(b"other", 3).unwrap();
        assert!(source.chunk(&manifest, 0).is_none() && source.chunk(&manifest, 1).is_some());
        disk::File::open(&path).unwrap().set_len(10).unwrap();
        assert!(source.chunk(&manifest, 1).is_none());
    }
}
