//! nurl: computation on machines behind NATs, without a server farm.
//!
//! Peers are X25519 keys, not addresses. Datagrams between them are encrypted end to end and survive
//! roaming; NATs are punched, and where they can't be, an untrusted hub carries the same ciphertext. Above
//! one seam stand membership, a consistent-hash ring, replicated state, jobs and leases. The same code runs
//! on tokio's sockets and, with feature `sim`, inside a seeded simulated world.
//!
//! Layers, from the top. Read upwards to see how a datagram is secured and delivered, downwards to see how
//! an application addresses a peer. Imports only ever point down this list.
//!
//! | layer | module | in one line |
//! | --- | --- | --- |
//! | node | [`node`] | the assembled stack: builder, handle, events |
//! | compute | [`compute`] | submit → the key's owner executes → result; fencing leases |
//! | state | [`state`] | CRDTs, replication to a key's owners, durable store |
//! | ownership | [`ring`] | key → owner, key → replica set, epochs |
//! | membership | [`membership`] | who is alive: SWIM and Lifeguard |
//! | seam | [`transport`] | `send(peer)`, `broadcast(group)`, `recv()`; direct or relayed |
//! | reach | [`net`]: `listen`, `advertise`, `stun`, `candidates`, `relay`, `rendezvous`, `hub`, `hub_client`, `control` | how two peers find a path |
//! | secure | [`net`]: `noise`, `session`, `securedgram` | encrypted datagrams between keys |
//! | keys | [`key`], [`mesh`] | who a peer is, who belongs together |
//! | shim | [`rt`] | sockets, time, tasks, threads, randomness, disk: tokio or simulated |

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "feature `sim` needs `--cfg madsim`. The workspace's .cargo/config.toml sets it; an exported RUSTFLAGS \
     displaces that. Unset RUSTFLAGS, or add to your own .cargo/config.toml:\n\
     [target.'cfg(all())']\nrustflags = [\"--cfg\", \"madsim\"]\n[build]\nrustdocflags = [\"--cfg\", \"madsim\"]"
);

// Without the cfg the world is empty: the modules step aside, so that only the error above is seen.
#[cfg(any(not(feature = "sim"), madsim))]
pub mod compute;
#[cfg(any(not(feature = "sim"), madsim))]
mod error;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod key;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod membership;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod mesh;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod net;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod node;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod ring;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod rt;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod state;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod transport;

#[cfg(any(not(feature = "sim"), madsim))]
pub use crate::{
    error::{Error, HubFailure},
    key::{PublicKey, SecretKey},
    mesh::Ticket,
    node::Node,
};

/// The README's first program, compiled and run as a test.
#[cfg(all(doctest, not(feature = "sim")))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
