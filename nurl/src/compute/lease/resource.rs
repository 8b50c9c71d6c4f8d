//! The resource: its rules over the index in memory and the records in the store.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::{LeaseClock, Moment};
use super::guard::Guard;
use super::record::{Status, Task, name, split_name};
use super::store::{Effects, LeaseRecords, LeaseWrite};
use super::table::Table;
use super::{
    Admission, Completed, Config, Counters, KEEP, LeaseError, MAX_KEY_BYTES, MAX_LIFE, MAX_OUTCOME_BYTES,
    Recovered, TaskId,
};
use crate::membership::limit::answer_limit;
use crate::ring::Epoch;
use crate::store::{Store, StoreError};

/// The closure that is asked what came of a task whose holder is gone.
type Recover = Box<dyn FnMut(&[u8], &TaskId) -> Recovered + Send>;

/// A resource with fenced effects. It is shared by reference. Calls block on the disk and run one after the other.
pub struct Resource {
    store: Arc<Store>,
    config: Config,
    table: Mutex<Table>,
    recover: Mutex<Recover>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("config", &self.config)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl Resource {
    /// Opens the lease table of a store. `recover` is called for each task that was in progress when the process
    /// died; its answer is durable before this returns. It is called again for a task whose effect panics or whose
    /// [`Guard`] is dropped. If it panics itself, its answer is [`Recovered::Unknown`].
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    pub fn open(
        store: Arc<Store>,
        config: Config,
        now: Moment,
        recover: impl FnMut(&[u8], &TaskId) -> Recovered + Send + 'static,
    ) -> Result<Resource, LeaseError> {
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
        let floor = match floor {
            Some(floor) => Epoch::from_slice(&floor).ok_or(StoreError::Damaged("the lease floor"))?,
            None => Epoch::ZERO,
        };
        let clock = LeaseClock::open(LeaseRecords(&store).clock()?.as_deref(), &now)?;
        let mut table = Table::new(floor, clock);
        for (key, token) in tokens {
            table.raise(&key, token);
        }
        let mut recover: Recover = Box::new(recover);
        let write = LeaseRecords(&store).begin_lease()?;
        write.set_clock(&table.clock.record())?;
        for (name, task) in tasks {
            let mut task = Some(task?);
            let (key, id) = split_name(&name).ok_or(StoreError::Damaged("a task's name"))?;
            if let Some(known) = task.filter(|task| task.status == Status::InProgress) {
                let answer = ask(&mut recover, &key, &id);
                table.counters.unknown += u64::from(answer == Recovered::Unknown);
                task = write_recovered(&write, &name, known, &answer)?;
            }
            if let Some(task) = task {
                table.remember(&key, name, task);
            }
        }
        write.commit()?;
        Ok(Resource { store, config, table: Mutex::new(table), recover: Mutex::new(recover) })
    }

    /// Asks to do `task` on `key` under `token`, as the holder of that token. `life` is the remaining life of the task.
    ///
    /// # Errors
    /// [`LeaseError`]; nothing was recorded then.
    pub fn admit(
        &self,
        now: Moment,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        life: Duration,
    ) -> Result<Admission, LeaseError> {
        within("a key", key.len() as u64, MAX_KEY_BYTES as u64)?;
        within("a life in seconds", life.as_secs(), MAX_LIFE.as_secs())?;
        let mut table = self.table();
        self.expire_in(&mut table, &now)?;
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
        let limit = answer_limit(now.unix);
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
        let expires_ms = table.clock.expires_ms(life.saturating_add(KEEP));
        let entry = Task { status: Status::InProgress, expires_ms, token };
        let write = LeaseRecords(&self.store).begin_lease()?;
        if let Some((_, evicted)) = &evict {
            write.set_floor(&floor.to_bytes())?;
            write.remove_token(evicted)?;
        }
        write.set_clock(&table.clock.record())?;
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

    /// Records the outcome of an effect that was made elsewhere. Acknowledge only after this call. `token` is the
    /// caller's own: the one under which the task was admitted, or a higher one whose holder has found out what came
    /// of the task.
    ///
    /// The effect has happened by now, so the outcome is recorded even if a higher token was admitted for the key
    /// meanwhile; the answer is [`Completed::Late`] then.
    ///
    /// # Errors
    /// [`LeaseError::NotInProgress`], [`LeaseError::Fenced`] if the task was admitted anew under a higher token than
    /// the caller's, [`LeaseError::TooLarge`] or [`LeaseError::Store`]. Nothing is recorded then.
    pub fn complete(
        &self,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        outcome: &[u8],
    ) -> Result<Completed, LeaseError> {
        within("an outcome", outcome.len() as u64, MAX_OUTCOME_BYTES as u64)?;
        let mut table = self.table();
        let name = name(key, task);
        let entry = table.held(key, &name, token)?;
        let write = LeaseRecords(&self.store).begin_lease()?;
        finish(&mut table, write, name, entry, outcome)?;
        let current = table.current(key);
        if token < current {
            table.counters.late += 1;
            return Ok(Completed::Late { current });
        }
        Ok(Completed::InTime)
    }

    /// Makes an effect in the store and records its outcome, in one transaction. If a higher token was admitted for
    /// the key meanwhile, nothing is done. If `effect` panics, its writes are undone and the task is
    /// [recovered](Resource::recover).
    ///
    /// # Errors
    /// [`LeaseError::NotInProgress`], [`LeaseError::Fenced`], [`LeaseError::TooLarge`], [`LeaseError::Panicked`],
    /// [`LeaseError::Store`], or the error of `effect`.
    pub fn commit_with(
        &self,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        outcome: &[u8],
        effect: impl FnOnce(&mut Effects<'_>) -> Result<(), StoreError>,
    ) -> Result<(), LeaseError> {
        within("an outcome", outcome.len() as u64, MAX_OUTCOME_BYTES as u64)?;
        let mut table = self.table();
        let name = name(key, task);
        let entry = table.held(key, &name, token)?;
        let current = table.current(key);
        if token < current {
            table.counters.fenced += 1;
            return Err(LeaseError::Fenced { current });
        }
        let write = LeaseRecords(&self.store).begin_lease()?;
        // The table changes only after a commit, so a panic leaves it as it was.
        let Ok(made) = catch_unwind(AssertUnwindSafe(|| effect(&mut write.effects()))) else {
            drop((write, table));
            return Err(LeaseError::Panicked { recovered: self.recover(key, entry.token, task)? });
        };
        made?;
        finish(&mut table, write, name, entry, outcome)
    }

    /// Forgets a task whose effect was not made and won't be, so that it may be admitted again. `token` is the
    /// caller's own, as for [`complete`](Resource::complete).
    ///
    /// # Errors
    /// [`LeaseError::NotInProgress`], [`LeaseError::Fenced`] or [`LeaseError::Store`].
    pub fn release(&self, key: &[u8], token: Epoch, task: &TaskId) -> Result<(), LeaseError> {
        let mut table = self.table();
        let name = name(key, task);
        table.held(key, &name, token)?;
        let write = LeaseRecords(&self.store).begin_lease()?;
        write.remove_task(&name)?;
        write.commit()?;
        table.forget(&name);
        Ok(())
    }

    /// Ends a task whose holder is gone without an outcome, as a restart would: asks the closure given to
    /// [`open`](Resource::open), and makes its answer durable. Only the run that was admitted under exactly `token`
    /// is meant.
    ///
    /// # Errors
    /// [`LeaseError::NotInProgress`], [`LeaseError::Fenced`] or [`LeaseError::Store`].
    pub fn recover(&self, key: &[u8], token: Epoch, task: &TaskId) -> Result<Recovered, LeaseError> {
        let name = name(key, task);
        let of_this_run = |table: &Table| {
            table
                .held(key, &name, token)
                .and_then(|entry| (entry.token == token).then_some(entry).ok_or(LeaseError::NotInProgress))
        };
        of_this_run(&self.table())?;
        // Asked without the table's lock: the closure may look at the resource.
        let answer = ask(&mut self.recover.lock().unwrap_or_else(PoisonError::into_inner), key, task);
        let mut table = self.table();
        let entry = of_this_run(&table)?;
        let write = LeaseRecords(&self.store).begin_lease()?;
        let after = write_recovered(&write, &name, entry, &answer)?;
        write.commit()?;
        table.counters.unknown += u64::from(answer == Recovered::Unknown);
        match after {
            Some(task) => table.replace(name, task),
            None => table.forget(&name),
        }
        Ok(answer)
    }

    /// Guards an admitted task: see [`Guard`].
    pub fn guard(&self, key: &[u8], token: Epoch, task: &TaskId) -> Guard<'_> {
        Guard::new(self, key, token, task)
    }

    /// Drops the outcomes that have expired. `admit` does this too.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    pub fn expire(&self, now: Moment) -> Result<(), LeaseError> {
        self.expire_in(&mut self.table(), &now)
    }

    /// How many tasks are remembered, [`Config::max_tasks`] at most.
    pub fn tasks(&self) -> usize {
        self.table().tasks.len()
    }

    /// The highest counter admitted.
    pub fn highest(&self) -> u64 {
        self.table().highest
    }

    /// The lowest token that `key` accepts now.
    pub fn current(&self, key: &[u8]) -> Epoch {
        self.table().current(key)
    }

    /// The answers since the start.
    pub fn counters(&self) -> Counters {
        self.table().counters
    }

    /// The store of the effects and outcomes.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn expire_in(&self, table: &mut Table, now: &Moment) -> Result<(), LeaseError> {
        let at_ms = table.clock.advance(now);
        let over = table.expired(at_ms);
        if over.is_empty() {
            return Ok(());
        }
        let write = LeaseRecords(&self.store).begin_lease()?;
        write.set_clock(&table.clock.record())?;
        for name in &over {
            write.remove_task(name)?;
        }
        write.commit()?;
        for name in &over {
            table.forget(name);
        }
        Ok(())
    }

