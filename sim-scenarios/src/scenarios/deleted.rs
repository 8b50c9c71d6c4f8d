//! What becomes of deleted objects, and of replicas that were away while they were deleted.
//!
//! A hub, four workers with stores and an observer. By the standard the mark of a deletion is kept for 30 days; here it is a
//! minute ([`KEPT_FOR`]). Objects of all kinds are written. Then, four times, some of them are deleted while a worker is away:
//!
//! 1. for less than a mark is kept, killed; then it writes, cut off, to one that is deleted at that moment;
//! 2. for longer, killed: its store has them all;
//! 3. for longer, cut off from everybody with its process running;
//! 4. killed, while objects expire instead of being deleted.
//!
//! - What was deleted or has expired is shown by nobody from then on, also when the worker is back.
//! - What was written at the same time, and what nobody deleted, keeps its value.
//! - All forget the marks in time.
//! - A worker that was away for longer says how many objects it has discarded.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::Kind;
use nurl::rt::Table;
use nurl::{Error, Node};

use crate::cluster::{Cluster, Deadline, Peer, copies};
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a replica that was away for longer than marks are kept discarded what was deleted"),
        Mark::new("a write at the same time as a deletion stayed"),
        Mark::new("an object expired while an owner of it was away"),
    ],
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "deleted",
        "what is deleted stays gone, whoever was away meanwhile, and for however long",
        |trial| Box::pin(run(trial)),
    )
};

const GONE: &str = "what was deleted or has expired is shown by nobody any more";
const STAYS: &str = "what nobody deleted, and what was written at the same time, keeps its value";
const MADE: &str = "a write and a deletion are made while the owners can be reached";
const FORGOTTEN: &str = "all forget the mark of a deletion in time";
const SAID: &str = "a replica that was away for longer says what it has discarded";
const BACK: &str = "a worker that was away is alive in all views again";

const MEET: Duration = Duration::from_secs(60);
/// In place of 30 days.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// An observer's write waits for a minute at a member that isn't known to be dead; then it is made at another one.
const MADE_WITHIN: Duration = Duration::from_secs(90);
/// Two rounds of summaries. Then each owner knows that its copy lacks nothing of the others', also when one of them is away
/// afterwards: before, a deletion fails, since it may not know all that it has to remove.
const SPREAD: Duration = Duration::from_secs(25);
/// Clocks of the world differ by nothing here; marks are looked at each second, and each holder keeps its own.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(KEPT_FOR.as_secs() + 15);
/// A death takes as long to be certain, and so do the stand-ins to act.
const CERTAIN: Duration = Duration::from_secs(35);
const SHORT: Duration = Duration::from_secs(45);
const LONG: Duration = Duration::from_secs(150);
/// An observer hears of a return with its next exchange of tables, every 30 s.
const BACK_WITHIN: Duration = Duration::from_secs(45);
/// Two rounds of summaries, and the questions of a replica that was away for long.
const SETTLED: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(20);

const WORKERS: usize = 4;
const KINDS: [Kind; 5] = Kind::ALL;

/// The objects of an act: one of each kind is deleted, one stays.
fn doomed(act: u8) -> String {
    format!("doomed in act {act}")
}

const KEPT: &str = "kept";
const BESIDE: &str = "written beside its deletion";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub").workers(WORKERS);
    let stage = stage.node("observer", Role::Observer).configure(|builder, setup| {
        if setup.role == Role::Worker { with_store(builder, "/node") } else { builder }
    });
    let cluster = stage.meet(MEET).await?;
    for peer in &cluster.peers {
        peer.host.set_bound(Table::MarkLife.name(), KEPT_FOR.as_secs() as usize);
    }
    let act = Act { cluster: &cluster, observer: cluster.peers[WORKERS].clone() };
    let mut kept = 0;
    for number in 1..=4 {
        for kind in KINDS {
            act.write(kind, &doomed(number)).await?;
        }
        act.write(Kind::Counter, KEPT).await?;
        kept += 1;
        world.sleep(SPREAD).await;
        let away = cluster.peers[usize::from(number) % WORKERS].clone();
        match number {
            1 => act.short(&away).await?,
            2 => act.long(&away, number).await?,
            3 => act.cut_off(&away, number).await?,
            _ => act.expiring(&away, number).await?,
        }
        act.holds(KEPT, kept).await?;
    }
    cluster.inspect().await?;
    let state = format!("{} objects were deleted four times over, and {KEPT} is {kept}\n", KINDS.len());
    Ok(Passed { state, notes: String::new() })
}

