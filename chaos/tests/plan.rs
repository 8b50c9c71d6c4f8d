//! Fault plans: their text, their effects on a world, and that no effect remains.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

mod support;

use chaos::middlebox::Modem;
use chaos::plan::Plan;
use chaos::rt::{disk, time};
use chaos::scenario::{Options, Passed, Purpose, RunResult, Scenario, Trial};
use chaos::{FaultKind, LinkConfig, Point, Rate, Targets};
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

proptest! {
    #[test]
    fn a_plans_text_is_the_plan(plan in support::plan("[ -~äß]{0,12}", 12)) {
        let text = plan.to_string();
        let read: Plan = text.parse().unwrap_or_else(|error| panic!("{error} in\n{text}"));
        prop_assert_eq!(&read, &plan, "{}", text);
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n]{0,80}") {
        let _ = text.parse::<Plan>();
    }
}

#[test]
fn a_person_may_write_a_plan() {
    let text = "
        # two faults, the later one first
        3s     crash  \"hub 1\"  for=1.5s   # for a while
        250ms  loss   box:home  way=out for=2s tcp=0 udp=30
    ";
    let plan: Plan = text.parse().unwrap();
    assert_eq!(
        plan.to_string(),
        "250ms loss box:home udp=30 tcp=0 way=out for=2s\n3s crash \"hub 1\" for=1.5s\n"
    );
}

#[test]
fn a_line_that_is_wrong_is_told_with_what_was_expected() {
    let error = |text: &str| text.parse::<Plan>().unwrap_err().to_string();
    let cases = [
        ("1s crash a\nsoon crash a", "line 2: expected a duration such as 250ms or 1.5s, found `soon`"),
        ("1s", "line 1: expected a kind of fault, found the end of the line"),
        ("1s explode a", "line 1: expected a kind of fault (loss, burst, KINDS), found `explode`"),
        ("1s crash", "line 1: expected the name of a host, found the end of the line"),
        ("1s crash a b", "line 1: expected no further target, found `b`"),
        ("1s loss a udp=30", "line 1: expected `tcp=`, found the end of the line"),
        ("1s loss a udp=130 tcp=0", "line 1: expected 0 to 100 for `udp=`, found `130`"),
        ("1s loss a udp=1 tcp=1 way=up", "line 1: expected `way=out` or `way=in`, found `up`"),
        ("1s partition a b", "line 1: expected `/` and a second group, found the end of the line"),
        ("1s restart a for=1s", "line 1: expected no `for=`: it is over at once, found `restart`"),
        ("1s crash a speed=9", "line 1: expected no such parameter, found `speed=9`"),
        ("1s crash \"a", "line 1: expected a closing quote, found `a`"),
        ("1s loss a udp=5 tcp=0 udp=5", "line 1: expected `udp=` once, found it twice"),
        (
            "1s disk-error a call=mount op=1",
            "line 1: expected `call=read`, `call=write` or `call=sync`, found `mount`",
        ),
        ("1s disk-flip a bit=1 for=1s", "line 1: expected no `for=`: it is over at once, found `disk-flip`"),
        ("1s disk-power-loss a op=0", "line 1: expected at least 1 for `op=`, found `0`"),
        ("1s latency a add=3153600001s jitter=0s", "line 1: expected a century at most, found `3153600001s`"),
        ("1s clock-step a by=1us", "line 1: expected whole milliseconds, found `1us`"),
        (
            "99999999999999999999s crash a",
            "line 1: expected a duration such as 250ms or 1.5s, found `99999999999999999999s`",
        ),
    ];
    let kinds: Vec<&str> = FaultKind::ALL[2..].iter().map(|kind| kind.as_str()).collect();
    for (text, expected) in cases {
        assert_eq!(error(text), expected.replace("KINDS", &kinds.join(", ")));
    }
}

const SPAN: Duration = Duration::from_secs(30);

