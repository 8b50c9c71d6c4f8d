//! What a run looks for and has found: properties, checks, forbidden bytes, marks.

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// The kinds of property, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PropertyKind {
    /// A seed gives the same run again. If it doesn't, no other finding can be relied on.
    Reproducibility,
    /// Nothing bad ever happens.
    Safety,
    /// Nothing panics.
    Panic,
    /// Something good happens eventually.
    Liveness,
}

impl PropertyKind {
    /// Its name, in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            PropertyKind::Reproducibility => "reproducibility",
            PropertyKind::Safety => "safety",
            PropertyKind::Panic => "panic",
            PropertyKind::Liveness => "liveness",
        }
    }
}

/// A property that doesn't hold, with the observation that contradicts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The property, as a sentence that should be true: "nobody healthy is held dead". It is the failure's identity:
    /// shrinking accepts only a run that breaks the same property.
    pub property: String,
    /// Its kind.
    pub kind: PropertyKind,
    /// The contradicting observation, with values.
    pub seen: String,
    /// The world's time at which it was broken; if nobody can say, at which it was found.
    pub at: Duration,
    /// The host on which it was found; `None` outside of hosts.
    pub host: Option<String>,
    /// The source file that reported it.
    pub file: String,
    /// The line in this file.
    pub line: u32,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}: {}", self.kind.as_str(), self.property, self.seen)
    }
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
    broken: Option<Violation>,
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
    pub(crate) fn break_property(&mut self, broken: Violation) {
        self.broken.get_or_insert(broken);
    }

    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    pub(crate) fn take_broken(&mut self) -> Option<Violation> {
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

    /// A rare path was taken; returns whether it is the first time.
    pub(crate) fn reach(&mut self, mark: &'static str) -> bool {
        self.marks.insert(mark)
    }

    /// Takes the checks out while they run, because they may add checks.
    pub(crate) fn take_checks(&mut self) -> Vec<Check> {
        std::mem::take(&mut self.checks)
    }

    /// Puts the checks back, before those that were added meanwhile.
    pub(crate) fn put_back(&mut self, mut checks: Vec<Check>) {
        checks.append(&mut self.checks);
        self.checks = checks;
    }

    /// The marks that were reached.
    pub(crate) fn marks(&self) -> &BTreeSet<&'static str> {
        &self.marks
    }
}
