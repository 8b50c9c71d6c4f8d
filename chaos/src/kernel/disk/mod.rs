//! A host's disk: its files in the page cache, and what a power loss leaves of them.
//!
//! A process reads and writes the page cache, which survives the process and not a loss of power. A power loss keeps
//! all that a sync has made durable, and of the rest whatever POSIX allows: any subset of the 512-byte sectors that
//! were written since the last sync, each in any version that it had since then, and apart from them any length that
//! the file had, and any subset of the new and removed names. A file's sync doesn't make its name durable; a sync of
//! the directory does, as the calls on whole files do.
//!
//! | file | concept |
//! | --- | --- |
//! | `inode` | a file's bytes, cached and durable |
//! | `names` | the names of files, and which are durable |
//! | `trouble` | no room, errors, slowness |
//! | `op` | the operations, for the trace |

mod inode;
mod names;
mod op;
#[cfg(test)]
mod tests;
mod trouble;

pub(crate) use op::Op;
pub(crate) use trouble::Troubles;
pub use trouble::{DiskCall, DiskOutage, DiskPace};

use crate::seed::{Rng, below};
use inode::Inode;
use names::{Names, absolute, not_found};
use rand_core::Rng as _;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The largest file. The limit keeps a runaway writer of a scenario from filling the machine's memory.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The bytes of a page: a write that is cut off has written whole pages.
const PAGE: usize = 4096;

/// One host's files.
pub(crate) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    next_inode: u64,
    /// The most bytes that all files may have together.
    capacity_bytes: u64,
    pub(crate) troubles: Troubles,
    blocked: Duration,
    /// Draws what a power loss leaves.
    rng: Rng,
    /// Draws what the kernel writes back by itself, and what of a failed call is done.
    kernel_rng: Rng,
}

fn stale() -> io::Error {
    io::Error::other("the file belongs to an earlier boot")
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the disk is full")
}

impl Disk {
    pub(crate) fn new(rng: Rng, kernel_rng: Rng) -> Disk {
        Disk {
            inodes: BTreeMap::new(),
            names: Names::new(),
            next_inode: 1,
            capacity_bytes: u64::MAX,
            troubles: Troubles::default(),
            blocked: Duration::ZERO,
            rng,
            kernel_rng,
        }
    }

    /// A hash over all names and what they hold.
    pub(crate) fn content(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        self.names.directories().for_each(|path| field(path.as_os_str().as_encoded_bytes()));
        for (path, number) in self.names.files() {
            field(path.as_os_str().as_encoded_bytes());
            field(self.inodes.get(&number).map_or(&[][..], |inode| &inode.bytes));
        }
        hasher.finalize()
    }

    pub(crate) fn rng(&self) -> &Rng {
        &self.rng
    }

