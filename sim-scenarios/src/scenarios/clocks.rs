//! Wrong clocks: only gates look at the time, so a wrong one harms its owner alone.
//!
//! Three workers and two hubs have the right time; the first hub issues passes. One worker's clock falls back by an hour
//! while it is off, so that all that it says next looks older than what it said before: each peer asks it to prove, through
//! a hub, that it isn't a replay, and it is back within seconds. Then come
//!
//! - **a board without a battery**: its clock shows 1970. It counts as the newest time that the authority signed, so the
//!   node joins and works;
//! - **a machine whose clock is a year ahead**. By it everybody's pass has ended. It stays out, and says that its clock is
//!   the reason; nobody else notices;
//! - **one that was off for long**: its pass ended 60 days ago. It renews it without an invitation, and works.
//!
//! At last **the issuer's own clock** goes a year ahead: it turns everybody away. The others go on by the second hub, also
//! those that the first one has to let go.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::authority::pass::MAX_LIFE;
use nurl::internals::node::Role;
use nurl::rt::time;
use nurl::{Error, RefusedBy};

use crate::cluster::{Cluster, Deadline, Jobs, Peer, Timing};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a node whose clock had gone back was challenged, and let in"),
        Mark::new("a clock of 1970 did no harm"),
        Mark::new("a clock that was ahead was named as the reason"),
        Mark::new("a pass that had ended long ago was renewed"),
        Mark::new("an issuer's clock was ahead and the others went on"),
    ],
    ..Scenario::new(
        "clocks",
        "a wrong clock shuts out its owner alone, and is named as the reason; an ended pass is renewed",
        |trial| Box::pin(run(trial)),
    )
};

const WORKS: &str = "a node with a wrong clock, or one that was away, has its jobs done";
const OUT: &str = "a clock that is ahead shuts out its owner alone, and is the reason that it tells";
const NOT_A_REPLAY: &str =
    "a node whose clock went back proves that it is no replay, and is back within seconds";
const GO_ON: &str = "nobody is held dead when a hub's clock is ahead";

const MEET: Duration = Duration::from_secs(60);
const DONE: Duration = Duration::from_secs(60);

/// How long a caller waits for the join.
const ASKED: Duration = Duration::from_secs(10);

/// What the clock of a worker loses while it is off.
const LOST_MS: i64 = 3_600_000;

/// Registered within seconds; then a first try, the challenge, and another try.
const BACK_WITHIN: Duration = Duration::from_secs(10);

const DAY: u64 = 24 * 60 * 60;
const YEAR: u64 = 365 * DAY;

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("issuer").hub("other").workers(3);
    let mut cluster = stage.meet(MEET).await?;
    a_clock_goes_back(world, &cluster).await?;

    let since_1970 = i64::try_from(time::unix_now().as_millis()).expect("a world is young");
    let timing = Timing { clock_ms: -since_1970, ..Timing::default() };
    let board = cluster.add_at("board", world.internet(), Role::Worker, timing);
    works(&cluster, &board).await?;
    sometimes!(true, "a clock of 1970 did no harm");

    let issued_ago = Duration::from_secs(u64::from(MAX_LIFE) + 60 * DAY);
    let timing = Timing { issued_ago, ..Timing::default() };
    let away = cluster.add_at("away", world.internet(), Role::Worker, timing);
    works(&cluster, &away).await?;
    let status = away.node(&world).await.status().await;
    let until = status.ok().and_then(|status| status.pass).map_or(0, |pass| pass.grant().not_after);
    if u64::from(until) < time::unix_now().as_secs() + DAY {
        return Err(Violation::liveness(WORKS, "the pass that had ended isn't renewed".to_owned()));
    }
    sometimes!(true, "a pass that had ended long ago was renewed");

    let year = i64::try_from(YEAR * 1_000).expect("a year is short");
    let timing = Timing { clock_ms: year, ..Timing::default() };
    let ahead = cluster.add_at("ahead", world.internet(), Role::Member, timing);
    let deadline = Deadline::new(world, OUT, MEET);
    while deadline.still_missing(not_told(world, &ahead).await).await? {}
    for peer in cluster.running().filter(|peer| peer.key != ahead.key) {
        if cluster.view(peer).await.contains_key(&ahead.key) {
            return Err(Violation::safety(OUT, format!("{} holds it a member", peer.name)));
        }
    }
    cluster.no_false_deaths(OUT, &[])?;
    sometimes!(true, "a clock that was ahead was named as the reason");
    ahead.host.crash();

    cluster.hubs[0].host.step_wall_clock_ms(year);
    cluster.hubs[0].host.crash();
    world.sleep(Duration::from_secs(5)).await;
    cluster.hubs[0].host.restart();
    world.sleep(Duration::from_secs(30)).await;
    for from in cluster.running().cloned().collect::<Vec<_>>() {
        works(&cluster, &from).await?;
    }
    cluster.no_false_deaths(GO_ON, &[])?;
    sometimes!(true, "an issuer's clock was ahead and the others went on");
    cluster.inspect().await?;
    Ok(Passed { state: "a wrong clock harmed its owner alone\n".to_owned(), notes: String::new() })
}

/// A worker is off for a moment, and its clock is wrong when it starts again.
async fn a_clock_goes_back(world: World, cluster: &Cluster) -> Result<(), Violation> {
    let worker = &cluster.peers[1];
    worker.host.crash();
    worker.host.step_wall_clock_ms(-LOST_MS);
    world.sleep(Duration::from_secs(1)).await;
    worker.host.restart();
    let deadline = Deadline::new(world, NOT_A_REPLAY, BACK_WITHIN);
    while deadline.still_missing(cluster.missing().await).await? {}
    works(cluster, worker).await?;
    for (peer, counted) in
        [(worker, "session.challenges_taken"), (&cluster.peers[0], "session.clocks_let_back")]
    {
        if cluster.metric(peer, counted).await == 0 {
            return Err(Violation::safety(NOT_A_REPLAY, format!("{} has counted no {counted}", peer.name)));
        }
    }
    sometimes!(true, "a node whose clock had gone back was challenged, and let in");
    worker.host.step_wall_clock_ms(LOST_MS);
    Ok(())
}

/// All nodes that run see each other, and a job of this one is done.
async fn works(cluster: &Cluster, from: &Peer) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), WORKS, MEET);
    while deadline.still_missing(cluster.missing().await).await? {}
    let mut jobs = Jobs::new(cluster);
    jobs.submit(from, "slow", &format!("{} at {:?}", from.name, cluster.world().elapsed())).await?;
    jobs.settle(DONE).await.map(drop)
}

/// What a node whose clock is ahead doesn't say of it.
async fn not_told(world: World, ahead: &Peer) -> Vec<String> {
    let node = ahead.node(&world).await;
    let mut missing = Vec::new();
    if node.status().await.is_ok_and(|status| status.clock_ahead.is_none()) {
        missing.push("its status names the clock".to_owned());
    }
    if !matches!(node.joined(ASKED).await, Err(Error::Refused(RefusedBy::Clock { .. }))) {
        missing.push("its clock is the reason why it hasn't joined".to_owned());
    }
    missing
}
