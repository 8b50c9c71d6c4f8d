//! The driver's part of an executor: it starts handlers on the compute plane and reports their results.
//!
//! A handler is an async function `(JobContext, Bytes) -> Result<Bytes, JobError>`. Each run has a supervisor on the
//! work plane, so time limits and cancellations are noticed even if handlers in tight loops occupy every compute
//! thread. A panic is caught and fails only its own task. A run that must end early is told so
//! ([`JobContext::is_cancelled`]), is aborted at its next await, and is reported after [`ABORT_GRACE`] at the latest,
//! even if its handler ignores both.
//!
//! A payload that is a file is fetched before its handler begins; the time for that counts as part of the
//! task's life, and not of the kind's time limit.

mod large;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Instrument as _;

pub use self::large::{Content, LargeFile};
use super::blob::desk::{Desk, DeskError};
use super::blob::folder::Spool;
use super::job::policy::{Needs, NotAPolicy, Policy};
use super::job::{JobError, KindLimits, Run, RunId, Submitter, TaskId};
use crate::ring::Epoch;
use crate::rt;
use crate::rt::sync::{Notify, mpsc};
use crate::rt::task::{JoinError, Plane, Planes};

/// The future of a handler, with its result.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Content, JobError>> + Send>>;
/// A handler of one kind.
pub type Handler = Arc<dyn Fn(JobContext, Content) -> HandlerFuture + Send + Sync>;

/// How long an aborted handler may take to end before another task gets its place. A loop that never awaits still
/// keeps its thread; it is counted as [`PoolStats::stuck`].
pub const ABORT_GRACE: Duration = Duration::from_secs(1);

/// The handlers of a node, by kind.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<String, (Handler, KindLimits)>,
    policies: BTreeMap<String, Needs>,
}

impl Handlers {
    /// An empty set of handlers.
    pub fn new() -> Handlers {
        Handlers::default()
    }

    /// Adds the handler of a kind, or replaces it.
    pub fn register<F, Fut>(&mut self, kind: &str, limits: KindLimits, handler: F)
    where
        F: Fn(JobContext, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, JobError>> + Send + 'static,
    {
        let boxed: Handler = Arc::new(move |context, payload| match payload {
            Content::Bytes(bytes) => {
                let ended = handler(context, bytes);
                Box::pin(async move { ended.await.map(Content::Bytes) })
            }
            Content::File(_) => {
                let error = format!("the handler of kind `{}` reads no files", context.kind);
                Box::pin(async move { Err(JobError::permanent(error)) })
            }
        });
        self.by_kind.insert(kind.to_owned(), (boxed, limits));
    }

    /// Adds the handler of a kind whose payloads and results may be files.
    pub fn register_large<F, Fut>(&mut self, kind: &str, limits: KindLimits, handler: F)
    where
        F: Fn(JobContext, Content) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Content, JobError>> + Send + 'static,
    {
        let boxed: Handler = Arc::new(move |context, payload| Box::pin(handler(context, payload)));
        self.by_kind.insert(kind.to_owned(), (boxed, limits));
    }

    /// Permits those of this policy to submit tasks of a kind, beside those of its other policies.
    ///
    /// # Errors
    /// [`NotAPolicy`].
    pub fn allow(&mut self, kind: &str, policy: Policy) -> Result<(), NotAPolicy> {
        self.policies.entry(kind.to_owned()).or_default().add(policy)
    }

    /// The policies, for [`Jobs::allow`](super::job::Jobs::allow).
    pub fn policies(&self) -> impl Iterator<Item = (&str, &Needs)> {
        self.policies.iter().map(|(kind, needs)| (kind.as_str(), needs))
    }

    /// The first kind that has a policy and no handler.
    pub fn policy_without_handler(&self) -> Option<&str> {
        self.policies.keys().find(|kind| !self.by_kind.contains_key(*kind)).map(String::as_str)
    }

    /// The kinds and their limits, for [`Jobs::register`](super::job::Jobs::register) and the membership
    /// metadata.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &KindLimits)> {
        self.by_kind.iter().map(|(kind, (_, limits))| (kind.as_str(), limits))
    }

    fn get(&self, kind: &str) -> Option<Handler> {
        self.by_kind.get(kind).map(|(handler, _)| handler.clone())
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_kind.keys()).finish()
    }
}

/// A report of the pool to the driver of [`Jobs`](super::job::Jobs).
#[derive(Debug)]
pub enum Report {
    /// For [`Jobs::finished`](super::job::Jobs::finished).
    Finished(Finished),
    /// For [`Jobs::progress`](super::job::Jobs::progress).
    Progress {
        /// The run.
        run: RunId,
        /// The handler's note.
        note: Bytes,
    },
}

