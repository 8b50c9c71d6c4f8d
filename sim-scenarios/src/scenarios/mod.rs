//! The scenarios, a file each, and the list of them.
//!
//! A scenario's file begins with what happens in it and what must hold. Its constant `SCENARIO` has its name, its story
//! in one line, its knobs, faults, marks and limits. `cargo chaos list` prints them; nothing else repeats them.

pub mod besieged;
pub mod blackout;
pub mod calm;
pub mod canary;
pub mod churn;
pub mod circle;
pub mod clients;
pub mod clocks;
pub mod containers;
pub mod contention;
pub mod converge;
pub mod converge_hard;
pub mod crammed;
pub mod crowd;
pub mod crowded;
pub mod damaged;
pub mod deaths;
pub mod deleted;
pub mod detached;
pub mod doorkeeper;
pub mod eavesdropper;
pub mod echoes;
pub mod families;
pub mod fence;
pub mod flood;
pub mod forgotten;
pub mod full;
pub mod go_between;
pub mod goodbye;
pub mod gossip;
pub mod guest_list;
pub mod homes;
pub mod hub_restarts;
pub mod insiders;
pub mod issuers;
pub mod keystone;
pub mod laggard;
pub mod large;
pub mod lease;
pub mod lone_accuser;
pub mod mapping_expires;
pub mod multitude;
pub mod nat_matrix;
pub mod no_space;
pub mod overload;
pub mod pinned;
pub mod poison;
pub mod policies;
pub mod portal;
pub mod refusals;
pub mod relay_dies;
pub mod revocation;
pub mod roam;
pub mod rolling;
pub mod rotation;
pub mod setbacks;
pub mod shares;
pub mod storeless;
pub mod swarm;
pub mod uneven;
pub mod visitors;
pub mod watched;

use chaos::scenario::Scenario;

/// All scenarios.
pub const ALL: &[Scenario] = &[
    besieged::SCENARIO,
    blackout::SCENARIO,
    calm::SCENARIO,
    canary::SCENARIO,
    churn::SCENARIO,
    circle::SCENARIO,
    clients::SCENARIO,
    clocks::SCENARIO,
    containers::SCENARIO,
    contention::SCENARIO,
    converge::SCENARIO,
    converge_hard::SCENARIO,
    crammed::SCENARIO,
    crowd::SCENARIO,
    crowded::SCENARIO,
    damaged::SCENARIO,
    deaths::SCENARIO,
    deleted::SCENARIO,
    detached::SCENARIO,
    doorkeeper::SCENARIO,
    eavesdropper::SCENARIO,
    echoes::SCENARIO,
    families::SCENARIO,
    fence::SCENARIO,
    flood::SCENARIO,
    forgotten::SCENARIO,
    full::SCENARIO,
    go_between::SCENARIO,
    goodbye::SCENARIO,
    gossip::SCENARIO,
    guest_list::SCENARIO,
    homes::SCENARIO,
    hub_restarts::SCENARIO,
    insiders::SCENARIO,
    issuers::SCENARIO,
    keystone::SCENARIO,
    laggard::SCENARIO,
    large::SCENARIO,
    lease::SCENARIO,
    lone_accuser::SCENARIO,
    mapping_expires::SCENARIO,
    multitude::SCENARIO,
    nat_matrix::SCENARIO,
    no_space::SCENARIO,
    overload::SCENARIO,
    pinned::SCENARIO,
    poison::SCENARIO,
    policies::SCENARIO,
    portal::SCENARIO,
    refusals::SCENARIO,
    relay_dies::SCENARIO,
    revocation::SCENARIO,
    roam::SCENARIO,
    rolling::SCENARIO,
    rotation::SCENARIO,
    setbacks::SCENARIO,
    shares::SCENARIO,
    storeless::SCENARIO,
    swarm::SCENARIO,
    uneven::SCENARIO,
    visitors::SCENARIO,
    watched::SCENARIO,
];

/// Finds a scenario.
pub fn find(name: &str) -> Option<Scenario> {
    ALL.iter().find(|scenario| scenario.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn each_module_is_in_the_list_under_its_own_name() {
        let module = |line: &str| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned);
        let modules: Vec<_> = include_str!("mod.rs").lines().filter_map(module).collect();
        let listed: Vec<_> = ALL.iter().map(|scenario| scenario.name.replace('-', "_")).collect();
        assert_eq!(listed, modules);
    }
}
