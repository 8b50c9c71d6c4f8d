//! Names of hosts: how long a lookup takes, what it answers, and how it fails.

use crate::boxes::Cone;
use crate::support::{addr, ms, ok};
use chaos::scenario::{Options, Passed, Purpose, RunResult, Scenario, Trial};
use chaos::{Host, LinkConfig, Plan, Rate, Targets, World, run};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What a host finds, and how long that takes, in whole milliseconds.
async fn look(
    world: World,
    host: Host,
    name: &'static str,
) -> (Result<Vec<SocketAddr>, io::ErrorKind>, Duration) {
    let begun = world.elapsed();
    let found = host.run(async move { chaos::rt::net::lookup_host(name).await }).await.unwrap();
    // A poll takes some nanoseconds.
    let took = ms((world.elapsed() - begun).as_millis() as u64);
    (found.map_err(|error| error.kind()), took)
}

#[test]
fn a_lookup_takes_the_round_trip_of_the_way_out() {
    ok(run(1, |world| async move {
        world.internet().host("a", "203.0.113.1");
        let b = world.internet().host("b", "203.0.113.2");
        let home = world.internet().nat("home", &["203.0.113.3"], Cone::open());
        let c = home.host("c", "192.168.1.2");
        home.link_default(LinkConfig { latency: ms(100), ..LinkConfig::default() });
        let there = Ok(vec![addr("203.0.113.1:80")]);
        assert_eq!(look(world, b, "a:80").await, (there.clone(), ms(20)));
        assert_eq!(look(world, c, "a:80").await, (there, ms(220)));
        assert_eq!(look(world, b, "nobody:80").await, (Err(io::ErrorKind::NotFound), ms(20)));
        // A literal address and the host itself need no name server.
        assert_eq!(look(world, c, "203.0.113.1:80").await, (Ok(vec![addr("203.0.113.1:80")]), ms(0)));
        assert_eq!(look(world, c, "localhost:80").await, (Ok(vec![addr("127.0.0.1:80")]), ms(0)));
    }));
}

/// glibc's res_send(3) goes on to the next name server at once when a question can't be sent (ENETUNREACH), and waits for
/// `timeout` (5 s) `attempts` (2) times when no answer comes: resolv.conf(5). Either way getaddrinfo(3) says EAI_AGAIN, for
/// which the standard library has no kind.
#[test]
fn without_a_route_a_lookup_fails_at_once_and_without_an_answer_after_ten_seconds() {
    ok(run(1, |world| async move {
        world.internet().host("a", "203.0.113.1");
        let home = world.internet().nat("home", &["203.0.113.3"], Cone::open());
        let c = home.host("c", "192.168.1.2");
        let failed = Err(io::ErrorKind::Other);
        c.set_nic_up("eth0", false);
        assert_eq!(look(world, c, "a:80").await, (failed.clone(), ms(0)));
        c.set_nic_up("eth0", true);
        home.set_power(false);
        assert_eq!(look(world, c, "a:80").await, (failed.clone(), ms(10_000)));
        home.set_power(true);
        home.link_default(LinkConfig { udp_loss: Rate::ALWAYS, ..LinkConfig::ideal() });
        assert_eq!(look(world, c, "a:80").await, (failed, ms(10_000)));
    }));
}

#[test]
fn the_second_question_of_a_lookup_is_answered_when_the_way_is_there_again() {
    ok(run(1, |world| async move {
        world.internet().host("a", "203.0.113.1");
        let home = world.internet().nat("home", &["203.0.113.3"], Cone::open());
        let c = home.host("c", "192.168.1.2");
        home.set_power(false);
        let lookup = c.run(async { chaos::rt::net::lookup_host("a:80").await });
        world.sleep(ms(4_000)).await;
        home.set_power(true);
        let begun = world.elapsed();
        assert_eq!(lookup.await.unwrap().unwrap(), [addr("203.0.113.1:80")]);
        assert_eq!((world.elapsed() - begun).as_millis(), 1_020);
    }));
}

