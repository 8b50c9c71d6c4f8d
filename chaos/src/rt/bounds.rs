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

#[cfg(test)]
mod tests {
    use super::bound;

    #[test]
    fn a_bound_is_as_usual_but_where_a_scenario_has_set_another() {
        let outcome = crate::lab::run::run(1, |world| async move {
            let [small, other] =
                [("small", "10.0.0.1"), ("other", "10.0.0.2")].map(|(name, ip)| world.host(name).addr(ip));
            small.set_bound("queue", 3);
            let ask = |host: crate::world::Host| host.run(async { [bound("queue", 9), bound("table", 9)] });
            (ask(small).await.ok(), ask(other).await.ok(), bound("queue", 9))
        });
        assert_eq!(outcome.result.unwrap(), (Some([3, 9]), Some([9, 9]), 9));
    }
}
