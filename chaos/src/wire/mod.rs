//! What lies between hosts: networks, the boxes between them, links, and the packets on them.
//!
//! It knows no kernel and no world: it is told the addresses of interfaces, and returns where a packet goes.
//!
//! | module | concept |
//! | --- | --- |
//! | `packet` | the bytes of a packet |
//! | `flight` | a packet in flight; buffers for packets |
//! | `link`, `effect`, `links` | what a link does to a packet; what faults add to that; all links and partitions |
//! | `middlebox` | a box that rewrites and refuses packets |
//! | `net`, `nets` | a network and its box; the tree of networks, and who has which address |
//! | `path` | the way of a packet through all of these |
//! | `resolver` | the way to a name server |
//! | `uplink` | the first link of a packet's way, and what waits there |
//! | `pcap` | packets as a file for Wireshark |

pub(crate) mod effect;
pub(crate) mod flight;
pub mod link;
pub(crate) mod links;
pub mod middlebox;
pub(crate) mod net;
pub(crate) mod nets;
pub(crate) mod packet;
pub(crate) mod path;
pub(crate) mod pcap;
pub(crate) mod resolver;
pub(crate) mod uplink;
