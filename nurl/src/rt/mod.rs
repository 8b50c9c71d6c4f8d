//! The runtime shim: the only access to sockets, time, tasks, threads, disk and entropy.
//!
//! All code above this module is the same in both builds. Without the feature `sim` the shim uses tokio, quinn-udp
//! and the operating system; with it, a host of the seeded simulated world (`chaos::rt`). Names and signatures are
//! tokio's where tokio has an equivalent, and our own elsewhere:
//!
//! | module | contents |
//! | --- | --- |
//! | [`net`] | UDP with batches (GSO, GRO), TCP, the interface list and its changes |
//! | [`time`] | the monotonic clock, the wall clock, sleeps and timeouts |
//! | [`task`] | tasks on the caller's plane, and the [`task::Planes`] of a node: its threads |
//! | [`disk`] | synchronous files with explicit syncs, atomic replacement, private modes |
//! | [`sync`] | channels and locks whose wake order doesn't depend on ambient entropy |
//! | [`rng`] | a labelled ChaCha20 stream |
//! | [`bound`] | bounds of tables, made smaller in the simulated world only |
//! | [`buggify`] | rare ways that are allowed, taken on purpose in the simulated world only |
//! | [`cost`] | what computation costs: time in the simulated world only |
//! | [`exposed`], [`reached`] | bytes that a hub reads, rare paths taken: reported to the simulated world only |
//! | [`label`], [`known_as`] | what is in sealed bytes, whose key is whose: reported to the simulated world's reader only |
//! | [`select!`](crate::rt::select) | always `biased` |
//!
//! The shim contains no policy: a rule belongs in the layer that needs it.

#[cfg(not(feature = "sim"))]
mod real;
#[cfg(not(feature = "sim"))]
pub use real::{disk, exposed, net, reached, rng, task, time};
#[cfg(not(feature = "sim"))]
pub use real::{is_read, known_as, label, labelled, labelled_within};

#[cfg(feature = "sim")]
pub use chaos::rt::{Rng, disk, exposed, net, reached, rng, task, time};
#[cfg(feature = "sim")]
pub use chaos::rt::{is_read, known_as, label, labelled, labelled_within};

mod bounds;
mod buggify;
mod cost;
pub mod sync;

pub use bounds::{Table, bound};
#[cfg(feature = "sim")]
pub use buggify::POINTS;
pub use buggify::{Point, buggify};
pub use cost::{Cost, cost};

/// The generator behind every random draw: ChaCha20, 20 rounds, `rand_core` 0.10 traits.
#[cfg(not(feature = "sim"))]
pub type Rng = rand_chacha::ChaCha20Rng;

/// `tokio::select!`, always `biased`: branches are polled in the order in which they are written, so the
/// same inputs take the same branch in every run.
#[macro_export]
#[doc(hidden)]
macro_rules! __rt_select {
    ($($branches:tt)*) => { ::tokio::select! { biased; $($branches)* } };
}
pub use crate::__rt_select as select;

#[cfg(test)]
pub(crate) mod contract;

/// A point in time for tests of pure code; it needs neither a runtime nor a simulated world.
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
pub(crate) fn test_now() -> std::time::Instant {
    // A day ahead, so that subtracting never leaves the clock's range.
    std::time::Instant::now() + std::time::Duration::from_secs(24 * 3600)
}
