//! Whether an address of the peer that is on loopback is ours to send to.
//!
//! To a peer elsewhere, our loopback is a victim's address: services on this machine trust what comes from there. So
//! nothing goes there for the peer's word alone. The peer is on this machine if an authenticated datagram of it came from
//! loopback, where the kernel lets in nobody else. Two nodes of one machine meet at the addresses of its interfaces, and
//! need loopback only if it has no others, or if their sockets are bound to loopback; then our own list has loopback
//! addresses only, and our socket reaches nobody elsewhere.

use std::net::SocketAddr;

/// What is known of loopback.
#[derive(Debug, Default)]
pub(super) struct Locality {
    /// All addresses that we tell are on loopback.
    ours: bool,
    /// The peer was heard from loopback.
    heard: bool,
}

impl Locality {
    /// We tell these addresses.
    pub(super) fn tell(&mut self, addrs: &[SocketAddr]) {
        self.ours = !addrs.is_empty() && addrs.iter().all(is_loopback);
    }

    /// An authenticated datagram of the peer came from `addr`.
    pub(super) fn hear(&mut self, addr: &SocketAddr) {
        self.heard |= is_loopback(addr);
    }

    /// The session is over: the peer may come back from another machine.
    pub(super) fn close(&mut self) {
        self.heard = false;
    }

    /// Whether an unproven address that the peer named may be sent to.
    pub(super) fn admits(&self, addr: &SocketAddr) -> bool {
        self.ours || self.heard || !is_loopback(addr)
    }
}

fn is_loopback(addr: &SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_for_peers_that_came_from_there_and_for_machines_without_a_network() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (ours, heard, admitted) in [
            (&[][..], None, false),
            (&["192.168.1.2:4"], None, false),
            (&["192.168.1.2:4", "127.0.0.1:4"], None, false),
            (&["192.168.1.2:4", "127.0.0.1:4"], Some("192.168.1.2:5"), false),
            (&["192.168.1.2:4", "127.0.0.1:4"], Some("127.0.0.1:5"), true),
            (&["192.168.1.2:4"], Some("[::1]:5"), true),
            (&["127.0.0.1:4", "[::1]:4"], None, true),
        ] {
            let mut locality = Locality::default();
            locality.tell(&ours.iter().map(|text| addr(text)).collect::<Vec<_>>());
            heard.into_iter().for_each(|text| locality.hear(&addr(text)));
            for loopback in ["127.0.0.1:9", "127.9.9.9:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
                assert_eq!(locality.admits(&addr(loopback)), admitted, "{ours:?} {heard:?}");
            }
            assert!(locality.admits(&addr("192.168.1.7:9")));
        }
    }
}
