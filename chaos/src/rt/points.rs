//! Buggification: a program takes, on purpose, a way that is allowed and rare.

use crate::world::property::reached;
use crate::world::sim;

/// Whether the calling host takes the rare way at this point of its program: never, unless the fault `buggify` has turned
/// the point on for it. The name is one of its [`Scenario::points`](crate::Scenario::points); when it fires, it is also
/// reached as a mark.
///
/// A point is worth most where only a rare accident would otherwise lead: a full queue, an early timer, a batch of one.
/// Whatever follows from it must be right, only slower.
pub fn buggify(point: &'static str) -> bool {
    // The usual case, at the price of one look.
    if sim::try_with(|sim| sim.hosts.has_points) != Some(true) {
        return false;
    }
    let Some(place) = sim::place() else { return false };
    let fires = sim::with(|sim| sim.host_mut(place.host).points.fires(point));
    if fires {
        reached(point);
    }
    fires
}
