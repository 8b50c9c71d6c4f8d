//! Assembled nodes on real sockets, only through the library's public API, like a program that uses the library. Each
//! test has its own hub and mesh on loopback. No test sleeps for a fixed time: a condition is polled until it holds,
//! and a test fails if the condition doesn't hold in time.
#![cfg(not(feature = "sim"))]

mod harness;
mod hubs;
mod jobs;
mod membership;
mod spy;
mod state;
mod stores;
mod talk;