    /// Its stream, and its kernel's.
    pub(crate) fn rngs_mut(&mut self) -> [&mut Rng; 2] {
        [&mut self.rng, &mut self.kernel_rng]
    }

    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
    }

    /// Leaves room for this many further bytes only, until the trouble of this number ends.
    pub(crate) fn fill(&mut self, number: usize, left_bytes: u64) {
        self.troubles.limit(number, self.used_bytes().saturating_add(left_bytes));
    }

    /// Flips one bit at rest: `bit` counts, modulo their number, the bits that are durable. Returns whether there is
    /// one. The page cache keeps what it has until the process has ended.
    pub(crate) fn flip(&mut self, bit: u64) -> bool {
        let bits: u64 = self.inodes.values().map(Inode::durable_bits).sum();
        let Some(mut bit) = bit.checked_rem(bits) else { return false };
        for inode in self.inodes.values_mut() {
            let own = inode.durable_bits();
            if bit < own {
                inode.flip(bit);
                return true;
            }
            bit -= own;
        }
        false
    }

    /// A removed file takes space until no power loss can bring it back and its last handle is closed.
    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.bytes.len() as u64).sum()
    }

    /// How many further bytes fit.
    fn room(&self) -> u64 {
        let limit = self.capacity_bytes.min(self.troubles.quota_bytes().unwrap_or(u64::MAX));
        if limit == u64::MAX { limit } else { limit.saturating_sub(self.used_bytes()) }
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        if more > self.room() { Err(full()) } else { Ok(()) }
    }

    /// The time for which the calls since the last call of this have blocked their thread.
    pub(crate) fn take_blocked(&mut self) -> Duration {
        std::mem::take(&mut self.blocked)
    }

    /// Counts a call and its time, and fails if the device does.
    fn call(&mut self, call: DiskCall) -> io::Result<()> {
        self.blocked += self.troubles.takes(call);
        self.troubles.check_outage(call)?;
        if self.troubles.is_failed(call) { Err(trouble::failed()) } else { Ok(()) }
    }

    /// Makes a file without a name.
    fn make(&mut self, bytes: &[u8]) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        let mut inode = Inode::default();
        inode.write(bytes, 0, &mut self.kernel_rng);
        self.inodes.insert(number, inode);
        number
    }

    fn inode(&self, number: u64) -> io::Result<&Inode> {
        self.inodes.get(&number).ok_or_else(stale)
    }

    fn inode_mut(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(stale)
    }

    /// Opens a file; creates it if it doesn't exist.
    pub(crate) fn open(&mut self, path: &Path) -> io::Result<u64> {
        let path = absolute(path);
        self.names.check_file(&path)?;
        let number = match self.names.get(&path) {
            Some(number) => number,
            None => {
                self.call(DiskCall::Write)?;
                // The name itself needs room.
                self.check_room(1)?;
                let number = self.make(&[]);
                self.names.set(&path, Some(number), &mut self.kernel_rng);
                number
            }
        };
        self.inode_mut(number)?.handles += 1;
        Ok(number)
    }

    /// Locks the file for one handle; `WouldBlock` if another handle has locked it.
    pub(crate) fn lock(&mut self, number: u64) -> io::Result<()> {
        let inode = self.inode_mut(number)?;
        if std::mem::replace(&mut inode.locked, true) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another handle has locked the file"));
        }
        Ok(())
    }

    /// Closes a handle.
    pub(crate) fn close(&mut self, number: u64, had_lock: bool) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.locked &= !had_lock;
            inode.handles = inode.handles.saturating_sub(1);
            self.reap();
        }
    }

    /// Deletes the inodes that have no handle and no name, and can't get one back.
    fn reap(&mut self) {
        let names = &self.names;
        self.inodes.retain(|number, inode| inode.handles > 0 || names.may_refer_to(*number));
    }

    fn sync_parent(&mut self, path: &Path) {
        self.names.sync_parent(path);
        self.reap();
    }

    pub(crate) fn len(&self, number: u64) -> io::Result<u64> {
        Ok(self.inode(number)?.bytes.len() as u64)
    }

    pub(crate) fn read_at(&mut self, number: u64, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(DiskCall::Read)?;
        let bytes = &self.inode(number)?.bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Writes `bytes`. A write for which there is no room fills the disk before it fails, and one that the device
    /// fails has written some of its pages.
    pub(crate) fn write_at(&mut self, number: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= MAX_FILE_BYTES);
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        let reach = self.len(number)?.saturating_add(self.room());
        let (fits, done) = match self.call(DiskCall::Write) {
            Err(error) => (self.cut(bytes), Err(error)),
            Ok(()) if end > reach => (bytes, Err(full())),
            Ok(()) => (bytes, Ok(())),
        };
        let fits = &fits[..fits.len().min(reach.saturating_sub(offset) as usize)];
        let inode = self.inodes.get_mut(&number).ok_or_else(stale)?;
        if !fits.is_empty() || done.is_ok() {
            inode.write(fits, offset as usize, &mut self.kernel_rng);
        }
        done
    }

    /// A write in which the process is killed: some of its first pages are written.
    pub(crate) fn write_cut_off(&mut self, number: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let bytes = self.cut(bytes);
        self.write_at(number, bytes, offset)
    }

    /// The first pages of a write, as many as are drawn.
    fn cut<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let pages = below(self.kernel_rng.next_u64(), bytes.len().div_ceil(PAGE) as u64) as usize;
        &bytes[..pages * PAGE]
    }

    pub(crate) fn set_len(&mut self, number: u64, len: u64) -> io::Result<()> {
        if len > MAX_FILE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.call(DiskCall::Write)?;
        self.check_room(len.saturating_sub(self.len(number)?))?;
        let inode = self.inodes.get_mut(&number).ok_or_else(stale)?;
        inode.set_len(len as usize, &mut self.kernel_rng);
        Ok(())
    }

    /// Makes a file's content durable. If the device fails it, some of the content is not on the disk, and yet clean.
    pub(crate) fn sync(&mut self, number: u64) -> io::Result<()> {
        let done = self.call(DiskCall::Sync);
        let inode = self.inodes.get_mut(&number).ok_or_else(stale)?;
        match &done {
            Ok(()) => inode.sync(),
            Err(_) => inode.fail_sync(&mut self.kernel_rng),
        }
        done
    }

    pub(crate) fn read(&mut self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let path = absolute(path);
        if self.names.is_directory(&path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let number = self.names.get(&path).ok_or_else(|| not_found(&path))?;
        self.call(DiskCall::Read)?;
        let bytes = &self.inode(number)?.bytes;
        if bytes.len() as u64 > limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {limit_bytes} bytes"),
            ));
        }
        Ok(bytes.clone())
    }

    /// Makes a file, durably.
    pub(crate) fn create_new(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = absolute(path);
        self.names.check_free(&path)?;
        self.put(&path, bytes)
    }

    /// Replaces the whole content of a file, durably.
    pub(crate) fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = absolute(path);
        self.names.check_file(&path)?;
        self.put(&path, bytes)
    }

    /// Gives a name to a new file, once it is complete and durable: until then the old bytes take space too.
    fn put(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.call(DiskCall::Write)?;
        self.check_room(bytes.len().max(1) as u64)?;
        self.call(DiskCall::Sync)?;
        let number = self.make(bytes);
        self.inode_mut(number)?.sync();
        self.names.set(path, Some(number), &mut self.kernel_rng);
        self.sync_parent(path);
        Ok(())
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.names.create_dir_all(&absolute(path))
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.names.exists(&absolute(path))
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        self.names.get(&path).ok_or_else(|| not_found(&path))?;
        self.call(DiskCall::Write)?;
        self.names.set(&path, None, &mut self.kernel_rng);
        self.reap();
        Ok(())
    }

    /// Renames a file, durably. The new name must not exist.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (absolute(from), absolute(to));
        self.names.check_free(&to)?;
        let number = self.names.get(&from).ok_or_else(|| not_found(&from))?;
        self.call(DiskCall::Write)?;
        self.call(DiskCall::Sync)?;
        self.names.set(&to, Some(number), &mut self.kernel_rng);
        self.names.set(&from, None, &mut self.kernel_rng);
        self.sync_parent(&to);
        Ok(())
    }

    /// Renames a file, over an existing one too. The names are durable when their directories are synced.
    pub(crate) fn rename_over(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (absolute(from), absolute(to));
        self.names.check_file(&to)?;
        let number = self.names.get(&from).ok_or_else(|| not_found(&from))?;
        self.call(DiskCall::Write)?;
        if from != to {
            self.names.set(&to, Some(number), &mut self.kernel_rng);
            self.names.set(&from, None, &mut self.kernel_rng);
            self.reap();
        }
        Ok(())
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        if !self.names.is_directory(&path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        self.call(DiskCall::Sync)?;
        self.sync_parent(&path.join("name"));
        Ok(())
    }

    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        self.names.is_directory(&absolute(path))
    }

    pub(crate) fn mode(&self, path: &Path) -> io::Result<u32> {
        let path = absolute(path);
        if self.names.is_directory(&path) {
            return Ok(0o700);
        }
        self.names.get(&path).map(|_| 0o600).ok_or_else(|| not_found(&path))
    }

    /// The power is lost: draws the state that the next boot sees. Returns the number of written sectors that were
    /// lost.
    pub(crate) fn power_loss(&mut self) -> u64 {
        let mut lost = 0;
        self.names.power_loss(&mut self.rng);
        let names = &self.names;
        self.inodes.retain(|number, inode| {
            (inode.handles, inode.locked) = (0, false);
            let stays = names.refers_to(*number);
            lost += if stays { inode.power_loss(&mut self.rng) } else { inode.dirty_sectors() };
            stays
        });
        lost
    }

    /// The process has ended: its handles are closed, and all that it wrote stays in the page cache. Clean pages are
    /// dropped from it.
    pub(crate) fn process_ends(&mut self) {
        for inode in self.inodes.values_mut() {
            (inode.handles, inode.locked) = (0, false);
            inode.drop_cache();
        }
        self.reap();
    }
}
