//! The network below the seam: how two peers' datagrams are secured, and by which way they go.
//!
//! | module | what |
//! | --- | --- |
//! | [`noise`] | the handshake, `Noise_IKpsk2_25519_ChaChaPoly_SHA256` |
//! | [`session`] | the record layer of one finished handshake |
//! | [`securedgram`] | sessions with every peer: frames, gate, handshakes' life, key slots |
//! | [`route`] | where a datagram goes to or came from |

pub mod noise;
pub mod route;
pub mod securedgram;
pub mod session;
