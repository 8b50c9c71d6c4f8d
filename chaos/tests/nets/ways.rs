//! A way between two hosts that a fault plan changes: bursts, one slow direction, and packets that overtake others.

use crate::support::{Port, addr, ms, open};
use chaos::scenario::{Options, Passed, Purpose, RunResult, Scenario, Trial};
use chaos::{Plan, Targets, World};
use std::time::Duration;

const WAYS: Scenario = Scenario {
    name: "ways",
    about: "two hosts send numbered datagrams to each other under a given plan",
    purpose: Purpose::Proof,
    knobs: &[],
    faults: &[],
    points: &[],
    marks: &[],
    time_limit: Duration::from_secs(60),
    body: |trial| Box::pin(ways(trial)),
};

/// How many datagrams each sends, one every 20 ms.
const COUNT: u8 = 10;

/// The state has a line for each receiver: the number and arrival, in milliseconds, of each datagram.
async fn ways(trial: Trial) -> RunResult {
    let world = trial.world;
    let a = open(world.internet().host("a", "203.0.113.1")).await;
    let b = open(world.internet().host("b", "203.0.113.2")).await;
    let begun = world.elapsed();
    trial.start_faults(&Targets::default(), Duration::from_secs(1));
    world.sleep(ms(1)).await;
    let hear = |port: &Port| {
        let (host, port) = (port.host, port.clone());
        host.run(async move { heard(&port, world, begun).await })
    };
    let (at_a, at_b) = (hear(&a), hear(&b));
    for number in 0..COUNT {
        a.send(addr("203.0.113.2:4000"), &[number]).await;
        b.send(addr("203.0.113.1:4000"), &[number]).await;
        world.sleep(ms(20)).await;
    }
    let state = format!("{}\n{}", at_b.await.unwrap(), at_a.await.unwrap());
    Ok(Passed { state, ..Passed::default() })
}

async fn heard(port: &Port, world: World, begun: Duration) -> String {
    let mut heard = Vec::new();
    while let Some((bytes, _)) = port.receive_bytes(ms(1000)).await {
        heard.push(format!(
            "{}@{}",
            bytes[0],
            (world.elapsed() - begun + Duration::from_micros(500)).as_millis()
        ));
    }
    heard.join(" ")
}

/// What b and a hear under a plan.
fn heard_under(plan: &str) -> (String, String) {
    let plan: Plan = plan.parse().unwrap();
    let state = WAYS.run(&Options { plan: Some(plan), ..Options::seed(1) }).verdict.unwrap().state;
    let (at_b, at_a) = state.split_once('\n').unwrap();
    (at_b.to_owned(), at_a.to_owned())
}

const PLAIN: &str = "0@11 1@31 2@51 3@71 4@91 5@111 6@131 7@151 8@171 9@191";

/// An access point keeps what it has for a sleeping station until the station wakes for a beacon, every 102.4 ms or a
/// multiple of that (IEEE 802.11, power management: TIM and listen interval).
#[test]
fn a_clogged_link_releases_what_it_has_in_bursts_and_in_order() {
    let burst = "0@110 1@110 2@110 3@110 4@110 5@210 6@210 7@210 8@210 9@210";
    assert_eq!(heard_under("0s clog a every=100ms way=out"), (burst.to_owned(), PLAIN.to_owned()));
    assert_eq!(heard_under("0s clog * every=100ms"), (burst.to_owned(), burst.to_owned()));
    // What has been sent before the clog ends is still released with the burst.
    let ends = "0@110 1@110 2@110 3@71 4@91 5@111 6@131 7@151 8@171 9@191";
    let mut heard: Vec<&str> = ends.split(' ').collect();
    heard.sort_by_key(|one| one.split_once('@').unwrap().1.parse::<u32>().unwrap());
    assert_eq!(heard_under("0s clog a every=100ms way=out for=60ms").0, heard.join(" "));
}

/// Internet paths are asymmetric: Paxson, "End-to-End Routing Behavior in the Internet", 1996.
#[test]
fn one_direction_of_a_way_is_slow_and_the_other_is_not() {
    let slow = "0@111 1@131 2@151 3@171 4@191 5@211 6@231 7@251 8@271 9@291";
    let (at_b, at_a) = heard_under("0s latency a add=100ms jitter=0s way=out");
    assert_eq!((&*at_b, &*at_a), (slow, PLAIN));
    let (at_b, at_a) = heard_under("0s latency a add=100ms jitter=0s way=in");
    assert_eq!((&*at_b, &*at_a), (PLAIN, slow));
}

/// A route that becomes shorter reorders: Bennett, Partridge, Shectman, "Packet Reordering is Not Pathological Network
/// Behavior", 1999.
#[test]
fn packets_that_leave_after_a_latency_has_ended_overtake_those_before() {
    let (at_b, _) = heard_under("0s latency a add=100ms jitter=0s for=70ms");
    assert_eq!(at_b, "4@91 0@111 5@111 1@131 6@131 2@151 7@151 3@171 8@171 9@191");
}
