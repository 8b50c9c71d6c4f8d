//! Interfaces come and go on a host that stays where it is.
//!
//! A laptop exchanges datagrams with three other nodes, each behind another box. Container bridges and cables
//! come and go on it every 2 s: no connection to the hub drops, and no path becomes suspect. Then an interface
//! comes and goes that might lead to a real network: its removal makes the node check its paths, since one might
//! have used it. But the paths stay direct, and no connection drops either.
//!
//! Negative control: while containers continue to come and go the laptop moves into a carrier's network. The node
//! sees that within a second: its connection drops, it is registered again and datagrams pass within 3 s of the move,
//! and each path is direct again.

use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::world::{Host, World};
use rand_core::Rng;

use crate::cluster::{Cluster, Deadline, Traffic};
use crate::models::nat_box::presets;
use crate::stage::{Stage, link_ms, nat};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("a hub's connection outlived a change of interfaces")],
    ..Scenario::new(
        "containers",
        "bridges and other interfaces come and go: no connection drops, no path is in doubt, a move is seen",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(100);

/// An interface comes or goes this often.
const CHANGE: Duration = Duration::from_secs(2);

/// Changes of each kind of interface.
const CHANGES: u64 = 12;

/// Paths are looked at this often: sooner than the echo of a probe, so that a suspicion would still show.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest pause between datagrams: the time of an echo that clears a suspicion.
const PAUSE: Duration = Duration::from_millis(400);

/// The laptop is without any network for this long when it leaves.
const BETWEEN: Duration = Duration::from_millis(300);

/// The laptop's connection to the hub has dropped within this: the node looks at its addresses once a second.
const SEEN: Duration = Duration::from_millis(1_100);

/// The laptop is registered again, and datagrams pass within this: a second until it looks, and a SYN that is lost.
const RESUMES: Duration = Duration::from_secs(3);

/// Each path is direct again within this.
const SETTLES: Duration = Duration::from_secs(4);

const DIRECT: &str = "each path of the laptop is direct";
const UNDOUBTED: &str = "an interface of containers that comes or goes puts no path in doubt";
const CONNECTED: &str = "an interface that comes or goes drops no connection that leads elsewhere";
const STEADY: &str = "datagrams pass while interfaces come and go";
const SEEN_AT_ONCE: &str = "a connection whose address went drops when the node looks";
const RESUMED: &str = "a laptop that moved is registered again and heard within 3 s";

/// Container interfaces, and one that might lead to a real network.
const BRIDGES: [(&str, &str); 3] =
    [("docker0", "172.17.0.1"), ("veth1a2b3c4", "172.17.0.77"), ("br-5e6f", "172.18.0.1")];
const LAB: [(&str, &str); 1] = [("lab0", "10.99.0.1")];

/// Container interfaces, another interface, and a real move.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut draws = world.rng("interfaces");
    let stage = Stage::new(world).links(link_ms(20, 5)).hub("hub");
    let office = stage.nat("office", presets::home_router());
    let cellular = stage.nat("cellular", presets::carrier_grade());
    let mut cluster = stage
        .behind(office)
        .worker("laptop")
        .on_the_internet()
        .worker("server")
        .behind_nat("flat", presets::full_cone())
        .worker("in flat")
        .behind_nat("house", presets::restricted())
        .worker("in house")
        .meet(MEET)
        .await?;
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    wait_until_direct(world, &cluster, MEET).await?;
    let laptop = cluster.peers[0].clone();
    for (nic, ip) in BRIDGES.into_iter().chain(LAB) {
        laptop.host.attach(nic, nat(world, nic, presets::full_cone()), &[ip]);
    }
    world.sleep(CHANGE).await;
    wait_until_direct(world, &cluster, MEET).await?;

    let (since, downs) = (world.elapsed(), cluster.witness.hub_downs(&laptop));
    for _ in 0..CHANGES {
        toggle_one(laptop.host, &BRIDGES, &mut draws);
        // It looks at some moment of this time, and a doubt lasts a round trip.
        let end = world.elapsed() + CHANGE;
        while world.elapsed() < end {
            world.sleep(LOOK_EVERY).await;
            let doubted = doubted_paths(&cluster).await;
            if !doubted.is_empty() {
                return Err(Violation::safety(UNDOUBTED, doubted.join("; ")));
            }
        }
    }
    for _ in 0..CHANGES {
        toggle_one(laptop.host, &LAB, &mut draws);
        world.sleep(CHANGE).await;
    }
    let dropped = cluster.witness.hub_downs(&laptop) - downs;
    if dropped > 0 {
        return Err(Violation::safety(CONNECTED, format!("{dropped} drops")));
    }
    for other in &cluster.peers[1..] {
        for (from, to) in [(&laptop, other), (other, &laptop)] {
            let pause = traffic.longest_pause(from.key, to.key, since, world.elapsed());
            if pause > PAUSE {
                let seen = format!("{pause:?} without a datagram from {} to {}", from.name, to.name);
                return Err(Violation::liveness(STEADY, seen));
            }
            if cluster.witness.demotions(from, to) > 0 {
                return Err(Violation::safety(
                    STEADY,
                    format!("{} gave up its path to {}", from.name, to.name),
                ));
            }
        }
    }

    toggle_one(laptop.host, &BRIDGES, &mut draws);
    laptop.host.set_nic_up("eth0", false);
    world.sleep(SEEN).await;
    let dropped = cluster.witness.hub_downs(&laptop) - downs;
    if dropped == 0 {
        return Err(Violation::liveness(SEEN_AT_ONCE, "it still stands"));
    }
    world.sleep(BETWEEN).await;
    cluster.roam(&laptop, cellular);
    laptop.host.set_nic_up("eth0", true);
    let moved = world.elapsed();
    toggle_one(laptop.host, &BRIDGES, &mut draws);
    let deadline = Deadline::new(world, RESUMED, RESUMES);
    while deadline.still_missing(not_resumed(&cluster, &traffic, moved).await).await? {}
    let resumed = deadline.waited();
    wait_until_direct(world, &cluster, SETTLES).await?;
    traffic.stop();
    let notes = format!("heard after {resumed:?}, direct after {:?}\n", world.elapsed() - moved);
    let state = format!(
        "bridges came and went: no drop, no doubt\nanother interface: no drop, direct\na move: seen at once\n{}",
        cluster.views().await
    );
    Ok(Passed { state, notes })
}

