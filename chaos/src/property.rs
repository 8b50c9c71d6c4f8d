//! What must hold in a run, and what must happen in some.
//!
//! A *safety* property holds at every moment: [`World::always`] has it checked after every instant in which
//! anything happened, and [`fail`] ends the run from wherever the violation was seen. A *liveness* property holds
//! in the end: a scenario heals what it broke, waits a bounded virtual time, and says what is still missing. A mark
//! ([`sometimes!`](crate::sometimes)) is a rare path that some run of a sweep has to take, or the sweep proved less
//! than it seems.

use crate::sim;
use crate::world::World;
use memchr::memmem::Finder;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// The kinds of property, the gravest failure first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A seed gives the same run again. Where it doesn't, nothing else that was seen is worth much.
    Reproducibility,
    /// Nothing bad ever happens.
    Safety,
    /// Nothing panics.
    Panic,
    /// Something good happens in the end.
    Liveness,
}

impl Kind {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Reproducibility => "reproducibility",
            Kind::Safety => "safety",
            Kind::Panic => "panic",
            Kind::Liveness => "liveness",
        }
    }
}

/// A property that doesn't hold, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The property, as a sentence that should be true: "nobody healthy is held dead". It is the failure's identity:
    /// shrinking accepts only a run that breaks the same one.
    pub property: String,
    /// Its kind.
    pub kind: Kind,
    /// What was seen instead, with values.
    pub seen: String,
    /// The world's time.
    pub at: Duration,
    /// The host on which it was seen, if it was on one.
    pub host: Option<String>,
    /// Where in the source it was seen.
    pub file: String,
    /// The line there.
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

    /// A safety property that was seen broken here and now.
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

/// Ends the run: a safety property was seen broken. The first of several counts.
pub fn fail(broken: Broken) {
    sim::with(|sim| {
        sim.broken.get_or_insert(broken);
        sim.wake_driver();
    });
}

/// Notes that a rare path was taken; see [`sometimes!`](crate::sometimes).
pub fn reached(mark: &'static str) {
    sim::try_with(|sim| sim.marks.insert(mark));
}

/// Marks a rare path: `sometimes!("a stale owner is fenced")`, or with a condition,
/// `sometimes!(retries > 0, "a task is tried again")`. A scenario names its marks, and a sweep in which one of
/// them is never reached is vacuous. Outside of a run it does nothing.
#[macro_export]
macro_rules! sometimes {
    ($mark:literal) => {
        $crate::property::reached($mark)
    };
    ($condition:expr, $mark:literal) => {
        if $condition {
            $crate::property::reached($mark);
        }
    };
}

/// Notes bytes that leave the circle of those who may read them without being on a link in the clear: the frames
/// that a relay opens, say. They are searched as [packets are](World::forbid_bytes). Outside of a run it does nothing.
pub fn exposed(bytes: &[u8]) {
    let host = sim::is_running().then(sim::place).flatten().map(|place| place.host);
    sim::try_with(|sim| {
        sim.stats.exposed_bytes += bytes.len() as u64;
        sim.check_forbidden(host, bytes, || "an exposed frame".to_owned());
    });
}

/// A check that is made after every instant in which anything happened.
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
    /// Has `check` called after every instant in which anything happened, on no host; `Err` with what was seen
    /// breaks the property and ends the run. It must be cheap, and must not sleep.
    #[track_caller]
    pub fn always(&self, property: &str, check: impl FnMut() -> Result<(), String> + Send + 'static) {
        let check =
            Check { property: property.to_owned(), place: Location::caller(), check: Box::new(check) };
        sim::with(|sim| sim.checks.push(check));
    }

    /// Forbids a sequence of bytes on every link: no packet may carry it as it leaves its host. Loopback is no link.
    /// Nor may anything that is [`exposed`].
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

/// Makes every check once.
pub(crate) fn check_all() {
    // Out of the world while they run: they look at it, and may add to them.
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
