//! The names of the parts of a world: hosts, networks, and the ends of links.
//!
//! They are what a kernel and the wire have in common, so neither needs to know the other. Their `Debug` form is a
//! part of the digest.

/// Identifies a host of a world by the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub(crate) u32);

/// Identifies a network of a world by the order of creation; 0 is the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetId(pub(crate) u32);

/// The outermost network.
pub(crate) const INTERNET: NetId = NetId(0);

/// An end of a link: a host, or the box in front of a network, which is an end both inside the network and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A host.
    Host(HostId),
    /// The box in front of a network.
    Box(NetId),
}

/// The number of the loopback interface, in a host's routes and in trace records.
pub(crate) const LOOPBACK: u8 = 255;
