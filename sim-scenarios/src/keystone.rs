//! A job completes across a partition, and across its owner's death.
//!
//! Six nodes and a hub. Three times, jobs are submitted whose owners are on the far side of a fault: a short
//! partition that heals before anybody is declared dead, a long one, and the owner's death. Every handle
//! resolves exactly once, with the right result; in the long partition before it heals, after the death
//! within 30 s of virtual time. Work that was done twice is counted and shown.

use std::time::Duration;

use bytes::Bytes;
use chaos::link::LinkConfig;
use chaos::world::{Host, World};
use nurl::compute::job::SubmitOptions;
use nurl::node::{Node, Task};

use crate::cluster::Cluster;
use chaos::scenario::Held;

type Verdict = Result<Held, String>;

const NODES: usize = 6;

/// Nodes from here on are beyond the partition, away from the hub.
const FAR: usize = 3;

/// Jobs of each act.
const JOBS: usize = 12;

const MEET: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(90);

/// The bound after a death, and before a long partition heals.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// Runs the three acts in one world.
pub async fn run(world: World) -> Verdict {
    world.link_default(LinkConfig {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(10),
        ..LinkConfig::default()
    });
    let cluster = Cluster::start(world, NODES);
    cluster.converge(MEET).await.map_err(|broken| broken.seen)?;
    let submitter = cluster.peers[0].node(&world).await;
    let near: Vec<Host> =
        cluster.peers[..FAR].iter().map(|peer| peer.host).chain([cluster.hubs[0].host]).collect();
    let far: Vec<Host> = cluster.peers[FAR..].iter().map(|peer| peer.host).collect();
    let mut text = String::new();

    // Jobs are on their way or running when the line is cut.
    let tasks = submit(&submitter, "short").await?;
    world.sleep(Duration::from_millis(100)).await;
    world.partition(&near, &far);
    world.sleep(SHORT).await;
    world.heal();
    text += &act(&world, "short partition", tasks, TAKE_OVER).await?;
    cluster.converge(LONG).await.map_err(|broken| broken.seen)?;

    let tasks = submit(&submitter, "long").await?;
    world.sleep(Duration::from_millis(100)).await;
    world.partition(&near, &far);
    let cut = world.elapsed();
    text += &act(&world, "long partition, before it heals", tasks, TAKE_OVER).await?;
    world.sleep((cut + LONG).saturating_sub(world.elapsed())).await;
    world.heal();
    cluster.converge(LONG).await.map_err(|broken| broken.seen)?;

    let tasks = submit(&submitter, "death").await?;
    world.sleep(Duration::from_millis(100)).await;
    cluster.peers[FAR].host.power_loss();
    text += &act(&world, "the owner's death", tasks, TAKE_OVER).await?;
    cluster.converge(LONG).await.map_err(|broken| broken.seen)?;

    let runs = cluster.witness.runs_per_job();
    let jobs = 3 * JOBS;
    if runs.len() != jobs {
        return Err(format!("{} of {jobs} jobs were run", runs.len()));
    }
    let twice = runs.values().map(|runs| runs - 1).sum::<usize>();
    let notes = format!("{twice} runs beyond the first of a job\n");
    Ok(Held { state: text + &cluster.views().await, notes })
}

async fn submit(node: &Node, act: &str) -> Result<Vec<(String, Task)>, String> {
    let mut tasks = Vec::new();
    for number in 0..JOBS {
        let name = format!("{act} {number:02}");
        let options = SubmitOptions { life: Duration::from_secs(120), ..SubmitOptions::default() };
        let task = node.submit("slow", name.as_bytes(), Bytes::from(name.clone()), options).await;
        tasks.push((name, task.map_err(|error| format!("a submit was refused: {error}"))?));
    }
    Ok(tasks)
}

/// Waits for every task, and checks that each handle resolves once, rightly and in time.
async fn act(
    world: &World,
    name: &str,
    tasks: Vec<(String, Task)>,
    limit: Duration,
) -> Result<String, String> {
    let begun = world.elapsed();
    let count = tasks.len();
    for (job, mut task) in tasks {
        let mut ends = 0;
        while let Some(event) = task.next().await {
            if let nurl::node::TaskEvent::Ended { outcome, .. } = event {
                ends += 1;
                let outcome = outcome.map_err(|error| format!("{name}: {job} failed: {error}"))?;
                if outcome != job.as_bytes() {
                    return Err(format!("{name}: {job} came back as {outcome:?}"));
                }
            }
        }
        if ends != 1 {
            return Err(format!("{name}: the handle of {job} resolved {ends} times"));
        }
    }
    let took = world.elapsed() - begun;
    if took > limit {
        return Err(format!("{name}: the last job came after {took:?}, the bound is {limit:?}"));
    }
    Ok(format!("{name}: {count} handles resolved once\n"))
}
