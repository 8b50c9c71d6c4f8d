//! A mesh is upgraded node by node, first to a program that speaks the old and the new version, then to one that speaks the
//! new one alone, and nothing is lost. A node that was left behind is told why it is alone, and so are the others.
//!
//! Four workers with stores, a member with a store, two hubs. All speak version 2; version 3 doesn't exist, and puts a byte
//! behind each path message.
//!
//! **Old and new.** Each hub and each node but the worker "old" is restarted as one that speaks 2 to 3, while tasks run and
//! writes are made. All go on, "old" among them, and nobody but the restarted is missed. Those that speak 3 use it with
//! each other, and never with "old".
//!
//! **New alone.** Likewise each of them is restarted as one that speaks 3 to 3. They go on with those that speak 2 to 3; "old"
//! has no session with them, and both sides tell it, once a minute. In the end a hub speaks 3 to 3 as well, and "old" knows
//! what the hub speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::membership::State;
use nurl::internals::net::reach::hub::HubLimits;
use nurl::internals::net::reach::hub_client::DownReason;
use nurl::internals::net::secure::version::Versions;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::Kind;

use crate::cluster::{Cluster, Deadline, Jobs, Peer, Verdict, copies};
use crate::lock::lock;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("a node was told of one that was left behind, and the other way round")],
    time_limit: Duration::from_secs(30 * 60),
    ..Scenario::new(
        "rolling",
        "a mesh is upgraded node by node under tasks and writes: nothing is lost, and the one left behind is told why",
        |trial| Box::pin(run(trial)),
    )
};

const OLD: Versions = Versions::made_up(2, 2);
const BOTH: Versions = Versions::made_up(2, 3);
const NEW: Versions = Versions::made_up(3, 3);

const MET: &str = "the upgraded see each other alive";
const MISSED: &str = "nobody who is upgraded is held dead";
const SPOKEN: &str = "two nodes speak the highest version that both know";
const TOLD: &str = "two nodes without a common version are told of each other, and seldom";
const WRITES: &str = "no acknowledged write is lost by an upgrade";

const MEET: Duration = Duration::from_secs(60);

/// How long a task may take that was submitted just before a restart.
const DONE: Duration = Duration::from_secs(120);

/// Tasks, and writes, at each restart.
const EACH: usize = 3;

/// How long a node that is left behind may take to hear of one that it meets no more.
const SOON: Duration = Duration::from_secs(180);

/// A minute, in which each peer is told once.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What the next process of each node speaks.
type Speaks = Arc<Mutex<BTreeMap<String, Versions>>>;

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let speaks = Speaks::default();
    let next = speaks.clone();
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub a").hub("hub b");
    let stage = stage.workers(3).worker("old").member("office").configure(move |builder, setup| {
        let versions = lock(&next).get(&setup.name).copied().unwrap_or(OLD);
        let builder = builder.versions(versions);
        // An observer would keep nothing.
        if setup.role == Role::Observer { builder } else { with_store(builder, "/node") }
    });
    let cluster = stage.meet(MEET).await?;
    let [a, b, c, old, office] = &cluster.peers[..] else { unreachable!("five nodes") };
    let upgraded = [a, b, c, office];
    let all = [a, b, c, old, office];
    if let Some((name, _)) = grown(&cluster, &all).await.into_iter().find(|(_, grown)| *grown > 0) {
        return Err(Violation::safety(SPOKEN, format!("{name} heard another version than 2")));
    }
    let mut work = Work { cluster: &cluster, number: 0, added: 0 };

    for hub in &cluster.hubs {
        work.during(office, async {
            hub.limit(hub_speaks(BOTH));
            hub.kill();
            hub.restart()
        })
        .await?;
        meet(&cluster, &all).await?;
    }
    for peer in upgraded {
        upgrade(&mut work, &speaks, peer, BOTH, if peer.key == office.key { a } else { office }).await?;
        meet(&cluster, &all).await?;
    }
    nobody_dead(&cluster, &[])?;
    let heard = grown(&cluster, &all).await;
    for (name, grown) in &heard {
        let newer = name != &old.name;
        if (*grown > 0) != newer {
            return Err(Violation::safety(SPOKEN, format!("{name} heard version 3 in {grown} messages")));
        }
    }

    for peer in upgraded {
        upgrade(&mut work, &speaks, peer, NEW, if peer.key == office.key { a } else { office }).await?;
        meet(&cluster, &upgraded).await?;
    }
    left_behind(world, &cluster, &upgraded, old).await?;
    cluster.hubs[0].limit(hub_speaks(NEW));
    cluster.hubs[0].kill();
    cluster.hubs[0].restart();
    let deadline = Deadline::new(world, TOLD, SOON);
    while deadline.still_missing(not_refused(world, &cluster, old).await).await? {}
    work.during(office, async {}).await?;
    meet(&cluster, &upgraded).await?;
    nobody_dead(&cluster, &[old])?;
    work.all_counted(&upgraded).await?;
    cluster.inspect().await?;

    let told = cluster.witness.incompatible();
    let pairs: BTreeSet<_> =
        told.iter().map(|(_, by, about, theirs)| (by.clone(), *about, *theirs)).collect();
    let name = |key| cluster.peers.iter().find(|peer| peer.key == key).map_or("?", |peer| &peer.name);
    let mut state = String::new();
    for peer in &cluster.peers {
        let theirs: BTreeSet<_> = pairs
            .iter()
            .filter(|(by, ..)| *by == peer.name)
            .map(|(_, about, theirs)| format!("{} speaks {theirs}", name(*about)))
            .collect();
        state += &format!("{} was told: {}\n", peer.name, theirs.into_iter().collect::<Vec<_>>().join(", "));
    }
    Ok(Passed { state, notes: String::new() })
}

