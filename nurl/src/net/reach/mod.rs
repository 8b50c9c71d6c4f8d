//! How two peers behind NATs find a path to each other.
//!
//! | module | content |
//! | --- | --- |
//! | [`hub`], [`hub_client`] | the server for relay, rendezvous and STUN; a client's one connection to it |
//! | [`relay`], [`rendezvous`], [`control`] | the hub's frames and cores, and the Noise connection under them |
//! | [`listen`] | where sockets are bound |
//! | `faults` | errors of a socket that pass, and those that stay |
//! | [`advertise`] | the address that a hub advertises |
//! | [`stun`], [`candidates`] | our own addresses: as a NAT shows them to others, and as our interfaces have them |
//!
//! The punching itself is done by the paths of [`securedgram`](crate::net::secure::securedgram::paths), which are fed with
//! the candidates found here.

pub mod advertise;
pub mod candidates;
pub mod control;
pub(crate) mod faults;
pub mod hub;
pub mod hub_client;
pub mod listen;
pub mod relay;
pub mod rendezvous;
pub mod stun;
