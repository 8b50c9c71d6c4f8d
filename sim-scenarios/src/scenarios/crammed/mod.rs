//! The tables of nodes are full: members and observers take all they can, modest others work beside them.
//!
//! Three workers, a hub, members, observers, and three insiders, which speak the wire themselves. The bounds of the tables
//! are set to a few entries, each table in its act:
//!
//! **Observers.** A member remembers observers' writes for ten minutes. One that takes all it can has half of that room, and
//! another one finds half of the rest; both are told that the owner is busy. After ten minutes there is room again.
//!
//! **Executors.** A worker's tasks, and the queue of one kind: those over the bound are refused as busy, and a modest
//! submitter's next task displaces the last one of the submitter with most, which is told. All are done in the end.
//!
//! **Submissions.** A node refuses its own application's task over the bound, and takes one as soon as another has ended or
//! was cancelled.
//!
//! **Tenures.** A worker acts for so many keys at a time. The one that was idle for longest makes room; none does that has a
//! task.
//!
//! **Outcomes.** A replica keeps so many. A modest submitter's next one displaces the oldest of whoever has most, and a modest
//! submitter's task that is submitted again isn't run again.
//!
//! **Forwarded.** Tasks that were forwarded wait for their submitters' word. One forwarder takes all places, and another
//! one's task is there when its submitter claims it.
//!
//! **State.** Owners hold so many keys. A write of another key isn't acknowledged and its writer is told; keys that are there
//! go on; when there is room, the writes that waited arrive, each once. A node refuses its own writes over its bounds, and
//! its own reads, and an insider's flood of new keys keeps no caller of an owner from reading and writing.
//!
//! **Events.** A member gossips all that its queue takes. Another one, whose queue is full of that, gossips all the same.
//!
//! **Members.** A node remembers so many. For a newcomer one that left makes room, then one that died; the living stay, and
//! a newcomer beyond them is taken as soon as one of them leaves.
//!
//! Negative control: under the same bounds the modest one alone is never refused.

mod events;
mod executors;
mod forwarded;
mod members;
mod observers;
mod outcomes;
mod state;
mod submissions;
mod tenures;

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::world::World;
use nurl::internals::compute::job::{JobError, KindLimits, SubmitOptions};
use nurl::internals::compute::pool::JobContext;
use nurl::internals::node::{Builder, Role, Task};
use nurl::internals::transport::kind;
use nurl::rt::{Table, task, time};
use nurl::{Error, Node};