const TOY: Scenario = Scenario {
    name: "toy",
    about: "four hosts and a box, every kind of fault, everything is as before when healed",
    purpose: Purpose::Proof,
    knobs: &[],
    faults: FaultKind::ALL,
    points: &[Point { name: "early", about: "a timer ends early" }],
    marks: &[],
    time_limit: Duration::from_secs(300),
    body: |trial| Box::pin(toy(trial)),
};

/// A box that lets everything out and nothing in.
struct Wall;

impl chaos::Middlebox for Wall {
    fn outbound(
        &mut self,
        _: &mut chaos::middlebox::Passage<'_>,
        _: &mut chaos::middlebox::Packet,
    ) -> chaos::middlebox::BoxVerdict {
        chaos::middlebox::BoxVerdict::Pass
    }

    fn inbound(
        &mut self,
        _: &mut chaos::middlebox::Passage<'_>,
        _: &mut chaos::middlebox::Packet,
    ) -> chaos::middlebox::BoxVerdict {
        chaos::middlebox::BoxVerdict::Refuse(chaos::middlebox::Refusal::NoMapping)
    }

    fn describe(&self) -> String {
        "wall".to_owned()
    }
}

/// Starts faults, heals a core halfway through and then everything, and compares the world with its first state.
async fn toy(trial: Trial) -> RunResult {
    let world = trial.world;
    let home = world.internet().nat("home", &["203.0.113.1"], Wall);
    world.internet().nat("yard", &[], Modem);
    let cell = world.internet().nat("cell", &["198.51.100.1"], Wall);
    let names = ["a", "b", "c"];
    let mut hosts: Vec<_> =
        names.iter().enumerate().map(|(n, name)| world.host(name).addr(&format!("10.0.0.{n}"))).collect();
    hosts.push(home.host("phone", "192.168.0.2"));
    let hub = world.host("hub").addr("10.0.1.1");
    for host in &hosts {
        host.spawn(std::future::pending);
    }
    hub.spawn(std::future::pending);
    let lossy = LinkConfig { udp_loss: Rate::percent(3), ..LinkConfig::default() };
    world.set_link(hosts[0], hosts[1], lossy);
    let all: Vec<_> = hosts.iter().copied().chain([hub]).collect();
    let state_of = |these: &[chaos::Host]| {
        let mut state = String::new();
        for host in these {
            let net = host.net("eth0").map(|net| net.name());
            state += &format!("{} {} {:?} {net:?}\n", host.name(), host.is_running(), host.addrs());
            let open =
                |host: &chaos::Host| !host.addrs().is_empty() && host.net("eth0") == Some(world.internet());
            for other in these.iter().filter(|other| open(host) && open(other) && *other != host) {
                state += &format!("{:?}\n", world.link(*host, *other));
            }
        }
        state
    };
    let state = || format!("{}{:?}", state_of(&all), home.outer_addrs());
    let core = [hosts[0], hosts[1], hub];
    let (before, core_before) = (state(), state_of(&core));
    let targets = Targets {
        hosts: hosts.clone(),
        hubs: vec![hub],
        nets: vec![home],
        havens: vec![(cell, [10, 64, 0, 8].into())],
        ..Targets::default()
    };
    trial.start_faults(&targets, SPAN);
    world.sleep(SPAN / 2).await;
    let halfway = state();
    trial.heal_core(&core).await;
    let (outside, core_after) = (state(), state_of(&core));
    if core_before != core_after {
        return Err(chaos::Violation::safety(
            "a healed core is as it was",
            format!("before:\n{core_before}\nafter:\n{core_after}"),
        ));
    }
    world.sleep(SPAN).await;
    assert_eq!(state(), outside, "outside of the core nothing begins and nothing ends");
    trial.heal().await;
    let after = state();
    if before != after {
        return Err(chaos::Violation::safety(
            "healing leaves nothing behind",
            format!("before:\n{before}\nafter:\n{after}"),
        ));
    }
    world.sleep(SPAN).await;
    assert_eq!(state(), after, "a healed plan goes on");
    let disturbed = match (halfway == before, outside == before) {
        (true, _) => "undisturbed",
        (false, true) => "disturbed",
        (false, false) => "disturbed, outside of the core for longer",
    };
    Ok(Passed { state: disturbed.to_owned(), notes: trial.plan().to_string() })
}

