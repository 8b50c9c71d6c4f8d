//! Duplicate and late datagrams: a duplicate is delivered once, a late one moves no path.
//!
//! A phone and a desk send each other numbered datagrams over links that duplicate many of them. The phone is
//! behind a slow wifi, whose uplink takes half a second and more, and moves into a fast network. For a while,
//! datagrams sent from the old place arrive after those sent from the new one. Each datagram is delivered to the
//! application once, in both directions. Once the desk has followed the phone, it never sends to the old place
//! again.
//!
//! Negative control: links must have made copies, and late datagrams must have come after newer ones.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::{Violation, fail};
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::node::NodeEvent;
use nurl::rt::time;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer, secret, text};
use crate::lock::lock;
use crate::models::nat_box::presets;
use crate::stage::Stage;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("a datagram came late from where its sender had left")],
    ..Scenario::new(
        "echoes",
        "links copy and delay: a datagram is given once, and a late one moves no path",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(20);

/// Traffic before the move, and after it: long enough for the last late datagram to arrive, and for the path
/// checks.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);

const DIRECT: &str = "a desk on the internet and a phone behind a NAT have a direct path";
const ONCE: &str = "a datagram is given to the application once";
const FORWARD: &str = "a late datagram of an old path moves nothing";
const FOLLOWS: &str = "a phone that moves is followed";
const COPIES: &str = "links that duplicate make copies";

/// The observations of both ends.
#[derive(Debug, Default)]
struct Observations {
    /// Datagrams by receiver and number.
    given: BTreeSet<(String, u64)>,
    /// The highest number that was delivered to the desk.
    newest: u64,
    /// Datagrams that reached the desk after newer ones.
    overtaken: u32,
    /// The address to which the desk sends directly.
    address: Option<IpAddr>,
    /// Addresses that the desk no longer sends to.
    left: BTreeSet<IpAddr>,
}

type SharedObservations = Arc<Mutex<Observations>>;

/// One move, out of a slow network into a fast one.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut draws = world.rng("links");
    let millis = |draw: u64, least: u64, most: u64| Duration::from_millis(least + draw % (most - least + 1));
    let fast = LinkConfig {
        latency: millis(draws.next_u64(), 5, 40),
        jitter: Duration::from_millis(5),
        duplicate: Rate::percent(30),
        ..LinkConfig::default()
    };
    let stage = Stage::new(world).links(fast.clone()).hub("hub");
    let wifi = stage.nat("wifi", presets::home_router());
    let cellular = stage.nat("cellular", presets::full_cone());
    let mut cluster = stage.worker("desk").behind(wifi).worker("phone").start();
    let (desk, phone) = (cluster.peers[0].clone(), cluster.peers[1].clone());
    let slow = LinkConfig { latency: millis(draws.next_u64(), 500, 900), ..fast };
    // The link to the hub is slow as well, so that the hub isn't the faster path.
    for to in [desk.host, cluster.hubs[0].host] {
        world.set_link(wifi, to, slow.clone());
    }
    cluster.converge(MEET).await?;
    let direct = Deadline::new(world, DIRECT, MEET);
    while direct.still_missing(indirect_paths(&cluster, &desk, &phone).await).await? {}

    let log = SharedObservations::default();
    follow_path(world, &cluster, &log, &desk, &phone).await;
    for (from, to) in [(&desk, &phone), (&phone, &desk)] {
        receive(world, &log, to, to.key == desk.key).await;
        send(world, from, to).await;
    }
    world.sleep(BEFORE).await;
    cluster.roam(&phone, cellular);
    world.sleep(AFTER).await;
    let there = cellular.outer_addrs();
    let followed = || lock(&log).address.filter(|ip| there.contains(ip)).is_none();
    let deadline = Deadline::new(world, FOLLOWS, AFTER);
    while deadline
        .still_missing(Vec::from_iter(followed().then(|| "the desk sends elsewhere".to_owned())))
        .await?
    {}

    let copies = world.stats().packets_duplicated;
    if copies == 0 {
        return Err(Violation::safety(COPIES, "there was none"));
    }
    let observed = lock(&log);
    sometimes!(observed.overtaken > 0, "a datagram came late from where its sender had left");
    let notes = format!("{copies} copies, {} datagrams came late\n", observed.overtaken);
    let name = |ip: &IpAddr| {
        let nat = [wifi, cellular].into_iter().find(|net| net.outer_addrs().contains(ip));
        nat.map_or_else(|| ip.to_string(), |net| net.name())
    };
    let left: Vec<_> = observed.left.iter().map(name).collect();
    let now = observed.address.as_ref().map_or_else(|| "nowhere".to_owned(), name);
    let state = format!("the desk sends to {now}, and has left {}\n", left.join(", "));
    Ok(Passed { state, notes })
}

/// Describes each direction in which the two have no direct path.
async fn indirect_paths(cluster: &Cluster, a: &Peer, b: &Peer) -> Vec<String> {
    let paths = [cluster.wrong_path(a, b, true).await, cluster.wrong_path(b, a, true).await];
    paths.into_iter().flatten().collect()
}

/// Follows the events of the desk's path to the phone, starting with the present path.
async fn follow_path(world: World, cluster: &Cluster, log: &SharedObservations, desk: &Peer, phone: &Peer) {
    let (key, node) = (phone.key, desk.node(&world).await);
    let mut events = node.events();
    lock(log).address = cluster.path(desk, phone).await.and_then(|path| path.addr).map(|addr| addr.ip());
    let log = log.clone();
    desk.host.run(async move {
        while let Some(event) = events.next().await {
            let NodeEvent::Path { peer, addr: Some(addr), .. } = event else { continue };
            if peer != key {
                continue;
            }
            let mut observed = lock(&log);
            let now = addr.ip();
            if observed.left.contains(&now) {
                fail(Violation::safety(
                    FORWARD,
                    format!("the desk sends to {now} again, which the phone left"),
                ));
            }
            if let Some(old) = observed.address.replace(now).filter(|old| *old != now) {
                observed.left.insert(old);
            }
        }
    });
}

async fn receive(world: World, log: &SharedObservations, at: &Peer, is_desk: bool) {
    let (log, name, node) = (log.clone(), at.name.clone(), at.node(&world).await);
    at.host.run(async move {
        while let Some(batch) = node.recv_many().await {
            for datagram in batch {
                let number = text(&datagram.body).parse().expect("a datagram is a number");
                let mut observed = lock(&log);
                if !observed.given.insert((name.clone(), number)) {
                    fail(Violation::safety(ONCE, format!("datagram {number} came again")));
                }
                if is_desk {
                    // Further behind than duplicates and jitter explain: it came from the old place.
                    observed.overtaken += u32::from(number + 5 < observed.newest);
                    observed.newest = observed.newest.max(number);
                }
            }
        }
    });
}

async fn send(world: World, from: &Peer, to: &Peer) {
    let (node, to) = (from.node(&world).await, to.key);
    from.host.run(async move {
        for number in 0u64.. {
            // A datagram that can't be sent while the phone has no network counts as lost.
            let _ = node.send(to, secret(&number.to_string())).await;
            time::sleep(EVERY).await;
        }
    });
}
