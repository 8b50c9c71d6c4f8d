//! The source of a datagram, for the gate.

use std::net::{IpAddr, SocketAddr};

use super::super::route::Route;
use crate::key::PublicKey;
use crate::net::secure::session::Leg;

/// The source of an inbound datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The UDP address, or the hub that delivered it.
    pub route: Route,
    /// The source key that the hub reports: a return address like a UDP source, never an identity.
    pub relay_src: Option<PublicKey>,
}

impl Source {
    /// A datagram over UDP from `addr`.
    pub fn direct(addr: SocketAddr) -> Source {
        Source { route: Route::Direct(addr), relay_src: None }
    }

    /// A datagram through `hub`, which reports `src` as the sender.
    pub fn relay(hub: PublicKey, src: PublicKey) -> Source {
        Source { route: Route::Relay(hub), relay_src: Some(src) }
    }

    /// The leg of the source.
    pub fn leg(&self) -> Leg {
        if self.route.is_direct() { Leg::Direct } else { Leg::Relay }
    }

    /// The return address, to which a cookie is bound; `None` when a relayed datagram lacks it.
    pub(super) fn origin(&self) -> Option<Origin> {
        match (self.route, self.relay_src) {
            (Route::Direct(addr), _) => Some(Origin::Direct(addr)),
            (Route::Relay(hub), Some(src)) => Some(Origin::Relay(hub, src)),
            (Route::Relay(_), None) => None,
        }
    }
}

/// A full return address: a cookie is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Address and port.
    Direct(SocketAddr),
    /// The hub, and the source key that it reports.
    Relay(PublicKey, PublicKey),
}

impl Origin {
    /// An unambiguous encoding.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Origin::Direct(addr) => {
                let mut bytes = match canonical(addr.ip()) {
                    IpAddr::V4(ip) => [&[4][..], &ip.octets()].concat(),
                    IpAddr::V6(ip) => [&[6][..], &ip.octets()].concat(),
                };
                bytes.extend_from_slice(&addr.port().to_le_bytes());
                bytes
            }
            Origin::Relay(hub, src) => [&[0][..], hub.as_bytes(), src.as_bytes()].concat(),
        }
    }

    /// The narrow prefix with its own budget: /32, /64, or one source behind a hub.
    pub fn narrow(&self) -> Prefix {
        match self {
            Origin::Direct(addr) => match canonical(addr.ip()) {
                IpAddr::V4(ip) => Prefix::V4(ip.octets()),
                IpAddr::V6(ip) => Prefix::V6(cut(ip.octets(), 8)),
            },
            Origin::Relay(hub, src) => Prefix::Relayed(*hub, *src),
        }
    }

    /// The wide prefix with its own budget: /24, /48, or the whole hub.
    pub fn wide(&self) -> Prefix {
        match self {
            Origin::Direct(addr) => match canonical(addr.ip()) {
                IpAddr::V4(ip) => {
                    let [a, b, c, _] = ip.octets();
                    Prefix::V4([a, b, c, 0])
                }
                IpAddr::V6(ip) => Prefix::V6(cut(ip.octets(), 6)),
            },
            Origin::Relay(hub, _) => Prefix::Hub(*hub),
        }
    }
}

/// The canonical address: a dual-stack socket reports an IPv4 address as `::ffff:a.b.c.d`.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn cut(octets: [u8; 16], keep: usize) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix[..keep].copy_from_slice(&octets[..keep]);
    prefix
}

/// The unit whose handshakes are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// An IPv4 prefix.
    V4([u8; 4]),
    /// An IPv6 prefix.
    V6([u8; 8]),
    /// One source behind a hub.
    Relayed(PublicKey, PublicKey),
    /// A hub.
    Hub(PublicKey),
}
