//! Free tasks on workers of different speeds: a slow one holds up nobody, and a killed one costs what it had.
//!
//! Of four workers, each with four lanes, the first takes thirty times as long as the others. A client gives them 120 tasks
//! that any of them may run, over links that lose packets. All of them together could do the work in `IDEAL`; the client has its
//! results within 1.3 times that. In a second act one of the fast workers dies; what it had runs elsewhere, and the
//! bound is that of the others, with the time until its silence is noticed. Each task has one outcome.
//!
//! Negative control: tasks of a kind with effects, in the third act, are never run twice, though those of the slow worker
//! are then waited for.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;

use nurl::internals::compute::job::KindLimits;
use nurl::internals::node::Role;
use nurl::rt::time;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Jobs};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a slow task was run a second time elsewhere"),
        Mark::new("a worker died with free tasks"),
    ],
    ..Scenario::new(
        "uneven",
        "tasks that any worker may run are done in time though one worker is slow and another dies",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 4;
const LANES: usize = 4;
const TASKS: usize = 120;

const PURE: &str = "pure";
const EFFECTS: &str = "with effects";

const TAKES: Duration = Duration::from_secs(1);
const SLOWER: u32 = 30;

/// The number of tasks divided by the sum of the speeds, for a number of fast workers and the slow one.
fn ideal(fast: usize) -> Duration {
    TAKES.mul_f64(TASKS as f64 / (LANES as f64 * (fast as f64 + 1.0 / f64::from(SLOWER))))
}

/// What the bound allows beyond the ideal: the slow worker's tasks run again, and rounds aren't full.
const BEYOND: f64 = 1.3;

/// A dead worker's silence, the back-off after it, and its tasks once more.
const DEATH: Duration = Duration::from_secs(6);

const MEET: Duration = Duration::from_secs(30);

const IN_TIME: &str = "free tasks end within 1.3 times the work divided by the speeds";
const ONCE: &str = "a task with effects isn't run twice while its worker lives";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let cluster = Stage::new(world)
        .links(LinkConfig { udp_loss: Rate::percent(1), ..link_ms(15, 5) })
        .hub("hub")
        .workers(WORKERS)
        .member("client")
        .configure(|builder, setup| {
            if setup.role != Role::Worker {
                return builder;
            }
            let takes = if setup.number == 0 { TAKES * SLOWER } else { TAKES };
            [(PURE, true), (EFFECTS, false)].into_iter().fold(builder, |builder, (kind, pure)| {
                let (by, witness) = (setup.name.clone(), setup.witness.clone());
                let limits = KindLimits { concurrency: LANES, pure, ..KindLimits::default() };
                builder.handler_with(kind, limits, move |_, payload| {
                    let (by, witness) = (by.clone(), witness.clone());
                    async move {
                        witness.record_run(&by, &payload);
                        time::sleep(takes).await;
                        Ok(payload)
                    }
                })
            })
        })
        .meet(MEET)
        .await?;
    let client = cluster.peers[WORKERS].clone();

    let first = act(&cluster, PURE, "even", None, ideal(WORKERS - 1).mul_f64(BEYOND)).await?;
    sometimes!(
        cluster.metric(&client, "job.run_once_more").await > 0,
        "a slow task was run a second time elsewhere"
    );

    let third =
        act(&cluster, EFFECTS, "effects", None, ideal(WORKERS - 1).mul_f64(BEYOND) + TAKES * SLOWER).await?;
    let runs = cluster.witness.runs_per_job();
    if let Some((name, runs)) = runs.iter().find(|(name, runs)| name.starts_with("effects") && **runs != 1) {
        return Err(Violation::safety(ONCE, format!("{name} was run {runs} times")));
    }

    let after = Duration::from_millis(500 + world.rng("death").next_u64() % 5_000);
    let bound = ideal(WORKERS - 2).mul_f64(BEYOND) + DEATH;
    let second = act(&cluster, PURE, "death", Some(after), bound).await?;
    let state = format!("three times {TASKS} tasks, each with its result\n");
    let notes = format!("{first:?}, with effects {third:?}, with a death {second:?}\n");
    Ok(Passed { state, notes })
}

/// Submits all tasks of an act, kills a fast worker after a while if that is asked for, and returns how long the act took.
async fn act(
    cluster: &Cluster,
    kind: &str,
    name: &str,
    death: Option<Duration>,
    within: Duration,
) -> Result<Duration, Violation> {
    let (world, client) = (cluster.world(), &cluster.peers[WORKERS]);
    let begun = world.elapsed();
    let mut jobs = Jobs::new(cluster);
    for number in 0..TASKS {
        jobs.submit_anywhere(client, kind, &format!("{name} {number:03}")).await?;
    }
    if let Some(after) = death {
        world.sleep(after).await;
        let victim = &cluster.peers[1];
        sometimes!(cluster.metric(victim, "job.executing").await > 0, "a worker died with free tasks");
        victim.host.crash();
    }
    let left = (begun + within).saturating_sub(world.elapsed());
    let settled = jobs.settle(left).await;
    settled
        .map_err(|broken| Violation::liveness(IN_TIME, format!("{name}, within {within:?}: {broken:?}")))?;
    Ok(world.elapsed() - begun)
}
