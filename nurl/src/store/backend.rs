//! redb's files on the shim's disk, and how one looks at its beginning.

use std::io;
use std::sync::Arc;

use crate::rt::disk;

/// The magic number at the start of redb's databases. redb writes it last when it makes a database.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// redb's storage on the shim's files.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<disk::File>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The kind of a file, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// No bytes, or only zeros.
    Empty,
    /// The magic number of redb's databases.
    Database,
    /// Another program's.
    Other,
}

/// Reads the kind of a file.
pub(super) fn head(file: &disk::File) -> io::Result<Head> {
    let mut magic = [0; MAGIC.len()];
    let have = MAGIC.len().min(usize::try_from(file.len()?).unwrap_or(MAGIC.len()));
    file.read_exact_at(&mut magic[..have], 0)?;
    Ok(match magic {
        magic if magic == [0; MAGIC.len()] => Head::Empty,
        magic if magic == *MAGIC => Head::Database,
        _ => Head::Other,
    })
}

/// A test's backend.
#[cfg(all(test, not(feature = "sim")))]
#[derive(Debug)]
pub(super) struct Boxed(pub(super) Box<dyn redb::StorageBackend>);

#[cfg(all(test, not(feature = "sim")))]
impl redb::StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// The bytes of a test's backend, in memory.
#[cfg(all(test, not(feature = "sim")))]
pub(super) fn copied(from: &dyn redb::StorageBackend) -> io::Result<redb::backends::InMemoryBackend> {
    use redb::StorageBackend as _;
    let mut bytes = vec![0; usize::try_from(from.len()?).expect("a test's file")];
    from.read(0, &mut bytes)?;
    let memory = redb::backends::InMemoryBackend::new();
    memory.set_len(bytes.len() as u64)?;
    memory.write(0, &bytes)?;
    Ok(memory)
}
