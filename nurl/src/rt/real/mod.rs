//! The door onto the operating system: tokio, quinn-udp, std threads, real files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the door")]

pub mod disk;
pub mod net;
pub mod task;
pub mod time;

use rand_core::SeedableRng;

/// A generator seeded by the operating system.
///
/// The label names the stream. In the world it selects one of the seed's streams, so that a draw added in
/// one place doesn't shift the draws of another; here it only keeps the two signatures alike.
///
/// # Panics
/// If the operating system has no entropy to give: nothing built on keys can go on safely then.
pub fn rng(_label: &str) -> super::Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system's entropy source works");
    super::Rng::from_seed(seed)
}

/// Bytes that somebody outside of the mesh reads. The world searches them for what must not be there; here nobody
/// is told.
#[inline]
pub fn exposed(_bytes: &[u8]) {}

/// A rare path was taken. The world counts it; here nobody is told.
#[inline]
pub fn reached(_mark: &'static str) {}
