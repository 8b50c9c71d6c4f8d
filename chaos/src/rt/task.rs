//! Tasks, and the planes of a node.
//!
//! A panic is returned as a value to the task that awaits the handle. A panic that is not awaited would leave a host
//! that looks healthy and does less than it should, so it ends the run. That is the case if the handle hasn't been
//! polled yet, if the handle is gone, or if the handle is dropped without another poll.

use crate::kernel::process::Role;
use crate::world::{cpu, process, sim};
use madsim::runtime::{Handle, NodeHandle};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::world::task::spawn_on;
pub use crate::world::task::{JoinError, JoinHandle, spawn};

/// The thread of a node on which a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Sockets, sessions, paths, failure detector.
    Net,
    /// Ring, jobs, replication.
    Work,
    /// Database commits.
    Disk,
    /// Handlers.
    Compute,
}

/// The planes of one node, a scheduling node each; a pinned CPU stops all but the network's. Dropping the last clone ends them;
/// tasks still running are dropped.
#[derive(Clone)]
pub struct Planes(Arc<Inner>);

struct Inner {
    net: NodeHandle,
    work: NodeHandle,
    disk: NodeHandle,
    compute: NodeHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // After the run there is nothing left to end.
        if let Ok(handle) = Handle::try_current() {
            let nodes = [self.net.id(), self.work.id(), self.compute.id(), self.disk.id()];
            for node in nodes {
                process::end_node(&handle, node);
            }
            process::forget_nodes(&nodes);
        }
    }
}

impl Planes {
    /// Starts a node's planes; `name` is the prefix of their names, and `pool` the number of compute threads. It matters on a
    /// host whose computation [takes time](crate::world::Host::cpu).
    ///
    /// # Errors
    /// When the caller isn't on a host whose process runs.
    pub fn start(name: &str, pool: usize) -> io::Result<Planes> {
        let place = sim::live_place()?;
        let handle = Handle::current();
        let net = process::new_node(&handle, place, &format!("{name}-net"), Role::Net);
        let work = process::new_node(&handle, place, &format!("{name}-work"), Role::Work);
        let compute = process::new_node(&handle, place, &format!("{name}-compute"), Role::Compute(pool));
        let disk = process::new_node(&handle, place, &format!("{name}-disk"), Role::Disk);
        Ok(Planes(Arc::new(Inner { net, work, disk, compute })))
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
            Plane::Work => &self.0.work,
            Plane::Disk => &self.0.disk,
            Plane::Compute => &self.0.compute,
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

/// The caller computes for so long, on a desktop: its thread is busy, and other tasks of the plane wait. What the caller
/// sends still leaves at the beginning of that time; see [`caught_up`]. It takes no time on a host without a
/// [processor](crate::world::Host::cpu).
pub fn spend(time: Duration) {
    sim::try_with(|sim| cpu::spend(sim, time));
}

/// Waits until the time that the caller has [spent](spend) is over: for what must not be seen before the work is done.
pub async fn caught_up() {
    cpu::caught_up().await;
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
