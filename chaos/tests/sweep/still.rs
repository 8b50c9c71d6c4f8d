//! Runs that stand still.

use crate::toy::{BLOCKED, TOY, sweep, swept};
use chaos::property::{PropertyKind, Violation};
use chaos::rt::{task, time};
use chaos::scenario::{Knob, KnobKind, Options, Passed, Scenario};
use chaos::shrink::Shrinker;
use chaos::sweep::{Sweep, SweepEvent};
use std::time::Duration;

#[test]
fn a_run_in_which_a_poll_does_not_return_does_not_silence_a_sweep() {
    // What is still to come is known while a run stands still.
    let mut totals = Vec::new();
    let swept =
        Sweep { patience: Duration::from_secs(3), jobs: 1, ..sweep(&[BLOCKED], 4) }.run(&mut |event| {
            if let SweepEvent::Progress(progress) = event {
                totals.push(progress.of);
            }
        });
    assert!(totals.len() > 2 && totals.iter().all(|of| *of == Some(4)), "{totals:?}");
    assert_eq!((swept.runs(), swept.skipped), (3, 0));
    let [stuck] = swept.stuck.as_slice() else { panic!("{:?}", swept.stuck) };
    assert_eq!((stuck.scenario.as_str(), stuck.seed), ("blocked", 2));
    assert!(stuck.doing.starts_with("a task of the scenario, spawned at "), "{}", stuck.doing);
    assert_eq!(swept.gravest(), Some(PropertyKind::Liveness));
}

#[test]
fn a_canary_whose_poll_does_not_return_does_not_silence_a_sweep() {
    let canary = Scenario {
        purpose: chaos::scenario::Purpose::Canary,
        name: "stays",
        body: |trial| {
            Box::pin(async move {
                let host = trial.world.host("a").addr("10.0.0.1");
                let blocked = host.run(async {
                    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
                    let _ = receiver.recv();
                });
                let _ = blocked.await;
                Ok(Passed::default())
            })
        },
        ..BLOCKED
    };
    let swept = swept(&Sweep { patience: Duration::from_secs(3), ..sweep(&[canary, BLOCKED], 1) });
    let [stuck] = swept.stuck.as_slice() else { panic!("{:?}", swept.stuck) };
    assert!(
        stuck.doing.starts_with("a task of host a, spawned at chaos/tests/sweep/still.rs:"),
        "{}",
        stuck.doing
    );
    assert_eq!((stuck.place, swept.canaries[0].found_in, swept.runs()), (None, None, 1));
}

/// The line below which the spinning task is spawned.
const SPAWNED_BELOW: u32 = line!();
fn spin(sleeps: bool) {
    task::spawn(async move {
        loop {
            if sleeps { time::sleep(Duration::ZERO).await } else { task::yield_now().await }
        }
    });
}

/// Hosts of which the last one's task wakes itself for ever: by a yield, or by a sleep that is over.
const SPINS: Scenario = Scenario {
    name: "spins",
    knobs: &[
        Knob { name: "hosts", about: "hosts", default: 4, least: 1, turns: KnobKind::Hosts },
        Knob { name: "sleeps", about: "whether it sleeps", default: 0, least: 0, turns: KnobKind::Length },
    ],
    marks: &[],
    faults: &[],
    body: |trial| {
        Box::pin(async move {
            let hosts = trial.knob("hosts");
            for n in 0..hosts {
                let (spins, sleeps) = (n + 1 == hosts, trial.knob("sleeps") > 0);
                trial.world.host(&format!("host {n}")).addr(&format!("10.0.0.{n}")).spawn(
                    move || async move {
                        let idle = task::spawn(async {
                            loop {
                                time::sleep(Duration::from_millis(10)).await;
                            }
                        });
                        if spins {
                            spin(sleeps);
                        }
                        let _ = idle.await;
                    },
                );
            }
            trial.world.sleep(Duration::from_secs(60)).await;
            Ok(Passed::default())
        })
    },
    ..TOY
};

#[test]
fn tasks_that_only_wake_themselves_break_liveness_and_are_named() {
    for sleeps in [0, 1] {
        let knobs = std::collections::BTreeMap::from([("sleeps".to_owned(), sleeps)]);
        let options = Options { knobs, ..Options::seed(3) };
        let report = SPINS.run(&options);
        let broken = report.verdict.clone().unwrap_err();
        assert_eq!(
            (broken.kind, broken.property.as_str()),
            (PropertyKind::Liveness, "virtual time moves on")
        );
        assert_eq!(
            (broken.host.as_deref(), broken.file.as_str()),
            (Some("host 3"), "chaos/tests/sweep/still.rs")
        );
        assert_eq!(broken.line, SPAWNED_BELOW + 2, "{broken:?}");
        assert!(broken.at < Duration::from_secs(1), "{broken:?}");
        assert_eq!(report, SPINS.run(&options), "the same seed stands still at the same poll");
    }
}

#[test]
fn a_run_that_spins_is_made_small() {
    let small = Shrinker::new(SPINS, 20).shrink(&SPINS.run(&Options::seed(3)), &mut |_| {});
    assert_eq!(small.knobs.first(), Some(&("hosts", 4, 1)), "{small}");
    assert_eq!(small.report.verdict.unwrap_err().host.as_deref(), Some("host 0"));
}

/// Fails with two steps, and blocks with one.
const BLOCKS_WITH_LESS: Scenario = Scenario {
    knobs: &[Knob { name: "steps", about: "", default: 2, least: 1, turns: KnobKind::Work }],
    ..Scenario::new("blocks with less", "it fails or blocks", |trial| {
        Box::pin(async move {
            if trial.knob("steps") == 1 {
                let (_sender, receiver) = std::sync::mpsc::channel::<()>();
                let _ = receiver.recv();
            }
            Err(Violation::safety("all is well", "it isn't"))
        })
    })
};

#[test]
fn a_shrink_goes_on_if_a_simpler_run_blocks() {
    let failing = BLOCKS_WITH_LESS.run(&Options::seed(1));
    let shrinker = Shrinker { patience: Duration::from_millis(600), ..Shrinker::new(BLOCKS_WITH_LESS, 20) };
    let small = shrinker.shrink(&failing, &mut |_| {});
    assert_eq!((small.knobs.len(), small.runs, small.gave_up), (0, 1, false), "{small}");
}
