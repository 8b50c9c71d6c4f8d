//! Writes, from a caller's request to its answer.
//!
//! A caller is the local application or a remote observer. It is answered when the write is safe. On an owner that is
//! when the write is made. Elsewhere it is when an owner has acknowledged it, or refused it because of the key's
//! type.

use std::time::{Duration, Instant};

use super::asking::Asked;
use super::operations::OperationId;
use super::writes::Pending;
use super::{MAX_KEY_BYTES, Op, Replicator, ReplicatorEvent, UpdateError};
use crate::key::PublicKey;

/// Limit on the callers that wait; the same as for reads. A caller over the limit gets an error.
pub(super) const MAX_WRITES: usize = super::MAX_READS;

/// The time that a caller waits for an owner's acknowledgement: two tries over a lossy path. After that the owners
/// are taken to be away. The caller is answered, and the delta still waits for them.
const OWNER_WAIT: Duration = Duration::from_secs(5);

/// The receiver of a write's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The driver, under the id that it gave.
    Driver(u64),
    /// An observer.
    Observer(PublicKey, OperationId),
}

/// A caller that waits for an acknowledgement.
#[derive(Debug)]
pub(super) struct Waiter {
    caller: Caller,
    due: Instant,
}

impl Replicator {
    /// Writes, and reports the outcome by [`ReplicatorEvent::WriteDone`] with `id`.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then, and no event follows.
    pub fn write(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        op: Op,
        id: u64,
    ) -> Result<(), UpdateError> {
        self.call(now, wall, key, op, Caller::Driver(id))
    }

    pub(super) fn call(
        &mut self,
        now: Instant,
        wall: Duration,
        key: &[u8],
        op: Op,
        caller: Caller,
    ) -> Result<(), UpdateError> {
        if self.config.observer {
            return Err(UpdateError::Observer);
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(UpdateError::KeyTooLong(key.len()));
        }
        if self.waiting_writes + self.asking.len() >= MAX_WRITES {
            return Err(UpdateError::Full("writes under way"));
        }
        if self.must_ask(key, &op) {
            return self.ask(now, key, Asked::Write { caller, op });
        }
        self.update(now, wall, key, &op, None)?;
        self.settle_or_wait(now, key, caller, Ok(()));
        Ok(())
    }

    /// Answers a caller, or lets it wait until an owner acknowledges the write.
    pub(super) fn settle_or_wait(
        &mut self,
        now: Instant,
        key: &[u8],
        caller: Caller,
        outcome: Result<(), UpdateError>,
    ) {
        match self.pending.get_mut(key) {
            Some(pending) if outcome.is_ok() => {
                pending.waiting.push(Waiter { caller, due: now + OWNER_WAIT });
                self.waiting_writes += 1;
            }
            _ => self.settle(caller, outcome),
        }
    }

    fn settle(&mut self, caller: Caller, outcome: Result<(), UpdateError>) {
        match caller {
            Caller::Driver(id) => self.events.push_back(ReplicatorEvent::WriteDone { id, outcome }),
            Caller::Observer(observer, id) => self.settle_operation(observer, id, outcome),
        }
    }

    /// Gives the outcome of a delta to all callers that wait for it.
    pub(super) fn settle_pending(&mut self, pending: Pending, outcome: Result<(), UpdateError>) {
        self.waiting_writes -= pending.waiting.len();
        for waiter in pending.waiting {
            self.settle(waiter.caller, outcome);
        }
    }

    /// Answers the callers whose wait has expired. Their deltas stay pending.
    pub(super) fn expire_writes(&mut self, now: Instant) {
        if self.waiting_writes == 0 {
            return;
        }
        let mut expired = Vec::new();
        for pending in self.pending.values_mut() {
            expired.extend(pending.waiting.extract_if(.., |waiter| waiter.due <= now));
        }
        self.waiting_writes -= expired.len();
        let outcome = if self.config.durable { Ok(()) } else { Err(UpdateError::Unacknowledged) };
        for waiter in expired {
            self.settle(waiter.caller, outcome);
        }
    }
}
