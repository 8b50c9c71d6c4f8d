//! A node with every core busy is not evicted; an equally silent dead one is.
//!
//! Four nodes with jobs under way. On one of them handlers occupy every core, so its work and compute planes
//! stand still: it accepts nothing, sends no beats, finishes nothing. To applications it is as silent as another
//! node that loses its power at the same moment: none of its handlers finishes. But its network plane continues,
//! so for ten minutes no node ever holds it dead, even when it is cut off for some seconds and suspected, while
//! all others hold the dead one dead within a minute. Other nodes do the jobs of both meanwhile, and when the
//! cores are free again, the node takes its share again.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use nurl::internals::membership::State;

use crate::cluster::{Cluster, Deadline, Jobs, Peer};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob { name: "jobs", about: "jobs of each burst", default: 6, least: 1, turns: KnobKind::Work },
        Knob {
            name: "minutes",
            about: "how long the cores are busy",
            default: 10,
            least: 1,
            turns: KnobKind::Length,
        },
    ],
    marks: &[
        Mark::new("a handler was under way when its cores were taken"),
        Mark::new("the busy node was suspected and cleared"),
    ],
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "pinned",
        "every core of a node is busy for ten minutes: it is never held dead, a dead one is",
        |trial| Box::pin(run(trial)),
    )
};

const NODES: usize = 4;
const BUSY: usize = 1;
const DEAD: usize = 2;

const MEET: Duration = Duration::from_secs(30);

/// A death is known everywhere within this.
const LEARN: Duration = Duration::from_secs(60);

/// A job of a silent node is done by another one within this.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// How long the busy node is cut off, once: longer than a probe, shorter than any suspicion.
const CUT: Duration = Duration::from_secs(3);

/// Time between two bursts of jobs.
const REST: Duration = Duration::from_secs(100);

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(LinkConfig {
        udp_loss: Rate::percent(5),
        tcp_loss: Rate::percent(1),
        ..link_ms(15, 10)
    });
    let cluster = stage.hub("hub").workers(NODES).meet(MEET).await?;
    let (busy, dead) = (&cluster.peers[BUSY], &cluster.peers[DEAD]);

    let mut jobs = submit_jobs(&trial, &cluster, 0).await?;
    world.sleep(Duration::from_millis(300)).await;
    sometimes!(cluster.witness.running(&busy.name) > 0, "a handler was under way when its cores were taken");
    busy.host.pin_cpu();
    dead.host.power_loss();
    let (begun, ran) = (world.elapsed(), runs_by(&cluster, busy));
    let settled = jobs.settle(TAKE_OVER).await;
    // Checked before any other property that may break: the guarantee is that the node stays a member.
    check_busy_not_held_dead(&cluster, busy)?;
    settled?;

    let deadline = Deadline::new(world, "a dead node is held dead by all that aren't busy", LEARN);
    loop {
        let missing = alive_at(&cluster, dead, busy).await;
        check_busy_not_held_dead(&cluster, busy)?;
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let others = cluster.peers.iter().map(|peer| peer.host).chain([cluster.hubs[0].host]);
    let others: Vec<_> = others.filter(|host| *host != busy.host).collect();
    world.partition(&[busy.host], &others);
    world.sleep(CUT).await;
    world.heal();
    let until = begun + Duration::from_secs(60 * trial.knob("minutes"));
    let mut bursts = 1;
    while world.elapsed() + REST < until {
        world.sleep(REST).await;
        let settled = submit_jobs(&trial, &cluster, bursts).await?.settle(TAKE_OVER).await;
        bursts += 1;
        check_busy_not_held_dead(&cluster, busy)?;
        settled?;
    }
    world.sleep(until.saturating_sub(world.elapsed())).await;
    check_busy_not_held_dead(&cluster, busy)?;
    let meanwhile = runs_by(&cluster, busy) - ran;
    if meanwhile > 0 {
        let seen = format!("{} ran {meanwhile} to their ends", busy.name);
        return Err(Violation::safety("no handler goes on while every core is busy", seen));
    }
    let suspected = cluster.witness.verdicts_on(busy).any(|state| state == State::Suspect);
    sometimes!(suspected, "the busy node was suspected and cleared");

    busy.host.unpin_cpu();
    cluster.converge(LEARN).await?;
    let before = cluster.witness.runs().len();
    let deadline = Deadline::new(world, "a node whose cores are free again runs jobs again", LEARN);
    loop {
        submit_jobs(&trial, &cluster, bursts).await?.settle(TAKE_OVER).await?;
        bursts += 1;
        let ran = cluster.witness.runs()[before..].iter().any(|ran| ran.by == busy.name);
        let missing = if ran { Vec::new() } else { vec![format!("a run by {}", busy.name)] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    cluster.inspect().await?;
    let state = format!(
        "{}busy for {} minutes and never held dead: {}\n",
        cluster.views().await,
        trial.knob("minutes"),
        busy.name
    );
    Ok(Passed { state, notes: format!("{} runs\n", cluster.witness.runs().len()) })
}

async fn submit_jobs<'a>(trial: &Trial, cluster: &'a Cluster, number: usize) -> Result<Jobs<'a>, Violation> {
    let mut jobs = Jobs::new(cluster);
    for job in 0..trial.knob("jobs") {
        jobs.submit(&cluster.peers[0], "slow", &format!("burst {number}, job {job}")).await?;
    }
    Ok(jobs)
}

/// How many handlers finished at a node.
fn runs_by(cluster: &Cluster, peer: &Peer) -> usize {
    cluster.witness.runs().iter().filter(|ran| ran.by == peer.name).count()
}

/// The nodes that still hold `node` alive. The busy one isn't asked, since its answers have no guarantee.
async fn alive_at(cluster: &Cluster, node: &Peer, busy: &Peer) -> Vec<String> {
    let mut missing = Vec::new();
    for peer in cluster.running().filter(|peer| peer.key != busy.key) {
        if cluster.view(peer).await.get(&node.key).is_none_or(|state| state.is_live()) {
            missing.push(format!("{} holds {} alive", peer.name, node.name));
        }
    }
    missing
}

fn check_busy_not_held_dead(cluster: &Cluster, busy: &Peer) -> Result<(), Violation> {
    if cluster.witness.verdicts_on(busy).any(|state| !state.is_live()) {
        let seen = format!("{} was, its network plane goes on", busy.name);
        return Err(Violation::safety("a node whose cores are busy is never held dead", seen));
    }
    Ok(())
}
