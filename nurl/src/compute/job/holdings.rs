//! Who has how much of the table of outcomes, and the oldest of each.

use std::collections::{BTreeMap, BTreeSet};

use super::task::TaskId;
use crate::key::PublicKey;
use crate::kit::shares::Shares;

/// A record's place in the share of its holder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holding {
    holder: PublicKey,
    arrival: u64,
}

impl Default for Holding {
    fn default() -> Holding {
        Holding { holder: PublicKey::from_bytes([0; 32]), arrival: 0 }
    }
}

/// The shares of all holders.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    by_age: BTreeMap<PublicKey, BTreeSet<(u64, TaskId)>>,
    records: Shares<PublicKey>,
    bytes: Shares<PublicKey>,
    arrivals: u64,
}

impl Holdings {
    /// The bytes of all records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.total() as usize
    }

    pub(super) fn insert(&mut self, holder: PublicKey, task: TaskId, bytes: usize) -> Holding {
        self.arrivals += 1;
        self.by_age.entry(holder).or_default().insert((self.arrivals, task));
        self.records.add(holder, 1);
        self.bytes.add(holder, bytes as u64);
        Holding { holder, arrival: self.arrivals }
    }

    pub(super) fn remove(&mut self, holding: &Holding, task: TaskId, bytes: usize) {
        self.records.sub(holding.holder, 1);
        self.bytes.sub(holding.holder, bytes as u64);
        if let Some(by_age) = self.by_age.get_mut(&holding.holder) {
            by_age.remove(&(holding.arrival, task));
            if by_age.is_empty() {
                self.by_age.remove(&holding.holder);
            }
        }
    }

    /// Notes that a record has other bytes than before.
    pub(super) fn resize(&mut self, holding: &Holding, before: usize, after: usize) {
        self.bytes.sub(holding.holder, before as u64);
        self.bytes.add(holding.holder, after as u64);
    }

    /// The record that gives way to one more of `newcomer`: the oldest of the holder with most.
    pub(super) fn oldest_for(&self, newcomer: &PublicKey, records: usize) -> Option<TaskId> {
        let payer = self.records.payer(newcomer, records as u64)?;
        self.by_age.get(&payer)?.first().map(|(_, task)| *task)
    }

    /// The record with bytes that gives way to so many of `newcomer`.
    pub(super) fn oldest_with_bytes_for(
        &self,
        newcomer: &PublicKey,
        bytes: usize,
        has_bytes: impl Fn(&TaskId) -> bool,
    ) -> Option<TaskId> {
        let payer = self.bytes.payer(newcomer, bytes as u64)?;
        self.by_age.get(&payer)?.iter().map(|(_, task)| *task).find(has_bytes)
    }
}
