//! No double side effect across split ownership.
//!
//! Three owners, a submitter and a resource that keeps its leases and effects on disk. Links lose, duplicate and
//! reorder, and owners send every question several times. Each of three rounds has some tasks under way on two
//! keys. The owner that runs most of them is cut off from all nodes but the resource, or restarts from its disk;
//! meanwhile the resource may be killed at a drawn disk operation. The submitter turns to another owner while the
//! first one continues: two nodes act for one key, under two tokens, and reach the resource in either order, or
//! at once.
//!
//! Every handle gets the outcome of the run whose effect was made. According to the resource's disk, every effect
//! was made exactly once, and none under a lower token than one admitted before it. An owner that restarts from
//! its disk never shows a token that it had before. All answers of the lease are those of one
//! [fenced register](crate::history).
//!
//! Negative control: the scenario counts the handler runs that asked for an effect. Some tasks have several:
//! without the lease, each run would have made the effect.

mod messages;
mod owner;
mod resource;

use std::time::Duration;

use bytes::Bytes;
use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::internals::compute::job::{SubmitOptions, TaskId};
use nurl::internals::compute::pool::JobContext;
use nurl::internals::node::Role;
use rand_core::Rng as _;

use self::owner::Owners;
use self::resource::{LeaseServer, ResourceLog};
use crate::cluster::{Cluster, Peer, secret, text};
use crate::history::register::Register;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob {
            name: "rounds",
            about: "faults, one after the other",
            default: 3,
            least: 1,
            turns: KnobKind::Work,
        },
        Knob { name: "tasks", about: "tasks of each round", default: 6, least: 1, turns: KnobKind::Work },
    ],
    marks: &[
        Mark::new("without the lease an effect would have happened twice"),
        Mark::new("two owners ask for one task"),
        Mark::new("the stale owner came first"),
        Mark::new("the stale owner came last"),
        Mark::new("a stale owner is fenced"),
        Mark::new("an effect is fenced at its commit"),
        Mark::new("a task is asked for while it is in progress"),
        Mark::new("an outcome is given again after a restart"),
        Mark::new("an owner restarts from its disk and takes a higher tenure"),
    ],
    ..Scenario::new(
        "fence",
        "two owners act for one key, under loss, across restarts: no effect happens twice",
        |trial| Box::pin(run(trial)),
    )
};

const SUBMITTER: usize = 0;
const RESOURCE: usize = 1;
const OWNERS: usize = 3;

/// Number of keys that the tasks use.
const KEYS: u64 = 2;

const MEET: Duration = Duration::from_secs(30);

/// The longest time from the submit to the fault: the tasks are accepted and on their way to the resource by
/// then.
const BEFORE_MS: u64 = 3_000;

/// How long an owner is cut off: the submitter turns to another owner after 3.5 s of silence, and that owner asks
/// for 1 s.
const CUT: Duration = Duration::from_secs(9);

/// Downtime of a restarted machine.
const DOWN: Duration = Duration::from_secs(2);

/// A kill of the resource comes within this many disk operations; a transaction has about ten.
const WITHIN_OPS: u64 = 60;

/// How long after the last fault everything is settled.
const SETTLE: Duration = Duration::from_secs(60);

/// Runs the rounds.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let log = ResourceLog::default();
    let owners = Owners::new(world, log.clone());
    let handlers = owners.clone();
    let cluster = Stage::new(world)
        .links(LinkConfig {
            udp_loss: Rate::percent(10),
            tcp_loss: Rate::percent(1),
            duplicate: Rate::percent(10),
            ..link_ms(15, 30)
        })
        .hub("hub")
        .member("submitter")
        .member("resource")
        .workers(OWNERS)
        .configure(move |builder, setup| {
            if setup.role == Role::Member {
                return builder;
            }
            let (owners, number) = (handlers.clone(), setup.number);
            let handler = move |context: JobContext, _: Bytes| owners.clone().effect(number, context);
            with_store(builder, "/node").handler("effect", handler)
        })
        .start();
    owners.meet(&cluster.peers, RESOURCE);
    cluster.converge(MEET).await?;
    start_resource(&world, &cluster.peers[RESOURCE], &log).await;

    let mut rounds = Rounds { trial: &trial, cluster: &cluster, log: &log, tasks: Vec::new() };
    for round in 0..trial.knob("rounds") {
        rounds.round(round).await?;
    }
    rounds.check_effects().await
}

/// Starts the resource in its host's present process.
async fn start_resource(world: &World, peer: &Peer, log: &ResourceLog) {
    let (node, log) = (peer.node(world).await, log.clone());
    peer.host.run(async move {
        // A store error here is the disk crash that was armed.
        if let Ok(leased) = LeaseServer::open(node, log) {
            leased.serve().await;
        }
    });
}

struct Rounds<'a> {
    trial: &'a Trial,
    cluster: &'a Cluster,
    log: &'a ResourceLog,
    tasks: Vec<TaskId>,
}

