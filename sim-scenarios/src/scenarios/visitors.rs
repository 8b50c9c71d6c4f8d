//! Clients come to a node, one after the other, and vanish without a goodbye.
//!
//! Two workers with room for 8 peers, and a hub. Twenty-four observers come in turn. Each sends the first worker
//! a message, receives the acknowledgement, and is switched off. Each is served at once, because a silent peer is
//! evicted for it. Then the worker answers the last one, which is gone, with more than its budget at one time, so
//! that some of it waits in the transport and some before it. All answers fail with a reason, and in the end the
//! worker knows the other worker and no other peer.
//!
//! Negative control: a peer had to be evicted, and the answers were accepted before they failed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::world::World;
use nurl::internals::node::Role;
use nurl::internals::transport::Limits;
use nurl::internals::transport::reliable::FailReason;
use nurl::rt::time;
use nurl::{Error, PublicKey};

use crate::cluster::{Cluster, Deadline, Peer, secret};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "visitors",
    "clients come and go at a node with little room: each is served, and none leaves anything behind",
    |trial| Box::pin(run(trial)),
);

const MEET: Duration = Duration::from_secs(30);
const ROOM: usize = 8;
const VISITORS: usize = 24;

/// A session through a hub, a message and its acknowledgement. Clients that the worker has data for are evicted
/// only when they are considered lost, after 5 s.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

/// Answers to the visitor that is gone, of this many bytes each: two fill its budget.
const ANSWERS: usize = 4;
const ANSWER_BYTES: usize = 2 << 20;

/// A session ends after 180 s, and the attempt at another one after 90 s.
const GONE_WITHIN: Duration = Duration::from_secs(300);

const SERVED: &str = "a node serves any number of clients, one after the other";
const TOLD: &str = "what waits for a client that is gone for good fails with a reason";
const FORGOTTEN: &str = "a client that went leaves nothing behind";

/// Twenty-four visits, and answers to a client that is gone.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(2);
    let stage = stage.configure(|builder, setup| match setup.role {
        Role::Worker => builder.limits(Limits { peers: ROOM }),
        Role::Member | Role::Observer => builder,
    });
    let mut cluster = stage.meet(MEET).await?;
    let worker = cluster.peers[0].clone();
    let mut last = worker.key;
    for number in 0..VISITORS {
        last = visit(world, &mut cluster, &worker, number).await?;
    }
    let told = answer_a_gone_client(world, &worker, last).await;
    let deadline = Deadline::new(world, TOLD, GONE_WITHIN);
    while deadline.still_missing(unfinished_answers(&told)).await? {}
    let deadline = Deadline::new(world, FORGOTTEN, GONE_WITHIN);
    while deadline.still_missing(remaining_state(world, &worker).await).await? {}

    let status = worker.node(&world).await.status().await;
    let stats = status.map_err(|error| Violation::safety(SERVED, error.to_string()))?.transport;
    if stats.evicted_peers == 0 {
        return Err(Violation::safety(SERVED, "nobody had to make room".to_owned()));
    }
    let lost = lock(&told).len();
    Ok(Passed {
        state: format!(
            "{VISITORS} clients served with room for {ROOM}; {lost} answers failed; no stranger remembered\n"
        ),
        notes: format!("{} peers made room, {} were refused\n", stats.evicted_peers, stats.refused_peers),
    })
}

/// One client joins, is acknowledged, and vanishes.
async fn visit(
    world: World,
    cluster: &mut Cluster,
    worker: &Peer,
    number: usize,
) -> Result<PublicKey, Violation> {
    let visitor = cluster.add(&format!("visitor {number}"), world.internet(), Role::Observer);
    let node = visitor.node(&world).await;
    let sent = time::timeout(SERVED_WITHIN, node.send_message(worker.key, secret("hello"))).await;
    if !matches!(sent, Ok(Ok(()))) {
        return Err(Violation::liveness(SERVED, format!("{} came and was told {sent:?}", visitor.name)));
    }
    visitor.host.crash();
    Ok(visitor.key)
}

/// The errors of the answers that have failed.
type Failures = Arc<Mutex<Vec<Error>>>;

/// Lets the worker send several large answers to a client that is gone.
async fn answer_a_gone_client(world: World, worker: &Peer, to: PublicKey) -> Failures {
    let told = Failures::default();
    for _ in 0..ANSWERS {
        let (node, told) = (worker.node(&world).await, told.clone());
        worker.host.run(async move {
            let body = Bytes::from(vec![0; ANSWER_BYTES]);
            let error = node.send_message(to, body).await.expect_err("nobody is there to take it");
            lock(&told).push(error);
        });
    }
    told
}

/// The answers that haven't failed yet, and those that failed for another reason.
fn unfinished_answers(told: &Failures) -> Vec<String> {
    let told = lock(told);
    let open = (told.len() < ANSWERS).then(|| format!("{} answers have no end", ANSWERS - told.len()));
    let wrong = told.iter().filter(|error| !matches!(error, Error::MessageLost(FailReason::Forgotten)));
    open.into_iter().chain(wrong.map(ToString::to_string)).collect()
}

/// The worker's remaining state for clients.
async fn remaining_state(world: World, worker: &Peer) -> Vec<String> {
    let Ok(status) = worker.node(&world).await.status().await else { return Vec::new() };
    let now = status.transport_now;
    let left = [
        ("strangers", now.peers.now - 1),
        ("sessions with strangers", now.sessions.now - 1),
        ("bytes to send", now.sending_bytes.now),
        ("bytes received", now.receiving_bytes.now),
    ];
    left.into_iter().filter(|(_, left)| *left > 0).map(|(name, left)| format!("{left} {name}")).collect()
}
