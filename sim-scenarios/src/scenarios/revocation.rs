//! The authority puts nodes out of a running mesh: they are gone within seconds everywhere, the others go on.
//!
//! Seven workers (with stores or without, by the seed), a member that submits jobs, two hubs.
//!
//! **Mid-run.** A worker is revoked while jobs run. Five seconds later no other node knows it as anything, no hub has it
//! registered, and nobody has a session with it; its own node has ended and says why. All jobs are done. Its host then
//! starts it again: it gets no further.
//!
//! **Stubborn.** A worker that an [insider](crate::insider) plays is revoked, and takes no notice: it goes on to register, to
//! open sessions and to speak. Nobody listens, and it hears nothing.
//!
//! **Partition.** The mesh falls apart, a hub on each side. Each side revokes a worker of the other one. When the link is
//! back, all nodes know both revocations, and neither worker is anybody's member.
//!
//! **Withheld.** Both hubs take revocations and keep them to themselves. The members learn one from each other, also one that
//! was away, and has to ask.
//!
//! Nobody else is ever held dead, but across the partition.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::internals::membership::Roles;
use nurl::internals::node::Role;
use nurl::internals::transport::{channel, kind};
use nurl::{Error, PublicKey, RefusedBy};

use crate::cluster::{Cluster, Deadline, Jobs, Peer};
use crate::insider::{Insider, wire};
use crate::models::sim_hub::SimHub;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "acts",
        about: "what happens, added up: 1 a worker revoked mid-run, 2 a partition, 4 hubs that withhold, 8 a stubborn one",
        default: MID_RUN + PARTITION + WITHHELD + STUBBORN,
        least: 1,
        turns: KnobKind::Work,
    }],
    marks: &[
        Mark::new("a worker with a store was revoked"),
        Mark::new("a worker without a store was revoked"),
        Mark::new("a revoked worker was started again"),
        Mark::new("a revoked insider went on"),
        Mark::new("each side of a partition revoked a worker of the other"),
        Mark::new("members learned a revocation that the hubs withheld"),
    ],
    time_limit: Duration::from_secs(10 * 60),
    ..Scenario::new(
        "revocation",
        "the authority puts nodes out of a running mesh: gone within 5 s everywhere, the others go on",
        |trial| Box::pin(run(trial)),
    )
};

/// The bits of the knob.
const MID_RUN: u64 = 1;
const PARTITION: u64 = 2;
const WITHHELD: u64 = 4;
const STUBBORN: u64 = 8;

const GONE: &str = "5 s after its revocation nobody knows a node, and no hub has it registered";
const ENDED: &str = "a revoked node ends and says why";
const OUT: &str = "a revoked node that starts again gets no further";
const DEAF: &str = "nobody listens to a revoked node, or talks to it";
const TAKEN: &str = "a hub or a member acknowledges a revocation";
const SAME: &str = "all nodes know the same revocations";
const ALIVE: &str = "nobody else is held dead when a node is revoked";

const WORKERS: usize = 7;

const MEET: Duration = Duration::from_secs(60);

/// What the authority promises: a revocation acts everywhere reachable within this.
const PROMISE: Duration = Duration::from_secs(5);

/// Jobs under way when a worker is revoked, and the time in which all are done: what ran at the worker runs once more.
const JOBS: u32 = 24;
const DONE: Duration = Duration::from_secs(30);

/// How long a revoked node is down, and then tries to come back.
const DOWN: Duration = Duration::from_secs(2);
const TRIES: Duration = Duration::from_secs(40);

/// How long an answer of a revoked node is waited for; one round trip takes 50 ms.
const PING: Duration = Duration::from_millis(500);

/// The cut lasts until each side holds the other one dead; the exchange of tables after it, and what follows from it, take a
/// period of exchanges and of healing.
const CUT: Duration = Duration::from_secs(90);
const HEALED: Duration = Duration::from_secs(120);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stored = world.seed().is_multiple_of(2);
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub a").hub("hub b");
    let stage =
        stage.workers(WORKERS).member("submitter").configure(move |builder, setup| match setup.role {
            Role::Worker if stored => with_store(builder, "/node"),
            _ => builder,
        });
    let cluster = stage.meet(MEET).await?;
    let mut mesh = Mesh { cluster: &cluster, revoked: Vec::new() };
    let acts = trial.knob("acts");
    let mut notes = String::new();
    if acts & MID_RUN != 0 {
        notes += &format!("gone after {:?}\n", mid_run(world, &mut mesh).await?);
        sometimes!(stored, "a worker with a store was revoked");
        sometimes!(!stored, "a worker without a store was revoked");
        sometimes!(true, "a revoked worker was started again");
    }
    if acts & STUBBORN != 0 {
        stubborn(world, &mut mesh).await?;
        sometimes!(true, "a revoked insider went on");
    }
    if acts & PARTITION != 0 {
        notes += &format!("equal after {:?}\n", partition(world, &mut mesh).await?);
        sometimes!(true, "each side of a partition revoked a worker of the other");
    }
    if acts & WITHHELD != 0 {
        notes += &format!("learned after {:?}\n", withheld(world, &mut mesh).await?);
        sometimes!(true, "members learned a revocation that the hubs withheld");
    }
    cluster.inspect().await?;
    let state = format!("{} nodes go on, {} are out\n", mesh.others().len(), mesh.revoked.len());
    Ok(Passed { state, notes })
}

