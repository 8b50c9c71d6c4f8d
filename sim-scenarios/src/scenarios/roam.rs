//! A phone leaves the wifi, and its mesh stays whole.
//!
//! Six nodes behind different boxes send each other datagrams. One of them, a phone, moves from its wifi into a
//! carrier's network, perhaps after a moment without any network, and later back: a new address, another NAT, its
//! old connections left half-open. No node is held dead. Within 3 s of a move datagrams pass between the phone
//! and every other node in both directions. Soon each path is direct again exactly where the
//! [oracle](crate::models::oracle) allows it, and leads to the phone's present address.
//!
//! Negative control: the same phone, gone for good, is held dead by all within a bound.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::net::Net;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::world::World;
use rand_core::Rng;

use crate::cluster::{Cluster, Deadline, Traffic};
use crate::models::nat_box::{NatConfig, presets};
use crate::models::oracle::{self, NatBehaviour};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a roamed sender was followed to an address that nobody had named"),
        Mark::new("a path was given up, and direct again later"),
    ],
    ..Scenario::new(
        "roam",
        "a phone goes from wifi to cellular: nobody holds it dead, datagrams pass within 3 s",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(100);

/// Datagrams pass again within this: the phone looks at its addresses once a second, and a SYN that is lost is sent again
/// after a second.
const RESUMES: Duration = Duration::from_secs(3);

/// After the first meeting each path is as the oracle predicts within this.
const FIRST_SETTLES: Duration = Duration::from_secs(15);

/// After a move each path is as the oracle predicts, and leads to the phone's present address, within this.
const SETTLES: Duration = Duration::from_secs(5);

/// When the paths are checked once more: by then the remains of the old paths have been given up.
const JUDGED: Duration = Duration::from_secs(6);

/// A death is known everywhere within this: a probe of each, and the longest suspicion.
const LEARN: Duration = Duration::from_secs(45);

const RESUMED: &str = "datagrams pass within 3 s of a roam";
const ORACLE: &str = "each path is direct exactly where the oracle says so";
const FOLLOWED: &str = "a direct path to a phone that has moved leads to where it is";
const HEALTHY: &str = "a phone that roams is held dead by nobody";
const GONE: &str = "a phone that is gone for good is dead everywhere";

/// Boxes of the other five nodes, in a drawn order: two of the seven stay unused.
fn homes() -> Vec<NatConfig> {
    vec![
        presets::full_cone(),
        presets::restricted(),
        presets::port_restricted(),
        presets::symmetric(),
        presets::home_router(),
        presets::linux_masquerade(),
        presets::symmetric_sequential(),
    ]
}

/// Boxes of the phone's wifi, and of the carriers that it may move to.
fn wifis() -> Vec<NatConfig> {
    vec![presets::home_router(), presets::full_cone(), presets::symmetric(), presets::linux_masquerade()]
}

fn carriers() -> Vec<NatConfig> {
    vec![presets::carrier_grade(), presets::symmetric_sequential()]
}

/// How long the phone has no network during a move, in milliseconds.
const BETWEEN: [u64; 3] = [0, 300, 1_500];

/// The highest loss rate of a link, in per cent.
const WORST_LOSS: u64 = 3;

fn draw<T>(draws: &mut impl Rng, from: &mut Vec<T>) -> T {
    from.remove((draws.next_u64() % from.len() as u64) as usize)
}

/// Two moves, and then the phone's death.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut draws = world.rng("map");
    let loss = draws.next_u64() % (WORST_LOSS + 1);
    let stage = Stage::new(world)
        .links(LinkConfig { udp_loss: Rate::percent(loss as u32), ..link_ms(20, 10) })
        .hub("hub");
    let (wifi, cellular) = (draw(&mut draws, &mut wifis()), draw(&mut draws, &mut carriers()));
    let (at_home, outside) = (stage.nat("wifi", wifi.clone()), stage.nat("cellular", cellular.clone()));
    let mut stage = stage.behind(at_home).worker("phone");
    let mut left = homes();
    let mut others = Vec::new();
    for number in 1..6 {
        let config = draw(&mut draws, &mut left);
        stage = stage
            .behind_nat(&format!("home {number}"), config.clone())
            .worker(&format!("{} {number}", config.name));
        others.push(config);
    }
    let mut cluster = stage.meet(MEET).await?;
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    let first = Deadline::new(world, ORACLE, FIRST_SETTLES);
    while first.still_missing(wrong_paths(&cluster, &wifi, &others).await).await? {}

    let phone = cluster.peers[0].clone();
    let mut notes = format!("{loss} % lost, from {} to {}\n", wifi.name, cellular.name);
    let mut state = format!("at home, {}:\n{}", wifi.name, paths(&cluster).await);
    for (place, config) in [(outside, &cellular), (at_home, &wifi)] {
        let between = Duration::from_millis(BETWEEN[(draws.next_u64() % 3) as usize]);
        phone.host.set_nic_up("eth0", false);
        world.sleep(between).await;
        cluster.roam(&phone, place);
        phone.host.set_nic_up("eth0", true);
        let moved = world.elapsed();
        let (settles, follows) =
            (Deadline::new(world, ORACLE, SETTLES), Deadline::new(world, FOLLOWED, SETTLES));
        let took = wait_until_resumed(world, &cluster, &traffic, moved).await?;
        while settles.still_missing(wrong_paths(&cluster, config, &others).await).await?
            || follows.still_missing(paths_to_old_addresses(&cluster, place).await).await?
        {}
        let direct = settles.waited();
        world.sleep(JUDGED.saturating_sub(settles.waited())).await;
        for (property, wrong) in [
            (ORACLE, wrong_paths(&cluster, config, &others).await),
            (FOLLOWED, paths_to_old_addresses(&cluster, place).await),
        ] {
            if !wrong.is_empty() {
                let seen = format!(
                    "it was so {direct:?} after a move, and isn't after {JUDGED:?}: {}",
                    wrong.join("; ")
                );
                return Err(Violation::safety(property, seen));
            }
        }
        let where_to = if place == at_home { "at home again" } else { "away" };
        state += &format!("{where_to}, {}:\n{}", config.name, paths(&cluster).await);
        notes += &format!(
            "no network for {between:?}, resumed after {took:?}, all as it can be after {direct:?}\n"
        );
    }
    cluster.no_false_deaths(HEALTHY, &[])?;

    phone.host.power_loss();
    let deadline = Deadline::new(world, GONE, LEARN);
    while deadline.still_missing(cluster.missing().await).await? {}
    let dead = cluster.witness.held_dead();
    if dead.len() != others.len() || dead.iter().any(|verdict| verdict.about != phone.key) {
        return Err(Violation::safety(HEALTHY, format!("{} verdicts of death after one", dead.len())));
    }
    Ok(Passed { state: state + &cluster.views().await, notes })
}

