//! Connects peers by key: the encrypted sessions between peers, and the hubs that relay for them and introduce them.
//!
//! | module | content |
//! | --- | --- |
//! | [`reach`] | how two peers find a path: addresses, NAT, hubs with relay, rendezvous and STUN |
//! | [`secure`] | encrypted datagrams between keys: handshakes, sessions, the paths they move on |
//!
//! `reach` stands on `secure` for the Noise handshake of a control connection, never the other way round.

pub mod reach;
pub mod secure;
