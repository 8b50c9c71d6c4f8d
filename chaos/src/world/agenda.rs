//! The future of a world: packets in flight, timers, and the task that advances time to the next of them.

use crate::ids::HostId;
use crate::kernel::slab::Key;
use crate::kernel::timer::{Due, TimerKind, Timers};
use crate::wire::flight::Flight;
use madsim::task::NodeId;
use std::task::Waker;

/// An event that is due.
pub(crate) enum Event {
    /// A packet arrives.
    Packet(Flight),
    /// A task is to be woken.
    Wake(Waker),
    /// A TCP connection of a host is to be advanced.
    Tcp(HostId, Key),
    /// A processor of a plane is free.
    Cpu(NodeId),
}

/// The events of the future, in their order.
pub(crate) struct Agenda {
    timers: Timers,
    /// The packets in flight, by the number that `timers` has for each.
    flights: Vec<Option<Flight>>,
    free_flights: Vec<u32>,
    /// The task that advances the world, and the time for which it is armed.
    driver: Option<Waker>,
    armed_ns: u64,
}

impl Agenda {
    pub(crate) fn new() -> Agenda {
        Agenda {
            timers: Timers::new(),
            flights: Vec::new(),
            free_flights: Vec::new(),
            driver: None,
            armed_ns: 0,
        }
    }

    /// Makes sure that the driver runs at `at_ns`.
    fn arm(&mut self, at_ns: u64) {
        if at_ns < self.armed_ns {
            self.armed_ns = at_ns;
            self.wake_driver();
        }
    }

    /// The driver's task.
    pub(crate) fn set_driver(&mut self, waker: &Waker) {
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// The driver is armed for `at_ns`.
    pub(crate) fn is_armed(&mut self, at_ns: u64) {
        self.armed_ns = at_ns;
    }

    pub(crate) fn wake_driver(&mut self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Puts a packet on the way; it arrives at `at_ns`.
    #[inline]
    pub(crate) fn launch(&mut self, at_ns: u64, flight: Flight) {
        let index = match self.free_flights.pop() {
            Some(index) => {
                self.flights[index as usize] = Some(flight);
                index
            }
            None => {
                self.flights.push(Some(flight));
                (self.flights.len() - 1) as u32
            }
        };
        self.timers.push_packet(at_ns, index);
        self.arm(at_ns);
    }

    pub(crate) fn set_timer(&mut self, at_ns: u64, kind: TimerKind) -> Key {
        let key = self.timers.insert(at_ns, kind);
        self.arm(at_ns);
        key
    }

    /// Cancels a timer. Its content is returned, so that the caller drops it outside of any borrow.
    pub(crate) fn cancel(&mut self, timer: Key) -> Option<TimerKind> {
        self.timers.cancel(timer)
    }

    /// See [`Timers::rewake`].
    pub(crate) fn rewake(&mut self, timer: Key, waker: &Waker) -> Option<Option<Waker>> {
        self.timers.rewake(timer, waker)
    }

    /// Reschedules the sleeps of a host whose clock has changed.
    pub(crate) fn rebase(&mut self, host: HostId, to_world: impl Fn(u64) -> u64) {
        self.timers.rebase(host, to_world);
        self.wake_driver();
    }

    /// The events that are due at `now_ns` are about to be handled. No event is earlier than 0, so no event that is
    /// created meanwhile wakes the driver.
    pub(crate) fn begin(&mut self) {
        self.armed_ns = 0;
    }

    /// Takes the first event that is due at `now_ns`.
    #[inline]
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<Event> {
        loop {
            return Some(match self.timers.pop_due(now_ns)? {
                Due::Packet(index) => {
                    let flight = self.flights[index as usize].take();
                    self.free_flights.push(index);
                    match flight {
                        Some(flight) => Event::Packet(flight),
                        None => continue,
                    }
                }
                Due::Wake(waker) => Event::Wake(waker),
                Due::Tcp(host, key) => Event::Tcp(host, key),
                Due::Cpu(node) => Event::Cpu(node),
            });
        }
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.timers.next_at()
    }
}