impl Rounds<'_> {
    async fn round(&mut self, round: u64) -> Result<(), Violation> {
        let (world, cluster) = (self.trial.world, self.cluster);
        let mut draws = world.rng("rounds");
        let submitter = cluster.peers[SUBMITTER].node(&world).await;
        let mut handles = Vec::new();
        for number in 0..self.trial.knob("tasks") {
            let key = format!("account-{}", draws.next_u64() % KEYS);
            let payload = secret(&format!("round {round}, task {number}"));
            let options = SubmitOptions { life: Duration::from_secs(180), ..SubmitOptions::default() };
            match submitter.submit("effect", key.as_bytes(), payload, options).await {
                Ok(task) => handles.push(task),
                Err(error) => return Err(Violation::safety("a node takes a job", error.to_string())),
            }
        }
        self.tasks.extend(handles.iter().map(nurl::internals::node::Task::id));
        world.sleep(Duration::from_millis(draws.next_u64() % BEFORE_MS)).await;

        let resource = &cluster.peers[RESOURCE];
        if draws.next_u32() % 3 == 0 {
            resource.host.crash_at_disk_op(1 + draws.next_u64() % WITHIN_OPS);
        }
        let busiest =
            cluster.peers[RESOURCE + 1..].iter().max_by_key(|peer| cluster.witness.running(&peer.name));
        let victim = busiest.expect("there are owners").host;
        if draws.next_u32() % 3 == 0 {
            victim.power_loss();
            world.sleep(DOWN).await;
            victim.restart();
        } else {
            let others = cluster.peers.iter().map(|peer| peer.host).chain([cluster.hubs[0].host]);
            let others: Vec<Host> = others.filter(|host| *host != victim && *host != resource.host).collect();
            world.partition(&[victim], &others);
            world.sleep(CUT).await;
            world.heal();
        }
        // Unless the armed crash has already hit the resource, it may lose its power instead.
        if resource.host.is_running() && draws.next_u32() % 4 == 0 {
            resource.host.power_loss();
        }
        if !resource.host.is_running() {
            world.sleep(DOWN).await;
            resource.host.restart();
            start_resource(&world, resource, self.log).await;
        }
        let until = world.elapsed() + SETTLE;
        for handle in handles {
            let task = handle.id();
            // An armed crash may still hit: then restart the machine, as an operator would.
            let mut outcome = Box::pin(cluster.witness.outcome(&cluster.peers[SUBMITTER].name, handle));
            let ended = loop {
                let soon = nurl::rt::time::timeout(DOWN, outcome.as_mut()).await;
                match soon {
                    Ok(ended) => break ended,
                    Err(_) if world.elapsed() > until => {
                        let seen = format!("{task} has no end {SETTLE:?} after the last fault");
                        return Err(Violation::liveness("every job's handle resolves in time", seen));
                    }
                    Err(_) if !resource.host.is_running() => {
                        resource.host.restart();
                        start_resource(&world, resource, self.log).await;
                    }
                    Err(_) => {}
                }
            };
            let made = self.log.outcome(task);
            match ended {
                Ok(outcome) if Some(text(&outcome)) == made => {}
                other => {
                    let seen = format!("{task} came back as {other:?}, its effect had the outcome {made:?}");
                    return Err(Violation::safety("a handle gets the outcome of the effect", seen));
                }
            }
        }
        Ok(())
    }

    /// Reads from the disk how often each effect was made.
    async fn check_effects(self) -> RunResult {
        let Rounds { trial, cluster, log, tasks } = self;
        let resource = &cluster.peers[RESOURCE];
        resource.host.restart();
        let node = resource.node(&trial.world).await;
        let (again, asked) = (log.clone(), tasks.clone());
        let counts = resource.host.run(async move {
            let leased = LeaseServer::open(node, again)?;
            asked.iter().map(|task| leased.times(*task)).collect::<Result<Vec<_>, _>>()
        });
        let counts = match counts.await {
            Ok(Ok(counts)) => counts,
            Ok(Err(error)) => {
                return Err(Violation::safety("the resource's disk can be read", error.to_string()));
            }
            Err(error) => {
                return Err(Violation::safety("the resource's disk can be read", error.to_string()));
            }
        };
        if let Some((task, count)) = tasks.iter().zip(&counts).find(|(_, count)| **count != 1) {
            return Err(Violation::safety("an effect is made once", format!("{count} times for {task}")));
        }
        log.history().check(&Register::new())?;
        let doubled = log.doubled();
        sometimes!(doubled > 0, "without the lease an effect would have happened twice");
        cluster.inspect().await?;
        let mut state = String::new();
        let per_round = trial.knob("tasks") as usize;
        for (number, task) in tasks.iter().enumerate() {
            let (round, number) = (number / per_round, number % per_round);
            let Some(maker) = log.maker(*task) else {
                let seen = format!("round {round}, task {number} has an effect that nobody asked for");
                return Err(Violation::safety("an effect is an owner's", seen));
            };
            let maker = cluster.name_of(&maker);
            state += &format!("round {round}, task {number}: one effect, by {maker}\n");
        }
        let notes = format!("{doubled} of them would have been made more than once without the lease\n");
        Ok(Passed { state, notes })
    }
}
