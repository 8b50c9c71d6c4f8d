//! The properties that must hold in every run, and the marks that some run must reach.
//!
//! A *safety* property holds at every moment: [`World::always`](crate::World::always) checks it after every instant with an event, and
//! [`fail`] ends the run at the place where the violation was found. A *liveness* property holds eventually: a
//! scenario heals its faults, waits a bounded virtual time, and reports what is still missing. A mark
//! ([`sometimes!`](crate::sometimes)) is a rare path that some run of a sweep has to take; otherwise the sweep
//! proved less than it seems.

use super::sim;
use std::panic::Location;
use std::time::Duration;

pub use super::findings::{PropertyKind, Violation};

impl Violation {
    #[track_caller]
    fn new(kind: PropertyKind, property: &str, seen: impl Into<String>) -> Violation {
        let place = Location::caller();
        let now_ns = sim::try_with(|sim| sim.now_ns()).unwrap_or(0);
        Violation {
            property: property.to_owned(),
            kind,
            seen: seen.into(),
            at: Duration::from_nanos(now_ns),
            host: sim::is_running().then(sim::place_name).flatten(),
            file: place.file().to_owned(),
            line: place.line(),
        }
    }

    /// A safety property that was found broken at this moment.
    #[track_caller]
    pub fn safety(property: &str, seen: impl Into<String>) -> Violation {
        Violation::new(PropertyKind::Safety, property, seen)
    }

    /// A liveness property that was not reached in time.
    #[track_caller]
    pub fn liveness(property: &str, seen: impl Into<String>) -> Violation {
        Violation::new(PropertyKind::Liveness, property, seen)
    }

    /// It was broken at this earlier moment, and is found only now. The story leads there.
    #[must_use]
    pub fn since(self, at: Duration) -> Violation {
        Violation { at, ..self }
    }
}

/// Ends the run: a safety property was found broken. Only the first report of a run counts.
pub fn fail(broken: Violation) {
    sim::with(|sim| sim.break_property(broken));
}

/// Records that a rare path was taken; see [`sometimes!`](crate::sometimes).
pub fn reached(mark: &'static str) {
    sim::try_with(|sim| {
        if sim.findings.reach(mark) {
            let now_ns = sim.now_ns();
            sim.record.mark(now_ns, mark);
        }
    });
}

/// Marks a rare path: `sometimes!("a stale owner is fenced")`, or with a condition,
/// `sometimes!(retries > 0, "a task is tried again")`. A scenario names its marks, and a sweep in which one of
/// them is never reached is vacuous. Outside of a run it does nothing.
#[macro_export]
macro_rules! sometimes {
    ($mark:literal) => {
        $crate::world::property::reached($mark)
    };
    ($condition:expr, $mark:literal) => {
        if $condition {
            $crate::world::property::reached($mark);
        }
    };
}

/// Reports bytes that become readable to unauthorised parties without being on a link in the clear, for example the
/// frames that a relay opens. They are searched as [packets are](crate::World::forbid_bytes). Outside of a run it does
/// nothing.
pub fn exposed(bytes: &[u8]) {
    let host = sim::is_running().then(sim::place).flatten().map(|place| place.host);
    sim::try_with(|sim| {
        sim.record.stats.exposed_bytes += bytes.len() as u64;
        sim.check_forbidden(host, bytes, || "an exposed frame".to_owned());
    });
}

/// Runs every check once.
pub(crate) fn check_all() {
    // Out of the world while they run, because they borrow it.
    let mut checks = sim::with(|sim| sim.findings.take_checks());
    if checks.is_empty() {
        return;
    }
    for check in &mut checks {
        if let Err(seen) = (check.check)() {
            fail(Violation {
                property: check.property.clone(),
                kind: PropertyKind::Safety,
                seen,
                at: Duration::from_nanos(sim::with(|sim| sim.now_ns())),
                host: None,
                file: check.place.file().to_owned(),
                line: check.place.line(),
            });
        }
    }
    sim::with(|sim| sim.findings.put_back(checks));
}
