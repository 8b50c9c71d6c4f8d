//! Membership converges under loss and reordering.
//!
//! Eight nodes and a hub. 30 % of all UDP datagrams and 5 % of all TCP segments are lost, one packet of ten is
//! held back for half a second, and jitter reorders the rest. All nodes find each other. Jobs are under way when
//! one node crashes. All others learn of the crash, its jobs move, and no healthy node is ever declared dead.
//!
//! With 30 % loss on both, TCP stalls for seconds. All nodes still meet and learn of the death, but now and then
//! a healthy node is suspected, or held dead for a while. That is counted and shown; once the links are good
//! again, all see each other alive.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use nurl::internals::membership::State;

use crate::cluster::{Cluster, Jobs, Peer, Within};

const RESULTS: &str = "every job has its own result, and somebody has run it";
const HEALTHY: &str = "nobody healthy is held dead";

/// Nodes.
const NODES: usize = 8;

/// The node that crashes.
const VICTIM: usize = 3;

/// Jobs under way when it crashes.
const JOBS: usize = 24;

/// All find each other within this: a push-pull or two over a relay that loses segments.
const MEET: Duration = Duration::from_secs(90);

/// A death is known everywhere within this: the longest suspicion, and the time to spread it.
const LEARN: Duration = Duration::from_secs(60);

/// Every job has its result within this, those of the dead node among them.
const SETTLE: Duration = Duration::from_secs(120);

fn lossy(tcp_percent: u32) -> LinkConfig {
    LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(30),
        udp_loss: Rate::percent(30),
        tcp_loss: Rate::percent(tcp_percent),
        duplicate: Rate::percent(1),
        reorder: Rate::percent(10),
        // Longer than a probe waits for its ack, so that late acks are tested too.
        reorder_by: Duration::from_millis(500),
        ..LinkConfig::default()
    }
}

/// 30 % of UDP, 5 % of TCP: all properties are asserted.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(lossy(5));
    let cluster = Cluster::start(world, NODES);
    cluster.converge(MEET).await?;
    let victim = &cluster.peers[VICTIM];
    let names: Vec<_> = (0..JOBS).map(|number| format!("job {number:02}")).collect();
    let mut jobs = Jobs::new(&cluster);
    for name in &names {
        jobs.submit(&cluster.peers[0], "slow", name).await?;
    }
    world.sleep(Duration::from_millis(700)).await;
    victim.host.power_loss();
    let results = jobs.settle(SETTLE).await?;
    cluster.converge(LEARN).await?;
    for (by, about) in cluster.witness.held_dead() {
        if about != victim.key {
            let seen = format!("{by} held {} dead", cluster.name_of(&about));
            return Err(Broken::safety(HEALTHY, seen));
        }
    }
    let ran = cluster.witness.runs_per_job();
    if let Some(name) = names.iter().find(|name| !ran.contains_key(*name)) {
        return Err(Broken::safety(RESULTS, format!("{name} has a result, but nobody ran it")));
    }
    cluster.inspect().await?;
    let state = format!("{}{results} of {JOBS} jobs have their result\n", cluster.views().await);
    let moved = cluster.witness.runs().iter().filter(|ran| ran.by != victim.name).count();
    let twice = ran.values().map(|runs| runs - 1).sum::<usize>();
    Ok(Held { state, notes: format!("{moved} runs on living nodes, {twice} beyond the first of a job\n") })
}

/// The pairs of which one node doesn't know the other; the states that they hold may change from moment to
/// moment.
async fn strangers(cluster: &Cluster) -> Vec<String> {
    let mut missing = Vec::new();
    for peer in &cluster.peers {
        let view = cluster.view(peer).await;
        let unknown =
            cluster.peers.iter().filter(|other| other.key != peer.key && !view.contains_key(&other.key));
        missing.extend(unknown.map(|other| format!("{} doesn't know {}", peer.name, other.name)));
    }
    missing
}

/// The running nodes that don't hold `dead` dead.
async fn ignorant(cluster: &Cluster, dead: &Peer) -> Vec<String> {
    let mut missing = Vec::new();
    for peer in cluster.running() {
        if cluster.view(peer).await.get(&dead.key) != Some(&State::Dead) {
            missing.push(format!("{} doesn't hold {} dead", peer.name, dead.name));
        }
    }
    missing
}

/// 30 % on both legs: all meet and learn of the death; false deaths are reported only.
pub async fn run_hard(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(lossy(30));
    let cluster = Cluster::start(world, NODES);
    let within = Within::new(world, "all find each other", MEET);
    while within.lacks(strangers(&cluster).await).await? {}
    let victim = &cluster.peers[VICTIM];
    victim.host.power_loss();
    let within = Within::new(world, "a death is known everywhere", LEARN);
    while within.lacks(ignorant(&cluster, victim).await).await? {}
    world.link_default(LinkConfig::default());
    cluster.converge(MEET).await?;
    let wrongly = cluster.witness.held_dead().iter().filter(|(_, about)| *about != victim.key).count();
    let notes = format!("healthy nodes held dead: {wrongly} times\n");
    Ok(Held { state: cluster.views().await, notes })
}
