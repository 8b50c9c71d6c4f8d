//! What lies between hosts: networks, the boxes between them, links, and the packets on them.

pub(crate) mod forward;
pub mod link;
pub(crate) mod links;
pub mod middlebox;
pub(crate) mod net;
pub(crate) mod packet;
pub(crate) mod pcap;
