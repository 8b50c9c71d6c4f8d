//! Replicas converge after churn, and no slot is corrupted.
//!
//! Five members with stores and an observer write to a counter, a set and a register, each at its own pace.
//! Meanwhile the plan that the seed drew breaks links, cuts groups off and kills processes, some in the middle of
//! a commit. Every member draws its replica id when its store is made, and meets the others when the faults let
//! it. Then all faults are healed: within a bound every owner's copy has the same bytes, all nodes read the same
//! value, and it fits the acknowledged writes ([`ledger`] gives the exact rule).
//!
//! Then members lose their disks, one after the other, with fresh writes on them, come back with empty ones, and
//! write again: the state on which the replicas had agreed stays, and the new writes count in full. Each of them,
//! and the observer, also tries to write a set under the counter's key: that is refused, and changes nothing.

pub(super) mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::plan::FaultKind;
use chaos::property::Broken;
use chaos::scenario::{Held, Knob, Mark, Trial, Turns, Verdict};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::node::Role;
use nurl::rt::{disk, task};
use rand_core::Rng as _;

use self::ledger::Ledger;
use crate::cluster::{Cluster, Map, Peer, Place, Within, secret, text};

/// The scenario's knobs.
pub const KNOBS: &[Knob] = &[
    Knob { name: "members", about: "nodes with a store", default: 5, least: 3, turns: Turns::Hosts },
    Knob {
        name: "writes",
        about: "writes of each node under faults",
        default: 40,
        least: 1,
        turns: Turns::Work,
    },
    Knob {
        name: "losses",
        about: "disks lost, one after the other",
        default: 2,
        least: 0,
        turns: Turns::Work,
    },
];

/// Fault kinds that a seed may draw.
pub const FAULTS: &[FaultKind] = &[
    FaultKind::Loss,
    FaultKind::Burst,
    FaultKind::Latency,
    FaultKind::Duplicate,
    FaultKind::Reorder,
    FaultKind::Partition,
    FaultKind::PartitionOneWay,
    FaultKind::Crash,
    FaultKind::PowerLoss,
    FaultKind::DiskCrash,
    FaultKind::Restart,
    FaultKind::Pause,
    FaultKind::PinCpu,
    FaultKind::HubKill,
];

/// Marks that some run has to reach.
pub const MARKS: &[Mark] = &[
    Mark::new("a write was cut off"),
    Mark::new("replicas differed when all was healed"),
    Mark::new("an acknowledged increment was lost with its disk"),
    Mark::new("an increment outlived its disk"),
];

/// The scenario's limit of virtual time.
pub const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

const OTHER_KIND: &str = "a write of another kind is refused";

const COUNTER: &str = "counter";
const SET: &str = "set";
const REGISTER: &str = "register";

const MEET: Duration = Duration::from_secs(30);

/// The time over which faults are drawn.
const SPAN: Duration = Duration::from_secs(25);

/// The longest time between two writes of a node, in milliseconds.
const PACE_MS: u64 = 1_000;

/// Replicas agree within this: an unacknowledged delta waits up to 60 s for its next turn, and a hub that comes
/// back is found within 30 s.
const AGREE: Duration = Duration::from_secs(120);

/// Number of writes right before a disk is lost, and after.
const FRESH: usize = 3;

/// Downtime of a restarted machine.
const DOWN: Duration = Duration::from_secs(2);

