//! Hundreds of clients come and go, and the workers that serve them keep within their bounds.
//!
//! Two workers whose tables hold 40 peers, and machines on which one client after the other starts with a new
//! key, submits a job, reads its result and leaves: 200 of them. On some machines the clients are killed before
//! they end. Every client that isn't killed has its result as soon as the first had, a worker's state stays in
//! its bounds, and when the last client has gone the workers keep no state of any of them: no peer, no session,
//! no byte.
//!
//! Negative control: the tables fill up on the way, and a killed client's job still runs when its client is gone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::internals::compute::job::SubmitOptions;
use nurl::internals::mesh::Ticket;
use nurl::internals::node::{Role, TaskEvent};
use nurl::internals::transport::Limits;
use nurl::rt::{Rng, time};
use nurl::{Node, PublicKey};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, secret};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a client was killed before it had its result"),
        Mark::new("a full table made room for a client"),
    ],
    time_limit: Duration::from_secs(1_200),
    ..Scenario::new(
        "clients",
        "200 clients come and go, some are killed: each is served at once, and nothing is left of it",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 2;

/// The size of a worker's table: more than the clients of one moment, and fewer than are killed.
const TABLE: usize = 40;

/// Machines with clients that end by themselves, and the number of clients on each.
const MACHINES: usize = 8;
const EACH: usize = 20;

/// Machines on which clients are killed, and the number of kills on each.
const DOOMED: usize = 4;
const KILLS: usize = 10;

const MEET: Duration = Duration::from_secs(60);

/// From its first packet to its result a client needs 12 round trips of 40 ms: TCP, the hub's handshake, LIST, a
/// handshake and QUIC's, a table; the same again for the owner if it is another one; the job. Twice that with jitter.
const SERVED: Duration = Duration::from_millis(1_200);

/// Within this time after the last client the workers have forgotten it: its session ends after three minutes, an
/// attempt at another after a minute and a half.
const FORGOTTEN: Duration = Duration::from_secs(330);

const EVERY_CLIENT: &str = "every client has its result as soon as the first had";
const NOTHING_LEFT: &str = "of clients that are gone nothing is left at a worker";
const FULL: &str = "the workers' tables were full";

/// Runs 200 clients at two workers.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let cluster = Stage::new(world)
        .links(link_ms(18, 4))
        .hub("hub")
        .workers(WORKERS)
        .configure(|builder, _| {
            builder.limits(Limits { peers: TABLE }).handler("echo", async |_, payload| Ok(payload))
        })
        .meet(MEET)
        .await?;

    let results = ClientResults::default();
    let machines: Vec<Host> =
        (0..MACHINES).map(|number| start_machine(world, &cluster, &results, number)).collect();
    kill_some(world, &cluster).await;
    let deadline = Deadline::new(world, EVERY_CLIENT, Duration::from_secs(120));
    while deadline.still_missing(results.outstanding()).await? {}
    let (failed, slowest) = results.first_failure_and_slowest();
    if let Some(failed) = failed {
        return Err(Violation::safety(EVERY_CLIENT, failed));
    }
    if slowest > SERVED {
        let refused = refused(world, &cluster).await;
        let seen = format!("one took {slowest:?}; {refused} found no room");
        return Err(Violation::liveness(EVERY_CLIENT, seen));
    }
    drop(machines);

    let evicted = evicted(world, &cluster).await;
    if evicted == 0 {
        return Err(Violation::safety(FULL, "no table had to make room".to_owned()));
    }
    sometimes!(evicted > 0, "a full table made room for a client");
    let deadline = Deadline::new(world, NOTHING_LEFT, FORGOTTEN);
    while deadline.still_missing(remaining_state(world, &cluster).await).await? {}
    let state = format!("{} clients had their result\n{}", MACHINES * EACH, cluster.views().await);
    Ok(Passed { state, notes: format!("the slowest took {slowest:?}; {evicted} were evicted\n") })
}

/// The outcomes of the clients that weren't killed.
#[derive(Clone, Default)]
struct ClientResults(Arc<Mutex<Vec<Result<Duration, String>>>>);

impl ClientResults {
    fn add(&self, ended: Result<Duration, String>) {
        lock(&self.0).push(ended);
    }

    fn outstanding(&self) -> Vec<String> {
        let ended = lock(&self.0).len();
        let missing = (MACHINES * EACH).saturating_sub(ended);
        (missing > 0).then(|| format!("{missing} clients")).into_iter().collect()
    }

    /// The first failure, and the longest duration of the successes.
    fn first_failure_and_slowest(&self) -> (Option<String>, Duration) {
        let results = lock(&self.0);
        let failed = results.iter().find_map(|ended| ended.as_ref().err().cloned());
        (failed, results.iter().flatten().max().copied().unwrap_or_default())
    }
}

