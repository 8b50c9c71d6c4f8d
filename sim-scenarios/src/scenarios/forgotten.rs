//! How long the dead are remembered, and what becomes of them when they come back later than that.
//!
//! Five workers and a hub. One with a store and one without die at a moment, and one says goodbye. By the standard a dead
//! member with a store keeps its place for a day, one without for an hour, and one that left is remembered for ten minutes;
//! here they are minutes and seconds ([`STORED`], [`DEAD`], [`LEFT`]). A minute after the deaths a newcomer joins, and is
//! told for how long each has been gone.
//!
//! - Nobody forgets one of them too early or too late, and all forget it at about one moment, the newcomer too.
//! - Whoever was forgotten comes back under its key, and is alive in all views within seconds, though everything that it
//!   says of itself at first is older than what was known of it.
//! - The one with a store has kept what was written before: each node reads it again.
//!
//! Negative control: until then they were remembered, by the newcomer too.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::PublicKey;
use nurl::internals::membership::{DetectorConfig, State};
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::Kind;

use crate::cluster::{Cluster, Deadline, Peer, copies};
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a newcomer remembered who died before it came"),
        Mark::new("whoever had been forgotten came back"),
    ],
    time_limit: Duration::from_secs(15 * 60),
    ..Scenario::new(
        "forgotten",
        "the dead are remembered for their time, by newcomers too, and come back after it",
        |trial| Box::pin(run(trial)),
    )
};

const ON_TIME: &str = "who is gone is remembered for its time, and no longer";
const TOGETHER: &str = "all forget a member at about one moment";
const TOLD: &str = "a newcomer learns who is gone";
const BACK: &str = "whoever was forgotten is alive in all views within seconds of its return";
const KEPT: &str = "what a store holds is read again when its node is back, however late";

const MEET: Duration = Duration::from_secs(60);

/// In place of a day, an hour and ten minutes.
const STORED: Duration = Duration::from_secs(240);
const DEAD: Duration = Duration::from_secs(150);
const LEFT: Duration = Duration::from_secs(100);

/// A death is certain this long after it, at most: a probe that fails, and the longest suspicion.
const CERTAIN: Duration = Duration::from_secs(35);

/// Each node looks for those to forget with each exchange of tables, every 30 s. Ages are told in seconds, and the scenario
/// looks once a second.
const APART: Duration = Duration::from_secs(34);

/// When the newcomer comes.
const COMES: Duration = Duration::from_secs(55);
const LEARNS: Duration = Duration::from_secs(15);

/// When those are started again who were forgotten after [`DEAD`] and [`LEFT`], and the one with a store.
const BACK_FIRST: Duration = Duration::from_secs(230);
const BACK_LAST: Duration = Duration::from_secs(330);
const BACK_WITHIN: Duration = Duration::from_secs(15);

const LOOK: Duration = Duration::from_secs(1);
const COUNTER: &str = "written before";
const SUM: i64 = 7;
/// A round of summaries, every 10 s, and what it leads to.
const HELD_WITHIN: Duration = Duration::from_secs(15);
const READ_WITHIN: Duration = Duration::from_secs(60);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub").workers(2);
    let stage = stage.worker("with a store").worker("without").worker("leaver");
    let stage = stage.configure(|builder, setup| {
        let config = DetectorConfig {
            stored_reclaim: STORED,
            dead_reclaim: DEAD,
            left_reclaim: LEFT,
            ..DetectorConfig::default()
        };
        let builder = builder.detector(config);
        if setup.name == "with a store" { with_store(builder, "/node") } else { builder }
    });
    let mut cluster = stage.meet(MEET).await?;
    let [stored, without, leaver] = [2, 3, 4].map(|number: usize| cluster.peers[number].clone());
    let node = cluster.peers[0].node(&world).await;
    let unkept = |error: nurl::Error| Violation::liveness(KEPT, error.to_string());
    node.counter(COUNTER).add(SUM).await.map_err(unkept)?;
    // An owner has it; the store may have it a moment later.
    world.sleep(Duration::from_secs(5)).await;

    leaver.node(&world).await.shutdown().await;
    leaver.host.crash();
    stored.host.crash();
    without.host.crash();
    let gone = world.elapsed();
    let mut watch = Watch { world, gone, forgotten: BTreeMap::new() };
    watch.until(COMES, &cluster).await;
    let newcomer = cluster.add("newcomer", world.internet(), Role::Worker);
    let deadline = Deadline::new(world, TOLD, LEARNS);
    while deadline.still_missing(untold(&cluster, &newcomer, [&stored, &without, &leaver]).await).await? {
        watch.look(&cluster).await;
    }
    sometimes!(true, "a newcomer remembered who died before it came");

    watch.until(BACK_FIRST, &cluster).await;
    watch.forgot_in_time(&cluster, &leaver, (LEFT, Duration::ZERO))?;
    watch.forgot_in_time(&cluster, &without, (DEAD, CERTAIN))?;
    for peer in [&leaver, &without] {
        peer.host.restart();
    }
    back(&cluster).await?;
    watch.until(BACK_LAST, &cluster).await;
    watch.forgot_in_time(&cluster, &stored, (STORED, CERTAIN))?;
    stored.host.restart();
    back(&cluster).await?;
    sometimes!(true, "whoever had been forgotten came back");

    let all: Vec<_> = cluster.running().collect();
    // At first they may agree on nothing: what the node brings is on its way.
    let deadline = Deadline::new(world, KEPT, HELD_WITHIN);
    loop {
        let held = cluster.agreed(KEPT, HELD_WITHIN, &[(Kind::Counter, COUNTER)], &all).await?;
        let sum = copies::sum(held[0].as_ref());
        let wrong = (sum != i128::from(SUM)).then(|| format!("the owners hold {sum}, not {SUM}"));
        if !deadline.still_missing(wrong.into_iter().collect()).await? {
            break;
        }
    }
    let deadline = Deadline::new(world, KEPT, READ_WITHIN);
    while deadline.still_missing(unread(&cluster).await).await? {}
    cluster.inspect().await?;
    let state = format!("{}all read {SUM}\n", cluster.views().await);
    Ok(Passed { state, notes: String::new() })
}

