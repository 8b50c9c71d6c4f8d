//! The simulated world.
#![cfg(madsim)]
