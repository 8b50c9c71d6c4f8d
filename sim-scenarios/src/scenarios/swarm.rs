//! All kinds of load under all kinds of faults.
//!
//! Two hubs; two nodes on the internet, two at home behind boxes that the seed draws, a phone that owns no keys,
//! and an observer. Every node sends jobs, increments and reliable messages to the others, while a plan with
//! every kind of fault runs. Then all faults are healed, and within bounds every node sees every other alive,
//! every handle has resolved, a new job of each node has its result, the counter's copies are the same bytes and
//! count the acknowledged increments, and messages pass between all nodes. At no time is a message delivered
//! twice.
//!
//! A handle must resolve only if its process still runs: a process that dies takes its handles with it. A job may
//! end in an error, such as for lack of a worker; a result has to be the right one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chaos::link::{LinkConfig, Rate};
use chaos::plan::FaultKind;
use chaos::property::{Broken, fail};
use chaos::scenario::{Held, Knob, Mark, Trial, Turns, Verdict};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::compute::job::{JobError, SubmitOptions};
use nurl::internals::node::Role;
use nurl::rt::{disk, task, time};
use nurl::{Node, PublicKey};
use rand_core::Rng as _;

use super::churn::ledger::Ledger;
use crate::cluster::{Cluster, Jobs, Map, Peer, Place, Within, home, secret, text};
use crate::models::nat_box::{NatBox, NatConfig, presets};
use crate::models::oracle::{self, Nature};

/// The scenario's knobs.
pub const KNOBS: &[Knob] = &[
    Knob {
        name: "steps",
        about: "what each node does under faults",
        default: 40,
        least: 1,
        turns: Turns::Work,
    },
    Knob {
        name: "seconds",
        about: "how long faults are drawn over",
        default: 40,
        least: 5,
        turns: Turns::Other,
    },
];

/// Fault kinds that a seed may draw: all.
pub const FAULTS: &[FaultKind] = FaultKind::ALL;

/// Marks that some run has to reach.
pub const MARKS: &[Mark] = &[
    Mark::new("a handle died with its process"),
    Mark::new("a message's end was never heard"),
    Mark::new("a job was forwarded"),
    Mark::new("a job ran twice and was recorded once"),
    Mark::new("a suspect refutes"),
    Mark::new("who was held dead is alive again"),
    Mark::new("a path was given up, and direct again later"),
];

/// The scenario's limit of virtual time.
pub const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

const COUNTER: &str = "counter";

const MEET: Duration = Duration::from_secs(60);

/// The longest time between two steps of a node, in milliseconds.
const PACE_MS: u64 = 2_000;

/// A task's lifetime; every handle has resolved by then.
const LIFE: Duration = Duration::from_secs(60);

/// The mesh recovers from healed faults within this: hubs are found again within 30 s, dead members are probed
/// every 30 s, and a clock that was set back delays handshakes for as long as its step.
const WELL: Duration = Duration::from_secs(180);

/// A message that is sent after recovery arrives within this.
const ARRIVES: Duration = Duration::from_secs(10);

/// A job that is submitted after recovery has its result within this: one attempt is lost at most.
const SERVED: Duration = Duration::from_secs(15);

/// An application's time between two attempts.
const AGAIN: Duration = Duration::from_millis(250);

/// Runs the scenario.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(10),
        udp_loss: Rate::percent(1),
        ..LinkConfig::default()
    });
    let (cluster, natures) = mesh(world);
    cluster.converge(MEET).await?;

    let shared = Arc::new(Shared {
        world,
        cluster: cluster.peers.clone(),
        witness: cluster.witness.clone(),
        books: Mutex::new(Books { ledger: Ledger::new(cluster.peers.len()), ..Books::default() }),
    });
    let steps = trial.knob("steps");
    let actors: Vec<_> = (0..cluster.peers.len())
        .map(|number| {
            task::spawn(receive(shared.clone(), number));
            task::spawn(act(shared.clone(), number, steps))
        })
        .collect();
    let span = Duration::from_secs(trial.knob("seconds"));
    trial.unleash(&cluster.targets(), span);
    world.sleep(span).await;
    trial.heal().await;

    let mut ends = Vec::new();
    for actor in actors {
        match time::timeout(WELL, actor).await {
            Ok(Ok(handles)) => ends.extend(handles),
            Ok(Err(error)) => return Err(Broken::safety("nothing panics", error.to_string())),
            Err(_) => return Err(Broken::liveness("every call ends", "a node's calls did not")),
        }
    }
    cluster.converge(WELL).await?;
    let mut results = 0;
    for end in ends {
        let left = LIFE + Duration::from_secs(5);
        match time::timeout(left, end).await {
            Ok(Ok(result)) => results += u32::from(result),
            Ok(Err(error)) => return Err(Broken::safety("nothing panics", error.to_string())),
            Err(_) => return Err(Broken::liveness("every job's handle resolves in time", "one did not")),
        }
    }
    let mut jobs = Jobs::new(&cluster);
    for peer in &cluster.peers {
        jobs.submit(peer, "slow", &format!("of {}, when all is well", peer.name)).await?;
    }
    let well = jobs.settle(SERVED).await?;
    let within = Within::new(world, "replicas that can talk agree", WELL);
    while within.lacks(differing(&shared).await).await? {}
    let node = cluster.peers[0].node(&world).await;
    let unread = |error: nurl::Error| Broken::liveness("what all agree on can be read", error.to_string());
    let sum = node.counter(COUNTER).get().await.map_err(unread)?;
    let agreed = shared.books().ledger.agree(sum);
    agreed.map_err(|seen| Broken::safety("acknowledged increments count once", seen))?;
    let within = Within::new(world, "messages pass between all", ARRIVES);
    all_pairs(&shared).await?;
    while within.lacks(silent(&shared)).await? {}
    let within = Within::new(world, "each path is direct exactly where the oracle says so", WELL);
    while within.lacks(wrong_paths(&cluster, &natures).await).await? {}
    cluster.inspect().await?;
    let runs = cluster.witness.runs().len();
    let (counted, sent) = {
        let books = shared.books();
        (books.ledger.counted().iter().sum::<u64>(), books.next)
    };
    let mut state = cluster.views().await;
    state += &paths(&cluster).await;
    state += &format!("{results} results under faults, {well} when all was well\n{counted} increments\n");
    Ok(Held { state, notes: format!("{runs} runs, {sent} messages\n") })
}

