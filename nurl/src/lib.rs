//! nurl: computation on machines behind NATs, without a server farm.
//!
//! Peers are X25519 keys, not addresses. Datagrams between them are encrypted end to end and survive
//! roaming; NATs are punched, and where they can't be, an untrusted hub carries the same ciphertext. Above
//! one seam stand membership, a consistent-hash ring, replicated state, jobs and leases. The same code runs
//! on tokio's sockets and, with feature `sim`, inside a seeded simulated world.
//!
//! ```no_run
//! use nurl::{Node, config::Role};
//! use std::time::Duration;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (_hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
//!     let upper = |_, text: bytes::Bytes| async move { Ok(text.to_ascii_uppercase().into()) };
//!     let worker = Node::builder(ticket.clone()).handler("up", upper).spawn().await?;
//!     worker.joined(Duration::from_secs(10)).await?;
//!     let client = Node::builder(ticket).role(Role::Observer).spawn().await?;
//!     client.joined(Duration::from_secs(10)).await?;
//!     let task = client.submit("up", b"any key", "hello".into(), Default::default()).await?;
//!     assert_eq!(task.outcome().await?, "HELLO");
//!     Ok(())
//! }
//! ```
//!
//! | module | what a program finds there |
//! | --- | --- |
//! | this one | [`Node`], its [`Builder`], the [`Ticket`] of a mesh, keys, [`Error`] |
//! | [`config`] | what a node is told before it begins: role, addresses, allow-list, limits |
//! | [`job`] | tasks: options, handlers, outcomes |
//! | [`state`] | counters, registers, sets and maps that merge |
//! | [`lease`] | fencing tokens for effects outside of the mesh |
//! | [`message`] | what the seam carries: datagrams, reliable messages, groups |
//! | [`events`] | what a node sees, counts and tells |
//! | [`hub`] | a hub of one's own |
//! | [`rt`] | sockets, time, tasks, randomness, disk: tokio's, or the simulated world's |
//!
//! Inside, the layers from the top. Read upwards to see how a datagram is secured and delivered, downwards to see how
//! an application addresses a peer. Imports only ever point down this list.
//!
//! | layer | module | in one line |
//! | --- | --- | --- |
//! | node | `node` | the assembled stack: builder, handle, events |
//! | compute | `compute` | submit → the key's owner executes → result; fencing leases |
//! | state | `replication` | CRDTs, replication to a key's owners |
//! | ownership | `ring` | key → owner, key → replica set, epochs |
//! | membership | `membership` | who is alive: SWIM and Lifeguard |
//! | seam | `transport` | `send(peer)`, `broadcast(group)`, `recv()`; direct or relayed |
//! | reach | `net::reach`: `listen`, `advertise`, `stun`, `candidates`, `relay`, `rendezvous`, `hub`, `hub_client`, `control` | how two peers find a path |
//! | secure | `net::secure`: `noise`, `session`, `securedgram`, `route` | encrypted datagrams between keys |
//! | keys | `key`, `mesh` | who a peer is, who belongs together |
//! | disk | `store` | records that outlive the process: opening, damage, transactions |
//! | tools | `kit` | back-off, draws, timers, token buckets, the replay window: they know no layer |
//! | shim | `rt` | sockets, time, tasks, threads, randomness, disk: tokio or simulated |

#![cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        unused_imports,
        reason = "what `internals` shows stays `pub`, also where it is named again"
    )
)]

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "feature `sim` needs `--cfg madsim`. The workspace's .cargo/config.toml sets it; an exported RUSTFLAGS \
     displaces that. Unset RUSTFLAGS, or add to your own .cargo/config.toml:\n\
     [target.'cfg(all())']\nrustflags = [\"--cfg\", \"madsim\"]\n[build]\nrustdocflags = [\"--cfg\", \"madsim\"]"
);

// Without the cfg the world is empty: everything steps aside, so that only the error above is seen.
#[cfg(any(not(feature = "sim"), madsim))]
#[path = ""]
mod layers {
    pub mod authority;
    pub mod compute;
    pub(crate) mod error;
    pub mod key;
    pub mod kit;
    pub mod membership;
    pub mod mesh;
    pub mod net;
    pub mod node;
    pub mod replication;
    pub mod ring;
    pub mod store;
    pub mod transport;
}
#[cfg(any(not(feature = "sim"), madsim))]
pub mod rt;

#[cfg(any(not(feature = "sim"), madsim))]
#[allow(unused_imports, reason = "a layer's path within the crate is `crate::` and its name")]
use layers::{
    authority, compute, error, key, kit, membership, mesh, net, node, replication, ring, store, transport,
};

/// Every layer as it is inside, for the scenarios of the simulated world, benchmarks and the examples of single layers.
/// Nothing in here is promised to stay.
#[cfg(all(feature = "internals", any(not(feature = "sim"), madsim)))]
#[doc(hidden)]
pub mod internals {
    pub use crate::layers::{
        authority, compute, key, kit, membership, mesh, net, node, replication, ring, store, transport,
    };
}

#[cfg(any(not(feature = "sim"), madsim))]
mod door;
#[cfg(any(not(feature = "sim"), madsim))]
pub use door::*;
