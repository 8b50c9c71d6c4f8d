//! The first link of a packet's way: its queue is that of the sender's own interface.

use super::path::Wire;
use crate::ids::{End, HostId, NetId};
use std::net::IpAddr;
use std::time::Duration;

/// The network of the first link from an interface in `net` towards `dst`, and the link's far end; `None` if nothing has
/// that address, or nothing waits on any link of the world.
#[inline]
pub(crate) fn first_link(wire: &Wire, net: NetId, dst: IpAddr) -> Option<(NetId, End)> {
    if !wire.links.has_queues() {
        return None;
    }
    let state = wire.nets.get(net);
    let owner = state.addrs.get(&dst).map(|owner| owner.end());
    owner.or(state.gateway.is_some().then_some(End::Box(net))).map(|to| (net, to))
}

/// The bytes that wait on the link of `host` to `to` in `net`.
pub(crate) fn waiting_bytes(wire: &Wire, now_ns: u64, host: HostId, (net, to): (NetId, End)) -> u64 {
    let default = &wire.nets.get(net).links;
    wire.links.waiting(now_ns, (End::Host(host), to), default).map_or(0, |(bytes, _)| bytes)
}

/// The time after which no more than `most_bytes` wait there, at the rate that the link has now; `None` if that is so now.
pub(crate) fn room_after(
    wire: &Wire,
    now_ns: u64,
    host: HostId,
    (net, to): (NetId, End),
    most_bytes: u64,
) -> Option<Duration> {
    let default = &wire.nets.get(net).links;
    let (waiting_bytes, rate) = wire.links.waiting(now_ns, (End::Host(host), to), default)?;
    let surplus = u128::from(waiting_bytes.checked_sub(most_bytes).filter(|surplus| *surplus > 0)?);
    let ns = (surplus * 1_000_000_000).div_ceil(u128::from(rate));
    Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
}
