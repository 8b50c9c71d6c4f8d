//! The hub model's faults: the effect of each on a real hub, and that its end restores the former state.
#![cfg(feature = "sim")]

use std::time::Duration;

use chaos::link::{Bandwidth, Burst, LinkConfig, Rate};
use chaos::net::End;
use chaos::property::Violation;
use chaos::{World, run};
use nurl::internals::node::Role;
use sim_scenarios::cluster::{Cluster, Traffic};
use sim_scenarios::models::nat_box::presets;
use sim_scenarios::stage::Stage;

const MEET: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(100);

/// A slow reader's bandwidth in bytes a second: less than it is sent.
const SLOW: u64 = 500;

/// Three offices behind symmetric NATs, so that all of their traffic passes the hub.
async fn offices(world: World) -> Result<Cluster, Violation> {
    let mut stage = Stage::new(world).hub("hub");
    for number in 1..=3 {
        stage = stage
            .behind_nat(&format!("office {number}"), presets::symmetric())
            .worker(&format!("in office {number}"));
    }
    stage.meet(MEET).await
}

#[test]
fn one_slow_reader_never_delays_another() {
    for seed in 1..=5 {
        let outcome = run(seed, |world| async move {
            let cluster = offices(world).await?;
            let [speaker, fast, slow] = &cluster.peers[..] else { unreachable!("there are three") };
            let traffic = Traffic::default();
            traffic.hear(world, fast).await;
            traffic.hear(world, slow).await;
            traffic.speak(world, speaker, vec![slow.key, fast.key], EVERY).await;
            let hub = &cluster.hubs[0];
            let heard = async |throttled: bool| {
                hub.throttle_client(slow.host, throttled.then_some(SLOW));
                world.sleep(Duration::from_secs(2)).await;
                let since = world.elapsed();
                world.sleep(Duration::from_secs(8)).await;
                let until = world.elapsed();
                let arrived = |key| traffic.count(speaker.key, key, since);
                let pause = traffic.longest_pause(speaker.key, fast.key, since, until);
                (arrived(fast.key), arrived(slow.key), pause)
            };
            let before = heard(false).await;
            let during = heard(true).await;
            // Time for the slow client's queue to drain.
            hub.throttle_client(slow.host, None);
            world.sleep(Duration::from_secs(60)).await;
            Ok::<_, Violation>((before, during, heard(false).await))
        });
        let (before, during, after) = outcome.result.unwrap().unwrap();
        for (fast, _, pause) in [before, during, after] {
            assert!(fast >= 75 && pause <= 3 * EVERY, "seed {seed}: {fast} heard, {pause:?} without any");
        }
        assert!(
            before.1 >= 75 && after.1 >= 75,
            "seed {seed}: it is slow only while it is: {before:?} {after:?}"
        );
        assert!(during.1 <= 40, "seed {seed}: the slow reader is slow: {during:?}");
    }
}

#[test]
fn a_hub_that_refuses_new_clients_keeps_the_old() {
    let outcome = run(1, |world| async move {
        let mut cluster = offices(world).await?;
        let hub = cluster.hubs[0].clone();
        let traffic = Traffic::start(world, &cluster, EVERY).await;
        hub.refuse_new(true);
        let newcomer = cluster.add("newcomer", world.internet(), Role::Worker);
        let since = world.elapsed();
        world.sleep(Duration::from_secs(20)).await;
        let met = cluster.view(&newcomer).await.len();
        let (a, b) = (&cluster.peers[0], &cluster.peers[1]);
        let pause = traffic.longest_pause(a.key, b.key, since, world.elapsed());
        let clients = hub.stats().clients;
        hub.refuse_new(false);
        cluster.converge(MEET).await?;
        Ok::<_, Violation>((met, pause, clients, hub.stats().clients))
    });
    let (met, pause, clients, then) = outcome.result.unwrap().unwrap();
    assert_eq!((met, clients, then), (0, 3, 4), "the newcomer met nobody, the others stayed");
    assert!(pause <= 3 * EVERY, "what it relays went on: {pause:?} without any");
}

#[test]
fn what_links_did_before_a_fault_they_do_after_it() {
    let outcome = run(1, |world| async move {
        let cluster = offices(world).await?;
        let (hub, office) = (&cluster.hubs[0], world.find_net("office 1").unwrap());
        let burst = Burst { begin: Rate::percent(1), end: Rate::percent(50), loss: Rate::percent(10) };
        let bandwidth = Bandwidth { bytes_per_second: 1 << 20, queue_bytes: 1 << 16 };
        let modem = LinkConfig { burst: Some(burst), bandwidth: Some(bandwidth), ..LinkConfig::default() };
        let (there, here): (End, End) = (hub.host.into(), office.into());
        world.set_link_both(there, here, &modem);
        // Loss at two rates in a row, then none.
        for rate in [Rate::percent(10), Rate::ALWAYS, Rate::NEVER] {
            hub.drop_fraction(rate);
        }
        for bytes in [Some(1_000), Some(SLOW), None] {
            hub.throttle(bytes);
        }
        let links = [world.link(there, here), world.link(here, there)];
        Ok::<_, Violation>(links.map(|link| link == modem))
    });
    assert_eq!(outcome.result.unwrap().unwrap(), [true, true]);
}