/// Runs the scenario.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(20),
        udp_loss: Rate::percent(3),
        tcp_loss: Rate::percent(1),
        ..LinkConfig::default()
    });
    let members = trial.knob("members") as usize;
    let disks: Disks = Arc::default();
    let folders = disks.clone();
    let map =
        Map::new(world).hub("hub").nodes(members, Place::Open).role("observer", Place::Open, Role::Observer);
    let cluster = map
        .build(move |builder, at| {
            if at.role == Role::Observer {
                return builder;
            }
            let disk = lock(&folders).get(&at.name).copied().unwrap_or_default();
            let folder = PathBuf::from(format!("/disk-{disk}"));
            // If the folder can't be made, opening the store fails and reports it.
            let _ = disk::create_dir_all(&folder);
            builder.store(&folder)
        })
        .start();
    cluster.converge(MEET).await?;

    let ledger = Arc::new(Mutex::new(Ledger::new(cluster.peers.len())));
    let writers: Vec<_> = cluster
        .peers
        .iter()
        .enumerate()
        .map(|(number, peer)| {
            let writer = Writer { world, number, peer: peer.clone(), ledger: ledger.clone(), next: 0 };
            task::spawn(writer.churn(trial.knob("writes")))
        })
        .collect();
    trial.unleash(&cluster.targets(), SPAN);
    world.sleep(SPAN).await;
    trial.heal().await;
    let mut next = Vec::new();
    for writer in writers {
        match writer.await {
            Ok(writer) => next.push(writer),
            Err(error) => return Err(Broken::safety("nothing panics", error.to_string())),
        }
    }
    cluster.converge(AGREE).await?;
    sometimes!(!differing(world, &cluster).await.is_empty(), "replicas differed when all was healed");
    let mut agreed = agree(world, &cluster, &ledger).await?;

    let mut draws = world.rng("disks");
    for _ in 0..trial.knob("losses") {
        let victim = (draws.next_u64() % members as u64) as usize;
        lose_disk(&cluster, &mut next[victim], &disks).await?;
        next[victim].mistake().await?;
        next[members].mistake().await?;
        agree(world, &cluster, &ledger).await?;
        let other = (victim + 1) % members;
        next[other].remove_one().await;
        agreed = agree(world, &cluster, &ledger).await?;
    }
    cluster.inspect().await?;
    let counted: u64 = lock(&ledger).counted().iter().sum();
    let state = format!("{} nodes agree, to the byte, on\n{agreed}", cluster.peers.len());
    let notes = format!("{counted} increments are counted\n");
    Ok(Held { state, notes })
}

/// How many disks each node has had.
type Disks = Arc<Mutex<BTreeMap<String, u32>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One node's application.
struct Writer {
    world: World,
    number: usize,
    peer: Peer,
    ledger: Arc<Mutex<Ledger>>,
    next: usize,
}

impl Writer {
    /// Makes drawn writes. No call has a time limit of its own: it ends with its process at the latest, so
    /// nothing is under way afterwards.
    async fn churn(mut self, writes: u64) -> Writer {
        let mut draws = self.world.rng(&format!("writer {}", self.number));
        for _ in 0..writes {
            self.world.sleep(Duration::from_millis(draws.next_u64() % PACE_MS)).await;
            match draws.next_u64() % 6 {
                0 => {
                    self.insert().await;
                }
                1 => self.set().await,
                2 => self.remove_own().await,
                _ => {
                    self.add().await;
                }
            }
        }
        self
    }

    /// Adds to the counter; returns whether that was acknowledged.
    async fn add(&mut self) -> bool {
        let counter = self.peer.node(&self.world).await.counter(COUNTER);
        lock(&self.ledger).adds(self.number);
        let done = counter.add(Ledger::weight(self.number)).await.is_ok();
        if done {
            lock(&self.ledger).added(self.number);
        }
        sometimes!(!done, "a write was cut off");
        done
    }

    /// Inserts a new element; returns it if that was acknowledged.
    async fn insert(&mut self) -> Option<String> {
        let element = self.fresh("element");
        let set = self.peer.node(&self.world).await.set(SET);
        lock(&self.ledger).inserts(&element);
        set.insert(&secret(&element)).await.ok()?;
        lock(&self.ledger).inserted(&element);
        Some(element)
    }

    /// Removes one of the node's own elements. Its replicas may be unreachable, and unobserved elements aren't
    /// removed.
    async fn remove_own(&mut self) {
        let prefix = format!("element of {} ", self.number);
        let own = lock(&self.ledger).there().into_iter().find(|element| element.starts_with(&prefix));
        if let Some(element) = own {
            lock(&self.ledger).removes(&element);
            let set = self.peer.node(&self.world).await.set(SET);
            // The outcome is uncertain in either case.
            let _ = set.remove(&secret(&element)).await;
        }
    }

    /// Removes an element of any node, when all replicas agree.
    async fn remove_one(&mut self) {
        let one = lock(&self.ledger).there().into_iter().next();
        if let Some(element) = one {
            lock(&self.ledger).removes(&element);
            let set = self.peer.node(&self.world).await.set(SET);
            if set.remove(&secret(&element)).await.is_ok() {
                lock(&self.ledger).removed(&element);
            }
        }
    }

    /// Tries to write a set under the counter's key.
    async fn mistake(&mut self) -> Result<(), Broken> {
        let set = self.peer.node(&self.world).await.set(COUNTER);
        match set.insert(b"a mistake").await {
            Ok(()) => Err(Broken::safety(OTHER_KIND, format!("{} was told that it is done", self.peer.name))),
            Err(_) => Ok(()),
        }
    }

