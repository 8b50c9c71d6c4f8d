//! Writes acknowledged just before an orderly shutdown are held by other nodes.
//!
//! Three workers stay. Others join, workers and members, none with a store. Each writes to keys of its own over
//! links that lose a fifth of all datagrams, and leaves as soon as the last write is acknowledged, so no summary
//! has had time to find the lost deltas. When all have left, the scenario looks for each acknowledged key among
//! the copies of the staying workers. It only looks, since a read would repair the copies. Within a
//! bound the copies are equal. A node that couldn't hand everything over reports it: at most the reported number of
//! writes may be missing.

use std::collections::BTreeSet;
use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Passed, RunResult, Scenario, Trial};
use chaos::world::World;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::Kind;

use crate::cluster::{Peer, copies, secret};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob {
            name: "leavers",
            about: "nodes that write and leave",
            default: 6,
            least: 1,
            turns: KnobKind::Hosts,
        },
        Knob {
            name: "writes",
            about: "keys that each of them writes",
            default: 12,
            least: 1,
            turns: KnobKind::Work,
        },
    ],
    ..Scenario::new(
        "goodbye",
        "nodes write and leave at once: what was acknowledged is held by those that stay",
        |trial| Box::pin(run(trial)),
    )
};

const HELD: &str = "a write acknowledged before an orderly end is held by others";

/// What each of them writes.
const WORD: &str = "the last word";

const STAY: usize = 3;

const MEET: Duration = Duration::from_secs(60);

/// Copies are equal within this: a few summaries over lossy links.
const AGREE: Duration = Duration::from_secs(90);

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let leavers = trial.knob("leavers") as usize;
    let mut stage = Stage::new(world)
        .links(LinkConfig { udp_loss: Rate::percent(20), tcp_loss: Rate::percent(3), ..link_ms(25, 15) })
        .hub("hub")
        .workers(STAY);
    for number in 0..leavers {
        let role = if number % 2 == 0 { Role::Worker } else { Role::Member };
        stage = stage.node(&format!("leaver {number}"), role);
    }
    let cluster = stage.meet(MEET).await?;
    let (stay, leave) = cluster.peers.split_at(STAY);
    let mut acknowledged = BTreeSet::new();
    let mut lost = 0;
    for leaver in leave {
        let (keys, said) = write_and_leave(world, leaver, trial.knob("writes")).await;
        acknowledged.extend(keys);
        lost += said;
    }
    let stay: Vec<_> = stay.iter().collect();
    let mut missing = Vec::new();
    for key in &acknowledged {
        let mut held = false;
        for peer in &stay {
            held |= cluster.held(peer, (Kind::Register, key)).await.is_some();
        }
        if !held {
            missing.push(key.clone());
        }
    }
    if missing.len() > lost {
        let seen =
            format!("{} of {} keys, said to be lost {lost}: {missing:?}", missing.len(), acknowledged.len());
        return Err(Violation::safety(HELD, seen));
    }
    let objects: Vec<_> = acknowledged.iter().map(|key| (Kind::Register, key.as_str())).collect();
    let values = cluster.agreed("replicas that can talk agree", AGREE, &objects, &stay).await?;
    for ((_, key), value) in objects.iter().zip(values) {
        match copies::content(value.as_ref()) {
            Some(word) if word != secret(WORD) => {
                return Err(Violation::safety(HELD, format!("{key} has {word:?}")));
            }
            _ => {}
        }
    }
    cluster.inspect().await?;
    let state = format!("what {leavers} nodes wrote before they left is held by others, in equal copies\n");
    Ok(Passed { state, notes: format!("{} writes were acknowledged\n", acknowledged.len()) })
}

/// Writes all keys, and leaves after the last answer. Returns the acknowledged keys, and the number of writes
/// that the node reports lost.
async fn write_and_leave(world: World, leaver: &Peer, writes: u64) -> (Vec<String>, usize) {
    let node = leaver.node(&world).await;
    let mut keys = Vec::new();
    for number in 0..writes {
        let key = format!("{} writes {number:02}", leaver.name);
        if node.register(&key).set(&secret(WORD)).await.is_ok() {
            keys.push(key);
        }
    }
    let departure = node.shutdown().await;
    (keys, departure.lost)
}
