//! A job completes across a partition and its heal, across its owner's death, and while the ring changes.
//!
//! Six nodes and a hub. Four times jobs are under way when a fault or change hits their owners: a short partition
//! that heals before any node is held dead; a long one, after which both halves hold each other dead; the death
//! of the node that runs most of them; and a ring change, when that node comes back, another one leaves and a new
//! one joins. Every handle resolves once, with the right result; in the long partition it does so before the
//! heal. Duplicate runs are counted and shown.
//!
//! Negative control: a job that only the far half can run has no result before the heal. In the short partition
//! its members still count as live, so the job waits, and has a result soon after the heal; in the long one they
//! are held dead, and the job waits as well.
//!
//! The nodes are in three zones and have different weights, so that owner sets are spread and the ring wraps
//! unevenly.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::Host;
use nurl::internals::node::Role;
use nurl::rt::time;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Jobs, Peer, Setup};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob { name: "jobs", about: "jobs of each act", default: 12, least: 1, turns: KnobKind::Work }],
    marks: &[
        Mark::new("a job was forwarded"),
        Mark::new("a job ran on the far side when the line was cut"),
        Mark::new("an owner died with a job half done"),
        Mark::new("a job ran twice and its handle resolved once"),
        Mark::new("an owner gave an outcome instead of a second run"),
        Mark::new("halves that held each other dead met again"),
    ],
    ..Scenario::new(
        "keystone",
        "jobs complete across partitions, across their owner's death, and while the ring changes under them",
        |trial| Box::pin(run(trial)),
    )
};

const NODES: usize = 6;

/// Nodes from here on are beyond the partition, away from the hub.
const FAR: usize = 3;

/// The nodes' zones and weights, in turn: each zone has light nodes and heavy ones.
const ZONES: [&str; 3] = ["east", "south", "west"];
const WEIGHTS: usize = 4;

const CROSSES: &str = "nothing crosses a partition";

const MEET: Duration = Duration::from_secs(30);

/// Shorter than any suspicion.
const SHORT: Duration = Duration::from_secs(3);

/// Within this a partition's halves hold each other dead: the longest suspicion, and the time to spread it.
const LEARN: Duration = Duration::from_secs(90);

/// The bound after a death, and before a long partition heals.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// Longer than it takes to find that a kind without a worker is infeasible.
const INFEASIBLE: Duration = Duration::from_secs(5);

/// Time from a submit until its handler has started, without faults.
const BEGUN: Duration = Duration::from_millis(300);

/// Time between two submits while the ring changes: short, so that some meet an outdated view.
const TRICKLE: Duration = Duration::from_millis(60);

/// Runs the four acts in one world.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let far = |_, payload: Bytes| async move { Ok(payload) };
    let stage = Stage::new(world).links(link_ms(20, 10)).hub("hub").workers(NODES).zones(&ZONES);
    let stage = stage.configure(move |builder, &Setup { number, .. }| {
        let builder = builder.weight(1 + (number % WEIGHTS) as u16);
        if number < FAR { builder } else { builder.handler("far", far) }
    });
    let mut cluster = stage.meet(MEET).await?;
    let mut text = partition_twice(&trial, &cluster).await?;

    let victim = kill_busiest(&trial, &cluster, &mut text).await?;
    change_ring(&trial, &mut cluster, &victim, &mut text).await?;

    let runs = cluster.witness.runs_per_job();
    let twice = runs.values().map(|runs| runs - 1).sum::<usize>();
    sometimes!(twice > 0, "a job ran twice and its handle resolved once");
    cluster.inspect().await?;
    let notes = format!("{twice} runs beyond the first of a job\n");
    Ok(Passed { state: text + &cluster.views().await, notes })
}

