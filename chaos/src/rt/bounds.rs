//! The bounds of a program's tables, as far as a scenario makes them smaller.

use crate::world::sim;

/// The bound of this table of the calling host: `usual`, unless the scenario has
/// [set another](crate::Host::set_bound). So a table that holds thousands in use is full after a few entries, and a run
/// that asks what happens then is cheap.
pub fn bound(table: &'static str, usual: usize) -> usize {
    // The usual case, at the price of one look.
    if sim::try_with(|sim| sim.hosts.has_bounds) != Some(true) {
        return usual;
    }
    let Some(place) = sim::place() else { return usual };
    sim::with(|sim| sim.host_mut(place.host).bounds.get(table).copied().unwrap_or(usual))
}
