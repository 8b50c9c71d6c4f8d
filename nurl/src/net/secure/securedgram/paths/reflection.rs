//! The reports of path checks about our own address: when it matters, and where the peer sees it.
//!
//! A NAT may change our mapping at any time without notice. When a path has to be opened, the address that the peer
//! knows must be the current one; otherwise both sides send to expired mappings. So every round of hole punching is
//! reported to the layer above, which asks a STUN server. The echo of a challenge also carries the source that the
//! peer saw (as XOR-MAPPED-ADDRESS does, RFC 8489 §14.2); where no server answers, this is the only report.

use std::net::SocketAddr;

/// What the layer above is to hear about our own address.
#[derive(Debug, Default)]
pub(super) struct Reflection {
    /// A round of hole punching has begun.
    punched: bool,
    /// The last report of the peer.
    last: Option<SocketAddr>,
    /// A report that hasn't been fetched.
    news: Option<SocketAddr>,
}

impl Reflection {
    pub(super) fn punched(&mut self) {
        self.punched = true;
    }

    pub(super) fn poll_punched(&mut self) -> bool {
        std::mem::take(&mut self.punched)
    }

    /// The peer reports our address as `addr`. Only a change is passed on.
    pub(super) fn observed(&mut self, addr: SocketAddr) {
        if self.last.replace(addr) != Some(addr) {
            self.news = Some(addr);
        }
    }

    pub(super) fn poll_observed(&mut self) -> Option<SocketAddr> {
        self.news.take()
    }
}
