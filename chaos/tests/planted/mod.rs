//! Small protocols with one planted bug each, as they occur in distributed programs, for a comparison of guided and blind
//! runs. They log and mark what their authors would. The benchmark `explore` and the test `explore` share them.

mod chance;
mod kit;
mod retries;
mod routes;
mod sessions;
mod storage;

use chaos::plan::FaultKind;
use chaos::scenario::{Mark, Scenario};

/// Crashes, power losses and trouble on the way, but no loss: that is the links' own.
const TROUBLE: &[FaultKind] = &[
    FaultKind::Latency,
    FaultKind::Duplicate,
    FaultKind::Partition,
    FaultKind::Crash,
    FaultKind::PowerLoss,
    FaultKind::Pause,
    FaultKind::ClockDrift,
];

/// The mark of [`FORGETFUL`].
pub(crate) const NO_ANSWER: &str = "a server gave no answer";

pub(crate) const FORGETFUL: Scenario = Scenario {
    marks: &[Mark::within(NO_ANSWER, 100)],
    ..Scenario::new("forgetful", "two servers in a row give no answer", |trial| {
        Box::pin(retries::forgetful(trial))
    })
};

/// All of them.
pub(crate) const BUGS: &[Scenario] = &[
    FORGETFUL,
    Scenario {
        marks: &[Mark::within("a duplicate is answered", 100)],
        ..Scenario::new("twice", "the answer to a duplicate is lost, too", |trial| {
            Box::pin(retries::twice(trial))
        })
    },
    Scenario {
        marks: &[Mark::within("the queue is full", 100), Mark::within("the connection is reset", 100)],
        ..Scenario::new("full", "the queue is full when the connection is reset", |trial| {
            Box::pin(retries::full(trial))
        })
    },
    Scenario {
        marks: &[Mark::within("a message waits for its epoch", 100)],
        ..Scenario::new("epoch", "a message overtakes its epoch, whose start is told again", |trial| {
            Box::pin(sessions::epoch(trial))
        })
    },
    Scenario {
        marks: &[Mark::within("a leader is replaced", 100)],
        ..Scenario::new("leaders", "the leader changes twice while a message is under way", |trial| {
            Box::pin(sessions::leaders(trial))
        })
    },
    Scenario {
        faults: TROUBLE,
        marks: &[Mark::within("a session is unknown", 100)],
        ..Scenario::new("login", "a server crashes, and an answer to the new login is lost", |trial| {
            Box::pin(sessions::login(trial))
        })
    },
    Scenario {
        faults: TROUBLE,
        ..Scenario::new(
            "unsynced",
            "a power loss before a sync, and a boot before the peer's timeout",
            |trial| Box::pin(storage::unsynced(trial)),
        )
    },
    Scenario {
        ..Scenario::new("roam", "a late message from an old address, and a push before the next", |trial| {
            Box::pin(routes::roam(trial))
        })
    },
    Scenario::new("race", "a timer and an answer within a moment", |trial| Box::pin(chance::race(trial))),
    Scenario::new("collision", "two identifiers are equal from the beginning", |trial| {
        Box::pin(chance::collision(trial))
    }),
];
