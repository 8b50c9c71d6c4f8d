//! What everything costs when nothing goes wrong.
//!
//! Three workers, a member and an observer; one worker and the member are behind boxes with a port for each remote,
//! so that the hub relays between them, the observer is behind a home router. Nothing is lost, nothing fails; the latency
//! is drawn.
//!
//! **Cadence.** In minutes in which the application does nothing, each counter of each node goes up as often as the
//! protocol's numbers say (`numbers`, `cadence`). What isn't named there doesn't happen at all: no suspicion, no refusal, no
//! retry, no drop.
//!
//! **Costs.** Then jobs, state and messages, one at a time, then many: each makes the exact difference to what all nodes count
//! that the protocol says (`costs`, `jobs`, `state`), within so many round trips, and moves nothing else.
//!
//! **Tidy.** An outcome's hash is kept for the task's life and ten minutes, by those that have to, and no longer.
//!
//! Negative control: the books of a minute don't fit those of two.

mod books;
mod cadence;
mod costs;
mod jobs;
mod numbers;
mod shape;
mod state;

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use rand_core::Rng as _;

use self::books::Books;
use self::costs::{Bill, Till};
use self::numbers::HORIZON_S;
use self::shape::{Place, Shape};
use crate::cluster::{Cluster, secret};
use crate::models::nat_box::presets;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    // An hour of idle time is a second of a processor.
    time_limit: Duration::from_secs(3 * 3600),
    ..Scenario::new(
        "calm",
        "what everything costs when nothing goes wrong: each counter goes up as often as it has to",
        |trial| Box::pin(run(trial)),
    )
};

const CADENCE: &str = "in a calm time nodes do what the protocol says, as often as it says, and nothing else";
const KEPT: &str = "an outcome is kept for its task's life and ten minutes, and no longer";
const PATHS: &str = "those that can reach each other straight do, and the others through the hub";
const CONTROL: &str = "the books of a minute don't fit those of two";

const MEET: Duration = Duration::from_secs(60);

/// Paths are found, and first back-offs are over: an observer's exchanges take half a minute.
const SETTLE: Duration = Duration::from_secs(150);

/// The latency of a link, in milliseconds. A relayed round trip is four of them, and stays below the 100 ms after which a
/// challenge is repeated, the 218 ms of a handshake and the 300 ms of a ping.
const LATENCY_MS: (u64, u64) = (5, 22);

/// Workers with addresses of their own. With two, the four members say a third more to each other in ten seconds than makes
/// a path be measured; with three it would be just as much, and a matter of luck.
const ON_THE_INTERNET: usize = 2;

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut rng = world.rng("calm");
    let mut draw = |low: u64, high: u64| low + u64::from(rng.next_u32()) % (high - low + 1);
    let (latency, idle) = (draw(LATENCY_MS.0, LATENCY_MS.1), Duration::from_secs(draw(600, 1_200)));
    let stage = Stage::new(world).links(link_ms(latency, 0)).hub("hub").workers(ON_THE_INTERNET);
    let stage = stage.behind_nat("office", presets::symmetric()).worker("desk");
    let stage = stage.behind_nat("laboratory", presets::symmetric()).member("bench");
    let stage = stage.behind_nat("home", presets::home_router()).observer("phone");
    let cluster = stage.configure(jobs::handlers).meet(MEET).await?;
    let mut places = vec![Place::Internet; ON_THE_INTERNET];
    places.extend([Place::Office, Place::Office, Place::Home]);
    let shape = Shape::new(&cluster, places);

    acquaint(&cluster).await?;
    world.sleep(SETTLE).await;
    paths(&cluster, &shape).await?;
    cadence(&cluster, &shape, idle, false).await?;

    let mut till = Till::open(&cluster, &shape, Duration::from_millis(latency)).await;
    let begun = world.elapsed();
    let (bench, phone) = (ON_THE_INTERNET + 1, ON_THE_INTERNET + 2);
    jobs::act(&mut till, &[bench, phone, 0, ON_THE_INTERNET]).await?;
    let ended = world.elapsed();
    state::act(&mut till, bench).await?;
    words(&mut till, bench).await?;
    let records = till.records();
    till.close()?;

    let kept = jobs::LIFE + Duration::from_secs(HORIZON_S);
    let until_first = (begun + kept).saturating_sub(world.elapsed() + Duration::from_secs(2));
    cadence(&cluster, &shape, until_first, true).await?;
    expect_records(&cluster, records).await?;
    world.sleep((ended + kept + Duration::from_secs(2)).saturating_sub(world.elapsed())).await;
    expect_records(&cluster, 0).await?;
    cluster.inspect().await?;
    let state = format!("{} nodes did what they had to\n{}", shape.nodes(), cluster.views().await);
    Ok(Passed { state, notes: format!("latency {latency} ms, idle for {idle:?}\n") })
}

