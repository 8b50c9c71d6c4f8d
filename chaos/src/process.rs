//! Processes: the scheduling nodes that a host's boot runs on, and how they begin and end.
//!
//! Each plane is a madsim node, made anew for each boot, so that a task dropped late still names the boot that
//! it belonged to. Nothing here is called while the world is borrowed: madsim takes locks of its own and may
//! drop futures.

use crate::host::{HostId, HostState, Role};
use crate::sim::{self, Place};
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId;
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future whose panics are values: `Err` with the message.
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
        // What the future holds is dropped now, as a finished task's is, not with the handle.
        self.0 = None;
        Poll::Ready(caught)
    }
}

thread_local! {
    /// Where the last panic of this thread was.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on, panics leave their place behind for [`panicked_at`]; what is printed stays as it was.
pub(crate) fn note_panic_locations() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(at) = info.location() {
            LAST_PANIC.set(Some(format!(", at {}:{}:{}", at.file(), at.line(), at.column())));
        }
        before(info);
    }));
}

/// Where the last panic of this thread was, as the end of a message.
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

/// Ends the run because the caller panicked and nobody hears of it. Of a process that is over nobody sees what its
/// tasks still do before the executor drops them.
pub(crate) fn unheard(what: &str, message: &str) {
    if let Some(why) = told(what, message) {
        sim::try_with(|sim| sim.fail(why));
    }
}

/// A panic of the caller, in words; `None` if its process is over.
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

/// Makes a scheduling node for a place; it stands still if its role does now.
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

/// How many spawned tasks a run forgets about at a time.
const SPAWNS_PER_SWEEP: u64 = 1 << 14;

/// Counts a spawned task. A madsim node remembers every task that it ever had, until somebody counts them.
pub(crate) fn count_spawn() {
    let sweep = sim::try_with(|sim| {
        sim.spawns += 1;
        sim.spawns % SPAWNS_PER_SWEEP == 0
    });
    if sweep == Some(true) {
        Handle::current().metrics().num_tasks();
    }
}

/// Takes the nodes of ended planes off their host's list.
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

/// Ends a scheduling node: its tasks run no more, and their futures are dropped by the executor.
pub(crate) fn end_node(handle: &Handle, node: NodeId) {
    // A paused node's tasks would be dropped here and now, under madsim's locks and in the caller's name.
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
    // Called over there, so that whatever it does is done by the process.
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
    /// Killed, with its unsynced bytes: the kernel closes its sockets.
    Crash,
    /// The whole host: nobody is told anything.
    PowerLoss,
}

/// Ends a host's process. Does nothing if none runs.
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

/// Stops or continues the nodes of a host as its flags say.
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
