//! Removals that wait until the other owners have sent their states.
//!
//! A removal takes away what its writer has seen. An owner whose copy isn't whole may not have seen an element that others
//! confirmed: it may have lost its disk, or have just become an owner. It would acknowledge a removal without an effect. So it
//! asks the other owners first, and so it does when a delta removes what it hasn't seen.

use std::collections::BTreeMap;
use std::time::Instant;

use super::calls::{Caller, Wanted};
use super::config::MAX_OUTBOX_BYTES;
use super::error::UpdateError;
use super::held::Held;
use super::reads::Reads;
use super::shared::Shared;
use crate::key::PublicKey;

/// Limit on the bytes of other nodes' deltas that wait; the same as for messages to be sent. A delta over the limit
/// is dropped, and its writer sends it again.
const MAX_WAITING_BYTES: usize = MAX_OUTBOX_BYTES;

/// The work that continues when the other owners have answered.
#[derive(Debug)]
pub(super) enum Asked {
    /// A write made at this node.
    Write(Wanted),
    /// Another node's delta.
    Delta { key: Vec<u8>, from: PublicKey, id: u64, state: Vec<u8> },
    /// Whether an object that is set aside stands.
    Aside,
    /// A watch of this node, by its id.
    Watch(u64),
}

impl Asked {
    /// Whether another node asked for it.
    pub(super) fn is_anothers(&self) -> bool {
        !matches!(self, Asked::Write(Wanted { caller: Caller::Driver(_), .. }) | Asked::Watch(_))
    }
}

/// The waiting work, by the id of its read.
#[derive(Debug, Default)]
pub(super) struct Asking {
    waiting: BTreeMap<u64, Asked>,
    /// The bytes of the deltas.
    bytes: usize,
    /// The number of works that other nodes asked for.
    of_others: usize,
}

impl Asking {
    /// Asks the other keepers for work, which goes on when they have answered.
    ///
    /// # Errors
    /// [`UpdateError::Full`].
    pub(super) fn begin(
        &mut self,
        (sh, held, reads): (&mut Shared, &Held, &mut Reads),
        now: Instant,
        key: &[u8],
        asked: Asked,
    ) -> Result<(), UpdateError> {
        if !reads.has_room(asked.is_anothers(), self.of_others) {
            return Err(UpdateError::Full("reads"));
        }
        let read = sh.fresh_id();
        self.insert(read, asked);
        reads.ask_keepers(sh, held, now, key, read, true);
        Ok(())
    }

    /// Whether a watch waits for this read.
    pub(super) fn is_watch(&self, read: u64) -> bool {
        matches!(self.waiting.get(&read), Some(Asked::Watch(_)))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number of works that other nodes asked for.
    pub(super) fn of_others(&self) -> usize {
        self.of_others
    }

    /// Adds work under the id of its read.
    pub(super) fn insert(&mut self, read: u64, asked: Asked) {
        if let Asked::Delta { state, .. } = &asked {
            self.bytes += state.len();
        }
        self.of_others += usize::from(asked.is_anothers());
        self.waiting.insert(read, asked);
    }

    /// Removes the work whose read is over.
    pub(super) fn take(&mut self, read: u64) -> Option<Asked> {
        let asked = self.waiting.remove(&read)?;
        self.of_others -= usize::from(asked.is_anothers());
        if let Asked::Delta { state, .. } = &asked {
            self.bytes -= state.len();
        }
        Some(asked)
    }

    /// Whether there is room for another node's delta of this size.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= MAX_WAITING_BYTES
    }

    /// The id of the read that an earlier delta of the same writer and key waits for.
    pub(super) fn of_delta(&self, from: PublicKey, key: &[u8]) -> Option<u64> {
        let mut waiting = self.waiting.iter();
        let same = |asked: &Asked| matches!(asked, Asked::Delta { key: of, from: by, .. } if of == key && *by == from);
        waiting.find(|(_, asked)| same(asked)).map(|(read, _)| *read)
    }
}
