//! Shared state without consensus: replicated values, where they live, and how they survive a restart.
//!
//! [`crdt`] has the values: states that merge in any order, any number of times, to the same bytes.
//! [`replicator`] keeps each key on its owners on the ring and repairs what differs. [`store`] is the durable
//! side, and [`identity`] the id under which a node writes. Nothing here waits for a quorum.

pub mod crdt;
pub mod identity;
pub mod replicator;
pub mod store;
