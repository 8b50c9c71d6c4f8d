//! A node whose own link is slow accuses seldom.
//!
//! Five nodes and a hub; one of the nodes, and a client, are behind full links: each way takes a second and a
//! half longer. Both still find the others, though no handshake answer comes before the next tries are
//! due, and only the client itself opens sessions with other nodes.
//!
//! Then no probe of the slow node is answered within the usual second, and no probe of it either. By Lifeguard's
//! local health (LHA-Probe) a node that gets no acks assumes that it is slow itself: it probes less often and
//! waits longer, the more so as it has to refute the others' suspicions. So its probes are answered again, and
//! for two minutes it accuses hardly any node; without local health it would accuse every second. The accused
//! refute, so no node is held dead.
//!
//! Once its link is good, all see each other alive.

use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use nurl::internals::membership::State;

use crate::cluster::Deadline;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "laggard",
    "a node behind a full link finds the others and takes itself for the slow one: nobody is held dead",
    |trial| Box::pin(run(trial)),
);

const NODES: usize = 5;

/// Seven round trips of three seconds: TCP, handshake and registration with the hub, a LIST, a handshake, a reliable
/// connection and a table; and two to spare.
const FOUND: Duration = Duration::from_secs(27);

/// Added latency in each direction.
const SLOW: Duration = Duration::from_millis(1_500);

/// Time for a few probes to fail, so that local health adapts.
const LEARNS: Duration = Duration::from_secs(15);

/// Several rounds of probes.
const WATCHED: Duration = Duration::from_secs(120);

/// The most accusations in that time: its health rises with each answer until one comes too late again.
const ACCUSATIONS: usize = 3;

/// A suspicion from the slow time ends within this, its longest duration.
const BACK: Duration = Duration::from_secs(60);

const FINDS: &str = "a newcomer behind a slow link finds everybody";
const SELDOM: &str = "a node that is slow itself accuses seldom";
const REFUTES: &str = "who answers late is held dead by nobody";

/// A full link, which is good in the end.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let good = link_ms(15, 10);
    let slow = LinkConfig { latency: good.latency + SLOW, ..good.clone() };
    let cluster = Stage::new(world).links(good).hub("hub").workers(NODES).observer("client").start();
    let [laggard, others @ .., client] = &cluster.peers[..] else { unreachable!("there are six") };
    let sound = others.iter().map(|peer| peer.host).chain(cluster.hubs.iter().map(|hub| hub.host));
    let links: Vec<_> = sound.flat_map(|host| [(laggard.host, host), (client.host, host)]).collect();
    for (a, b) in &links {
        world.set_link_both(*a, *b, &slow);
    }
    let deadline = Deadline::new(world, FINDS, FOUND);
    loop {
        let mut missing = Vec::new();
        for newcomer in [laggard, client] {
            let known = cluster.view(newcomer).await;
            let unknown = others.iter().filter(|peer| !known.contains_key(&peer.key));
            missing.extend(unknown.map(|peer| format!("{} doesn't know {}", newcomer.name, peer.name)));
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let found = deadline.waited();
    world.sleep(LEARNS).await;
    let accused = || cluster.witness.verdicts_by(laggard).filter(|state| *state == State::Suspect).count();
    let before = accused();
    world.sleep(WATCHED).await;
    let times = accused() - before;
    if times > ACCUSATIONS {
        let seen = format!("{} accused {times} times in {WATCHED:?}, {ACCUSATIONS} at most", laggard.name);
        return Err(Violation::safety(SELDOM, seen));
    }
    cluster.no_false_deaths(REFUTES, &[])?;
    cluster.inspect().await?;
    for (a, b) in &links {
        world.unset_link(*a, *b);
        world.unset_link(*b, *a);
    }
    cluster.converge(BACK).await?;
    let notes = format!("found everybody after {found:?}; accused {times} times in {WATCHED:?}\n");
    Ok(Passed { state: cluster.views().await, notes })
}