use crate::cluster::{Cluster, Deadline, Peer, Setup, secret};
use crate::insider::{Inlet, Insider, wire};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    time_limit: Duration::from_secs(1_200),
    ..Scenario::new(
        "crammed",
        "nodes' tables are full of greedy ones: each refusal is told and counted, modest ones find room",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 3;
const MEET: Duration = Duration::from_secs(60);

/// There and back, with what a busy node has to do before.
const ROUND_TRIP: Duration = Duration::from_millis(150);

/// All that was said has arrived, and its answers too.
const SETTLED: Duration = Duration::from_millis(400);

/// More than any table gets in a run.
const ROOMY: usize = 1 << 20;

/// Kinds that only the first worker has: the next task at once; one task after the other; the same with a short queue; many
/// tasks side by side.
const QUICK: &str = "quick";
const SINGLE: &str = "single";
const NARROW: &str = "narrow";
const WIDE: &str = "wide";

/// A kind that only the second worker has: the next task at once.
const OTHER: &str = "other";

/// What a task of a kind that takes time takes.
const TAKES: Duration = Duration::from_millis(500);

/// The tasks that wait in the short queue.
const QUEUE: usize = 4;

/// Messages of jobs, by their types in `docs/protocol.md`.
const REFUSED: u8 = 5;
const OUTCOME: u8 = 6;

const COUNTED: &str = "each refusal is counted where it is made";
const TOLD: &str = "one that is refused is told at once, and why";
const BOUNDED: &str = "no table holds more than its bound";
const UNHURT: &str = "a modest one is served as before";
const AGAIN: &str = "room is given back as soon as it was promised";
const LEFT: &str = "nothing is left of tasks that have ended";

/// What each act needs.
struct Act<'a> {
    world: World,
    cluster: &'a Cluster,
    /// The worker whose tables are filled, and the one that runs the tasks of [`OTHER`].
    worker: &'a Peer,
    other: &'a Peer,
    /// Two members.
    greedy: &'a Peer,
    modest: &'a Peer,
    /// Three insiders.
    glutton: &'a Insider,
    patron: &'a Insider,
    client: &'a Insider,
}

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut cluster = Stage::new(world)
        .links(link_ms(10, 4))
        .hub("hub")
        .workers(WORKERS)
        .member("greedy")
        .member("modest")
        .observer("hungry")
        .observer("shy")
        .configure(handlers)
        .meet(MEET)
        .await?;
    let insiders = ["glutton", "patron", "client"].map(|name| Insider::start(world, &cluster, name));
    for insider in &insiders {
        insider.meet(&cluster, MEET).await?;
        // A first message opens a connection, which takes round trips that no later one does.
        for worker in &cluster.peers[..WORKERS] {
            insider.send_message(worker.key, kind::JOB, wire::listening());
        }
    }
    for peer in cluster.peers.iter().filter(|peer| peer.role == Role::Member) {
        for worker in &cluster.peers[..WORKERS] {
            let said = peer.node(&world).await.send_message(worker.key, secret("a first message")).await;
            exactly(UNHURT, "a first message arrives", said.is_ok(), true)?;
        }
    }
    world.sleep(SETTLED).await;
    let mut state = String::new();
    let remembered = {
        let peer =
            |name: &str| cluster.peers.iter().find(|peer| peer.name == name).expect("it is on the stage");
        let act = Act {
            world,
            cluster: &cluster,
            worker: peer("node 0"),
            other: peer("node 1"),
            greedy: peer("greedy"),
            modest: peer("modest"),
            glutton: &insiders[0],
            patron: &insiders[1],
            client: &insiders[2],
        };
        let remembered = observers::fill(&act, peer("hungry"), peer("shy"), &mut state).await?;
        // No worker has an outcome before the first, and no key has a tenure at the first worker before the second.
        outcomes::act(&act, &mut state).await?;
        tenures::act(&act, &mut state).await?;
        executors::act(&act, &mut state).await?;
        submissions::act(&act, &mut state).await?;
        forwarded::act(&act, &mut state).await?;
        state::act(&act, &mut state).await?;
        events::act(&act, &mut state).await?;
        remembered
    };
    members::act(world, &mut cluster, &mut state).await?;
    observers::again(&cluster, remembered).await?;
    nothing_left(&cluster).await?;
    cluster.inspect().await?;
    Ok(Passed { state, notes: String::new() })
}

/// The first worker has all kinds but one, which the second has.
fn handlers(builder: Builder, setup: &Setup) -> Builder {
    let kinds: &[_] = match setup.number {
        0 => &[
            (QUICK, 64, 1_000, Duration::ZERO),
            (SINGLE, 1, 1_000, TAKES),
            (NARROW, 1, QUEUE, TAKES),
            (WIDE, 64, 1_000, TAKES),
        ],
        1 => &[(OTHER, 64, 1_000, Duration::ZERO)],
        _ => &[],
    };
    kinds.iter().copied().fold(builder, |builder, (kind, concurrency, queue, takes)| {
        let (by, witness) = (setup.name.clone(), setup.witness.clone());
        let handler = move |_: JobContext, payload: Bytes| {
            let (by, witness) = (by.clone(), witness.clone());
            async move {
                time::sleep(takes).await;
                witness.record_run(&by, &payload);
                Ok::<_, JobError>(payload)
            }
        };
        builder.handler_with(kind, KindLimits { concurrency, queue, time_limit: None, pure: false }, handler)
    })
}

