//! What each node of the swarm does: it submits jobs, adds to the counter and sends messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::{Violation, fail};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::compute::job::{JobError, SubmitOptions};
use nurl::internals::node::Role;
use nurl::rt::task;
use nurl::{Node, PublicKey};
use rand_core::Rng as _;

use super::super::churn::ledger::Ledger;
use crate::cluster::{Cluster, Peer, Witness, secret, text};
use crate::lock::lock;

/// The key of the counter that all nodes write.
pub(super) const COUNTER: &str = "counter";

/// The longest time between two steps of a node, in milliseconds.
const PACE_MS: u64 = 2_000;

/// A task's lifetime; every handle has resolved by then.
pub(super) const LIFE: Duration = Duration::from_secs(60);

/// An application's time between two attempts.
const AGAIN: Duration = Duration::from_millis(250);

/// The applications of all nodes: what they need, and what they have done.
pub(super) struct Applications {
    pub(super) world: World,
    pub(super) peers: Vec<Peer>,
    pub(super) witness: Witness,
    pub(super) books: Mutex<Bookkeeping>,
}

/// What the applications have done so far.
#[derive(Default)]
pub(super) struct Bookkeeping {
    pub(super) ledger: Ledger,
    /// By receiver and text: how often a message was delivered.
    delivered: BTreeMap<(PublicKey, String), u32>,
    pub(super) messages: u32,
}

impl Applications {
    pub(super) fn new(world: World, cluster: &Cluster) -> Applications {
        let books = Bookkeeping {
            ledger: Ledger::new(cluster.peers.iter().map(|peer| peer.name.clone())),
            ..Bookkeeping::default()
        };
        let (peers, witness) = (cluster.peers.clone(), cluster.witness.clone());
        Applications { world, peers, witness, books: Mutex::new(books) }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Bookkeeping> {
        lock(&self.books)
    }
}

/// Whether a job that was submitted has a result.
pub(super) type ResultTask = task::JoinHandle<bool>;

/// One node's application: takes its steps regardless of faults. No call has a time limit of its own.
pub(super) async fn act(applications: Arc<Applications>, number: usize, steps: u64) -> Vec<ResultTask> {
    let (world, peer) = (applications.world, &applications.peers[number]);
    let mut draws = world.rng(&format!("application {number}"));
    let mut ends = Vec::new();
    for step in 0..steps {
        world.sleep(Duration::from_millis(draws.next_u64() % PACE_MS)).await;
        let node = peer.node(&world).await;
        match draws.next_u64() % 4 {
            0 => {
                let name = format!("job {step} of {}", peer.name);
                ends.extend(submit(&applications, peer, &node, name).await);
            }
            // The phone has no disk, so its increments are lost with its process; see the ledger.
            1 if peer.role != Role::Member && number < Ledger::WRITERS => {
                applications.books().ledger.adds(number);
                if node.counter(COUNTER).add(Ledger::weight(number)).await.is_ok() {
                    applications.books().ledger.added(number);
                }
            }
            _ => {
                let to = (number + 1 + draws.next_u64() as usize % (applications.peers.len() - 1))
                    % applications.peers.len();
                let (applications, to) = (applications.clone(), applications.peers[to].key);
                task::spawn(async move { send(&applications, &node, to).await });
            }
        }
    }
    ends
}

async fn submit(
    applications: &Arc<Applications>,
    peer: &Peer,
    node: &Node,
    name: String,
) -> Option<ResultTask> {
    let boot = peer.host.boot();
    let options = SubmitOptions { life: LIFE, ..SubmitOptions::default() };
    // A node that has just died refuses the job.
    let task = node.submit("slow", name.as_bytes(), secret(&name), options).await.ok()?;
    let (applications, peer) = (applications.clone(), peer.clone());
    Some(task::spawn(async move {
        let outcome: Result<Bytes, JobError> = applications.witness.outcome(&peer.name, task).await;
        match outcome {
            Ok(result) if result == secret(&name) => true,
            Ok(result) => {
                fail(Violation::safety("a job's result is its handler's", format!("{name}: {result:?}")));
                false
            }
            Err(error) => {
                let is_same = peer.host.boot() == boot && peer.host.is_running();
                if error == JobError::Cancelled && is_same {
                    fail(Violation::safety("nobody cancels a job but its submitter", name));
                }
                sometimes!(error == JobError::Cancelled, "a handle died with its process");
                false
            }
        }
    }))
}

/// Sends a message with a new number. Returns whether its acknowledgement came.
async fn send(applications: &Applications, node: &Node, to: PublicKey) -> bool {
    let number = {
        let mut books = applications.books();
        books.messages += 1;
        books.messages
    };
    let sent = node.send_message(to, secret(&format!("message {number}"))).await;
    sometimes!(sent.is_err(), "a message's end was never heard");
    sent.is_ok()
}

/// Receives a node's messages, in all of its processes.
pub(super) async fn receive(applications: Arc<Applications>, number: usize) {
    let peer = &applications.peers[number];
    loop {
        let node = peer.node(&applications.world).await;
        while let Some((_, body)) = node.recv_message().await {
            let message = text(&body);
            let mut books = applications.books();
            let times = books.delivered.entry((peer.key, message.clone())).or_insert(0);
            *times += 1;
            if *times > 1 {
                let seen = format!("{} got {message:?} {times} times", peer.name);
                fail(Violation::safety("a message is delivered once", seen));
            }
        }
        applications.world.sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a message from every node to every other, and forgets earlier deliveries.
pub(super) async fn send_to_all_pairs(applications: &Arc<Applications>) -> Result<(), Violation> {
    applications.books().delivered.clear();
    for from in &applications.peers {
        let node = from.node(&applications.world).await;
        for to in applications.peers.iter().filter(|to| to.key != from.key) {
            let (world, node, to, name) = (applications.world, node.clone(), to.key, from.name.clone());
            task::spawn(async move {
                // This message may be the first to find that its receiver restarted under faults: it is lost
                // then, and reported lost.
                for attempt in 1.. {
                    let body = secret(&format!("from {name}: {attempt}"));
                    if node.send_message(to, body).await.is_ok() {
                        break;
                    }
                    world.sleep(AGAIN).await;
                }
            });
        }
    }
    Ok(())
}

/// The pairs between which no message has arrived.
pub(super) fn missing_messages(applications: &Applications) -> Vec<String> {
    let books = applications.books();
    let mut missing = Vec::new();
    for from in &applications.peers {
        let message = format!("from {}: ", from.name);
        let came = |to: &Peer| {
            books.delivered.keys().any(|(key, text)| *key == to.key && text.starts_with(&message))
        };
        let to = applications.peers.iter().filter(|to| to.key != from.key && !came(to));
        missing.extend(to.map(|to| format!("a message from {} to {}", from.name, to.name)));
    }
    missing
}
