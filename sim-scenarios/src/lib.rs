//! nurl in the simulated world: whole nodes, a real hub, real sessions, faults, and the properties that must
//! hold.
//!
//! | module | contents |
//! | --- | --- |
//! | `scenario` | the list of scenarios |
//! | `scenarios` | the scenarios, a file each |
//! | `cluster` | hubs and nodes on hosts of a world, assembled as in a deployment |
//! | `models` | a mesh's surroundings: failing relays, NAT boxes |
//! | `decode` | a packet's content as text |
//!
//! Everything needs the feature `sim`. Without it the crate is empty, which keeps the simulator out of the
//! workspace's ordinary build. `cargo chaos list` and `cargo chaos run SCENARIO --seed S` run scenarios by hand.
#![cfg(feature = "sim")]

pub mod cluster;
pub mod decode;
pub mod models;
pub mod scenario;
pub mod scenarios;
