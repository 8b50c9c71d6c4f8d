//! A folder for large files that ends with its command.

use std::path::{Path, PathBuf};

use nurl::rt::{self, disk};
use rand_core::Rng;

use crate::out::{Failure, unusable};

/// See the module.
#[derive(Debug)]
pub(crate) struct Passing(PathBuf);

impl Passing {
    /// A new folder in the system's folder for such.
    pub(crate) fn new() -> Result<Passing, Failure> {
        Passing::within(&std::env::temp_dir())
    }

    /// A new folder in another one, from which files can be moved there.
    pub(crate) fn within(folder: &Path) -> Result<Passing, Failure> {
        // Nobody can have made a folder of this name before.
        let path = folder.join(format!(".nurl-large-{:016x}", rt::rng("folder of large files").next_u64()));
        disk::create_dir_all(&path).map_err(|error| unusable(folder, &error, "choose another folder"))?;
        Ok(Passing(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Passing {
    #[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
    fn drop(&mut self) {
        // An error leaves files that nobody will read.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
