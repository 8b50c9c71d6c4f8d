//! Computation, and waiting for a disk, takes time: a task runs when a processor of its plane is free, and keeps it for what it spends.
//!
//! A host computes in no time unless the scenario gives it a [processor](crate::world::Host::cpu), and its disk answers at
//! once unless a fault slows it down. Then code on it says
//! where work happens, by [`rt::task::spend`](crate::rt::task::spend), and overload exists: queues in front of a plane, late
//! timers, tasks behind others.
//!
//! A poll happens at one instant, so what it sends leaves at the beginning of the time that it takes. The end of a task is
//! seen at the end of that time, and so is what comes after [`rt::task::caught_up`](crate::rt::task::caught_up).

use super::sim::{self, Sim};
use crate::ids::HostId;
use crate::kernel::processor::{Processors, Turn};
use crate::kernel::timer::TimerKind;
use madsim::task::NodeId;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The processors of all planes.
#[derive(Default)]
pub(crate) struct Cpus {
    planes: BTreeMap<NodeId, Processors>,
    /// Whether they take time on some host; else every computation takes no time, and nothing is looked up.
    on: bool,
    /// The plane and the processor of the poll that runs now.
    running: Option<(NodeId, usize)>,
}

impl Cpus {
    /// A plane has so many processors.
    pub(crate) fn add(&mut self, node: NodeId, processors: usize) {
        self.planes.insert(node, Processors::new(processors));
    }

    /// A plane has ended. Its tasks are dropped by the executor, so nobody has to be woken.
    pub(crate) fn remove(&mut self, node: NodeId) -> Option<Processors> {
        self.planes.remove(&node)
    }

    /// From now on, computation may take time.
    pub(crate) fn turn_on(&mut self) {
        self.on = true;
    }
}

/// Begins a poll of the calling task, or sets its wake for when a processor is free. Returns the processor; `None` where
/// nothing takes time.
fn begin_poll(sim: &mut Sim, node: NodeId, cx: &Context<'_>) -> Poll<Option<usize>> {
    let now_ns = sim.now_ns();
    let Some(plane) = sim.cpus.planes.get(&node) else { return Poll::Ready(None) };
    match plane.turn(now_ns) {
        Turn::Now(processor) => {
            sim.cpus.running = Some((node, processor));
            Poll::Ready(Some(processor))
        }
        Turn::Later(at_ns) => {
            wait_until(sim, node, at_ns, cx);
            Poll::Pending
        }
    }
}

fn wait_until(sim: &mut Sim, node: NodeId, at_ns: u64, cx: &Context<'_>) {
    let Some(plane) = sim.cpus.planes.get_mut(&node) else { return };
    if plane.wait(at_ns, cx.waker()) {
        sim.agenda.set_timer(at_ns, TimerKind::Cpu(node));
    }
}

/// A processor of a plane is free: the tasks that wait for one are woken.
pub(super) fn processor_is_free(sim: &mut Sim, now_ns: u64, node: NodeId) {
    let waiting = sim.cpus.planes.get_mut(&node).map(|plane| plane.due(now_ns));
    waiting.into_iter().flatten().for_each(Waker::wake);
}

/// The poll that runs now computes for so long on a desktop.
pub(crate) fn spend(sim: &mut Sim, time: Duration) {
    let Some((node, _)) = sim.cpus.running else { return };
    let percent = sim.hosts.places.get(&node).map_or(0, |place| sim.host(place.host).cpu.percent());
    block(sim, time.saturating_mul(percent) / 100);
}

/// A host's processor becomes slower or faster by a fault.
pub(super) fn set_fault(sim: &mut Sim, host: HostId, times: Option<u32>) {
    let now_ns = sim.now_ns();
    let cpu = &mut sim.host_mut(host).cpu;
    let before = cpu.percent();
    cpu.fault = times;
    let after = cpu.percent();
    let Sim { hosts, cpus, agenda, .. } = sim;
    cpus.on = true;
    for (node, plane) in &mut cpus.planes {
        if hosts.places.get(node).is_some_and(|place| place.host == host)
            && let Some(at_ns) = plane.rescale(now_ns, before, after)
        {
            agenda.set_timer(at_ns, TimerKind::Cpu(*node));
        }
    }
}

/// The thread of the poll that runs now is blocked for so long, by its computation or by a device.
pub(crate) fn block(sim: &mut Sim, time: Duration) {
    let Some((node, processor)) = sim.cpus.running else { return };
    let now_ns = sim.now_ns();
    if let Some(plane) = sim.cpus.planes.get_mut(&node) {
        plane.spend(processor, now_ns, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Whether the time that a processor has spent is over; else the task is woken then.
fn is_over(sim: &mut Sim, node: NodeId, processor: usize, cx: &Context<'_>) -> Poll<()> {
    let free_ns = sim.cpus.planes.get(&node).map_or(0, |plane| plane.free_at(processor));
    if free_ns <= sim.now_ns() {
        return Poll::Ready(());
    }
    wait_until(sim, node, free_ns, cx);
    Poll::Pending
}

/// Waits until the time that a processor has spent is over.
async fn over((node, processor): (NodeId, usize)) {
    poll_fn(|cx| sim::with(|sim| is_over(sim, node, processor, cx))).await;
}

/// Runs a task's future on the processors of its plane. Its end comes when the time that it has spent is over.
pub(crate) async fn on_processor<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut last = None;
    let output = poll_fn(|cx| {
        if !sim::with(|sim| sim.cpus.on) {
            return future.as_mut().poll(cx);
        }
        let node = madsim::plugin::node();
        match sim::with(|sim| begin_poll(sim, node, cx)) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(processor) => last = processor.map(|processor| (node, processor)),
        }
        let polled = future.as_mut().poll(cx);
        // Code that is dropped with the world has none any more.
        sim::try_with(|sim| sim.cpus.running = None);
        polled
    })
    .await;
    if let Some(processor) = last {
        over(processor).await;
    }
    output
}

/// Waits until the time that the caller has spent is over.
pub(crate) async fn caught_up() {
    if let Some(processor) = sim::with(|sim| sim.cpus.running) {
        over(processor).await;
    }
}
