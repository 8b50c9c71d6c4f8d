//! Membership converges under loss.
//!
//! Eight nodes and a hub. 30 % of all UDP datagrams and 5 % of all TCP segments are lost, jitter reorders
//! what is left. All find each other; jobs are under way when one node crashes; all others learn it, its
//! jobs move, and nobody healthy is ever declared dead.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use nurl::compute::job::SubmitOptions;

use crate::cluster::{Cluster, secret};

const RESULTS: &str = "every job has its own result, and somebody has run it";
const HEALTHY: &str = "nobody healthy is held dead";

/// Nodes.
const NODES: usize = 8;

/// The one that crashes.
const VICTIM: usize = 3;

/// Jobs under way when it does.
const JOBS: usize = 24;

/// All find each other within this: a push-pull or two over a relay that loses segments.
const MEET: Duration = Duration::from_secs(90);

/// A death is known everywhere within this: the longest suspicion, and the time to spread it.
const LEARN: Duration = Duration::from_secs(60);

fn lossy(tcp_percent: u32) -> LinkConfig {
    LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(30),
        udp_loss: Rate::percent(30),
        tcp_loss: Rate::percent(tcp_percent),
        duplicate: Rate::percent(1),
        ..LinkConfig::default()
    }
}

/// 30 % of UDP, 5 % of TCP: everything is asserted.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(lossy(5));
    let cluster = Cluster::start(world, NODES);
    cluster.converge(MEET).await?;
    let victim = &cluster.peers[VICTIM];
    let submitter = cluster.peers[0].node(&world).await;
    let mut tasks = Vec::new();
    for number in 0..JOBS {
        let name = format!("job {number:02}");
        let options = SubmitOptions { life: Duration::from_secs(120), ..SubmitOptions::default() };
        let task = submitter.submit("slow", name.as_bytes(), secret(&name), options).await;
        let refused = |error| Broken::safety(RESULTS, format!("a submit was refused: {error}"));
        tasks.push((name, task.map_err(refused)?));
    }
    world.sleep(Duration::from_millis(700)).await;
    victim.host.power_loss();
    let mut outcomes = Vec::new();
    for (name, task) in tasks {
        let failed = |error| Broken::safety(RESULTS, format!("{name} failed: {error}"));
        let outcome = task.outcome().await.map_err(failed)?;
        if outcome != secret(&name) {
            return Err(Broken::safety(RESULTS, format!("{name} came back as {outcome:?}")));
        }
        outcomes.push(name);
    }
    cluster.converge(LEARN).await?;
    for (by, about) in cluster.witness.held_dead() {
        if about != victim.key {
            let seen = format!("{by} held {} dead", cluster.name_of(&about));
            return Err(Broken::safety(HEALTHY, seen));
        }
    }
    let ran = cluster.witness.runs_per_job();
    if let Some(name) = outcomes.iter().find(|name| !ran.contains_key(*name)) {
        return Err(Broken::safety(RESULTS, format!("{name} has a result, but nobody ran it")));
    }
    let state = format!("{}{} of {JOBS} jobs have their result\n", cluster.views().await, outcomes.len());
    let moved = cluster.witness.runs().iter().filter(|ran| ran.by != victim.name).count();
    let twice = ran.values().map(|runs| runs - 1).sum::<usize>();
    Ok(Held { state, notes: format!("{moved} runs on living nodes, {twice} beyond the first of a job\n") })
}

/// 30 % on both legs: TCP over such a path stalls for seconds, so only what happened is told.
pub async fn run_hard(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(lossy(30));
    let cluster = Cluster::start(world, NODES);
    let met = cluster.converge(MEET).await;
    cluster.peers[VICTIM].host.power_loss();
    let learned = cluster.converge(LEARN).await;
    let told = |what: Result<(), Broken>| what.err().map_or_else(|| "yes".to_owned(), |broken| broken.seen);
    let healthy = cluster.witness.held_dead();
    let wrongly = healthy.iter().filter(|(_, about)| *about != cluster.peers[VICTIM].key).count();
    let notes = format!(
        "all met: {}\nall learned the death: {}\nhealthy nodes held dead: {wrongly} times\n",
        told(met),
        told(learned)
    );
    Ok(Held { state: String::new(), notes })
}
