//! What a watched object shows, from one change to the next.

use std::fmt;

use super::command::Watched;
use super::state::Reading;
use crate::replication::crdt::Value;

/// A watched object of the replicated state, such as by [`Counter::watch`](super::Counter::watch). To drop it ends the watch.
pub struct Watch<T> {
    found: Watched,
    show: fn(Option<Value>) -> T,
    last: Option<Reading<T>>,
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl<T: Clone + PartialEq> Watch<T> {
    pub(super) fn new(found: Watched, show: fn(Option<Value>) -> T) -> Watch<T> {
        Watch { found, show, last: None }
    }

    /// What the object shows now, at the first call; then, after it has changed, what it shows newest. Changes in between
    /// may be skipped, and at most some ten a second are told. It is *partial* while confirmed writes may be missing. None
    /// once the node has shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<Reading<T>> {
        loop {
            self.found.changed().await.ok()?;
            let Some(found) = self.found.borrow_and_update() else { continue };
            let reading = Reading { value: (self.show)(found.value), partial: found.partial };
            if self.last.as_ref() != Some(&reading) {
                self.last = Some(reading.clone());
                return Some(reading);
            }
        }
    }
}
