//! The authority rotates the mesh's secret while it is in use: nothing is lost, the revoked get none of it, and in the end
//! the old one opens nothing.
//!
//! Four workers (with stores or without, by the seed) and a member; a hub that issues passes, and a blind one that doesn't.
//!
//! **In use.** A worker goes away, another is revoked, and the member rotates. All others send each other datagrams, reliable
//! messages and group messages meanwhile, past the minute in which the old secret comes first, and past the rekeying of every
//! session. All messages arrive, and no session is begun anew. The one that was away comes back with its old ticket: it
//! has the new secret, and doesn't know the revoked one, which comes back too, and gets nothing.
//!
//! **Over.** The issuing hub dies, a worker goes away, and the member rotates again: now it is its own node that hands out the
//! secret. (Its clock is said to be late, so that the seven days end within minutes.) With the secret before, kept in a store,
//! the worker comes back; with an older one it doesn't. When the seven days are over, neither does: it is a stranger, and
//! so is an [insider](crate::insider) with a pass that counts and the ticket of before. The hub is back, and so is the worker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::authority::rotation::ACCEPTED_FOR;
use nurl::internals::key::AllowList;
use nurl::internals::membership::State;
use nurl::internals::node::Role;
use nurl::internals::transport::channel;
use nurl::rt::time;

use crate::cluster::{Cluster, Deadline, Peer, Traffic, secret, text};
use crate::insider::{Insider, Received, wire};
use crate::lock::lock;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a worker with the secret before came back within its seven days"),
        Mark::new("a worker with an older secret was a stranger until the hub was back"),
    ],
    time_limit: Duration::from_secs(30 * 60),
    ..Scenario::new(
        "rotation",
        "the mesh gets another secret in use: nothing is lost, the revoked get none, the old one opens nothing in the end",
        |trial| Box::pin(run(trial)),
    )
};

const HANDED: &str = "a rotation reaches all that have a pass";
const GONE: &str = "a revoked node is nobody's member";
const LOST: &str = "no message is lost by a rotation";
const ENDED: &str = "no session ends by a rotation";
const REVOKED: &str = "a revoked node gets no secret";
const STRANGER: &str = "after seven days the old secret opens nothing";

const WORKERS: usize = 4;

const MEET: Duration = Duration::from_secs(60);

/// How soon everybody who can be reached has the new secret: round trips to a hub.
const SOON: Duration = Duration::from_secs(5);

/// How long the others talk after a rotation: the old secret comes first for a minute, and a session is rekeyed after two.
const TALK: Duration = Duration::from_secs(150);

/// Between two messages of each kind, and the longest silence of datagrams that a path of 25 ms may show.
const EVERY: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(600);

/// How much of the seven days is left at the second rotation.
const LEFT: Duration = Duration::from_secs(150);

/// The life of a session that can't be rekeyed.
const SESSION: Duration = Duration::from_secs(200);

/// How long a stranger tries.
const TRIES: Duration = Duration::from_secs(40);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stored = world.seed().is_multiple_of(2);
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub").blind_hub("blind hub");
    let stage = stage.workers(WORKERS).member("office").configure(move |builder, setup| match setup.role {
        Role::Worker if stored => with_store(builder, "/node"),
        _ => builder,
    });
    let cluster = stage.meet(MEET).await?;
    let notes = in_use(world, &cluster).await?;
    over(world, &cluster, stored).await?;
    cluster.inspect().await?;
    let mut state = String::new();
    for peer in &cluster.peers {
        state += &format!("{} got {:?}\n", peer.name, cluster.witness.secrets(&peer.name));
    }
    Ok(Passed { state, notes })
}

/// The nodes among these that haven't this generation of the secret.
async fn behind(world: World, peers: &[&Peer], generation: u32) -> Vec<String> {
    let mut behind = Vec::new();
    for peer in peers {
        let status = peer.node(&world).await.status().await;
        match status.map(|status| status.generation) {
            Ok(has) if has == generation => {}
            Ok(has) => behind.push(format!("{} has {has}", peer.name)),
            Err(error) => behind.push(format!("{}: {error}", peer.name)),
        }
    }
    behind
}

