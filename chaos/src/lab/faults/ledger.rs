//! The account of a plan in a run: which faults have begun, and which states they hold.
//!
//! A state that a fault changes is *held*: the first fault that holds a host down takes it down and saves the previous
//! state, and the last one that ends brings it up again.

use super::StartedPlan;
use crate::ids::{End, HostId, NetId};
use crate::lab::plan::{Plan, Planned};
use crate::wire::nets::Reserved;
use crate::world::net::Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// A state that a fault keeps changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hold {
    Effect(usize),
    Cut(HostId, HostId),
    Down(HostId),
    /// A crash or power loss armed in the host's process by the fault of this number: it keeps no host down before
    /// it happens.
    Armed(usize, HostId),
    /// The trouble that the fault of this number makes to a host's disk.
    Disk(usize, HostId),
    /// The trouble that the fault of this number makes to a host's lookups.
    Lookups(usize, HostId),
    /// A host's name is stale by the fault of this number.
    StaleName(usize, HostId),
    /// A point of a host's program that the fault of this number turned on.
    Point(usize, HostId),
    Paused(HostId),
    Suspended(HostId),
    Pinned(HostId),
    SlowCpu(HostId),
    Step(usize, HostId),
    /// The wall clock is wrong by the fault of this number until it is corrected.
    Unset(usize, HostId),
    Drift(HostId),
    Nic(HostId, String),
    Place(HostId),
    Off(NetId),
    Outer(NetId),
}

impl Hold {
    /// Whether addresses are taken away meanwhile.
    pub(super) fn takes_addrs(&self) -> bool {
        matches!(self, Hold::Place(_) | Hold::Outer(_))
    }
}

/// The previous state.
#[derive(Debug, Clone)]
pub(super) enum Before {
    /// The state without faults.
    Usual,
    StepMs(i64),
    DriftPpb(i64),
    Place(String, Net, Vec<IpAddr>),
    Outer(NetId, Vec<IpAddr>),
}

/// The plan of a run, and its active faults.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The plan in use, once it has been started.
    pub(super) plan: Option<Plan>,
    /// The kinds and weights that the seed drew, if it did.
    pub(super) drawn: Option<String>,
    /// When it was started.
    pub(super) started: Duration,
    /// Faults that were skipped or applied only in part, with the reason, by number.
    pub(super) skipped: BTreeMap<usize, String>,
    /// Faults that have begun.
    pub(super) begun: BTreeSet<usize>,
    /// Targets that didn't exist when the plan was started, by the fault's number.
    pub(super) unknown: BTreeMap<usize, String>,
    /// The holds of each active fault.
    pub(super) active: BTreeMap<usize, Vec<Hold>>,
    /// How many faults hold each state, and what it was before.
    holds: BTreeMap<Hold, (u32, Before)>,
    pub(super) healed: bool,
}

impl Ledger {
    /// Whether a fault holds this state.
    pub(super) fn is_held(&self, hold: &Hold) -> bool {
        self.holds.contains_key(hold)
    }

    /// Adds a hold; returns whether it is the first on this state.
    pub(super) fn hold(&mut self, number: usize, hold: Hold, was: impl FnOnce() -> Before) -> bool {
        self.active.entry(number).or_default().push(hold.clone());
        let held = self.holds.entry(hold).or_insert_with(|| (0, was()));
        held.0 += 1;
        held.0 == 1
    }

