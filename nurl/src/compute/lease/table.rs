//! The index in memory over the records in the store.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::LeaseClock;
use super::record::{Status, Task, split_name};
use super::{Config, Counters, LeaseError};
use crate::ring::Epoch;

/// Every field but the counters and the clock mirrors the store.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) clock: LeaseClock,
    /// The lowest token for keys without a token of their own.
    pub(super) floor: Epoch,
    pub(super) highest: u64,
    pub(super) keys: BTreeMap<Vec<u8>, Key>,
    pub(super) tasks: BTreeMap<Vec<u8>, Task>,
    /// Ended tasks by the time at which they expire.
    pub(super) expiry: BTreeSet<(u64, Vec<u8>)>,
    /// Keys without tasks, by token: the first is evicted first.
    pub(super) idle: BTreeSet<(Epoch, Vec<u8>)>,
    pub(super) counters: Counters,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) token: Epoch,
    pub(super) tasks: usize,
}

impl Table {
    pub(super) fn new(floor: Epoch, clock: LeaseClock) -> Table {
        Table {
            clock,
            floor,
            highest: floor.counter,
            keys: BTreeMap::new(),
            tasks: BTreeMap::new(),
            expiry: BTreeSet::new(),
            idle: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn current(&self, key: &[u8]) -> Epoch {
        self.keys.get(key).map_or(self.floor, |key| key.token)
    }

    /// The task, if it is in progress and `token` may end it.
    pub(super) fn held(&self, key: &[u8], name: &[u8], token: Epoch) -> Result<Task, LeaseError> {
        let task = self.tasks.get(name).copied();
        let task = task.filter(|task| task.status == Status::InProgress).ok_or(LeaseError::NotInProgress)?;
        // The caller's run was given up, and another one was admitted in its place.
        if token < task.token {
            return Err(LeaseError::Fenced { current: self.current(key) });
        }
        Ok(task)
    }

    /// The ended tasks whose time is over.
    pub(super) fn expired(&self, at_ms: u64) -> Vec<Vec<u8>> {
        self.expiry.iter().take_while(|(at, _)| *at <= at_ms).map(|(_, name)| name.clone()).collect()
    }

    /// Makes sure that there is room for one more task on `key`. Returns the key to evict for it, with its token, if
    /// any.
    pub(super) fn room(&self, key: &[u8], config: &Config) -> Result<Option<(Epoch, Vec<u8>)>, ()> {
        if self.tasks.len() >= config.max_tasks {
            return Err(());
        }
        if self.keys.contains_key(key) || self.keys.len() < config.max_keys {
            return Ok(None);
        }
        // Evict only a key without remembered tasks, and the one with the lowest token: it raises the floor the
        // least.
        self.idle.first().cloned().map(Some).ok_or(())
    }

    /// Makes `token` the current token of `key`.
    pub(super) fn raise(&mut self, key: &[u8], token: Epoch) {
        self.highest = self.highest.max(token.counter);
        match self.keys.get_mut(key) {
            Some(known) => {
                if known.tasks == 0 {
                    self.idle.remove(&(known.token, key.to_vec()));
                    self.idle.insert((token, key.to_vec()));
                }
                known.token = token;
            }
            None => {
                self.idle.insert((token, key.to_vec()));
                self.keys.insert(key.to_vec(), Key { token, tasks: 0 });
            }
        }
    }

    pub(super) fn remember(&mut self, key: &[u8], name: Vec<u8>, task: Task) {
        if let Some(known) = self.keys.get_mut(key) {
            if known.tasks == 0 {
                self.idle.remove(&(known.token, key.to_vec()));
            }
            known.tasks += 1;
        }
        self.replace(name, task);
    }

    /// Replaces a known task by what it has become.
    pub(super) fn replace(&mut self, name: Vec<u8>, task: Task) {
        if task.status != Status::InProgress {
            self.expiry.insert((task.expires_ms, name.clone()));
        }
        self.tasks.insert(name, task);
    }

    pub(super) fn forget(&mut self, name: &[u8]) {
        let Some(task) = self.tasks.remove(name) else { return };
        self.expiry.remove(&(task.expires_ms, name.to_vec()));
        let Some((key, _)) = split_name(name) else { return };
        if let Some(known) = self.keys.get_mut(&key) {
            known.tasks = known.tasks.saturating_sub(1);
            if known.tasks == 0 {
                self.idle.insert((known.token, key));
            }
        }
    }
}
