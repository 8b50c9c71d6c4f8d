//! The relay: datagrams between peers that have no direct path, and group fan-out.
//!
//! Guarantees: a datagram reaches only the connection that proved the destination's key, within one namespace,
//! and carries the sender's proven key. The relay sees sealed bytes only. The newest registration of a key
//! wins and closes the older one with `replaced`: a phone that roamed is never shadowed by its own dead TCP
//! connection. A slow reader delays only its own datagrams.
//!
//! How: [`Relay`] is a pure registry with one outbox for each connection: a short queue of control frames,
//! which go first, and a [`queue::FairQueue`] of datagrams. The writer of a connection takes its next
//! plaintext with [`Relay::poll_plaintext`]; [`Relay::poll_wake`] names the connections to wake.
//!
//! It refuses, and counts: datagrams over [`frame::MAX_DATAGRAM_BYTES`], beyond a client's rate or queue, or
//! to unknown keys, and groups beyond a client's limit. A refusal never closes a connection by itself.

pub mod frame;
pub mod queue;

mod core;
#[cfg(test)]
mod tests;

pub use self::core::{ClientId, MAX_CORRESPONDENTS, Relay, RelayLimits, RelayStats};
pub use crate::net::reach::control::table::RelayFrame as Frame;
pub use frame::{CloseReason, GroupTag, Limits, Roles};