/// The mesh, and the boxes in front of each node.
fn mesh(world: World) -> (Cluster, Vec<Nature>) {
    let mut draws = world.rng("boxes");
    let kinds: [fn() -> NatConfig; 5] = [
        presets::full_cone,
        presets::restricted,
        presets::port_restricted,
        presets::symmetric,
        presets::carrier_grade,
    ];
    let mut place = |name: &str| {
        let kind = kinds[(draws.next_u64() % kinds.len() as u64) as usize];
        (Place::In(home(world, world.internet(), name, NatBox::new(kind()))), Nature::v4(&kind()))
    };
    let ((flat, before_flat), (house, before_house)) = (place("flat"), place("house"));
    let natures = vec![Nature::OPEN, Nature::OPEN, before_flat, before_house, before_house, Nature::OPEN];
    let cluster = Map::new(world)
        .hub("hub 1")
        .hub("hub 2")
        .nodes(2, Place::Open)
        .node("node 2", flat)
        .node("node 3", house)
        .role("phone", house, Role::Member)
        .role("observer", Place::Open, Role::Observer)
        .build(|builder, at| {
            if at.role != Role::Worker {
                return builder;
            }
            let folder = std::path::Path::new("/node");
            // If the folder can't be made, opening the store fails and reports it.
            let _ = disk::create_dir_all(folder);
            builder.store(folder)
        })
        .start();
    (cluster, natures)
}

/// The paths between members that differ from the oracle's prediction. Nodes that roamed are at home again.
async fn wrong_paths(cluster: &Cluster, natures: &[Nature]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to) in pairs(cluster) {
        let (a, b) = (&cluster.peers[from], &cluster.peers[to]);
        // In one network no box is between the nodes.
        let house = a.net() == b.net();
        let can = house || oracle::direct(natures[from], natures[to]);
        wrong.extend(cluster.wrong_path(a, b, can).await);
    }
    wrong
}

/// The paths between members, one line each.
async fn paths(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (from, to) in pairs(cluster) {
        let (from, to) = (&cluster.peers[from], &cluster.peers[to]);
        let direct = cluster.path(from, to).await.is_some_and(|path| path.direct);
        let leg = if direct { "direct" } else { "relayed" };
        text += &format!("{} to {}: {leg}\n", from.name, to.name);
    }
    text
}

/// Ordered pairs of members. Observers are left out: a node keeps no path to an idle observer.
fn pairs(cluster: &Cluster) -> Vec<(usize, usize)> {
    let members = |number: &usize| cluster.peers[*number].role != Role::Observer;
    let all = (0..cluster.peers.len()).filter(members);
    let all = all.flat_map(|from| (0..cluster.peers.len()).filter(members).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to).collect()
}