    /// The report on the faults for a run's outcome.
    pub(super) fn report(&self) -> Option<StartedPlan> {
        let plan = self.plan.clone()?;
        let told = |(number, planned): (usize, &Planned)| {
            let fault = format!("fault {} ({planned})", number + 1);
            match (self.skipped.get(&number), self.unknown.get(&number)) {
                (Some(why), _) if self.begun.contains(&number) => {
                    Some(format!("{fault} is not whole: {why}"))
                }
                (Some(why), _) => Some(format!("{fault} was skipped: {why}")),
                _ if self.begun.contains(&number) => None,
                (None, Some(why)) => Some(format!("{fault} was never due; {why}")),
                (None, None) if self.healed => Some(format!("{fault} was never due: all was healed before")),
                (None, None) => Some(format!("{fault} was never due: the run was over before")),
            }
        };
        let skipped = plan.faults().iter().enumerate().filter_map(told).collect();
        let missing = |(number, why): (&usize, &String)| format!("fault {}: {why}", number + 1);
        let unknown = self.unknown.iter().map(missing).collect();
        let begun = self.begun.len();
        let idle = (0..plan.len()).filter(|number| !self.begun.contains(number)).collect();
        let (drawn, at) = (self.drawn.clone(), self.started);
        Some(StartedPlan { plan, drawn, at, begun, idle, skipped, unknown })
    }

    /// Addresses that faults have taken from a host or a box for a while.
    pub(super) fn reserved(&self) -> Vec<Reserved> {
        let of = |(hold, (_, before)): (&Hold, &(u32, Before))| match (hold, before) {
            (Hold::Place(id), Before::Place(_, net, ips)) => {
                Some(Reserved { end: End::Host(*id), net: net.id(), ips: ips.clone() })
            }
            (Hold::Outer(id), Before::Outer(outside, ips)) => {
                Some(Reserved { end: End::Box(*id), net: *outside, ips: ips.clone() })
            }
            _ => None,
        };
        self.holds.iter().filter_map(of).collect()
    }

    /// A crash or power loss that a fault armed has happened: now the fault keeps the host down.
    pub(super) fn fires(&mut self, number: usize, host: HostId) {
        let armed = Hold::Armed(number, host);
        if self.release(&armed).is_none() {
            return;
        }
        if let Some(active) = self.active.get_mut(&number) {
            active.retain(|hold| *hold != armed);
        }
        self.hold(number, Hold::Down(host), || Before::Usual);
    }

    /// Releases a hold; returns the previous state if it was the last hold on it.
    pub(super) fn release(&mut self, hold: &Hold) -> Option<Before> {
        let (count, _) = self.holds.get_mut(hold)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.holds.remove(hold).map(|(_, was)| was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hold_changes_a_state_and_the_last_release_gives_back_what_it_was() {
        let mut ledger = Ledger::default();
        let drift = || Hold::Drift(HostId(0));
        assert!(ledger.hold(0, drift(), || Before::DriftPpb(7)));
        assert!(!ledger.hold(1, drift(), || Before::DriftPpb(8)));
        assert!(ledger.release(&drift()).is_none());
        assert!(matches!(ledger.release(&drift()), Some(Before::DriftPpb(7))));
        assert!(ledger.release(&drift()).is_none());
    }

    #[test]
    fn an_armed_crash_that_has_happened_keeps_the_host_down() {
        let mut ledger = Ledger::default();
        let host = HostId(3);
        ledger.fires(0, host);
        assert!(!ledger.is_held(&Hold::Down(host)), "nothing was armed");
        ledger.hold(0, Hold::Armed(0, host), || Before::Usual);
        ledger.fires(0, host);
        assert!(ledger.is_held(&Hold::Down(host)) && !ledger.is_held(&Hold::Armed(0, host)));
        assert_eq!(ledger.active[&0], [Hold::Down(host)]);
    }

    #[test]
    fn addresses_are_reserved_while_a_fault_has_taken_them() {
        let mut ledger = Ledger::default();
        let ips = vec![IpAddr::from([10, 0, 0, 1])];
        let outer = Hold::Outer(NetId(1));
        ledger.hold(0, outer.clone(), || Before::Outer(NetId(0), ips.clone()));
        assert_eq!(ledger.reserved(), [Reserved { end: End::Box(NetId(1)), net: NetId(0), ips }]);
        ledger.release(&outer);
        assert!(ledger.reserved().is_empty());
    }
}
