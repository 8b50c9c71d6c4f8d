//! Shared state without consensus: replicated values, their placement, and their durability.
//!
//! [`crdt`] has the values: states that merge in any order, any number of times, to the same bytes. [`replicator`]
//! keeps each key on its owners on the ring and repairs the differences. [`store`] has the layout
//! of the durable records, and [`identity`] defines the id under which a node writes. Nothing here waits for a quorum.

pub mod crdt;
pub mod identity;
pub mod replicator;
pub mod store;
