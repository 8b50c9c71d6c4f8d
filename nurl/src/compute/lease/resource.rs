//! The resource: an index in memory over the records in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::record::{Status, Task, name, split_name};
use super::store::{Effects, LeaseRecords};
use super::{
    Admission, Config, Counters, KEEP, LeaseError, MAX_KEY_BYTES, MAX_LIFE, MAX_OUTCOME_BYTES, Recovered,
    TaskId,
};
use crate::membership::limit::answer_limit;
use crate::ring::Epoch;
use crate::store::{Store, StoreError};

/// A resource with fenced effects. It is shared by reference. Calls block on the disk and run one after the other.
#[derive(Debug)]
pub struct Resource {
    store: Arc<Store>,
    config: Config,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// The lowest token for keys without a token of their own.
    floor: Epoch,
    highest: u64,
    keys: BTreeMap<Vec<u8>, Key>,
    tasks: BTreeMap<Vec<u8>, Task>,
    /// Ended tasks by the time at which they expire.
    expiry: BTreeSet<(u64, Vec<u8>)>,
    /// Keys without tasks, by token: the first is evicted first.
    idle: BTreeSet<(Epoch, Vec<u8>)>,
    counters: Counters,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    token: Epoch,
    tasks: usize,
}

impl Resource {
    /// Opens the lease table of a store. `recover` is called for each task that was in progress when the process
    /// died; its answer is durable before this returns.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    pub fn open(
        store: Arc<Store>,
        config: Config,
        mut recover: impl FnMut(&[u8], &TaskId) -> Recovered,
    ) -> Result<Resource, LeaseError> {
        let mut table = Table::new();
        let mut damaged = false;
        let mut tokens = Vec::new();
        let mut tasks = Vec::new();
        let floor = LeaseRecords(&store).lease(
            |key, bytes| match Epoch::from_slice(bytes) {
                Some(token) => tokens.push((key.to_vec(), token)),
                None => damaged = true,
            },
            |name, bytes| tasks.push((name.to_vec(), Task::decode(bytes).map(|(task, _)| task))),
        )?;
        if damaged {
            return Err(StoreError::Damaged("a lease token").into());
        }
        if let Some(floor) = floor {
            table.floor = Epoch::from_slice(&floor).ok_or(StoreError::Damaged("the lease floor"))?;
        }
        table.highest = table.floor.counter;
        for (key, token) in tokens {
            table.highest = table.highest.max(token.counter);
            table.idle.insert((token, key.clone()));
            table.keys.insert(key, Key { token, tasks: 0 });
        }
        let write = LeaseRecords(&store).begin_lease()?;
        for (name, task) in tasks {
            let mut task = task?;
            let (key, id) = split_name(&name).ok_or(StoreError::Damaged("a task's name"))?;
            if task.status == Status::InProgress {
                match recover(&key, &id) {
                    Recovered::Done(outcome) => {
                        task.status = Status::Done;
                        write.put_task(&name, &task.encode(&outcome))?;
                    }
                    Recovered::RolledBack => {
                        write.remove_task(&name)?;
                        continue;
                    }
                    Recovered::Unknown => {
                        task.status = Status::Unknown;
                        write.put_task(&name, &task.encode(&[]))?;
                        table.counters.unknown += 1;
                    }
                }
            }
            table.remember(&key, name, task);
        }
        write.commit()?;
        Ok(Resource { store, config, table: Mutex::new(table) })
    }

    /// Asks to do `task` on `key` under `token`. `wall` is the time since 1970, `life` the remaining life of the
    /// task.
    ///
    /// # Errors
    /// [`LeaseError`]; nothing was recorded then.
    pub fn admit(
        &self,
        wall: Duration,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        life: Duration,
    ) -> Result<Admission, LeaseError> {
        within("a key", key.len() as u64, MAX_KEY_BYTES as u64)?;
        within("a life in seconds", life.as_secs(), MAX_LIFE.as_secs())?;
        let mut table = self.table();
        self.expire_in(&mut table, wall)?;
        let name = name(key, task);
        // 1. and 2. The known state of the task counts, whatever the token.
        match table.tasks.get(&name).map(|known| known.status) {
            Some(Status::InProgress) => {
                table.counters.in_progress += 1;
                return Ok(Admission::InProgress);
            }
            Some(Status::Done | Status::Unknown) => {
                let bytes =
                    LeaseRecords(&self.store).lease_task(&name)?.ok_or(StoreError::Damaged("a task"))?;
                let (known, outcome) = Task::decode(&bytes)?;
                table.counters.recorded += 1;
                return Ok(Admission::Recorded(known.outcome(outcome)));
            }
            None => {}
        }
        // If the counter is invalid, nothing else in the request is believed.
        let limit = answer_limit(wall);
        if token.counter > limit {
            table.counters.too_far_ahead += 1;
            return Err(LeaseError::TooFarAhead { counter: token.counter, limit });
        }
        // 3. The token is lower than the key's token or the floor.
        let current = table.current(key);
        if token < current {
            table.counters.fenced += 1;
            let (task, epoch, current_epoch) = (u128::from_be_bytes(*task), token.counter, current.counter);
            tracing::debug!(target: "nurl::lease", task = format_args!("{task:032x}"), epoch, current_epoch, "a token is fenced");
            return Ok(Admission::Fenced { current });
        }
        // 4. First room, then durability, then the effect.
        let evict = match table.room(key, &self.config) {
            Ok(evict) => evict,
            Err(()) => {
                table.counters.busy += 1;
                return Ok(Admission::Busy);
            }
        };
        let floor = evict.as_ref().map_or(table.floor, |(token, _)| table.floor.max(*token));
        if evict.is_some() && token < floor {
            table.counters.fenced += 1;
            return Ok(Admission::Fenced { current: floor });
        }
        let expires_ms = millis(wall.saturating_add(life).saturating_add(KEEP));
        let entry = Task { status: Status::InProgress, expires_ms, token };
        let write = LeaseRecords(&self.store).begin_lease()?;
        if let Some((_, evicted)) = &evict {
            write.set_floor(&floor.to_bytes())?;
            write.remove_token(evicted)?;
        }
        write.put_token(key, &token.to_bytes())?;
        write.put_task(&name, &entry.encode(&[]))?;
        write.commit()?;
        if let Some(evicted) = evict {
            table.keys.remove(&evicted.1);
            table.idle.remove(&evicted);
            table.floor = floor;
            table.counters.evicted += 1;
        }
        table.raise(key, token);
        table.remember(key, name, entry);
        table.counters.admitted += 1;
        let (task, epoch) = (u128::from_be_bytes(*task), token.counter);
        tracing::debug!(target: "nurl::lease", task = format_args!("{task:032x}"), epoch, "a token is admitted");
        Ok(Admission::Admitted)
    }

    /// Records the outcome of an effect that was made elsewhere. Acknowledge only after this call.
    ///
    /// # Errors
    /// [`LeaseError::NotInProgress`], [`LeaseError::TooLarge`] or [`LeaseError::Store`].
    pub fn complete(&self, key: &[u8], task: &TaskId, outcome: &[u8]) -> Result<(), LeaseError> {
        self.end(key, task, outcome, false, |_| Ok(()))
    }

    /// Makes an effect in the store and records its outcome, in one transaction. If a higher token was admitted for
    /// the key meanwhile, nothing is done.
    ///
    /// # Errors
    /// The errors of [`complete`](Resource::complete), [`LeaseError::Fenced`], or the error of `effect`.
    pub fn commit_with(
        &self,
        key: &[u8],
        task: &TaskId,
        outcome: &[u8],
        effect: impl FnOnce(&mut Effects<'_>) -> Result<(), StoreError>,
    ) -> Result<(), LeaseError> {
        self.end(key, task, outcome, true, effect)
    }

    fn end(
        &self,
        key: &[u8],
        task: &TaskId,
        outcome: &[u8],
        fenced: bool,
        effect: impl FnOnce(&mut Effects<'_>) -> Result<(), StoreError>,
    ) -> Result<(), LeaseError> {
        within("an outcome", outcome.len() as u64, MAX_OUTCOME_BYTES as u64)?;
        let mut table = self.table();
        let name = name(key, task);
        let mut entry = table.in_progress(&name)?;
        let current = table.current(key);
        if fenced && entry.token < current {
            table.counters.fenced += 1;
            return Err(LeaseError::Fenced { current });
        }
        entry.status = Status::Done;
        let write = LeaseRecords(&self.store).begin_lease()?;
        effect(&mut write.effects())?;
        write.put_task(&name, &entry.encode(outcome))?;
        write.commit()?;
        table.expiry.insert((entry.expires_ms, name.clone()));
        table.tasks.insert(name, entry);
        Ok(())
    }

    /// Forgets a task whose effect was not made and won't be, so that it may be admitted again.
    ///
    /// # Errors
    /// [`LeaseError::NotInProgress`] or [`LeaseError::Store`].
    pub fn release(&self, key: &[u8], task: &TaskId) -> Result<(), LeaseError> {
        let mut table = self.table();
        let name = name(key, task);
        table.in_progress(&name)?;
        let write = LeaseRecords(&self.store).begin_lease()?;
        write.remove_task(&name)?;
        write.commit()?;
        table.forget(&name);
        Ok(())
    }

    /// Drops the outcomes that have expired. `admit` does this too.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    pub fn expire(&self, wall: Duration) -> Result<(), LeaseError> {
        self.expire_in(&mut self.table(), wall)
    }

    /// The highest counter admitted.
    pub fn highest(&self) -> u64 {
        self.table().highest
    }

    /// The lowest token that `key` accepts now.
    pub fn current(&self, key: &[u8]) -> Epoch {
        self.table().current(key)
    }

    /// Counters of the answers since the start.
    pub fn counters(&self) -> Counters {
        self.table().counters
    }

    /// The store of the effects and outcomes.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn expire_in(&self, table: &mut Table, wall: Duration) -> Result<(), LeaseError> {
        let now = millis(wall);
        let over: Vec<Vec<u8>> =
            table.expiry.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect();
        if over.is_empty() {
            return Ok(());
        }
        let write = LeaseRecords(&self.store).begin_lease()?;
        for name in &over {
            write.remove_task(name)?;
        }
        write.commit()?;
        for name in &over {
            table.forget(name);
        }
        Ok(())
    }

    /// The table changes only after a commit, so a panic in a caller's effect leaves it as it was.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn new() -> Table {
        Table {
            floor: Epoch::ZERO,
            highest: 0,
            keys: BTreeMap::new(),
            tasks: BTreeMap::new(),
            expiry: BTreeSet::new(),
            idle: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    fn current(&self, key: &[u8]) -> Epoch {
        self.keys.get(key).map_or(self.floor, |key| key.token)
    }

    fn in_progress(&self, name: &[u8]) -> Result<Task, LeaseError> {
        let task = self.tasks.get(name).copied();
        task.filter(|task| task.status == Status::InProgress).ok_or(LeaseError::NotInProgress)
    }

    /// Makes sure that there is room for one more task on `key`. Returns the key to evict for it, with its token, if
    /// any.
    fn room(&self, key: &[u8], config: &Config) -> Result<Option<(Epoch, Vec<u8>)>, ()> {
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
    fn raise(&mut self, key: &[u8], token: Epoch) {
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

    fn remember(&mut self, key: &[u8], name: Vec<u8>, task: Task) {
        if let Some(known) = self.keys.get_mut(key) {
            if known.tasks == 0 {
                self.idle.remove(&(known.token, key.to_vec()));
            }
            known.tasks += 1;
        }
        if task.status != Status::InProgress {
            self.expiry.insert((task.expires_ms, name.clone()));
        }
        self.tasks.insert(name, task);
    }

    fn forget(&mut self, name: &[u8]) {
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

fn within(what: &'static str, size: u64, limit: u64) -> Result<(), LeaseError> {
    if size > limit { Err(LeaseError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}
