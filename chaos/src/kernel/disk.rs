//! A host's disk: synced bytes survive a crash; each unsynced 512-byte sector survives or not by a random draw.
//!
//! A file holds its current bytes and, for each sector written since the last sync, the durable bytes of that
//! sector. A crash draws for each such sector which of the two versions the next boot sees. It also draws whether a
//! changed length, a new name and a removal have reached the disk. A sync makes a file durable together with its
//! name and all removals before it, as on a journalling file system.

use crate::seed::Rng;
use rand_core::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The bytes that a disk writes atomically.
const SECTOR: usize = 512;

/// The largest file. The limit keeps a runaway writer of a scenario from filling the machine's memory.
const MAX_FILE_BYTES: u64 = 1 << 30;

#[derive(Default)]
struct Inode {
    bytes: Vec<u8>,
    /// Durable content of the sectors written since the last sync that lie inside the durable length.
    undo: BTreeMap<usize, Vec<u8>>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    durable_len: usize,
    /// Whether the name is durable.
    durable_name: bool,
    linked: bool,
    handles: u32,
    /// Whether a handle has locked it.
    locked: bool,
}

/// A disk operation, for the trace.
pub(crate) enum Op<'a> {
    Write { inode: u64, offset: u64, bytes: &'a [u8] },
    SetLen { inode: u64, len: u64 },
    Sync { inode: u64 },
    Whole { path: &'a Path, bytes: &'a [u8] },
    Remove { path: &'a Path },
    Rename { from: &'a Path, to: &'a Path },
}

impl Op<'_> {
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self, Op::Sync { .. } | Op::Whole { .. } | Op::Rename { .. })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |tag: u8, a: u64, b: u64| {
            out.push(tag);
            out.extend_from_slice(&a.to_le_bytes());
            out.extend_from_slice(&b.to_le_bytes());
        };
        match self {
            Op::Write { inode, offset, bytes } => {
                head(1, *inode, *offset);
                out.extend_from_slice(bytes);
            }
            Op::SetLen { inode, len } => head(2, *inode, *len),
            Op::Sync { inode } => head(3, *inode, 0),
            Op::Whole { path, bytes } => {
                let path = path.to_string_lossy();
                head(4, path.len() as u64, bytes.len() as u64);
                out.extend_from_slice(path.as_bytes());
                out.extend_from_slice(bytes);
            }
            Op::Remove { path } => {
                let path = path.to_string_lossy();
                head(5, path.len() as u64, 0);
                out.extend_from_slice(path.as_bytes());
            }
            Op::Rename { from, to } => {
                let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
                head(6, from.len() as u64, to.len() as u64);
                out.extend_from_slice(from.as_bytes());
                out.extend_from_slice(to.as_bytes());
            }
        }
    }
}

/// One host's files.
pub(crate) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    /// Removals that are not durable yet.
    removed: Vec<(PathBuf, u64)>,
    next_inode: u64,
    /// The most bytes that all files may have together.
    capacity_bytes: u64,
    rng: Rng,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn stale() -> io::Error {
    io::Error::other("the file belongs to an earlier boot")
}

