//! The network below the seam: how bytes get from one peer to another.

pub mod control;
pub mod hub;
pub mod hub_client;
pub mod relay;
pub mod rendezvous;

pub mod stun;
