//! nurl in the simulated world: whole nodes, a real hub, real sessions, faults, and the properties that must
//! hold.
//!
//! | module | contents |
//! | --- | --- |
//! | `scenarios` | the scenarios, a file each, and the list of them |
//! | `stage` | the builder of a scenario's world: links, networks, hubs, nodes |
//! | `cluster` | the mesh that a stage started: its nodes, their record, the checks of all of them |
//! | `insider` | a program with a ticket that says whatever bytes it likes |
//! | `models` | a mesh's surroundings: failing relays, NAT boxes |
//! | `decode` | a packet's content as text |
//! | `history` | whether a leased resource answered as one fenced register: the recorder and the checker |
//! | `lock` | a mutex that no panic poisons |
//!
//! Only `models` is there without the feature `sim`, for the worlds of other programs: it doesn't depend on nurl, but
//! for `sim_hub`. The feature keeps the simulator out of the workspace's ordinary build of nurl. `cargo chaos list` and
//! `cargo chaos run SCENARIO --seed S` run scenarios by hand. The README says how to write one.

#[cfg(feature = "sim")]
pub mod cluster;
#[cfg(feature = "sim")]
pub mod decode;
#[cfg(feature = "sim")]
mod history;
#[cfg(feature = "sim")]
pub mod insider;
#[cfg(feature = "sim")]
mod lock;
pub mod models;
#[cfg(feature = "sim")]
pub mod scenarios;
#[cfg(feature = "sim")]
pub mod stage;

/// The README's scenario is compiled and run.
#[cfg(all(doctest, feature = "sim"))]
#[doc = include_str!("../README.md")]
struct ReadmeScenario;
