//! Connects peers by key: the encrypted sessions between peers, and the hubs that relay for them and
//! introduce them.
//!
//! | module | content |
//! | --- | --- |
//! | [`hub`], [`hub_client`] | the server for relay, rendezvous and STUN; a client's one connection to it |
//! | [`relay`], [`rendezvous`], [`control`] | the hub's frames and cores, and the Noise connection under them |
//! | [`listen`] | where sockets are bound |
//! | [`advertise`] | the address that a hub advertises |
//! | [`stun`], [`candidates`] | our own addresses, as other hosts see them |
//! | [`securedgram`] | encrypted datagrams between keys: handshakes, sessions, paths |
//! | [`session`], [`noise`] | the record layer, and the handshake |
//! | [`route`], [`rate`] | where a datagram goes to or came from; token buckets |

pub mod advertise;
pub mod candidates;
pub mod control;
pub(crate) mod faults;
pub mod hub;
pub mod hub_client;
pub mod listen;
pub mod noise;
pub mod rate;
pub mod relay;
pub mod rendezvous;
pub mod route;
pub mod securedgram;
pub mod session;
pub mod stun;
