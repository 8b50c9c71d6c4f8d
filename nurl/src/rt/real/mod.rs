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

/// Reports a word that means this host, such as its key, to the reader of a simulated world; here it does nothing.
#[inline]
pub fn known_as(_word: &str) {}

/// Whether somebody reads labels: nobody.
#[inline]
pub fn is_read() -> bool {
    false
}

/// Reports what is in bytes that are sealed or hard to read, to the reader of a simulated world; here the text isn't made.
#[inline]
pub fn label(_bytes: &[u8], _text: impl FnOnce() -> String) {}

/// What was reported about bytes that begin like these: nothing.
#[inline]
pub fn labelled(_bytes: &[u8]) -> Option<String> {
    None
}

/// What was reported about bytes that begin anywhere in these: nothing.
#[inline]
pub fn labelled_within(_bytes: &[u8]) -> Vec<String> {
    Vec::new()
}
