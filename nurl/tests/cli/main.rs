//! The `nurl` command as a person and a script see it: real processes, real sockets on loopback.
//!
//! No test sleeps for a fixed time: each waits for a line, an exit or a deadline that is generous.
#![cfg(all(feature = "cli", not(feature = "sim")))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of a process from outside it: files, sockets, threads and clocks here are the test's own"
)]

mod addresses;
mod bad_input;
mod demo;
mod harness;
mod hub;
mod jobs;
mod terminals;
