//! The scenarios, a file each; [`scenario::ALL`](crate::scenario::ALL) lists them.

pub mod blackout;
pub mod canary;
pub mod churn;
pub mod circle;
pub mod converge;
pub mod deaths;
pub mod echoes;
pub mod fence;
pub mod go_between;
pub mod hub_restarts;
pub mod keystone;
pub mod lease;
pub mod lone_accuser;
pub mod mapping_expires;
pub mod nat_matrix;
pub mod pinned;
pub mod relay_dies;
pub mod roam;
pub mod swarm;
