//! The [swarm](super::swarm) with somebody in it who means harm.
//!
//! What happens and what must hold is said there. Two [insiders](crate::insider) tell all nodes
//! [lies of every kind](crate::insider::mischief) while processes die, links break and clocks jump. All that has to hold
//! without them holds with them.

use chaos::plan::FaultKind;
use chaos::scenario::{Knob, KnobKind, Mark, Scenario};

use super::swarm::{self, HOMES, INSIDERS};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob {
            name: "steps",
            about: "what each node does under faults",
            default: 20,
            least: 1,
            turns: KnobKind::Work,
        },
        Knob {
            name: "seconds",
            about: "how long faults are drawn over, and lies told",
            default: 40,
            least: 5,
            turns: KnobKind::Length,
        },
        HOMES,
        Knob { default: 2, ..INSIDERS },
    ],
    faults: FaultKind::ALL,
    points: nurl::rt::POINTS,
    marks: &[Mark::new("a suspect refutes"), Mark::new("who was held dead is alive again")],
    time_limit: swarm::SCENARIO.time_limit,
    ..Scenario::new(
        "besieged",
        "two holders of a ticket lie to all, beside every kind of fault: all that holds without them holds",
        |trial| Box::pin(swarm::run(trial)),
    )
};