/// A mesh, and those that were put out of it.
struct Mesh<'a> {
    cluster: &'a Cluster,
    /// Names and keys.
    revoked: Vec<(String, PublicKey)>,
}

impl Mesh<'_> {
    /// Everybody who wasn't revoked.
    fn others(&self) -> Vec<Peer> {
        let stays = |peer: &&Peer| self.revoked.iter().all(|(_, out)| *out != peer.key);
        self.cluster.peers.iter().filter(stays).cloned().collect()
    }

    /// `by` tells the mesh that the node with this name and key is revoked.
    async fn revoke(&mut self, by: &Peer, name: &str, key: PublicKey) -> Result<(), Violation> {
        let entry = self.cluster.revocation(&key);
        self.revoked.push((name.to_owned(), key));
        let told = by.node(&self.cluster.world()).await.revoke(entry).await;
        told.map_err(|error| Violation::liveness(TAKEN, format!("{}: {error}", by.name)))
    }

    /// What these nodes still know of the revoked.
    async fn traces(&self, at: &[Peer]) -> Vec<String> {
        let mut traces = Vec::new();
        for peer in at {
            let view = self.cluster.view(peer).await;
            for (out, key) in &self.revoked {
                let state = view.get(key);
                traces.extend(state.map(|state| format!("{} sees {} {}", peer.name, out, state.as_str())));
            }
        }
        traces
    }

    /// The hubs at which not exactly the others are registered.
    fn registered(&self) -> Vec<String> {
        let expected = self.others().len();
        let wrong = self.cluster.hubs.iter().filter(|hub| hub.stats().clients != expected);
        wrong.map(|hub| format!("{} has {} clients", hub.host.name(), hub.stats().clients)).collect()
    }

    /// The nodes whose revocations differ from those of the first.
    async fn different(&self, of: &[Peer]) -> Vec<String> {
        let mut digests = Vec::new();
        for peer in of {
            let status = peer.node(&self.cluster.world()).await.status().await;
            digests.push((&peer.name, status.ok().map(|status| status.revocations)));
        }
        let first = digests.first().and_then(|(_, digest)| *digest);
        let differ = digests.into_iter().filter(|(_, digest)| digest.is_none() || *digest != first);
        differ.map(|(name, _)| format!("{name} knows other revocations")).collect()
    }

    /// Says if the present process of a revoked node hasn't ended, or doesn't say why.
    async fn not_ended(&self, peer: &Peer) -> Vec<String> {
        match peer.node(&self.cluster.world()).await.members().await {
            Err(Error::Refused(RefusedBy::Authority)) => Vec::new(),
            Err(error) => vec![format!("{} says: {error}", peer.name)],
            Ok(_) => vec![format!("{} runs", peer.name)],
        }
    }

    /// The nodes that have a session with a revoked one, or get one.
    async fn met(&self, peer: &Peer) -> Option<String> {
        let world = self.cluster.world();
        for other in self.others() {
            if other.node(&world).await.ping(peer.key, PING).await.is_ok() {
                return Some(format!("{} meets {}", other.name, peer.name));
            }
        }
        None
    }
}

/// A worker is revoked while jobs run, and then started again.
async fn mid_run(world: World, mesh: &mut Mesh<'_>) -> Result<Duration, Violation> {
    let (victim, submitter) = (&mesh.cluster.peers[0], &mesh.cluster.peers[WORKERS]);
    let mut jobs = Jobs::new(mesh.cluster);
    for number in 0..JOBS {
        jobs.submit(submitter, "slow", &format!("mid-run {number}")).await?;
    }
    world.sleep(Duration::from_millis(500)).await;
    let deadline = Deadline::new(world, GONE, PROMISE);
    mesh.revoke(submitter, &victim.name, victim.key).await?;
    let others = mesh.others();
    while deadline.still_missing([mesh.traces(&others).await, mesh.registered()].concat()).await? {}
    let gone = deadline.waited();
    let ended = Deadline::new(world, ENDED, PROMISE);
    while ended.still_missing(mesh.not_ended(victim).await).await? {}
    jobs.settle(DONE).await?;

    for trial in 0..2 {
        victim.host.crash();
        world.sleep(DOWN).await;
        victim.host.restart();
        let until = world.elapsed() + TRIES;
        while world.elapsed() < until {
            let mut seen = [mesh.traces(&others).await, mesh.registered()].concat();
            seen.extend(mesh.met(victim).await);
            if !seen.is_empty() {
                return Err(Violation::safety(OUT, format!("start {trial}: {}", seen.join("; "))));
            }
            world.sleep(Duration::from_secs(2)).await;
        }
        let ended = Deadline::new(world, ENDED, PROMISE);
        while ended.still_missing(mesh.not_ended(victim).await).await? {}
    }
    victim.host.crash();
    mesh.cluster.no_false_deaths(ALIVE, &[])?;
    mesh.cluster.converge(MEET).await?;
    Ok(gone)
}

