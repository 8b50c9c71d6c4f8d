//! Two that can't hear each other are alive to each other as long as others hear both.
//!
//! Five nodes and a hub. The hub dies, and the way between two of the nodes is cut, so that no leg of a probe is left
//! between them but a ping on their behalf. For two minutes nobody is held dead.
//!
//! So that it can fail: one of the two is then cut off from the others too, and all who are left hold it dead in time.

use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use chaos::world::Host;
use nurl::membership::State;

use crate::cluster::{Cluster, Within};

const NODES: usize = 5;

const MEET: Duration = Duration::from_secs(30);

/// The cut lasts for several rounds of probes, and for longer than any suspicion.
const CUT: Duration = Duration::from_secs(120);

/// A silent node is held dead within this.
const LEARN: Duration = Duration::from_secs(60);

const BETWEEN: &str = "who is heard by others isn't held dead";
const GONE: &str = "who is heard by nobody is held dead";

/// A cut between two, and one around one of them.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        ..LinkConfig::default()
    });
    let cluster = Cluster::start(world, NODES);
    cluster.converge(MEET).await?;
    let hosts: Vec<Host> = cluster.peers.iter().map(|peer| peer.host).collect();
    cluster.hubs[0].kill();
    world.partition(&hosts[..1], &hosts[1..2]);
    world.sleep(CUT).await;
    if let Some((by, about)) = cluster.witness.held_dead().first() {
        return Err(Broken::safety(BETWEEN, format!("{by} held {} dead", cluster.name_of(about))));
    }
    cluster.inspect().await?;

    world.partition(&hosts[..1], &hosts[1..]);
    let (silent, others) = cluster.peers.split_first().expect("there are five nodes");
    let within = Within::new(world, GONE, LEARN);
    loop {
        let mut missing = Vec::new();
        for peer in others {
            if cluster.view(peer).await.get(&silent.key) != Some(&State::Dead) {
                missing.push(format!("{} holds {} live", peer.name, silent.name));
            }
        }
        if !within.lacks(missing).await? {
            break;
        }
    }
    let notes = format!("held dead after {:?}\n", within.waited());
    Ok(Held { state: "nobody was held dead while others heard both\n".to_owned(), notes })
}
