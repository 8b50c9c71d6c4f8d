//! A value whose readers can wait for the next one, as in `tokio::sync::watch`. Readers wake in the order in which they
//! began to wait.

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Errors of this module.
pub mod error {
    use std::fmt;

    /// Nobody reads; the value is given back.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct SendError<T>(pub T);

    impl<T> fmt::Debug for SendError<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("SendError").finish_non_exhaustive()
        }
    }

    impl<T> fmt::Display for SendError<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("channel closed")
        }
    }

    impl<T> std::error::Error for SendError<T> {}

    /// All senders are gone.
    #[derive(Debug, Clone, thiserror::Error)]
    #[error("channel closed")]
    pub struct RecvError(pub(super) ());
}

use error::{RecvError, SendError};

struct Shared<T> {
    value: RwLock<T>,
    /// Locked after `value`, never before it.
    state: Mutex<State>,
    /// There is another value, or no sender.
    changed: Notify,
    /// There is no receiver.
    unread: Notify,
}

#[derive(Clone, Copy)]
struct State {
    version: u64,
    senders: usize,
    receivers: usize,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The present value. While it is held, no other can be sent.
#[derive(Debug)]
pub struct Ref<'a, T> {
    value: RwLockReadGuard<'a, T>,
    has_changed: bool,
}

impl<T> Ref<'_, T> {
    /// Whether the receiver hadn't seen it.
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The writing side.
pub struct Sender<T>(Arc<Shared<T>>);

/// A reading side, which remembers the last version that it saw.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A channel that holds `init`.
pub fn channel<T>(init: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(init);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A channel that holds `init`, so far without a receiver.
    pub fn new(init: T) -> Sender<T> {
        Sender(Arc::new(Shared {
            value: RwLock::new(init),
            state: Mutex::new(State { version: 0, senders: 1, receivers: 0 }),
            changed: Notify::new(),
            unread: Notify::new(),
        }))
    }

    /// Replaces the value and wakes the readers.
    ///
    /// # Errors
    /// If there is no receiver: then the value stays as it is.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.receiver_count() == 0 {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Replaces the value, and wakes the readers if there are any. Returns the former value.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|held| std::mem::swap(held, &mut value));
        value
    }

    /// Changes the value, and wakes the readers.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Wakes the readers if `modify` says that it has changed the value. Returns what it said.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        let is_modified = modify(&mut value);
        if is_modified {
            self.0.state().version += 1;
        }
        drop(value);
        if is_modified {
            self.0.changed.notify_waiters();
        }
        is_modified
    }

    /// The present value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { value: self.0.read(), has_changed: false }
    }

    /// A further receiver, which has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.state();
        state.receivers += 1;
        Receiver { shared: self.0.clone(), seen: state.version }
    }

    /// Whether there is no receiver.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// Waits until there is no receiver. Cancel safe.
    pub async fn closed(&self) {
        loop {
            // Registered before the check, so that a drop between the two isn't lost.
            let mut unread = pin!(self.0.unread.notified());
            unread.as_mut().enable();
            if self.is_closed() {
                return;
            }
            unread.await;
        }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.state().receivers
    }

    /// How many senders there are.
    pub fn sender_count(&self) -> usize {
        self.0.state().senders
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().senders -= 1;
        if self.sender_count() == 0 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Sender::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T> Receiver<T> {
    /// The present value; it doesn't count as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        let value = self.shared.read();
        let has_changed = self.shared.state().version != self.seen;
        Ref { value, has_changed }
    }

    /// The present value, marked as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        let version = self.shared.state().version;
        let has_changed = std::mem::replace(&mut self.seen, version) != version;
        Ref { value, has_changed }
    }

    /// Whether there is a value that it hasn't seen.
    ///
    /// # Errors
    /// If all senders are gone.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        let state = *self.shared.state();
        if state.senders == 0 { Err(RecvError(())) } else { Ok(state.version != self.seen) }
    }

    /// The present value counts as not seen.
    pub fn mark_changed(&mut self) {
        self.seen = self.shared.state().version.wrapping_sub(1);
    }

    /// The present value counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state().version;
    }

    /// Waits for a value that it hasn't seen, and marks it as seen. Cancel safe.
    ///
    /// # Errors
    /// If all senders are gone and it has seen the last value.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        let Receiver { shared, seen } = self;
        loop {
            // Registered before the check, so that a send between the two isn't lost.
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            let state = *shared.state();
            if std::mem::replace(seen, state.version) != state.version {
                return Ok(());
            }
            if state.senders == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    /// Waits for a value that meets the condition, marks it as seen and returns it. Cancel safe.
    ///
    /// # Errors
    /// If all senders are gone and the last value doesn't meet the condition.
    pub async fn wait_for(&mut self, mut condition: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            if condition(&self.borrow_and_update()) {
                return Ok(Ref { value: self.shared.read(), has_changed: true });
            }
            self.changed().await?;
        }
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Receiver<T>) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.state().receivers += 1;
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.receivers -= 1;
        let is_last = state.receivers == 0;
        drop(state);
        if is_last {
            self.shared.unread.notify_waiters();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("value", &*self.borrow()).finish_non_exhaustive()
    }
}
