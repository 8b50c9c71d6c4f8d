//! Experiments in a world: runs, the scenarios that they run, fault plans, and what is made of a failure.

pub mod bundle;
pub mod diff;
pub(crate) mod faults;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod story;
pub mod sweep;
