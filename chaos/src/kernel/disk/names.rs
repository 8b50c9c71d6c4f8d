//! The names of files, and which of them are durable.
//!
//! A sync of a file makes its content durable and not its name: for that, its directory is synced (fsync(2)). Until
//! then each changed name for itself may be on the disk or not, whichever order the changes had.

use crate::seed::Rng;
use rand_core::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The absolute form of a path; the working directory is the root.
pub(super) fn absolute(path: &Path) -> PathBuf {
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

pub(super) fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn exists(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path.display()))
}

/// The tree of names. Paths are absolute; directories are durable at once.
pub(super) struct Names {
    entries: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    /// For each name that has changed since its directory was synced: the inode that it has on the disk, if any.
    on_disk: BTreeMap<PathBuf, Option<u64>>,
}

impl Names {
    pub(super) fn new() -> Names {
        Names {
            entries: BTreeMap::new(),
            directories: BTreeSet::from([PathBuf::from("/")]),
            on_disk: BTreeMap::new(),
        }
    }

    /// The inode of a file.
    pub(super) fn get(&self, path: &Path) -> Option<u64> {
        self.entries.get(path).copied()
    }

    /// All files with their inodes, in the order of their names.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.entries.iter().map(|(path, inode)| (path.as_path(), *inode))
    }

    /// All directories, in the order of their names.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(PathBuf::as_path)
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.entries.contains_key(path) || self.is_directory(path)
    }

    /// Checks that a file can have this name.
    pub(super) fn check_file(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !self.is_directory(parent) => Err(not_found(parent)),
            Some(_) if !self.is_directory(path) => Ok(()),
            _ => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{} is a directory", path.display())))
            }
        }
    }

    /// Checks that a new file can have this name.
    pub(super) fn check_free(&self, path: &Path) -> io::Result<()> {
        if self.exists(path) {
            return Err(exists(path));
        }
        self.check_file(path)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        if path.ancestors().any(|ancestor| self.entries.contains_key(ancestor)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        self.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    /// Gives a name to an inode, or takes it away. Returns the inode that had it.
    pub(super) fn set(&mut self, path: &Path, to: Option<u64>, rng: &mut Rng) -> Option<u64> {
        let was = match to {
            Some(number) => self.entries.insert(path.to_owned(), number),
            None => self.entries.remove(path),
        };
        match self.on_disk.get_mut(path) {
            None => {
                self.on_disk.insert(path.to_owned(), was);
            }
            // The directory may have been written back between the two changes.
            Some(on_disk) if rng.next_u32() & 1 == 1 => *on_disk = was,
            Some(_) => {}
        }
        was
    }

    /// Makes the names of the directory of `path` durable.
    pub(super) fn sync_parent(&mut self, path: &Path) {
        self.on_disk.retain(|changed, _| changed.parent() != path.parent());
    }

    /// Whether an inode has a name, or may have one after a power loss.
    pub(super) fn may_refer_to(&self, number: u64) -> bool {
        self.refers_to(number) || self.on_disk.values().any(|on_disk| *on_disk == Some(number))
    }

    /// Whether an inode has a name.
    pub(super) fn refers_to(&self, number: u64) -> bool {
        self.entries.values().any(|other| *other == number)
    }

    /// Draws for each changed name which of its two states the next boot sees.
    pub(super) fn power_loss(&mut self, rng: &mut Rng) {
        for (path, on_disk) in std::mem::take(&mut self.on_disk) {
            if rng.next_u32() & 1 == 0 {
                continue;
            }
            match on_disk {
                Some(number) => self.entries.insert(path, number),
                None => self.entries.remove(&path),
            };
        }
    }
}
