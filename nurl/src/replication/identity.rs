//! Replica ids: a node's key and the incarnation of its store identify a writer.
//!
//! The incarnation is 64 random bits drawn when the store is created (in memory: per boot). A node that lost its disk
//! draws a new incarnation, so it never reuses a dot or a counter slot. Reuse would lose writes silently, because the
//! other replicas have already seen the old dot. Only members are actors.

use std::ops::RangeInclusive;

use crate::key::PublicKey;

/// The length of an encoded replica id.
pub const REPLICA_ID_LEN: usize = 40;

/// An actor of the CRDTs; ordered by key, then incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The node.
    pub key: PublicKey,
    /// Its store's incarnation.
    pub incarnation: u64,
}

impl ReplicaId {
    /// Every id of one node.
    pub fn all_of(key: &PublicKey) -> RangeInclusive<ReplicaId> {
        ReplicaId { key: *key, incarnation: 0 }..=ReplicaId { key: *key, incarnation: u64::MAX }
    }

    /// `key:32 ‖ incarnation:8 (big-endian)`: the bytes sort in the order of the ids.
    pub fn to_bytes(self) -> [u8; REPLICA_ID_LEN] {
        let mut bytes = [0; REPLICA_ID_LEN];
        bytes[..32].copy_from_slice(self.key.as_bytes());
        bytes[32..].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes
    }

    /// The inverse of [`to_bytes`](ReplicaId::to_bytes).
    pub fn from_bytes(bytes: [u8; REPLICA_ID_LEN]) -> ReplicaId {
        let (key, incarnation) = bytes.split_first_chunk::<32>().expect("40 bytes begin with 32");
        ReplicaId {
            key: PublicKey::from_bytes(*key),
            incarnation: u64::from_be_bytes(incarnation.try_into().expect("8 bytes are left of 40")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_compare_as_ids_do() {
        let id = |n: u8, incarnation| ReplicaId { key: PublicKey::from_bytes([n; 32]), incarnation };
        let ordered = [id(1, 1), id(1, 256), id(2, 0)];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        assert_eq!(ReplicaId::from_bytes(ordered[1].to_bytes()), ordered[1]);
    }
}
