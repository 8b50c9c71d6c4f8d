//! Processes: the scheduling nodes of a host's boot, and how they begin and end.
//!
//! Each plane is a madsim node, made anew for each boot, so that a task that is dropped late still maps to its own
//! boot. Nothing here may be called while the world is borrowed, because madsim takes locks of its own and may drop
//! futures.

use crate::ids::HostId;
use crate::kernel::host::{HostState, Role};
use crate::world::sim::{self, Place};
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId;
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that returns panics as values: `Err` with the message.
pub(crate) struct CatchPanic<F>(Option<Pin<Box<F>>>);

impl<F> CatchPanic<F> {
    pub(crate) fn new(future: F) -> CatchPanic<F> {
        CatchPanic(Some(Box::pin(future)))
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut().expect("polled again after its end");
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        let caught = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => {
                sim::try_with(|sim| sim.stats.task_panics += 1);
                Err(panic_message(&*payload))
            }
        };
        // Drops the future's content now, as for a finished task, rather than with the handle.
        self.0 = None;
        Poll::Ready(caught)
    }
}

thread_local! {
    /// The location of the last panic of this thread.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on, panics record their location for [`panicked_at`]; their printed messages stay the same.
pub(crate) fn note_panic_locations() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(at) = info.location() {
            LAST_PANIC.set(Some(format!(", at {}:{}:{}", at.file(), at.line(), at.column())));
        }
        before(info);
    }));
}

/// The location of the last panic of this thread, as the end of a message.
pub(crate) fn panicked_at() -> String {
    LAST_PANIC.take().unwrap_or_default()
}

pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}

/// Ends the run because the caller panicked and no task awaits it. A panic of an ended process is ignored: its tasks
/// may still run until the executor drops them, but have no effect.
pub(crate) fn unheard(what: &str, message: &str) {
    if let Some(why) = told(what, message) {
        sim::try_with(|sim| sim.fail(why));
    }
}

/// A message about a panic of the caller; `None` if the caller's process has ended.
pub(crate) fn told(what: &str, message: &str) -> Option<String> {
    let at = panicked_at();
    let whose = match sim::place() {
        Some(place) => sim::with(|sim| {
            let host = sim.host(place.host);
            host.runs(place.boot).then(|| format!("host {}", host.name))
        })?,
        None => "the scenario".to_owned(),
    };
    Some(format!("{what} of {whose} panicked: {message}{at}"))
}

/// Makes a scheduling node for a place, paused if its role is stopped now.
pub(crate) fn new_node(handle: &Handle, place: Place, name: &str, role: Role) -> NodeHandle {
    let host_name = sim::with(|sim| sim.host(place.host).name.clone());
    let node = handle.create_node().name(format!("{host_name}/{name}")).build();
    let still = sim::with(|sim| {
        sim.places.insert(node.id(), place);
        let host = sim.host_mut(place.host);
        host.nodes.push((node.clone(), role));
        stands_still(host, role)
    });
    if still {
        handle.pause(node.id());
    }
    node
}

/// The number of spawned tasks after which a run clears madsim's task lists.
const SPAWNS_PER_SWEEP: u64 = 1 << 14;

/// Counts a spawned task. A madsim node keeps a record of every task until `num_tasks` removes those of ended ones.
pub(crate) fn count_spawn() {
    let sweep = sim::try_with(|sim| {
        sim.spawns += 1;
        sim.spawns % SPAWNS_PER_SWEEP == 0
    });
    if sweep == Some(true) {
        Handle::current().metrics().num_tasks();
    }
}

/// Removes the nodes of ended planes from their host's list.
pub(crate) fn forget_nodes(gone: &[NodeId]) {
    let forgotten = sim::try_with(|sim| {
        let place = gone.first().and_then(|node| sim.places.get(node).copied())?;
        let nodes = std::mem::take(&mut sim.host_mut(place.host).nodes);
        let (gone, kept): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|(node, _)| gone.contains(&node.id()));
        sim.host_mut(place.host).nodes = kept;
        Some(gone)
    });
    drop(forgotten);
}

/// Ends a scheduling node: its tasks no longer run, and the executor drops their futures.
pub(crate) fn end_node(handle: &Handle, node: NodeId) {
    // A paused node's tasks would be dropped within this call, under madsim's locks and in the caller's name.
    handle.resume(node);
    handle.kill(node);
}

/// Begins a boot's process: its main node, and its main future if the host has one.
pub(crate) fn begin(host: HostId) {
    let place = sim::with(|sim| Place { host, boot: sim.host(host).boot });
    new_node(&Handle::current(), place, "main", Role::Net);
    run_main(host);
}

/// Spawns the main future on the main node.
pub(crate) fn run_main(host: HostId) {
    let (main, node, boot) = sim::with(|sim| {
        let state = sim.host(host);
        (state.main.clone(), state.nodes.first().map(|(node, _)| node.clone()), state.boot)
    });
    let (Some(main), Some(node)) = (main, node) else { return };
    // Called on that node, so that all of its effects are the process's.
    let future = CatchPanic::new(async move { main().await });
    node.spawn(async move {
        match future.await {
            Ok(()) => exit(host, boot),
            Err(message) => unheard("the process", &message),
        }
    });
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its main future returned: the kernel closes its sockets, nothing unsynced is lost.
    Exit,
    /// Killed: unsynced bytes may be lost, and the kernel closes its sockets.
    Crash,
    /// The whole host has lost its power: no peer is notified.
    PowerLoss,
}

/// Ends a host's process, if one runs. A power loss also cuts the power of a host without one.
pub(crate) fn end(host: HostId, how: End) {
    let nodes = sim::with(|sim| {
        if how == End::PowerLoss {
            sim.host_mut(host).powered = false;
            sim.tcp_power_ends(host);
        }
        let now_ns = sim.now_ns();
        let state = sim.host_mut(host);
        if !state.alive {
            return Vec::new();
        }
        state.alive = false;
        state.note_progress(now_ns);
        state.armed.clear();
        match how {
            End::Exit => state.disk.release_handles(),
            End::Crash | End::PowerLoss => {
                let lost = state.disk.crash();
                sim.stats.disk_sectors_lost += lost;
            }
        }
        let ports: Vec<_> = sim.host(host).udp_ports.values().flatten().map(|(_, socket)| *socket).collect();
        for socket in ports {
            sim.udp_close(socket);
        }
        sim.tcp_process_ends(host);
        let state = sim.host_mut(host);
        state.paused = false;
        state.pinned = false;
        std::mem::take(&mut state.nodes)
    });
    let handle = Handle::current();
    for (node, _) in nodes {
        end_node(&handle, node.id());
    }
}

fn exit(host: HostId, boot: u32) {
    if sim::with(|sim| sim.host(host).runs(boot)) {
        end(host, End::Exit);
    }
}

fn stands_still(host: &HostState, role: Role) -> bool {
    host.paused || host.suspended || (host.pinned && role == Role::Compute)
}

/// Pauses or resumes the nodes of a host according to its flags.
pub(crate) fn apply_stops(host: HostId) {
    let nodes: Vec<_> = sim::with(|sim| {
        let now_ns = sim.now_ns();
        sim.host_mut(host).note_progress(now_ns);
        let state = sim.host(host);
        state.nodes.iter().map(|(node, role)| (node.clone(), stands_still(state, *role))).collect()
    });
    let handle = Handle::current();
    for (node, still) in nodes {
        if still {
            handle.pause(node.id());
        } else {
            handle.resume(node.id());
        }
    }
}