fn hub_speaks(versions: Versions) -> HubLimits {
    HubLimits { versions, ..HubLimits::default() }
}

/// Restarts a node as one that speaks these versions, while there is work.
async fn upgrade(
    work: &mut Work<'_>,
    speaks: &Speaks,
    peer: &Peer,
    versions: Versions,
    from: &Peer,
) -> Result<(), Violation> {
    lock(speaks).insert(peer.name.clone(), versions);
    work.during(from, async {
        peer.host.crash();
        peer.host.restart();
    })
    .await
}

/// Tasks and writes that go on while something happens.
struct Work<'a> {
    cluster: &'a Cluster,
    /// Tasks so far.
    number: usize,
    /// Writes that were acknowledged.
    added: i128,
}

const COUNTER: &str = "writes";

impl Work<'_> {
    /// Submits tasks, does this, makes writes, and waits for all.
    async fn during(&mut self, from: &Peer, happens: impl Future<Output = ()>) -> Result<(), Violation> {
        let world = self.cluster.world();
        let mut jobs = Jobs::new(self.cluster);
        for _ in 0..EACH {
            self.number += 1;
            jobs.submit(from, "slow", &format!("job {}", self.number)).await?;
        }
        world.sleep(Duration::from_millis(300)).await;
        happens.await;
        let counter = from.node(&world).await.counter(COUNTER);
        for _ in 0..EACH {
            // A write that wasn't acknowledged may count or not, so each is made until it is: none may fail here.
            counter.add(1).await.map_err(|error| Violation::liveness(WRITES, error.to_string()))?;
            self.added += 1;
        }
        jobs.settle(DONE).await?;
        Ok(())
    }

    /// Waits until the owners among these hold all writes, and then until all of these read them.
    async fn all_counted(&self, peers: &[&Peer]) -> Result<(), Violation> {
        let world = self.cluster.world();
        let held = self.cluster.agreed(WRITES, MEET, &[(Kind::Counter, COUNTER)], peers).await?;
        let sum = copies::sum(held[0].as_ref());
        if sum != self.added {
            return Err(Violation::safety(WRITES, format!("the owners hold {sum}, not {}", self.added)));
        }
        let deadline = Deadline::new(world, WRITES, MEET);
        loop {
            let mut missing = Vec::new();
            for peer in peers {
                match peer.node(&world).await.counter(COUNTER).get().await {
                    Ok(sum) if sum == self.added => {}
                    other => missing.push(format!("{} reads {other:?}, not {}", peer.name, self.added)),
                }
            }
            if !deadline.still_missing(missing).await? {
                return Ok(());
            }
        }
    }
}

