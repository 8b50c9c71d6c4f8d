//! A lone accuser is in doubt for longest.
//!
//! Five nodes and a hub. All but one stop at the same moment, as laptops do whose owners leave for lunch, and go on
//! after 16 to 20 s. The one that is left hears its hub, so it is not cut off, and accuses them all; but nobody
//! confirms it, and its own further accusations count nothing. A suspicion without a confirmation runs for 24 s (six
//! times the least), so nobody is ever held dead; and the accused, once they go on, refute by a higher incarnation.
//!
//! So that it can fail: they stop once more, for good, and the one that is left holds them all dead within a bound.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::property::Broken;
use chaos::scenario::{Held, Mark, Trial, Verdict};
use chaos::sometimes;
use nurl::PublicKey;
use nurl::membership::State;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Peer, Within};

/// What some run has to reach.
pub const MARKS: &[Mark] = &[Mark::new("all were suspected by one, and none was held dead")];

const NODES: usize = 5;

const MEET: Duration = Duration::from_secs(30);

/// How long they stop: an accusation comes within a probe or two, and its 24 s aren't over before they go on.
const LEAST_MS: u64 = 16_000;
const SPREAD_MS: u64 = 4_000;

/// From then on everybody is alive to everybody: the slowed probes of the one that was left alone.
const BACK: Duration = Duration::from_secs(60);

/// A node that is alone, and slowed down by its failing probes, comes to its verdict of all within this.
const LEARN: Duration = Duration::from_secs(120);

const DOUBT: &str = "who is accused by one alone isn't held dead before the longest suspicion is over";
const REFUTES: &str = "a suspect refutes by a higher incarnation";
const GONE: &str = "who is silent for good is held dead, also by one alone";

/// A pause, and one without an end.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        ..LinkConfig::default()
    });
    let cluster = Cluster::start(world, NODES);
    cluster.converge(MEET).await?;
    let (left, others) = cluster.peers.split_first().expect("there are five nodes");
    let before = incarnations(&cluster, left).await;

    others.iter().for_each(|peer| peer.host.pause());
    world.sleep(Duration::from_millis(LEAST_MS + world.rng("pause").next_u64() % SPREAD_MS)).await;
    let view = cluster.view(left).await;
    let suspects = others.iter().filter(|peer| view.get(&peer.key) == Some(&State::Suspect)).count();
    others.iter().for_each(|peer| peer.host.resume());
    cluster.converge(BACK).await?;
    if let Some((by, about)) = cluster.witness.held_dead().first() {
        return Err(Broken::safety(DOUBT, format!("{by} held {} dead", cluster.name_of(about))));
    }
    sometimes!(suspects == others.len(), "all were suspected by one, and none was held dead");
    let after = incarnations(&cluster, left).await;
    let refuted = after.iter().filter(|(key, now)| before.get(*key).is_some_and(|then| *now > then)).count();
    if suspects > 0 && refuted == 0 {
        return Err(Broken::safety(REFUTES, format!("{suspects} were suspected, nobody has a higher one")));
    }

    others.iter().for_each(|peer| peer.host.pause());
    let within = Within::new(world, GONE, LEARN);
    while within.lacks(live(&cluster, left, others).await).await? {}
    let notes =
        format!("{suspects} suspected, {refuted} refuted; all held dead after {:?}\n", within.waited());
    Ok(Held { state: "a lone accuser waits, and then decides\n".to_owned(), notes })
}

/// The incarnations of all others, as `peer` sees them.
async fn incarnations(cluster: &Cluster, peer: &Peer) -> BTreeMap<PublicKey, u64> {
    cluster.members(peer).await.into_iter().map(|member| (member.key, member.incarnation)).collect()
}

/// Who is still live in the view of `left`.
async fn live(cluster: &Cluster, left: &Peer, others: &[Peer]) -> Vec<String> {
    let view = cluster.view(left).await;
    let live = others.iter().filter(|peer| view.get(&peer.key).is_some_and(|state| state.is_live()));
    live.map(|peer| format!("{} is live", peer.name)).collect()
}
