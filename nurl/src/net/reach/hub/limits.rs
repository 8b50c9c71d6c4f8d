//! The limits of a hub.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::net::reach::control::MAX_PLAINTEXT_BYTES;
use crate::net::reach::relay::frame::MAX_DATAGRAM_BYTES;
use crate::net::reach::relay::{Limits, RelayLimits, Roles};
use crate::net::reach::rendezvous::RECORD_TTL;
use crate::net::secure::version::Versions;

/// The most namespaces that one hub serves.
pub const MAX_NAMESPACES: usize = 1024;

/// The limits of a hub; the defaults suit a small machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// The relay's limits for each client, and for all.
    pub relay: RelayLimits,
    /// Registered clients in all. One that doesn't read costs at most 0.5 MiB, all together a budget
    /// ([`RelayLimits::all_bytes`]), and each usually a few KiB: a full hub fits 2 GiB. When all places are taken, the pass
    /// that has most of them pays for a newcomer.
    pub clients: usize,
    /// Registered clients from one address (v4) or /64 (v6). A carrier-grade NAT puts many phones behind one
    /// address. They are shared likewise.
    pub clients_per_address: usize,
    /// Half-open connections from one address. Each may cost one handshake, 0.2 ms. After a restart, a whole lab
    /// behind one NAT comes back at once. One connection more evicts a random one of them.
    pub half_open_per_address: usize,
    /// Half-open connections in all. One connection more evicts a random one of the address with the most.
    pub half_open: usize,
    /// How long a connection may take from its acceptance to its REGISTER.
    pub handshake: Duration,
    /// A client that sends no bytes for so long is closed. Clients ping every 15 s.
    pub idle: Duration,
    /// The most records, of all namespaces together; shared likewise.
    pub records: usize,
    /// The longest lifetime of a record that isn't refreshed.
    pub record_ttl: Duration,
    /// Rendezvous requests allowed per pass and second, on average.
    pub requests_per_second: u64,
    /// Rendezvous requests allowed per pass at once: a node may read all records of a mesh again.
    pub requests_burst: u64,
    /// The versions that the hub speaks.
    pub versions: Versions,
}

impl Default for HubLimits {
    fn default() -> HubLimits {
        HubLimits {
            relay: RelayLimits::default(),
            clients: 16_384,
            clients_per_address: 1_024,
            half_open_per_address: 64,
            half_open: 1_024,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            records: 16_384,
            record_ttl: RECORD_TTL,
            requests_per_second: 64,
            requests_burst: 1_024,
            versions: Versions::SPOKEN,
        }
    }
}

impl HubLimits {
    /// The limits that REGISTERED announces to a client.
    pub fn announced(&self, roles: Roles) -> Limits {
        Limits {
            roles,
            frame_bytes: MAX_PLAINTEXT_BYTES as u32,
            datagram_bytes: MAX_DATAGRAM_BYTES as u32,
            queue_bytes: u32::try_from(self.relay.queue_bytes).unwrap_or(u32::MAX),
            bytes_per_second: self.relay.bytes_per_second,
            groups: u16::try_from(self.relay.groups).unwrap_or(u16::MAX),
            record_ttl: self.record_ttl,
            idle: self.idle,
            versions: self.versions,
        }
    }
}

/// The unit that counts as one address: a v4 address, or a v6 /64, since one host can own a whole /64.
pub fn prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v6_host_is_its_64_and_a_mapped_v4_address_is_v4() {
        let prefix_of = |ip: &str| prefix(ip.parse().unwrap()).to_string();
        assert_eq!(prefix_of("192.0.2.7"), "192.0.2.7");
        assert_eq!(prefix_of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(prefix_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
