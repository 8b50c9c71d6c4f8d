//! What checks say about our own address: that it matters just now, and where the peer sees it.
//!
//! A NAT may give us another address at any time, and nothing tells us so. When a way has to be opened, the address that
//! the peer was told must be the present one, or both sides knock at doors that are gone. So every round of punches is
//! told to the layer above, which asks a STUN server. The echo of a challenge also carries the source that the peer saw
//! (as XOR-MAPPED-ADDRESS does, RFC 8489 §14.2): where no server answers, it is all there is.

use std::net::SocketAddr;

#[derive(Debug, Default)]
pub(super) struct Reflection {
    punched: bool,
    last: Option<SocketAddr>,
    news: Option<SocketAddr>,
}

impl Reflection {
    pub(super) fn punched(&mut self) {
        self.punched = true;
    }

    pub(super) fn poll_punched(&mut self) -> bool {
        std::mem::take(&mut self.punched)
    }

    /// The peer says that it sees us at `addr`. Only a change is news.
    pub(super) fn observed(&mut self, addr: SocketAddr) {
        if self.last.replace(addr) != Some(addr) {
            self.news = Some(addr);
        }
    }

    pub(super) fn poll_observed(&mut self) -> Option<SocketAddr> {
        self.news.take()
    }
}
