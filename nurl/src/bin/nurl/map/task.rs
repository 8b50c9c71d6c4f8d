//! One task of a map: submitted, waited for, and its result written.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nurl::Node;
use nurl::job::{MAX_KEY_LEN, TaskId, WaitReason};
use nurl::rt::{self, sync::mpsc};

use super::names::hash;
use super::results::keep;
use crate::out::{Code, Failure};
use crate::work::{Job, Update, run_one};

/// An event of a map's task.
#[derive(Debug)]
pub(crate) enum Step {
    /// It waits for a worker.
    Waiting { task: TaskId, why: WaitReason },
    /// It has ended.
    Ended { number: usize, update: Update },
    /// The map can't go on.
    Broken(Failure),
}

/// What all tasks of a map have in common. While a clone lives, a task may be under way.
#[derive(Clone)]
pub(crate) struct Course {
    pub(crate) node: Node,
    pub(crate) kind: Arc<str>,
    pub(crate) life: Duration,
    /// Where results are written; without it they go with their events.
    pub(crate) directory: Option<Arc<Path>>,
    /// When its receiver is dropped, the tasks are cancelled.
    pub(crate) steps: mpsc::Sender<Step>,
}

impl Course {
    /// Runs one task to its end.
    pub(crate) async fn run(self, number: usize, source: &str, name: String, payload: Bytes) {
        let key =
            if source.len() <= MAX_KEY_LEN { source.to_owned() } else { format!("{:032x}", hash(source)) };
        let job = Job { key, anywhere: true, payload };
        let (updates, course) = mpsc::channel(1);
        let (node, kind) = (&self.node, &self.kind);
        let run = async move { run_one(node, kind, number, job, self.life, &updates).await };
        tokio::join!(run, self.pass_on(course, number, name));
    }

    /// Passes a task's events on, its result only once it is written. When nobody hears of them, the task's events are
    /// dropped, by which it is cancelled.
    async fn pass_on(&self, mut course: mpsc::Receiver<Update>, number: usize, name: String) {
        loop {
            let update = rt::select! {
                update = course.recv() => update,
                () = self.steps.closed() => return,
            };
            let step = match update {
                Some(Update::Accepted { .. } | Update::Progress { .. } | Update::Fetching { .. }) => continue,
                Some(Update::Waiting { task, why }) => Step::Waiting { task, why },
                Some(Update::Refused { failure }) => Step::Broken(failure),
                Some(mut update @ Update::Ended { .. }) => {
                    match self.kept(&mut update, number, &name).await {
                        Ok(()) => Step::Ended { number, update },
                        Err(failure) => Step::Broken(failure),
                    }
                }
                None => return,
            };
            // An error shows as `closed` in the next round.
            let _ = self.steps.send(step).await;
        }
    }

    /// Writes a result, if it has a file to go to; then nobody needs its bytes any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "a disk may block, and the command runs on a real one only"
    )]
    async fn kept(&self, update: &mut Update, number: usize, name: &str) -> Result<(), Failure> {
        let (Some(directory), Update::Ended { outcome: Ok(bytes), .. }) = (&self.directory, update) else {
            return Ok(());
        };
        let (directory, name, bytes) = (Arc::clone(directory), name.to_owned(), std::mem::take(bytes));
        let written = tokio::task::spawn_blocking(move || keep(&directory, number, &name, &bytes)).await;
        written.unwrap_or_else(|_| Err(Failure::new(Code::Other, "the writer of results is gone")))
    }
}
