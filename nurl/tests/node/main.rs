//! Assembled nodes on real sockets, through the library's front door, like a program that uses the library; only
//! the hub that listens in (`spy`) is made of the layers. Each
//! test has its own hub and mesh on loopback. No test sleeps for a fixed time: a condition is polled until it holds,
//! and a test fails if the condition doesn't hold in time.
#![cfg(not(feature = "sim"))]

mod harness;
mod hubs;
mod jobs;
mod membership;
mod revocation;
mod rotation;
mod spy;
mod state;
mod stores;
mod talk;
