//! Common boxes. The first four are named as in RFC 3489 §5. Each doc comment describes the box in the terms of
//! RFC 4787, and lists the requirements that it breaks, as the real boxes of that name do.

use super::config::{Dependence, Family, Lifetime, NatConfig, Ports};
use std::time::Duration;

/// Endpoint-independent mapping and filtering: every sender that knows the outer address gets in.
pub fn full_cone() -> NatConfig {
    NatConfig {
        filtering: Dependence::Endpoint,
        udp_timeout: Duration::from_secs(300),
        udp_stream_timeout: Duration::from_secs(300),
        inbound_refresh: true,
        ..NatConfig::rfc("full cone")
    }
}

/// Endpoint-independent mapping, address-dependent filtering.
pub fn restricted() -> NatConfig {
    NatConfig {
        filtering: Dependence::Address,
        udp_timeout: Duration::from_secs(300),
        udp_stream_timeout: Duration::from_secs(300),
        ..NatConfig::rfc("restricted")
    }
}

/// Endpoint-independent mapping, address-and-port-dependent filtering, and no hairpin, against RFC 4787 REQ-9 and
/// RFC 5382 REQ-8.
pub fn port_restricted() -> NatConfig {
    NatConfig { hairpin: false, ..NatConfig::rfc("port-restricted") }
}

/// Address-and-port-dependent mapping and filtering, random ports: an office. Against RFC 4787 REQ-1 (a mapping
/// for each remote), REQ-5 (a 60 s timeout, where two minutes are the least), REQ-9 and RFC 5382 REQ-8 (no
/// hairpin).
pub fn symmetric() -> NatConfig {
    NatConfig {
        mapping: Dependence::AddressAndPort,
        ports: Ports::Random,
        hairpin: false,
        udp_timeout: Duration::from_secs(60),
        udp_stream_timeout: Duration::from_secs(60),
        ..NatConfig::rfc("symmetric")
    }
}

/// The same with sequential ports, so that the next port can be guessed.
pub fn symmetric_sequential() -> NatConfig {
    NatConfig { name: "symmetric-sequential", ports: Ports::Sequential, ..symmetric() }
}

/// IPv4 behind one address, port-restricted and with a hairpin; IPv6 behind a stateful firewall (RFC 6092).
pub fn home_router() -> NatConfig {
    NatConfig { v6: Family::Firewalled, inbound_refresh: true, ..NatConfig::rfc("home router") }
}

/// A carrier's NAT (RFC 6888) as phones meet it: random ports, 256 of them for a subscriber. A UDP mapping ends
/// after 30 s without an outbound packet, and after 48 to 75 s in any case. Endpoint-independent mapping,
/// address-and-port-dependent filtering. Against RFC 4787 REQ-5 (two minutes at least) and REQ-6 (a refreshed
/// mapping lives), RFC 5382 REQ-5 (half an hour ends a connection, where 2 h 4 min are the least) and RFC 6888
/// REQ-8 (a port is reused at once, where it should rest for 120 s).
pub fn carrier_grade() -> NatConfig {
    NatConfig {
        ports: Ports::Random,
        udp_timeout: Duration::from_secs(30),
        udp_stream_timeout: Duration::from_secs(30),
        udp_lifetime: Some(Lifetime { least: Duration::from_secs(48), most: Duration::from_secs(75) }),
        tcp_established: Duration::from_secs(1800),
        ports_per_host: 256,
        table: 65_536,
        ..NatConfig::rfc("carrier-grade")
    }
}

/// Linux with `MASQUERADE` and a firewall that drops unsolicited packets.
///
/// Netfilter tracks 5-tuples: each has its own mapping and admits its remote only. The port is kept unless
/// another inner host has it *toward the same remote*, so a lone host sees an endpoint-independent mapping. An
/// unanswered flow ends after 30 s, an answered one after 120 s; packets of both directions refresh. Unknown
/// connections are picked up (`nf_conntrack_tcp_loose`).
///
/// Against RFC 4787 REQ-3 and RFC 5382 REQ-7 (ports are overloaded), RFC 4787 REQ-11 (the mapping depends on the
/// other hosts' mappings), REQ-5 (30 s; after 2 min an unanswered connection ends, where RFC 5382 REQ-5 asks for
/// 4), REQ-9 and RFC 5382 REQ-8 (no hairpin).
///
/// Left out: an unanswered inbound packet that the box's own stack accepts makes a flow there, too, and may take
/// a port away. Here the firewall drops such a packet first.
pub fn linux_masquerade() -> NatConfig {
    NatConfig {
        v6: Family::Firewalled,
        mapping: Dependence::AddressAndPort,
        overload: true,
        hairpin: false,
        udp_timeout: Duration::from_secs(30),
        udp_stream_timeout: Duration::from_secs(120),
        inbound_refresh: true,
        tcp_established: Duration::from_secs(5 * 24 * 3600),
        tcp_transitory: Duration::from_secs(120),
        tcp_pick_up: true,
        table: 65_536,
        ..NatConfig::rfc("linux masquerade")
    }
}

/// A guest network: no UDP, no IPv6, and TCP to `tcp_ports` only. A hub is reachable if its port is among them.
/// Against RFC 5382 REQ-5: a connection ends after half an hour.
pub fn hotel(tcp_ports: &[u16]) -> NatConfig {
    NatConfig {
        udp: false,
        tcp_ports: Some(tcp_ports.to_vec()),
        hairpin: false,
        tcp_established: Duration::from_secs(1800),
        ..NatConfig::rfc("hotel")
    }
}

/// All presets; the hotel allows `hub_port` besides the web's ports.
pub fn all(hub_port: u16) -> Vec<NatConfig> {
    vec![
        full_cone(),
        restricted(),
        port_restricted(),
        symmetric(),
        symmetric_sequential(),
        home_router(),
        carrier_grade(),
        linux_masquerade(),
        hotel(&[80, 443, hub_port]),
    ]
}