#[test]
fn a_healed_world_is_as_it_was() {
    let (mut disturbed, mut longer) = (0, 0);
    for seed in 0..60 {
        let report = TOY.run(&Options::seed(seed));
        let held = report.verdict.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        disturbed += usize::from(held.state.starts_with("disturbed"));
        longer += usize::from(held.state.ends_with("longer"));
        let unleashed = report.plan.unwrap();
        assert_eq!(unleashed.plan.to_string(), held.notes);
        assert!(unleashed.drawn.is_some());
    }
    assert!(disturbed > 40 && longer > 10, "{disturbed}, {longer}");
}

#[test]
fn a_drawn_plan_that_is_given_back_makes_the_same_run() {
    for seed in 0..10 {
        let drawn = TOY.run(&Options::seed(seed));
        assert!(drawn.verdict.is_ok(), "{:?}", drawn.verdict);
        let plan = drawn.plan.clone().unwrap().plan.to_string().parse().unwrap();
        let given = TOY.run(&Options { plan: Some(plan), ..Options::seed(seed) });
        assert_eq!(given.digest, drawn.digest, "seed {seed}");
        assert_eq!(given.plan.unwrap().drawn, None);
    }
}

#[test]
fn every_kind_is_drawn_and_a_kind_does_not_move_the_others() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let all = TOY.run(&Options::seed(seed)).plan.unwrap().plan;
        seen.extend(all.faults().iter().map(|planned| planned.fault.kind()));
        let without: &'static [FaultKind] =
            FaultKind::ALL.iter().copied().filter(|kind| *kind != FaultKind::Loss).collect::<Vec<_>>().leak();
        let fewer = Scenario { faults: without, ..TOY }.run(&Options::seed(seed)).plan.unwrap().plan;
        let kept = all.faults().iter().filter(|planned| planned.fault.kind() != FaultKind::Loss).cloned();
        assert_eq!(fewer, Plan::new(kept.collect()), "seed {seed}");
        let over = |planned: &chaos::plan::Planned| planned.at + planned.lasts.unwrap_or_default();
        assert!(all.faults().iter().all(|planned| over(planned) <= SPAN));
    }
    assert_eq!(seen.len(), FaultKind::ALL.len(), "{seen:?}");
}

#[test]
fn a_fault_without_a_target_is_skipped_and_told() {
    let plan = "1s crash nobody\n2s box-off internet\n3s roam a to=home ip=192.168.0.2\n".parse().unwrap();
    let report = TOY.run(&Options { plan: Some(plan), ..Options::seed(1) });
    let skipped = report.plan.unwrap().skipped;
    assert_eq!(
        skipped,
        [
            "fault 1 (1s crash nobody) was skipped: there is no host nobody",
            "fault 2 (2s box-off internet) was skipped: there is no network internet behind a box",
            "fault 3 (3s roam a to=home ip=192.168.0.2) was skipped: 192.168.0.2 is taken in home",
        ]
    );
}

/// A world of one host under a plan, sampled every 100 ms: `.` if the host runs, `x` if it doesn't.
fn lifeline(plan: &str) -> String {
    const WATCH: Scenario = Scenario {
        name: "watch",
        body: |trial| {
            Box::pin(async move {
                let host = trial.world.host("a").addr("10.0.0.1");
                host.spawn(|| async {
                    loop {
                        time::sleep(Duration::from_millis(90)).await;
                        let _ = disk::atomic_replace(Path::new("/a"), b"x");
                    }
                });
                trial.start_faults(&Targets::default(), SPAN);
                let mut state = String::new();
                for _ in 0..12 {
                    trial.world.sleep(Duration::from_millis(100)).await;
                    state.push(if host.is_running() { '.' } else { 'x' });
                }
                Ok(Passed { state, notes: String::new() })
            })
        },
        ..TOY
    };
    WATCH.run(&Options { plan: Some(plan.parse().unwrap()), ..Options::seed(1) }).verdict.unwrap().state
}

