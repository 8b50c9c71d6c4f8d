//! Replicas converge after churn, and no slot is corrupted.
//!
//! Five members with stores and an observer write to a counter, a set and a register, each at its own pace.
//! Meanwhile the plan that the seed drew breaks links, cuts groups off and kills processes, some in the middle of
//! a commit. Every member draws its replica id when its store is made, and meets the others when the faults let
//! it. A disk may also be full or fail: then its node goes on without writes until the disk works. Or it flips a bit, and a
//! node that finds its store damaged at its start says so and has lost its disk. Then all faults are healed: within a bound every owner holds the same bytes, though nobody reads, and
//! their value fits the acknowledged writes ([`ledger`] gives the exact rule). Only then do all nodes read it.
//!
//! Then members lose their disks, one after the other, with fresh writes on them, come back with empty ones, and
//! write again: the state on which the replicas had agreed stays, and the new writes count in full. Each of them,
//! and the observer, also writes a set under the counter's name: that is another object, and changes nothing in the counter.

pub(super) mod ledger;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::plan::FaultKind;
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::Kind;
use nurl::rt::task;
use rand_core::Rng as _;

use self::ledger::Ledger;
use self::writer::{COUNTER, REGISTER, SET, Writer};
use crate::cluster::copies::{self, Object};
use crate::cluster::{Cluster, Deadline, text};
use crate::lock::lock;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob { name: "members", about: "nodes with a store", default: 5, least: 3, turns: KnobKind::Hosts },
        Knob {
            name: "writes",
            about: "writes of each node under faults",
            default: 40,
            least: 1,
            turns: KnobKind::Work,
        },
        Knob {
            name: "losses",
            about: "disks lost, one after the other",
            default: 2,
            least: 0,
            turns: KnobKind::Work,
        },
    ],
    faults: &[
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
        FaultKind::DiskPowerLoss,
        FaultKind::DiskFull,
        FaultKind::DiskError,
        FaultKind::DiskFlip,
        FaultKind::DiskSlow,
        FaultKind::Restart,
        FaultKind::Pause,
        FaultKind::PinCpu,
        FaultKind::SlowCpu,
        FaultKind::HubKill,
        FaultKind::Buggify,
    ],
    points: nurl::rt::POINTS,
    marks: &[
        Mark::new("a write was cut off"),
        Mark::new("replicas differed when all was healed"),
        Mark::new("an acknowledged increment was lost with its disk"),
        Mark::new("an increment outlived its disk"),
    ],
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "churn",
        "replicas under drawn faults, and with disks lost: the same bytes everywhere, what was written in them",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(30);

/// The time over which faults are drawn.
const SPAN: Duration = Duration::from_secs(25);

/// Replicas agree within this: an unacknowledged delta waits up to 60 s for its next turn, and a hub that comes
/// back is found within 30 s.
const AGREE: Duration = Duration::from_secs(120);

/// A read asks all owners, for five seconds at most, and one that isn't answered is made again.
const READ: Duration = Duration::from_secs(10);

const OBJECTS: [Object<'_>; 3] = [(Kind::Counter, COUNTER), (Kind::Set, SET), (Kind::Register, REGISTER)];

/// Number of writes right before a disk is lost, and after.
const FRESH: usize = 3;

/// Downtime of a restarted machine.
const DOWN: Duration = Duration::from_secs(2);

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let members = trial.knob("members") as usize;
    let disks: Disks = Arc::default();
    let folders = disks.clone();
    let cluster = Stage::new(world)
        .links(LinkConfig { udp_loss: Rate::percent(3), tcp_loss: Rate::percent(1), ..link_ms(15, 20) })
        .hub("hub")
        .workers(members)
        .observer("observer")
        .configure(move |builder, setup| {
            if setup.role == Role::Observer {
                return builder;
            }
            let disk = lock(&folders).get(&setup.name).copied().unwrap_or_default();
            with_store(builder, format!("/disk-{disk}"))
        })
        .meet(MEET)
        .await?;

    let ledger = Arc::new(Mutex::new(Ledger::new(cluster.peers.iter().map(|peer| peer.name.clone()))));
    let writers: Vec<_> = cluster
        .peers
        .iter()
        .enumerate()
        .map(|(number, peer)| {
            let writer = Writer::new(world, number, peer.clone(), ledger.clone());
            task::spawn(writer.write_at_random(trial.knob("writes")))
        })
        .collect();
    trial.start_faults(&cluster.targets(), SPAN);
    world.sleep(SPAN).await;
    trial.heal().await;
    let mut next = Vec::new();
    for writer in writers {
        match writer.await {
            Ok(writer) => next.push(writer),
            Err(error) => return Err(Violation::safety("nothing panics", error.to_string())),
        }
    }
    cluster.converge(AGREE).await?;
    for writer in &next {
        if cluster.witness.has_lost_store(&writer.peer.name) {
            let own = writer.elements();
            lock(&ledger).lost_disk(writer.number, &own);
        }
    }
    let all: Vec<_> = cluster.running().collect();
    sometimes!(!cluster.copies(&OBJECTS, &all).await.1.is_empty(), "replicas differed when all was healed");
    let mut agreed = wait_until_agreed(world, &cluster, &ledger).await?;

    let mut draws = world.rng("disks");
    for _ in 0..trial.knob("losses") {
        let victim = (draws.next_u64() % members as u64) as usize;
        lose_disk(&cluster, &mut next[victim], &disks).await?;
        next[victim].write_namesake().await?;
        next[members].write_namesake().await?;
        wait_until_agreed(world, &cluster, &ledger).await?;
        let other = (victim + 1) % members;
        next[other].remove_one().await;
        agreed = wait_until_agreed(world, &cluster, &ledger).await?;
    }
    cluster.inspect().await?;
    let counted: u64 = lock(&ledger).counted().iter().sum();
    let state = format!("{} nodes agree, to the byte, on\n{agreed}", cluster.peers.len());
    let notes = format!("{counted} increments are counted\n");
    Ok(Passed { state, notes })
}

