use super::*;
use chaos::{Host, World};

fn two_hosts(world: World) -> (Host, Host) {
    let server = world.host("server").addr("10.0.0.1").spawn(|| async { serve().await.unwrap() });
    (server, world.host("client").addr("10.0.0.2"))
}

async fn counts_to_ten(client: Host) {
    for expected in 1..=10 {
        let sum = client.run(async { add("server:7000").await.unwrap() }).await.unwrap();
        assert_eq!(sum, expected, "the server has counted wrong for the client");
    }
}

#[chaos::test]
async fn it_counts(world: World) {
    let (_server, client) = two_hosts(world);
    counts_to_ten(client).await;
}

use chaos::{LinkConfig, Rate};

#[chaos::test]
#[ignore = "fails on purpose; the tests of the guide run it"]
async fn it_counts_under_loss(world: World) {
    world.link_default(LinkConfig { udp_loss: Rate::percent(10), ..LinkConfig::default() });
    let (_server, client) = two_hosts(world);
    counts_to_ten(client).await;
}

use chaos::{Targets, Trial};

#[chaos::test(seeds = 50, faults = [Loss, Crash])]
#[ignore = "fails on purpose; the tests of the guide run it"]
async fn it_counts_after_a_crash(trial: Trial) {
    let (server, client) = two_hosts(trial.world);
    trial.start_faults(&Targets { hosts: vec![server], ..Targets::default() }, Duration::from_secs(30));
    for expected in 1..=10 {
        let sum = client.run(async { add("server:7000").await.unwrap() }).await.unwrap();
        assert_eq!(sum, expected, "the server has counted wrong for the client");
        trial.world.sleep(Duration::from_secs(3)).await;
    }
    trial.heal().await;
}
