//! Synchronous files with explicit syncs, on a host's simulated disk.
//!
//! A killed process loses nothing that it wrote. A power loss may lose unsynced bytes, wholly or in part. A caller that
//! must not lose bytes calls [`File::sync`], or uses [`create_new_private`] and [`atomic_replace`], which sync. A new
//! file's name and a removal are durable when one of [`create_new_private`], [`atomic_replace`] and [`rename`] has
//! synced their directory. A file of an earlier boot refuses every operation.
//!
//! Under a fault of the disk, calls fail with `StorageFull` or with EIO. After a failed [`File::sync`] a later one may
//! succeed, but the bytes written before the failed one can be read and are lost with the power, as on Linux.

use crate::kernel::disk::{Disk, Op};
use crate::kernel::process::{Place, ProcessEnd, dead};
use crate::world::sim::{self, Sim};
use crate::world::{cpu, process};
use std::io;
use std::path::Path;

/// An open file, read and written at offsets.
#[derive(Debug)]
pub struct File {
    place: Place,
    inode: u64,
    locked: bool,
}

/// Whether a crash or power loss is armed at this operation; the process has then ended. A write is then under way.
fn ends_here(place: Place, op: &Op<'_>) -> bool {
    let due = sim::try_with(|sim| {
        let host = sim.host_mut(place.host);
        if !host.runs(place.boot) {
            return None;
        }
        let due = host.process.disk_operation()?;
        if let Op::Write { inode, offset, bytes } = op {
            // What the disk refuses is not written; nobody is left to be told.
            let _ = match due.how {
                ProcessEnd::PowerLoss => host.disk.write_at(*inode, bytes, *offset),
                ProcessEnd::Crash | ProcessEnd::Exit => host.disk.write_cut_off(*inode, bytes, *offset),
            };
        }
        let what = if due.how == ProcessEnd::PowerLoss { "power loss" } else { "crash" };
        sim.fault(Some(place.host), &format!("{what} at a disk operation"));
        if let Some(number) = due.fault {
            sim.fired.push((number, place.host));
        }
        Some(due.how)
    });
    let Some(Some(how)) = due else { return false };
    process::end(place.host, how);
    true
}

/// Calls `f` with the disk of a place whose process still runs. The disk's time blocks the calling thread.
fn on<R>(place: Place, f: impl FnOnce(&mut Sim, Place) -> io::Result<R>) -> io::Result<R> {
    sim::try_with(|sim| {
        if !sim.host(place.host).runs(place.boot) {
            return Err(dead());
        }
        let result = f(sim, place);
        let blocked = sim.host_mut(place.host).disk.take_blocked();
        cpu::block(sim, blocked);
        result
    })
    .unwrap_or_else(|| Err(dead()))
}

fn here<R>(f: impl FnOnce(&mut Disk) -> io::Result<R>) -> io::Result<R> {
    on(sim::live_place()?, |sim, place| f(&mut sim.host_mut(place.host).disk))
}

fn here_recorded(op: &Op<'_>, f: impl FnOnce(&mut Disk) -> io::Result<()>) -> io::Result<()> {
    recorded(sim::live_place()?, op, f)
}

/// Executes an operation and records it, unless an armed crash or power loss comes first.
fn recorded(place: Place, op: &Op<'_>, f: impl FnOnce(&mut Disk) -> io::Result<()>) -> io::Result<()> {
    if ends_here(place, op) {
        return Err(dead());
    }
    on(place, |sim, place| {
        f(&mut sim.host_mut(place.host).disk)?;
        sim.disk_record(place.host, op);
        Ok(())
    })
}

impl File {
    /// Opens a file for reading and writing; creates it, with mode 0600, if it doesn't exist.
    ///
    /// # Errors
    /// `NotFound` when its directory doesn't exist.
    pub fn open(path: &Path) -> io::Result<File> {
        let place = sim::live_place()?;
        let inode = on(place, |sim, place| sim.host_mut(place.host).disk.open(path))?;
        Ok(File { place, inode, locked: false })
    }

