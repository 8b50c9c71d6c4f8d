//! Tasks, and the threads of a node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{io, thread};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Which of a node's threads a task runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Sockets, sessions, paths, failure detector: one dedicated thread.
    Net,
    /// Ring, jobs, replication: one thread.
    Work,
    /// Database commits, which block: one thread.
    Disk,
    /// Handlers: a bounded pool.
    Compute,
}

/// The threads of one node. Dropping the last clone ends them; tasks still running are dropped.
#[derive(Clone)]
pub struct Planes(Arc<Inner>);

struct Inner {
    net: Handle,
    work: Handle,
    disk: Handle,
    compute: Option<tokio::runtime::Runtime>,
    // Dropping a sender ends its plane's thread.
    _net_guard: oneshot::Sender<()>,
    _work_guard: oneshot::Sender<()>,
    _disk_guard: oneshot::Sender<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(pool) = self.compute.take() {
            // Not `drop`: it would block on a handler that is still running.
            pool.shutdown_background();
        }
    }
}

/// The most closures of [`Planes::blocking`] that run at once; further ones wait.
const BLOCKING_THREADS: usize = 64;

impl Planes {
    /// Starts a node's threads; their names begin with `name`, and `pool` is the number of handler threads.
    ///
    /// # Errors
    /// The operating system's error when it can't start a thread.
    pub fn start(name: &str, pool: usize) -> io::Result<Planes> {
        let (net, net_guard) = plane_thread(format!("{name}-net"))?;
        let (work, work_guard) = plane_thread(format!("{name}-work"))?;
        let (disk, disk_guard) = plane_thread(format!("{name}-disk"))?;
        let compute = Builder::new_multi_thread()
            .worker_threads(pool.max(1))
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name(format!("{name}-pool"))
            .enable_all()
            .build()?;
        Ok(Planes(Arc::new(Inner {
            net,
            work,
            disk,
            compute: Some(compute),
            _net_guard: net_guard,
            _work_guard: work_guard,
            _disk_guard: disk_guard,
        })))
    }

    /// Runs `future` on a plane. A panic inside it is caught and becomes the handle's [`JoinError`].
    pub fn spawn<F>(&self, plane: Plane, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = match plane {
            Plane::Net => &self.0.net,
            Plane::Work => &self.0.work,
            Plane::Disk => &self.0.disk,
            Plane::Compute => self.pool(),
        };
        JoinHandle(handle.spawn(future))
    }

    /// Runs a closure that blocks or computes for long, on a thread beside the handlers' pool.
    pub fn blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        JoinHandle(self.pool().spawn_blocking(work))
    }

    fn pool(&self) -> &Handle {
        self.0.compute.as_ref().expect("present until drop").handle()
    }
}

/// One OS thread with a current-thread runtime; it ends when the returned sender is dropped.
fn plane_thread(name: String) -> io::Result<(Handle, oneshot::Sender<()>)> {
    let (guard, ended) = oneshot::channel::<()>();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(name).spawn(move || {
        // An error means that the guard was dropped, which ends this thread.
        let _ = runtime.block_on(ended);
        runtime.shutdown_background();
    })?;
    Ok((handle, guard))
}

/// Runs `future` on the plane of the caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    JoinHandle(tokio::spawn(future))
}

/// Waits until the caller's computation is done: it is, here. In the simulated world that takes time.
pub async fn caught_up() {}

/// Lets other tasks of this plane run.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// Waits for a task. Dropping the handle doesn't stop the task.
#[derive(Debug)]
pub struct JoinHandle<T>(tokio::task::JoinHandle<T>);

impl<T> JoinHandle<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|error| {
            if error.is_panic() {
                JoinError::Panicked(panic_message(&*error.into_panic()))
            } else {
                JoinError::Cancelled
            }
        })
    }
}

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It panicked; the text is the panic's message.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// It was aborted, or its plane ended.
    #[error("the task was cancelled")]
    Cancelled,
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}
