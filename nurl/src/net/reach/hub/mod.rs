//! The hub: one process with three roles, each of which can be off: relay, rendezvous, STUN.
//!
//! Guarantees: a registration of a key belongs to the last client that proved the key. Namespaces are isolated
//! from each other. No client can make the hub hold more than the client's share, or make it wait. After a
//! restart, clients find the hub again: it keeps no state that they don't restore.
//!
//! [`core::Hub`] is pure: a connection is accepted, becomes authenticated by the handshake and registered by its
//! first transport frame, and ends. Frames go to [`relay`](super::relay) or to
//! [`rendezvous`](super::rendezvous). [`serve`] drives it: TCP and UDP on one port number, and one task for each
//! connection, which reads and writes 64 KiB at a time and never waits for another connection.
//!
//! The hub refuses and counts: connections beyond the limits ([`limits`]), handshakes that take longer than 5 s,
//! unknown namespaces, other versions, frames out of place. Half-open connections never keep a newcomer out: the
//! hub evicts one of them.

mod asking;
pub mod core;
mod driver;
mod half_open;
mod issued;
pub mod limits;
mod meshes;
mod new_mesh;
#[cfg(test)]
mod tests;

pub use self::core::{ConnectionStats, HubStats, Output, Refusal};
pub use driver::{HubConfig, HubError, HubHandle, serve};
pub use issued::issued_passes;
pub use limits::HubLimits;
pub use meshes::ServedMesh;
pub use new_mesh::serve_new_mesh;
