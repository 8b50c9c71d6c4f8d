//! Whole nodes against each other.

mod bounds;
mod ends;
mod faults;
mod harness;
mod routing;
mod seeds;
