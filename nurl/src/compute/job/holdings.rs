//! Who has how much of the table of outcomes, and the oldest of each. A pass counts as a whole: a command's key is gone
//! long before the outcome of its task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::task::TaskId;
use crate::authority::account::Account;
use crate::kit::shares::Shares;

/// A record's place in the share of its holder.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    holder: Arc<Account>,
    arrival: u64,
}

/// The records of one holder, by age. All of them name it, and it is long.
#[derive(Debug)]
struct Held {
    holder: Arc<Account>,
    by_age: BTreeSet<(u64, TaskId)>,
}

/// The shares of all holders.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: BTreeMap<Account, Held>,
    records: Shares<Account>,
    bytes: Shares<Account>,
    arrivals: u64,
}

impl Holdings {
    /// The bytes of all records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.total() as usize
    }

    pub(super) fn insert(&mut self, holder: Account, task: TaskId, bytes: usize) -> Holding {
        self.arrivals += 1;
        let holder = holder.of_pass();
        let new = || Held { holder: Arc::new(holder), by_age: BTreeSet::new() };
        let held = self.held.entry(holder).or_insert_with(new);
        held.by_age.insert((self.arrivals, task));
        self.records.add(holder, 1);
        self.bytes.add(holder, bytes as u64);
        Holding { holder: held.holder.clone(), arrival: self.arrivals }
    }

    pub(super) fn remove(&mut self, holding: &Holding, task: TaskId, bytes: usize) {
        self.records.sub(*holding.holder, 1);
        self.bytes.sub(*holding.holder, bytes as u64);
        if let Some(held) = self.held.get_mut(&holding.holder) {
            held.by_age.remove(&(holding.arrival, task));
            if held.by_age.is_empty() {
                self.held.remove(&holding.holder);
            }
        }
    }

    /// Notes that a record has other bytes than before.
    pub(super) fn resize(&mut self, holding: &Holding, before: usize, after: usize) {
        self.bytes.sub(*holding.holder, before as u64);
        self.bytes.add(*holding.holder, after as u64);
    }

    /// The record that gives way to one more of `newcomer`: the oldest of the holder that pays.
    pub(super) fn oldest_for(&self, newcomer: &Account, records: usize) -> Option<TaskId> {
        let payer = self.records.payer(&newcomer.of_pass(), records as u64)?;
        self.held.get(&payer)?.by_age.first().map(|(_, task)| *task)
    }

    /// The record with bytes that gives way to so many of `newcomer`.
    pub(super) fn oldest_with_bytes_for(
        &self,
        newcomer: &Account,
        bytes: usize,
        has_bytes: impl Fn(&TaskId) -> bool,
    ) -> Option<TaskId> {
        let payer = self.bytes.payer(&newcomer.of_pass(), bytes as u64)?;
        self.held.get(&payer)?.by_age.iter().map(|(_, task)| *task).find(has_bytes)
    }
}