/// RFC 6724: a destination without a source address of its family is avoided (section 6, rule 1), and the default table
/// prefers IPv6 (section 2.1; rule 6).
#[test]
fn addresses_of_a_family_that_the_asker_has_come_first() {
    ok(run(1, |world| async move {
        world.internet().host("a", "203.0.113.1").addr("2001:db8::1").addr("203.0.113.9");
        let v4 = world.internet().host("v4", "203.0.113.2");
        let both = world.internet().host("both", "203.0.113.3").addr("2001:db8::3");
        let all = ["203.0.113.1:80", "203.0.113.9:80", "[2001:db8::1]:80"].map(addr);
        assert_eq!(look(world, v4, "a:80").await.0.unwrap(), all);
        let all = ["[2001:db8::1]:80", "203.0.113.1:80", "203.0.113.9:80"].map(addr);
        assert_eq!(look(world, both, "a:80").await.0.unwrap(), all);
    }));
}

const PLANNED: Scenario = Scenario {
    name: "names",
    about: "a host looks for another one under a given plan, which is healed at the end",
    purpose: Purpose::Proof,
    knobs: &[],
    faults: &[],
    points: &[],
    marks: &[],
    time_limit: Duration::from_secs(300),
    body: |trial| Box::pin(planned(trial)),
};

/// Looks for host `a`, which moves meanwhile, every 20 seconds, and once more when all is healed; the state tells what is
/// found.
async fn planned(trial: Trial) -> RunResult {
    let world = trial.world;
    let a = world.internet().host("a", "203.0.113.1");
    let b = world.internet().host("b", "203.0.113.2");
    let mut told = Vec::new();
    let mut tell =
        |(found, took): (Result<Vec<SocketAddr>, _>, Duration)| told.push(format!("{found:?} {took:?}"));
    trial.start_faults(&Targets::default(), Duration::from_secs(60));
    world.sleep(ms(1)).await;
    tell(look(world, b, "a:80").await);
    a.set_addrs("eth0", &["203.0.113.7"]);
    for _ in 0..2 {
        world.sleep(ms(20_000)).await;
        tell(look(world, b, "a:80").await);
    }
    let map = world.map();
    trial.heal().await;
    tell(look(world, b, "a:80").await);
    let troubled = map != world.map();
    Ok(Passed { state: format!("{} troubled={troubled}", told.join(", ")), ..Passed::default() })
}

/// What was found under a plan.
fn found(plan: &str) -> String {
    let plan: Plan = plan.parse().unwrap();
    PLANNED.run(&Options { plan: Some(plan), ..Options::seed(1) }).verdict.unwrap().state
}

/// A cache that serves records beyond their time to live: RFC 8767. A resolver that lies or has lost its upstream answers
/// NXDOMAIN or nothing; resolv.conf(5) has the timeouts.
#[test]
fn names_are_slow_fail_or_are_stale_under_a_plan_until_it_is_healed() {
    let (old, new) = ("Ok([203.0.113.1:80])", "Ok([203.0.113.7:80])");
    let (none, again) = ("Err(NotFound)", "Err(Other)");
    for (plan, expected) in [
        ("", [(old, "20ms"), (new, "20ms"), (new, "20ms"), (new, "20ms")]),
        ("0s dns-slow b add=7s", [(old, "7.02s"), (new, "7.02s"), (new, "7.02s"), (new, "20ms")]),
        ("0s dns-slow b add=10s for=38s", [(again, "10s"), (again, "10s"), (new, "20ms"), (new, "20ms")]),
        ("0s dns-fail b how=timeout for=38s", [(again, "10s"), (again, "10s"), (new, "20ms"), (new, "20ms")]),
        ("0s dns-fail b how=nxdomain", [(none, "20ms"), (none, "20ms"), (none, "20ms"), (new, "20ms")]),
        ("0s dns-stale a", [(none, "20ms"), (old, "20ms"), (old, "20ms"), (new, "20ms")]),
    ] {
        let expected = expected.map(|(found, took)| format!("{found} {took}")).join(", ");
        assert!(found(plan).starts_with(&expected), "{plan}: {} is not {expected}", found(plan));
        let lasts = !plan.is_empty() && !plan.contains("for=");
        assert!(found(plan).ends_with(&format!("troubled={lasts}")), "the map tells of {plan}");
    }
}
