//! Tasks, and the planes of a node.
//!
//! A panic is returned as a value to the task that awaits the handle. A panic that is not awaited would leave a host
//! that looks healthy and does less than it should, so it ends the run. That is the case if the handle hasn't been
//! polled yet, if the handle is gone, or if the handle is dropped without another poll.

use crate::kernel::process::Role;
use crate::world::{process, sim};
use madsim::runtime::{Handle, NodeHandle};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use crate::world::task::spawn_on;
pub use crate::world::task::{JoinError, JoinHandle, spawn};

/// The thread of a node on which a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Sockets, sessions, paths, failure detector.
    Net,
    /// Ring, jobs, replication, database commits.
    Work,
    /// Handlers.
    Compute,
}

/// The planes of one node: a scheduling node for the network plane, and one for work and compute, which a
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
    #[track_caller]
    pub fn spawn<F>(&self, plane: Plane, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let node = match plane {
            Plane::Net => &self.0.net,
            Plane::Work | Plane::Compute => &self.0.compute,
        };
        spawn_on(node, future)
    }

    /// Runs a closure that blocks or computes for long, on the compute plane.
    #[track_caller]
    pub fn blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        spawn_on(&self.0.compute, async move { work() })
    }
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
