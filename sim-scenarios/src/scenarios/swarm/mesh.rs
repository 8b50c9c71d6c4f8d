//! The swarm's mesh: its boxes, and the paths that they allow.

use chaos::link::{LinkConfig, Rate};
use chaos::net::Net;
use chaos::world::World;
use nurl::internals::node::Role;
use rand_core::Rng as _;

use crate::cluster::Cluster;
use crate::models::nat_box::{NatBox, NatConfig, presets};
use crate::models::oracle::{self, NatBehaviour};
use crate::models::sim_hub::HUB_PORT;
use crate::stage::{Stage, link_ms, nat, network_behind, with_store};

/// The mesh, with so many further homes of two workers each; and the boxes in front of each node.
pub(super) fn mesh(world: World, homes: u64) -> (Cluster, Vec<NatBehaviour>) {
    let stage = Stage::new(world).links(LinkConfig { udp_loss: Rate::percent(1), ..link_ms(20, 10) });
    let (flat, before_flat) = home(world, "flat", |_| true);
    // The oracle doesn't know which port a second host gets from a box that shares ports between remotes.
    let (house, before_house) = home(world, "house", |kind| !kind.overload);
    let mut behaviours = vec![
        NatBehaviour::OPEN,
        NatBehaviour::OPEN,
        before_flat,
        before_house,
        before_house,
        NatBehaviour::OPEN,
    ];
    let mut stage = stage
        .hub("hub 1")
        .hub("hub 2")
        .workers(2)
        .behind(flat)
        .worker("node 2")
        .behind(house)
        .worker("node 3")
        .member("phone")
        .on_the_internet()
        .observer("observer");
    for number in 1..=homes {
        let (net, before) = home(world, &format!("home {number}"), |kind| !kind.overload);
        stage = stage.behind(net).workers(2);
        behaviours.extend([before, before]);
    }
    let cluster = stage
        .configure(|builder, setup| match setup.role {
            Role::Worker => with_store(builder, "/node"),
            Role::Member | Role::Observer => builder,
        })
        .start();
    (cluster, behaviours)
}

/// A network behind a drawn box, which in a third of all worlds is behind a carrier's.
fn home(world: World, name: &str, suits: impl Fn(&NatConfig) -> bool) -> (Net, NatBehaviour) {
    let mut draws = world.rng(&format!("box of {name}"));
    let kinds: Vec<NatConfig> = presets::all(HUB_PORT).into_iter().filter(suits).collect();
    let kind = kinds[(draws.next_u64() % kinds.len() as u64) as usize].clone();
    let before = NatBehaviour::v4(&kind);
    if !draws.next_u64().is_multiple_of(3) {
        return (nat(world, name, kind), before);
    }
    let carrier = presets::carrier_grade();
    let before = before.behind(NatBehaviour::v4(&carrier));
    let outside = nat(world, &format!("carrier of {name}"), carrier);
    (network_behind(world, outside, name, NatBox::new(kind)), before)
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
