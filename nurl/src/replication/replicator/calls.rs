//! The callers of writes.
//!
//! A caller is the local application or a remote observer. It is answered when as many nodes as it wants have the write.

use std::time::{Duration, Instant};

use super::config::MAX_READS;
use super::confirm::Confirm;
use super::error::{UpdateError, UpdateFailure};
use super::event::ReplicatorEvent;
use super::message::Op;
use super::operations::OperationId;
use super::served::Served;
use super::shared::Shared;
use crate::key::PublicKey;

/// Limit on the callers that wait; the same as for reads. A caller over the limit gets an error.
pub(super) const MAX_WRITES: usize = MAX_READS;

/// The time that a caller waits for acknowledgements: two tries over a lossy path. After that the owners are taken to be
/// away. The caller is answered, and the delta still waits for them.
const OWNER_WAIT: Duration = Duration::from_secs(5);

/// The receiver of a write's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The driver, under the id that it gave.
    Driver(u64),
    /// An observer.
    Observer(PublicKey, OperationId),
}

impl Caller {
    /// Tells the caller how its write ended.
    pub(super) fn settle(self, sh: &mut Shared, served: &mut Served, outcome: Result<(), UpdateError>) {
        match self {
            Caller::Driver(id) => {
                let outcome = outcome.map_err(UpdateFailure::from);
                sh.events.push(ReplicatorEvent::Updated { id, outcome });
            }
            Caller::Observer(observer, id) => served.settle(sh, observer, id, outcome),
        }
    }
}

/// What a caller wants.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) caller: Caller,
    pub(super) op: Op,
    /// How many nodes have to hold it.
    pub(super) confirm: Confirm,
}

/// A caller that waits for acknowledgements.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) wanted: Wanted,
    /// The id of its write.
    pub(super) write: u64,
    due: Instant,
}

impl Waiter {
    pub(super) fn new(now: Instant, wanted: Wanted, write: u64) -> Waiter {
        Waiter { wanted, write, due: now + OWNER_WAIT }
    }

    /// Whether the owners are taken to be away.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }
}
