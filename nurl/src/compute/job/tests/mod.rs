//! Tests of whole nodes that exchange messages.

mod bounds;
mod disk;
mod drain;
mod ends;
mod faults;
mod free;
mod harness;
mod losses;
mod policies;
mod routing;
mod seeds;
mod shares;
mod silent_clients;
mod single;
mod warranted;
