//! Membership converges although both legs lose a third of what they carry.
//!
//! The mesh of [`converge`](super::converge), with 30 % loss on UDP and on TCP, which then stalls for seconds. All
//! nodes still meet and learn of the death, but now and then a healthy node is suspected, or held dead for a while.
//! That is counted and shown; once the links are good again, all see each other alive.

use chaos::link::LinkConfig;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use nurl::internals::membership::State;

use super::converge::{LEARN, MEET, NODES, VICTIM, lossy_link};
use crate::cluster::{Cluster, Deadline, Peer};
use crate::stage::Stage;

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "converge-hard",
    "the same with 30 % loss on both: all meet and learn the death; false deaths are told",
    |trial| Box::pin(run(trial)),
);

/// 30 % on both legs: all meet and learn of the death; false deaths are reported only.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let cluster = Stage::new(world).links(lossy_link(30)).hub("hub").workers(NODES).start();
    let deadline = Deadline::new(world, "all find each other", MEET);
    while deadline.still_missing(unknown_pairs(&cluster).await).await? {}
    let victim = &cluster.peers[VICTIM];
    victim.host.power_loss();
    let deadline = Deadline::new(world, "a death is known everywhere", LEARN);
    while deadline.still_missing(without_the_verdict(&cluster, victim).await).await? {}
    world.link_default(LinkConfig::default());
    cluster.converge(MEET).await?;
    let wrongly = cluster.witness.held_dead().iter().filter(|verdict| verdict.about != victim.key).count();
    let notes = format!("healthy nodes held dead: {wrongly} times\n");
    Ok(Passed { state: cluster.views().await, notes })
}

/// The pairs of which one node doesn't know the other; the states that they hold may change from moment to
/// moment.
async fn unknown_pairs(cluster: &Cluster) -> Vec<String> {
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
async fn without_the_verdict(cluster: &Cluster, dead: &Peer) -> Vec<String> {
    let mut missing = Vec::new();
    for peer in cluster.running() {
        if cluster.view(peer).await.get(&dead.key) != Some(&State::Dead) {
            missing.push(format!("{} doesn't hold {} dead", peer.name, dead.name));
        }
    }
    missing
}
