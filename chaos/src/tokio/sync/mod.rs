//! Channels and locks: tokio's own, where the order of their wakes depends only on the calls made.
//!
//! tokio's `watch` spreads its waiters over several lists by a generator of the process, so it is [written anew](watch)
//! here; `Barrier`, which stands on it, is absent.

pub mod watch;

#[doc(no_inline)]
pub use tokio::sync::{
    AcquireError, MappedMutexGuard, Mutex, MutexGuard, Notify, OnceCell, OwnedMutexGuard,
    OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, RwLockMappedWriteGuard,
    RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit, TryAcquireError, TryLockError, broadcast,
    mpsc, oneshot,
};
