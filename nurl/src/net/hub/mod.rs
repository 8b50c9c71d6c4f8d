//! The hub: one process with three roles, each of which can be off: relay, rendezvous, STUN.
//!
//! Promise: a key belongs to whoever proved it here last, and to nobody else; what one namespace does, no other
//! sees; no client can make the hub hold more than its share or wait for it. A hub that restarts is found again
//! by its clients: it keeps nothing that they don't bring back.
//!
//! How: [`core::Hub`] is pure: connections are accepted, become authenticated by the handshake and registered by
//! their first transport frame, and end. Frames go to [`relay`](super::relay) or to
//! [`rendezvous`](super::rendezvous). [`serve`] drives it: TCP and UDP on one port number, one task for each
//! connection, which reads and writes 64 KiB at a time and never waits for another connection.
//!
//! It refuses, and counts: connections beyond the limits ([`limits`]), handshakes that take longer than 5 s,
//! unknown namespaces, other versions, frames out of place. Connections that haven't registered yet never keep a
//! newcomer out: one of them goes.

pub mod core;
mod driver;
mod half_open;
pub mod limits;
mod new_mesh;
#[cfg(test)]
mod tests;

pub use self::core::{HubStats, Output, Refusal};
pub use driver::{HubConfig, HubError, HubHandle, serve};
pub use limits::HubLimits;
pub use new_mesh::serve_new_mesh;
