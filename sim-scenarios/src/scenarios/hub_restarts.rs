//! A hub restarts with no state, and a mesh takes no harm.
//!
//! Five nodes and a hub; two of the nodes are behind symmetric NATs, so the hub relays their traffic. All are in
//! a group. The hub's process ends, stays away for a drawn time, and comes back with no state: no registration,
//! no group, no record. Without intervention all register again, relayed traffic flows again, a broadcast reaches
//! the whole group, and a newcomer that tried to join in vain meanwhile finds all nodes. No node is held dead,
//! and direct paths aren't affected.
//!
//! Negative control: while the hub is away nothing passes between the two, and the newcomer sees no other node.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::Node;
use nurl::internals::key::AllowList;
use nurl::internals::node::Role;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Traffic, secret};
use crate::lock::lock;
use crate::models::nat_box::presets;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a hub's clients registered again"),
        Mark::new("a hub stayed away for longer than 12 s"),
    ],
    ..Scenario::new(
        "hub-restarts",
        "a hub comes back with nothing remembered: all register again, relayed traffic and groups go on",
        |trial| Box::pin(run(trial)),
    )
};

const OPEN: usize = 3;
const EVERY: Duration = Duration::from_millis(200);
const MEET: Duration = Duration::from_secs(30);

/// How long the hub is away: at least the first, plus less than the second, in milliseconds.
const AWAY: (Duration, u64) = (Duration::from_secs(4), 14_000);

/// All nodes are registered again this long after the hub's return: tries are 2 s apart at most, and a handshake
/// takes a round trip or two.
const REGISTERED: Duration = Duration::from_secs(3);

/// Relayed traffic flows again this long after the hub's return.
const FLOWS: Duration = Duration::from_millis(3_500);

/// The group receives a broadcast this long after the last registration.
const HEARS: Duration = Duration::from_secs(2);

/// The newcomer has met all nodes within this.
const MET: Duration = Duration::from_secs(20);

/// The longest pause on a direct path: a few datagrams.
const PAUSE: Duration = Duration::from_millis(900);

const GROUP: &str = "news";

const BACK: &str = "everybody registers again at a hub that comes back with nothing remembered";
const RELAYED: &str = "what a hub relays flows within 3.5 s of its return";
const HEARD: &str = "a broadcast reaches the whole group after the hub's restart";
const UNTOUCHED: &str = "a direct path doesn't notice the hub";
const HEALTHY: &str = "nobody healthy is held dead";
const NEEDED: &str = "without a hub nothing is relayed, and nobody is met";

/// Restarts the hub once.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(OPEN);
    for name in ["home 1", "home 2"] {
        stage = stage.behind_nat(name, presets::symmetric()).worker(&format!("in {name}"));
    }
    let mut cluster = stage.meet(MEET).await?;
    let (a, b) = (cluster.peers[OPEN].clone(), cluster.peers[OPEN + 1].clone());
    let heard = join_group_and_listen(world, &cluster).await;
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    world.sleep(Duration::from_secs(3)).await;

    let hub = cluster.hubs[0].clone();
    let away = AWAY.0 + Duration::from_millis(world.rng("away").next_u64() % AWAY.1);
    sometimes!(away > Duration::from_secs(12), "a hub stayed away for longer than 12 s");
    hub.kill();
    let gone = world.elapsed();
    let newcomer = cluster.add("newcomer", world.internet(), Role::Worker);
    world.sleep(away).await;
    // The first second is left out, for datagrams that were in flight.
    let passed = traffic.count(a.key, b.key, gone + Duration::from_secs(1));
    let met = cluster.view(&newcomer).await.len();
    if passed + met > 0 {
        let seen = format!("{passed} datagrams passed, the newcomer met {met}");
        return Err(Violation::safety(NEEDED, seen));
    }

    hub.restart();
    let returned = world.elapsed();
    let flows = Deadline::new(world, RELAYED, FLOWS);
    let deadline = Deadline::new(world, BACK, REGISTERED);
    while deadline.still_missing(cluster.unregistered(&hub).await).await? {}
    sometimes!("a hub's clients registered again");
    let registered = world.elapsed();
    while flows.still_missing(traffic.silent([(&a, &b), (&b, &a)], returned)).await? {}
    let relayed = flows.waited();
    broadcast(world, &cluster.peers[0].node(&world).await).await?;
    let deadline = Deadline::new(world, HEARD, HEARS);
    while deadline.still_missing(without_broadcast(&cluster, &heard)).await? {}
    cluster.converge(MET).await?;
    let took = world.elapsed() - returned;
    traffic.stop();

    let open = &cluster.peers[..OPEN];
    for (from, to) in open.iter().flat_map(|from| open.iter().map(move |to| (from, to))) {
        let pause = traffic.longest_pause(from.key, to.key, gone, registered);
        if from.key != to.key && pause > PAUSE {
            let seen = format!("{pause:?} without a datagram from {} to {}", from.name, to.name);
            return Err(Violation::liveness(UNTOUCHED, seen));
        }
    }
    cluster.no_false_deaths(HEALTHY, &[])?;
    let notes = format!(
        "away for {away:?}; after the return relayed again within {relayed:?}, the newcomer had met all in {took:?}\n"
    );
    let stats = hub.stats();
    let members = 1 + lock(&heard).len();
    let mut state =
        format!("{} clients, {} groups at the hub; {members} in the group\n", stats.clients, stats.groups);
    for (from, to) in [(&a, &b), (&cluster.peers[0], &a), (&cluster.peers[0], &newcomer), (&a, &newcomer)] {
        let leg = cluster.leg(from, to).await;
        let given_up = cluster.witness.demotions(from, to);
        state += &format!("{} to {}: {leg}, given up {given_up} times\n", from.name, to.name);
    }
    Ok(Passed { state: state + &cluster.views().await, notes })
}

/// The nodes that have received a broadcast, by name.
type Receivers = Arc<Mutex<BTreeSet<String>>>;

/// All nodes join the group and record broadcasts.
async fn join_group_and_listen(world: World, cluster: &Cluster) -> Receivers {
    let heard = Receivers::default();
    for peer in &cluster.peers {
        let (node, name, heard) = (peer.node(&world).await, peer.name.clone(), heard.clone());
        peer.host.run(async move {
            node.join_group(GROUP, AllowList::Anyone).await.expect("a node has room for a group");
            while let Some((_, _, body)) = node.recv_group().await {
                assert_eq!(body, secret("news"));
                lock(&heard).insert(name.clone());
            }
        });
    }
    heard
}

/// Sends a few broadcasts: one may be lost, and its key has to be asked for first.
async fn broadcast(world: World, node: &Node) -> Result<(), Violation> {
    for _ in 0..3 {
        let sent = node.broadcast(GROUP, secret("news")).await;
        sent.map_err(|error| Violation::safety(HEARD, format!("a broadcast was refused: {error}")))?;
        world.sleep(EVERY).await;
    }
    Ok(())
}

/// Members of the group that haven't received a broadcast.
fn without_broadcast(cluster: &Cluster, heard: &Receivers) -> Vec<String> {
    let heard = lock(heard);
    let members = &cluster.peers[1..OPEN + 2];
    members.iter().map(|peer| peer.name.clone()).filter(|name| !heard.contains(name)).collect()
}