/// The end of one run.
#[derive(Debug)]
pub struct Finished {
    /// The run.
    pub run: RunId,
    /// The handler's result.
    pub result: Result<Bytes, JobError>,
}

/// Counters of a pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// Handlers started.
    pub started: AtomicU64,
    /// Handlers that panicked.
    pub panicked: AtomicU64,
    /// Handlers that exceeded their time.
    pub timed_out: AtomicU64,
    /// Aborted handlers that hadn't ended after [`ABORT_GRACE`].
    pub stuck: AtomicU64,
    /// Progress notes dropped because the driver didn't drain the channel fast enough.
    pub notes_dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Wish {
    made: AtomicBool,
    notify: Notify,
}

impl Wish {
    fn make(&self) {
        self.made.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    fn is_made(&self) -> bool {
        self.made.load(Ordering::Acquire)
    }

    async fn wait(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        // Registered before the check, so that a request made between the two is not lost.
        notified.as_mut().enable();
        if !self.is_made() {
            notified.await;
        }
    }
}

/// A handler's information about its run.
#[derive(Clone)]
pub struct JobContext {
    /// The task.
    pub task: TaskId,
    /// The submitter's count of attempts, from 0.
    pub attempt: u32,
    /// The kind.
    pub kind: String,
    /// The job key.
    pub key: Bytes,
    /// The fencing token, to be shown to a shared resource with each effect.
    pub token: Epoch,
    /// The time at which the run will be ended.
    pub deadline: Instant,
    submitter: Submitter,
    run: RunId,
    wish: Arc<Wish>,
    planes: Planes,
    desk: Option<Desk>,
    reports: mpsc::Sender<Report>,
    stats: Arc<PoolStats>,
}

impl JobContext {
    /// The peer that submitted the task: it asked for it over its own session, so nobody else can name it. Of several that
    /// submitted the same task, the first.
    pub fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    /// Whether the run must end: it was cancelled, is over its time, or is no longer needed.
    pub fn is_cancelled(&self) -> bool {
        self.wish.is_made()
    }

    /// Waits until the run must end.
    pub async fn cancelled(&self) {
        self.wish.wait().await;
    }

