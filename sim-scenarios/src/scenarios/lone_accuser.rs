//! A suspicion raised by one accuser alone lasts longest.
//!
//! Five nodes and a hub. All but one stop at the same moment, as laptops do at lunch time, and resume after 19 to
//! 22 s. The remaining node hears its hub, so it is not isolated, and accuses all others. No other node confirms
//! the suspicions, and repeated accusations by the same node don't count. A suspicion without a confirmation runs
//! for 24 s (six times the minimum), so no node is ever held dead. The accused, once they resume, refute with a
//! higher incarnation.
//!
//! Every node that was suspected when the pause ended refutes, even if it acknowledged a probe before it heard of
//! the suspicion.
//!
//! Negative control: the nodes stop once more, for good, and the remaining one holds them all dead within a
//! bound.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use nurl::PublicKey;
use nurl::internals::membership::State;
use nurl::internals::node::MemberInfo;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("three were suspected by one at once, and none was held dead")],
    ..Scenario::new(
        "lone-accuser",
        "all but one stop for up to 22 s: who is accused by one alone is in doubt for longest",
        |trial| Box::pin(run(trial)),
    )
};

const NODES: usize = 5;

const MEET: Duration = Duration::from_secs(30);

/// How long they stop: an accusation comes within a probe or two, and its 24 s aren't over before they resume.
const LEAST_MS: u64 = 19_000;
const SPREAD_MS: u64 = 3_000;

/// All nodes see each other alive again within this: the remaining node's probes are slowed.
const BACK: Duration = Duration::from_secs(60);

/// A node that is alone, and slowed down by its failing probes, holds all others dead within this.
const LEARN: Duration = Duration::from_secs(120);

const DOUBT: &str = "who is accused by one alone isn't held dead before the longest suspicion is over";
const REFUTES: &str = "a suspect refutes by a higher incarnation";
const GONE: &str = "who is silent for good is held dead, also by one alone";

/// A pause, then a stop without end.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10));
    let cluster = stage.hub("hub").workers(NODES).meet(MEET).await?;
    let (left, others) = cluster.peers.split_first().expect("there are five nodes");
    let before = incarnations(&cluster, left).await;

    others.iter().for_each(|peer| peer.host.pause());
    world.sleep(Duration::from_millis(LEAST_MS + world.rng("pause").next_u64() % SPREAD_MS)).await;
    let view = cluster.view(left).await;
    let suspects: Vec<_> =
        others.iter().filter(|peer| view.get(&peer.key) == Some(&State::Suspect)).collect();
    others.iter().for_each(|peer| peer.host.resume());
    cluster.converge(BACK).await?;
    cluster.no_false_deaths(DOUBT, &[])?;
    // Failing probes slow the prober down, so the fourth is seldom due before the pause ends.
    sometimes!(suspects.len() >= 3, "three were suspected by one at once, and none was held dead");
    let deadline = Deadline::new(world, REFUTES, BACK);
    loop {
        let after = incarnations(&cluster, left).await;
        let unrefuted = suspects.iter().filter(|peer| after.get(&peer.key) <= before.get(&peer.key));
        let missing = unrefuted.map(|peer| format!("a higher incarnation of {}", peer.name)).collect();
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let refuted = deadline.waited();
    let paused = views_with_refutations(&cluster, &cluster.peers, &before).await;

    others.iter().for_each(|peer| peer.host.pause());
    let deadline = Deadline::new(world, GONE, LEARN);
    while deadline.still_missing(still_live(&cluster, left, others).await).await? {}
    let notes = format!(
        "{} suspected; refuted after {refuted:?}; all held dead after {:?}\n",
        suspects.len(),
        deadline.waited()
    );
    let state = format!(
        "after the pause:\n{paused}without an end:\n{}",
        views_with_refutations(&cluster, &cluster.peers[..1], &before).await
    );
    Ok(Passed { state, notes })
}

/// The views of `peers`, one line each, with every member's refutations since `before`.
async fn views_with_refutations(
    cluster: &Cluster,
    peers: &[Peer],
    before: &BTreeMap<PublicKey, u64>,
) -> String {
    let mut text = String::new();
    for peer in peers {
        let members = cluster.members(peer).await;
        let refuted = |member: &MemberInfo| {
            before.get(&member.key).map_or(0, |then| member.incarnation.saturating_sub(*then))
        };
        let line = members.iter().map(|member| {
            let (name, state) = (cluster.name_of(&member.key), member.state.as_str());
            format!("{name} {state}, {} refutations", refuted(member))
        });
        let mut line: Vec<_> = line.collect();
        line.sort();
        text += &format!("{} sees: {}\n", peer.name, line.join("; "));
    }
    text
}

/// The incarnations of all others, as `peer` sees them.
async fn incarnations(cluster: &Cluster, peer: &Peer) -> BTreeMap<PublicKey, u64> {
    cluster.members(peer).await.into_iter().map(|member| (member.key, member.incarnation)).collect()
}

/// The nodes that are still live in the view of `left`.
async fn still_live(cluster: &Cluster, left: &Peer, others: &[Peer]) -> Vec<String> {
    let view = cluster.view(left).await;
    let live = others.iter().filter(|peer| view.get(&peer.key).is_some_and(|state| state.is_live()));
    live.map(|peer| format!("{} is live", peer.name)).collect()
}