async fn in_use(world: World, cluster: &Cluster) -> Result<String, Violation> {
    let [a, b, victim, away, office] = &cluster.peers[..] else { unreachable!("five nodes") };
    let others = [a, b, office];
    away.host.crash();
    let told = office.node(&world).await.revoke(cluster.revocation(&victim.key)).await;
    told.map_err(|error| Violation::liveness(HANDED, error.to_string()))?;
    let gone = Deadline::new(world, GONE, SOON);
    while gone.still_missing(known_at(cluster, &others, victim).await).await? {}

    let talk = Talk::start(world, &others).await;
    let traffic = Traffic::default();
    for peer in others {
        let to = others.iter().filter(|other| other.key != peer.key).map(|other| other.key).collect();
        traffic.hear(world, peer).await;
        traffic.speak(world, peer, to, EVERY).await;
    }
    world.sleep(Duration::from_secs(5)).await;
    let (since, met) = (world.elapsed(), sessions(world, &others).await);
    let handed = office.node(&world).await.rotate(cluster.rotation(1, Duration::ZERO)).await;
    match handed {
        Ok(handed) if handed.by_hub => {}
        other => return Err(Violation::liveness(HANDED, format!("{other:?}"))),
    }
    let deadline = Deadline::new(world, HANDED, SOON);
    while deadline.still_missing(behind(world, &others, 1).await).await? {}
    let handed = deadline.waited();
    world.sleep(TALK).await;
    let until = world.elapsed();
    if sessions(world, &others).await != met {
        return Err(Violation::safety(ENDED, "a node has met another one again"));
    }
    traffic.stop();
    talk.stop();
    world.sleep(Duration::from_secs(5)).await;
    talk.all_arrived(&others)?;
    for (from, to) in pairs(&others) {
        let pause = traffic.longest_pause(from.key, to.key, since, until);
        if pause > PAUSE {
            let seen = format!("{} heard nothing of {} for {pause:?}", to.name, from.name);
            return Err(Violation::safety(LOST, seen));
        }
    }

    // The one that was away has the old ticket, and perhaps its store. The revoked one has its old pass.
    away.host.restart();
    victim.host.crash();
    victim.host.restart();
    let deadline = Deadline::new(world, HANDED, MEET);
    loop {
        let missing =
            [behind(world, &[away], 1).await, known_at(cluster, &[a, b, office, away], victim).await];
        if !deadline.still_missing(missing.concat()).await? {
            break;
        }
    }
    world.sleep(TRIES).await;
    if !cluster.witness.secrets(&victim.name).is_empty() {
        return Err(Violation::safety(REVOKED, format!("{} got one", victim.name)));
    }
    victim.host.crash();
    cluster.converge(MEET).await?;
    Ok(format!("handed after {handed:?}\n"))
}