/// Sleeps until the world's clock shows this.
async fn until(world: World, at: Duration) {
    world.sleep(at.saturating_sub(world.elapsed())).await;
}

#[derive(Clone, Copy)]
enum Write {
    Add,
    End(Option<Duration>),
}

async fn add(node: &Node, kind: Kind, name: &str) -> Result<(), Error> {
    match kind {
        Kind::Counter => node.counter(name).add(1).await,
        Kind::Register => node.register(name).set(b"v").await,
        Kind::Set => node.set(name).insert(b"e").await,
        Kind::Multi => node.multi(name).set(b"v").await,
        Kind::Map => node.map(name).add(b"f", 1).await,
    }
}

async fn end(node: &Node, kind: Kind, name: &str, ttl: Option<Duration>) -> Result<(), Error> {
    macro_rules! end {
        ($object:expr) => {
            match ttl {
                None => $object.delete().await,
                ttl => $object.expire_in(ttl).await,
            }
        };
    }
    match kind {
        Kind::Counter => end!(node.counter(name)),
        Kind::Register => end!(node.register(name)),
        Kind::Set => end!(node.set(name)),
        Kind::Multi => end!(node.multi(name)),
        Kind::Map => end!(node.map(name)),
    }
}

struct Act<'a> {
    cluster: &'a Cluster,
    observer: Peer,
}

