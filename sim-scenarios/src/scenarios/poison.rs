//! Tasks that are lost with their workers, that wait for one, and that are given back.
//!
//! Five workers, a member that submits, an observer that submits, and a hub.
//!
//! **Poison.** A task kills each worker that runs it, by a crash, a loss of power or a crash with a restart at
//! once. After as many losses as it is allowed (drawn: one to three) it is a dead letter that names those
//! workers, and no further worker is lost. This holds both if the observer submits it, which hears of no deaths,
//! and if the member does. Other jobs continue meanwhile.
//!
//! **Away.** The only worker of a kind is away for 20 s. The kind's tasks wait for it and have their results soon
//! after it is back. Negative control: a kind that no worker has is infeasible within seconds.
//!
//! **Drain.** A worker drains while it runs long tasks. The tasks that it gives back start elsewhere at once,
//! long before its silence would have been noticed, and count as no loss.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::PublicKey;
use nurl::internals::compute::job::{JobError, SubmitOptions, WaitReason};
use nurl::internals::node::{Role, Task};
use nurl::rt::{task, time};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer, secret, text};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a task waited for verdicts on those that had fallen silent with it"),
        Mark::new("a task said that every worker of its kind is away"),
        Mark::new("a draining worker gave back a task half-way"),
    ],
    time_limit: Duration::from_secs(15 * 60),
    ..Scenario::new(
        "poison",
        "a task kills its workers, a kind's only worker is away, a worker drains: three are lost, nothing else",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 5;

const LIMITED: &str = "a task is lost with no more workers than it may be";
const OTHERS_DONE: &str = "the tasks of others have their results while one kills workers";
const LETTER: &str = "a task that kills its workers is a dead letter that names them";
const WAITS: &str = "tasks wait for the only worker of their kind";
const INFEASIBLE: &str = "a kind that nobody has is infeasible";
const AT_ONCE: &str = "what a draining worker gives back starts elsewhere at once";

const MEET: Duration = Duration::from_secs(60);

/// A death is known everywhere within this.
const LEARN: Duration = Duration::from_secs(90);

/// Number of tasks that are under way besides the poison task.
const OTHERS: usize = 6;

/// A poison task becomes a dead letter within this: three losses, each with its silence and its verdict.
const FOUND_OUT: Duration = Duration::from_secs(200);

/// A job of a dead worker is done by another one within this.
const TAKE_OVER: Duration = Duration::from_secs(60);

/// How long the only worker of a kind is away.
const AWAY: Duration = Duration::from_secs(20);

/// The number of tasks that wait for it, and the time to complete them after its return.
const RARE: usize = 12;
const DONE: Duration = Duration::from_secs(30);

/// How long handlers on a draining worker may continue.
const DRAIN: Duration = Duration::from_secs(2);

/// Time from a hand-back to the next start: a few messages, and the second in which owners are asked. Three
/// missed beats take 3.5 s.
const STARTS: Duration = Duration::from_millis(1_500);

/// Tasks that run when the worker drains: at most a worker's concurrency, so that none waits in a queue.
const LONG: usize = 4;

/// The starts of handlers, in order.
#[derive(Debug, Clone, Default)]
struct StartLog(Arc<Mutex<Vec<HandlerStart>>>);

#[derive(Debug, Clone)]
struct HandlerStart {
    job: String,
    by: PublicKey,
}

impl StartLog {
    fn record(&self, job: &Bytes, by: PublicKey) {
        let start = HandlerStart { job: text(job), by };
        lock(&self.0).push(start);
    }

    /// The starts of a job.
    fn of(&self, job: &str) -> Vec<HandlerStart> {
        let all = lock(&self.0);
        all.iter().filter(|start| start.job == job).cloned().collect()
    }
}

/// Runs the three acts in one world.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let log = StartLog::default();
    let cluster = start(world, &log);
    cluster.converge(MEET).await?;
    let (member, observer) = (&cluster.peers[WORKERS], &cluster.peers[WORKERS + 1]);
    let mut state = String::new();
    let mut notes = String::new();
    for (from, number) in [(observer, 0), (member, 1)] {
        let (limit, found) = poison_act(&trial, &cluster, &log, from, number).await?;
        state += &format!("poison from {}: lost with {limit} as allowed, others' jobs done\n", from.name);
        notes += &format!("poison from {}: found out after {found:?}\n", from.name);
        for peer in cluster.peers.iter().filter(|peer| !peer.host.is_running()) {
            peer.host.restart();
        }
        cluster.converge(LEARN).await?;
    }
    state += &away_act(world, &cluster, member).await?;
    state += &drain_act(world, &cluster, &log, member).await?;
    cluster.converge(LEARN).await?;
    cluster.inspect().await?;
    Ok(Passed { state: state + &cluster.views().await, notes })
}

