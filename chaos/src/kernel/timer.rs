//! The world's one queue of future events, ordered by (time, sequence number).
//!
//! Packets in flight are in a binary heap, because they are many and never cancelled. Timers are in an ordered map,
//! so that a dropped sleep can be removed. Both take their sequence numbers from one counter, so ties in time break
//! by the order of the calls that made them.

use super::slab::{Key, Slab};
use crate::ids::HostId;
use madsim::task::NodeId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::task::Waker;

/// The action of a timer.
pub(crate) enum TimerKind {
    /// Wakes a sleeping task of a host (or of the scenario itself), at this instant of the host's clock.
    Wake { host: Option<HostId>, local_ns: u64, waker: Waker },
    /// Advances a TCP connection of a host.
    Tcp(HostId, Key),
    /// Wakes the tasks that wait for a processor of a plane.
    Cpu(NodeId),
}

struct Timer {
    at: (u64, u64),
    kind: TimerKind,
}

/// An event that is due.
pub(crate) enum Due {
    /// A packet arrives; the number is its index in the table of packets in flight.
    Packet(u32),
    /// A task is to be woken.
    Wake(Waker),
    /// A TCP connection of a host is to be advanced.
    Tcp(HostId, Key),
    /// A processor of a plane is free.
    Cpu(NodeId),
}

/// A packet's arrival time, sequence number and table index, in one number, because moving and comparing these is
/// the world's most frequent operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival(u128);

/// Bits of a packet's table index: at most 16 million packets are in flight.
const PLACE_BITS: u32 = 24;

impl Arrival {
    fn new(at_ns: u64, seq: u64, packet: u32) -> Arrival {
        assert!(packet >> PLACE_BITS == 0 && seq >> (64 - PLACE_BITS) == 0, "a world has room for so many");
        Arrival(u128::from(at_ns) << 64 | u128::from(seq << PLACE_BITS | u64::from(packet)))
    }

    fn at_ns(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn at(self) -> (u64, u64) {
        (self.at_ns(), self.0 as u64 >> PLACE_BITS)
    }

    fn packet(self) -> u32 {
        self.0 as u32 & ((1 << PLACE_BITS) - 1)
    }
}

/// The packets and timers of the future.
pub(crate) struct Timers {
    next_seq: u64,
    packets: BinaryHeap<Reverse<Arrival>>,
    order: BTreeMap<(u64, u64), Key>,
    timers: Slab<Timer>,
}

impl Timers {
    pub(crate) const fn new() -> Timers {
        Timers { next_seq: 0, packets: BinaryHeap::new(), order: BTreeMap::new(), timers: Slab::new() }
    }

    fn seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    pub(crate) fn push_packet(&mut self, at_ns: u64, packet: u32) {
        let seq = self.seq();
        self.packets.push(Reverse(Arrival::new(at_ns, seq, packet)));
    }

    pub(crate) fn insert(&mut self, at_ns: u64, kind: TimerKind) -> Key {
        let at = (at_ns, self.seq());
        let key = self.timers.insert(Timer { at, kind });
        self.order.insert(at, key);
        key
    }

    /// Cancels a timer. Its content is returned, so that the caller drops it outside of any borrow.
    pub(crate) fn cancel(&mut self, key: Key) -> Option<TimerKind> {
        let timer = self.timers.remove(key)?;
        self.order.remove(&timer.at);
        Some(timer.kind)
    }

    /// Replaces the waker of a sleep that is polled again; returns the old waker if it differs, or `None` if the
    /// sleep has fired.
    pub(crate) fn rewake(&mut self, key: Key, new: &Waker) -> Option<Option<Waker>> {
        match &mut self.timers.get_mut(key)?.kind {
            TimerKind::Wake { waker, .. } if waker.will_wake(new) => Some(None),
            TimerKind::Wake { waker, .. } => Some(Some(std::mem::replace(waker, new.clone()))),
            TimerKind::Tcp(..) | TimerKind::Cpu(_) => None,
        }
    }

    /// Reschedules the sleeps of a host whose clock has changed.
    pub(crate) fn rebase(&mut self, host: HostId, to_world: impl Fn(u64) -> u64) {
        let keys: Vec<Key> = self.order.values().copied().collect();
        for key in keys {
            let Some(timer) = self.timers.get_mut(key) else { continue };
            let TimerKind::Wake { host: owner, local_ns, .. } = &timer.kind else { continue };
            if *owner != Some(host) {
                continue;
            }
            let old = timer.at;
            timer.at = (to_world(*local_ns), old.1);
            let new = timer.at;
            self.order.remove(&old);
            self.order.insert(new, key);
        }
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<u64> {
        let packet = self.packets.peek().map(|Reverse(arrival)| arrival.at_ns());
        let timer = self.order.first_key_value().map(|(at, _)| at.0);
        match (packet, timer) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes the first event that is due at `now_ns`.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<Due> {
        let packet = self.packets.peek().map(|Reverse(arrival)| arrival.at());
        let timer = self.order.first_key_value().map(|(at, _)| *at);
        let first_is_packet = match (packet, timer) {
            (Some(a), Some(b)) => a < b,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return None,
        };
        if first_is_packet {
            if packet?.0 > now_ns {
                return None;
            }
            let Reverse(arrival) = self.packets.pop()?;
            return Some(Due::Packet(arrival.packet()));
        }
        if timer?.0 > now_ns {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        let timer = self.timers.remove(key)?;
        Some(match timer.kind {
            TimerKind::Wake { waker, .. } => Due::Wake(waker),
            TimerKind::Tcp(host, connection) => Due::Tcp(host, connection),
            TimerKind::Cpu(node) => Due::Cpu(node),
        })
    }

    /// The number of pending timers.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(local_ns: u64) -> TimerKind {
        TimerKind::Wake { host: None, local_ns, waker: Waker::noop().clone() }
    }

    #[test]
    fn ties_break_by_the_order_of_the_calls() {
        let mut timers = Timers::new();
        timers.push_packet(5, 1);
        timers.insert(5, wake(5));
        timers.push_packet(5, 2);
        timers.push_packet(4, 3);
        let mut seen = Vec::new();
        while let Some(due) = timers.pop_due(5) {
            seen.push(match due {
                Due::Packet(n) => n,
                Due::Wake(_) | Due::Tcp(..) | Due::Cpu(_) => 0,
            });
        }
        assert_eq!(seen, [3, 1, 0, 2]);
    }

    #[test]
    fn a_cancelled_timer_leaves_nothing_behind() {
        let mut timers = Timers::new();
        let key = timers.insert(5, wake(5));
        assert!(timers.cancel(key).is_some());
        assert_eq!(timers.waiting(), 0);
        assert_eq!(timers.next_at(), None);
        assert!(timers.cancel(key).is_none());
    }

    #[test]
    fn nothing_is_due_early() {
        let mut timers = Timers::new();
        timers.push_packet(7, 1);
        assert!(timers.pop_due(6).is_none());
        assert_eq!(timers.next_at(), Some(7));
        assert!(timers.pop_due(7).is_some());
    }
}
