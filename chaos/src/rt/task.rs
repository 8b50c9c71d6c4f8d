//! Tasks, and the planes of a node.

use crate::host::Role;
use crate::process::{self, CatchPanic};
use crate::sim;
use madsim::runtime::{Handle, NodeHandle};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Which of a node's threads a task runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Sockets, sessions, paths, failure detector.
    Net,
    /// Ring, jobs, replication, database commits.
    State,
    /// Handlers.
    Compute,
}

/// The planes of one node: a scheduling node for the network plane, and one for state and compute, which a
/// pinned CPU stops. Dropping the last clone ends them; tasks still running are dropped.
#[derive(Clone)]
pub struct Planes(Arc<Inner>);

struct Inner {
    net: NodeHandle,
    compute: NodeHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // After the run there is nothing left to end.
        if let Ok(handle) = Handle::try_current() {
            let nodes = [self.net.id(), self.compute.id()];
            for node in nodes {
                process::end_node(&handle, node);
            }
            process::forget_nodes(&nodes);
        }
    }
}

impl Planes {
    /// Starts a node's planes; `name` is a prefix of theirs. The pool's size has no effect in the world: a
    /// handler takes no time by itself.
    ///
    /// # Errors
    /// When the caller isn't on a host whose process runs.
    pub fn start(name: &str, _pool: usize) -> io::Result<Planes> {
        let place = sim::live_place()?;
        let handle = Handle::current();
        let net = process::new_node(&handle, place, &format!("{name}-net"), Role::Net);
        let compute = process::new_node(&handle, place, &format!("{name}-compute"), Role::Compute);
        Ok(Planes(Arc::new(Inner { net, compute })))
    }

    /// Runs `future` on a plane. A panic inside it is caught and becomes the handle's [`JoinError`].
    pub fn spawn<F>(&self, plane: Plane, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let node = match plane {
            Plane::Net => &self.0.net,
            Plane::State | Plane::Compute => &self.0.compute,
        };
        spawn_on(node, future)
    }

    /// Runs a closure that blocks or computes for long, on the compute plane.
    pub fn blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        spawn_on(&self.0.compute, async move { work() })
    }
}

pub(crate) fn spawn_on<F>(node: &NodeHandle, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    process::count_spawn();
    JoinHandle(node.spawn(CatchPanic::new(future)))
}

/// Runs `future` on the plane of the caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    process::count_spawn();
    JoinHandle(madsim::task::spawn(CatchPanic::new(future)))
}

/// Lets other tasks of this plane run.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for a task. Dropping it lets the task run on.
#[derive(Debug)]
pub struct JoinHandle<T>(madsim::task::JoinHandle<Result<T, String>>);

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
        Pin::new(&mut self.0).poll(cx).map(|ended| match ended {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(message)) => Err(JoinError::Panicked(message)),
            Err(_) => Err(JoinError::Cancelled),
        })
    }
}

/// Why a task gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It panicked; the text is the panic's message.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// It was aborted, or its plane ended.
    #[error("the task was cancelled")]
    Cancelled,
}
