//! Sweeps over a toy protocol with a planted bug: a sweep finds it, a shrink reduces it, its bundle replays it.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

#[cfg(feature = "cli")]
mod command;
mod counts;
mod explored;
mod failures;
mod kept;
mod ledgers;
mod still;
#[path = "../support/mod.rs"]
mod support;
mod toy;
