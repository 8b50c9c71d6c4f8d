//! The [swarm](super::swarm) in many homes: fourteen nodes, eleven of them behind six drawn boxes.
//!
//! What happens and what must hold is said there. Here each node does less, and more of them meet through two boxes that
//! have nothing to do with each other, while boxes restart, change their address and forget.

use chaos::plan::FaultKind;
use chaos::scenario::{Knob, KnobKind, Mark, Scenario};

use super::swarm::{self, HOMES, INSIDERS};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob {
            name: "steps",
            about: "what each node does under faults",
            default: 10,
            least: 1,
            turns: KnobKind::Work,
        },
        Knob {
            name: "seconds",
            about: "how long faults are drawn over",
            default: 30,
            least: 5,
            turns: KnobKind::Length,
        },
        Knob { default: 4, ..HOMES },
        INSIDERS,
    ],
    faults: FaultKind::ALL,
    points: nurl::rt::POINTS,
    marks: &[
        Mark::new("a job was forwarded"),
        Mark::new("a suspect refutes"),
        Mark::new("a path was given up, and direct again later"),
    ],
    time_limit: swarm::SCENARIO.time_limit,
    ..Scenario::new(
        "homes",
        "fourteen nodes, most of them behind six drawn boxes, do everything under every kind of fault",
        |trial| Box::pin(swarm::run(trial)),
    )
};
