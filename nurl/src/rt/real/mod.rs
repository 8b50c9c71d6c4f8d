//! The shim's implementation on the operating system: tokio, quinn-udp, std threads, real files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the door")]

pub mod disk;
pub mod net;
pub mod task;
pub mod time;

use rand_core::SeedableRng;

/// A generator seeded by the operating system.
///
/// The label names the stream. In the simulated world it selects one of the seed's streams, so a draw added in
/// one place doesn't shift the draws of another. Here it only keeps the two signatures alike.
///
/// # Panics
/// If the operating system has no entropy: keys would then be unsafe.
pub fn rng(_label: &str) -> super::Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system's entropy source works");
    super::Rng::from_seed(seed)
}

/// Reports bytes that are visible outside of the mesh. The simulated world searches them for forbidden
/// bytes; here the call does nothing.
#[inline]
pub fn exposed(_bytes: &[u8]) {}

/// Reports that a rare path was taken. The simulated world records it; here it does nothing.
#[inline]
pub fn reached(_mark: &'static str) {}
