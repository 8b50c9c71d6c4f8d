//! The properties that must hold in every run, and the marks that some run must reach.
//!
//! A *safety* property holds at every moment: [`World::always`] checks it after every instant with an event, and
//! [`fail`] ends the run at the place where the violation was found. A *liveness* property holds eventually: a
//! scenario heals its faults, waits a bounded virtual time, and reports what is still missing. A mark
//! ([`sometimes!`](crate::sometimes)) is a rare path that some run of a sweep has to take; otherwise the sweep
//! proved less than it seems.

use crate::world::World;
use crate::world::sim;
use memchr::memmem::Finder;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// The kinds of property, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A seed gives the same run again. If it doesn't, no other finding can be relied on.
    Reproducibility,
    /// Nothing bad ever happens.
    Safety,
    /// Nothing panics.
    Panic,
    /// Something good happens eventually.
    Liveness,
}

impl Kind {
    /// Its name, in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Reproducibility => "reproducibility",
            Kind::Safety => "safety",
            Kind::Panic => "panic",
            Kind::Liveness => "liveness",
        }
    }
}

/// A property that doesn't hold, with the observation that contradicts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The property, as a sentence that should be true: "nobody healthy is held dead". It is the failure's identity:
    /// shrinking accepts only a run that breaks the same property.
    pub property: String,
    /// Its kind.
    pub kind: Kind,
    /// The contradicting observation, with values.
    pub seen: String,
    /// The world's time.
    pub at: Duration,
    /// The host on which it was found; `None` outside of hosts.
    pub host: Option<String>,
    /// The source file that reported it.
    pub file: String,
    /// The line in this file.
    pub line: u32,
}

impl Broken {
    #[track_caller]
    fn new(kind: Kind, property: &str, seen: impl Into<String>) -> Broken {
        let place = Location::caller();
        let now_ns = sim::try_with(|sim| sim.now_ns()).unwrap_or(0);
        Broken {
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
    pub fn safety(property: &str, seen: impl Into<String>) -> Broken {
        Broken::new(Kind::Safety, property, seen)
    }

    /// A liveness property that was not reached in time.
    #[track_caller]
    pub fn liveness(property: &str, seen: impl Into<String>) -> Broken {
        Broken::new(Kind::Liveness, property, seen)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}: {}", self.kind.as_str(), self.property, self.seen)
    }
}

/// Ends the run: a safety property was found broken. Only the first report of a run counts.
pub fn fail(broken: Broken) {
    sim::with(|sim| {
        sim.broken.get_or_insert(broken);
        sim.wake_driver();
    });
}

/// Records that a rare path was taken; see [`sometimes!`](crate::sometimes).
pub fn reached(mark: &'static str) {
    sim::try_with(|sim| sim.marks.insert(mark));
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
/// frames that a relay opens. They are searched as [packets are](World::forbid_bytes). Outside of a run it does
/// nothing.
pub fn exposed(bytes: &[u8]) {
    let host = sim::is_running().then(sim::place).flatten().map(|place| place.host);
    sim::try_with(|sim| {
        sim.stats.exposed_bytes += bytes.len() as u64;
        sim.check_forbidden(host, bytes, || "an exposed frame".to_owned());
    });
}

/// A check that runs after every instant with an event.
pub(crate) struct Check {
    pub(crate) property: String,
    pub(crate) place: &'static Location<'static>,
    pub(crate) check: Box<dyn FnMut() -> Result<(), String> + Send>,
}

/// Bytes that no packet may carry, with the property that they would break and where it was stated.
pub(crate) struct Forbidden {
    pub(crate) property: String,
    pub(crate) place: &'static Location<'static>,
    pub(crate) bytes: Finder<'static>,
}

impl World {
    /// Calls `check` after every instant with an event, outside of every host. `Err` with the observation breaks the
    /// property and ends the run. The check must be cheap, and must not sleep.
    #[track_caller]
    pub fn always(&self, property: &str, check: impl FnMut() -> Result<(), String> + Send + 'static) {
        let check =
            Check { property: property.to_owned(), place: Location::caller(), check: Box::new(check) };
        sim::with(|sim| sim.checks.push(check));
    }

    /// Forbids a sequence of bytes on every link: no packet may carry it as it leaves its host, and no [`exposed`]
    /// bytes may contain it. Packets on the loopback aren't checked.
    #[track_caller]
    pub fn forbid_bytes(&self, property: &str, bytes: &[u8]) {
        let place = Location::caller();
        let forbidden =
            Forbidden { property: property.to_owned(), place, bytes: Finder::new(bytes).into_owned() };
        sim::with(|sim| sim.forbidden.push(forbidden));
    }

    /// The marks reached so far.
    pub fn marks(&self) -> Vec<&'static str> {
        sim::with(|sim| sim.marks.iter().copied().collect())
    }
}

/// Runs every check once.
pub(crate) fn check_all() {
    // Taken out of the world while they run, because they borrow it and may add checks.
    let mut checks = sim::with(|sim| std::mem::take(&mut sim.checks));
    if checks.is_empty() {
        return;
    }
    for check in &mut checks {
        if let Err(seen) = (check.check)() {
            fail(Broken {
                property: check.property.clone(),
                kind: Kind::Safety,
                seen,
                at: Duration::from_nanos(sim::with(|sim| sim.now_ns())),
                host: None,
                file: check.place.file().to_owned(),
                line: check.place.line(),
            });
        }
    }
    sim::with(|sim| {
        checks.append(&mut sim.checks);
        sim.checks = checks;
    });
}
