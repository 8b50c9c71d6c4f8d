//! Assembled nodes on real sockets, through the library's public API alone: what a program built on it relies
//! on. Each test has a hub and a mesh of its own on loopback. Nothing sleeps for a fixed time: a condition is
//! looked at until it holds, and a test fails when it doesn't within its time.
#![cfg(not(feature = "sim"))]

mod harness;
mod hubs;
mod jobs;
mod membership;
mod spy;
mod state;
mod stores;
mod talk;
