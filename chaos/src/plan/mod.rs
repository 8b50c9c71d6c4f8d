//! Fault plans: what goes wrong in a run, and when, as data.
//!
//! A [`Plan`] is a list of [`Planned`] faults, each with its moment, its [`Fault`] and how long it lasts. A seed
//! [draws](draw) one for the [`Targets`] that a scenario offers, or a run is given one; either way
//! [`Trial::unleash`](crate::Trial::unleash) lets it loose in the background and
//! [`Trial::heal`](crate::Trial::heal) ends it. A plan has a [text] that a person can edit, so it can be printed,
//! changed, replayed and shrunk.
//!
//! Moments count from the unleashing, not from the world's beginning: a plan hits the same phase of a scenario
//! also with fewer hosts, which need less time to find each other.
//!
//! Faults that overlap compose: a link does all that its active faults ask for, a host is up again when the last
//! fault that keeps it down is over. A fault whose target isn't there is skipped, and one that
//! is never due never begins; the run says so.

mod apply;
pub mod draw;
mod effect;
mod fault;
pub mod text;

pub(crate) use apply::Faults;
pub use draw::Targets;
pub use effect::Effect;
pub(crate) use effect::Effects;
pub use fault::{BoxFault, Fault, FaultKind, HostFault, Spot, Way};

use std::time::Duration;

/// A fault, when it begins and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// From the unleashing on.
    pub at: Duration,
    /// What happens.
    pub fault: Fault,
    /// After this it undoes itself; `None` leaves it until everything is healed. Without a meaning for a fault
    /// that is over at once, such as a reboot.
    pub lasts: Option<Duration>,
}

/// What goes wrong in a run: a list of faults, in the order of their moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    faults: Vec<Planned>,
}

impl Plan {
    /// A plan of these faults; those of one moment stay in their order.
    pub fn new(mut faults: Vec<Planned>) -> Plan {
        faults.sort_by_key(|planned| planned.at);
        Plan { faults }
    }

    /// Its faults.
    pub fn faults(&self) -> &[Planned] {
        &self.faults
    }

    /// How late at most a packet comes that was sent under these faults, all of them at once. A link keeps the order of
    /// its TCP, so what follows waits for it, also after the faults' end.
    pub fn held_back(&self) -> Duration {
        let of = |planned: &Planned| match planned.fault {
            Fault::Link { effect: Effect::Latency { add, jitter }, .. } => add.saturating_add(jitter),
            Fault::Link { effect: Effect::Reorder { by, .. }, .. } => by,
            _ => Duration::ZERO,
        };
        self.faults.iter().map(of).fold(Duration::ZERO, Duration::saturating_add)
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