impl Act<'_> {
    async fn observing(&self) -> Node {
        self.observer.node(&self.cluster.world()).await
    }

    /// Writes to an object, until it is made.
    async fn write(&self, kind: Kind, name: &str) -> Result<(), Violation> {
        // An addition that is `Unknown` isn't made twice: all owners are there.
        self.made(kind, name, Write::Add).await
    }

    /// Deletes an object, or lets it expire, until it is made.
    async fn end(&self, kind: Kind, name: &str, ttl: Option<Duration>) -> Result<(), Violation> {
        self.made(kind, name, Write::End(ttl)).await
    }

    /// Tries until it is made: an owner may just have gone.
    async fn made(&self, kind: Kind, name: &str, write: Write) -> Result<(), Violation> {
        let deadline = Deadline::new(self.cluster.world(), MADE, MADE_WITHIN);
        loop {
            let node = self.observing().await;
            let made = match write {
                Write::Add => add(&node, kind, name).await,
                Write::End(ttl) => end(&node, kind, name, ttl).await,
            };
            let missing = made.err().map(|error| format!("{name}: {error}"));
            if !deadline.still_missing(missing.into_iter().collect()).await? {
                return Ok(());
            }
        }
    }

    /// Who shows something of the act's objects.
    async fn showing(&self, number: u8) -> Vec<String> {
        let (name, mut showing) = (doomed(number), Vec::new());
        for peer in self.cluster.running().filter(|peer| peer.role == Role::Worker) {
            for kind in KINDS {
                let held = self.cluster.held(peer, (kind, &name)).await;
                if held.is_some_and(|value| !value.is_empty()) {
                    showing.push(format!("{} shows the {kind:?} of act {number}", peer.name));
                }
            }
        }
        showing
    }

    /// From now on nobody but `away`, until it has settled, shows them; then nobody does.
    async fn stays_gone(&self, number: u8, away: &Peer) -> Result<(), Violation> {
        let world = self.cluster.world();
        let (until, other) = (world.elapsed() + SETTLED, format!("{} ", away.name));
        loop {
            let mut showing = self.showing(number).await;
            if world.elapsed() < until {
                showing.retain(|who| !who.starts_with(&other));
            }
            if !showing.is_empty() {
                return Err(Violation::safety(GONE, showing.join(", ")));
            }
            if world.elapsed() >= until {
                return Ok(());
            }
            world.sleep(LOOK).await;
        }
    }

    async fn back(&self) -> Result<(), Violation> {
        let deadline = Deadline::new(self.cluster.world(), BACK, BACK_WITHIN);
        while deadline.still_missing(self.cluster.missing().await).await? {}
        Ok(())
    }

    /// Within a bound the owners hold this sum.
    async fn holds(&self, name: &str, sum: i128) -> Result<(), Violation> {
        let deadline = Deadline::new(self.cluster.world(), STAYS, SETTLED);
        loop {
            let workers: Vec<_> = self.cluster.running().filter(|peer| peer.role == Role::Worker).collect();
            let held = self.cluster.agreed(STAYS, SETTLED, &[(Kind::Counter, name)], &workers).await?;
            let held = copies::sum(held[0].as_ref());
            let wrong = (held != sum).then(|| format!("the owners hold {held} of {name}, not {sum}"));
            if !deadline.still_missing(wrong.into_iter().collect()).await? {
                return Ok(());
            }
        }
    }

    async fn delete_all(&self, number: u8) -> Result<(), Violation> {
        for kind in KINDS {
            self.end(kind, &doomed(number), None).await?;
        }
        Ok(())
    }

    async fn forgotten(&self, number: u8) -> Result<(), Violation> {
        let (world, name) = (self.cluster.world(), doomed(number));
        world.sleep(FORGOTTEN_WITHIN).await;
        for peer in self.cluster.running().filter(|peer| peer.role == Role::Worker) {
            for kind in KINDS {
                if self.cluster.held(peer, (kind, &name)).await.is_some() {
                    let seen =
                        format!("{} holds the mark of the {kind:?} after {FORGOTTEN_WITHIN:?}", peer.name);
                    return Err(Violation::safety(FORGOTTEN, seen));
                }
            }
        }
        Ok(())
    }

    async fn short(&self, away: &Peer) -> Result<(), Violation> {
        let world = self.cluster.world();
        away.host.crash();
        let gone = world.elapsed();
        world.sleep(CERTAIN).await;
        self.delete_all(1).await?;
        until(world, gone + SHORT).await;
        away.host.restart();
        self.back().await?;
        self.stays_gone(1, away).await?;
        self.beside(away).await
    }

    /// A worker that can't hear of the deletion adds to what is deleted.
    async fn beside(&self, apart: &Peer) -> Result<(), Violation> {
        let world = self.cluster.world();
        self.write(Kind::Counter, BESIDE).await?;
        world.sleep(SPREAD).await;
        world.partition(&[apart.host], &self.others(apart));
        let added = apart.node(&world).await.counter(BESIDE).add(10).await;
        // Another worker deletes it, which doesn't wait for the one that is cut off for as long as an observer may.
        let mut others = self.cluster.running().filter(|peer| peer.role == Role::Worker);
        let other = others.find(|peer| peer.host != apart.host).expect("there are four");
        let deleted = end(&other.node(&world).await, Kind::Counter, BESIDE, None).await;
        world.heal();
        self.back().await?;
        // It was told to be made, or to be on its way.
        if deleted.is_ok() && matches!(added, Ok(()) | Err(Error::Unconfirmed { .. })) {
            self.holds(BESIDE, 10).await?;
            sometimes!(true, "a write at the same time as a deletion stayed");
        }
        Ok(())
    }

    /// Everybody else, the hub included.
    fn others(&self, apart: &Peer) -> Vec<Host> {
        let hosts = self.cluster.peers.iter().map(|peer| peer.host).chain([self.cluster.hubs[0].host]);
        hosts.filter(|host| *host != apart.host).collect()
    }

    async fn long(&self, away: &Peer, number: u8) -> Result<(), Violation> {
        let world = self.cluster.world();
        away.host.crash();
        let gone = world.elapsed();
        world.sleep(CERTAIN).await;
        self.delete_all(number).await?;
        self.forgotten(number).await?;
        until(world, gone + LONG).await;
        away.host.restart();
        self.comes_back(away, number).await
    }

    async fn cut_off(&self, away: &Peer, number: u8) -> Result<(), Violation> {
        let world = self.cluster.world();
        world.partition(&[away.host], &self.others(away));
        let gone = world.elapsed();
        world.sleep(CERTAIN).await;
        self.delete_all(number).await?;
        // The one that is cut off keeps what it has.
        until(world, gone + LONG).await;
        world.heal();
        self.comes_back(away, number).await
    }

    async fn comes_back(&self, away: &Peer, number: u8) -> Result<(), Violation> {
        self.back().await?;
        self.stays_gone(number, away).await?;
        let discarded = self.cluster.metric(away, "state.discarded").await;
        if discarded == 0 {
            return Err(Violation::safety(SAID, format!("{} has discarded nothing", away.name)));
        }
        sometimes!(true, "a replica that was away for longer than marks are kept discarded what was deleted");
        Ok(())
    }

    async fn expiring(&self, away: &Peer, number: u8) -> Result<(), Violation> {
        let world = self.cluster.world();
        for kind in KINDS {
            self.end(kind, &doomed(number), Some(TTL)).await?;
        }
        let set = world.elapsed();
        if self.showing(number).await.is_empty() {
            return Err(Violation::safety(STAYS, "an object expired before its time".to_owned()));
        }
        away.host.crash();
        until(world, set + TTL + Duration::from_secs(3)).await;
        away.host.restart();
        self.back().await?;
        self.stays_gone(number, away).await?;
        sometimes!(true, "an object expired while an owner of it was away");
        Ok(())
    }
}
