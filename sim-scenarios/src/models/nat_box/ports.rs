//! The choice of a new mapping's port (RFC 4787 §4.2).

use super::config::{NatConfig, Ports};
use chaos::seed::Rng;
use rand_core::Rng as _;

/// The last of the well-known ports, which only map to each other (RFC 4787 REQ-3a).
const WELL_KNOWN: u16 = 1023;

/// A number in `0..bound`.
pub(super) fn below(rng: &mut Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Picks a port for the inner port `inner`, one for which `is_free` holds. `last` is the previously assigned
/// port, if any. `None` if all are taken.
pub(super) fn pick(
    config: &NatConfig,
    inner: u16,
    last: Option<u16>,
    rng: &mut Rng,
    is_free: impl Fn(u16) -> bool,
) -> Option<u16> {
    let preserving = config.ports == Ports::Preserving;
    if preserving && inner != 0 && is_free(inner) {
        return Some(inner);
    }
    let (first, end) = if preserving && inner <= WELL_KNOWN { (1, WELL_KNOWN) } else { config.port_range };
    let size = u32::from(end - first) + 1;
    let start = match (config.ports, last) {
        (Ports::Sequential, Some(last)) if last >= first && last < end => u32::from(last - first) + 1,
        (Ports::Sequential, Some(_)) => 0,
        _ => below(rng, u64::from(size)) as u32,
    };
    (0..size)
        .map(|step| first + ((start + step) % size) as u16)
        .find(|port| !(config.parity && (port ^ inner) & 1 == 1) && is_free(*port))
}