    /// Every change of the table comes after its commit, so a panic in between leaves it as it was.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner's answer about a task whose holder is gone. A panic is no answer.
fn ask(recover: &mut Recover, key: &[u8], task: &TaskId) -> Recovered {
    catch_unwind(AssertUnwindSafe(|| recover(key, task))).unwrap_or(Recovered::Unknown)
}

/// Writes what came of a task, and returns what remains of it.
fn write_recovered(
    write: &LeaseWrite,
    name: &[u8],
    mut task: Task,
    answer: &Recovered,
) -> Result<Option<Task>, StoreError> {
    let outcome = match answer {
        Recovered::Running => return Ok(Some(task)),
        Recovered::RolledBack => {
            write.remove_task(name)?;
            return Ok(None);
        }
        Recovered::Done(outcome) => {
            task.status = Status::Done;
            outcome.as_slice()
        }
        Recovered::Unknown => {
            task.status = Status::Unknown;
            &[]
        }
    };
    write.put_task(name, &task.encode(outcome))?;
    Ok(Some(task))
}

/// Makes a task's outcome durable, with all else that is in the transaction.
fn finish(
    table: &mut Table,
    write: LeaseWrite,
    name: Vec<u8>,
    mut entry: Task,
    outcome: &[u8],
) -> Result<(), LeaseError> {
    entry.status = Status::Done;
    write.put_task(&name, &entry.encode(outcome))?;
    write.commit()?;
    table.replace(name, entry);
    Ok(())
}

fn within(what: &'static str, size: u64, limit: u64) -> Result<(), LeaseError> {
    if size > limit { Err(LeaseError::TooLarge { what, size, limit }) } else { Ok(()) }
}