/// An insider that takes no notice of its revocation.
async fn stubborn(world: World, mesh: &mut Mesh<'_>) -> Result<(), Violation> {
    let eve = Insider::start(world, mesh.cluster, "eve");
    eve.meet(mesh.cluster, MEET).await?;
    let alive =
        |incarnation| wire::gossip(0, vec![eve.alive(incarnation, Roles::WORKER.with(Roles::STORE), 1)]);
    eve.answer_pings(Some(alive(1)));
    let others = mesh.others();
    let deadline = Deadline::new(world, "an insider is a member", MEET);
    loop {
        let mut missing = Vec::new();
        for peer in &others {
            eve.send(peer.key, channel::MEMBERSHIP, alive(1).encode());
            if !mesh.cluster.view(peer).await.contains_key(&eve.key) {
                missing.push(format!("eve at {}", peer.name));
            }
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    mesh.revoke(&others[1], "eve", eve.key).await?;
    let deadline = Deadline::new(world, GONE, PROMISE);
    while deadline.still_missing([mesh.traces(&others).await, mesh.registered()].concat()).await? {}
    world.sleep(Duration::from_secs(1)).await;
    eve.take_received();
    let until = world.elapsed() + TRIES;
    let mut incarnation = 2;
    while world.elapsed() < until {
        for peer in &others {
            eve.connect(peer.key);
            eve.send(peer.key, channel::MEMBERSHIP, alive(incarnation).encode());
            eve.send(peer.key, channel::MEMBERSHIP, wire::ping(incarnation, 0));
            let submit = wire::submit([incarnation as u8; 16], eve.key, 0, "slow", b"key", b"payload");
            eve.send_message(peer.key, kind::JOB, submit);
        }
        incarnation += 1;
        world.sleep(Duration::from_secs(1)).await;
        let mut seen = [mesh.traces(&others).await, mesh.registered()].concat();
        // What the hubs fan out in a group goes to their clients alone.
        seen.extend(eve.take_received().iter().map(|heard| format!("eve hears {:?}", heard.by)));
        if !seen.is_empty() {
            return Err(Violation::safety(DEAF, seen.join("; ")));
        }
    }
    eve.host.crash();
    Ok(())
}

/// Each side of a partition revokes a worker of the other.
async fn partition(world: World, mesh: &mut Mesh<'_>) -> Result<Duration, Violation> {
    let others = mesh.others();
    let (left, right) = others.split_at(others.len() / 2);
    let hosts = |side: &[Peer], hub: usize| -> Vec<Host> {
        side.iter().map(|peer| peer.host).chain([mesh.cluster.hubs[hub].host]).collect()
    };
    world.partition(&hosts(left, 0), &hosts(right, 1));
    world.sleep(CUT).await;
    let (out_left, out_right) = (&left[1], &right[0]);
    mesh.revoke(&left[0], &out_right.name, out_right.key).await?;
    mesh.revoke(&right[1], &out_left.name, out_left.key).await?;
    world.sleep(PROMISE).await;
    world.heal();
    let deadline = Deadline::new(world, SAME, HEALED);
    loop {
        let others = mesh.others();
        let mut missing = [mesh.different(&others).await, mesh.traces(&others).await].concat();
        missing.extend(mesh.registered());
        for out in [out_left, out_right] {
            missing.extend(mesh.not_ended(out).await);
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let equal = deadline.waited();
    out_left.host.crash();
    out_right.host.crash();
    mesh.cluster.converge(HEALED).await?;
    Ok(equal)
}

/// The hubs withhold a revocation, and the members learn it from each other.
async fn withheld(world: World, mesh: &mut Mesh<'_>) -> Result<Duration, Violation> {
    mesh.cluster.hubs.iter().for_each(SimHub::withhold_revocations);
    let others = mesh.others();
    let (by, victim, away) = (&others[0], &others[1], &others[2]);
    away.host.crash();
    let deadline = Deadline::new(world, GONE, PROMISE);
    mesh.revoke(by, &victim.name, victim.key).await?;
    let others: Vec<Peer> = mesh.others().into_iter().filter(|peer| peer.key != away.key).collect();
    while deadline.still_missing([mesh.traces(&others).await, mesh.different(&others).await].concat()).await?
    {
    }
    let learned = deadline.waited();
    victim.host.crash();
    away.host.restart();
    let deadline = Deadline::new(world, SAME, MEET);
    let all = mesh.others();
    while deadline.still_missing([mesh.traces(&all).await, mesh.different(&all).await].concat()).await? {}
    mesh.cluster.converge(MEET).await?;
    Ok(learned)
}