impl Act<'_> {
    /// The node of a peer.
    async fn node(&self, peer: &Peer) -> Node {
        peer.node(&self.world).await
    }

    /// Sets the bound of a table of all workers.
    fn bound_workers(&self, table: Table, entries: usize) {
        self.workers().for_each(|worker| worker.host.set_bound(table.name(), entries));
    }

    fn workers(&self) -> impl Iterator<Item = &Peer> {
        self.cluster.peers.iter().filter(|peer| peer.role == Role::Worker)
    }

    /// Metrics of a node.
    async fn counts<const N: usize>(&self, peer: &Peer, names: [&str; N]) -> [u64; N] {
        let metrics = self.node(peer).await.metrics().await.expect("the node runs");
        names.map(|name| metrics.get(name).expect("it counts this"))
    }

    /// Submits a task whose name is its key and its payload.
    async fn submit(&self, from: &Peer, kind: &str, name: &str) -> Result<Task, Error> {
        let node = self.node(from).await;
        node.submit(kind, name.as_bytes(), secret(name), SubmitOptions::default()).await
    }

    /// The end of a task, which is its result, within so long.
    async fn done(&self, from: &Peer, name: &str, task: Task, within: Duration) -> Result<(), Violation> {
        match time::timeout(within, self.cluster.witness.outcome(&from.name, task)).await {
            Ok(Ok(result)) if result == secret(name) => Ok(()),
            Ok(other) => Err(Violation::safety(UNHURT, format!("{name} came back as {other:?}"))),
            Err(_) => Err(Violation::liveness(UNHURT, format!("after {within:?} no end of {name}"))),
        }
    }

    /// How often a task has run to its end.
    fn runs(&self, name: &str) -> usize {
        self.cluster.witness.runs_per_job().get(name).copied().unwrap_or_default()
    }

    /// Waits until a gauge has this value.
    async fn until(&self, peer: &Peer, gauge: &str, value: u64, within: Duration) -> Result<(), Violation> {
        let deadline = Deadline::new(self.world, AGAIN, within);
        loop {
            let [now] = self.counts(peer, [gauge]).await;
            let wrong = (now != value).then(|| format!("{}: {gauge} is {now}, not {value}", peer.name));
            if !deadline.still_missing(wrong.into_iter().collect()).await? {
                return Ok(());
            }
        }
    }
}

/// Calls all at once, and returns their answers in order.
async fn at_once<F>(calls: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let calls: Vec<_> = calls.into_iter().map(task::spawn).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("a call doesn't panic"));
    }
    answers
}

/// Fails unless both are the same.
#[track_caller]
fn exactly<T: PartialEq + std::fmt::Debug>(
    property: &str,
    what: &str,
    seen: T,
    expected: T,
) -> Result<(), Violation> {
    if seen == expected {
        return Ok(());
    }
    Err(Violation::safety(property, format!("{what}: {seen:?}, not {expected:?}")))
}

/// The tasks about which an insider has had a message of this type, in order.
fn heard(insider: &Insider, of: u8) -> Vec<[u8; 16]> {
    let about = |body: &Bytes| {
        // The type, the header's length, a CBOR array, and the id as 16 bytes.
        let [first, _, _, _, 0x50, rest @ ..] = &body[..] else { return None };
        (*first == of).then(|| rest.first_chunk().copied()).flatten()
    };
    let received = insider.received().into_iter();
    received
        .filter(|received| received.by == Inlet::Message(kind::JOB))
        .filter_map(|received| about(&received.body))
        .collect()
}

/// The id of an insider's task.
fn id(whose: u8, number: u8) -> [u8; 16] {
    let mut id = [whose; 16];
    id[15] = number;
    id
}

/// Nobody waits for a task, asks about one, or runs one.
async fn nothing_left(cluster: &Cluster) -> Result<(), Violation> {
    for peer in cluster.running() {
        for gauge in ["job.open", "job.executing", "job.running", "pool.running", "state.unacknowledged"] {
            let count = cluster.metric(peer, gauge).await;
            exactly(LEFT, &format!("{gauge} of {}", peer.name), count, 0)?;
        }
    }
    Ok(())
}
