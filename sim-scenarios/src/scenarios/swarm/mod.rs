//! All kinds of load under all kinds of faults.
//!
//! Two hubs; two nodes on the internet, two at home behind boxes that the seed draws, some of them behind a carrier's
//! too, a phone that owns no keys, and an observer. Every node sends jobs, increments and reliable messages to the others, while a plan with
//! every kind of fault runs. Then all faults are healed, and within bounds every node sees every other alive,
//! every handle has resolved, a new job of each node has its result, the counter's copies are the same bytes and
//! count the acknowledged increments, and messages pass between all nodes. At no time is a message delivered
//! twice.
//!
//! A handle must resolve only if its process still runs: a process that dies takes its handles with it. A job may
//! end in an error, such as for lack of a worker; a result has to be the right one.
//!
//! A node whose disk fails ends, and is started again. A node that finds its store damaged goes on with a new one and
//! says so. Its increments up to then may be lost, and those of the others may not.

mod application;
mod mesh;

use std::sync::Arc;
use std::time::Duration;

use chaos::plan::FaultKind;
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use nurl::internals::replication::crdt::Kind;
use nurl::rt::{task, time};

use self::application::{Applications, COUNTER, LIFE, act, missing_messages, receive, send_to_all_pairs};
use self::mesh::{mesh, paths, wrong_paths};
use crate::cluster::{Deadline, Jobs, copies};
use crate::insider::Insider;
use crate::insider::mischief::Mischief;

/// The knob of the mesh's size.
pub(super) const HOMES: Knob = Knob {
    name: "homes",
    about: "further homes behind drawn boxes, with two workers each",
    default: 0,
    least: 0,
    turns: KnobKind::Work,
};

/// The knob of those who mean harm.
pub(super) const INSIDERS: Knob = Knob {
    name: "insiders",
    about: "holders of a ticket that lie to all meanwhile",
    default: 0,
    least: 0,
    turns: KnobKind::Hosts,
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob {
            name: "steps",
            about: "what each node does under faults",
            default: 40,
            least: 1,
            turns: KnobKind::Work,
        },
        Knob {
            name: "seconds",
            about: "how long faults are drawn over",
            default: 40,
            least: 5,
            turns: KnobKind::Length,
        },
        HOMES,
        INSIDERS,
    ],
    faults: FaultKind::ALL,
    points: nurl::rt::POINTS,
    marks: &[
        Mark::new("a handle died with its process"),
        Mark::new("a message's end was never heard"),
        Mark::new("a job was forwarded"),
        Mark::new("a job ran twice and was recorded once"),
        Mark::new("a suspect refutes"),
        Mark::new("who was held dead is alive again"),
        Mark::new("a path was given up, and direct again later"),
    ],
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "swarm",
        "everything at once: boxes, hubs, jobs, state and messages under every kind of fault",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(60);

/// The mesh recovers from healed faults within this: hubs are found again within 30 s, dead members are probed
/// every 30 s, and a clock that was set back delays handshakes for as long as its step.
const WELL: Duration = Duration::from_secs(180);

/// A message that is sent after recovery arrives within this.
const ARRIVES: Duration = Duration::from_secs(10);

/// A read asks all owners, for five seconds at most, and one that isn't answered is made again.
const READ: Duration = Duration::from_secs(10);

/// A job that is submitted after recovery has its result within this: one attempt is lost at most.
const SERVED: Duration = Duration::from_secs(15);

/// Runs the scenario.
pub(super) async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let (cluster, behaviours) = mesh(world, trial.knob("homes"));
    cluster.converge(MEET).await?;

    let applications = Arc::new(Applications::new(world, &cluster));
    let steps = trial.knob("steps");
    let actors: Vec<_> = (0..cluster.peers.len())
        .map(|number| {
            task::spawn(receive(applications.clone(), number));
            task::spawn(act(applications.clone(), number, steps))
        })
        .collect();
    let span = Duration::from_secs(trial.knob("seconds"));
    for number in 1..=trial.knob("insiders") {
        let insider = Insider::start(world, &cluster, &format!("insider {number}"));
        let mischief = Mischief::new(world, &cluster, insider, COUNTER);
        drop(task::spawn(mischief.until(world.elapsed() + span)));
    }
    trial.start_faults(&cluster.targets(), span);
    world.sleep(span).await;
    trial.heal().await;

    let mut ends = Vec::new();
    for actor in actors {
        match time::timeout(WELL, actor).await {
            Ok(Ok(handles)) => ends.extend(handles),
            Ok(Err(error)) => return Err(Violation::safety("nothing panics", error.to_string())),
            Err(_) => return Err(Violation::liveness("every call ends", "a node's calls did not")),
        }
    }
    cluster.converge(WELL).await?;
    for (number, peer) in cluster.peers.iter().enumerate() {
        if cluster.witness.has_lost_store(&peer.name) {
            applications.books().ledger.lost_disk(number, &[]);
        }
    }
    let mut results = 0;
    for end in ends {
        let left = LIFE + Duration::from_secs(5);
        match time::timeout(left, end).await {
            Ok(Ok(result)) => results += u32::from(result),
            Ok(Err(error)) => return Err(Violation::safety("nothing panics", error.to_string())),
            Err(_) => return Err(Violation::liveness("every job's handle resolves in time", "one did not")),
        }
    }
    let mut jobs = Jobs::new(&cluster);
    for peer in &cluster.peers {
        jobs.submit(peer, "slow", &format!("of {}, when all is well", peer.name)).await?;
    }
    let well = jobs.settle(SERVED).await?;
    let all: Vec<_> = cluster.running().collect();
    let held =
        cluster.agreed("replicas that can talk agree", WELL, &[(Kind::Counter, COUNTER)], &all).await?;
    let sum = copies::sum(held[0].as_ref());
    let agreed = applications.books().ledger.agree(sum);
    agreed.map_err(|seen| Violation::safety("acknowledged increments count once", seen))?;
    let deadline = Deadline::new(world, "all read what the owners hold", READ);
    while deadline.still_missing(wrong_readings(&applications, sum).await).await? {}
    let deadline = Deadline::new(world, "messages pass between all", ARRIVES);
    send_to_all_pairs(&applications).await?;
    while deadline.still_missing(missing_messages(&applications)).await? {}
    let deadline = Deadline::new(world, "each path is direct exactly where the oracle says so", WELL);
    while deadline.still_missing(wrong_paths(&cluster, &behaviours).await).await? {}
    cluster.inspect().await?;
    let runs = cluster.witness.runs().len();
    let (counted, sent) = {
        let books = applications.books();
        (books.ledger.counted().iter().sum::<u64>(), books.messages)
    };
    let mut state = cluster.views().await;
    state += &paths(&cluster).await;
    state += &format!("{results} results under faults, {well} when all was well\n{counted} increments\n");
    Ok(Passed { state, notes: format!("{runs} runs, {sent} messages\n") })
}

/// The nodes that read another sum.
async fn wrong_readings(applications: &Applications, sum: i128) -> Vec<String> {
    let mut wrong = Vec::new();
    for peer in &applications.peers {
        let read = peer.node(&applications.world).await.counter(COUNTER).get().await;
        if !matches!(read, Ok(read) if read == sum) {
            wrong.push(format!("{} reads {read:?}, not {sum}", peer.name));
        }
    }
    wrong
}
