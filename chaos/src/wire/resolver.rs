//! The way from a host to its name server, which is in the internet as any host is, but isn't one.

use super::link::{LinkConfig, Rate, whole_ns};
use super::nets::MAX_DEPTH;
use super::path::Wire;
use crate::ids::{End, HostId, INTERNET, NetId};
use std::time::Duration;

/// The end that stands for a name server. No box is in front of the internet, so no fault has it as its spot.
const NAME_SERVER: End = End::Box(INTERNET);

/// The round trip from an interface of `host` in `net` to its name server: the latency of every link up to the
/// internet and of one within it, with the faults on them. `None` if no answer can come: a box on the way has no power, or
/// a link loses every datagram. Jitter, lower rates of loss and filters of boxes don't concern it: nothing is drawn.
pub(crate) fn round_trip(wire: &Wire, host: HostId, mut net: NetId) -> Option<Duration> {
    let mut from = End::Host(host);
    let mut total_ns = 0u64;
    for _ in 0..MAX_DEPTH {
        let state = wire.nets.get(net);
        let to = if state.gateway.is_some() { End::Box(net) } else { NAME_SERVER };
        for (one, other) in [(from, to), (to, from)] {
            let link = wire.links.get(one, other, &state.links);
            total_ns = total_ns.saturating_add(one_way(&link)?);
        }
        let Some(gateway) = &state.gateway else { return Some(Duration::from_nanos(total_ns)) };
        if !gateway.is_on() {
            return None;
        }
        (from, net) = (to, gateway.outside);
    }
    None
}

/// The latency of a link; `None` if nothing arrives.
fn one_way(link: &LinkConfig) -> Option<u64> {
    (link.udp_loss != Rate::ALWAYS).then(|| whole_ns(link.latency))
}
