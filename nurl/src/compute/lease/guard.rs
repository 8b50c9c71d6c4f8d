//! A task whose holder may panic, be aborted, or return early.

use super::{Resource, TaskId};
use crate::ring::Epoch;

/// Recovers an admitted task when it is dropped, if the task is still in progress then: see [`Resource::recover`]. It
/// blocks on the disk in that case. Keep it until the task's outcome is recorded.
#[derive(Debug)]
#[must_use = "the task is recovered as soon as its guard is dropped"]
pub struct Guard<'a> {
    resource: &'a Resource,
    key: Vec<u8>,
    token: Epoch,
    task: TaskId,
}

impl<'a> Guard<'a> {
    pub(super) fn new(resource: &'a Resource, key: &[u8], token: Epoch, task: &TaskId) -> Guard<'a> {
        Guard { resource, key: key.to_vec(), token, task: *task }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Not in progress is the usual end. After an error of the disk the next opening of the store recovers it.
        let _ = self.resource.recover(&self.key, self.token, &self.task);
    }
}
