//! How a file is opened.

use super::file::{File, Rights};
use crate::rt::disk;
use std::io;
use std::path::Path;

/// How a file is opened: nothing is allowed unless it is set.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    rights: Rights,
    truncate: bool,
    create: bool,
    create_new: bool,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $($field:ident).+,)*) => {
        $(
            $(#[$doc])*
            pub fn $name(&mut self, $name: bool) -> &mut OpenOptions {
                self.$($field).+ = $name;
                self
            }
        )*
    };
}

impl OpenOptions {
    /// Options of which none is set.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    setters! {
        /// It may be read.
        read: rights.read,
        /// It may be written.
        write: rights.write,
        /// Each write is at the end.
        append: rights.append,
        /// It is emptied.
        truncate: truncate,
        /// It is made if it doesn't exist.
        create: create,
        /// It is made, and must not exist.
        create_new: create_new,
    }

    /// Opens a file; a directory can be opened for reading, to be synced.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` with `create_new`; `IsADirectory`; `InvalidInput` for options that contradict each
    /// other; `StorageFull` and EIO under a fault.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (path, rights) = (path.as_ref(), self.rights);
        let (writes, makes) = (rights.write || rights.append, self.create || self.create_new);
        let needs_write = makes || self.truncate || !rights.read;
        if needs_write && !writes || self.truncate && rights.append {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the options contradict each other"));
        }
        if disk::is_directory(path)? {
            let is_wrong = writes || makes;
            return if is_wrong {
                Err(io::ErrorKind::IsADirectory.into())
            } else {
                Ok(File::directory(path))
            };
        }
        match disk::exists(path) {
            true if self.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            false if !makes => {
                let message = format!("{} does not exist", path.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            _ => {}
        }
        let file = disk::File::open(path)?;
        if self.truncate && !file.is_empty()? {
            file.set_len(0)?;
        }
        Ok(File::new(file, rights))
    }
}
