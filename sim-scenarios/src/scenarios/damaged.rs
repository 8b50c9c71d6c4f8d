//! Stores that are gone, overwritten, cut short, or have wrong bits, and what becomes of their nodes.
//!
//! A hub and seven workers with stores, each of which has counted. One after the other, six of them are killed, somebody
//! damages the file of their store in a way of its own ([`Damage`]), and they start again.
//!
//! - Each notices it at its start, says so, and has put the damaged file aside with all its bytes; nothing that is left of
//!   it is read as if it were sound.
//! - It is alive in all views within seconds, and has its copies again from the other owners within a quarter of a minute.
//! - It counts on: nobody takes what it counts now for what it had counted before, and nothing is lost.
//! - Its new store is sound: after another restart it still is there, and nothing more is put aside.
//!
//! The seventh refuses to start with a damaged store, as it was told to. It leaves the file as it is until somebody has put
//! back what was there, and then goes on with all of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::Host;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::Kind;
use nurl::rt::disk;

use crate::cluster::{Cluster, Deadline, Peer, copies};
use crate::lock::lock;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a damaged store was put aside"),
        Mark::new("a node refused to start with a damaged store"),
    ],
    ..Scenario::new(
        "damaged",
        "stores are gone, overwritten, cut or have wrong bits: it is noticed, and nothing is lost",
        |trial| Box::pin(run(trial)),
    )
};

const ASIDE: &str = "a damaged store is noticed, and put aside with all its bytes";
const BACK: &str = "a node whose store was damaged is alive in all views within seconds";
const WHOLE: &str = "a node without its store has its copies again within a quarter of a minute";
const COUNTS: &str = "nothing that was counted is lost, and what is counted after a loss counts";
const SOUND: &str = "the store in the place of a damaged one is sound";
const STRICT: &str = "a node that was told so leaves a damaged store alone, and doesn't start";
const RESTORED: &str = "a node whose store was put back goes on with it";

/// How long the first meeting may take.
const MEET: Duration = Duration::from_secs(60);
/// A process starts, registers with the hub and asks for tables. Gossip of its return may miss somebody, whom it then tells
/// by a probe of the rounds, two of which take as many seconds as there are members.
const BACK_WITHIN: Duration = Duration::from_secs(14);
/// A round of summaries, every 10 s, and what it leads to.
const WHOLE_WITHIN: Duration = Duration::from_secs(15);
/// A read asks all owners, for five seconds at most, and one that isn't answered is made again.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// A store writes a moment after the node has answered.
const WRITTEN: Duration = Duration::from_secs(3);
/// The supervisor starts a failed process again after a second, so it fails a few times.
const REFUSES: Duration = Duration::from_secs(5);
const REFUSED: usize = 3;

/// A node's folder, and its store in there.
const FOLDER: &str = "/node";
const STORE: &str = "/node/nurl.redb";
const MAX_STORE_BYTES: u64 = 64 << 20;
const PAGE_BYTES: usize = 4096;
const COUNTER: &str = "counted by all";
const BEFORE: i64 = 7;
const AFTER: i64 = 100;

/// How a store is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// The file was removed.
    Gone,
    /// Its first page is zeros.
    Zeros,
    /// It begins as another program's file.
    Foreign,
    /// It ends in the middle.
    Cut,
    /// One bit of each page is another one.
    Bits,
    /// One bit of a record's name is another one, and all else is sound.
    Name,
}

const DAMAGES: [Damage; 6] =
    [Damage::Gone, Damage::Zeros, Damage::Foreign, Damage::Cut, Damage::Bits, Damage::Name];

impl Damage {
    fn of(self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Damage::Gone => return None,
            Damage::Zeros => bytes[..PAGE_BYTES].fill(0),
            Damage::Foreign => bytes[..16].copy_from_slice(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
            Damage::Cut => bytes.truncate(bytes.len() / 2),
            Damage::Bits => bytes.chunks_mut(PAGE_BYTES).for_each(|page| page[page.len() / 3] ^= 1 << 3),
            Damage::Name => {
                let name = COUNTER.as_bytes();
                let is_there = |at: &usize| bytes[*at..].starts_with(name);
                let places: Vec<usize> = (0..bytes.len()).filter(is_there).collect();
                assert!(!places.is_empty(), "the store has the counter");
                places.into_iter().for_each(|at| bytes[at] ^= 1);
            }
        }
        Some(bytes)
    }
}