/// A machine that runs one client after the other.
fn start_machine(world: World, cluster: &Cluster, results: &ClientResults, number: usize) -> Host {
    let host = world.host(&format!("machine {number}")).addr(&format!("198.51.100.{}", number + 1));
    let (ticket, results) = (cluster.ticket.clone(), results.clone());
    host.spawn(move || {
        let (ticket, results) = (ticket.clone(), results.clone());
        async move {
            for client in 0..EACH {
                let begun = time::now();
                let name = format!("job {number}.{client}");
                let ended = submit(&ticket, "echo", &name).await;
                results.add(ended.map(|()| time::now() - begun).map_err(|error| format!("{name}: {error}")));
            }
            std::future::pending::<()>().await;
        }
    });
    host
}

/// The steps of `nurl submit`, until its result is out.
async fn submit(ticket: &Ticket, kind: &str, name: &str) -> Result<(), String> {
    let node = Node::builder(ticket.clone())
        .role(Role::Observer)
        .spawn()
        .await
        .map_err(|error| error.to_string())?;
    node.joined(Duration::from_secs(10)).await.map_err(|error| error.to_string())?;
    let payload: Bytes = secret(name);
    let options = SubmitOptions { life: Duration::from_secs(60), ..SubmitOptions::default() };
    let task = node.submit(kind, name.as_bytes(), payload.clone(), options).await;
    let mut task = task.map_err(|error| error.to_string())?;
    while let Some(event) = task.next().await {
        let TaskEvent::Ended { outcome, .. } = event else { continue };
        node.shutdown().await;
        return match outcome {
            Ok(result) if result == payload => Ok(()),
            other => Err(format!("{other:?}")),
        };
    }
    Err("the node ended".to_owned())
}

/// Kills clients at drawn moments while others come and go; their machines start the next client.
async fn kill_some(world: World, cluster: &Cluster) {
    let mut rng: Rng = world.rng("kills");
    let hosts: Vec<Host> = (0..DOOMED).map(|number| start_doomed_machine(world, cluster, number)).collect();
    for _ in 0..KILLS {
        for host in &hosts {
            world.sleep(Duration::from_millis(50 + rng.next_u64() % 300)).await;
            sometimes!("a client was killed before it had its result");
            if rng.next_u64().is_multiple_of(2) {
                host.crash()
            } else {
                host.power_loss()
            }
            world.sleep(Duration::from_millis(rng.next_u64() % 100)).await;
            host.restart();
        }
    }
    hosts.iter().for_each(Host::power_loss);
}

/// A machine whose client submits a job that takes longer than the client lives.
fn start_doomed_machine(world: World, cluster: &Cluster, number: usize) -> Host {
    let host = world.host(&format!("doomed {number}")).addr(&format!("198.51.100.{}", number + 101));
    let ticket = cluster.ticket.clone();
    host.spawn(move || {
        let ticket = ticket.clone();
        async move {
            // The client is killed before the job ends, except perhaps the last one.
            let _ = submit(&ticket, "slow", &format!("doomed job {number}")).await;
            std::future::pending::<()>().await;
        }
    });
    host
}

/// Number of peers that the workers refused for lack of room.
async fn refused(world: World, cluster: &Cluster) -> u64 {
    let mut refused = 0;
    for peer in &cluster.peers {
        let status = peer.node(&world).await.status().await;
        refused += status.map_or(0, |status| status.transport.refused_peers);
    }
    refused
}

/// Number of peers that the workers evicted to make room.
async fn evicted(world: World, cluster: &Cluster) -> u64 {
    let mut evicted = 0;
    for peer in &cluster.peers {
        let status = peer.node(&world).await.status().await;
        evicted += status.map_or(0, |status| status.transport.evicted_peers);
    }
    evicted
}

/// The workers' remaining state for peers other than the workers.
async fn remaining_state(world: World, cluster: &Cluster) -> Vec<String> {
    let mut left = Vec::new();
    let members: Vec<PublicKey> = cluster.peers.iter().map(|peer| peer.key).collect();
    for peer in &cluster.peers {
        let Ok(status) = peer.node(&world).await.status().await else { continue };
        let now = status.transport_now;
        let beyond = now.peers.now.saturating_sub(members.len() - 1);
        for (what, count) in [
            ("peers", beyond),
            ("bytes to be sent", now.sending_bytes.now),
            ("bytes received", now.receiving_bytes.now),
        ] {
            if count > 0 {
                left.push(format!("{}: {count} {what}", peer.name));
            }
        }
    }
    left
}