async fn over(world: World, cluster: &Cluster, stored: bool) -> Result<(), Violation> {
    let [late, b, _, away, office] = &cluster.peers[..] else { unreachable!("five nodes") };
    let others = [b, away, office];
    // The ticket that was printed after the first rotation.
    let mut ticket = cluster.ticket.clone();
    let first = cluster.rotation(1, Duration::ZERO);
    ticket.rotate(&first.secret, first.secret.made);
    let key = nurl::SecretKey::generate(&mut world.rng("insider eve"));
    late.host.crash();
    cluster.hubs[0].kill();
    let accepted = Duration::from_secs(ACCEPTED_FOR.into());
    let rotation = cluster.rotation(2, accepted - LEFT);
    let end = world.elapsed() + LEFT;
    let handed = office.node(&world).await.rotate(rotation).await;
    match handed {
        Ok(handed) if !handed.by_hub && handed.members == 2 => {}
        other => return Err(Violation::liveness(HANDED, format!("{other:?}"))),
    }
    let deadline = Deadline::new(world, HANDED, SOON);
    while deadline.still_missing(behind(world, &others, 2).await).await? {}

    late.host.restart();
    if stored {
        let back = Deadline::new(world, "with the secret before a node comes back", MEET);
        while back.still_missing(cluster.missing().await).await? {}
        sometimes!(true, "a worker with the secret before came back within its seven days");
    } else {
        stranger(world, cluster, &others, late).await?;
    }
    world.sleep(end.saturating_sub(world.elapsed()) + SESSION).await;
    late.host.crash();
    late.host.restart();
    let eve = Insider::with_key(world, cluster, "eve", key, &ticket);
    let asks = async {
        let until = world.elapsed() + TRIES;
        while world.elapsed() < until {
            for peer in others {
                eve.connect(peer.key);
                eve.send(peer.key, channel::MEMBERSHIP, wire::ping(7, 0));
            }
            world.sleep(Duration::from_secs(2)).await;
        }
    };
    asks.await;
    // The worker that has the old secret, too, announces itself under it.
    let of_others = |heard: &Received| others.iter().any(|peer| peer.key == heard.from);
    if let Some(heard) = eve.take_received().into_iter().find(of_others) {
        return Err(Violation::safety(STRANGER, format!("eve hears {:?}", heard.by)));
    }
    stranger(world, cluster, &others, late).await?;
    sometimes!(!stored, "a worker with an older secret was a stranger until the hub was back");
    eve.host.crash();

    cluster.hubs[0].restart();
    let back = Deadline::new(world, HANDED, 2 * MEET);
    while back.still_missing(behind(world, &[late, b, away, office], 2).await).await? {}
    cluster.converge(2 * MEET).await
}

