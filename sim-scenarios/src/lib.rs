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
//! Only `models` is there without the feature `sim`, for the worlds of other programs: it doesn't depend on nurl, but
//! for `relay`. The feature keeps the simulator out of the workspace's ordinary build of nurl. `cargo chaos list` and
//! `cargo chaos run SCENARIO --seed S` run scenarios by hand.

#[cfg(feature = "sim")]
pub mod cluster;
#[cfg(feature = "sim")]
pub mod decode;
pub mod models;
#[cfg(feature = "sim")]
pub mod scenario;
#[cfg(feature = "sim")]
pub mod scenarios;
