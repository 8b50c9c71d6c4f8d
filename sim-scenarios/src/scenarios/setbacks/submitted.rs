//! A task from its submitter's side, with the time of everything that it was told.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::{Violation, fail};
use chaos::world::World;
use nurl::internals::compute::job::{JobError, SubmitOptions, TaskId, WaitReason};
use nurl::internals::node::TaskEvent;
use nurl::rt::task::{self, JoinHandle};

use crate::cluster::{Deadline, Peer, secret};

/// A task that was submitted, and is being followed.
pub(super) struct Submitted {
    pub(super) name: String,
    pub(super) id: TaskId,
    pub(super) begun: Duration,
    course: JoinHandle<End>,
}

/// What a submitter was told of a task.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) outcome: Result<Bytes, JobError>,
    /// Number of times that it was given to a worker.
    pub(super) attempts: u32,
    /// From the submit to the end.
    pub(super) took: Duration,
    /// The reasons for which it waited, each with the time since the submit.
    pub(super) waits: Vec<(Duration, WaitReason)>,
    /// The notes of its handler, each with the world's time.
    pub(super) notes: Vec<(Duration, Bytes)>,
}

impl Submitted {
    /// Submits a job, whose name is its key and its payload.
    pub(super) async fn new(
        world: World,
        from: &Peer,
        kind: &str,
        name: &str,
        options: SubmitOptions,
    ) -> Self {
        let (node, begun) = (from.node(&world).await, world.elapsed());
        let mut task =
            node.submit(kind, name.as_bytes(), secret(name), options).await.expect("there is room");
        let id = task.id();
        let course = task::spawn(async move {
            let (mut waits, mut notes, mut end) = (Vec::new(), Vec::new(), None);
            while let Some(event) = task.next().await {
                let now = world.elapsed();
                if end.is_some() {
                    fail(Violation::safety(
                        "a handle resolves once",
                        format!("{event:?} after the end of {id}"),
                    ));
                }
                match event {
                    TaskEvent::Accepted { .. } | TaskEvent::Fetching { .. } => {}
                    TaskEvent::Waiting { why } => waits.push((now - begun, why)),
                    TaskEvent::Progress { note, .. } => notes.push((now, note)),
                    TaskEvent::Ended { attempts, outcome, .. } => {
                        end = Some((now - begun, attempts, outcome))
                    }
                }
            }
            let (took, attempts, outcome) = end.expect("the end is never left out");
            End { outcome, attempts, took, waits, notes }
        });
        Submitted { name: name.to_owned(), id, begun, course }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.course.is_finished()
    }

    /// Its end, which comes within so long from now.
    pub(super) async fn end(
        self,
        world: World,
        property: &'static str,
        limit: Duration,
    ) -> Result<End, Violation> {
        let deadline = Deadline::new(world, property, limit);
        let missing = |over: bool| if over { Vec::new() } else { vec![format!("the end of {}", self.name)] };
        while deadline.still_missing(missing(self.is_over())).await? {}
        Ok(self.course.await.expect("it has no reason to panic"))
    }
}
