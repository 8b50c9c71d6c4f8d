//! The relay: datagrams between peers that have no direct path, and group fan-out.
//!
//! Promise: a datagram reaches only the connection that proved the destination's key, within one namespace,
//! and carries the sender's proven key. The relay sees sealed bytes only. The newest registration of a key
//! wins and closes the older one with `replaced`: a phone that roamed is never shadowed by its own dead TCP
//! connection. A slow reader costs nobody but itself.
//!
//! How: [`Relay`] is a pure registry with one outbox for each connection: a short row of control frames, which
//! goes first, and a [`queue::FairQueue`] of datagrams. Whoever writes to a connection takes its next
//! plaintext by [`Relay::poll_plaintext`]; who is to be woken comes from [`Relay::poll_wake`].
//!
//! It refuses, and counts: datagrams over [`frame::MAX_DATAGRAM_BYTES`], beyond a client's rate or queue, to
//! unknown keys, and groups beyond a client's number. Refusing never closes a connection by itself.

pub mod frame;
pub mod queue;

mod core;
#[cfg(test)]
mod tests;

pub use self::core::{ClientId, Counters, MAX_CORRESPONDENTS, Relay, RelayLimits};
pub use frame::{CloseReason, Frame, GroupTag, Limits, Roles};