/// What somebody does on the nodes' machines before their processes start.
#[derive(Clone, Default)]
struct Meddler(Arc<Mutex<BTreeMap<String, Meddled>>>);

#[derive(Default)]
struct Meddled {
    damage: Option<Damage>,
    /// Puts the sound file back.
    restores: bool,
    sound: Vec<u8>,
    /// The file as it was left; `None` if it was removed.
    damaged: Option<Vec<u8>>,
    starts: usize,
}

impl Meddler {
    fn of<R>(&self, name: &str, f: impl FnOnce(&mut Meddled) -> R) -> R {
        f(lock(&self.0).entry(name.to_owned()).or_default())
    }

    /// A process is about to start.
    fn starts(&self, name: &str) {
        self.of(name, |meddled| {
            meddled.starts += 1;
            let path = Path::new(STORE);
            if let Some(damage) = meddled.damage.take() {
                meddled.sound = disk::read(path, MAX_STORE_BYTES).expect("there is a store");
                meddled.damaged = damage.of(meddled.sound.clone());
                match &meddled.damaged {
                    Some(bytes) => disk::atomic_replace(path, bytes).expect("the disk works"),
                    None => disk::remove(path).expect("the disk works"),
                }
            }
            if std::mem::take(&mut meddled.restores) {
                disk::atomic_replace(path, &meddled.sound).expect("the disk works");
            }
        });
    }
}

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let meddler = Meddler::default();
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub").workers(DAMAGES.len()).worker("strict");
    let hook = meddler.clone();
    let stage = stage.configure(move |builder, setup| {
        if setup.role == Role::Worker {
            hook.starts(&setup.name);
        }
        let builder = with_store(builder, FOLDER);
        if setup.name == "strict" { builder.store_strict() } else { builder }
    });
    let cluster = stage.meet(MEET).await?;
    let mut counted = 0;
    for peer in &cluster.peers {
        add(&cluster, peer, BEFORE, &mut counted).await?;
    }
    all_read(&cluster, counted, COUNTS).await?;
    let [victims @ .., strict] = &cluster.peers[..] else { unreachable!("there are seven") };
    for (peer, damage) in victims.iter().zip(DAMAGES) {
        world.sleep(WRITTEN).await;
        // What was closed in good order isn't repaired when it is opened, and so not looked through by the way.
        if damage == Damage::Name {
            peer.node(&world).await.shutdown().await;
        }
        peer.host.crash();
        meddler.of(&peer.name, |meddled| meddled.damage = Some(damage));
        peer.host.restart();
        back(&cluster, BACK).await?;
        put_aside(&cluster, peer, damage, &meddler).await?;
        all_read(&cluster, counted, WHOLE).await?;
        add(&cluster, peer, AFTER, &mut counted).await?;
        all_read(&cluster, counted, COUNTS).await?;

        world.sleep(WRITTEN).await;
        peer.host.restart();
        back(&cluster, SOUND).await?;
        all_read(&cluster, counted, SOUND).await?;
        let aside = cluster.witness.set_aside(&peer.name).len();
        if aside != 1 {
            return Err(Violation::safety(SOUND, format!("{} put {aside} stores aside", peer.name)));
        }
    }
    stays_out(&cluster, strict, &meddler).await?;
    back(&cluster, RESTORED).await?;
    add(&cluster, strict, AFTER, &mut counted).await?;
    all_read(&cluster, counted, RESTORED).await?;
    if !cluster.witness.set_aside(&strict.name).is_empty() {
        return Err(Violation::safety(RESTORED, "it put its store aside"));
    }
    cluster.inspect().await?;
    let state = format!("{}all read {counted}\n", cluster.views().await);
    Ok(Passed { state, notes: String::new() })
}