    /// Reports progress to the submitter. Only the latest note before a beat is sent, cut to
    /// [`MAX_PROGRESS_LEN`](super::job::options::MAX_PROGRESS_LEN).
    pub fn progress(&self, note: impl Into<Bytes>) {
        if self.reports.try_send(Report::Progress { run: self.run, note: note.into() }).is_err() {
            self.stats.notes_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins the file of a large result; [`Spool::finish`] makes it the handler's [`Content`].
    ///
    /// # Errors
    /// The node has no folder for large files, or there is too little room in it: both may be otherwise elsewhere.
    pub async fn spool(&self) -> Result<Spool, JobError> {
        let desk = self.desk.as_ref().ok_or_else(|| large::elsewhere(&DeskError::NoFolder))?;
        desk.spool().await.map_err(|error| large::elsewhere(&error))
    }

    /// Runs a closure that blocks or computes for long, outside the pool's threads. The closure can't be aborted, so
    /// it should check [`is_cancelled`](JobContext::is_cancelled) now and then.
    ///
    /// # Errors
    /// The closure's own error, or [`JobError::Panicked`].
    pub async fn blocking<F, T>(&self, work: F) -> Result<T, JobError>
    where
        F: FnOnce() -> Result<T, JobError> + Send + 'static,
        T: Send + 'static,
    {
        let span = tracing::Span::current();
        let work = move || span.in_scope(work);
        self.planes.blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
    }
}

impl std::fmt::Debug for JobContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobContext")
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Runs handlers and reports their results on a bounded channel.
pub struct Pool {
    planes: Planes,
    desk: Option<Desk>,
    handlers: Handlers,
    reports: mpsc::Sender<Report>,
    running: BTreeMap<RunId, Arc<Wish>>,
    stats: Arc<PoolStats>,
}

impl Pool {
    /// A pool on the compute plane of `planes`. The driver drains the other end of `reports`. If the channel is full,
    /// results wait and notes are dropped.
    pub fn new(planes: Planes, handlers: Handlers, reports: mpsc::Sender<Report>) -> Pool {
        Pool { planes, desk: None, handlers, reports, running: BTreeMap::new(), stats: Arc::default() }
    }

    /// Runs tasks with large files too, by this desk.
    #[must_use]
    pub fn with_desk(mut self, desk: Desk) -> Pool {
        self.desk = Some(desk);
        self
    }

    /// Starts a handler. Its end is reported as [`Report::Finished`] exactly once.
    pub fn start(&mut self, run: Run) {
        let wish = Arc::new(Wish::default());
        self.running.insert(run.id, wish.clone());
        self.stats.started.fetch_add(1, Ordering::Relaxed);
        let handler = self.handlers.get(&run.kind);
        let context = JobContext {
            task: run.task,
            attempt: run.attempt,
            kind: run.kind.clone(),
            key: run.key.clone(),
            token: run.token,
            deadline: run.life,
            submitter: run.submitter.clone(),
            run: run.id,
            wish,
            planes: self.planes.clone(),
            desk: self.desk.clone(),
            reports: self.reports.clone(),
            stats: self.stats.clone(),
        };
        let span =
            tracing::error_span!(target: "nurl::job", "task", task = %context.task, kind = %context.kind);
        let supervisor = supervise(context, handler, run);
        self.planes.spawn(Plane::Work, supervisor.instrument(span));
    }

    /// Ends a run early. The end is still reported.
    pub fn cancel(&self, run: RunId) {
        if let Some(wish) = self.running.get(&run) {
            wish.make();
        }
    }

    /// Forgets a run. The driver must call it for each [`Finished`].
    pub fn forget(&mut self, run: RunId) {
        self.running.remove(&run);
    }

    /// The number of runs that were started and not yet forgotten.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Counters.
    pub fn stats(&self) -> &Arc<PoolStats> {
        &self.stats
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for wish in self.running.values() {
            wish.make();
        }
    }
}

async fn supervise(context: JobContext, handler: Option<Handler>, run: Run) {
    let (reports, id) = (context.reports.clone(), run.id);
    let result = match handler {
        Some(handler) => run_large_or_small(context, handler, run).await,
        None => Err(JobError::UnknownKind(context.kind.clone())),
    };
    // An error means that the driver is gone, so the report has no receiver.
    let _ = reports.send(Report::Finished(Finished { run: id, result })).await;
}

/// Runs a handler with what is in the payload, and makes its result what its task expects.
async fn run_large_or_small(context: JobContext, handler: Handler, run: Run) -> Result<Bytes, JobError> {
    let wish = context.wish.clone();
    let payload = rt::select! {
        payload = large::payload(&context, &run) => payload?,
        () = wish.wait() => return Err(JobError::Cancelled),
        () = rt::time::sleep_until(run.life) => return Err(JobError::Deadline),
    };
    let result = handle(context.clone(), handler, payload, run.deadline(rt::time::now())).await?;
    large::result(&context, &run, result).await
}

/// Runs a handler until a deadline; `limited` says whether that is the kind's limit.
async fn handle(
    mut context: JobContext,
    handler: Handler,
    payload: Content,
    (deadline, limited): (Instant, bool),
) -> Result<Content, JobError> {
    context.deadline = deadline;
    let (stats, wish, planes) = (context.stats.clone(), context.wish.clone(), context.planes.clone());
    // The handler is called inside the spawned task, because it may panic before its first await.
    let mut task =
        planes.spawn(Plane::Compute, async move { handler(context, payload).await }.in_current_span());
    let early = rt::select! {
        ended_by_itself = &mut task => Err(ended_by_itself),
        () = wish.wait() => Ok(JobError::Cancelled),
        () = rt::time::sleep_until(deadline) => {
            stats.timed_out.fetch_add(1, Ordering::Relaxed);
            Ok(if limited { JobError::TimedOut } else { JobError::Deadline })
        }
    };
    match early {
        // An error of another task that the handler waited for. As this task's own it would mean that this node
        // gives its tasks back, so that submitters pass it over.
        Err(Ok(Err(JobError::Cancelled))) => {
            Err(JobError::retriable("the handler waited for something that was cancelled"))
        }
        Err(Ok(result)) => result,
        Err(Err(error)) => {
            if matches!(error, JoinError::Panicked(_)) {
                stats.panicked.fetch_add(1, Ordering::Relaxed);
            }
            Err(ended(error))
        }
        Ok(error) => {
            wish.make();
            task.abort();
            if rt::time::timeout(ABORT_GRACE, task).await.is_err() {
                stats.stuck.fetch_add(1, Ordering::Relaxed);
            }
            Err(error)
        }
    }
}

fn ended(error: JoinError) -> JobError {
    match error {
        JoinError::Panicked(message) => JobError::Panicked(message),
        JoinError::Cancelled => JobError::Cancelled,
    }
}

#[cfg(all(test, not(feature = "sim")))]
mod tests;
