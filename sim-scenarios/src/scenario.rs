//! The list of scenarios, how one is run, and what a run leaves behind.

use std::fmt::Write as _;
use std::pin::Pin;
use std::time::Duration;

use chaos::run::{Failure, Outcome, Run};
use chaos::world::World;

/// What a scenario says of a run that held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The end state as sorted text without times or counts of luck: what a snapshot keeps.
    pub state: String,
    /// What else was counted, for a reader; it may change with every draw.
    pub notes: String,
}

/// How it held, or the property that broke, in words with its values.
pub type Verdict = Result<Held, String>;

type Body = fn(World) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it proves, in one line.
    pub about: &'static str,
    body: Body,
}

/// All scenarios, by name.
pub const ALL: [Scenario; 5] = [
    Scenario {
        name: "blackout",
        about: "a bulk transfer survives 1.5 s without its direct path, and changes leg",
        body: |world| Box::pin(crate::blackout::run(world)),
    },
    Scenario {
        name: "converge",
        about: "8 nodes, 30 % UDP and 5 % TCP loss, one crash: all learn it, nobody healthy is held dead",
        body: |world| Box::pin(crate::converge::run(world)),
    },
    Scenario {
        name: "converge-hard",
        about: "the same with 30 % loss on both: run and printed, nothing is asserted of it",
        body: |world| Box::pin(crate::converge::run_hard(world)),
    },
    Scenario {
        name: "keystone",
        about: "jobs complete across a short and a long partition and across their owner's death",
        body: |world| Box::pin(crate::keystone::run(world)),
    },
    Scenario {
        name: "lease",
        about: "a leased resource is killed at drawn disk operations: every effect happens once",
        body: |world| Box::pin(crate::lease::run(world)),
    },
];

/// Virtual time that a scenario may take.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// Finds a scenario.
pub fn find(name: &str) -> Option<Scenario> {
    ALL.into_iter().find(|scenario| scenario.name == name)
}

/// A run's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// BLAKE3 over the trace, in hex.
    pub digest: String,
    /// Records in the trace.
    pub events: u64,
    /// Virtual time that it took.
    pub elapsed: Duration,
    /// What came of it.
    pub verdict: Verdict,
}

impl Report {
    /// A failure's story: what broke, and the one line that runs it again.
    pub fn story(&self) -> String {
        let mut text = String::new();
        if let Err(broken) = &self.verdict {
            let _ = writeln!(text, "{} broke with seed {}: {broken}", self.scenario, self.seed);
            let _ = writeln!(text, "replay: cargo chaos run {} --seed {}", self.scenario, self.seed);
            let _ = writeln!(text, "digest {} over {} events, {:?}", self.digest, self.events, self.elapsed);
        }
        text
    }
}

impl Scenario {
    /// Runs the scenario in the world of `seed`.
    pub fn run(self, seed: u64) -> Report {
        let body = self.body;
        let outcome: Outcome<Verdict> = Run::new(seed).time_limit(TIME_LIMIT).run(body);
        let verdict = match outcome.result {
            Ok(verdict) => verdict,
            Err(Failure::Panicked(message)) => Err(format!("panic: {message}")),
            Err(other) => Err(other.to_string()),
        };
        Report {
            scenario: self.name,
            seed,
            digest: outcome.digest,
            events: outcome.events,
            elapsed: outcome.elapsed,
            verdict,
        }
    }
}
