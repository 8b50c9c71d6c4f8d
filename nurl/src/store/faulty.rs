//! A disk for tests that is full, or fails a sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::Store;
use crate::rt::Rng;

/// See the module. A clone is the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faulty {
    memory: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
    /// The syncs up to the one that fails; 0: none fails.
    left: Arc<AtomicU64>,
}

impl Faulty {
    /// A store on it.
    pub(crate) fn store(&self, rng: &mut Rng) -> Store {
        let disk = self.clone();
        Store::on_backend(move || disk.clone(), rng).expect("it works yet")
    }

    /// Whether it takes writes.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Fails one sync: the next one is 1.
    pub(crate) fn fail_sync(&self, number: u64) {
        self.left.store(number, Ordering::Relaxed);
    }

    fn check_room(&self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_room()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if before == Ok(1) { Err(io::Error::other("the device failed")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_room()?;
        self.memory.write(offset, data)
    }
}
