//! Channels, locks and a watch cell.
//!
//! Re-exported from tokio where tokio's wake order depends only on the calls made. `tokio::sync::watch`
//! doesn't qualify (it spreads waiters over several lists by a process-global generator), so [`watch`] is
//! implemented here.

#[doc(no_inline)]
pub use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// A cell whose readers can wait for its next value, woken in the order in which they began to wait.
pub mod watch {
    use std::sync::{Arc, Mutex, PoisonError};
    use tokio::sync::Notify;

    struct Shared<T> {
        slot: Mutex<(u64, T, bool)>,
        changed: Notify,
    }

    impl<T> Shared<T> {
        fn slot(&self) -> std::sync::MutexGuard<'_, (u64, T, bool)> {
            self.slot.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// The writing side. Dropping it closes the cell.
    pub struct Sender<T>(Arc<Shared<T>>);

    /// A reading side that remembers the last version it saw.
    pub struct Receiver<T> {
        shared: Arc<Shared<T>>,
        seen: u64,
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Receiver { shared: self.shared.clone(), seen: self.seen }
        }
    }

    /// The sender is gone: no further value will come.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    #[error("the sender is gone")]
    pub struct Closed;

    /// A cell that holds `value`.
    pub fn channel<T: Clone>(value: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared { slot: Mutex::new((0, value, false)), changed: Notify::new() });
        (Sender(shared.clone()), Receiver { shared, seen: 0 })
    }

    impl<T: Clone> Sender<T> {
        /// Replaces the value and wakes every waiting reader.
        pub fn send(&self, value: T) {
            let mut slot = self.0.slot();
            slot.0 += 1;
            slot.1 = value;
            drop(slot);
            self.0.changed.notify_waiters();
        }

        /// A further reader, which has seen the present value.
        pub fn subscribe(&self) -> Receiver<T> {
            let seen = self.0.slot().0;
            Receiver { shared: self.0.clone(), seen }
        }

        /// A copy of the present value.
        pub fn borrow(&self) -> T {
            self.0.slot().1.clone()
        }

        /// Whether anybody can still read it.
        pub fn has_readers(&self) -> bool {
            Arc::strong_count(&self.0) > 1
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.slot().2 = true;
            self.0.changed.notify_waiters();
        }
    }

    impl<T: Clone> Receiver<T> {
        /// A copy of the present value; it does not count as seen.
        pub fn borrow(&self) -> T {
            self.shared.slot().1.clone()
        }

        /// A copy of the present value, marked as seen.
        pub fn borrow_and_update(&mut self) -> T {
            let slot = self.shared.slot();
            self.seen = slot.0;
            slot.1.clone()
        }

        /// Waits for a value newer than the last one seen, and marks it as seen. Cancel safe.
        ///
        /// # Errors
        /// [`Closed`] when the sender is gone and its last value has been seen.
        pub async fn changed(&mut self) -> Result<(), Closed> {
            let shared = self.shared.clone();
            loop {
                // Registered before the check, so that a send between the two is not lost.
                let notified = shared.changed.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                {
                    let slot = shared.slot();
                    if slot.0 != self.seen {
                        self.seen = slot.0;
                        return Ok(());
                    }
                    if slot.2 {
                        return Err(Closed);
                    }
                }
                notified.await;
            }
        }
    }
}