/// Waits until datagrams pass between the phone and all others, both ways.
async fn wait_until_resumed(
    world: World,
    cluster: &Cluster,
    traffic: &Traffic,
    moved: Duration,
) -> Result<Duration, Violation> {
    let phone = &cluster.peers[0];
    let pairs = || cluster.peers[1..].iter().flat_map(|other| [(phone, other), (other, phone)]);
    let deadline = Deadline::new(world, RESUMED, RESUMES);
    while deadline.still_missing(traffic.silent(pairs(), moved)).await? {}
    Ok(deadline.waited())
}

/// The paths of the phone, behind `phone`'s box, that differ from the oracle's prediction, as both ends see them.
async fn wrong_paths(cluster: &Cluster, phone: &NatConfig, others: &[NatConfig]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (peer, config) in cluster.peers[1..].iter().zip(others) {
        let can = oracle::direct(NatBehaviour::v4(phone), NatBehaviour::v4(config));
        for (from, to) in [(&cluster.peers[0], peer), (peer, &cluster.peers[0])] {
            wrong.extend(cluster.wrong_path(from, to, can).await);
        }
    }
    wrong
}

/// Nodes with a direct path to the phone that leads elsewhere than to its present box.
async fn paths_to_old_addresses(cluster: &Cluster, outside: Net) -> Vec<String> {
    let there = outside.outer_addrs();
    let mut astray = Vec::new();
    for other in &cluster.peers[1..] {
        let path = cluster.path(other, &cluster.peers[0]).await;
        if let Some(addr) = path.and_then(|path| path.addr)
            && !there.contains(&addr.ip())
        {
            astray.push(format!("{} sends to {addr}, the phone is behind {there:?}", other.name));
        }
    }
    astray
}

/// The phone's paths, one line each.
async fn paths(cluster: &Cluster) -> String {
    let phone = &cluster.peers[0];
    let mut text = String::new();
    for other in &cluster.peers[1..] {
        text += &format!("phone to {}: {}\n", other.name, cluster.leg(phone, other).await);
    }
    text
}
