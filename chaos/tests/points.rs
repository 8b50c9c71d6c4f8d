//! Points of a program: they fire only under their fault, are reached as marks, and each has to fire in a long sweep.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

use chaos::plan::HostFault;
use chaos::rt::{buggify, time};
use chaos::scenario::{Mark, Options, Passed, RunResult, Scenario, Trial};
use chaos::{FaultKind, Host, Point, Targets};
use std::collections::BTreeSet;
use std::time::Duration;

const SPAN: Duration = Duration::from_secs(20);

const HASTE: Scenario = Scenario {
    points: &[
        Point { name: "early", about: "a timer ends early" },
        Point { name: "never-asked", about: "nothing" },
    ],
    faults: &[FaultKind::Buggify],
    marks: &[Mark::within("a mark", 1)],
    ..Scenario::new("haste", "two hosts with a timer each", |trial| Box::pin(haste(trial)))
};

/// Two hosts wait a thousand times for ten milliseconds, or not at all where the point fires. The state has how often each
/// did not wait.
async fn haste(trial: Trial) -> RunResult {
    let world = trial.world;
    let start = |name: &str| {
        let host = world.host(name).addr(if name == "a" { "10.0.0.1" } else { "10.0.0.2" });
        let timer = host.run(async {
            let mut early = 0;
            for _ in 0..1_000 {
                match buggify("early") {
                    true => early += 1,
                    false => time::sleep(Duration::from_millis(10)).await,
                }
            }
            early
        });
        (host, timer)
    };
    let ((a, timer_a), (b, timer_b)) = (start("a"), start("b"));
    let hosts: Vec<Host> = vec![a, b];
    trial.start_faults(&Targets { hosts, ..Targets::default() }, SPAN);
    let (early_a, early_b) = (timer_a.await.unwrap(), timer_b.await.unwrap());
    trial.heal().await;
    assert!(!buggify("early"), "the scenario itself is no host");
    Ok(Passed { state: format!("{early_a} {early_b}"), notes: String::new() })
}

fn run(plan: &str) -> (usize, usize, chaos::scenario::Report) {
    let report = HASTE.run(&Options { plan: Some(plan.parse().unwrap()), ..Options::seed(1) });
    let state = report.verdict.clone().unwrap().state;
    let (a, b) = state.split_once(' ').unwrap();
    (a.parse().unwrap(), b.parse().unwrap(), report)
}

#[test]
fn a_point_fires_on_its_host_while_its_fault_lasts_and_is_reached_as_a_mark() {
    let (a, b, report) = run("");
    assert_eq!((a, b, report.marks.contains("early")), (0, 0, false));
    let (a, b, report) = run("0s buggify a point=early percent=100 for=1s\n");
    // The first question comes before the plan.
    assert_eq!((a, b, report.marks.contains("early")), (999, 0, true), "no time passes while it fires");
    let (a, b, _) = run("2s buggify b point=early percent=30 for=2s\n");
    // Of the two seconds, 200 waits are left; each is preceded by 0.43 that fire.
    assert!(a == 0 && (50..130).contains(&b), "{a} {b}");
    assert_eq!(report, HASTE.run(&report.options), "the same run again");
}

#[test]
fn a_plan_draws_points_of_the_scenario_and_refuses_others() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let report = HASTE.run(&Options::seed(seed));
        for planned in report.plan.unwrap().plan.faults() {
            let chaos::plan::Fault::Host { fault: HostFault::Buggify { point, percent }, .. } =
                &planned.fault
            else {
                panic!("{planned}")
            };
            assert!((1..=50).contains(percent));
            seen.insert(point.clone());
        }
    }
    assert_eq!(seen, ["early", "never-asked"].map(str::to_owned).into());
    let (_, _, report) = run("1s buggify a point=other percent=10 for=1s\n");
    assert_eq!(report.plan.unwrap().unknown, ["fault 1: the program has no point other"]);
}

#[test]
fn each_point_is_a_mark_that_a_long_sweep_must_reach() {
    let marks = |scenario: &Scenario| scenario.all_marks().map(|mark| mark.name).collect::<Vec<_>>();
    assert_eq!(marks(&HASTE), ["a mark", "early", "never-asked"]);
    assert_eq!(marks(&Scenario { faults: &[], ..HASTE }), ["a mark"], "none can fire without the fault");
}
