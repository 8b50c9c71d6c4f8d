//! One target for each state machine that members talk to, with an insider's model.
//!
//! The insider belongs to the mesh: it has a pass and the mesh's secret, and says what it likes. The input is its
//! program, so that nearly every input is a sequence of well-formed messages with hostile fields. Honest nodes work
//! beside it, and at the end each target asks them whether they are still served.

mod detector;
pub(crate) mod endpoint;
mod groups;
mod hub;
pub(crate) mod jobs;
pub(crate) mod reliable;
pub(crate) mod state;

use crate::Target;

/// A target of one state machine.
macro_rules! insider {
    ($name:literal, $module:ident) => {
        Target { name: $name, run: $module::run, seeds: $module::programs, stateful: true }
    };
}

pub(crate) const TARGETS: &[Target] = &[
    insider!("insider_endpoint", endpoint),
    insider!("insider_reliable", reliable),
    insider!("insider_groups", groups),
    insider!("insider_hub", hub),
    insider!("insider_jobs", jobs),
    insider!("insider_state", state),
    insider!("insider_detector", detector),
];

/// The most operations of one program.
const MAX_STEPS: usize = 64;

/// Programs to begin with: bytes that choose all operations in turn.
fn plain_programs() -> Vec<Vec<u8>> {
    let program = |seed: u64| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..400).map(|_| next()).collect()
    };
    (1..=4).map(program).collect()
}
