//! Every kind of NAT against every other.
//!
//! One mesh with two nodes of each kind: open, full cone, restricted, port-restricted, symmetric, carrier-grade, UDP
//! blocked; each behind a box of its own, so that every pair of kinds meets. Each pair ends direct exactly where the
//! [oracle](crate::models::oracle) says that it must, and relayed elsewhere, as both ends see it; every path says
//! that it is settled, none is left connecting; and datagrams flow between all, in both directions.
//!
//! So that it can fail: some pairs must end relayed, some direct, and the relayed ones' datagrams pass the hub.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use chaos::sometimes;
use chaos::world::World;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Map, Peer, Place, Traffic, Within, home};
use crate::models::nat_box::{NatBox, NatConfig, presets};
use crate::models::oracle::{self, Nature};
use crate::models::relay::HUB_PORT;

/// Nodes of each kind: two, so that a kind meets itself.
const EACH: usize = 2;

const MEET: Duration = Duration::from_secs(40);

/// All pairs have found the way that they'll have: two rounds of quick checks and a first slow one.
const SETTLES: Duration = Duration::from_secs(40);

const EVERY: Duration = Duration::from_millis(500);

/// Within this each direction of each pair has carried a datagram: a few, should one be lost while a path changes.
const FLOWS: Duration = Duration::from_secs(2);

/// The most of a hundred datagrams that a link loses.
const WORST_LOSS: u64 = 5;

const ORACLE: &str = "each pair is direct exactly where the oracle says so";
const SETTLED: &str = "no pair is left connecting";
const FLOW: &str = "datagrams flow between all pairs";

/// The kinds; `None` is a node on the internet.
fn kinds() -> Vec<(&'static str, Option<NatConfig>)> {
    let boxes = [
        presets::full_cone(),
        presets::restricted(),
        presets::port_restricted(),
        presets::symmetric(),
        presets::carrier_grade(),
        presets::hotel(&[HUB_PORT]),
    ];
    let boxes = boxes.into_iter().map(|config| (config.name, Some(config)));
    [("open", None)].into_iter().chain(boxes).collect()
}

/// All pairs in one mesh.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    let loss = world.rng("loss").next_u64() % (WORST_LOSS + 1);
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        udp_loss: Rate::percent(loss as u32),
        ..LinkConfig::default()
    });
    let mut map = Map::new(world).hub("hub");
    let mut natures = Vec::new();
    for (kind, config) in kinds() {
        for number in 1..=EACH {
            let place = match &config {
                None => Place::Open,
                Some(config) => {
                    let name = format!("home of {kind} {number}");
                    Place::In(home(world, world.internet(), &name, NatBox::new(config.clone())))
                }
            };
            map = map.node(&format!("{kind} {number}"), place);
            natures.push(config.as_ref().map_or(Nature::OPEN, Nature::v4));
        }
    }
    let cluster = map.start();
    cluster.converge(MEET).await?;
    let met = world.elapsed();
    settled(world, &cluster, &natures).await?;
    let took = world.elapsed() - met;
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    let since = world.elapsed();
    let within = Within::new(world, FLOW, FLOWS);
    while within.lacks(silent(&cluster, &traffic, since)).await? {}
    // Traffic puts a path to the test: it is what it was, and says so.
    settled(world, &cluster, &natures).await?;
    traffic.stop();
    let relayed = cluster.hubs[0].stats().relay.forwarded;
    sometimes!(relayed > 0, "a relay carried what could not go straight");
    let punched = |peer: &&Peer| peer.name.starts_with("port-restricted");
    let punched: Vec<_> = cluster.peers.iter().filter(punched).collect();
    sometimes!(
        cluster.witness.is_direct(punched[0], punched[1]),
        "a punch succeeded through port-restricted NATs"
    );
    let notes = format!(
        "{loss} % lost; all found their way {took:?} after they had met; {relayed} datagrams were relayed\n"
    );
    Ok(Held { state: matrix(&cluster).await, notes })
}

/// Waits until every pair is what the oracle says, settled, as both ends see it.
async fn settled(world: World, cluster: &Cluster, natures: &[Nature]) -> Result<(), Broken> {
    let direct = Within::new(world, ORACLE, SETTLES);
    let connecting = Within::new(world, SETTLED, SETTLES);
    loop {
        let (mut wrong, mut open) = (Vec::new(), Vec::new());
        for (from, a) in cluster.peers.iter().zip(natures) {
            let members = from.node(&world).await.members().await.unwrap_or_default();
            for member in members {
                let Some(at) = cluster.peers.iter().position(|peer| peer.key == member.key) else { continue };
                let pair = format!("{} to {}", from.name, cluster.peers[at].name);
                let should = oracle::direct(*a, natures[at]);
                if member.path.direct != should {
                    wrong.push(format!("{pair} is {}, direct should be {should}", member.path.reason));
                }
                if !member.path.settled {
                    open.push(format!("{pair} is {}", member.path.reason));
                }
            }
        }
        if !direct.lacks(wrong).await? && !connecting.lacks(open).await? {
            return Ok(());
        }
    }
}

/// Directions that have carried nothing sent since then.
fn silent(cluster: &Cluster, traffic: &Traffic, since: Duration) -> Vec<String> {
    let all = cluster.peers.iter().flat_map(|from| cluster.peers.iter().map(move |to| (from, to)));
    let mute =
        all.filter(|(from, to)| from.key != to.key && traffic.first(from.key, to.key, since).is_none());
    mute.map(|(from, to)| format!("{} to {}", from.name, to.name)).collect()
}

/// One line for each kind: how it reaches each kind.
async fn matrix(cluster: &Cluster) -> String {
    let mut text = String::new();
    let kinds = kinds();
    for (row, (kind, _)) in kinds.iter().enumerate() {
        let mut line = Vec::new();
        for (column, (other, _)) in kinds.iter().enumerate() {
            // Of a kind with itself, the first meets the second.
            let to = &cluster.peers[column * EACH + usize::from(row == column)];
            let path = cluster.path(&cluster.peers[row * EACH], to).await;
            let leg = if path.is_some_and(|path| path.direct) { "direct" } else { "relayed" };
            line.push(format!("{other} {leg}"));
        }
        text += &format!("{kind}: {}\n", line.join(", "));
    }
    text
}
