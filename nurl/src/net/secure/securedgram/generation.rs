//! One generation of the mesh's secret, with the derived keys that this node needs for every
//! datagram.

use crate::key::PublicKey;
use crate::mesh::Generation;

/// A generation and the keys that this node derives from it.
pub(super) struct GenerationKeys {
    pub(super) generation: Generation,
    /// The key of mac1 in handshakes to us.
    pub(super) own_mac1: [u8; 32],
    /// The key that seals our cookies.
    pub(super) own_cookie: [u8; 32],
}

impl GenerationKeys {
    pub(super) fn new(generation: Generation, local: &PublicKey) -> GenerationKeys {
        let (own_mac1, own_cookie) = (generation.mac1_key(local), generation.cookie_key(local));
        GenerationKeys { generation, own_mac1, own_cookie }
    }
}
