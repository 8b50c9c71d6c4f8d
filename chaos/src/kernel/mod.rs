//! A host's kernel: its interfaces, clocks, disk, ports and sockets, and the process that uses them.
//!
//! A part of the kernel owns its state. It sends nothing by itself: a call returns the packets, and the world carries
//! them.

pub mod clock;
pub(crate) mod disk;
pub(crate) mod host;
pub(crate) mod process;
pub(crate) mod slab;
pub(crate) mod tcp;
pub(crate) mod timer;
pub(crate) mod udp;