    /// Opens a file that exists, for reading only.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn open_read(path: &Path) -> io::Result<File> {
        if exists(path) { File::open(path) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Locks the file for this handle, until it is closed or the process ends. The lock doesn't affect handles that
    /// don't lock.
    ///
    /// # Errors
    /// `WouldBlock` when another handle has locked it; or the process that opened it is gone.
    pub fn lock(&mut self) -> io::Result<()> {
        on(self.place, |sim, place| sim.host_mut(place.host).disk.lock(self.inode))?;
        self.locked = true;
        Ok(())
    }

    /// The length in bytes.
    ///
    /// # Errors
    /// When the process that opened it is gone.
    pub fn len(&self) -> io::Result<u64> {
        on(self.place, |sim, place| sim.host(place.host).disk.len(self.inode))
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// When the process that opened it is gone.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Truncates the file, or extends it with zeros.
    ///
    /// # Errors
    /// `FileTooLarge`; `StorageFull`; or the process that opened it is gone.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let op = Op::SetLen { inode: self.inode, len };
        recorded(self.place, &op, |disk| disk.set_len(self.inode, len))
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; or the process that opened it is gone.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        on(self.place, |sim, place| sim.host_mut(place.host).disk.read_at(self.inode, buffer, offset))
    }

    /// Writes all of `bytes` at `offset`, extending the file where needed.
    ///
    /// # Errors
    /// `FileTooLarge`; `StorageFull`; or the process that opened it is gone.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let op = Op::Write { inode: self.inode, offset, bytes };
        recorded(self.place, &op, |disk| disk.write_at(self.inode, bytes, offset))
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When the process that opened it is gone.
    pub fn sync(&self) -> io::Result<()> {
        let op = Op::Sync { inode: self.inode };
        recorded(self.place, &op, |disk| disk.sync(self.inode))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // An error means that the process is gone, and its handles with it.
        let _ = on(self.place, |sim, place| {
            sim.host_mut(place.host).disk.close(self.inode, self.locked);
            Ok(())
        });
    }
}

/// Reads a whole file of at most `limit_bytes`.
///
/// # Errors
/// `NotFound`; `FileTooLarge` over the limit.
pub fn read(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    here(|disk| disk.read(path, limit_bytes))
}

/// Reads a secret. A host of the world has one user, so nobody else has access.
///
/// # Errors
/// Those of [`read`].
pub fn read_private(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read(path, limit_bytes)
}

/// Makes a new file of mode 0600 with these bytes, durably. An existing file is never touched.
///
/// # Errors
/// `AlreadyExists` if there is one; `StorageFull`; `NotFound` when its directory doesn't exist.
pub fn create_new_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    here_recorded(&Op::Whole { path, bytes }, |disk| disk.create_new(path, bytes))
}

/// Replaces a file's content (mode 0600) so that a crash leaves the old bytes or the new ones, whole.
///
/// # Errors
/// `NotFound` when its directory doesn't exist, `StorageFull`; the old content is then kept.
pub fn atomic_replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    here_recorded(&Op::Whole { path, bytes }, |disk| disk.replace(path, bytes))
}

/// Makes a directory of mode 0700 and its parents; an existing one is fine.
///
/// # Errors
/// `NotADirectory` when a component of the path is a file.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    here(|disk| disk.create_dir_all(path))
}

/// Whether there is a file or directory at `path`.
pub fn exists(path: &Path) -> bool {
    here(|disk| Ok(disk.exists(path))).unwrap_or(false)
}

/// Removes a file.
///
/// # Errors
/// `NotFound`.
pub fn remove(path: &Path) -> io::Result<()> {
    here_recorded(&Op::Remove { path }, |disk| disk.remove(path))
}

/// Renames a file within its directory, durably.
///
/// # Errors
/// `AlreadyExists` if the new name exists; `NotFound`.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    here_recorded(&Op::Rename { from, to }, |disk| disk.rename(from, to))
}

/// Renames a file, over an existing one too. The names are durable when their directories are synced.
///
/// # Errors
/// `NotFound`; `IsADirectory` when the new name is a directory's.
pub(crate) fn rename_over(from: &Path, to: &Path) -> io::Result<()> {
    here_recorded(&Op::RenameOver { from, to }, |disk| disk.rename_over(from, to))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// `NotADirectory`.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    here_recorded(&Op::SyncDirectory { path }, |disk| disk.sync_directory(path))
}

/// Whether there is a directory at `path`.
///
/// # Errors
/// When the caller isn't on a host whose process runs.
pub(crate) fn is_directory(path: &Path) -> io::Result<bool> {
    here(|disk| Ok(disk.is_directory(path)))
}

/// The permission bits of a file, as in 0o600.
///
/// # Errors
/// `NotFound`.
pub fn mode(path: &Path) -> io::Result<u32> {
    here(|disk| disk.mode(path))
}
