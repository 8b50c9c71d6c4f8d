//! nurl in the simulated world: whole nodes, a real hub, real sessions, faults, and what must hold.
//!
//! | module | what |
//! | --- | --- |
//! | `scenario` | the list of scenarios, how one is run, what a run leaves behind |
//! | `cluster` | a hub and nodes on hosts of a world, assembled as a deployment would be |
//! | `converge` | membership converges under loss; a crash is learned by all, nobody healthy is declared dead |
//! | `keystone` | a job completes across a partition and across its owner's death |
//! | `blackout` | a bulk transfer survives its path's death and changes leg |
//! | `lease` | effects happen once on a disk that loses what was not synced |
//! | `models` | NAT boxes and firewalls; the oracle that says which pairs of them can be direct |
//!
//! Everything needs the feature `sim`; without it the crate is empty, so that the workspace's ordinary build
//! has no simulator in it. `cargo chaos list` and `cargo chaos run SCENARIO --seed S` run them by hand.
#![cfg(feature = "sim")]

pub mod blackout;
pub mod cluster;
pub mod converge;
pub mod keystone;
pub mod lease;
pub mod models;
pub mod scenario;
