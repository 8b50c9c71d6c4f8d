//! The swarm's mesh: its boxes, and the paths that they allow.

use chaos::link::{LinkConfig, Rate};
use chaos::world::World;
use nurl::internals::node::Role;
use rand_core::Rng as _;

use crate::cluster::Cluster;
use crate::models::nat_box::{NatConfig, presets};
use crate::models::oracle::{self, NatBehaviour};
use crate::stage::{Stage, link_ms, with_store};

/// The mesh, and the boxes in front of each node.
pub(super) fn mesh(world: World) -> (Cluster, Vec<NatBehaviour>) {
    let stage = Stage::new(world).links(LinkConfig { udp_loss: Rate::percent(1), ..link_ms(20, 10) });
    let mut draws = world.rng("boxes");
    let kinds: [fn() -> NatConfig; 5] = [
        presets::full_cone,
        presets::restricted,
        presets::port_restricted,
        presets::symmetric,
        presets::carrier_grade,
    ];
    let mut home = |name: &str| {
        let kind = kinds[(draws.next_u64() % kinds.len() as u64) as usize];
        (stage.nat(name, kind()), NatBehaviour::v4(&kind()))
    };
    let ((flat, before_flat), (house, before_house)) = (home("flat"), home("house"));
    let behaviours = vec![
        NatBehaviour::OPEN,
        NatBehaviour::OPEN,
        before_flat,
        before_house,
        before_house,
        NatBehaviour::OPEN,
    ];
    let cluster = stage
        .hub("hub 1")
        .hub("hub 2")
        .workers(2)
        .behind(flat)
        .worker("node 2")
        .behind(house)
        .worker("node 3")
        .member("phone")
        .on_the_internet()
        .observer("observer")
        .configure(|builder, setup| match setup.role {
            Role::Worker => with_store(builder, "/node"),
            Role::Member | Role::Observer => builder,
        })
        .start();
    (cluster, behaviours)
}

/// The paths between members that differ from the oracle's prediction. Nodes that roamed are at home again.
pub(super) async fn wrong_paths(cluster: &Cluster, behaviours: &[NatBehaviour]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to) in member_pairs(cluster) {
        let (a, b) = (&cluster.peers[from], &cluster.peers[to]);
        // In one network no box is between the nodes.
        let house = a.net() == b.net();
        let can = house || oracle::direct(behaviours[from], behaviours[to]);
        wrong.extend(cluster.wrong_path(a, b, can).await);
    }
    wrong
}

/// The paths between members, one line each.
pub(super) async fn paths(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (from, to) in member_pairs(cluster) {
        let (from, to) = (&cluster.peers[from], &cluster.peers[to]);
        text += &format!("{} to {}: {}\n", from.name, to.name, cluster.leg(from, to).await);
    }
    text
}

/// Ordered pairs of members. Observers are left out: a node keeps no path to an idle observer.
fn member_pairs(cluster: &Cluster) -> Vec<(usize, usize)> {
    let members = |number: &usize| cluster.peers[*number].role != Role::Observer;
    let all = (0..cluster.peers.len()).filter(members);
    let all = all.flat_map(|from| (0..cluster.peers.len()).filter(members).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to).collect()
}
