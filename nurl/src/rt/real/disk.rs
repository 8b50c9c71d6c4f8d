//! Synchronous files with explicit syncs.
//!
//! A crash may lose unsynced data, whole or in part; in the simulated world it does. For durable data a caller uses
//! [`File::sync`], or [`create_new_private`] and [`atomic_replace`], which sync.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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

    /// Opens a file that exists, for reading only.
    ///
    /// # Errors
    /// The operating system's errors.
    pub fn open_read(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).open(path).map(File)
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
    read_open(fs::File::open(path)?, limit_bytes)
}

/// Reads a secret as [`read`] does, unless others can read or change the file. What isn't a regular file, such as a pipe, is
/// read as it is: it has no content that others could have seen.
///
/// # Errors
/// `PermissionDenied` with [`NotPrivate`] if others have access to the file; otherwise those of [`read`].
pub fn read_private(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() {
        NotPrivate::check(&meta, 0o077, "600")?;
    }
    read_open(file, limit_bytes)
}

/// Checks that nobody else can put files into a directory that holds secrets.
///
/// # Errors
/// `PermissionDenied` with [`NotPrivate`] if others can; otherwise the operating system's errors.
pub fn check_private_dir(path: &Path) -> io::Result<()> {
    NotPrivate::check(&fs::metadata(path)?, 0o022, "go-w")
}

/// Others have access to what only its owner should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPrivate {
    /// By its mode.
    #[error("others have access to it (mode {mode:04o}): run `chmod {remedy}` on it")]
    Mode {
        /// The permission bits.
        mode: u32,
        /// The change that mends it.
        remedy: &'static str,
    },
    /// By its owner.
    #[error(
        "it belongs to user {owner}, not to user {user}, who runs this, nor to root: run `chown {user}` on it"
    )]
    Owner {
        /// The owner's number.
        owner: u32,
        /// Our effective user.
        user: u32,
    },
}

impl NotPrivate {
    fn check(meta: &fs::Metadata, others: u32, remedy: &'static str) -> io::Result<()> {
        let (owner, user) = (meta.uid(), rustix::process::geteuid().as_raw());
        let mode = meta.mode() & 0o7777;
        let found = if owner != user && owner != 0 {
            NotPrivate::Owner { owner, user }
        } else if mode & others != 0 {
            NotPrivate::Mode { mode, remedy }
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, found))
    }

    /// Whether an error is one of these: then its text names the remedy.
    pub fn is_cause(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<NotPrivate>())
    }
}

fn read_open(file: fs::File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// Creates a file of mode 0600 with these bytes, durably. An existing file is left unchanged, and a link isn't followed.
///
/// # Errors
/// `AlreadyExists` if the file exists; otherwise the operating system's errors.
pub fn create_new_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes)?;
    sync_parent(path)
}

/// Replaces a file's content (mode 0600) so that a crash leaves the old bytes or the new ones, whole. A link is replaced and
/// not followed.
///
/// # Errors
/// The operating system's errors. The old content is then unchanged.
pub fn atomic_replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let staged = PathBuf::from(name);
    // What a crash has left there, or somebody has planted: a link to a file of theirs, or of ours.
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&staged, bytes)?;
    fs::rename(&staged, path)?;
    sync_parent(path)
}

/// Writes a file of mode 0600, whatever the umask, that didn't exist. `O_EXCL` doesn't follow a link, dangling or not.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // A umask takes bits away, also the owner's.
    let permitted = file.set_permissions(fs::Permissions::from_mode(0o600));
    let written = permitted.and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a file, of a full disk, would stand in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    written
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_that_others_can_read_or_change_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_new_private(&path, b"secret").unwrap();
        for (mode, refused) in
            [(0o600, false), (0o400, false), (0o700, false), (0o640, true), (0o644, true), (0o602, true)]
        {
            chmod(&path, mode);
            let done = read_private(&path, 10);
            assert_eq!(done.is_err(), refused, "{mode:o}");
            if let Err(error) = done {
                assert!(NotPrivate::is_cause(&error) && error.kind() == io::ErrorKind::PermissionDenied);
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
            assert_eq!(read(&path, 10).unwrap(), b"secret", "what isn't a secret is read");
        }
        // A link is judged by what it leads to.
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        chmod(&path, 0o644);
        assert!(NotPrivate::is_cause(&read_private(&link, 10).unwrap_err()));
        assert!(!NotPrivate::is_cause(&read_private(&dir.path().join("none"), 10).unwrap_err()));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_dir_all(&path).unwrap();
        assert_eq!(mode(&path).unwrap(), 0o700);
        for (mode, refused) in [(0o700, false), (0o755, false), (0o775, true), (0o1777, true), (0o702, true)]
        {
            chmod(&path, mode);
            assert_eq!(check_private_dir(&path).is_err(), refused, "{mode:o}");
        }
    }

    #[test]
    fn a_planted_link_is_neither_followed_nor_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let [theirs, mesh, staged, key] =
            ["theirs", "mesh", "mesh.new", "key"].map(|name| dir.path().join(name));
        fs::write(&theirs, b"theirs").unwrap();
        for target in [&theirs, &dir.path().join("nowhere")] {
            symlink(target, &staged).unwrap();
            symlink(target, &key).unwrap();
            atomic_replace(&mesh, b"secret").unwrap();
            assert_eq!((read_private(&mesh, 10).unwrap(), mode(&mesh).unwrap()), (b"secret".to_vec(), 0o600));
            assert!(fs::symlink_metadata(&mesh).unwrap().is_file() && !exists(&staged));
            assert_eq!(create_new_private(&key, b"key").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
            assert!(!dir.path().join("nowhere").exists());
            remove(&key).unwrap();
        }
    }
}