/// All see each other again.
async fn back(cluster: &Cluster) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), BACK, BACK_WITHIN);
    while deadline.still_missing(cluster.missing().await).await? {}
    Ok(())
}

/// What the newcomer doesn't know of those who are gone.
async fn untold(cluster: &Cluster, newcomer: &Peer, gone: [&Peer; 3]) -> Vec<String> {
    let view = cluster.view(newcomer).await;
    let expected = gone.into_iter().zip([State::Dead, State::Dead, State::Left]);
    let unknown = expected.filter(|(peer, state)| view.get(&peer.key) != Some(state));
    unknown.map(|(peer, state)| format!("that {} is {}", peer.name, state.as_str())).collect()
}

/// The nodes that read another sum.
async fn unread(cluster: &Cluster) -> Vec<String> {
    let mut wrong = Vec::new();
    for peer in cluster.running() {
        let sum = peer.node(&cluster.world()).await.counter(COUNTER).get().await;
        if !matches!(sum, Ok(sum) if sum == i128::from(SUM)) {
            wrong.push(format!("{} reads {sum:?}", peer.name));
        }
    }
    wrong
}

/// When each of those who stay forgets each who is gone.
struct Watch {
    world: World,
    gone: Duration,
    /// By who forgets, and whom: how long after the deaths.
    forgotten: BTreeMap<(String, PublicKey), Duration>,
}

impl Watch {
    /// Looks once a second until this long after the deaths.
    async fn until(&mut self, since: Duration, cluster: &Cluster) {
        while self.world.elapsed() < self.gone + since {
            self.look(cluster).await;
            self.world.sleep(LOOK).await;
        }
    }

    async fn look(&mut self, cluster: &Cluster) {
        for by in cluster.running() {
            let view = cluster.view(by).await;
            for about in cluster.peers.iter().filter(|peer| !peer.host.is_running()) {
                let entry = (by.name.clone(), about.key);
                if view.contains_key(&about.key) {
                    self.forgotten.remove(&entry);
                } else {
                    self.forgotten.entry(entry).or_insert(self.world.elapsed() - self.gone);
                }
            }
        }
    }

    /// Each of those who stayed has forgotten this one after its time, or a little later if its death wasn't certain at
    /// once; and all at about one moment.
    fn forgot_in_time(
        &self,
        cluster: &Cluster,
        about: &Peer,
        (time, later): (Duration, Duration),
    ) -> Result<(), Violation> {
        let mut when = Vec::new();
        for by in [0, 1, cluster.peers.len() - 1].map(|number| &cluster.peers[number].name) {
            match self.forgotten.get(&(by.clone(), about.key)) {
                Some(at) if *at + LOOK >= time && *at <= time + later + APART => when.push(*at),
                Some(at) => {
                    let seen = format!("{by} forgot {} after {at:?}, where {time:?} is the time", about.name);
                    return Err(Violation::safety(ON_TIME, seen));
                }
                None => {
                    let seen = format!("{by} still remembers {} after {time:?}", about.name);
                    return Err(Violation::safety(ON_TIME, seen));
                }
            }
        }
        let (first, last) = (when.iter().min(), when.iter().max());
        match first.zip(last) {
            Some((first, last)) if *last > *first + APART => {
                Err(Violation::safety(TOGETHER, format!("{} was forgotten after {when:?}", about.name)))
            }
            _ => Ok(()),
        }
    }
}