/// Waits until all of these see each other alive.
async fn meet(cluster: &Cluster, peers: &[&Peer]) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), MET, MEET);
    loop {
        let mut missing = Vec::new();
        for peer in peers {
            let view = cluster.view(peer).await;
            for other in peers.iter().filter(|other| other.key != peer.key) {
                let state = view.get(&other.key).copied();
                if state != Some(State::Alive) {
                    let state = state.map_or("unknown", State::as_str);
                    missing.push(format!("{} sees {} {state}", peer.name, other.name));
                }
            }
        }
        if !deadline.still_missing(missing).await? {
            return Ok(());
        }
    }
}

/// No node was ever held dead, but these, which may also have held others dead.
fn nobody_dead(cluster: &Cluster, but: &[&Peer]) -> Result<(), Violation> {
    let apart = |by: &str, about| but.iter().any(|peer| peer.name == by || peer.key == about);
    match cluster.witness.held_dead().into_iter().find(|verdict| !apart(&verdict.by, verdict.about)) {
        None => Ok(()),
        Some(Verdict { at, by, about, .. }) => {
            Err(Violation::safety(MISSED, format!("{by} held {} dead", about.short())).since(at))
        }
    }
}

/// How many path messages of a later version each node has heard.
async fn grown(cluster: &Cluster, peers: &[&Peer]) -> Vec<(String, u64)> {
    let mut grown = Vec::new();
    for peer in peers {
        grown.push((peer.name.clone(), cluster.metric(peer, "session.grown_control").await));
    }
    grown
}

/// Waits until the node that was left behind and the others have been told of each other. Nobody is told twice in a minute.
async fn left_behind(
    world: World,
    cluster: &Cluster,
    upgraded: &[&Peer],
    old: &Peer,
) -> Result<(), Violation> {
    let deadline = Deadline::new(world, TOLD, SOON);
    loop {
        let told = cluster.witness.incompatible();
        let of_old = |peer: &Peer| {
            told.iter().any(|(_, by, about, theirs)| *by == peer.name && *about == old.key && *theirs == OLD)
        };
        let of_new = |peer: &Peer| {
            told.iter().any(|(_, by, about, theirs)| *by == old.name && *about == peer.key && *theirs == NEW)
        };
        let mut missing: Vec<_> = upgraded
            .iter()
            .filter(|peer| of_old(peer) != of_new(peer))
            .map(|peer| format!("only one of {} and {} was told", peer.name, old.name))
            .collect();
        if !upgraded.iter().any(|peer| of_old(peer) && of_new(peer)) {
            missing.push("nobody was told".to_owned());
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    sometimes!(true, "a node was told of one that was left behind, and the other way round");
    let status = old.node(&world).await.status().await;
    let listed = status.map(|status| status.incompatible).unwrap_or_default();
    if listed.is_empty() || listed.iter().any(|(_, theirs)| *theirs != NEW) {
        return Err(Violation::safety(TOLD, format!("the status of {} lists {listed:?}", old.name)));
    }
    world.sleep(2 * TELL_EVERY).await;
    let told = cluster.witness.incompatible();
    for (at, by, about, theirs) in &told {
        let again = told.iter().any(|(later, other, of, what)| {
            (other, of, what) == (by, about, theirs) && later > at && *later - *at < TELL_EVERY
        });
        // A process that was restarted begins anew, and each was told of by one process alone but for "old".
        if again {
            return Err(Violation::safety(TOLD, format!("{by} was told twice in a minute at {at:?}")));
        }
    }
    Ok(())
}

/// What is missing until the node that was left behind knows what the first hub speaks.
async fn not_refused(world: World, cluster: &Cluster, old: &Peer) -> Vec<String> {
    let status = old.node(&world).await.status().await;
    let hub =
        status.ok().and_then(|status| status.hubs.into_iter().find(|hub| hub.key == cluster.hubs[0].key));
    match hub.and_then(|hub| hub.down) {
        Some(DownReason::Versions { theirs: NEW, ours: OLD }) => Vec::new(),
        other => vec![format!("the first hub is to {}: {other:?}", old.name)],
    }
}