/// The absolute form of a path; the working directory is the root.
fn absolute(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

impl Inode {
    /// Saves the durable bytes of the sectors of `range`, and marks the sectors as written.
    fn touch(&mut self, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        for sector in range.start / SECTOR..=(range.end - 1) / SECTOR {
            if self.dirty.insert(sector) && sector * SECTOR < self.durable_len {
                let end = ((sector + 1) * SECTOR).min(self.durable_len);
                self.undo.insert(sector, self.bytes[sector * SECTOR..end].to_vec());
            }
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let (old_len, end) = (self.bytes.len(), offset + bytes.len());
        self.touch(offset.min(old_len)..end);
        if end > old_len {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn set_len(&mut self, len: usize) {
        let old_len = self.bytes.len();
        self.touch(old_len.min(len)..old_len.max(len));
        self.bytes.resize(len, 0);
    }

    fn sync(&mut self) {
        self.undo.clear();
        self.dirty.clear();
        self.durable_len = self.bytes.len();
        self.durable_name = true;
    }

    /// Changes the content to the version that the next boot sees. Returns the number of written sectors that were
    /// lost.
    fn crash(&mut self, rng: &mut Rng) -> u64 {
        let mut lost = 0;
        let old_len = self.bytes.len();
        let len =
            if old_len != self.durable_len && rng.next_u32() & 1 == 0 { self.durable_len } else { old_len };
        if len > old_len {
            self.bytes.resize(len, 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let kept = rng.next_u32() & 1 == 1;
            // If a truncation didn't reach the disk, the truncated bytes are still there.
            let cut_away = sector * SECTOR >= old_len;
            if kept && !cut_away {
                continue;
            }
            lost += 1;
            let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.bytes.len()));
            if start >= end {
                continue;
            }
            self.bytes[start..end].fill(0);
            if let Some(old) = self.undo.get(&sector) {
                let n = old.len().min(end - start);
                self.bytes[start..start + n].copy_from_slice(&old[..n]);
            }
        }
        self.bytes.truncate(len);
        self.sync();
        (self.handles, self.locked) = (0, false);
        lost
    }
}

impl Disk {
    pub(crate) fn new(rng: Rng) -> Disk {
        Disk {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            directories: BTreeSet::from([PathBuf::from("/")]),
            removed: Vec::new(),
            next_inode: 1,
            capacity_bytes: u64::MAX,
            rng,
        }
    }

    /// A hash over all names and what they hold.
    pub(crate) fn content(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        self.directories.iter().for_each(|path| field(path.as_os_str().as_encoded_bytes()));
        for (path, number) in &self.names {
            field(path.as_os_str().as_encoded_bytes());
            field(self.inodes.get(number).map_or(&[][..], |inode| &inode.bytes));
        }
        hasher.finalize()
    }

    pub(crate) fn rng(&self) -> &Rng {
        &self.rng
    }

    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
    }

    /// Checks that `more` further bytes fit. A removed file takes space until its removal is durable and its last
    /// handle is closed.
    fn check_room(&self, more: u64) -> io::Result<()> {
        if self.capacity_bytes == u64::MAX || more == 0 {
            return Ok(());
        }
        let used: u64 = self.inodes.values().map(|inode| inode.bytes.len() as u64).sum();
        if used.saturating_add(more) > self.capacity_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full"));
        }
        Ok(())
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.directories.contains(parent) => Ok(()),
            Some(parent) => Err(not_found(parent)),
            None => Err(io::Error::new(io::ErrorKind::IsADirectory, "the root is a directory")),
        }
    }

    fn make(&mut self, path: PathBuf, bytes: Vec<u8>) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, Inode { bytes, linked: true, ..Inode::default() });
        self.names.insert(path, number);
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
        self.check_parent(&path)?;
        if self.directories.contains(&path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let number = match self.names.get(&path) {
            Some(number) => *number,
            None => self.make(path, Vec::new()),
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
            self.reap(number);
        }
    }

    /// Deletes an inode that has no name, no handle and no removal that a crash may still undo.
    fn reap(&mut self, number: u64) {
        let pending = self.removed.iter().any(|(_, removed)| *removed == number);
        if let Some(inode) = self.inodes.get(&number)
            && !inode.linked
            && inode.handles == 0
            && !pending
        {
            self.inodes.remove(&number);
        }
    }

    fn settle_removals(&mut self) {
        for (_, number) in std::mem::take(&mut self.removed) {
            self.reap(number);
        }
    }

    pub(crate) fn len(&self, number: u64) -> io::Result<u64> {
        Ok(self.inode(number)?.bytes.len() as u64)
    }

    pub(crate) fn read_at(&self, number: u64, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = &self.inode(number)?.bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(crate) fn write_at(&mut self, number: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= MAX_FILE_BYTES);
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        self.check_room(end.saturating_sub(self.len(number)?))?;
        self.inode_mut(number)?.write(bytes, offset as usize);
        Ok(())
    }

    pub(crate) fn set_len(&mut self, number: u64, len: u64) -> io::Result<()> {
        if len > MAX_FILE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.check_room(len.saturating_sub(self.len(number)?))?;
        self.inode_mut(number)?.set_len(len as usize);
        Ok(())
    }

    pub(crate) fn sync(&mut self, number: u64) -> io::Result<()> {
        self.inode_mut(number)?.sync();
        self.settle_removals();
        Ok(())
    }

    pub(crate) fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let path = absolute(path);
        if self.directories.contains(&path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let number = self.names.get(&path).ok_or_else(|| not_found(&path))?;
        let bytes = &self.inode(*number)?.bytes;
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
        self.check_parent(&path)?;
        if self.names.contains_key(&path) || self.directories.contains(&path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
        self.check_room(bytes.len() as u64)?;
        let number = self.make(path, bytes.to_vec());
        self.sync(number)
    }

    /// Replaces the whole content of a file, durably.
    pub(crate) fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = absolute(path);
        self.check_parent(&path)?;
        if self.directories.contains(&path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // The old bytes take space until the new ones are complete.
        self.check_room(bytes.len() as u64)?;
        let old = self.names.get(&path).copied();
        let number = self.make(path, bytes.to_vec());
        if let Some(old) = old {
            self.inode_mut(old)?.linked = false;
            self.reap(old);
        }
        self.sync(number)
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        for ancestor in path.ancestors() {
            if self.names.contains_key(ancestor) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        self.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        let path = absolute(path);
        self.names.contains_key(&path) || self.directories.contains(&path)
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        let number = self.names.remove(&path).ok_or_else(|| not_found(&path))?;
        let inode = self.inode_mut(number)?;
        inode.linked = false;
        if inode.durable_name {
            self.removed.push((path, number));
        } else {
            self.reap(number);
        }
        Ok(())
    }

    /// Renames a file, durably. The new name must not exist.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (absolute(from), absolute(to));
        self.check_parent(&to)?;
        if self.names.contains_key(&to) || self.directories.contains(&to) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", to.display())));
        }
        let number = self.names.remove(&from).ok_or_else(|| not_found(&from))?;
        self.names.insert(to, number);
        self.inode_mut(number)?.durable_name = true;
        self.settle_removals();
        Ok(())
    }

    pub(crate) fn mode(&self, path: &Path) -> io::Result<u32> {
        let path = absolute(path);
        if self.directories.contains(&path) {
            return Ok(0o700);
        }
        self.names.get(&path).map(|_| 0o600).ok_or_else(|| not_found(&path))
    }

    /// A crash: draws the state that the next boot sees. Returns the number of written sectors that were lost.
    pub(crate) fn crash(&mut self) -> u64 {
        let mut lost = 0;
        for (path, number) in std::mem::take(&mut self.removed) {
            let undone = self.rng.next_u32() & 1 == 1;
            if undone
                && !self.names.contains_key(&path)
                && let Some(inode) = self.inodes.get_mut(&number)
            {
                inode.linked = true;
                self.names.insert(path, number);
            }
        }
        for (path, number) in self.names.clone() {
            let Some(inode) = self.inodes.get_mut(&number) else { continue };
            if !inode.durable_name && self.rng.next_u32() & 1 == 0 {
                lost += inode.dirty.len() as u64;
                self.names.remove(&path);
                self.inodes.remove(&number);
                continue;
            }
            if !inode.dirty.is_empty() || inode.durable_len != inode.bytes.len() || !inode.durable_name {
                lost += inode.crash(&mut self.rng);
            }
            (inode.handles, inode.locked) = (0, false);
        }
        self.inodes.retain(|_, inode| inode.linked);
        lost
    }

    /// The process has exited: its handles are closed, but its unsynced bytes stay.
    pub(crate) fn release_handles(&mut self) {
        for inode in self.inodes.values_mut() {
            (inode.handles, inode.locked) = (0, false);
        }
        let numbers: Vec<u64> = self.inodes.keys().copied().collect();
        for number in numbers {
            self.reap(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;
    use proptest::prelude::*;

    fn disk(seed: u64) -> Disk {
        Disk::new(stream(seed, "disk/test"))
    }

    #[test]
    fn the_content_of_a_disk_is_its_names_and_their_bytes() {
        let with = |path: &str, bytes: &[u8]| {
            let mut disk = disk(1);
            disk.create_new(Path::new(path), bytes).unwrap();
            disk.content()
        };
        assert_eq!(with("/f", b"one"), with("/f", b"one"));
        assert_ne!(with("/f", b"one"), with("/f", b"two"));
        assert_ne!(with("/f", b"one"), with("/g", b"one"));
    }

    #[test]
    fn synced_bytes_survive_every_crash() {
        for seed in 0..50 {
            let mut disk = disk(seed);
            let file = disk.open(Path::new("/f")).unwrap();
            disk.write_at(file, &[1; 2000], 0).unwrap();
            disk.sync(file).unwrap();
            disk.write_at(file, &[2; 100], 1500).unwrap();
            disk.crash();
            let after = disk.read(Path::new("/f"), 4096).unwrap();
            assert_eq!(after.len(), 2000);
            assert_eq!(after[..1024], [1; 1024]);
        }
    }

    #[test]
    fn unsynced_sectors_survive_by_lot_each_for_itself() {
        let mut seen = BTreeSet::new();
        for seed in 0..60 {
            let mut disk = disk(seed);
            let file = disk.open(Path::new("/f")).unwrap();
            disk.write_at(file, &[1; 1024], 0).unwrap();
            disk.sync(file).unwrap();
            disk.write_at(file, &[2; 1024], 0).unwrap();
            disk.crash();
            let after = disk.read(Path::new("/f"), 4096).unwrap();
            assert!(after[..512].iter().all(|byte| *byte == after[0]));
            seen.insert((after[0], after[512]));
        }
        assert_eq!(seen, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    }

    #[test]
    fn a_new_name_and_a_removal_need_a_sync_too() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..60 {
            let mut disk = disk(seed);
            disk.create_new(Path::new("/old"), b"x").unwrap();
            disk.open(Path::new("/new")).unwrap();
            disk.remove(Path::new("/old")).unwrap();
            assert!(!disk.exists(Path::new("/old")));
            disk.crash();
            outcomes.insert((disk.exists(Path::new("/old")), disk.exists(Path::new("/new"))));
        }
        assert_eq!(outcomes.len(), 4);
    }

    #[test]
    fn a_whole_replacement_is_all_or_nothing() {
        for seed in 0..20 {
            let mut disk = disk(seed);
            disk.create_new(Path::new("/f"), b"one").unwrap();
            disk.replace(Path::new("/f"), b"three").unwrap();
            disk.crash();
            assert_eq!(disk.read(Path::new("/f"), 9).unwrap(), b"three");
        }
    }

    #[test]
    fn a_renamed_file_has_its_new_name_after_a_crash_and_replaces_nothing() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        for seed in 0..20 {
            let mut disk = disk(seed);
            disk.create_new(a, b"one").unwrap();
            disk.rename(a, b).unwrap();
            disk.create_new(a, b"two").unwrap();
            assert_eq!(disk.rename(a, b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            disk.crash();
            assert_eq!((disk.read(a, 9).unwrap(), disk.read(b, 9).unwrap()), (b"two".into(), b"one".into()));
        }
    }

    #[test]
    fn an_unlinked_file_lives_as_long_as_its_handle() {
        let mut disk = disk(1);
        let file = disk.open(Path::new("/f")).unwrap();
        disk.write_at(file, b"abc", 0).unwrap();
        disk.sync(file).unwrap();
        disk.remove(Path::new("/f")).unwrap();
        let mut buffer = [0; 3];
        disk.read_at(file, &mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"abc");
        disk.sync(file).unwrap();
        disk.close(file, false);
        assert!(disk.inodes.is_empty());
    }

    #[test]
    fn a_full_disk_refuses_to_grow_and_keeps_what_it_has() {
        let mut disk = disk(1);
        disk.set_capacity(100);
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let is_full = |done: io::Result<()>| done.unwrap_err().kind() == io::ErrorKind::StorageFull;
        disk.create_new(a, &[1; 60]).unwrap();
        assert!(is_full(disk.create_new(b, &[2; 41])));
        assert!(!disk.exists(b));
        assert!(is_full(disk.replace(a, &[2; 50])), "old and new bytes stand beside each other");
        let file = disk.open(a).unwrap();
        assert!(is_full(disk.write_at(file, &[3; 50], 51)) && is_full(disk.set_len(file, 101)));
        assert_eq!(disk.read(a, 100).unwrap(), [1; 60]);
        disk.write_at(file, &[3; 100], 0).unwrap();
        disk.close(file, false);
        disk.remove(a).unwrap();
        assert!(is_full(disk.create_new(b, &[2; 10])), "the removal is not durable");
    }

    proptest! {
        #[test]
        fn after_a_crash_every_sector_is_old_or_new(
            seed in 0u64..1000,
            writes in proptest::collection::vec((0usize..5000, 1usize..1500, any::<bool>()), 1..12),
        ) {
            let mut disk = disk(seed);
            let file = disk.open(Path::new("/f")).unwrap();
            let mut now = Vec::new();
            let mut durable = None::<Vec<u8>>;
            for (n, (offset, len, sync)) in writes.into_iter().enumerate() {
                if n % 4 == 3 {
                    disk.set_len(file, offset as u64).unwrap();
                    now.resize(offset, 0);
                } else {
                    let bytes = vec![n as u8 + 1; len];
                    disk.write_at(file, &bytes, offset as u64).unwrap();
                    if now.len() < offset + len {
                        now.resize(offset + len, 0);
                    }
                    now[offset..offset + len].copy_from_slice(&bytes);
                }
                if sync {
                    disk.sync(file).unwrap();
                    durable = Some(now.clone());
                }
            }
            prop_assert_eq!(&disk.read(Path::new("/f"), 1 << 20).unwrap(), &now);
            disk.crash();
            let Some(durable) = durable else { return Ok(()) };
            let after = disk.read(Path::new("/f"), 1 << 20).unwrap();
            prop_assert!(after.len() == durable.len() || after.len() == now.len());
            for (at, sector) in after.chunks(SECTOR).enumerate() {
                let of = |version: &[u8]| -> Vec<u8> {
                    let start = (at * SECTOR).min(version.len());
                    let mut bytes = version[start..(start + sector.len()).min(version.len())].to_vec();
                    bytes.resize(sector.len(), 0);
                    bytes
                };
                prop_assert!(sector == of(&durable) || sector == of(&now), "sector {}", at);
            }
        }
    }
}
