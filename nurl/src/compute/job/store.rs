//! The jobs' part of the store.
//!
//! The record `highest epoch counter` is a little-endian number of 8 bytes. Table `detached tasks` has what is to be done
//! in each detached task, and table `courses of detached tasks` what has become of it, both by the task's id
//! ([`Stored`]). The record `task layout` is a byte, which tells how these are to be read.

use std::collections::BTreeMap;

use super::custody::Stored;
use super::task::TaskId;
use crate::store::{Store, StoreError, Table, check, number};

/// The name of the epoch counter's record.
const EPOCH: &str = "highest epoch counter";

/// The name of the layout's record.
const LAYOUT: &str = "task layout";

/// The layout that is written and read.
const LAYOUT_NOW: [u8; 1] = [1];

/// What the jobs keep in a store.
#[derive(Debug, Clone, Copy)]
pub struct JobRecords<'a>(pub &'a Store);

impl JobRecords<'_> {
    /// The stored epoch counter, from which a node continues; 0 at first.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Damaged`].
    pub fn epoch_counter(&self) -> Result<u64, StoreError> {
        self.0.meta(EPOCH)?.map_or(Ok(0), |bytes| number(&bytes, EPOCH))
    }

    /// Stores the epoch counter.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_epoch_counter(&self, counter: u64) -> Result<(), StoreError> {
        self.0.write(|write| write.set_meta(EPOCH, &counter.to_le_bytes()))
    }

    /// Stores what changed of detached tasks; `None` deletes a task.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] (nothing is written then) or [`StoreError::Database`].
    pub fn put_tasks(&self, changed: &[(TaskId, Option<Stored>)]) -> Result<(), StoreError> {
        let (mut tasks, mut courses) = (Vec::new(), Vec::new());
        for (task, stored) in changed {
            let name = task.as_bytes().to_vec();
            match stored {
                None => {
                    tasks.push((name.clone(), None));
                    courses.push((name, None));
                }
                Some(Stored { task, course }) => {
                    check(&name, task.as_deref().unwrap_or_default())?;
                    check(&name, course)?;
                    tasks.extend(task.as_ref().map(|task| (name.clone(), Some(task.clone()))));
                    courses.push((name, Some(course.clone())));
                }
            }
        }
        self.0.write(|write| {
            write.set_meta(LAYOUT, &LAYOUT_NOW)?;
            write.put_all(Table::TASKS, &tasks)?;
            write.put_all(Table::COURSES, &courses)
        })
    }

    /// Every detached task, by id.
    ///
    /// # Errors
    /// [`StoreError::OtherLayout`], [`StoreError::Damaged`] or [`StoreError::Database`].
    pub fn tasks(&self) -> Result<Vec<(TaskId, Stored)>, StoreError> {
        let mut courses = BTreeMap::new();
        self.0.each(Table::COURSES, |name, course| drop(courses.insert(name.to_vec(), course.to_vec())))?;
        if !courses.is_empty() && self.0.meta(LAYOUT)?.is_none_or(|layout| layout != LAYOUT_NOW) {
            return Err(StoreError::OtherLayout("detached tasks"));
        }
        let mut tasks = Vec::new();
        self.0.each(Table::TASKS, |name, task| tasks.push((name.to_vec(), task.to_vec())))?;
        let stored = tasks.into_iter().map(|(name, task)| {
            let course = courses.remove(&name).ok_or(StoreError::Damaged(LAYOUT))?;
            let id = name.try_into().map_err(|_| StoreError::Damaged(LAYOUT))?;
            Ok((TaskId::from_bytes(id), Stored { task: Some(task), course }))
        });
        stored.collect()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::rt::Rng;

    #[test]
    fn the_epoch_counter_comes_back() {
        let store = Store::in_memory(&mut Rng::from_seed([1; 32])).unwrap();
        assert_eq!(JobRecords(&store).epoch_counter().unwrap(), 0);
        JobRecords(&store).set_epoch_counter(42).unwrap();
        assert_eq!(JobRecords(&store).epoch_counter().unwrap(), 42);
    }

    #[test]
    fn a_task_is_stored_once_and_its_course_with_each_step() {
        let store = Store::in_memory(&mut Rng::from_seed([1; 32])).unwrap();
        let records = JobRecords(&store);
        let (one, other) = (TaskId::from_bytes([1; 16]), TaskId::from_bytes([2; 16]));
        let stored = |task: Option<&[u8]>, course: &[u8]| {
            Some(Stored { task: task.map(<[u8]>::to_vec), course: course.to_vec() })
        };
        records
            .put_tasks(&[(one, stored(Some(b"task"), b"open")), (other, stored(Some(b"x"), b"y"))])
            .unwrap();
        records.put_tasks(&[(one, stored(None, b"ended")), (other, None)]).unwrap();
        let left = Stored { task: Some(b"task".to_vec()), course: b"ended".to_vec() };
        assert_eq!(records.tasks().unwrap(), [(one, left)]);
        store.write(|write| write.set_meta(LAYOUT, &[2])).unwrap();
        assert!(matches!(records.tasks(), Err(StoreError::OtherLayout(_))));
    }
}
