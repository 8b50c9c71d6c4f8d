//! Two nodes that can't hear each other stay alive to each other as long as others hear both.
//!
//! Five nodes and a hub. The hub dies, and the link between two of the nodes is cut, so that a probe between them
//! has no leg left but an indirect ping. Once the paths have adapted, no node is suspected for two minutes.
//!
//! Negative control: one of the two is then cut off from the others too, and all others hold it dead in time.
//! There is no hub as evidence, but they hear each other, so none of them considers itself isolated.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::world::Host;
use nurl::internals::membership::State;

use crate::cluster::{Deadline, Peer};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "go-between",
    "two that can't hear each other are alive to each other as long as others hear both",
    |trial| Box::pin(run(trial)),
);

const NODES: usize = 5;

const MEET: Duration = Duration::from_secs(30);

/// The cut lasts for several rounds of probes, and for longer than any suspicion.
const CUT: Duration = Duration::from_secs(120);

/// A probe that was under way when the hub died may fail.
const SETTLED: Duration = Duration::from_secs(10);

/// A silent node is held dead within this.
const LEARN: Duration = Duration::from_secs(60);

const BETWEEN: &str = "who is heard by others isn't suspected";
const TOGETHER: &str = "who hears most others isn't isolated";
const GONE: &str = "who is heard by nobody is held dead";

/// First a cut between two nodes, then one around one of them.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10));
    let cluster = stage.hub("hub").workers(NODES).meet(MEET).await?;
    let hosts: Vec<Host> = cluster.peers.iter().map(|peer| peer.host).collect();
    cluster.hubs[0].kill();
    world.partition(&hosts[..1], &hosts[1..2]);
    world.sleep(SETTLED).await;
    let accused = || {
        let of =
            |peer: &Peer| cluster.witness.verdicts_on(peer).filter(|state| *state != State::Alive).count();
        cluster.peers.iter().map(of).sum::<usize>()
    };
    let before = accused();
    world.sleep(CUT).await;
    let times = accused() - before;
    if times > 0 {
        return Err(Violation::safety(BETWEEN, format!("somebody was suspected or held dead {times} times")));
    }
    cluster.inspect().await?;

    world.partition(&hosts[..1], &hosts[1..]);
    let (silent, others) = cluster.peers.split_first().expect("there are five nodes");
    let deadline = Deadline::new(world, GONE, LEARN);
    loop {
        let mut missing = Vec::new();
        for peer in others {
            if cluster.view(peer).await.get(&silent.key) != Some(&State::Dead) {
                missing.push(format!("{} holds {} live", peer.name, silent.name));
            }
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    if let Some(peer) = others.iter().find(|peer| cluster.witness.was_isolated(peer)) {
        return Err(Violation::safety(TOGETHER, format!("{} took itself for isolated", peer.name)));
    }
    let notes = format!("held dead after {:?}\n", deadline.waited());
    Ok(Passed { state: "nobody was suspected while others heard both\n".to_owned(), notes })
}
