//! The `nurl` command as users and scripts see it: real processes, real sockets on loopback.
//!
//! No test sleeps for a fixed time: each waits for a line, an exit or a generous deadline.
#![cfg(all(feature = "cli", not(feature = "sim")))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of a process from outside it: files, sockets, threads and clocks here are the test's own"
)]

mod addresses;
mod bad_input;
mod demo;
#[cfg(target_os = "linux")]
mod detached;
#[cfg(target_os = "linux")]
mod disks;
#[cfg(target_os = "linux")]
mod ends;
mod groups;
mod harness;
mod hub;
mod jobs;
#[cfg(target_os = "linux")]
mod large;
mod leases;
#[cfg(target_os = "linux")]
mod maps;
mod mesh;
#[cfg(target_os = "linux")]
mod policies;
mod programs;
mod secrets;
mod state;
mod stores;
mod terminals;