/// One of these interfaces, drawn, goes up or down.
fn toggle_one(host: Host, nics: &[(&str, &str)], draws: &mut impl Rng) {
    let (nic, ip) = nics[(draws.next_u64() % nics.len() as u64) as usize];
    let is_up = host.addrs().iter().any(|addr| addr.to_string() == ip);
    host.set_nic_up(nic, !is_up);
}

/// The paths from and to the laptop that aren't direct beyond doubt.
async fn doubted_paths(cluster: &Cluster) -> Vec<String> {
    let laptop = &cluster.peers[0];
    let mut doubted = Vec::new();
    for other in &cluster.peers[1..] {
        for (from, to) in [(laptop, other), (other, laptop)] {
            let reason = cluster.path(from, to).await.map_or("unknown", |path| path.reason.as_str());
            if reason != "direct" {
                doubted.push(format!("{} to {} is {reason}", from.name, to.name));
            }
        }
    }
    doubted
}

/// Waits until each path of the laptop is direct.
async fn wait_until_direct(world: World, cluster: &Cluster, limit: Duration) -> Result<(), Violation> {
    let deadline = Deadline::new(world, DIRECT, limit);
    while deadline.still_missing(doubted_paths(cluster).await).await? {}
    Ok(())
}

/// Missing registrations, and paths from or to the laptop on which no datagram sent since the move has arrived.
async fn not_resumed(cluster: &Cluster, traffic: &Traffic, moved: Duration) -> Vec<String> {
    let laptop = &cluster.peers[0];
    let mut missing = cluster.unregistered(&cluster.hubs[0]).await;
    let pairs = cluster.peers[1..].iter().flat_map(|other| [(laptop, other), (other, laptop)]);
    missing.extend(traffic.silent(pairs, moved));
    missing
}