#[test]
fn an_address_that_a_host_cannot_have_is_skipped_and_told() {
    let plan = "
        0s nic-down b nic=eth0 for=5s
        1s roam a to=internet ip=127.0.0.1
        1s roam a to=internet ip=0.0.0.0
        1s roam a to=internet ip=224.0.0.1
        1s roam a to=internet ip=255.255.255.255
        1s roam a to=internet ip=10.0.0.1
        1s box-renumber home ip=::1
        1s box-renumber home ip=10.0.0.1
        1s roam a to=yard ip=10.0.1.1
        2s roam c to=yard ip=10.0.3.3 for=4s
        3s roam b to=internet ip=10.0.3.3
        4s roam b to=internet ip=10.0.0.2 for=4s
    ";
    let report = TOY.run(&Options { plan: Some(plan.parse().unwrap()), ..Options::seed(1) });
    report.verdict.unwrap();
    let unleashed = report.plan.unwrap();
    let why: Vec<&str> =
        unleashed.skipped.iter().map(|told| told.split_once(" was skipped: ").unwrap().1).collect();
    assert_eq!(
        why,
        [
            "127.0.0.1 can't be an interface's address",
            "0.0.0.0 can't be an interface's address",
            "224.0.0.1 can't be an interface's address",
            "255.255.255.255 can't be an interface's address",
            "10.0.0.1 is taken in internet",
            "::1 can't be an interface's address",
            "10.0.0.1 is taken in internet",
            "10.0.1.1 is taken in internet",
            "10.0.3.3 is taken in internet",
            "10.0.0.2 is taken in internet",
        ]
    );
    assert_eq!(unleashed.begun, 2);
}

#[test]
fn what_a_plan_names_wrongly_or_too_late_is_told() {
    let plan =
        "1s partition a bb / b\n2s partition aa / b\n100s crash nobody\n100s crash a\n".parse().unwrap();
    let report = TOY.run(&Options { plan: Some(plan), ..Options::seed(1) });
    report.verdict.unwrap();
    let unleashed = report.plan.unwrap();
    assert_eq!(unleashed.begun, 1);
    assert_eq!(
        unleashed.skipped,
        [
            "fault 1 (1s partition a bb / b) is not whole: there is no host bb",
            "fault 2 (2s partition aa / b) was skipped: there is no host aa",
            "fault 3 (100s crash nobody) was never due; there is no host nobody",
            "fault 4 (100s crash a) was never due: all was healed before",
        ]
    );
}

#[test]
fn a_host_is_up_again_when_the_last_fault_that_keeps_it_down_is_over() {
    assert_eq!(lifeline("150ms crash a for=300ms"), ".xxx........");
    assert_eq!(lifeline("150ms crash a for=300ms\n250ms power-loss a for=500ms"), ".xxxxxx.....");
    assert_eq!(lifeline("150ms crash a for=600ms\n250ms crash a for=100ms"), ".xxxxxx.....");
    assert_eq!(lifeline("150ms crash a"), ".xxxxxxxxxxx");
    assert_eq!(lifeline("150ms disk-crash a op=1000 for=300ms"), "............");
    // An armed crash keeps no host down, also after another fault has ended the process in which it is armed.
    assert_eq!(lifeline("150ms disk-crash a op=1000\n250ms crash a for=200ms"), "..xx........");
    // The host writes every 90 ms.
    for kind in ["disk-crash", "disk-power-loss"] {
        assert_eq!(lifeline(&format!("150ms {kind} a op=2 for=500ms")), "..xxxx......");
        assert_eq!(
            lifeline(&format!("150ms {kind} a op=2 for=500ms\n350ms crash a for=500ms")),
            "..xxxxxx...."
        );
        // Of two armed faults, the one that happens keeps the host down.
        let two = format!("150ms {kind} a op=1000\n160ms {kind} a op=2 for=300ms");
        assert_eq!(lifeline(&two), "..xx........");
    }
}