/// A node with another secret than these opens nothing.
async fn stranger(world: World, cluster: &Cluster, others: &[&Peer], who: &Peer) -> Result<(), Violation> {
    let until = world.elapsed() + TRIES;
    while world.elapsed() < until {
        let mut seen = Vec::new();
        for peer in others {
            let state = cluster.view(peer).await.get(&who.key).copied();
            if state == Some(State::Alive) {
                seen.push(format!("{} sees {} alive", peer.name, who.name));
            }
            if cluster.view(who).await.get(&peer.key) == Some(&State::Alive) {
                seen.push(format!("{} sees {} alive", who.name, peer.name));
            }
        }
        // Its old process may have been alive until a moment ago.
        if !seen.is_empty() && until.saturating_sub(world.elapsed()) < TRIES / 2 {
            return Err(Violation::safety(STRANGER, seen.join("; ")));
        }
        world.sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// These nodes that know another one as anything.
async fn known_at(cluster: &Cluster, peers: &[&Peer], who: &Peer) -> Vec<String> {
    let mut known = Vec::new();
    for peer in peers {
        if let Some(state) = cluster.view(peer).await.get(&who.key) {
            known.push(format!("{} sees {} {}", peer.name, who.name, state.as_str()));
        }
    }
    known
}

/// How many sessions these nodes have begun with peers with whom they had none.
async fn sessions(world: World, peers: &[&Peer]) -> Vec<Option<u64>> {
    let mut met = Vec::new();
    for peer in peers {
        let metrics = peer.node(&world).await.metrics().await;
        met.push(metrics.ok().and_then(|metrics| metrics.get("session.established")));
    }
    met
}

fn pairs<'a>(peers: &'a [&'a Peer]) -> impl Iterator<Item = (&'a Peer, &'a Peer)> {
    peers
        .iter()
        .flat_map(move |from| peers.iter().filter(|to| to.key != from.key).map(move |to| (*from, *to)))
}

/// Reliable messages and group messages between all of some nodes.
#[derive(Clone, Default)]
struct Talk(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    stopped: bool,
    /// How many each node has sent to each other one, and to the group; which ones have arrived, in their order.
    sent: std::collections::BTreeMap<String, u64>,
    arrived: std::collections::BTreeMap<String, Vec<u64>>,
    failed: Vec<String>,
}

const GROUP: &str = "talk";

/// The first group frame that has to arrive: two seconds after the first one.
const FIRST: u64 = 10;

impl Talk {
    async fn start(world: World, peers: &[&Peer]) -> Talk {
        let talk = Talk::default();
        for peer in peers {
            let node = peer.node(&world).await;
            node.join_group(GROUP, AllowList::Anyone).await.expect("a node has room for a group");
            let (hearer, said, me) = (node.clone(), talk.clone(), peer.name.clone());
            peer.host.run(async move {
                while let Some((_, body)) = hearer.recv_message().await {
                    said.arrived(&me, "message", &body);
                }
            });
            let (hearer, said, me) = (node.clone(), talk.clone(), peer.name.clone());
            peer.host.run(async move {
                while let Some((_, _, body)) = hearer.recv_group().await {
                    said.arrived(&me, "group", &body);
                }
            });
        }
        // The joins reach the hubs.
        world.sleep(Duration::from_secs(2)).await;
        for (from, to) in pairs(peers) {
            let (node, said, to) = (from.node(&world).await, talk.clone(), to.clone());
            let line = format!("message {} {}", from.name, to.name);
            from.host.run(async move {
                while let Some(body) = said.next(&line) {
                    if let Err(error) = node.send_message(to.key, body).await {
                        said.failed(format!("{line}: {error}"));
                    }
                    time::sleep(EVERY).await;
                }
            });
        }
        for from in peers {
            let (node, said) = (from.node(&world).await, talk.clone());
            let line = format!("group {}", from.name);
            from.host.run(async move {
                while let Some(body) = said.next(&line) {
                    if let Err(error) = node.broadcast(GROUP, body).await {
                        said.failed(format!("{line}: {error}"));
                    }
                    time::sleep(EVERY).await;
                }
            });
        }
        talk
    }

    fn stop(&self) {
        lock(&self.0).stopped = true;
    }

    /// The next body of a line, if the talk goes on.
    fn next(&self, line: &str) -> Option<Bytes> {
        let mut said = lock(&self.0);
        if said.stopped {
            return None;
        }
        let number = said.sent.entry(line.to_owned()).or_default();
        *number += 1;
        Some(secret(&format!("{number}/{line}")))
    }

    fn failed(&self, what: String) {
        lock(&self.0).failed.push(what);
    }

    fn arrived(&self, at: &str, by: &str, body: &[u8]) {
        let body = text(body);
        let (number, line) = body.split_once('/').expect("a body has a number");
        assert!(line.starts_with(by), "{line} comes as a {by}");
        let line = format!("{line} at {at}");
        let number = number.parse().expect("a number");
        lock(&self.0).arrived.entry(line).or_default().push(number);
    }

    /// Checks that every message has arrived once, in its order. Without a key that is pulled beforehand, a sender's first
    /// frames in a group are lost, which is long before the rotation.
    fn all_arrived(&self, peers: &[&Peer]) -> Result<(), Violation> {
        let said = lock(&self.0);
        let mut lost = said.failed.clone();
        for (from, to) in pairs(peers) {
            for line in [format!("message {} {}", from.name, to.name), format!("group {}", from.name)] {
                let sent = said.sent.get(&line).copied().unwrap_or_default();
                let line = format!("{line} at {}", to.name);
                let arrived = said.arrived.get(&line).map_or(&[][..], Vec::as_slice);
                let first = if line.starts_with("group") { FIRST } else { 1 };
                let arrived: Vec<u64> = arrived.iter().copied().filter(|number| *number >= first).collect();
                let expected: Vec<u64> = (first..=sent).collect();
                if sent < 100 || arrived != expected {
                    let missing: Vec<_> =
                        expected.iter().filter(|number| !arrived.contains(number)).collect();
                    lost.push(format!("{line}: {} of {sent}, without {missing:?}", arrived.len()));
                }
            }
        }
        match lost.is_empty() {
            true => Ok(()),
            false => Err(Violation::safety(LOST, lost.join("; "))),
        }
    }
}
