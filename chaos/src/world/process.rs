//! How the processes of hosts begin and end: the scheduling nodes of a host's boot.
//!
//! Each plane is a madsim node, made anew for each boot, so that a task that is dropped late still maps to its own
//! boot. Nothing here may be called while the world is borrowed, because madsim takes locks of its own and may drop
//! futures.

use super::cpu::on_processor;
use super::history::HostPhase;
use super::panics::{CatchPanic, unheard};
use super::sighting::{ProtocolEvent, WORLD};
use super::sim::{self, Sim};
use crate::ids::HostId;
use crate::kernel::process::{Main, Place, ProcessEnd, Role};
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId;

/// Makes a scheduling node for a place, paused if its role is stopped now.
pub(crate) fn new_node(handle: &Handle, place: Place, name: &str, role: Role) -> NodeHandle {
    let host_name = sim::with(|sim| sim.host(place.host).name.clone());
    let node = handle.create_node().name(format!("{host_name}/{name}")).build();
    let still = sim::with(|sim| {
        sim.hosts.places.insert(node.id(), place);
        sim.cpus.add(node.id(), role.threads());
        let host = sim.host_mut(place.host);
        host.process.nodes.push((node.clone(), role));
        host.stands_still(role)
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
        sim.hosts.spawns += 1;
        sim.hosts.spawns % SPAWNS_PER_SWEEP == 0
    });
    if sweep == Some(true) {
        Handle::current().metrics().num_tasks();
    }
}

/// Removes the nodes of ended planes from their host's list.
pub(crate) fn forget_nodes(gone: &[NodeId]) {
    let forgotten = sim::try_with(|sim| {
        let place = gone.first().and_then(|node| sim.hosts.places.get(node).copied())?;
        Some(sim.host_mut(place.host).process.forget_nodes(gone))
    });
    drop(forgotten);
}

/// Ends a scheduling node: its tasks no longer run, and the executor drops their futures.
pub(crate) fn end_node(handle: &Handle, node: NodeId) {
    drop(sim::try_with(|sim| sim.cpus.remove(node)));
    // A paused node's tasks would be dropped within this call, under madsim's locks and in the caller's name.
    handle.resume(node);
    handle.kill(node);
}

/// Begins a boot's process: its main node, and its main future if the host has one.
pub(crate) fn begin(host: HostId) {
    let place = sim::with(|sim| Place { host, boot: sim.host(host).process.boot });
    new_node(&Handle::current(), place, "main", Role::Net);
    show_phase(host);
    run_main(host);
}

/// Spawns the main future on the main node.
pub(crate) fn run_main(host: HostId) {
    let (main, node, boot) = sim::with(|sim| {
        let process = &sim.host(host).process;
        (process.main.clone(), process.nodes.first().map(|(node, _)| node.clone()), process.boot)
    });
    let (Some(main), Some(node)) = (main, node) else { return };
    // Called on that node, so that all of its effects are the process's.
    let Main { make, spawned } = main;
    let future = CatchPanic::spawned_at(spawned, async move { make().await });
    node.spawn(async move {
        match on_processor(future).await {
            Ok(()) => exit(host, boot),
            Err(message) => unheard("the process", &message),
        }
    });
}

/// Ends a host's process, if one runs. A power loss also cuts the power of a host without one.
pub(crate) fn end(host: HostId, how: ProcessEnd) {
    let nodes = sim::with(|sim| {
        if how == ProcessEnd::PowerLoss {
            sim.host_mut(host).powered = false;
            let now_ns = sim.now_ns();
            let disk = &mut sim.host_mut(host).disk;
            let (lost, content) = (disk.power_loss(), disk.content());
            sim.record.stats.disk_sectors_lost += lost;
            tell(sim, host, "its power is lost", &[("sectors_lost", lost)]);
            sim.record.disk_after_crash(now_ns, host, &content);
            sim.with_tcp(host, |tcp, _, out| tcp.power_ends(out));
        }
        let now_ns = sim.now_ns();
        let state = sim.host_mut(host);
        if !state.process.alive {
            return Vec::new();
        }
        state.process.alive = false;
        state.note_progress(now_ns);
        match how {
            ProcessEnd::Crash => tell(sim, host, "its process is killed", &[]),
            ProcessEnd::Exit => tell(sim, host, "its process ends", &[]),
            ProcessEnd::PowerLoss => {}
        }
        let state = sim.host_mut(host);
        state.process.armed.clear();
        state.disk.process_ends();
        if how == ProcessEnd::Crash {
            let content = state.disk.content();
            sim.record.disk_after_crash(now_ns, host, &content);
        }
        sim.host_mut(host).udp.close_all();
        sim.with_tcp(host, |tcp, now_ns, out| tcp.process_ends(now_ns, out));
        let process = &mut sim.host_mut(host).process;
        process.paused = false;
        process.pinned = false;
        std::mem::take(&mut process.nodes)
    });
    show_phase(host);
    let handle = Handle::current();
    for (node, _) in nodes {
        end_node(&handle, node.id());
    }
}

/// Tells a reader who watches what happens to a host. The world does it, so no program could log it.
fn tell(sim: &mut Sim, host: HostId, what: &str, fields: &[(&'static str, u64)]) {
    let fields = fields.iter().map(|(name, value)| (*name, value.to_string())).collect();
    let now_ns = sim.now_ns();
    sim.record.trace.event(
        now_ns,
        Some(host),
        ProtocolEvent { target: WORLD, name: what.to_owned(), fields },
    );
}

/// Shows the phase of a host to a reader who watches.
fn show_phase(host: HostId) {
    sim::with(|sim| {
        if sim.record.trace.is_watched() {
            let (now_ns, state) = (sim.now_ns(), sim.host(host));
            let phase = match &state.process {
                _ if !state.powered => HostPhase::PowerOff,
                process if !process.alive => HostPhase::Down,
                _ if state.suspended => HostPhase::Suspended,
                process if process.paused => HostPhase::Paused,
                process if process.pinned => HostPhase::Pinned,
                _ => HostPhase::Running,
            };
            sim.record.trace.phase(now_ns, host, phase);
        }
    });
}

fn exit(host: HostId, boot: u32) {
    if sim::with(|sim| sim.host(host).runs(boot)) {
        end(host, ProcessEnd::Exit);
    }
}

/// Pauses or resumes the nodes of a host according to its flags.
pub(crate) fn apply_stops(host: HostId) {
    let nodes: Vec<_> = sim::with(|sim| {
        let now_ns = sim.now_ns();
        sim.host_mut(host).note_progress(now_ns);
        let state = sim.host(host);
        state.process.nodes.iter().map(|(node, role)| (node.clone(), state.stands_still(*role))).collect()
    });
    show_phase(host);
    let handle = Handle::current();
    for (node, still) in nodes {
        if still {
            handle.pause(node.id());
        } else {
            handle.resume(node.id());
        }
    }
}