/// Counts at a node; the answer says that owners have it.
async fn add(cluster: &Cluster, peer: &Peer, more: i64, counted: &mut i128) -> Result<(), Violation> {
    let counter = peer.node(&cluster.world()).await.counter(COUNTER);
    let failed = |error: nurl::Error| Violation::liveness(COUNTS, format!("{} counts: {error}", peer.name));
    counter.add(more).await.map_err(failed)?;
    *counted += i128::from(more);
    Ok(())
}

/// All see each other again.
async fn back(cluster: &Cluster, property: &'static str) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), property, BACK_WITHIN);
    while deadline.still_missing(cluster.missing().await).await? {}
    Ok(())
}

/// The owners hold what was counted, the same bytes at each, and then all nodes read it.
async fn all_read(cluster: &Cluster, counted: i128, property: &'static str) -> Result<(), Violation> {
    let all: Vec<_> = cluster.running().collect();
    let deadline = Deadline::new(cluster.world(), property, WHOLE_WITHIN);
    loop {
        let (values, mut missing) = cluster.copies(&[(Kind::Counter, COUNTER)], &all).await;
        let held = copies::sum(values.first().and_then(Option::as_ref));
        if missing.is_empty() && held != counted {
            missing.push(format!("the owners hold {held} of {counted}"));
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let deadline = Deadline::new(cluster.world(), property, READ_WITHIN);
    loop {
        let mut missing = Vec::new();
        for peer in &all {
            let sum = peer.node(&cluster.world()).await.counter(COUNTER).get().await;
            if !matches!(sum, Ok(sum) if sum == counted) {
                missing.push(format!("{} reads {sum:?} of {counted}", peer.name));
            }
        }
        if !deadline.still_missing(missing).await? {
            return Ok(());
        }
    }
}

/// The file of a node's store on its disk, as another program on the machine reads it.
async fn read(host: Host, path: PathBuf) -> Option<Vec<u8>> {
    host.run(async move { disk::read(&path, MAX_STORE_BYTES).ok() }).await.ok().flatten()
}

/// The node has said that it put its store aside, and what lies there is what was damaged.
async fn put_aside(
    cluster: &Cluster,
    peer: &Peer,
    damage: Damage,
    meddler: &Meddler,
) -> Result<(), Violation> {
    let damaged = meddler.of(&peer.name, |meddled| meddled.damaged.clone());
    let broken = |seen: &str| Err(Violation::safety(ASIDE, format!("{}, {damage:?}: {seen}", peer.name)));
    let aside = cluster.witness.set_aside(&peer.name);
    let [path] = &aside[..] else { return broken(&format!("it put aside {aside:?}")) };
    match (path, damaged) {
        (None, None) => {}
        (Some(path), Some(damaged)) => {
            if read(peer.host, path.clone()).await.as_ref() != Some(&damaged) {
                return broken("other bytes lie there");
            }
        }
        (path, _) => return broken(&format!("it put it at {path:?}")),
    }
    sometimes!(true, "a damaged store was put aside");
    Ok(())
}

/// A node refuses its damaged store, however often it is started, until the sound one is back.
async fn stays_out(cluster: &Cluster, strict: &Peer, meddler: &Meddler) -> Result<(), Violation> {
    let world = cluster.world();
    world.sleep(WRITTEN).await;
    strict.host.crash();
    let before = meddler.of(&strict.name, |meddled| {
        meddled.damage = Some(Damage::Bits);
        meddled.starts
    });
    strict.host.restart();
    world.sleep(REFUSES).await;
    let broken = |seen: String| Err(Violation::safety(STRICT, seen));
    let (starts, damaged) = meddler.of(&strict.name, |meddled| (meddled.starts, meddled.damaged.clone()));
    if starts - before < REFUSED {
        return broken(format!("of {} starts in {REFUSES:?} one was kept", starts - before));
    }
    if read(strict.host, STORE.into()).await != damaged {
        return broken("the file has other bytes".to_owned());
    }
    sometimes!(true, "a node refused to start with a damaged store");
    meddler.of(&strict.name, |meddled| meddled.restores = true);
    strict.host.restart();
    Ok(())
}