fn start(world: World, log: &StartLog) -> Cluster {
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub");
    let stage = stage.workers(WORKERS).member("member").observer("observer");
    let log = log.clone();
    let stage = stage.configure(move |builder, setup| {
        if setup.role != Role::Worker {
            return builder;
        }
        // A node's key isn't known where the node is built, but its number is.
        let (log, number) = (log.clone(), setup.number);
        let endless = move |_, job: Bytes| {
            log.record(&job, key_of_number(number));
            async move {
                time::sleep(Duration::from_secs(3_600)).await;
                Ok(job)
            }
        };
        let builder = builder.handler("endless", endless);
        let rare = |_, job: Bytes| async move { Ok(job) };
        if setup.number == 0 { builder.handler("rare", rare) } else { builder }
    });
    stage.start()
}

/// A placeholder in the log for the key of the node with this number.
fn key_of_number(number: usize) -> PublicKey {
    PublicKey::from_bytes([u8::try_from(number).expect("few nodes"); 32])
}

async fn submit(world: World, from: &Peer, kind: &str, name: &str, options: SubmitOptions) -> Task {
    let node = from.node(&world).await;
    node.submit(kind, name.as_bytes(), secret(name), options).await.expect("there is room for it")
}

// ---- Poison.

/// Submits a task and kills each worker that runs it. Returns how many losses it was allowed, and when it ended.
async fn poison_act(
    trial: &Trial,
    cluster: &Cluster,
    log: &StartLog,
    from: &Peer,
    number: u32,
) -> Result<(usize, Duration), Violation> {
    let world = trial.world;
    let mut draws = world.rng(&format!("poison {number}"));
    let limit = 1 + draws.next_u32() % 3;
    let (name, begun) = (format!("poison {number}"), world.elapsed());
    let mut others = Vec::new();
    for other in 0..OTHERS {
        // A task that runs beside the poison each time looks like poison itself, so it has no limit here.
        let options = SubmitOptions { max_losses: u32::MAX, ..SubmitOptions::default() };
        let job = format!("beside {name}: {other}");
        let task = submit(world, &cluster.peers[WORKERS], "slow", &job, options).await;
        let (witness, by) = (cluster.witness.clone(), cluster.peers[WORKERS].name.clone());
        others.push((secret(&job), task::spawn(async move { witness.outcome(&by, task).await })));
    }
    let options = SubmitOptions { max_losses: limit, ..SubmitOptions::default() };
    let task = submit(world, from, "endless", &name, options).await;
    let (witness, by) = (cluster.witness.clone(), from.name.clone());
    let end = task::spawn(async move { witness.waits_and_outcome(&by, task).await });
    let mut killed: Vec<&Peer> = Vec::new();
    let deadline = Deadline::new(world, LETTER, FOUND_OUT);
    while !end.is_finished() {
        for start in log.of(&name).iter().skip(killed.len()).map(|start| start.by).collect::<Vec<_>>() {
            let victim = cluster.peers.iter().find(|peer| key_in_log(cluster, peer) == start);
            let victim = victim.expect("workers run tasks");
            world.sleep(Duration::from_millis(u64::from(draws.next_u32() % 1_500))).await;
            match draws.next_u32() % 3 {
                0 => victim.host.crash(),
                1 => victim.host.power_loss(),
                _ => victim.host.restart(),
            }
            killed.push(victim);
        }
        if killed.len() > limit as usize {
            return Err(Violation::safety(LIMITED, format!("{name}: {} were killed", killed.len())));
        }
        deadline.still_missing(vec![format!("the end of {name}")]).await?;
    }
    let (waits, outcome) = end.await.expect("it has no reason to panic");
    let names = killed.iter().map(|peer| peer.key.short()).collect::<Vec<_>>().join(", ");
    if outcome != Err(JobError::Lost { workers: limit, names: names.clone() }) {
        return Err(Violation::safety(LETTER, format!("{name}, of {names}: {outcome:?}")));
    }
    sometimes!(
        waits.contains(&WaitReason::Verdict),
        "a task waited for verdicts on those that had fallen silent with it"
    );
    let found = world.elapsed() - begun;
    for (job, other) in others {
        let outcome = time::timeout(TAKE_OVER, other).await;
        if !matches!(&outcome, Ok(Ok(Ok(result))) if *result == job) {
            return Err(Violation::liveness(OTHERS_DONE, format!("{}: {outcome:?}", text(&job))));
        }
    }
    if log.of(&name).len() > limit as usize {
        return Err(Violation::safety(LIMITED, format!("{name} began {} times", log.of(&name).len())));
    }
    Ok((limit as usize, found))
}

