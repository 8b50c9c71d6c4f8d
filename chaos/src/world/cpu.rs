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
use crate::kernel::processor::{Processors, Turn};
use crate::kernel::timer::TimerKind;
use madsim::task::NodeId;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
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

impl Sim {
    /// Begins a poll of the calling task, or sets its wake for when a processor is free. Returns the processor; `Ok(None)`
    /// where computation takes no time.
    fn begin_poll(&mut self, node: NodeId, cx: &Context<'_>) -> Poll<Option<usize>> {
        let now_ns = self.now_ns();
        let Some(plane) = self.cpus.planes.get(&node) else { return Poll::Ready(None) };
        match plane.turn(now_ns) {
            Turn::Now(processor) => {
                self.cpus.running = Some((node, processor));
                Poll::Ready(Some(processor))
            }
            Turn::Later(at_ns) => {
                self.wait_for_processor(node, at_ns, cx);
                Poll::Pending
            }
        }
    }

    fn wait_for_processor(&mut self, node: NodeId, at_ns: u64, cx: &Context<'_>) {
        let Some(plane) = self.cpus.planes.get_mut(&node) else { return };
        if plane.wait(at_ns, cx.waker()) {
            self.agenda.set_timer(at_ns, TimerKind::Cpu(node));
        }
    }

    /// A processor of a plane is free. The wakers are returned, so that they are woken outside of the borrow of the table.
    pub(super) fn processor_is_free(&mut self, now_ns: u64, node: NodeId) {
        let waiting = self.cpus.planes.get_mut(&node).map(|plane| plane.due(now_ns));
        waiting.into_iter().flatten().for_each(std::task::Waker::wake);
    }

    /// The poll that runs now computes for so long on a desktop.
    pub(crate) fn spend(&mut self, time: Duration) {
        let Some((node, _)) = self.cpus.running else { return };
        let percent = self.hosts.places.get(&node).map_or(0, |place| self.host(place.host).cpu.percent());
        self.block(time.saturating_mul(percent) / 100);
    }

    /// The thread of the poll that runs now is blocked for so long, by its computation or by a device.
    pub(crate) fn block(&mut self, time: Duration) {
        let Some((node, processor)) = self.cpus.running else { return };
        let now_ns = self.now_ns();
        if let Some(plane) = self.cpus.planes.get_mut(&node) {
            plane.spend(processor, now_ns, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Whether the time that a processor has spent is over; else the task is woken then.
    fn is_over(&mut self, node: NodeId, processor: usize, cx: &Context<'_>) -> bool {
        let free_ns = self.cpus.planes.get(&node).map_or(0, |plane| plane.free_at(processor));
        let over = free_ns <= self.now_ns();
        if !over {
            self.wait_for_processor(node, free_ns, cx);
        }
        over
    }
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
        match sim::with(|sim| sim.begin_poll(node, cx)) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(processor) => last = processor.map(|processor| (node, processor)),
        }
        let polled = future.as_mut().poll(cx);
        // Code that is dropped with the world has none any more.
        sim::try_with(|sim| sim.cpus.running = None);
        polled
    })
    .await;
    if let Some((node, processor)) = last {
        poll_fn(|cx| match sim::with(|sim| sim.is_over(node, processor, cx)) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
    output
}

/// Waits until the time that the caller has spent is over.
pub(crate) async fn caught_up() {
    let running = sim::with(|sim| sim.cpus.running);
    if let Some((node, processor)) = running {
        poll_fn(|cx| match sim::with(|sim| sim.is_over(node, processor, cx)) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}
