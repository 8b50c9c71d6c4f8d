//! Fault plans: the faults of a run and their times, as data.
//!
//! A [`Plan`] is a list of [`Planned`] faults, each with its start, its [`Fault`] and its duration. A seed
//! [draws](draw) a plan for the [`Targets`] that a scenario offers, or a run is given one.
//! [`Trial::start_faults`](crate::Trial::start_faults) starts it in the background, and [`Trial::heal`](crate::Trial::heal)
//! ends it. A plan has a [text] that a person can edit, so it can be printed, changed, replayed and shrunk.
//!
//! Times count from the start of the plan, not from the world's beginning. So a plan hits the same phase of a
//! scenario also with fewer hosts, which need less time to find each other.
//!
//! Overlapping faults compose: a link has the effects of all its active faults, and a host is up again when the last
//! fault that keeps it down is over. A fault whose target doesn't exist is skipped, and a fault that is never due
//! never begins; the run reports both.

pub mod draw;
mod fault;
pub mod text;

pub use crate::kernel::disk::{DiskCall, DiskPace};
pub use crate::kernel::names::DnsFailure;
pub use crate::wire::effect::{Direction, Effect};
pub use draw::Targets;
pub use fault::{BoxFault, Fault, FaultKind, HostFault, LinkScope};

use crate::kernel::names::{ASK_ATTEMPTS, ASK_TIMEOUT};
use std::time::Duration;

/// A fault, when it begins and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its start, from that of the plan.
    pub at: Duration,
    /// The fault.
    pub fault: Fault,
    /// The time after which it is undone; `None` keeps it until everything is healed. It has no meaning for a fault
    /// that is over at once, such as a reboot.
    pub lasts: Option<Duration>,
}

/// The faults of a run, in the order of their start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    faults: Vec<Planned>,
}

impl Plan {
    /// A plan of these faults; those with the same start keep their order.
    pub fn new(mut faults: Vec<Planned>) -> Plan {
        faults.sort_by_key(|planned| planned.at);
        Plan { faults }
    }

    /// Its faults.
    pub fn faults(&self) -> &[Planned] {
        &self.faults
    }

    /// The most by which a packet or a lookup can be delayed if all of these faults are active at once. A link keeps the
    /// order of TCP segments, so later segments wait for a delayed one, also after the faults' end. A lookup ends at the
    /// resolver's last timeout at the latest.
    pub fn held_back(&self) -> Duration {
        let of = |planned: &Planned| match planned.fault {
            Fault::Link { effect: Effect::Latency { add, jitter }, .. } => add.saturating_add(jitter),
            Fault::Link { effect: Effect::Reorder { by, .. }, .. } => by,
            Fault::Link { effect: Effect::Clog { every }, .. } => every,
            _ => Duration::ZERO,
        };
        let packets = self.faults.iter().map(of).fold(Duration::ZERO, Duration::saturating_add);
        let slows_lookups =
            |planned: &Planned| matches!(planned.fault.kind(), FaultKind::DnsSlow | FaultKind::DnsFail);
        let lookups =
            if self.faults.iter().any(slows_lookups) { ASK_TIMEOUT * ASK_ATTEMPTS } else { Duration::ZERO };
        packets.max(lookups)
    }

    /// How many faults it has.
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// Whether nothing goes wrong.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }
}
