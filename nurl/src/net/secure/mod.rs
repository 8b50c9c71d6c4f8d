//! Encrypted datagrams between keys.
//!
//! | module | content |
//! | --- | --- |
//! | [`securedgram`] | handshakes, sessions and paths of every peer, in one `Endpoint` |
//! | [`session`] | the record layer of one session: counters, AEAD, replay window, rekeying |
//! | [`noise`] | the Noise handshake |
//! | [`version`] | which version of what is above the handshake two sides speak |
//! | [`route`] | where a datagram goes to or came from: an address or a relay |

pub mod noise;
pub mod route;
pub mod securedgram;
pub mod session;
pub mod version;
