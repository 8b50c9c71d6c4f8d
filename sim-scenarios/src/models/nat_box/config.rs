//! A box's behaviour, as data: one field for each behaviour that RFC 4787 and RFC 5382 distinguish.

use std::net::IpAddr;
use std::time::Duration;

/// The part of the remote endpoint on which a mapping or a filter depends (RFC 4787 §4.1 and §5). Later is
/// stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On nothing: one outer port for all destinations, or a filter that admits every sender.
    Endpoint,
    /// On the remote address, whatever its port.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// The term of RFC 4787.
    pub fn as_str(self) -> &'static str {
        match self {
            Dependence::Endpoint => "endpoint-independent",
            Dependence::Address => "address-dependent",
            Dependence::AddressAndPort => "address-and-port-dependent",
        }
    }
}

/// How the outer port of a new mapping is chosen (RFC 4787 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The inner one while it is free, else a free one at random of the same range (REQ-3).
    Preserving,
    /// The next free one after the last; the first is drawn.
    Sequential,
    /// A free one at random.
    Random,
}

/// How the outer address of a new mapping is chosen if the box has several (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// One outer address for all mappings of an inner address (REQ-2).
    Paired,
    /// Any, drawn for each mapping.
    Arbitrary,
}

/// How the box treats an address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Inner addresses are hidden behind the box's own.
    Translated,
    /// Inner addresses are visible outside; a stateful firewall admits solicited packets only.
    Firewalled,
    /// Everything passes.
    Open,
    /// Nothing passes: the provider has no addresses of this family.
    Blocked,
}

/// A range from which the lifetime of a mapping is drawn, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
}

/// The configuration of a box. Start from a [preset](super::presets) or from [`NatConfig::rfc`] and change
/// fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// Its name on the map of a world.
    pub name: &'static str,
    /// How it treats IPv4.
    pub v4: Family,
    /// How it treats IPv6.
    pub v6: Family,
    /// The dependence of a mapping, where the box translates.
    pub mapping: Dependence,
    /// The dependence of a mapping's filter, where the box translates.
    pub filtering: Dependence,
    /// The dependence of the filter, where the box only filters.
    pub firewall: Dependence,
    /// How outer ports are chosen.
    pub ports: Ports,
    /// The first and the last port that it assigns.
    pub port_range: (u16, u16),
    /// Whether the outer port has the parity of the inner one (RFC 4787 REQ-4).
    pub parity: bool,
    /// Whether two mappings may share an outer port while their remotes differ ("port overloading", which RFC 4787
    /// REQ-3 forbids and netfilter does). Needs an address-and-port-dependent mapping.
    pub overload: bool,
    /// How outer addresses are chosen. With a single outer address `Arbitrary` has no effect.
    pub pooling: Pooling,
    /// Whether an inner host reaches another's mapping through the box, with its own mapping as the source
    /// (RFC 4787 REQ-9).
    pub hairpin: bool,
    /// Time without a refresh after which a UDP mapping ends (RFC 4787 REQ-5 asks for two minutes or more). The
    /// permission for a single remote ends likewise.
    pub udp_timeout: Duration,
    /// The same once the remote has answered.
    pub udp_stream_timeout: Duration,
    /// Whether inbound packets refresh too. Outbound packets always do (RFC 4787 REQ-6a).
    pub inbound_refresh: bool,
    /// The time after which a UDP mapping ends despite traffic; the next packet makes a new one.
    pub udp_lifetime: Option<Lifetime>,
    /// Idle time after which an established TCP connection is forgotten (RFC 5382 REQ-5: 2 h 4 min or more).
    pub tcp_established: Duration,
    /// The same for a connection that isn't open yet, or is closed (RFC 5382 REQ-5: 4 min or more).
    pub tcp_transitory: Duration,
    /// Whether an outbound segment of an unknown connection makes a mapping, as if the box had seen the
    /// connection open; otherwise the segment is refused.
    pub tcp_pick_up: bool,
    /// The most remotes in the table, over all mappings.
    pub table: usize,
    /// The most mappings of one inner address, UDP and TCP together (RFC 6888 REQ-4).
    pub ports_per_host: usize,
    /// Whether UDP passes at all.
    pub udp: bool,
    /// The remote TCP ports that inner hosts may connect to; all if `None`.
    pub tcp_ports: Option<Vec<u16>>,
}

impl NatConfig {
    /// The behaviour that RFC 4787, RFC 5382 and RFC 6092 require where they leave no choice, their minimal
    /// timers, and the strictest filter. No IPv6.
    pub fn rfc(name: &'static str) -> NatConfig {
        NatConfig {
            name,
            v4: Family::Translated,
            v6: Family::Blocked,
            mapping: Dependence::Endpoint,
            filtering: Dependence::AddressAndPort,
            firewall: Dependence::AddressAndPort,
            ports: Ports::Preserving,
            port_range: (1024, u16::MAX),
            parity: false,
            overload: false,
            pooling: Pooling::Paired,
            hairpin: true,
            udp_timeout: Duration::from_secs(120),
            udp_stream_timeout: Duration::from_secs(120),
            inbound_refresh: false,
            udp_lifetime: None,
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
            tcp_pick_up: false,
            table: 4096,
            ports_per_host: usize::MAX,
            udp: true,
            tcp_ports: None,
        }
    }

    /// How the box treats the family of `ip`.
    pub fn family(&self, ip: IpAddr) -> Family {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// # Panics
    /// If fields contradict each other.
    pub(super) fn checked(self) -> NatConfig {
        let (first, last) = self.port_range;
        assert!(0 < first && first <= last, "{}: no ports in {first}..={last}", self.name);
        assert!(
            !self.overload || self.mapping == Dependence::AddressAndPort,
            "{}: ports can be shared by remotes only if every remote has its own mapping",
            self.name
        );
        if let Some(Lifetime { least, most }) = self.udp_lifetime {
            assert!(least <= most, "{}: a lifetime of {least:?} to {most:?}", self.name);
        }
        self
    }
}