/// Each says a word to each other one, so that all sessions and connections are there.
async fn acquaint(cluster: &Cluster) -> Result<(), Violation> {
    let world = cluster.world();
    for from in &cluster.peers {
        for to in cluster.peers.iter().filter(|to| to.key != from.key) {
            let sent = from.node(&world).await.send_message(to.key, secret("a word")).await;
            if let Err(error) = sent {
                return Err(Violation::liveness(PATHS, format!("{} to {}: {error}", from.name, to.name)));
            }
        }
    }
    Ok(())
}

/// The views of all, and the paths of each.
async fn paths(cluster: &Cluster, shape: &Shape) -> Result<(), Violation> {
    let mut wrong = cluster.missing().await;
    for (one, from) in cluster.peers.iter().enumerate() {
        for (other, to) in cluster.peers.iter().enumerate().filter(|(other, _)| shape.is_member(*other)) {
            if one != other {
                wrong.extend(cluster.wrong_path(from, to, shape.is_direct(one, other)).await);
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Violation::safety(PATHS, wrong.join("; "))) }
}

/// Nothing is done for this long; all nodes' counters go up as they have to. `shares`: there are keys to compare.
async fn cadence(cluster: &Cluster, shape: &Shape, idle: Duration, shares: bool) -> Result<(), Violation> {
    let world = cluster.world();
    let (before, begun) = (Books::read(cluster).await, world.elapsed());
    world.sleep(idle).await;
    let after = Books::read(cluster).await;
    let seconds = (world.elapsed() - begun).as_secs_f64();
    let grown = after.since(&before);
    let none = |_: &str, _: usize| 0;
    let mut wrong = cadence::wrong(shape, &grown, seconds, none, &[]);
    wrong.extend(cadence::wrong_sums(shape, &grown, 0, 0));
    for node in 0..shape.nodes() {
        if grown.messages(node) != 0 {
            wrong.push(format!("{} sent {} messages", shape.name(node), grown.messages(node)));
        }
    }
    if shares {
        wrong.extend(cadence::summaries(shape, &grown, seconds));
    }
    if grown.sum("state.in_sync_told") != 0 {
        wrong.push("a node tells a match to one that knows".to_owned());
    }
    if cadence::wrong(shape, &grown, seconds * 2.0, none, &[]).is_empty() {
        return Err(Violation::safety(CONTROL, format!("{seconds} s")));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Violation::safety(CADENCE, format!("in {seconds:.1} s: {}", wrong.join("; "))))
}

/// A datagram and a message of the application, and what a member tells all others.
async fn words(till: &mut Till<'_>, from: usize) -> Result<(), Violation> {
    let failed = |error: nurl::Error| Violation::safety(PATHS, error.to_string());
    let (world, cluster) = (till.world, till.cluster);
    let node = cluster.peers[from].node(&world).await;
    let mut bill = Bill::new(till.shape);
    bill.count("transport.datagrams_out", from, 1);
    bill.count("transport.datagrams_in", 0, 1);
    node.send(cluster.peers[0].key, secret("a datagram")).await.map_err(failed)?;
    till.pay("a datagram", &bill).await?;
    let mut bill = Bill::new(till.shape);
    bill.messages(from, 0, 1);
    node.send_message(cluster.peers[0].key, secret("a message")).await.map_err(failed)?;
    till.pay("a message", &bill).await
}

/// How many outcomes all nodes keep together.
async fn expect_records(cluster: &Cluster, wanted: i64) -> Result<(), Violation> {
    let is = Books::read(cluster).await.sum("job.records");
    if is == wanted {
        return Ok(());
    }
    Err(Violation::safety(KEPT, format!("{is} are kept, not {wanted}")))
}
