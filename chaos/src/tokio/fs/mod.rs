//! Files on the disk of a host, as in `tokio::fs`, as far as that disk has them.
//!
//! A call takes effect at once; under the fault `disk-slow` it blocks its thread. What was written and not synced may be
//! lost with the power, in part or wholly; so may a new name whose directory hasn't been synced:
//!
//! ```no_run
//! # async fn save() -> std::io::Result<()> {
//! use chaos::tokio::fs::{self, File};
//! use chaos::tokio::io::AsyncWriteExt as _;
//!
//! let mut file = File::create("data/new").await?;
//! file.write_all(b"all of it").await?;
//! file.sync_all().await?;
//! fs::rename("data/new", "data/now").await?;
//! File::open("data").await?.sync_all().await?;
//! # Ok(())
//! # }
//! ```

mod file;
mod options;

use crate::rt::disk;
use std::io;
use std::path::Path;
use tokio::io::AsyncWriteExt as _;

pub use file::{File, Metadata};
pub use options::OpenOptions;

/// The content of a file.
///
/// # Errors
/// `NotFound`; EIO under a fault.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    disk::read(path.as_ref(), u64::MAX)
}

/// The content of a file, as text.
///
/// # Errors
/// `NotFound`; `InvalidData` if it isn't UTF-8; EIO under a fault.
pub async fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read(path).await?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file isn't UTF-8"))
}

/// Writes a file anew. It isn't synced.
///
/// # Errors
/// `NotFound` when its directory doesn't exist; `StorageFull` and EIO under a fault: then some of it may be written.
pub async fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path).await?.write_all(contents.as_ref()).await
}

/// Makes a directory and its parents, durably; an existing one is fine.
///
/// # Errors
/// `NotADirectory` when a component of the path is a file.
pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    disk::create_dir_all(path.as_ref())
}

/// Renames a file, over an existing one too. After a loss of power the old name, the new one or both may be as before,
/// unless their directory was synced.
///
/// # Errors
/// `NotFound`; `IsADirectory` when the new name is a directory's; EIO under a fault.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    disk::rename_over(from.as_ref(), to.as_ref())
}

/// Removes a file. After a loss of power it may be there again, unless its directory was synced.
///
/// # Errors
/// `NotFound`; EIO under a fault.
pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    disk::remove(path.as_ref())
}

/// What is known about the file or directory at `path`.
///
/// # Errors
/// `NotFound`.
pub async fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    File::open(path).await?.metadata().await
}

/// Whether there is a file or directory at `path`.
///
/// # Errors
/// None in the simulation.
pub async fn try_exists(path: impl AsRef<Path>) -> io::Result<bool> {
    Ok(disk::exists(path.as_ref()))
}
