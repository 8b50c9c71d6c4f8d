//! A transfer survives the death of its path.
//!
//! Two nodes with a direct path; one sends reliable messages at a steady rate. The direct path dies, for good or
//! for 1.5 s, while the transfer runs at full rate. The path machine demotes the path, the same QUIC connection
//! continues through the relay, and 80 % of the rate is back within 3 s. Every message arrives once, in either
//! case.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::world::World;

use crate::cluster::{Cluster, secret, text};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "blackout",
    "a bulk transfer survives 1.5 s without its direct path, and changes leg",
    |trial| Box::pin(run(trial)),
);

/// The size of a message, and the time between two: 800 KB a second.
const MESSAGE_BYTES: usize = 16 << 10;
const EVERY: Duration = Duration::from_millis(20);

/// Messages in all: fifteen seconds' worth.
const MESSAGES: u32 = 750;

/// Sends under way at one time; beyond that the sender waits, as for any full queue.
const WINDOW: usize = 64;

/// The span over which the rate is measured, and the number of messages sent in it.
const SPAN: Duration = Duration::from_millis(500);
const FULL: usize = (SPAN.as_millis() / EVERY.as_millis()) as usize;

const DIRECT: &str = "the path is direct where nothing stands between";
const RATE: &str = "four fifths of the rate is back 3 s after the path's death";
const ONCE: &str = "every message arrives exactly once";

const DEAD_FOR: Duration = Duration::from_millis(1_500);
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// First a blackout of 1.5 s, then the end of the direct path.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(10, 2));
    let cluster = stage.hub("hub").workers(2).meet(Duration::from_secs(30)).await?;
    let (from, to) = (&cluster.peers[0], &cluster.peers[1]);
    let (sender, receiver) = (from.node(&world).await, to.node(&world).await);
    let direct = |node: nurl::Node, peer| async move {
        let members = node.members().await.unwrap_or_default();
        members.iter().any(|member| member.key == peer && member.path.direct)
    };
    let begun = world.elapsed();
    while !direct(sender.clone(), to.key).await {
        if world.elapsed() - begun > Duration::from_secs(5) {
            return Err(Violation::liveness(DIRECT, "it is not after 5 s"));
        }
        world.sleep(Duration::from_millis(50)).await;
    }

    // (arrival, number) of each message, by the world's clock.
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let log = arrived.clone();
    to.host.run(async move {
        while let Some((_, body)) = receiver.recv_message().await {
            let number = text(&body).split_once(' ').and_then(|(number, _)| number.parse().ok());
            let number = number.unwrap_or(u32::MAX);
            lock(&log).push((world.elapsed(), number));
        }
    });
    let peer = to.key;
    let sending = sender.clone();
    let sent = from.host.run(async move {
        let slots = Arc::new(nurl::rt::sync::Semaphore::new(WINDOW));
        let mut last = Vec::new();
        for number in 0..MESSAGES {
            let body = message(number);
            let slot = slots.clone().acquire_owned().await;
            let node = sending.clone();
            last.push(nurl::rt::task::spawn(async move {
                let done = node.send_message(peer, body).await;
                drop(slot);
                done.map_err(|error| error.to_string())
            }));
            nurl::rt::time::sleep(EVERY).await;
        }
        for task in last {
            task.await.map_err(|error| error.to_string())??;
        }
        Ok::<_, String>(())
    });

    world.sleep(Duration::from_secs(3)).await;
    let before = rate(&arrived, world.elapsed());
    if before * 100 < FULL * 80 {
        let seen = format!("only {before} messages arrive in {SPAN:?}, of {FULL} sent");
        return Err(Violation::liveness("a good direct path carries four fifths of what is sent", seen));
    }
    let (a, b) = (from.host, to.host);
    world.partition(&[a], &[b]);
    let cut = world.elapsed();
    world.sleep(DEAD_FOR).await;
    world.heal();
    wait_for_rate(&world, &arrived, cut).await?;
    while !direct(sender.clone(), to.key).await {
        if world.elapsed() - cut > Duration::from_secs(10) {
            return Err(Violation::liveness(DIRECT, "it is not 10 s after the cut"));
        }
        world.sleep(Duration::from_millis(50)).await;
    }
    let mut state = format!("after a blackout: {}\n", describe_leg(&cluster).await);
    world.sleep(Duration::from_secs(1)).await;
    world.partition(&[a], &[b]);
    let cut = world.elapsed();
    wait_for_rate(&world, &arrived, cut).await?;
    // While the path is suspect, both legs carry copies; then the node gives the path up.
    while direct(sender.clone(), to.key).await {
        if world.elapsed() - cut > BACK_WITHIN {
            let seen = format!("{BACK_WITHIN:?} after the cut it counts as direct");
            return Err(Violation::liveness("a dead path is given up", seen));
        }
        world.sleep(Duration::from_millis(50)).await;
    }
    let sent = sent.await.map_err(|error| error.to_string()).and_then(|sent| sent);
    sent.map_err(|error| Violation::safety(ONCE, format!("a message failed: {error}")))?;
    world.sleep(Duration::from_secs(1)).await;
    let mut times = BTreeMap::new();
    for (_, number) in lock(&arrived).iter() {
        *times.entry(*number).or_insert(0) += 1;
    }
    if times.len() != MESSAGES as usize || times.values().any(|count| *count != 1) {
        let seen = format!("{} of {MESSAGES} messages arrived, not each once", times.len());
        return Err(Violation::safety(ONCE, seen));
    }
    state += &format!("after the direct path's death: {}\n", describe_leg(&cluster).await);
    state += &format!("{} messages arrived once each\n", times.len());
    Ok(Passed { state, notes: format!("{before} messages in {SPAN:?} before, {FULL} sent\n") })
}

/// The sender's path to the receiver, and how often the sender has given the direct path up.
async fn describe_leg(cluster: &Cluster) -> String {
    let (from, to) = (&cluster.peers[0], &cluster.peers[1]);
    let times = cluster.witness.demotions(from, to);
    format!("{}, given up {times} times so far", cluster.leg(from, to).await)
}

/// A message with the marker throughout, since it is split into many packets.
fn message(number: u32) -> Bytes {
    let (numbered, filler) = (secret(&format!("{number} ")), secret(" "));
    numbered.iter().chain(filler.iter().cycle()).copied().take(MESSAGE_BYTES).collect()
}

/// The number of messages that arrived in the last [`SPAN`].
fn rate(arrived: &Mutex<Vec<(Duration, u32)>>, now: Duration) -> usize {
    let arrived = lock(arrived);
    arrived.iter().rev().take_while(|(at, _)| *at + SPAN >= now).count()
}

/// Waits until 80 % of the rate is back.
async fn wait_for_rate(
    world: &World,
    arrived: &Mutex<Vec<(Duration, u32)>>,
    cut: Duration,
) -> Result<(), Violation> {
    world.sleep((cut + SPAN).saturating_sub(world.elapsed())).await;
    loop {
        let took = world.elapsed() - cut;
        let now = rate(arrived, world.elapsed());
        if now * 100 >= FULL * 80 {
            return Ok(());
        }
        if took > BACK_WITHIN {
            let seen = format!("{took:?} after the cut {now} messages arrive in {SPAN:?}, of {FULL} sent");
            return Err(Violation::liveness(RATE, seen));
        }
        world.sleep(Duration::from_millis(50)).await;
    }
}
