//! The seam: what the layers above see of a peer, whatever path leads to it.

pub mod group;
pub mod reliable;
