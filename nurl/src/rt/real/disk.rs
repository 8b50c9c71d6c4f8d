//! Synchronous files with explicit syncs.
//!
//! A crash may lose unsynced data, whole or in part; in the simulated world it does. For durable data a caller uses
//! [`File::sync`], or [`create_new_private`] and [`atomic_replace`], which sync.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// An open file, read and written at offsets.
#[derive(Debug)]
pub struct File(fs::File);

impl File {
    /// Opens a file for reading and writing; creates it with mode 0600 if it doesn't exist.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map(File)
    }

    /// Locks the file for this handle until the handle is closed or the process ends. The lock is advisory: it
    /// doesn't stop handles that don't lock.
    ///
    /// # Errors
    /// `WouldBlock` when another handle holds the lock; otherwise the operating system's errors.
    pub fn lock(&mut self) -> io::Result<()> {
        self.0.try_lock().map_err(io::Error::from)
    }

    /// The length in bytes.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|meta| meta.len())
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Truncates the file, or extends it with zeros.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; otherwise the operating system's errors.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    /// Writes all of `bytes` at `offset`, extending the file where needed.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Reads a whole file of at most `limit_bytes`.
///
/// # Errors
/// `FileTooLarge` over the limit; otherwise the operating system's errors.
pub fn read(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// Creates a file of mode 0600 with these bytes, durably. An existing file is left unchanged.
///
/// # Errors
/// `AlreadyExists` if the file exists; otherwise the operating system's errors.
pub fn create_new_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_parent(path)
}

/// Replaces a file's content (mode 0600) so that a crash leaves the old bytes or the new ones, whole.
///
/// # Errors
/// The operating system's errors. The old content is then unchanged.
pub fn atomic_replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let staged = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    sync_parent(path)
}

/// Creates a directory of mode 0700 and its parents; an existing one is fine.
///
/// # Errors
/// The operating system's errors.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether `path` exists.
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Removes a file.
///
/// # Errors
/// The operating system's errors.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Renames a file within its directory, durably.
///
/// # Errors
/// `AlreadyExists` if the name is taken; otherwise the operating system's errors.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    // Unlike rename(2), a hard link never replaces an existing file.
    fs::hard_link(from, to)?;
    fs::remove_file(from)?;
    sync_parent(to)
}

/// The permission bits of a file, as in 0o600.
///
/// # Errors
/// The operating system's errors.
pub fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(parent)?.sync_all()
}
