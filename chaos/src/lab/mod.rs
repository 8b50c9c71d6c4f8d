//! Experiments in a world: runs, the scenarios that they run, fault plans, and what is made of a failure.
//!
//! | module | concept |
//! | --- | --- |
//! | `run` | a run, its self-check, its end |
//! | `plan` | fault plans as data: drawn or given |
//! | `faults` | a plan in a world: its faults started, and healed |
//! | `scenario`, `points` | scenarios, their trials and reports; the points of a program |
//! | `sweep`, `shrink` | many runs; a failure made small |
//! | `explore` | runs that branch from runs that reached something new |
//! | `no_return` | the event of a failed run after which nothing could save it |
//! | `parallel` | work that is shared by threads |
//! | `stall` | runs watched from another thread: one that blocks is given up |
//! | `story`, `bundle`, `diff` | a failure explained, saved, compared |
//! | `picture` | a run as a page of HTML |
//! | `selection`, `causes` | which events a story tells |

pub mod bundle;
mod causes;
pub mod diff;
pub mod explore;
pub(crate) mod faults;
pub mod no_return;
mod parallel;
pub mod picture;
pub mod plan;
pub(crate) mod points;
pub mod run;
pub mod scenario;
mod selection;
pub mod shrink;
pub(crate) mod stall;
pub mod story;
pub mod sweep;
