//! Tasks of this node whose payloads or results may be files: who may fetch a payload, and the result's arrival.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use crate::compute::blob::Envelope;
use crate::compute::blob::desk::{Desk, DeskError, Offered, Order};
use crate::compute::blob::message::{FileId, Side};
use crate::compute::job::options::HORIZON;
use crate::compute::job::{JobError, JobEvent, TaskId};
use crate::compute::pool::LargeFile;
use crate::key::PublicKey;
use crate::node::command::Course;
use crate::node::task::TaskEvent;
use crate::rt;
use crate::rt::sync::mpsc;

/// See the module.
pub(super) struct LargeTasks {
    desk: Desk,
    large: BTreeSet<TaskId>,
    orders: Vec<Order>,
}

/// A task's payload as a file.
const fn payload(task: TaskId) -> FileId {
    FileId { task, side: Side::Payload }
}

impl LargeTasks {
    pub(super) fn new(desk: Desk) -> LargeTasks {
        LargeTasks { desk, large: BTreeSet::new(), orders: Vec::new() }
    }

    /// Follows a task until its end, and offers its payload if it is a file.
    pub(super) fn follow(&mut self, task: TaskId, ends: Instant, offered: Option<Offered>) {
        self.large.insert(task);
        if let Some((source, manifest)) = offered {
            // The end of the task withdraws it; this is in case that the end isn't heard.
            let until = ends + HORIZON;
            self.orders.push(Order::Offer {
                file: payload(task),
                manifest,
                source,
                until,
                readers: Vec::new(),
            });
        }
    }

    /// Takes what the jobs tell. Returns whether it is the end of a task that is followed.
    pub(super) fn on_event(&mut self, event: &JobEvent) -> bool {
        match event {
            JobEvent::Given { task, to } => {
                self.orders.push(Order::Grant { file: payload(*task), peer: *to });
                false
            }
            JobEvent::Done { task, .. } if self.large.remove(task) => {
                self.orders.push(Order::Withdraw { file: payload(*task) });
                true
            }
            _ => false,
        }
    }

    /// Gives the desk its orders. They go before the messages by which other nodes learn of the tasks.
    ///
    /// # Errors
    /// The driver of large files has ended.
    pub(super) async fn pass_on(&mut self) -> Result<(), DeskError> {
        for order in std::mem::take(&mut self.orders) {
            self.desk.order(order).await?;
        }
        Ok(())
    }

    /// Tells a submitter the end of its task, after its result has arrived.
    pub(super) fn deliver(
        &self,
        course: Course,
        task: TaskId,
        by: Option<PublicKey>,
        attempts: u32,
        outcome: Result<Bytes, JobError>,
    ) {
        let desk = self.desk.clone();
        rt::task::spawn(async move {
            let arrived = rt::select! {
                arrived = arrive(&desk, &course, task, by, outcome) => arrived,
                // Nobody waits for the result any more.
                () = course.closed() => return,
            };
            let (outcome, file) = match arrived {
                Ok((bytes, file)) => (Ok(bytes), file),
                Err(error) => (Err(error), None),
            };
            let _ = course.send(TaskEvent::Ended { by, attempts, outcome, file }).await;
        });
    }
}

/// What is in a result, fetched if it is a file.
async fn arrive(
    desk: &Desk,
    course: &Course,
    task: TaskId,
    by: Option<PublicKey>,
    outcome: Result<Bytes, JobError>,
) -> Result<(Bytes, Option<LargeFile>), JobError> {
    let lost =
        |error: &dyn std::fmt::Display| JobError::retriable(format!("the result was made, but {error}"));
    let manifest = match Envelope::decode(&outcome?).map_err(|error| lost(&error))? {
        Envelope::Inline(bytes) => return Ok((bytes, None)),
        Envelope::File(manifest) => manifest,
    };
    let by = by.ok_or_else(|| lost(&"nobody has it"))?;
    let len = manifest.file_len();
    let (progress, mut told) = mpsc::channel(1);
    let file = FileId { task, side: Side::Result };
    let fetched = desk.fetch(file, by, manifest, progress);
    tokio::pin!(fetched);
    loop {
        rt::select! {
            ended = &mut fetched => {
                let mut held = ended.map_err(|error| lost(&error))?;
                // Its reader takes it; the same result isn't made twice.
                held.discard();
                return Ok((Bytes::new(), Some(LargeFile::of(held))));
            }
            Some(there) = told.recv() => {
                // A slow submitter may miss a notice.
                let _ = course.try_send(TaskEvent::Fetching { there, len });
            }
        }
    }
}
