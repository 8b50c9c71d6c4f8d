//! Membership converges under loss and reordering.
//!
//! Eight nodes and a hub. 30 % of all UDP datagrams and 5 % of all TCP segments are lost, one packet of ten is
//! held back for half a second, and jitter reorders the rest. All nodes find each other. Jobs are under way when
//! one node crashes. All others learn of the crash, its jobs move, and no healthy node is ever declared dead.
//! [`converge_hard`](super::converge_hard) has harder links.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};

use crate::cluster::Jobs;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "converge",
    "8 nodes, 30 % UDP and 5 % TCP loss, reordering, one crash: all learn it, no healthy one is held dead",
    |trial| Box::pin(run(trial)),
);

const RESULTS: &str = "every job has its own result, and somebody has run it";
const HEALTHY: &str = "nobody healthy is held dead";

/// Nodes.
pub(super) const NODES: usize = 8;

/// The node that crashes.
pub(super) const VICTIM: usize = 3;

/// Jobs under way when it crashes.
const JOBS: usize = 24;

/// All find each other within this: a push-pull or two over a relay that loses segments.
pub(super) const MEET: Duration = Duration::from_secs(90);

/// A death is known everywhere within this: the longest suspicion, and the time to spread it.
pub(super) const LEARN: Duration = Duration::from_secs(60);

/// Every job has its result within this, those of the dead node among them.
const SETTLE: Duration = Duration::from_secs(120);

/// A link that loses 30 % of UDP and this much of TCP, and reorders.
pub(super) fn lossy_link(tcp_percent: u32) -> LinkConfig {
    LinkConfig {
        udp_loss: Rate::percent(30),
        tcp_loss: Rate::percent(tcp_percent),
        duplicate: Rate::percent(1),
        reorder: Rate::percent(10),
        // Longer than a probe waits for its ack, so that late acks are tested too.
        reorder_by: Duration::from_millis(500),
        ..link_ms(15, 30)
    }
}

/// 30 % of UDP, 5 % of TCP: all properties are asserted.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let cluster = Stage::new(world).links(lossy_link(5)).hub("hub").workers(NODES).meet(MEET).await?;
    let victim = &cluster.peers[VICTIM];
    let names: Vec<_> = (0..JOBS).map(|number| format!("job {number:02}")).collect();
    let mut jobs = Jobs::new(&cluster);
    for name in &names {
        jobs.submit(&cluster.peers[0], "slow", name).await?;
    }
    world.sleep(Duration::from_millis(700)).await;
    victim.host.power_loss();
    let results = jobs.settle(SETTLE).await?;
    cluster.converge(LEARN).await?;
    cluster.no_false_deaths(HEALTHY, std::slice::from_ref(victim))?;
    let ran = cluster.witness.runs_per_job();
    if let Some(name) = names.iter().find(|name| !ran.contains_key(*name)) {
        return Err(Violation::safety(RESULTS, format!("{name} has a result, but nobody ran it")));
    }
    cluster.inspect().await?;
    let state = format!("{}{results} of {JOBS} jobs have their result\n", cluster.views().await);
    let moved = cluster.witness.runs().iter().filter(|ran| ran.by != victim.name).count();
    let twice = ran.values().map(|runs| runs - 1).sum::<usize>();
    Ok(Passed { state, notes: format!("{moved} runs on living nodes, {twice} beyond the first of a job\n") })
}
