//! A large mesh changes all at once, and agrees.
//!
//! Fourteen workers (two hundred, if asked: `--set nodes=200`), two hubs, of which both issue. The mesh falls apart, a hub
//! on each side. While it is apart, each side admits newcomers, the authority revokes a tenth of the mesh, half of them on
//! each side, and rotates the mesh's secret on one. When the link is back, all nodes know the same revocations and secret,
//! hold the same members with the same share of the keys, and so compute the same owners.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::PublicKey;
use nurl::internals::membership::Roles;
use nurl::internals::node::{MemberInfo, Role};

use crate::cluster::{Cluster, Deadline, Jobs, Peer};
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "nodes",
        about: "workers at the beginning",
        default: 14,
        least: 10,
        turns: KnobKind::Work,
    }],
    marks: &[
        Mark::new("newcomers were admitted on both sides of a partition"),
        Mark::new("each side of a partition revoked members of both"),
    ],
    time_limit: Duration::from_secs(15 * 60),
    ..Scenario::new(
        "multitude",
        "a large mesh admits, revokes and rotates while it is apart, and then agrees who owns what",
        |trial| Box::pin(run(trial)),
    )
};

const AGREE: &str = "after a partition all nodes hold the same members, revocations and owners";

const MEET: Duration = Duration::from_secs(120);

/// Until each side holds the other one dead.
const CUT: Duration = Duration::from_secs(120);

/// After the partition: the exchanges of tables and of healing, a few periods of each.
const HEALED: Duration = Duration::from_secs(240);
const DONE: Duration = Duration::from_secs(60);

/// Keys whose owners are compared.
const KEYS: u32 = 64;
const REPLICAS: usize = 3;

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let nodes = usize::try_from(trial.knob("nodes")).expect("a small number");
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub a").hub("hub b").workers(nodes);
    let stage = stage.configure(|builder, setup| match setup.number % 2 {
        0 => with_store(builder, "/node"),
        _ => builder.weight(1 + (setup.number % 5) as u16),
    });
    let mut cluster = stage.meet(MEET).await?;

    let members = cluster.peers.clone();
    let (left, right) = members.split_at(nodes / 2);
    let few = nodes / 10;
    let mut sides = [left.to_vec(), right.to_vec()];
    cut(world, &cluster, &sides);
    world.sleep(CUT).await;
    for (side, name) in sides.iter_mut().zip(["left", "right"]) {
        for number in 0..few {
            side.push(cluster.add(&format!("{name} newcomer {number}"), world.internet(), Role::Worker));
        }
    }
    cut(world, &cluster, &sides);
    sometimes!(true, "newcomers were admitted on both sides of a partition");
    world.sleep(Duration::from_secs(10)).await;

    // Each side revokes some of its own members and some of the other's.
    let out: Vec<Peer> = left[1..=few].iter().chain(&right[1..=few]).cloned().collect();
    for (number, peer) in out.iter().enumerate() {
        let by = &sides[number % 2][0];
        let told = by.node(&world).await.revoke(cluster.revocation(&peer.key)).await;
        told.map_err(|error| Violation::liveness(AGREE, format!("{}: {error}", by.name)))?;
    }
    sometimes!(true, "each side of a partition revoked members of both");
    let by = &sides[0][0];
    let handed = by.node(&world).await.rotate(cluster.rotation(1, Duration::ZERO)).await;
    handed.map_err(|error| Violation::liveness(AGREE, format!("{}: {error}", by.name)))?;
    world.sleep(Duration::from_secs(10)).await;
    world.heal();

    let stay: Vec<Peer> =
        cluster.peers.iter().filter(|peer| out.iter().all(|out| out.key != peer.key)).cloned().collect();
    let deadline = Deadline::new(world, AGREE, HEALED);
    while deadline.still_missing(different(&cluster, &stay).await).await? {}
    let equal = deadline.waited();
    out.iter().for_each(|peer| peer.host.crash());

    let mut jobs = Jobs::new(&cluster);
    for (number, from) in stay.iter().enumerate().step_by(few.max(1)) {
        jobs.submit(from, "slow", &format!("after all {number}")).await?;
    }
    jobs.settle(DONE).await?;
    cluster.inspect().await?;
    let state = format!("{} nodes agree, {} are out\n", stay.len(), out.len());
    Ok(Passed { state, notes: format!("equal after {equal:?}\n") })
}

/// The sides don't reach each other; each has a hub.
fn cut(world: World, cluster: &Cluster, sides: &[Vec<Peer>; 2]) {
    let hosts = |side: usize| -> Vec<Host> {
        sides[side].iter().map(|peer| peer.host).chain([cluster.hubs[side].host]).collect()
    };
    world.partition(&hosts(0), &hosts(1));
}

/// What these nodes don't hold alike: members, revocations, owners.
async fn different(cluster: &Cluster, stay: &[Peer]) -> Vec<String> {
    let world = cluster.world();
    let mut missing = Vec::new();
    let mut first: Option<(BTreeMap<PublicKey, MemberInfo>, _)> = None;
    for peer in stay {
        let Ok(status) = peer.node(&world).await.status().await else {
            missing.push(format!("{} has ended", peer.name));
            continue;
        };
        if status.generation != 1 {
            missing.push(format!("{} has not the mesh's present secret", peer.name));
        }
        let known = status.members.into_iter().filter(|member| member.state.is_live());
        let known: BTreeMap<_, _> = known.map(|member| (member.key, member)).collect();
        let absent = stay.iter().filter(|other| other.key != peer.key && !known.contains_key(&other.key));
        missing.extend(absent.map(|other| format!("{} at {}", other.name, peer.name)));
        if known.len() >= stay.len() {
            missing.push(format!("{} holds others than those that stay", peer.name));
        }
        let Some((theirs, revocations)) = &first else {
            first = Some((known, status.revocations));
            continue;
        };
        if *revocations != status.revocations {
            missing.push(format!("{} knows other revocations", peer.name));
        }
        let unlike = known.values().filter(|member| {
            theirs.get(&member.key).is_some_and(|other| placement(other) != placement(member))
        });
        missing.extend(unlike.map(|member| format!("{} sees {} otherwise", peer.name, member.key.short())));
    }
    if let (true, [one, other, ..]) = (missing.is_empty(), stay) {
        // Two nodes see each other's place, and so everybody's.
        let rings = [cluster.ring(one, other).await, cluster.ring(other, one).await];
        let differs = |number: &u32| {
            let [one, other] = rings.each_ref().map(|ring| ring.owners(&number.to_le_bytes(), REPLICAS));
            one != other
        };
        missing.extend((0..KEYS).find(differs).map(|number| format!("the owners of key {number} differ")));
    }
    missing
}

/// What a member's places on the ring follow from.
fn placement(member: &MemberInfo) -> ([u8; 8], u16, &str, Roles) {
    (member.ring_seed, member.weight, &member.zone, member.roles)
}