    async fn set(&mut self) {
        let text = self.fresh("text");
        let register = self.peer.node(&self.world).await.register(REGISTER);
        lock(&self.ledger).sets(&text);
        // The last write by the nodes' clocks wins, which this task can't determine.
        let _ = register.set(&secret(&text)).await;
    }

    fn fresh(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{what} of {} {:03}", self.number, self.next)
    }
}

/// A member writes, loses its disk at once, comes back with an empty one, and writes again.
async fn lose_disk(cluster: &Cluster, writer: &mut Writer, disks: &Disks) -> Result<(), Broken> {
    let world = writer.world;
    let mut fresh = Vec::new();
    for _ in 0..FRESH {
        writer.add().await;
        fresh.extend(writer.insert().await);
    }
    writer.peer.host.power_loss();
    *lock(disks).entry(writer.peer.name.clone()).or_default() += 1;
    lock(&writer.ledger).lost_disk(writer.number, &fresh);
    world.sleep(DOWN).await;
    writer.peer.host.restart();
    let mut acknowledged = 0;
    // A node that has met no other node has no owners to write to; after that it must accept writes.
    let within = Within::new(world, "a node that lost its disk writes again", AGREE);
    while acknowledged < FRESH {
        let done = writer.add().await;
        acknowledged += usize::from(done);
        within.lacks(if done { Vec::new() } else { vec!["an acknowledgement".to_owned()] }).await?;
    }
    writer.insert().await;
    cluster.converge(AGREE).await
}

/// Waits until the replicas agree, checks the agreed values, and returns them as text.
async fn agree(world: World, cluster: &Cluster, ledger: &Mutex<Ledger>) -> Result<String, Broken> {
    let within = Within::new(world, "replicas that can talk agree", AGREE);
    while within.lacks(differing(world, cluster).await).await? {}
    let node = cluster.peers[0].node(&world).await;
    let failed = |error: nurl::Error| Broken::liveness("what all agree on can be read", error.to_string());
    let sum = node.counter(COUNTER).get().await.map_err(failed)?;
    let members = node.set(SET).members().await.map_err(failed)?;
    let set: BTreeSet<String> = members.iter().map(|member| text(member)).collect();
    let value = node.register(REGISTER).get().await.map_err(failed)?.map(|value| text(&value));
    let mut ledger = lock(ledger);
    let risked =
        ledger.agree(sum).map_err(|seen| Broken::safety("acknowledged increments count once", seen))?;
    sometimes!(risked.lost > 0, "an acknowledged increment was lost with its disk");
    sometimes!(risked.outlived > 0, "an increment outlived its disk");
    ledger.check_set(&set).map_err(|seen| Broken::safety("a set has what was put into it", seen))?;
    let of_somebody = |seen| Broken::safety("a register has what somebody wrote", seen);
    ledger.check_text(value.as_deref()).map_err(of_somebody)?;
    let mut told = String::new();
    for (peer, counted) in cluster.peers.iter().zip(ledger.counted()) {
        told += &format!("increments of {}: {counted}\n", peer.name);
    }
    set.iter().for_each(|element| told += &format!("in the set: {element}\n"));
    told += &format!("the register: {}\n", value.as_deref().unwrap_or("never written"));
    Ok(told)
}

/// Keys whose copies differ in their bytes, or whose readings differ between nodes.
async fn differing(world: World, cluster: &Cluster) -> Vec<String> {
    let mut missing = Vec::new();
    for key in [COUNTER, SET, REGISTER] {
        let (mut copies, mut reads) = (BTreeMap::new(), BTreeMap::new());
        for peer in cluster.running() {
            let node = peer.node(&world).await;
            if let Ok(Some(digest)) = node.held_digest(key).await {
                copies.entry(digest).or_insert_with(Vec::new).push(peer.name.clone());
            }
            let read = match key {
                COUNTER => node.counter(key).get().await.map(|sum| sum.to_string()),
                SET => node.set(key).members().await.map(|members| format!("{members:?}")),
                _ => node.register(key).get().await.map(|value| format!("{value:?}")),
            };
            let read = read.unwrap_or_else(|error| error.to_string());
            reads.entry(read).or_insert_with(Vec::new).push(peer.name.clone());
        }
        if copies.len() > 1 {
            missing.push(format!("one copy of {key}: {:?} differ", copies.values().collect::<Vec<_>>()));
        }
        if reads.len() > 1 {
            missing.push(format!("one reading of {key}: {:?} differ", reads.values().collect::<Vec<_>>()));
        }
    }
    missing
}
