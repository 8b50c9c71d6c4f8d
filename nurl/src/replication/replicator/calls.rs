//! Writes, from a caller's request to its answer.
//!
//! A caller is the application here, or an observer far away. It is answered when the write is safe: on an owner when
//! it is made, elsewhere when an owner has acknowledged it, or refused it because the key holds another type.

use std::time::{Duration, Instant};

use super::asking::Asked;
use super::operations::OperationId;
use super::writes::Pending;
use super::{Event, MAX_KEY_BYTES, Op, Replicator, UpdateError};
use crate::key::PublicKey;

/// Callers that wait, as many as reads. A caller over it is told so.
pub(super) const MAX_WRITES: usize = super::MAX_READS;

/// How long a caller waits for an owner's acknowledgement: two tries over a way that loses something. Longer than that
/// the owners are away, and the delta waits for them alone.
const OWNER_WAIT: Duration = Duration::from_secs(5);

/// Where a write's outcome goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// To the driver, under the id that it gave.
    Driver(u64),
    /// To an observer.
    Observer(PublicKey, OperationId),
}

/// A caller that waits for an acknowledgement.
#[derive(Debug)]
pub(super) struct Waiter {
    caller: Caller,
    due: Instant,
}

impl Replicator {
    /// Writes, and says by [`Event::WriteDone`] with `id` what became of it.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was written then, and there is no event.
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

    /// Answers a caller, or lets it wait for an owner's acknowledgement of what was written.
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
            Caller::Driver(id) => self.events.push_back(Event::WriteDone { id, outcome }),
            Caller::Observer(observer, id) => self.settle_operation(observer, id, outcome),
        }
    }

    /// A delta waits no longer: its callers hear why.
    pub(super) fn settle_pending(&mut self, pending: Pending, outcome: Result<(), UpdateError>) {
        self.waiting_writes -= pending.waiting.len();
        for waiter in pending.waiting {
            self.settle(waiter.caller, outcome);
        }
    }

    /// Answers those who have waited long enough. Their deltas go on waiting.
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