/// Cuts the network while jobs are in flight or running, for a short time and for a long one.
async fn partition_twice(trial: &Trial, cluster: &Cluster) -> Result<String, Violation> {
    let world = trial.world;
    let (from, far_peers) = (&cluster.peers[0], &cluster.peers[FAR..NODES]);
    let near: Vec<Host> =
        cluster.peers[..FAR].iter().map(|peer| peer.host).chain([cluster.hubs[0].host]).collect();
    let far: Vec<Host> = far_peers.iter().map(|peer| peer.host).collect();
    let mut text = String::new();

    let mut jobs = submit_jobs(trial, cluster, from, "short").await?;
    world.partition(&near, &far);
    let mut across = Jobs::new(cluster);
    across.submit(from, "far", "across").await?;
    let mut result = pin!(across.settle(SHORT + TAKE_OVER));
    if let Ok(result) = time::timeout(SHORT, result.as_mut()).await {
        return Err(Violation::safety(CROSSES, format!("a job for the far half has ended: {result:?}")));
    }
    world.heal();
    text += &format!("short partition: {} handles resolved once\n", jobs.settle(TAKE_OVER).await?);
    result.await?;
    text += "a job that waited for the heal has a result\n";
    cluster.converge(LEARN).await?;

    let mut jobs = submit_jobs(trial, cluster, from, "long").await?;
    let running = far_peers.iter().any(|peer| cluster.witness.running(&peer.name) > 0);
    sometimes!(running, "a job ran on the far side when the line was cut");
    world.partition(&near, &far);
    let mut beyond = Jobs::new(cluster);
    beyond.submit(from, "far", "beyond").await?;
    text += &format!(
        "long partition, before it heals: {} handles resolved once\n",
        jobs.settle(TAKE_OVER).await?
    );
    let deadline = Deadline::new(world, "each half holds the other dead", LEARN);
    while deadline.still_missing(alive_beyond(cluster).await).await? {}
    let mut result = pin!(beyond.settle(INFEASIBLE + LEARN + TAKE_OVER));
    if let Ok(result) = time::timeout(INFEASIBLE, result.as_mut()).await {
        return Err(Violation::safety(CROSSES, format!("a job for the far half has ended: {result:?}")));
    }
    world.heal();
    cluster.converge(LEARN).await?;
    sometimes!("halves that held each other dead met again");
    result.await?;
    text += "a job for the far half alone has a result after the heal\n";
    Ok(text)
}

/// The nodes that hold a node beyond the partition alive.
async fn alive_beyond(cluster: &Cluster) -> Vec<String> {
    let mut missing = Vec::new();
    for (at, peer) in cluster.peers.iter().enumerate() {
        let view = cluster.view(peer).await;
        let others = if at < FAR { &cluster.peers[FAR..] } else { &cluster.peers[..FAR] };
        let live = others.iter().filter(|other| view.get(&other.key).is_some_and(|state| state.is_live()));
        missing.extend(live.map(|other| format!("{} holds {} alive", peer.name, other.name)));
    }
    missing
}

/// Kills the node that runs most of the jobs.
async fn kill_busiest(trial: &Trial, cluster: &Cluster, text: &mut String) -> Result<Peer, Violation> {
    let mut jobs = submit_jobs(trial, cluster, &cluster.peers[0], "death").await?;
    let busiest =
        cluster.peers[1..].iter().max_by_key(|peer| (cluster.witness.running(&peer.name), peer.key));
    let victim = busiest.cloned().expect("there are six nodes");
    sometimes!(cluster.witness.running(&victim.name) > 0, "an owner died with a job half done");
    if trial.world.rng("death").next_u32().is_multiple_of(2) {
        victim.host.power_loss();
    } else {
        victim.host.crash();
    }
    *text += &format!("the owner's death: {} handles resolved once\n", jobs.settle(TAKE_OVER).await?);
    cluster.converge(LEARN).await?;
    Ok(victim)
}

/// The dead node comes back, another one leaves, a new one joins; meanwhile several nodes submit jobs.
async fn change_ring(
    trial: &Trial,
    cluster: &mut Cluster,
    back: &Peer,
    text: &mut String,
) -> Result<(), Violation> {
    let world = trial.world;
    let leaver = cluster.peers[1..NODES].iter().find(|peer| peer.key != back.key).cloned();
    let leaver = leaver.expect("there are six nodes");
    back.host.restart();
    cluster.add("newcomer", world.internet(), Role::Worker);
    let leaving = leaver.node(&world).await;
    leaver.host.run(async move { leaving.shutdown().await });
    let cluster = &*cluster;
    let from: Vec<&Peer> =
        cluster.peers[..NODES].iter().filter(|peer| peer.key != back.key && peer.key != leaver.key).collect();
    let mut jobs = Jobs::new(cluster);
    let begun = world.elapsed();
    let mut number = 0;
    // Until all views agree again, and at least as many jobs as in the other acts.
    while number < trial.knob("jobs") as usize || !cluster.missing().await.is_empty() {
        if world.elapsed() - begun > LEARN {
            break;
        }
        jobs.submit(from[number % from.len()], "slow", &format!("ring {number:03}")).await?;
        number += 1;
        world.sleep(TRICKLE).await;
    }
    jobs.settle(TAKE_OVER).await?;
    *text += "the ring changes under them: all handles resolved once\n";
    cluster.converge(LEARN).await
}

/// Submits an act's jobs, and waits until the first of them run.
async fn submit_jobs<'a>(
    trial: &Trial,
    cluster: &'a Cluster,
    from: &Peer,
    act: &str,
) -> Result<Jobs<'a>, Violation> {
    let mut jobs = Jobs::new(cluster);
    for number in 0..trial.knob("jobs") {
        jobs.submit(from, "slow", &format!("{act} {number:02}")).await?;
    }
    trial.world.sleep(BEGUN).await;
    Ok(jobs)
}
