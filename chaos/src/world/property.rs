//! The properties that must hold in every run, and the marks that some run must reach.
//!
//! A *safety* property holds at every moment: [`World::always`](crate::World::always) checks it after every instant with an event, and
//! [`fail`] ends the run at the place where the violation was found. A *liveness* property holds eventually: a
//! scenario heals its faults, waits a bounded virtual time, and reports what is still missing. A mark
//! ([`sometimes!`](crate::sometimes)) is a rare path that some run of a sweep has to take; otherwise the sweep
//! proved less than it seems.

use super::sim;
use memchr::memmem::Finder;
use std::collections::BTreeSet;
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
    sim::with(|sim| sim.break_property(broken));
}

/// Records that a rare path was taken; see [`sometimes!`](crate::sometimes).
pub fn reached(mark: &'static str) {
    sim::try_with(|sim| sim.findings.marks.insert(mark));
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

/// What a run has found so far, and what it looks for.
#[derive(Default)]
pub(crate) struct Findings {
    /// Why the run must end: a process's main future, or a task that is not awaited, panicked.
    failure: Option<String>,
    /// The first property that was found broken.
    broken: Option<Broken>,
    /// The checks that run after every instant.
    checks: Vec<Check>,
    /// Bytes that no packet may carry.
    forbidden: Vec<Forbidden>,
    /// The marks that were reached.
    marks: BTreeSet<&'static str>,
}

impl Findings {
    /// The run must end; only the first reason counts.
    pub(crate) fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    /// A property was found broken; only the first one counts.
    pub(crate) fn break_property(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    pub(crate) fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }

    /// The first forbidden sequence that `bytes` carry.
    pub(crate) fn forbidden_in(&self, bytes: &[u8]) -> Option<&Forbidden> {
        self.forbidden.iter().find(|forbidden| forbidden.bytes.find(bytes).is_some())
    }

    /// Checks a property after every instant with an event.
    pub(crate) fn always(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Forbids a sequence of bytes.
    pub(crate) fn forbid(&mut self, forbidden: Forbidden) {
        self.forbidden.push(forbidden);
    }

    /// The marks that were reached.
    pub(crate) fn marks(&self) -> &BTreeSet<&'static str> {
        &self.marks
    }
}

/// Runs every check once.
pub(crate) fn check_all() {
    // Taken out of the world while they run, because they borrow it and may add checks.
    let mut checks = sim::with(|sim| std::mem::take(&mut sim.findings.checks));
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
        checks.append(&mut sim.findings.checks);
        sim.findings.checks = checks;
    });
}
