//! nurl in the simulated world: whole nodes, a real hub, real sessions, faults, and what must hold.
//!
//! | module | what |
//! | --- | --- |
//! | `scenario` | the list of scenarios |
//! | `scenarios` | the scenarios, a file each |
//! | `cluster` | hubs and nodes on hosts of a world, assembled as a deployment would be |
//! | `models` | what surrounds a mesh: relays in trouble, NAT boxes |
//! | `cli` | the `chaos` command, over any list of scenarios |
//! | `decode` | what a packet carries, in words |
//!
//! Everything needs the feature `sim`; without it the crate is empty, so that the workspace's ordinary build
//! has no simulator in it. `cargo chaos list` and `cargo chaos run SCENARIO --seed S` run them by hand.
#![cfg(feature = "sim")]

pub mod cli;
pub mod cluster;
pub mod decode;
pub mod models;
pub mod scenario;
pub mod scenarios;
