//! Recipes: a run that leaves the run of its seed at an event.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::{LinkConfig, Rate, Run, RunOutcome};
use rand_core::Rng as _;
use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Two hosts over a link that loses and delays; one sends what it draws, and the scenario draws too. Returns all draws, with
/// the time of each.
fn made(seed: u64, recipe: &str) -> RunOutcome<Vec<(Duration, u64)>> {
    let run = Run::new(seed).recipe(recipe.parse().unwrap());
    run.run(|world| async move {
        world.link_default(LinkConfig {
            latency: Duration::from_millis(5),
            jitter: Duration::from_millis(20),
            udp_loss: Rate::percent(30),
            ..LinkConfig::ideal()
        });
        let port = |host: chaos::Host| SocketAddr::new(host.ip(), 9);
        let (a, b) = (world.host("a").addr("10.0.0.1"), world.host("b").addr("10.0.0.2"));
        let to = port(b);
        drop(b.run(async {
            let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 9))).await.unwrap();
            loop {
                let (mut buffer, mut meta) = ([0; 64], [RecvMeta::default()]);
                socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
            }
        }));
        let sent = a.run(async move {
            let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap();
            let mut rng = chaos::rt::rng("what is sent");
            let mut draws = Vec::new();
            for _ in 0..40 {
                let draw = rng.next_u64();
                draws.push((world.elapsed(), draw));
                let contents = &draw.to_le_bytes();
                let _ = socket.try_send(&Transmit {
                    destination: to,
                    contents,
                    segment_size: None,
                    src_ip: None,
                });
                time::sleep(Duration::from_millis(50)).await;
            }
            draws
        });
        sent.await.unwrap()
    })
}

#[test]
fn a_recipe_gives_the_same_bytes_each_time_and_others_than_its_seed() {
    let plain = made(7, "");
    let branched = made(7, "40:1");
    assert_eq!(branched.digest, made(7, "40:1").digest);
    let others = [made(7, "40:2"), made(7, "41:1"), made(7, "40:1,60:1"), made(8, "40:1")];
    for other in others.iter().chain([&plain]) {
        assert_ne!(branched.digest, other.digest);
    }
    // A branch behind the end changes nothing.
    assert_eq!(plain.digest, made(7, "1000000:1").digest);
}

#[test]
fn a_run_is_that_of_its_seed_until_the_branch_and_another_after_it() {
    let (plain, branched) = (made(7, "").result.unwrap(), made(7, "60:1").result.unwrap());
    let same = plain.iter().zip(&branched).take_while(|(left, right)| left == right).count();
    assert!((5..35).contains(&same), "{same}");
    // A program's stream is another from then on, and so is the second branch from the first one on.
    assert!(plain[same..].iter().zip(&branched[same..]).all(|(left, right)| left.1 != right.1));
    let twice = made(7, "60:1,70:2").result.unwrap();
    let longer = twice.iter().zip(&branched).take_while(|(left, right)| left == right).count();
    assert!(longer > same && longer < 40, "{longer}");
}

#[test]
fn the_fates_of_packets_follow_the_branch_too() {
    // Loss is decided by the links' streams alone.
    let lost = |recipe: &str| made(7, recipe).stats.dropped(chaos::DropCause::Loss);
    let counts: BTreeSet<u64> = (1..9).map(|seed| lost(&format!("10:{seed}"))).collect();
    assert!(counts.len() > 2, "{counts:?}");
}

#[test]
fn the_order_of_tasks_follows_the_branch_too() {
    let order = |recipe: &str| {
        let run = Run::new(7).recipe(recipe.parse().unwrap());
        let outcome = run.run(|world| async move {
            let order = Arc::new(Mutex::new(Vec::new()));
            let host = world.host("a").addr("10.0.0.1");
            for me in 0..6 {
                let order = order.clone();
                drop(host.run(async move {
                    for round in 0..10 {
                        time::sleep(Duration::from_millis(10)).await;
                        order.lock().unwrap().push(me);
                        world.note(&format!("{me} in {round}"));
                    }
                }));
            }
            world.sleep(Duration::from_secs(1)).await;
            order.lock().unwrap().clone()
        });
        outcome.result.unwrap()
    };
    let plain = order("");
    let same =
        |recipe: &str| order(recipe).iter().zip(&plain).take_while(|(left, right)| left == right).count();
    assert_eq!(same("1000:1"), 60);
    let branched = same("30:1");
    assert!((20..60).contains(&branched), "{branched}");
}
