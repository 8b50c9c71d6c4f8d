//! Tasks, and the planes of a node.
//!
//! A panic is returned as a value to the task that awaits the handle. A panic that is not awaited would leave a host
//! that looks healthy and does less than it should, so it ends the run. That is the case if the handle hasn't been
//! polled yet, if the handle is gone, or if the handle is dropped without another poll.

use crate::kernel::host::Role;
use crate::kernel::process::{self, CatchPanic};
use crate::world::sim;
use madsim::runtime::{Handle, NodeHandle};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// The thread of a node on which a task runs.
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
    /// Starts a node's planes; `name` is the prefix of their names. The pool's size has no effect in the simulation:
    /// a handler takes no time by itself.
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

    /// Runs `future` on a plane. A panic inside it is caught and becomes the handle's [`JoinError`]; a panic that is
    /// not awaited ends the run.
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
    let hearing = Hearing::default();
    JoinHandle { task: node.spawn(hearing.clone().watch(future)), hearing }
}

/// Runs `future` on the plane of the caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    process::count_spawn();
    let hearing = Hearing::default();
    JoinHandle { task: madsim::task::spawn(hearing.clone().watch(future)), hearing }
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

/// Whether a task's panic is awaited: shared by the task and its handle.
#[derive(Debug, Clone, Default)]
struct Hearing(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    /// Whether the handle has been polled, and not dropped since.
    awaited: bool,
    /// The message of a panic that the handle hasn't returned yet.
    untold: Option<String>,
}

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task's future to its end, or to its panic.
    async fn watch<F: Future>(self, future: F) -> Result<F::Output, String> {
        let ended = CatchPanic::new(future).await;
        if let Err(message) = &ended {
            if self.lock().awaited {
                let told = process::told("a task", message);
                self.lock().untold = told;
            } else {
                process::unheard("a task", message);
            }
        }
        ended
    }
}

/// Waits for a task. Dropping the handle doesn't end the task.
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: madsim::task::JoinHandle<Result<T, String>>,
    hearing: Hearing,
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let untold = {
            let mut heard = self.hearing.lock();
            heard.awaited = false;
            heard.untold.take()
        };
        if let Some(why) = untold {
            sim::try_with(|sim| sim.fail(why));
        }
    }
}

impl<T> JoinHandle<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.task).poll(cx);
        let mut heard = self.hearing.lock();
        heard.awaited = true;
        if polled.is_ready() {
            heard.untold = None;
        }
        polled.map(|ended| match ended {
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