/// How many disks each node has had.
type Disks = Arc<Mutex<BTreeMap<String, u32>>>;

/// A member writes, loses its disk at once, comes back with an empty one, and writes again.
async fn lose_disk(cluster: &Cluster, writer: &mut Writer, disks: &Disks) -> Result<(), Violation> {
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
    let deadline = Deadline::new(world, "a node that lost its disk writes again", AGREE);
    while acknowledged < FRESH {
        let done = writer.add().await;
        acknowledged += usize::from(done);
        deadline.still_missing(if done { Vec::new() } else { vec!["an acknowledgement".to_owned()] }).await?;
    }
    writer.insert().await;
    cluster.converge(AGREE).await
}

/// Waits until the replicas agree, checks the agreed values, and returns them as text.
async fn wait_until_agreed(
    world: World,
    cluster: &Cluster,
    ledger: &Mutex<Ledger>,
) -> Result<String, Violation> {
    let all: Vec<_> = cluster.running().collect();
    let held = cluster.agreed("replicas that can talk agree", AGREE, &OBJECTS, &all).await?;
    let sum = copies::sum(held[0].as_ref());
    let set: BTreeSet<String> =
        copies::elements(held[1].as_ref()).iter().map(|member| text(member)).collect();
    let value = copies::content(held[2].as_ref()).map(|value| text(&value));
    let told = check(cluster, ledger, sum, &set, value.as_deref())?;
    let deadline = Deadline::new(world, "all read what the owners hold", READ);
    let agreed = (sum, &set, value.as_deref());
    while deadline.still_missing(wrong_readings(world, cluster, agreed).await).await? {}
    Ok(told)
}

/// Checks what the owners hold, and returns it as text.
fn check(
    cluster: &Cluster,
    ledger: &Mutex<Ledger>,
    sum: i128,
    set: &BTreeSet<String>,
    value: Option<&str>,
) -> Result<String, Violation> {
    let mut ledger = lock(ledger);
    let risked =
        ledger.agree(sum).map_err(|seen| Violation::safety("acknowledged increments count once", seen))?;
    sometimes!(risked.lost > 0, "an acknowledged increment was lost with its disk");
    sometimes!(risked.outlived > 0, "an increment outlived its disk");
    ledger.check_set(set).map_err(|seen| Violation::safety("a set has what was put into it", seen))?;
    let of_somebody = |seen| Violation::safety("a register has what somebody wrote", seen);
    ledger.check_text(value).map_err(of_somebody)?;
    let mut told = String::new();
    for (peer, counted) in cluster.peers.iter().zip(ledger.counted()) {
        told += &format!("increments of {}: {counted}\n", peer.name);
    }
    set.iter().for_each(|element| told += &format!("in the set: {element}\n"));
    told += &format!("the register: {}\n", value.unwrap_or("never written"));
    Ok(told)
}

/// The nodes' readings that differ from what the owners hold.
async fn wrong_readings(
    world: World,
    cluster: &Cluster,
    (sum, set, value): (i128, &BTreeSet<String>, Option<&str>),
) -> Vec<String> {
    let mut wrong = Vec::new();
    for peer in cluster.running() {
        let node = peer.node(&world).await;
        let counted = node.counter(COUNTER).get().await;
        if !matches!(counted, Ok(counted) if counted == sum) {
            wrong.push(format!("{} reads {counted:?}, not {sum}", peer.name));
        }
        let members = node.set(SET).members().await;
        let members =
            members.map(|members| members.iter().map(|member| text(member)).collect::<BTreeSet<_>>());
        if !matches!(&members, Ok(members) if members == set) {
            wrong.push(format!("{} reads {members:?}, not {set:?}", peer.name));
        }
        let read = node.register(REGISTER).get().await.map(|value| value.map(|value| text(&value)));
        if !matches!(&read, Ok(read) if read.as_deref() == value) {
            wrong.push(format!("{} reads {read:?}, not {value:?}", peer.name));
        }
    }
    wrong
}
