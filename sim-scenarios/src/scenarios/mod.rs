//! The scenarios, a file each; [`scenario::ALL`](crate::scenario::ALL) lists them.

pub mod blackout;
pub mod converge;
pub mod fence;
pub mod keystone;
pub mod lease;
