//! The network below the seam: how bytes get from one peer to another.

pub mod control;
pub mod relay;
pub mod rendezvous;




pub mod stun;
