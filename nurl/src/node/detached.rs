//! Tasks that outlive their submitter.
//!
//! A detached task is kept by workers, of which one has it run. Its submitter may end at once; whoever knows the id asks
//! any node for its status and its outcome.

use std::time::Duration;

use bytes::Bytes;

use super::Node;
use super::command::{DetachedCall, WorkCommand};
use crate::compute::job::custody::{Content, CustodyError, Mark, Refusal, TaskStatus, Told};
use crate::compute::job::{Class, JobError, TaskId};
use crate::error::Error;
use crate::key::PublicKey;
use crate::kit::backoff::full_jitter;
use crate::rt::{self, time};

/// How long a keeper is asked to wait for news in one question.
const WAIT: Duration = Duration::from_secs(15);
/// For so long the keepers of a task may be restarting, or be others than this node's view says, before they are believed
/// that there is no such task.
const UNKNOWN_FOR: Duration = Duration::from_secs(20);
/// The limits of the random pause before keepers that didn't answer are asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A handle on a detached task; see [`Node::submit_detached`]. It holds nothing but the id.
#[derive(Clone)]
pub struct DetachedTask {
    node: Node,
    id: TaskId,
}

/// The detached tasks of one submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedTasks {
    /// The tasks, by id, without their histories.
    pub tasks: Vec<TaskStatus>,
    /// The workers that did not answer. A task is missing only if all of its three keepers are among them.
    pub silent: Vec<PublicKey>,
}

/// See [`Node::submit_detached`].
pub(super) async fn submit(node: &Node, name: Option<&str>, content: Content) -> Result<DetachedTask, Error> {
    let id = match name {
        Some(name) => {
            let name = name.to_owned();
            node.ask_work(|reply| WorkCommand::NamedTask { name, reply }).await?
        }
        None => TaskId::random(&mut rt::rng("detached task")),
    };
    deposit(node, id, content).await
}

/// See [`Node::detached`].
pub(super) fn task(node: &Node, id: TaskId) -> DetachedTask {
    DetachedTask { node: node.clone(), id }
}

/// See [`Node::detached_tasks`].
pub(super) async fn list(node: &Node) -> Result<DetachedTasks, Error> {
    match ask_keepers(node, DetachedCall::List).await? {
        Told::List { tasks, silent } => Ok(DetachedTasks { tasks, silent }),
        _ => Err(CustodyError::NoAnswer.into()),
    }
}

async fn deposit(node: &Node, id: TaskId, content: Content) -> Result<DetachedTask, Error> {
    let Content { kind, key, payload, job } = content;
    ask_keepers(node, DetachedCall::Deposit { task: id, kind, key, payload, job }).await?;
    Ok(task(node, id))
}

async fn ask_keepers(node: &Node, call: DetachedCall) -> Result<Told, Error> {
    node.ask_work(|reply| WorkCommand::Detached { call, reply }).await?
}

impl DetachedTask {
    /// Its id: whoever knows it may ask for the task.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// What a keeper tells of it now.
    ///
    /// # Errors
    /// [`Error::Detached`].
    pub async fn status(&self) -> Result<TaskStatus, Error> {
        Ok(self.ask(None, Duration::ZERO, false).await?.1)
    }

    /// Follows it: `each` is given its status now, whenever that changes, and with each note of its handler. Returns the
    /// last status, when it has ended. It goes on while keepers die and others take over.
    ///
    /// # Errors
    /// [`Error::Detached`] with [`Refusal::Unknown`] if its keepers say for 20 s that there is no such task.
    pub async fn follow(&self, mut each: impl FnMut(&TaskStatus)) -> Result<TaskStatus, Error> {
        let (mut seen, mut last) = (None, None);
        let (mut known, mut failures) = (time::now(), 0);
        let mut rng = rt::rng("detached task");
        loop {
            match self.ask(seen, WAIT, false).await {
                Ok((mark, status)) => {
                    (seen, known, failures) = (Some(mark), time::now(), 0);
                    if last.as_ref() != Some(&status) {
                        each(&status);
                    }
                    if status.end.is_some() {
                        return Ok(status);
                    }
                    last = Some(status);
                }
                Err(Error::Detached(error)) if error.may_pass() => {
                    let denied = error == CustodyError::Refused(Refusal::Unknown);
                    if denied && time::now() >= known + UNKNOWN_FOR {
                        return Err(error.into());
                    }
                    time::sleep(full_jitter(&mut rng, PAUSE.0, PAUSE.1, failures)).await;
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for its end, as [`follow`](DetachedTask::follow) does, and returns its outcome.
    ///
    /// # Errors
    /// [`Error::Job`] with the task's own error; [`Error::Detached`] with [`CustodyError::Dropped`] if its result isn't kept
    /// any more.
    pub async fn outcome(&self) -> Result<Bytes, Error> {
        self.follow(|_| {}).await?;
        let (mut failures, mut rng) = (0, rt::rng("detached task"));
        let begun = time::now();
        loop {
            match self.ask_with_outcome().await {
                Ok(outcome) => return outcome.map_err(Error::Job),
                Err(Error::Detached(error)) if error.may_pass() && time::now() < begun + 3 * UNKNOWN_FOR => {
                    time::sleep(full_jitter(&mut rng, PAUSE.0, PAUSE.1, failures)).await;
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends it, down to the program that a worker runs, and returns how it ended: [`JobError::Cancelled`] if it was open.
    ///
    /// # Errors
    /// [`Error::Detached`] with [`Refusal::NotYours`] if another submitted it.
    pub async fn cancel(&self) -> Result<TaskStatus, Error> {
        ask_keepers(&self.node, DetachedCall::Cancel { task: self.id }).await?;
        self.follow(|_| {}).await
    }

    /// Submits a task that failed once more, under a new random id, with all of its life.
    ///
    /// # Errors
    /// [`Error::Detached`] with [`CustodyError::NotFailed`], or [`CustodyError::Dropped`] if its payload isn't kept any more.
    pub async fn retry(&self) -> Result<DetachedTask, Error> {
        let told = ask_keepers(&self.node, DetachedCall::Content { task: self.id }).await?;
        let Told::Status { status, content, .. } = told else { return Err(CustodyError::NoAnswer.into()) };
        if status.end.is_none_or(|end| end.class() == Some(Class::Result)) {
            return Err(CustodyError::NotFailed.into());
        }
        let mut content = *content.ok_or(CustodyError::Dropped)?;
        content.job.parent = Some(self.id);
        let id = TaskId::random(&mut rt::rng("detached task"));
        deposit(&self.node, id, content).await
    }

    async fn ask(
        &self,
        seen: Option<Mark>,
        wait: Duration,
        outcome: bool,
    ) -> Result<(Mark, TaskStatus), Error> {
        match ask_keepers(&self.node, DetachedCall::Ask { task: self.id, seen, wait, outcome }).await? {
            Told::Status { mark, status, .. } => Ok((mark, *status)),
            _ => Err(CustodyError::NoAnswer.into()),
        }
    }

    async fn ask_with_outcome(&self) -> Result<Result<Bytes, JobError>, Error> {
        let call = DetachedCall::Ask { task: self.id, seen: None, wait: Duration::ZERO, outcome: true };
        match ask_keepers(&self.node, call).await? {
            Told::Status { outcome: Some(outcome), .. } => Ok(outcome),
            Told::Status { status, .. } if status.end.is_some() => Err(CustodyError::Dropped.into()),
            _ => Err(CustodyError::NoAnswer.into()),
        }
    }
}