fn key_in_log(cluster: &Cluster, peer: &Peer) -> PublicKey {
    key_of_number(cluster.peers.iter().position(|other| other.key == peer.key).expect("one of the cluster"))
}

// ---- Away.

/// The only worker of a kind is away for a while.
async fn away_act(world: World, cluster: &Cluster, from: &Peer) -> Result<String, Violation> {
    let only = &cluster.peers[0];
    if world.rng("away").next_u32().is_multiple_of(2) {
        only.host.power_loss();
    } else {
        only.host.crash();
    }
    let mut ends = Vec::new();
    for number in 0..RARE {
        let task = submit(world, from, "rare", &format!("rare {number}"), SubmitOptions::default()).await;
        let (witness, by) = (cluster.witness.clone(), from.name.clone());
        ends.push(task::spawn(async move { witness.waits_and_outcome(&by, task).await }));
    }
    let nobodys = submit(world, from, "nobody's", "nobody's", SubmitOptions::default()).await;
    let nobodys = time::timeout(AWAY / 2, cluster.witness.outcome(&from.name, nobodys)).await;
    if !matches!(&nobodys, Ok(Err(JobError::Infeasible(_)))) {
        return Err(Violation::safety(INFEASIBLE, format!("{nobodys:?}")));
    }
    world.sleep(AWAY / 2).await;
    if let Some(number) = ends.iter().position(task::JoinHandle::is_finished) {
        return Err(Violation::safety(WAITS, format!("rare {number} has ended before its worker is back")));
    }
    only.host.restart();
    let deadline = Deadline::new(world, WAITS, DONE);
    loop {
        let open = ends.iter().enumerate().filter(|(_, end)| !end.is_finished());
        if !deadline.still_missing(open.map(|(number, _)| format!("rare {number}")).collect()).await? {
            break;
        }
    }
    for (number, end) in ends.into_iter().enumerate() {
        let (waits, outcome) = end.await.expect("it has no reason to panic");
        sometimes!(waits.contains(&WaitReason::Away), "a task said that every worker of its kind is away");
        if outcome != Ok(secret(&format!("rare {number}"))) {
            return Err(Violation::safety(WAITS, format!("rare {number} came back as {outcome:?}")));
        }
    }
    cluster.converge(LEARN).await?;
    Ok(format!(
        "{RARE} tasks waited for the only worker of their kind; a kind that nobody has is infeasible\n"
    ))
}

// ---- Drain.

/// The worker with the most long tasks drains.
async fn drain_act(
    world: World,
    cluster: &Cluster,
    log: &StartLog,
    from: &Peer,
) -> Result<String, Violation> {
    let names: Vec<_> = (0..LONG).map(|number| format!("long {number}")).collect();
    let mut ids = Vec::new();
    for name in &names {
        // One loss would end the task.
        let options = SubmitOptions { max_losses: 1, ..SubmitOptions::default() };
        ids.push(submit(world, from, "endless", name, options).await.id());
    }
    world.sleep(Duration::from_secs(3)).await;
    let busiest =
        cluster.peers[..WORKERS].iter().max_by_key(|peer| (cluster.witness.running(&peer.name), peer.key));
    let busiest = busiest.expect("there are workers");
    let has =
        |name: &&String| log.of(name).last().is_some_and(|last| last.by == key_in_log(cluster, busiest));
    let there: Vec<_> = names.iter().filter(has).collect();
    let node = busiest.node(&world).await;
    let drained = node.drain(DRAIN).await;
    let given_back = world.elapsed();
    sometimes!(!there.is_empty(), "a draining worker gave back a task half-way");
    let expected = there.len() as u64;
    if !drained.as_ref().is_ok_and(|drained| (drained.finished, drained.handed_back) == (0, expected)) {
        return Err(Violation::safety(AT_ONCE, format!("{expected} tasks, but {drained:?}")));
    }
    // Before the worker leaves, which would restart the tasks as well.
    world.sleep(STARTS).await;
    for name in &there {
        let starts = log.of(name);
        if starts.len() != 2 {
            return Err(Violation::safety(AT_ONCE, format!("given back at {given_back:?}: {starts:?}")));
        }
    }
    node.shutdown().await;
    busiest.host.crash();
    world.sleep(LEARN).await;
    let node = from.node(&world).await;
    for id in ids {
        // Each task is still open: none was lost.
        if !node.cancel(id).await.is_ok_and(|open| open) {
            return Err(Violation::safety(AT_ONCE, format!("{id} has ended")));
        }
    }
    Ok("what the draining worker had was begun elsewhere at once, and is open\n".to_owned())
}
