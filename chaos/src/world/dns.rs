//! Names: what a host's resolver hears, and which addresses a name has.

use super::sim::Sim;
use crate::ids::HostId;
use crate::kernel::names::DnsFailure;
use crate::wire::resolver::round_trip;
use std::net::IpAddr;
use std::time::Duration;

/// What becomes of a question that a host asks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It can't be sent: no interface leads out.
    NoRoute,
    /// No answer comes.
    Silence,
    /// An answer comes after this time, and says whether the name may exist.
    After(Duration, bool),
}

/// What becomes of a question that `host` asks now.
pub(crate) fn ask(sim: &Sim, host: HostId) -> Reply {
    let state = sim.host(host);
    let Some(nic) = state.nics.up().find(|nic| !nic.addrs.is_empty()) else { return Reply::NoRoute };
    let failure = state.names.failure();
    match round_trip(&sim.wire, host, nic.net) {
        Some(after) if failure != Some(DnsFailure::NoAnswer) => {
            Reply::After(after.saturating_add(state.names.delay()), failure.is_none())
        }
        _ => Reply::Silence,
    }
}

/// The addresses of a host's name, as getaddrinfo(3) sorts them for `asker`; the scenario itself counts as a host without
/// IPv6. None if no host has the name, or it has no address.
///
/// RFC 6724, as far as it matters here: a destination that the asker has no source address for is avoided (rule 1), and
/// IPv6 precedes IPv4 (rule 6, section 2.1). Addresses of one family keep their order (rule 10).
pub(crate) fn addresses(sim: &Sim, asker: Option<HostId>, name: &str) -> Vec<IpAddr> {
    let Some(host) = sim.hosts.find(name).map(|id| sim.host(id)) else { return Vec::new() };
    let mut found: Vec<IpAddr> = match host.names.stale() {
        Some(former) => former.to_vec(),
        None => host.nics.up().flat_map(|nic| nic.addrs.iter().copied()).collect(),
    };
    let has_v6 =
        asker.is_some_and(|id| sim.host(id).nics.up().any(|nic| nic.addrs.iter().any(IpAddr::is_ipv6)));
    found.sort_by_key(|ip| ip.is_ipv6() != has_v6);
    found
}
