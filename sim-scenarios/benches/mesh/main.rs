//! How much faster than real time a whole mesh runs: a hub and assembled nodes with gossip and jobs, 60 virtual
//! seconds from the first packet on, one core. At 20 nodes the target is 100 virtual seconds per second of CPU; a
//! table shows other sizes. Every node submits a job each ten seconds. Each job must have its result, and all
//! nodes must see each other alive; otherwise the numbers are meaningless.
//!
//! `perf`, if present, samples where the time goes. `cargo bench -p sim-scenarios --features sim -- 20` runs one
//! size only, without the profile.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads files and starts a profiler, outside of every world"
)]

mod profile;

use std::time::Duration;

use bytes::Bytes;
use chaos::world::World;
use nurl::internals::compute::job::SubmitOptions;
use sim_scenarios::stage::{Stage, link_ms};

const SIZES: [usize; 4] = [5, 20, 50, 200];
/// The size that has a target, and the target.
const HEADLINE: usize = 20;
const TARGET: f64 = 100.0;
/// Virtual time of a run.
const SPAN: Duration = Duration::from_secs(60);
/// Submits begin after this, when the nodes have met.
const MEET: Duration = Duration::from_secs(10);
/// Time between two jobs of a node.
const EVERY: Duration = Duration::from_secs(10);
/// Rounds of the headline's size. The best counts, since other work on the machine can only slow a round.
const ROUNDS: usize = 3;

/// The cost of one run.
struct Took {
    cpu: Duration,
    packets: u64,
    jobs: usize,
}

impl Took {
    fn speed(&self) -> f64 {
        SPAN.as_secs_f64() / self.cpu.as_secs_f64()
    }
}

fn mesh(nodes: usize) -> Took {
    let began = cpu();
    let outcome = chaos::run(1, move |world| body(world, nodes));
    let cpu = cpu() - began;
    let jobs = outcome.result.expect("the world runs to its end").expect("the mesh works");
    Took { cpu, packets: outcome.stats.packets_sent, jobs }
}

async fn body(world: World, nodes: usize) -> Result<usize, String> {
    let cluster = Stage::new(world).links(link_ms(20, 5)).hub("hub").workers(nodes).start();
    world.sleep(MEET).await;
    let mut tasks = Vec::new();
    let step = EVERY / nodes as u32;
    // The last job needs time to return.
    while world.elapsed() + EVERY / 2 < SPAN {
        let peer = &cluster.peers[tasks.len() % nodes];
        let node = peer.node(&world).await;
        let name = Bytes::from(format!("job {}", tasks.len()));
        let task = node.submit("slow", &name, name.clone(), SubmitOptions::default()).await;
        tasks.push(task.map_err(|error| error.to_string())?);
        world.sleep(step).await;
    }
    let jobs = tasks.len();
    for task in tasks {
        task.outcome().await.map_err(|error| error.to_string())?;
    }
    world.sleep(SPAN.saturating_sub(world.elapsed())).await;
    cluster.converge(Duration::ZERO).await.map_err(|broken| broken.to_string())?;
    Ok(jobs)
}

/// CPU time of this process so far, which doesn't grow with the machine's load: user and system ticks of a
/// hundredth of a second, the 14th and 15th field of Linux's `/proc/self/stat`.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    let ticks = |field| behind_name.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn main() {
    let only = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    if let Some(nodes) = only {
        row(nodes, &mesh(nodes));
        return;
    }
    println!("{} virtual seconds, each node a job every {} s, CPU time", SPAN.as_secs(), EVERY.as_secs());
    println!("nodes   CPU seconds   virtual:real   packets   jobs");
    for nodes in SIZES {
        let rounds = if nodes == HEADLINE { ROUNDS } else { 1 };
        let best = (0..rounds).map(|_| mesh(nodes)).min_by_key(|took| took.cpu).unwrap();
        row(nodes, &best);
        if nodes == HEADLINE && best.speed() < TARGET {
            println!("        below the target of {TARGET}");
        }
    }
    match profile::of(&HEADLINE.to_string()) {
        Ok(shares) => {
            println!("where the time of {HEADLINE} nodes goes, sampled:");
            shares.iter().for_each(|(owner, share)| println!("  {share:>4.1} %  {owner}"));
        }
        Err(why) => println!("no profile: {why} (it takes Linux's perf)"),
    }
}

fn row(nodes: usize, took: &Took) {
    let (cpu, speed) = (took.cpu.as_secs_f64(), took.speed());
    println!("{nodes:>5}   {cpu:>11.2}   {speed:>12.1}   {:>7}   {:>4}", took.packets, took.jobs);
}
