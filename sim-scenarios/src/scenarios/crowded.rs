//! Honest submitters fill a worker's queue, and each is served in its turn.
//!
//! A worker runs one job of a kind at a time, for a second each, and four may wait. One member submits ten at once: those
//! that find no place are told so and come again. Then another member, and an observer that has just started, each submit
//! one: a waiting job of the first makes room, and each starts when the running one ends. In the end all are done, each was run
//! once, and the queue was hardly ever idle.
//!
//! Negative control: the queue was full, and jobs gave way.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::compute::job::KindLimits;
use nurl::internals::node::Role;
use nurl::rt::time;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Jobs, Peer};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a submitter came while the queue was full"),
        Mark::new("a submitter came shortly before a job ended"),
    ],
    ..Scenario::new(
        "crowded",
        "one submitter fills a worker's queue: others have their turn at once, and all is done without a pause",
        |trial| Box::pin(run(trial)),
    )
};

const KIND: &str = "one at a time";
const TAKES: Duration = Duration::from_secs(1);
const LIMITS: KindLimits = KindLimits { concurrency: 1, queue: 4, time_limit: None, pure: false };
const MANY: usize = 10;

const MEET: Duration = Duration::from_secs(30);

/// A member's job waits for the one that runs and then runs; its messages take three round trips at most, of 40 ms.
const TURN: Duration = Duration::from_millis(2_120);

/// A newcomer joins before.
const NEWCOMERS_TURN: Duration = Duration::from_millis(3_000);

/// All together have a second each, and the queue may be idle for less than one: who waits comes again in time.
const ALL: Duration = Duration::from_secs(MANY as u64 + 2 + 1);

const OTHERS: &str = "who has less than others at a worker is served when the running job ends";
const DONE: &str = "who finds no place comes again, and a queue with waiting jobs is not idle";
const ONCE: &str = "a job that gave way is run once";
const FULL: &str = "the queue was full, and jobs gave way";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut cluster = Stage::new(world)
        .links(link_ms(15, 5))
        .hub("hub")
        .workers(1)
        .member("many")
        .member("few")
        .configure(|builder, setup| {
            let (by, witness, role) = (setup.name.clone(), setup.witness.clone(), setup.role);
            if role != Role::Worker {
                return builder;
            }
            builder.handler_with(KIND, LIMITS, move |_, payload| {
                let (by, witness) = (by.clone(), witness.clone());
                async move {
                    time::sleep(TAKES).await;
                    witness.record_run(&by, &payload);
                    Ok(payload)
                }
            })
        })
        .meet(MEET)
        .await?;
    let [worker, many, few] = [0, 1, 2].map(|number: usize| cluster.peers[number].clone());

    let begun = world.elapsed();
    let mut all = fill(&cluster, &many, 0).await?;
    let comes_after = Duration::from_millis(300 + world.rng("comes").next_u64() % 4_000);
    world.sleep(comes_after).await;
    let full = cluster.metric(&worker, "job.busy").await > 0;
    sometimes!(full, "a submitter came while the queue was full");
    let since = (comes_after.as_millis() % TAKES.as_millis()) as u64;
    sometimes!(since > 700, "a submitter came shortly before a job ended");
    served(world, &cluster, &few, "the few's", TURN).await?;
    let left = (begun + ALL).saturating_sub(world.elapsed());
    let settled = all.settle(left).await;
    settled.map_err(|broken| Violation::liveness(DONE, format!("{broken:?}")))?;
    let took = world.elapsed() - begun;
    let newcomer = cluster.add("newcomer", world.internet(), Role::Observer);
    let mut more = fill(&cluster, &many, MANY).await?;
    served(world, &cluster, &newcomer, "the newcomer's", NEWCOMERS_TURN).await?;
    more.settle(ALL).await?;

    let runs = cluster.witness.runs_per_job();
    if runs.len() != 2 * MANY + 2 || runs.values().any(|runs| *runs != 1) {
        return Err(Violation::safety(ONCE, format!("{runs:?}")));
    }
    let (busy, gave_way) =
        (cluster.metric(&worker, "job.busy").await, cluster.metric(&worker, "job.gave_way").await);
    if busy == 0 || gave_way == 0 {
        return Err(Violation::safety(FULL, format!("{busy} were refused, {gave_way} gave way")));
    }
    let state = format!("{} jobs in a queue of {}\n", runs.len(), LIMITS.queue);
    Ok(Passed { state, notes: format!("all took {took:?}; {busy} refused, {gave_way} gave way\n") })
}

/// Submits so many jobs, which are numbered from here.
async fn fill<'a>(cluster: &'a Cluster, by: &Peer, from: usize) -> Result<Jobs<'a>, Violation> {
    let mut jobs = Jobs::new(cluster);
    for number in from..from + MANY {
        jobs.submit(by, KIND, &format!("one of many {number}")).await?;
    }
    Ok(jobs)
}

/// Waits for the result of one job.
async fn served(
    world: World,
    cluster: &Cluster,
    by: &Peer,
    name: &str,
    within: Duration,
) -> Result<(), Violation> {
    let begun = world.elapsed();
    let mut jobs = Jobs::new(cluster);
    jobs.submit(by, KIND, name).await?;
    let done = jobs.settle(within).await;
    let took = world.elapsed() - begun;
    done.map(drop).map_err(|broken| Violation::liveness(OTHERS, format!("{name} after {took:?}: {broken:?}")))
}
