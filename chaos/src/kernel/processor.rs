//! The processors of a plane: what runs on one takes time, and what finds none free waits.
//!
//! A task runs in polls. A poll begins on the processor that is free first, happens at one instant, and keeps its
//! processor busy for the time that it has spent; until then no other poll begins there. So a packet that arrives
//! meanwhile waits in its socket, a timer is late, and a task waits behind another one, as on a real thread.

use std::task::Waker;

/// How slow a host computes, in percent of what a desktop takes; at 0, computation takes no time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slowness {
    /// By its hardware.
    pub(crate) own: u32,
    /// How many times as slow a fault makes it.
    pub(crate) fault: Option<u32>,
}

impl Slowness {
    /// The percentage now. A fault also slows down a host whose computation takes no time otherwise.
    pub(crate) fn percent(self) -> u32 {
        match self.fault {
            None => self.own,
            Some(times) => if self.own == 0 { 100 } else { self.own }.saturating_mul(times),
        }
    }
}

/// The processors of one plane.
#[derive(Debug)]
pub(crate) struct Processors {
    /// When each is free again, in the world's time.
    free_ns: Vec<u64>,
    /// The tasks that wait for one, in the order in which they came.
    waiting: Vec<Waker>,
    /// The instant for which their wake is set; 0 if none is.
    armed_ns: u64,
}

/// The answer to a task that wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It runs now, on this processor.
    Now(usize),
    /// All are busy until then.
    Later(u64),
}

impl Processors {
    /// So many processors, at least one.
    pub(crate) fn new(count: usize) -> Processors {
        Processors { free_ns: vec![0; count.max(1)], waiting: Vec::new(), armed_ns: 0 }
    }

    /// Whether a task may run at `now_ns`.
    pub(crate) fn turn(&self, now_ns: u64) -> Turn {
        let (first, free_ns) =
            self.free_ns.iter().enumerate().min_by_key(|(_, free_ns)| **free_ns).expect("at least one");
        if *free_ns <= now_ns { Turn::Now(first) } else { Turn::Later(*free_ns) }
    }

    /// The poll that runs on a processor has taken so long.
    pub(crate) fn spend(&mut self, processor: usize, now_ns: u64, spent_ns: u64) {
        let free_ns = &mut self.free_ns[processor];
        *free_ns = (*free_ns).max(now_ns).saturating_add(spent_ns);
    }

    /// When a processor is free again.
    pub(crate) fn free_at(&self, processor: usize) -> u64 {
        self.free_ns[processor]
    }

    /// From now on computation takes `after` percent of its time instead of `before`: also what is left of a poll. Returns when
    /// those that wait have to be woken, if any do.
    pub(crate) fn rescale(&mut self, now_ns: u64, before: u32, after: u32) -> Option<u64> {
        for free_ns in &mut self.free_ns {
            let left =
                u128::from(free_ns.saturating_sub(now_ns)) * u128::from(after) / u128::from(before.max(1));
            *free_ns = now_ns.saturating_add(u64::try_from(left).unwrap_or(u64::MAX));
        }
        let first = self.free_ns.iter().min().copied().filter(|_| !self.waiting.is_empty())?;
        self.armed_ns = first.max(1);
        Some(first)
    }

    /// A task waits until `at_ns`. Returns whether a wake must be set for then.
    pub(crate) fn wait(&mut self, at_ns: u64, waker: &Waker) -> bool {
        if !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        let sooner = self.armed_ns == 0 || at_ns < self.armed_ns;
        if sooner {
            self.armed_ns = at_ns;
        }
        sooner
    }

    /// The wake that was set for `at_ns` is due: the tasks that wait. One that finds no processor waits again.
    pub(crate) fn due(&mut self, at_ns: u64) -> Vec<Waker> {
        if self.armed_ns <= at_ns {
            self.armed_ns = 0;
        }
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_slows_down_what_the_hardware_gives() {
        let percent = |own, fault| Slowness { own, fault }.percent();
        assert_eq!([percent(0, None), percent(800, None)], [0, 800]);
        assert_eq!([percent(0, Some(20)), percent(800, Some(2))], [2_000, 1_600]);
    }

    #[test]
    fn a_poll_waits_for_the_processor_that_is_free_first() {
        let mut two = Processors::new(2);
        assert_eq!(two.turn(10), Turn::Now(0));
        two.spend(0, 10, 100);
        assert_eq!(two.turn(10), Turn::Now(1));
        two.spend(1, 10, 50);
        assert_eq!(two.turn(59), Turn::Later(60));
        assert_eq!(two.turn(60), Turn::Now(1));
        assert_eq!((two.free_at(0), two.free_at(1)), (110, 60));
    }

    #[test]
    fn what_one_poll_spends_adds_up_from_its_beginning() {
        let mut one = Processors::new(1);
        one.spend(0, 10, 5);
        one.spend(0, 10, 5);
        assert_eq!(one.turn(19), Turn::Later(20));
        one.spend(0, 500, 1);
        assert_eq!(one.free_at(0), 501);
    }

    #[test]
    fn what_is_left_of_a_poll_takes_as_long_as_it_does_from_now_on() {
        let mut one = Processors::new(1);
        one.spend(0, 0, 1_000);
        assert_eq!(one.rescale(200, 800, 100), None, "nobody waits");
        assert_eq!(one.free_at(0), 300);
        assert!(one.wait(300, Waker::noop()));
        assert_eq!(one.rescale(250, 100, 400), Some(450));
        assert!(!one.wait(450, Waker::noop()), "set already");
        assert_eq!(one.rescale(300, 400, 0), Some(300), "free at once");
        assert_eq!(one.due(300).len(), 1);
    }

    #[test]
    fn one_wake_is_set_for_all_that_wait_and_an_earlier_one_for_an_earlier_processor() {
        let mut two = Processors::new(2);
        assert!(two.wait(100, Waker::noop()));
        assert!(!two.wait(100, Waker::noop()), "set already");
        assert!(two.wait(60, Waker::noop()), "the other processor is free before");
        assert_eq!(two.due(60).len(), 1, "the same task once");
        assert!(two.due(100).is_empty());
        assert!(two.wait(200, Waker::noop()));
    }
}