/// The shared state of all nodes' applications.
struct Shared {
    world: World,
    cluster: Vec<Peer>,
    witness: crate::cluster::Witness,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    ledger: Ledger,
    /// By receiver and text: how often a message was delivered.
    delivered: BTreeMap<(PublicKey, String), u32>,
    next: u32,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a job that was submitted has a result.
type End = task::JoinHandle<bool>;

/// One node's application: takes its steps regardless of faults. No call has a time limit of its own.
async fn act(shared: Arc<Shared>, number: usize, steps: u64) -> Vec<End> {
    let (world, peer) = (shared.world, &shared.cluster[number]);
    let mut draws = world.rng(&format!("application {number}"));
    let mut ends = Vec::new();
    for step in 0..steps {
        world.sleep(Duration::from_millis(draws.next_u64() % PACE_MS)).await;
        let node = peer.node(&world).await;
        match draws.next_u64() % 4 {
            0 => {
                let name = format!("job {step} of {}", peer.name);
                ends.extend(submit(&shared, peer, &node, name).await);
            }
            // The phone has no disk, so its increments are lost with its process; see the ledger.
            1 if peer.role != Role::Member => {
                shared.books().ledger.adds(number);
                if node.counter(COUNTER).add(Ledger::weight(number)).await.is_ok() {
                    shared.books().ledger.added(number);
                }
            }
            _ => {
                let to = (number + 1 + draws.next_u64() as usize % (shared.cluster.len() - 1))
                    % shared.cluster.len();
                let (shared, to) = (shared.clone(), shared.cluster[to].key);
                task::spawn(async move { send(&shared, &node, to).await });
            }
        }
    }
    ends
}

async fn submit(shared: &Arc<Shared>, peer: &Peer, node: &Node, name: String) -> Option<End> {
    let boot = peer.host.boot();
    let options = SubmitOptions { life: LIFE, ..SubmitOptions::default() };
    // A node that has just died refuses the job.
    let task = node.submit("slow", name.as_bytes(), secret(&name), options).await.ok()?;
    let (shared, peer) = (shared.clone(), peer.clone());
    Some(task::spawn(async move {
        let outcome: Result<Bytes, JobError> = shared.witness.outcome(&peer.name, task).await;
        match outcome {
            Ok(result) if result == secret(&name) => true,
            Ok(result) => {
                fail(Broken::safety("a job's result is its handler's", format!("{name}: {result:?}")));
                false
            }
            Err(JobError::Cancelled) if peer.host.boot() == boot && peer.host.is_running() => {
                fail(Broken::safety("nobody cancels a job but its submitter", name));
                false
            }
            Err(error) => {
                sometimes!(error == JobError::Cancelled, "a handle died with its process");
                false
            }
        }
    }))
}

/// Sends a message with a new number. Returns whether its acknowledgement came.
async fn send(shared: &Shared, node: &Node, to: PublicKey) -> bool {
    let number = {
        let mut books = shared.books();
        books.next += 1;
        books.next
    };
    let sent = node.send_message(to, secret(&format!("message {number}"))).await;
    sometimes!(sent.is_err(), "a message's end was never heard");
    sent.is_ok()
}

/// Receives a node's messages, in all of its processes.
async fn receive(shared: Arc<Shared>, number: usize) {
    let peer = &shared.cluster[number];
    loop {
        let node = peer.node(&shared.world).await;
        while let Some((_, body)) = node.recv_message().await {
            let message = text(&body);
            let mut books = shared.books();
            let times = books.delivered.entry((peer.key, message.clone())).or_insert(0);
            *times += 1;
            if *times > 1 {
                let seen = format!("{} got {message:?} {times} times", peer.name);
                fail(Broken::safety("a message is delivered once", seen));
            }
        }
        shared.world.sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a message from every node to every other, and forgets earlier deliveries.
async fn all_pairs(shared: &Arc<Shared>) -> Result<(), Broken> {
    shared.books().delivered.clear();
    for from in &shared.cluster {
        let node = from.node(&shared.world).await;
        for to in shared.cluster.iter().filter(|to| to.key != from.key) {
            let (world, node, to, name) = (shared.world, node.clone(), to.key, from.name.clone());
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
fn silent(shared: &Shared) -> Vec<String> {
    let books = shared.books();
    let mut missing = Vec::new();
    for from in &shared.cluster {
        let message = format!("from {}: ", from.name);
        let came = |to: &Peer| {
            books.delivered.keys().any(|(key, text)| *key == to.key && text.starts_with(&message))
        };
        let to = shared.cluster.iter().filter(|to| to.key != from.key && !came(to));
        missing.extend(to.map(|to| format!("a message from {} to {}", from.name, to.name)));
    }
    missing
}

/// Differences between copies of the counter, or between the nodes' readings of it.
async fn differing(shared: &Shared) -> Vec<String> {
    let (mut copies, mut reads) = (BTreeMap::new(), BTreeMap::new());
    for peer in &shared.cluster {
        let node = peer.node(&shared.world).await;
        if let Ok(Some(digest)) = node.held_digest(COUNTER).await {
            copies.entry(digest).or_insert_with(Vec::new).push(peer.name.as_str());
        }
        let read = node.counter(COUNTER).get().await;
        let read = read.map_or_else(|error| error.to_string(), |sum| sum.to_string());
        reads.entry(read).or_insert_with(Vec::new).push(peer.name.as_str());
    }
    let mut missing = Vec::new();
    if copies.len() > 1 {
        missing.push(format!("the copies of {:?} differ", copies.values().collect::<Vec<_>>()));
    }
    if reads.len() > 1 {
        missing.push(format!("the readings of {:?} differ", reads.values().collect::<Vec<_>>()));
    }
    missing
}
